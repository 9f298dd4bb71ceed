"""Figures of a folder or PDF cut into single images: which files, by what, and where panels and their table are left."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from medssl_jax.errors import UserError
from medssl_jax.figures.clef import BOX
from medssl_jax.figures.content import with_labels
from medssl_jax.figures.looks import PHOTOGRAPH, PLOT, is_blank, looks
from medssl_jax.figures.panels import Part, Row, current, line, share_of, stamp, write_lines
from medssl_jax.figures.partition import crops
from medssl_jax.figures.read import Figure, figure_files, figures_of, name_of
from medssl_jax.figures.sheet import key_of, save_thumbnail, thumbnail, write_sheet
from medssl_jax.figures.xycut import xycut
from medssl_jax.machine import cores
from medssl_jax.train.logging import read_json, say

RECORD, TABLE = "separate.json", "panels.csv"
PANELS = {PHOTOGRAPH: "photographs", PLOT: "plots"}  # so that the photographs alone are a data set
THUMBNAILS, PARTS = "thumbnails", "parts"
GROUP = 16  # figures that are cut at a time
AHEAD = 4  # files that are read beyond them
LAZY = (".pdf", ".tif", ".tiff")  # files of any number of figures, read one by one
TELL = 10.0  # seconds between lines where there is no terminal
FAST = 1  # PNG's level of compression: files 8 % larger than at the usual one, written in a third of the time

Boxes = tuple[np.ndarray, np.ndarray]  # float32 [N, 4] pixel corners x0, y0, x1, y1 (the last two outside), and scores [N]
Find = Callable[[Sequence[np.ndarray]], Sequence[Boxes]]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be cut, how, and which share of the files. Raises UserError for a share that is none, and for a run without a detector."""

    figures: Path
    out: Path
    method: str = "detector"
    run: Path | None = None
    pad: int = 0
    boxes: str = "tight"
    min_side: int = 32
    shard: str = "1/1"

    def __post_init__(self) -> None:
        number, count = self.share
        if not 1 <= number <= count:
            raise UserError(f"--shard={self.shard} is no share of the files; write i/n with i from 1 to n, like --shard=1/4.")
        if self.run is not None and self.method != "detector":
            raise UserError(f"--run={self.run} is a detector's, and --method={self.method} needs none; leave out one of them.")

    @property
    def share(self) -> tuple[int, int]:
        """Which one of how many, from 1; (0, 0) where that cannot be read."""
        number, _, count = self.shard.partition("/")
        return (int(number), int(count)) if number.isdecimal() and count.isdecimal() else (0, 0)

    def record(self, detector: str) -> dict[str, object]:
        """What all shares have in common, as JSON: the options, and which detector it is (`Detector.mark`; "" for none)."""
        own = {"pad": self.pad, "boxes": self.boxes, "min_side": self.min_side, "shards": self.share[1]}
        return {"figures": str(self.figures.resolve()), "method": self.method, "detector": detector, **own}

    def part(self, number: int) -> Part:
        """The lines of a share."""
        return Part(self.out / PARTS, number, self.share[1])


def separate(task: Task) -> None:
    """Cut the figures of the task that are not cut yet; where no share is missing then, join all to panels.csv and index.html.

    What was cut out of figures that are gone or were changed since is removed. Raises UserError where there is no figure, no detector,
    where `out` holds other results or another process writes this share, and where not one figure could be cut.
    """
    number, count = task.share
    files = {name_of(file, task.figures): file for file in figure_files(task.figures)}
    stamps = {name: stamp(file) for name, file in files.items()}
    find = finder(task)
    _claim(task, task.record(getattr(find, "mark", "")))
    part = task.part(number)
    with part.held():
        kept, old = current(part.lines(), stamps)
        done = {one["source"] for one in kept}
        waiting = {name: file for name, file in files.items() if share_of(name, count) == number and name not in done}
        _forget(task, old)
        if waiting or old or not part.finished.exists():
            part.extend(kept, _told(cut(task, waiting, find), len(waiting)) if waiting else ())
    _join(task, stamps)


def cut(task: Task, files: Mapping[str, Path], find: Find) -> Iterator[list[Row]]:
    """The lines of panels.csv of each file (by its name as a source), its crops and thumbnails written."""
    stamps = {name: stamp(file) for name, file in files.items()}
    with ThreadPoolExecutor(cores()) as pool:
        figures = _ahead(pool, files, task.min_side)
        lines = itertools.chain.from_iterable(_cut_group(task, pool, find, group) for group in _grouped(figures))
        for source, own in itertools.groupby(lines, key=lambda one: one["source"]):
            yield [{**one, "stamp": stamps[source]} for one in own]


def _claim(task: Task, told: Mapping[str, object]) -> None:
    """Make `out` this command's own, with the record `told`. Raises UserError where it is another's, or lies among the figures."""
    out, record = task.out, task.out / RECORD
    if task.figures.is_dir() and out.resolve().is_relative_to(task.figures.resolve()):
        raise UserError(f"--out={out} lies in the folder of the figures, where panels would be taken for figures; choose another.")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; choose a folder, new or empty.")
    foreign = out.is_dir() and any(RECORD not in path.name for path in out.iterdir())
    if not record.exists():  # asked last: another share may have begun meanwhile
        if foreign:
            raise UserError(f"{out} holds files but no separated figures (no {RECORD}); choose an empty or new --out.")
        out.mkdir(parents=True, exist_ok=True)
        partial = record.with_name(f"{RECORD}.{task.share[0]}.partial")
        partial.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        partial.replace(record)
    theirs = read_json(record, dict, "choose another --out")
    differ = [key for key, value in told.items() if theirs.get(key) != value]
    if differ:
        there, here = theirs.get(differ[0]), told[differ[0]]
        raise UserError(f"{out} holds what was cut with {differ[0]}={there}, and it is {here} here; choose another --out.")


def finder(task: Task) -> Find:
    """How the task finds panels in figures. Raises UserError where it needs a detector that does not exist."""
    if task.method == "xycut":
        return _cut_blank_lines
    from medssl_jax.figures.detect import Detector  # takes seconds to import, which the whitespace cut can do without

    return Detector.load(task.run)


def _cut_blank_lines(images: Sequence[np.ndarray]) -> list[Boxes]:
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(xycut, images))


def _ahead(pool: ThreadPoolExecutor, files: Mapping[str, Path], smallest: int) -> Iterator[Figure]:
    """The figures of all files, in order; images are read by other threads, some ahead of those that are asked for."""
    waiting: deque[Future[list[Figure]] | Iterator[Figure]] = deque()
    for name, file in files.items():
        read = figures_of(file, name, smallest)
        waiting.append(read if file.suffix.lower() in LAZY else pool.submit(list, read))
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
    if figure.image is None or found is None:
        return [line(**about, error=figure.error or f"{figure.source} is blank, so there is nothing to cut; leave it out.")]
    image, (boxes, scores) = figure.image, found
    boxes = with_labels(image, boxes) if task.boxes == "labelled" else boxes
    places, which = crops(boxes, image.shape[1], image.shape[0], task.boxes == "partition", task.pad, task.min_side)
    if not len(places):
        small = f"{figure.source} has no panel of {task.min_side} px a side; lower --min-side to keep smaller ones."
        return [line(**about, error=small)]
    lines, kinds = [], []
    for number, ((x0, y0, x1, y1), index) in enumerate(zip(places, which, strict=True), 1):
        panel = np.ascontiguousarray(image[y0:y1, x0:x1])
        kinds.append(looks(panel))
        path = _path(task.out / PANELS[kinds[-1]], about, f"_{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(panel).save(path, compress_level=FAST)
        box = dict(zip(BOX, (figure.scale * np.array([x0, y0, x1, y1])).tolist(), strict=True))
        size = {"width": panel.shape[1], "height": panel.shape[0], "score": f"{scores[index]:.4f}" if index >= 0 else ""}
        crop = path.relative_to(task.out).as_posix()
        lines.append(line(**about, panel=number, **box, **size, looks=kinds[-1], crop=crop))
    save_thumbnail(_path(task.out / THUMBNAILS, about, ".jpg"), thumbnail(image, places, kinds))
    return lines


def _path(folder: Path, about: Mapping[str, Any], ending: str) -> Path:
    """A file of a figure: `a/b.png` becomes a/b_png, with page and number where the file can have several."""
    source = PurePosixPath(about["source"])
    page = f"_p{about['page']}_{about['figure']}" if source.suffix.lower() in LAZY else ""
    return folder / source.parent / f"{source.stem}_{source.suffix[1:]}{page}{ending}"


def _told(lines: Iterator[list[Row]], count: int) -> Iterator[list[Row]]:
    """The same, with a bar on a terminal and a line now and then elsewhere."""
    begun = said = time.perf_counter()
    bar = tqdm(total=count, desc="separate", unit="file", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    for done, own in enumerate(lines, 1):
        yield own
        bar.update()
        now = time.perf_counter()
        if bar.disable and (now - said > TELL or done == count):
            said = now
            say(f"separate: {done}/{count} files, {done / (now - begun):.1f} files/s, {(count - done) * (now - begun) / done:.0f} s left")
    bar.close()


def _forget(task: Task, lines: Sequence[Row]) -> None:
    """Remove what was left of figures as they no longer are."""
    for one in lines:
        _path(task.out / THUMBNAILS, one, ".jpg").unlink(missing_ok=True)
        if one["crop"]:
            (task.out / one["crop"]).unlink(missing_ok=True)


def _join(task: Task, stamps: Mapping[str, str]) -> None:
    """Write panels.csv and index.html of all shares. Raises UserError where not one figure was cut."""
    number, count = task.share
    parts = [task.part(n + 1) for n in range(count)]
    lines = [one for part in parts if part.finished.exists() for one in current(part.lines(), stamps)[0]]
    left = Counter(share_of(source, count) for source in stamps.keys() - {one["source"] for one in lines})
    if left:
        to_go = ", ".join(f"--shard={share}/{count} has {left[share]}" for share in sorted(left))
        say(f"share {number} of {count} is cut; files to go: {to_go}. The last of them writes {task.out / TABLE}.")
        return
    lines.sort(key=lambda one: (one["source"], int(one["page"]), int(one["figure"]), int(one["panel"] or 0)))
    write_lines(task.out / TABLE, lines, f"{number}.partial")
    cut_ones = {key_of(one): _path(task.out / THUMBNAILS, one, ".jpg") for one in lines if one["crop"]}
    page = write_sheet(task.out, lines, cut_ones, str(number))
    if not cut_ones:
        raise UserError(f"none of the {len(lines)} figures of {task.figures} could be cut; the first: {lines[0]['error']}")
    kinds = Counter(one["looks"] for one in lines)
    there = " and ".join(f"{kinds[kind]} panels in {task.out / folder}" for kind, folder in PANELS.items())
    say(f"{len(set(map(key_of, lines)))} figures, of which {len(cut_ones)} were cut: {there}; see {page} and {task.out / TABLE}")
