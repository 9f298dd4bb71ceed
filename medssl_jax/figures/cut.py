"""Files into crops, thumbnails and the lines of their table: read ahead, looked at some at a time, written by several threads."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
from medssl_jax.figures.task import PANELS, THUMBNAILS, Task, path_of
from medssl_jax.machine import cores

GROUP = 16  # figures that are cut at a time
AHEAD = 4  # files that are read beyond them
FAST = 1  # PNG's level of compression: files 8 % larger than at the usual one, written in a third of the time

Boxes = tuple[np.ndarray, np.ndarray]  # float32 [N, 4] pixel corners x0, y0, x1, y1 (the last two outside), and scores [N]
Find = Callable[[Sequence[np.ndarray]], Sequence[Boxes]]


def cut(task: Task, files: Mapping[str, Path], find: Find) -> Iterator[list[Row]]:
    """The lines of panels.csv of each file (by its name as a source), its crops and thumbnails written."""
    stamps = {name: stamp(file) for name, file in files.items()}
    with ThreadPoolExecutor(cores()) as pool:
        figures = _ahead(pool, files, task.min_side)
        lines = itertools.chain.from_iterable(_cut_group(task, pool, find, group) for group in _grouped(figures))
        for source, own in itertools.groupby(lines, key=lambda one: one["source"]):
            yield [{**one, "stamp": stamps[source]} for one in own]


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
        ahead = reader.submit(lambda: list(itertools.islice(figures, GROUP)))
        while group := ahead.result():
            ahead = reader.submit(lambda: list(itertools.islice(figures, GROUP)))
            yield group


def _cut_group(task: Task, pool: ThreadPoolExecutor, find: Find, group: list[Figure]) -> list[Row]:
    """The lines of some figures, which are looked at together."""
    blank = list(pool.map(lambda figure: figure.image is None or is_blank(figure.image), group))
    seen = [figure.image for figure, nothing in zip(group, blank, strict=True) if figure.image is not None and not nothing]
    found = iter(find(seen) if seen else ())
    each = [None if nothing else next(found) for nothing in blank]
    return list(itertools.chain.from_iterable(pool.map(lambda pair: _save(task, *pair), zip(group, each, strict=True))))


def _save(task: Task, figure: Figure, found: Boxes | None) -> list[Row]:
    """Write the crops of a figure and its thumbnail; their lines, or one that says why there is none."""
    about = {"source": figure.source, "page": figure.page, "figure": figure.number}
    named = where(figure.source, figure.page, figure.number)
    if figure.image is None or found is None:
        return [line(**about, error=figure.error or sentence(named, "is blank, so there is nothing to cut; leave it out"))]
    places, scores = _panels(task, figure.image, found)
    if not len(places):
        small = f"has no panel of {task.min_side} px a side that shows anything; lower --min-side to keep smaller ones"
        return [line(**about, error=sentence(named, small))]
    numbered = enumerate(zip(places, scores, strict=True), 1)
    lines = [_leave(task, figure, {**about, "panel": number, "score": score}, place) for number, (place, score) in numbered]
    shown = thumbnail(figure.image, places, [one["looks"] for one in lines])
    save_thumbnail(path_of(task.out / THUMBNAILS, about, ".jpg"), shown)
    return lines


def _panels(task: Task, image: np.ndarray, found: Boxes) -> tuple[np.ndarray, list[str]]:
    """Which panels of a figure are kept, int64 [N, 4], and their scores ("" where nothing was found): no small and no blank ones."""
    boxes, scores = found
    boxes = with_labels(image, boxes) if task.boxes == "labelled" else boxes
    places, which = crops(boxes, image.shape[1], image.shape[0], task.boxes == "partition", task.pad, task.min_side)
    kept = [k for k, (x0, y0, x1, y1) in enumerate(places) if not is_blank(image[y0:y1, x0:x1])]
    return places[kept], [f"{scores[index]:.4f}" if index >= 0 else "" for index in which[kept]]


def _leave(task: Task, figure: Figure, about: Mapping[str, Any], place: np.ndarray) -> Row:
    """Write the crop at a place (x0, y0, x1, y1) of a figure; its line."""
    assert figure.image is not None
    x0, y0, x1, y1 = place
    panel = np.ascontiguousarray(figure.image[y0:y1, x0:x1])
    kind = looks(panel)
    path = path_of(task.out / PANELS[kind], about, f"_{about['panel']}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(panel).save(path, compress_level=FAST)
    box = dict(zip(BOX, (figure.scale * place).tolist(), strict=True))
    crop = path.relative_to(task.out).as_posix()
    return line(**about, **box, width=panel.shape[1], height=panel.shape[0], looks=kind, crop=crop)
