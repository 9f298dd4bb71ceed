"""Tight boxes as cells of a recursive cut of the whole canvas, as ImageCLEF's training boxes are; what is cut out, and in which order.

Boxes are float32 [N, 4] pixel corners (x0, y0, x1, y1), x0 < x1 and y0 < y1, x1 and y1 the first pixel outside.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medssl_jax.figures.boxes import Canvas, clip, intersection, iou

GAP = 3.0  # px between cells, as in all ImageCLEF training figures
OVERLAP = 2.0  # px that neighbours may overlap by and still be cut apart
AGREEMENT = 0.5  # mean IoU of detections with their cells, from which they are taken for these
DETECTED_OVERLAPS = (0.005, 0.02, 0.05, 0.1)  # of the canvas's longer side: detections overlap where panels do not
SAME_ROW = 0.05  # of the canvas's height


class Cut(NamedTuple):
    """Boxes `low` (indices) lie before `middle` on the axis (0: x, 1: y), `high` after it; `free` px are between them."""

    free: float
    axis: int
    middle: float
    low: np.ndarray
    high: np.ndarray


def partition(boxes: np.ndarray, canvas: Canvas, gap: float = GAP, overlap: float = OVERLAP) -> np.ndarray:
    """The cell of each box in a recursive cut of the canvas, float32 [N, 4] in the order of the boxes.

    Each cut runs through the middle of the widest free strip (along both axes; of equal ones the one between columns) and leaves `gap` px
    free. Boxes that no straight line separates keep what they are. A cut may cross boxes by up to `overlap` px. The cells of a partition
    are its own partition. Reference: compound_figures.md, 2.2; ours, after ImageCLEF 2016's training boxes.

    Args:
      boxes: tight boxes [N, 4] in pixels.
      canvas: the whole figure (x0, y0, x1, y1), usually (0, 0, width, height).
      gap: px between neighbouring cells.
      overlap: px by which two boxes may overlap and still be separated.
    """
    out = np.array(boxes, np.float32).reshape(-1, 4)
    tight = np.asarray(out, np.float64)
    waiting = [(np.arange(len(tight)), canvas)] if len(tight) else []
    while waiting:
        ids, cell = waiting.pop()
        if len(ids) == 1:
            out[ids] = cell
        elif cut := _widest(tight, ids, cell, gap, overlap):
            before, after = _halves(cell, cut.axis, _end(cut.middle, gap), gap)
            waiting += [(cut.low, before), (cut.high, after)]
    return out


def snap(boxes: np.ndarray, canvas: Canvas, gap: float = GAP, agreement: float = AGREEMENT) -> np.ndarray:
    """Detections [N, 4] as the cells of the recursive cut that they agree with best, or as they are where none fits, float32 [N, 4].

    Cuts are tried that pass through ever larger overlaps of the detections; a cut fits where the mean IoU of the detections with their
    cells is at least `agreement`, and the best has the highest. Reference: compound_figures.md, 2.5.
    """
    kept = np.array(boxes, np.float32).reshape(-1, 4)
    longest = max(canvas[2] - canvas[0], canvas[3] - canvas[1])
    overlaps = (OVERLAP, *(share * longest for share in DETECTED_OVERLAPS))
    cuts = [cells for overlap in overlaps if _is_cut(cells := partition(kept, canvas, gap, overlap))]
    likeness = [float(np.diag(iou(kept, cells)).mean()) for cells in cuts]
    return cuts[int(np.argmax(likeness))] if max(likeness, default=0.0) >= agreement else kept


def reading_order(boxes: np.ndarray, height: float) -> np.ndarray:
    """Indices int64 [N] of boxes [N, 4] in the order of reading: row by row, from the left.

    A row is what begins within 5 % of the figure's height (px) below its highest box.
    """
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    rows: list[list[int]] = []
    for index in np.lexsort((corners[:, 0], corners[:, 1])):
        if rows and corners[index, 1] - corners[rows[-1][0], 1] <= SAME_ROW * height:
            rows[-1].append(int(index))
        else:
            rows.append([int(index)])
    return np.array([index for row in rows for index in sorted(row, key=lambda i: (corners[i, 0], corners[i, 1]))], np.int64)


def crops(boxes: np.ndarray, width: int, height: int, snapped: bool = False, pad: int = 0, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """What is cut out of a figure of width x height px where these boxes [N, 4] were found.

    A figure with one panel, or none that was found, is left whole.

    Args:
      boxes: what was found.
      width: of the figure.
      height: of the figure.
      snapped: take the cells that the boxes agree with (`snap`).
      pad: px that are added on each side, as far as the figure goes.
      least: px of the shorter side of a box that is kept.

    Returns:
      Whole pixels int64 [M, 4] in the order of reading, and the index of the box of each int64 [M], -1 where there is none.
    """
    canvas = (0, 0, width, height)
    if len(boxes) < 2:
        kept = np.array([canvas] if min(width, height) >= least else [], np.int64).reshape(-1, 4)
        return kept, np.arange(len(boxes), dtype=np.int64)[: len(kept)] if len(boxes) else np.full(len(kept), -1)
    cells = np.rint(clip(snap(boxes, canvas) if snapped else boxes, canvas)).astype(np.int64)
    order = reading_order(cells, height)
    order = order[(cells[order, 2:] - cells[order, :2]).min(axis=1) >= least]
    return clip(cells[order] + [-pad, -pad, pad, pad], canvas).astype(np.int64), order


def _widest(boxes: np.ndarray, ids: np.ndarray, cell: Canvas, gap: float, overlap: float) -> Cut | None:
    """The cut with the most free space between boxes[ids], of those that leave room on both sides."""
    best: Cut | None = None
    for axis in (0, 1):
        order = ids[np.argsort(boxes[ids, axis], kind="stable")]
        ends, starts = np.maximum.accumulate(boxes[order, axis + 2])[:-1], boxes[order, axis][1:]
        middle = (starts + ends) / 2
        room = (_end(middle, gap) > cell[axis]) & (_end(middle, gap) + gap < cell[axis + 2])
        free = np.where(room & (starts - ends >= -overlap), starts - ends, -np.inf)
        k = int(np.argmax(free))
        if np.isfinite(free[k]) and (best is None or free[k] > best.free):
            best = Cut(float(free[k]), axis, float(middle[k]), order[: k + 1], order[k + 1 :])
    return best


def _end(middle: np.ndarray | float, gap: float) -> np.ndarray:
    """Where the cells before a cut end, in whole pixels."""
    return np.floor(np.asarray(middle) - gap / 2 + 0.5)


def _halves(cell: Canvas, axis: int, end: np.ndarray, gap: float) -> tuple[Canvas, Canvas]:
    """A cell cut at `end` on the axis, `gap` px left out."""
    x0, y0, x1, y1 = cell
    at = float(end)
    if axis == 0:
        return (x0, y0, at, y1), (at + gap, y0, x1, y1)
    return (x0, y0, x1, at), (x0, at + gap, x1, y1)


def _is_cut(cells: np.ndarray) -> bool:
    """Whether there are cells and no two of them overlap: boxes that were kept as they are may reach into others."""
    return len(cells) > 0 and not np.triu(intersection(cells, cells), 1).any()
