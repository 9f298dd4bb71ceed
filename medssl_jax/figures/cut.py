"""Files into crops, thumbnails and the lines of their table: read ahead, looked at some at a time, written by several threads.

The lines come before the files that they name: whoever is killed in between leaves no file that nobody knows of.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medssl_jax.figures.clef import BOX
from medssl_jax.figures.content import with_labels
from medssl_jax.figures.files import MANY
from medssl_jax.figures.looks import is_blank, looks
from medssl_jax.figures.panels import Row, line, stamp
from medssl_jax.figures.partition import crops
from medssl_jax.figures.read import Figure, figures_of, sentence, where
from medssl_jax.figures.sheet import save_thumbnail, thumbnail
from medssl_jax.figures.task import PANELS, THUMBNAILS, Task, partial_of, path_of
from medssl_jax.machine import cores

GROUP = 16  # figures that are cut at a time, or fewer:
PIXELS = 100_000_000  # that they have together, but for the last one
AHEAD = 4  # files that are read beyond them
FAST = 1  # PNG's level of compression: files 8 % larger than at the usual one, written in a third of the time

Boxes = tuple[np.ndarray, np.ndarray]  # float32 [N, 4] pixel corners x0, y0, x1, y1 (the last two outside), and scores [N]
Find = Callable[[Sequence[np.ndarray]], Sequence[Boxes]]


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What becomes of a figure: its lines, its crops uint8 [h, w, 3] in the same order, and its thumbnail (None where nothing was cut)."""

    lines: list[Row]
    crops: Sequence[np.ndarray] = ()
    shown: Image.Image | None = None


def cut(task: Task, files: Mapping[str, Path], find: Find) -> Iterator[list[Row]]:
    """The lines of panels.csv of all files (by their names as sources), in their order, those of some figures at a time.

    The crops and thumbnails of these are written from when the next lines are asked for, and all of them before the end.
    """
    stamps = {name: stamp(file) for name, file in files.items()}
    writing: list[Future[None]] = []
    with ThreadPoolExecutor(cores()) as pool:
        for group in _grouped(_ahead(pool, files, task.min_side)):
            pieces = _cut_group(task, pool, find, group)
            for one in writing:
                one.result()
            yield [{**row, "stamp": stamps[row["source"]]} for piece in pieces for row in piece.lines]
            writing = [pool.submit(_write, task.out, piece) for piece in pieces]
        for one in writing:
            one.result()


def _ahead(pool: ThreadPoolExecutor, files: Mapping[str, Path], smallest: int) -> Iterator[Figure]:
    """The figures of all files, in order; images are read by other threads, some ahead of those that are asked for."""
    waiting: deque[Future[list[Figure]] | Iterator[Figure]] = deque()
    for name, file in files.items():
        read = figures_of(file, name, smallest)
        waiting.append(read if file.suffix.lower() in MANY else pool.submit(list, read))
        if len(waiting) > AHEAD:
            first = waiting.popleft()
            yield from first.result() if isinstance(first, Future) else first
    for last in waiting:
        yield from last.result() if isinstance(last, Future) else last


def _grouped(figures: Iterator[Figure]) -> Iterator[list[Figure]]:
    """Some figures at a time; the next ones are read, by another thread, while these are cut."""
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(_some, figures)
        while group := ahead.result():
            ahead = reader.submit(_some, figures)
            yield group


def _some(figures: Iterator[Figure]) -> list[Figure]:
    """The next GROUP figures, or as many as have PIXELS."""
    group: list[Figure] = []
    pixels = 0
    for figure in itertools.islice(figures, GROUP):
        group.append(figure)
        pixels += 0 if figure.image is None else figure.image.size // 3
        if pixels > PIXELS:
            break
    return group


def _cut_group(task: Task, pool: ThreadPoolExecutor, find: Find, group: list[Figure]) -> list[Pieces]:
    """Some figures, which are looked at together."""
    blank = list(pool.map(lambda figure: figure.image is None or is_blank(figure.image), group))
    seen = [figure.image for figure, nothing in zip(group, blank, strict=True) if figure.image is not None and not nothing]
    found = iter(find(seen) if seen else ())
    each = [None if nothing else next(found) for nothing in blank]
    return list(pool.map(partial(_pieces, task), group, each))


def _pieces(task: Task, figure: Figure, found: Boxes | None) -> Pieces:
    """Those of a figure, or a line that says why there are none."""
    about = {"source": figure.source, "page": figure.page, "figure": figure.number}
    named = where(figure.source, figure.page, figure.number)
    if figure.image is None or found is None:
        return Pieces([line(**about, error=figure.error or sentence(named, "is blank, so there is nothing to cut; leave it out"))])
    places, scores = _panels(task, figure.image, found)
    if not len(places):
        small = f"has no panel of {task.min_side} px a side that shows anything; lower --min-side to keep smaller ones"
        return Pieces([line(**about, error=sentence(named, small))])
    crops = [np.ascontiguousarray(figure.image[y0:y1, x0:x1]) for x0, y0, x1, y1 in places]
    numbered = enumerate(zip(crops, places, scores, strict=True), 1)
    lines = [_line({**about, "panel": number, "score": score}, panel, figure.stored(place)) for number, (panel, place, score) in numbered]
    return Pieces(lines, crops, thumbnail(figure.image, places, [one["looks"] for one in lines]))


def _panels(task: Task, image: np.ndarray, found: Boxes) -> tuple[np.ndarray, list[str]]:
    """Which panels of a figure are kept, int64 [N, 4], and their scores ("" where nothing was found): no small and no blank ones."""
    boxes, scores = found
    boxes = with_labels(image, boxes) if task.boxes == "labelled" else boxes
    places, which = crops(boxes, image.shape[1], image.shape[0], task.boxes == "partition", task.pad, task.min_side)
    kept = [k for k, (x0, y0, x1, y1) in enumerate(places) if not is_blank(image[y0:y1, x0:x1])]
    return places[kept], [f"{scores[index]:.4f}" if index >= 0 else "" for index in which[kept]]


def _line(about: Mapping[str, Any], panel: np.ndarray, corners: np.ndarray) -> Row:
    """The line of a panel uint8 [h, w, 3] at these corners (x0, y0, x1, y1) of the stored figure."""
    kind = looks(panel)
    box = dict(zip(BOX, corners.tolist(), strict=True))
    crop = path_of(Path(PANELS[kind]), about, f"_{about['panel']}.png").as_posix()
    return line(**about, **box, width=panel.shape[1], height=panel.shape[0], looks=kind, crop=crop)


def _write(out: Path, pieces: Pieces) -> None:
    """Write the thumbnail of a figure, then its crops, each whole or not at all: where these are there, so is that."""
    if pieces.shown is not None:
        save_thumbnail(path_of(out / THUMBNAILS, pieces.lines[0], ".jpg"), pieces.shown)
    for one, panel in zip(pieces.lines, pieces.crops):
        path = out / one["crop"]
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = partial_of(path)
        Image.fromarray(panel).save(unfinished, "PNG", compress_level=FAST)
        unfinished.replace(path)
