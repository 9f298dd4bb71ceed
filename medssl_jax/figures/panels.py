"""The table that `separate` writes, panels.csv, and the parts that several processes make it of."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from medssl_jax.errors import UserError
from medssl_jax.figures.clef import BOX
from medssl_jax.machine import alone

FIGURE = ("source", "page", "figure")
ROW = (*FIGURE, "panel", *BOX, "score", "width", "height", "looks", "crop", "error", "stamp")
UNSURE = "unsure"  # in place of a stamp
Row = dict[str, str]


def line(**values: Any) -> Row:
    """A line of panels.csv; what is not given is empty."""
    return {column: str(values.get(column, "")) for column in ROW}


def stamp(file: Path) -> str:
    """What tells a file from another of the same name: its bytes, and when it was changed. Empty where it cannot be asked."""
    with contextlib.suppress(OSError):
        found = file.stat()
        return f"{found.st_size}-{found.st_mtime_ns}"
    return ""


def share_of(source: str, count: int) -> int:
    """Which of `count` shares a source belongs to, from 1: the same whatever else there is."""
    return 1 + int.from_bytes(hashlib.blake2b(source.encode(), digest_size=4).digest()) % count


class Part:
    """The lines of one share of a panels.csv, number `number` of `count`, which can be stopped and continued at any time."""

    def __init__(self, folder: Path, number: int, count: int) -> None:
        self.count = count
        self.finished = folder / f"{number}-of-{count}.csv"
        self.unfinished = self.finished.with_suffix(".csv.partial")

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Keep other processes from this part meanwhile. Raises UserError where one is at it."""
        otherwise = f"another process writes {self.finished}; wait for it" + (
            ", or give this one another share." if self.count > 1 else "."
        )
        return alone(self.finished.with_suffix(".lock"), otherwise)

    def lines(self) -> list[Row]:
        """What there is. Of an unfinished part the last source is without its stamp, as one that was changed: it may lack lines."""
        with contextlib.suppress(FileNotFoundError):  # also where another process has just begun to write it anew
            return read_lines(self.finished)
        found = read_lines(self.unfinished) if self.unfinished.exists() else []
        return [one if one["source"] != found[-1]["source"] else {**one, "stamp": UNSURE} for one in found]

    def extend(self, kept: Iterable[Row], more: Iterable[Iterable[Row]]) -> None:
        """Finish the part with the lines it has kept and with more, some at a time, each there before the next are asked for."""
        write_lines(self.unfinished, kept)
        self.finished.unlink(missing_ok=True)
        with self.unfinished.open("a", encoding="utf-8", newline="") as file:
            for lines in more:
                file.write(_text(lines, header=False))
                file.flush()
        self.unfinished.replace(self.finished)


def current(lines: Iterable[Row], stamps: Mapping[str, str]) -> tuple[list[Row], list[Row]]:
    """The lines of the sources as they are now, and those of others: of files that are gone, or were changed since they were cut."""
    kept: list[Row] = []
    old: list[Row] = []
    for one in lines:
        (kept if one["stamp"] == stamps.get(one["source"]) else old).append(one)
    return kept, old


def settled(lines: Iterable[Row], stamps: Mapping[str, str], whole: Callable[[Row], bool]) -> tuple[list[Row], list[Row]]:
    """The lines of the sources that need no work, and those of others: as `current`, and where a line is not `whole`."""
    kept, old = current(lines, stamps)
    again = {one["source"] for one in kept if not whole(one)}
    return [one for one in kept if one["source"] not in again], old + [one for one in kept if one["source"] in again]


def write_lines(path: Path, lines: Iterable[Row], mark: str = "new") -> None:
    """Write a panels.csv whole or not at all; `mark` sets the unfinished file apart from those of other processes."""
    partial = path.with_name(f"{path.name}.{mark}")
    partial.write_text(_text(lines, header=True), encoding="utf-8", newline="")
    partial.replace(path)


def read_lines(path: Path) -> list[Row]:
    """The lines of a panels.csv; one that was cut short at the end is left out. Raises UserError for damage, and another kind of table."""
    try:
        text = path.read_text(encoding="utf-8")
        table = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        lines = list(table)
        whole = tuple(table.fieldnames or ()) == ROW and not any(None in one.values() for one in lines)
    except (UnicodeDecodeError, csv.Error):
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged, or no table of separated panels; remove it and start the same command again.")
    return lines


def _text(lines: Iterable[Row], header: bool) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, ROW, lineterminator="\n")
    if header:
        table.writeheader()
    table.writerows(lines)
    return text.getvalue()
