"""Where panels lie: how many, how far apart, and rows, columns and recursive cuts in which every panel keeps its aspect ratio.

A layout is a tree of cuts. The width of a part is linear in its height (a panel's by its aspect ratio, parts side by side add widths,
parts above each other add heights), so every row and column fills the figure exactly and no panel is stretched.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import NamedTuple

import numpy as np

from medssl_jax.figures.style import Style

MANY = 10  # the last class of the histogram begins here
TAIL = 0.25  # of the geometric distribution beyond it; the training figures of ImageCLEF 2016 have 36 panels at most
MOST = 36
SHAPES = (0.55, 2.2)  # width / height that a figure is laid out for, about what ImageCLEF's training figures have
FILLED = (0.85, 1.0)  # of a row's width, when it counts as full
DEPTH = 3  # of recursive cuts
EXTREME = 4.5  # no figure is longer than this, of its shorter side
THIN = 0.04  # of the longer side: no panel is thinner
TRIES = 6
SMALLEST = 40  # pixels of a panel's shorter side; below it the figure is made LARGER, from LONGEST pixels on its gap narrower
LARGER, LONGEST = 1.25, 1000
TINY = 16  # pixels of a panel's shorter side, in any case
GAPS = ((0.25, 0.5, 0.75, 0.95), (0.002, 0.008, 0.02, 0.07))  # quantiles of the gap as a share of the figure's width, measured


class Split(NamedTuple):
    """Parts side by side (`across`) or above each other; a part is another split or the number of a panel."""

    across: bool
    parts: tuple[Tree, ...]


Tree = Split | int


class Pad(NamedTuple):
    """Pixels kept free at the four sides of a panel or a figure."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


class Layout(NamedTuple):
    """Pixels of the canvas, int [N, 4] rectangles of the panels (x0, y0, x1, y1; x1 and y1 exclusive), and the gap between them."""

    width: int
    height: int
    boxes: np.ndarray
    gap: int


def draw_count(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """The number of panels, by the histogram of ImageCLEF 2016 (section 2.1, item 1) or other weights of the same eight classes."""
    kind = int(rng.choice(len(weights), p=np.array(weights) / np.sum(weights)))
    if kind < 6:
        return kind + 1
    return int(rng.integers(7, MANY)) if kind == 6 else min(MANY - 1 + int(rng.geometric(TAIL)), MOST)


def draw_gap(rng: np.random.Generator, style: Style, intra: bool) -> float:
    """The gap as a share of the figure's width (section 2.1, items 3 and 6); from the lowest quantile on it becomes 1 px at least."""
    if intra:
        return float(rng.uniform(0, style.intra_gap))
    return 0.0 if rng.random() < style.zero_gap else float(np.interp(rng.uniform(GAPS[0][0], GAPS[0][-1]), *GAPS))


def draw_gap_between(rng: np.random.Generator, low: float, high: float, width: int) -> int:
    """Pixels of a gap of `low` to `high` of a figure's width, by the same quantiles: 1 px at least, or 0 where `high` is."""
    share = np.interp(rng.uniform(*np.interp((low, high), GAPS[1], GAPS[0])), *GAPS)
    pixels = min(max(round(share * width), ceil(low * width)), floor(high * width))
    return max(pixels, 1) if high else 0


def draw_tree(rng: np.random.Generator, aspects: np.ndarray, weights: Sequence[float]) -> Tree:
    """Rows, columns or recursive cuts of panels with the aspect ratios (width / height) [N]; see section 2.1, item 2.

    What makes a very long figure or very thin panels is drawn again, and after some tries laid out in rows.
    """
    kind = int(rng.choice(3, p=np.array(weights) / np.sum(weights)))
    for _ in range(TRIES):
        shape = float(np.exp(rng.uniform(*np.log(SHAPES))))
        if kind == 2:
            tree = _cut(rng, np.arange(len(aspects)), DEPTH, bool(rng.random() < 0.5))
        else:
            tree = _lines(rng, aspects if kind == 0 else 1 / aspects, shape if kind == 0 else 1 / shape, across=kind == 0)
        boxes = _place(tree, aspects, 0, Pad(), 1.0)
        longer, shorter = boxes[:, 2:].max(), boxes[:, 2:].max(0).min()
        if longer < EXTREME * shorter and (boxes[:, 2:] - boxes[:, :2]).min() > THIN * longer:
            return tree
    return _lines(rng, aspects, 1.0, across=True)


def _lines(rng: np.random.Generator, lengths: np.ndarray, shape: float, across: bool) -> Tree:
    """Rows of panels (`across`) or columns: a line takes panels until U(.85, 1) of its share is filled; all lines become as long."""
    count = int(np.clip(round(np.sqrt(lengths.sum() / shape)), 1, len(lengths)))
    lines: list[tuple[Tree, ...]] = []
    start = 0
    for line in range(count, 0, -1):
        share, end = lengths[start:].sum() / line * rng.uniform(*FILLED), start + 1
        while end < len(lengths) - (line - 1) and (line == 1 or lengths[start : end + 1].sum() - lengths[end] / 2 < share):
            end += 1
        lines.append(tuple(range(start, end)))
        start = end
    return Split(not across, tuple(Split(across, line) if len(line) > 1 else line[0] for line in lines))


def _cut(rng: np.random.Generator, panels: np.ndarray, depth: int, across: bool) -> Tree:
    """Two parts or three, cut the other way again; what is left at the last depth lies in a line."""
    if len(panels) == 1:
        return int(panels[0])
    if depth == 1 or len(panels) == 2:
        return Split(across, tuple(int(panel) for panel in panels))
    cuts = np.sort(rng.choice(len(panels) - 1, min(int(rng.integers(1, 3)), len(panels) - 1), replace=False)) + 1
    return Split(across, tuple(_cut(rng, part, depth - 1, not across) for part in np.split(panels, cuts)))


def arrange(tree: Tree, aspects: np.ndarray, side: float, gap: float, pad: Pad, margin: Pad) -> Layout:
    """The tree in pixels: the longer side of the figure is `side` where no panel becomes too small by that, else the figure is larger, or
    in the end its gap narrower.

    Args:
      tree: every panel 0 to N - 1 once.
      aspects: float [N], width / height.
      side: pixels.
      gap: share of the figure's width.
      pad: what every panel keeps free at its sides, for its letter.
      margin: what the figure keeps free around all.
    """
    free = _linear(tree, aspects, 0, Pad())[0]
    pixels = max(round(gap * side * min(1, free)), 1 if gap >= GAPS[1][0] else 0)
    while True:
        alpha, beta = _linear(tree, aspects, pixels, pad)
        height = min(side, (side - beta) / alpha)
        boxes = _place(tree, aspects, pixels, pad, height)
        smallest = (boxes[:, 2:] - boxes[:, :2]).min()
        if smallest >= SMALLEST or (side >= LONGEST and pixels <= 1 and smallest >= TINY):
            break
        if side >= LONGEST and pixels > 1:
            pixels //= 2
        else:
            side *= LARGER
    boxes = np.floor(boxes + 0.5).astype(int) + [margin.left, margin.top] * 2
    width, high = (floor(length + 0.5) for length in (alpha * height + beta, height))  # as the boxes are rounded: round(.5) is 0
    return Layout(width + margin.left + margin.right, high + margin.top + margin.bottom, boxes, pixels)


def _linear(tree: Tree, aspects: np.ndarray, gap: int, pad: Pad) -> tuple[float, float]:
    """(a, b) so that a part of height h is a h + b wide."""
    if not isinstance(tree, Split):
        a = float(aspects[tree])
        return a, pad.left + pad.right - a * (pad.top + pad.bottom)
    a, b = np.array([_linear(part, aspects, gap, pad) for part in tree.parts]).T
    between = gap * (len(a) - 1)
    if tree.across:
        return float(a.sum()), float(b.sum() + between)
    return 1 / float((1 / a).sum()), float(((b / a).sum() - between) / (1 / a).sum())


def _place(tree: Tree, aspects: np.ndarray, gap: int, pad: Pad, height: float) -> np.ndarray:
    """Rectangles float [N, 4] of the panels of a tree that is `height` high."""
    boxes = np.zeros((len(aspects), 4))
    a, b = _linear(tree, aspects, gap, pad)
    todo: list[tuple[Tree, float, float, float, float]] = [(tree, 0, 0, a * height + b, height)]
    while todo:
        part, x, y, w, h = todo.pop()
        if not isinstance(part, Split):
            boxes[part] = x + pad.left, y + pad.top, x + w - pad.right, y + h - pad.bottom
            continue
        for child in part.parts:
            a, b = _linear(child, aspects, gap, pad)
            if part.across:
                todo.append((child, x, y, a * h + b, h))
                x += a * h + b + gap
            else:
                todo.append((child, x, y, w, (w - b) / a))
                y += (w - b) / a + gap
    return boxes
