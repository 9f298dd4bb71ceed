"""A folder of simulated figures with a table of their panels, written one after the other; what was stopped is continued."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RECORD, TABLE = "simulate.json", "panels.csv"
COLUMNS = ("image", "panel", "kind", "x0", "y0", "x1", "y1", "cell_x0", "cell_y0", "cell_x1", "cell_y1")


class Album:
    """The figures in a folder, by the names of their files.

    The folder is one that was claimed for them (`claim`), and held (`machine.alone`).
    """

    def __init__(self, folder: Path) -> None:
        self.table = folder / TABLE
        self._folder = folder
        self._lines = {name: lines for name, lines in self._written() if (folder / name).exists()}
        self._write(itertools.chain.from_iterable(self._lines.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._lines

    def add(self, name: str, figure: Mapping[str, Any]) -> None:
        """Write a figure and its lines."""
        partial = self._folder / f"{name}.partial"
        Image.fromarray(figure["image"]).save(partial, "PNG")
        partial.replace(self._folder / name)
        self._lines[name] = [[name, str(number), *line] for number, line in enumerate(_panels(figure))]
        with self.table.open("a", newline="") as file:
            csv.writer(file).writerows(self._lines[name])

    def finish(self) -> None:
        """Bring the table into the order of the figures."""
        self._write(line for name in sorted(self._lines) for line in self._lines[name])

    def _written(self) -> list[tuple[str, list[list[str]]]]:
        """The lines of each figure in the table, but for the last: they may not all be there."""
        text = self.table.read_text(errors="replace") if self.table.exists() else ""
        lines = [line for line in csv.reader(text.splitlines()[1:]) if len(line) == len(COLUMNS)]
        return [(name, list(own)) for name, own in itertools.groupby(lines, key=lambda line: line[0])][:-1]

    def _write(self, lines: Iterable[list[str]]) -> None:
        partial = self.table.with_suffix(".csv.partial")
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *lines])
        partial.replace(self.table)


def _panels(figure: Mapping[str, Any]) -> list[list[str]]:
    """Kind, tight box and cell of every panel, in pixels."""
    corners = np.concatenate([figure["boxes"], figure["cells"]], axis=1).astype(float).round(2).tolist()
    return [[kind, *map(str, line)] for kind, line in zip(figure["kinds"], corners, strict=True)]
