"""Layouts of published figures, to be filled with other images: those that come with the package, or a user's own table."""

from __future__ import annotations

import csv
import functools
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medssl_jax.errors import UserError
from medssl_jax.figures.boxes import extent
from medssl_jax.figures.layouts import SMALLEST, TINY, Layout
from medssl_jax.figures.partition import partition

OWN = Path(__file__).with_name("rsiil_layouts.csv")  # 189 figures, MIT; see rsiil_layouts.LICENSE.txt
COLUMNS = ("figure", "x1", "y1", "x2", "y2")
BLOT = "WesternBlot"
OVERLAP = 2  # pixels that boxes of a layout may overlap by
ALIGNED = 0.6  # of the width that blots above each other share, to be strips of one
NEAR = 0.045  # of the figure's height between such strips
ROW = 0.05  # of the figure's height: panels that begin within it are read from left to right
BORDER = 0.03  # of the longer side that is kept of an empty border
LARGEST = 1000  # pixels of the longer side


class Published(NamedTuple):
    """The boxes of a figure, float [N, 4] in pixels (x0, y0, x1, y1; x1 and y1 exclusive), and what each panel shows ("" where unknown)."""

    name: str
    width: float
    height: float
    boxes: np.ndarray
    shown: tuple[str, ...]


@functools.lru_cache(maxsize=4)
def read_layouts(path: str = "") -> tuple[Published, ...]:
    """The layouts of a CSV, sorted by name; "" for those of the package.

    Columns are figure, x1, y1, x2, y2 and, where they are known, width, height and panel_class; the figure ends at its boxes where they
    are not. Figures whose boxes overlap are left out: there is no telling which of them covers the other.

    Raises UserError for a file that is missing, has other columns, holds what is no box, or has no figure that can be used.
    """
    table = Path(path).expanduser() if path else OWN
    if not table.is_file():
        raise UserError(f"the table of layouts {table} does not exist; it is a CSV with the columns {', '.join(COLUMNS)}.")
    rows = defaultdict(list)
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise UserError(f"the table of layouts {table} lacks the column {missing[0]}; needed are {', '.join(COLUMNS)}.")
        for number, row in enumerate(reader, 2):
            rows[row["figure"]].append((_box(table, number, row), row))
    found = [_published(name, lines) for name, lines in sorted(rows.items())]
    kept = tuple(layout for layout in found if not _overlapping(layout.boxes))
    if not kept:
        raise UserError(f"the table of layouts {table} has no figure whose panels lie apart; check its boxes.")
    return kept


@functools.lru_cache(maxsize=16)
def layouts_of(path: str, least: int, most: int) -> tuple[Published, ...]:
    """The layouts of a CSV that have `least` to `most` panels. Raises UserError as `read_layouts` does, and where there is none."""
    kept = tuple(layout for layout in read_layouts(path) if least <= len(layout.boxes) <= most)
    if not kept:
        raise UserError(f"no layout of {path or 'the package'} has {least} to {most} panels; change the style's panels.")
    return kept


def _box(table: Path, number: int, row: dict[str, str]) -> list[float]:
    """x0, y0, x1, y1 of a line."""
    try:
        x0, y0, x1, y1 = (float(row[name]) for name in COLUMNS[1:])
    except (TypeError, ValueError) as error:
        raise UserError(f"line {number} of {table} is no box; x1, y1, x2 and y2 are numbers in pixels.") from error
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise UserError(f"line {number} of {table} is an empty box; x1 < x2 and y1 < y2 are needed, none below 0.")
    return [x0, y0, x1, y1]


def _published(name: str, lines: list[tuple[list[float], dict[str, str]]]) -> Published:
    """The boxes in the order in which they are read."""
    boxes = np.array([box for box, _ in lines])
    width, height = (max(_number(lines[0][1].get(key)), boxes[:, k].max()) for k, key in ((2, "width"), (3, "height")))
    order = np.lexsort((boxes[:, 0], boxes[:, 1] // (ROW * height)))
    return Published(name, width, height, boxes[order], tuple(lines[k][1].get("panel_class") or "" for k in order))


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _overlapping(boxes: np.ndarray) -> bool:
    shared = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    both = shared.min(-1)
    np.fill_diagonal(both, 0)
    return bool(both.max() > OVERLAP)


def group(layout: Published) -> Published:
    """The same figure with strips of blots that lie close above each other as one panel, which is what a letter stands for."""
    boxes, shown = list(layout.boxes), list(layout.shown)
    while pair := _strips(boxes, shown, NEAR * layout.height):
        first, second = pair
        boxes[first] = np.concatenate([np.minimum(boxes[first][:2], boxes[second][:2]), np.maximum(boxes[first][2:], boxes[second][2:])])
        del boxes[second], shown[second]
    grouped = layout._replace(boxes=np.array(boxes), shown=tuple(shown))
    return layout if _overlapping(grouped.boxes) else grouped


def _strips(boxes: list[np.ndarray], shown: list[str], near: float) -> tuple[int, int] | None:
    """Two blots that are strips of one."""
    blots = [i for i, name in enumerate(shown) if name == BLOT]
    for i in blots:
        for j in blots[blots.index(i) + 1 :]:
            shared = min(boxes[i][2], boxes[j][2]) - max(boxes[i][0], boxes[j][0])
            apart = max(boxes[i][1], boxes[j][1]) - min(boxes[i][3], boxes[j][3])
            if shared > ALIGNED * max(boxes[i][2] - boxes[i][0], boxes[j][2] - boxes[j][0]) and apart < near:
                return i, j
    return None


def replay(layout: Published, side: float) -> Layout:
    """The layout in pixels: the longer side of the figure is `side`, or more where a panel would be too small, up to 1000.

    Every gap between panels is kept as it was, and their median is the layout's; an empty border is kept up to a few percent.
    """
    size = np.array([layout.width, layout.height])
    low = np.maximum(layout.boxes[:, :2].min(0) - BORDER * size.max(), 0)
    size = np.minimum(layout.boxes[:, 2:].max(0) + BORDER * size.max(), size) - low
    smallest = (layout.boxes[:, 2:] - layout.boxes[:, :2]).min()
    scale = min(max(side / size.max(), SMALLEST / smallest), max(side, LARGEST) / size.max())
    boxes = np.floor((layout.boxes - np.tile(low, 2)) * scale + 0.5).astype(int)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    width, height = (int(v) for v in np.maximum(np.rint(size * scale), boxes[:, 2:].max(0)))
    return Layout(width, height, boxes, _gap(boxes))


def respace(layout: Layout, gap: int) -> Layout:
    """The layout with `gap` px between all neighbours, none at 0, and the same extent: the cells of its recursive cut.

    The gap is narrower where it would leave less than 16 px of a panel. Panels that no straight line separates stay where they are.
    """
    smallest = int((layout.boxes[:, 2:] - layout.boxes[:, :2]).min())
    narrowed = min(gap, max(smallest - TINY, 0))
    return layout._replace(boxes=partition(layout.boxes, extent(layout.boxes), narrowed).astype(int), gap=narrowed)


def _gap(boxes: np.ndarray) -> int:
    """The median distance from a panel to the next one on its right, or else below it; 0 where there is no other."""
    found = []
    for axis in (0, 1):
        ahead, low, high = boxes[None, :, axis] - boxes[:, None, axis + 2], boxes[:, 1 - axis], boxes[:, 3 - axis]
        shared = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
        distance = np.where((shared > 0) & (ahead >= -OVERLAP), np.maximum(ahead, 0), np.iinfo(int).max).min(1)
        found += [int(d) for d in distance if d < np.iinfo(int).max]
    return int(np.median(found)) if found else 0
