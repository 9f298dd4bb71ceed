"""Figures of a folder or PDF cut into single images: which files, by what, and one table of all that was cut."""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from medssl_jax.errors import UserError
from medssl_jax.figures.claim import claim
from medssl_jax.figures.cut import Boxes, Find, cut
from medssl_jax.figures.files import Found, find, named
from medssl_jax.figures.panels import UNSURE, Row, current, settled, share_of, stamp, write_lines
from medssl_jax.figures.sheet import key_of, write_sheet
from medssl_jax.figures.task import PANELS, RECORD, TABLE, THUMBNAILS, Task, partial_of, path_of
from medssl_jax.figures.xycut import xycut
from medssl_jax.machine import cores
from medssl_jax.report.words import counted
from medssl_jax.train.logging import say

TELL = 10.0  # seconds between lines where there is no terminal


def separate(task: Task) -> None:
    """Cut the figures of the task that are not cut yet; where no share is missing then, join all to panels.csv and index.html.

    What was cut out of figures that are gone or were changed since is removed. Raises UserError where there is no figure, no detector,
    where `out` holds other results or another process writes this share, and where not one figure could be cut.
    """
    number, count = task.share
    warnings.filterwarnings("ignore", module="PIL")  # of damage that it mends, without the file's name
    found = find(task.figures)
    files = named(found.files, task.figures)
    stamps = {name: stamp(file) for name, file in files.items()} | _out_of_sight(task, found)
    detect = finder(task)
    _check_apart(task, found)
    claim(task.out, RECORD, task.record(getattr(detect, "mark", "")))
    part = task.part(number)
    with part.held():
        kept, old = settled(part.lines(), stamps, lambda one: one["source"] not in files or _whole(task.out, one))
        done = {one["source"] for one in kept}
        waiting = {name: file for name, file in files.items() if share_of(name, count) == number and name not in done}
        _forget(task, old)
        if waiting or old or not part.finished.exists():
            part.extend(kept, _told(cut(task, waiting, detect), len(waiting)) if waiting else ())
    _join(task, files.keys(), stamps, found.left_out)


def _out_of_sight(task: Task, found: Found) -> dict[str, str]:
    """The stamps that figures had which lie in folders that may not be read now: what was cut out of them is kept."""
    folders = tuple(f"{folder}/" for folder in found.closed)
    lines = [one for number in range(task.share[1]) for one in task.part(number + 1).lines()] if folders else []
    return {one["source"]: one["stamp"] for one in lines if one["source"].startswith(folders) and one["stamp"] != UNSURE}


def _whole(out: Path, one: Row) -> bool:
    """Whether a figure was cut (what hindered it may be gone by now), and its crop and thumbnail are there."""
    return not one["error"] and (out / one["crop"]).exists() and path_of(out / THUMBNAILS, one, ".jpg").exists()


def _check_apart(task: Task, found: Found) -> None:
    """Raises UserError where `out` lies among the figures."""
    real = task.out.resolve()
    if not found.folders.isdisjoint((real, *real.parents)):
        raise UserError(f"--out={task.out} lies in the folder of the figures, where panels would be taken for figures; choose another.")


def finder(task: Task) -> Find:
    """How the task finds panels in figures. Raises UserError where it needs a detector that does not exist."""
    if task.method == "xycut":
        return _cut_blank_lines
    from medssl_jax.figures.detect import Detector  # takes seconds to import, which the whitespace cut can do without

    return Detector.load(task.run)


def _cut_blank_lines(images: Sequence[np.ndarray]) -> list[Boxes]:
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(xycut, images))


def _told(lines: Iterator[list[Row]], count: int) -> Iterator[list[Row]]:
    """The same, with a bar on a terminal and a line now and then elsewhere."""
    begun = said = time.perf_counter()
    bar = tqdm(total=count, desc="separate", unit="file", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    seen: set[str] = set()
    for own in lines:
        yield own
        seen.update(one["source"] for one in own)
        done, now = len(seen), time.perf_counter()
        bar.update(done - bar.n)
        if bar.disable and (now - said > TELL or done == count):
            said = now
            say(f"separate: {done}/{count} files, {done / (now - begun):.1f} files/s, {(count - done) * (now - begun) / done:.0f} s left")
    bar.close()


def _forget(task: Task, lines: Sequence[Row]) -> None:
    """Remove what was left of figures as they no longer are, or that were not finished."""
    for one in lines:
        path_of(task.out / THUMBNAILS, one, ".jpg").unlink(missing_ok=True)
        if one["crop"]:
            crop = task.out / one["crop"]
            crop.unlink(missing_ok=True)
            partial_of(crop).unlink(missing_ok=True)


def _join(task: Task, names: Collection[str], stamps: Mapping[str, str], left_out: str) -> None:
    """Write panels.csv and index.html of all shares. Raises UserError where not one figure was cut."""
    number, count = task.share
    parts = [task.part(n + 1) for n in range(count)]
    lines = [one for part in parts for one in current(part.lines(), stamps)[0]]
    left = Counter(share_of(source, count) for source in set(names) - {one["source"] for one in lines})
    if left:
        to_go = ", ".join(f"--shard={share}/{count} has {left[share]}" for share in sorted(left))
        say(f"share {number} of {count} is cut; files to go: {to_go}. The last of them writes {task.out / TABLE}.")
        return
    lines.sort(key=lambda one: (one["source"], int(one["page"]), int(one["figure"]), int(one["panel"] or 0)))
    write_lines(task.out / TABLE, lines, f"{number}.partial")
    thumbnails = {key_of(one): path_of(task.out / THUMBNAILS, one, ".jpg") for one in lines if one["crop"]}
    page = write_sheet(task.out, lines, thumbnails, str(number), left_out)
    if not thumbnails:
        raise UserError(f"nothing could be cut out of {counted(len(lines), 'figure')} of {task.figures}; the first: {lines[0]['error']}")
    kinds = Counter(one["looks"] for one in lines)
    there = " and ".join(f"{counted(kinds[kind], 'panel')} in {task.out / folder}" for kind, folder in PANELS.items())
    panels, failed = Counter(key_of(one) for one in lines if one["crop"]), sum(bool(one["error"]) for one in lines)
    whole = sum(count == 1 for count in panels.values())
    done = f"{len(panels) - whole} of them cut apart{f' and {whole} left whole' if whole else ''}"
    why = f"; {failed} could not be cut, for the reasons at the end of {page}" if failed else ""
    rest = f"; {left_out}" if left_out else ""
    say(f"{counted(len(set(map(key_of, lines))), 'figure')}, {done}: {there}; see {page} and {task.out / TABLE}{why}{rest}")
