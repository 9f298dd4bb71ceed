"""Figures cut along their blank lines, again and again: the classical baseline, which needs no training and cannot part what touches.

A cut runs through a run of blank lines across the region. Lines of letters in that run (thin, mostly blank) are part of it, so that a panel
letter or an axis label is no panel of its own. On a light ground a wide run is enough; a narrow one, or one on any other ground, must have
the straight edge of an image on both sides, as otherwise every dark part of an image would be a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from medssl_jax.figures.boxes import clip

WORKING = 1000  # px of the longer side, at most, that cuts are looked for at; shares below are of that side
TOLERANCE = 42  # of 255, from the ground's colour: the ripples of JPEG beside an edge
LIGHT = 200  # a ground from here on is paper
FRAME = 0.01  # of each side: the border that tells the ground
SUBSTANTIAL = 0.06  # the least side of a panel
THIN = 0.05  # letters and axis labels are no higher
SPARSE = 0.35  # share of ink up to which a line can be of letters
WIDE = 0.008  # a run that parts panels without straight edges
EDGE = 0.2  # share of ink that makes a line the edge of an image
CROSSED = 0.12  # share of ink, of letters that fill the whole height of a gap
STRONG = 0.7  # share of ink of the edges beside such a gap
REACH = 3  # lines beside a run in which the edge may lie: anti-aliasing
DENSE = 0.7  # share of ink that makes a region an image, of which letters are no part

Region = tuple[int, int, int, int]


class Ink(NamedTuple):
    """What differs from one ground, as sums along rows [H, W + 1] and columns [H + 1, W]; whether that ground is light."""

    along_rows: np.ndarray
    along_columns: np.ndarray
    light: bool


class Gap(NamedTuple):
    """Lines `start` to `stop` of the axis (0: rows, 1: columns) are to be cut out; `width` of the run around them, letters included."""

    width: int
    axis: int
    start: int
    stop: int


def xycut(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The panels of a figure uint8 [H, W, 3]: tight boxes float32 [N, 4] and scores float32 [N], the surest first; none of a blank figure.

    Boxes are pixel corners (x0, y0, x1, y1), x0 < x1 and y0 < y1, x1 and y1 the first pixel outside. A score is the shorter side over the
    longer one: slivers are mostly parts of something. Cuts are found in a copy of 1000 px at most. Reference: compound_figures.md, 5.1.
    """
    factor = max(1, -(-max(image.shape[:2]) // WORKING))
    small = np.asarray(Image.fromarray(image).reduce(factor)) if factor > 1 else image
    height, width = small.shape[:2]
    inks, side = _inks(small), max(height, width)
    leaves, waiting = [], [_tight(inks[0], (0, 0, width, height))]
    while waiting:
        if region := waiting.pop():
            parts = _parts(inks, region, side)
            waiting += [_tight(inks[0], part) for part in parts]
            leaves += [] if parts else [_without_letters(inks[0], region, side)]
    boxes = clip(np.array(_large(leaves, side)).reshape(-1, 4) * factor, (0, 0, image.shape[1], image.shape[0]))
    sides = boxes[:, 2:] - boxes[:, :2]
    scores = sides.min(axis=1) / sides.max(axis=1)
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order]


def ink_within(image: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """The smallest boxes float32 [N, 4] with all that differs from the figure's ground within regions int [N, 4] of an image uint8
    [H, W, 3]; a region without any as it is."""
    ink = _inks(image)[0]
    each = [(x0, y0, x1, y1) for x0, y0, x1, y1 in regions.tolist()]
    return np.array([_tight(ink, region) or region for region in each], np.float32).reshape(-1, 4)


def _inks(image: np.ndarray) -> list[Ink]:
    """For the grounds that are tried, the page's own first: the border's colour, white, black.

    Of a figure without a margin the border is that of its images, so the page's ground is the first one that a gap is found on, light
    ones before dark ones.
    """
    border = _ground(image)
    grounds = sorted(dict.fromkeys([border, (255, 255, 255), (0, 0, 0)]), key=lambda ground: min(ground) < LIGHT)
    inks = [_ink(image, ground) for ground in grounds]
    height, width = image.shape[:2]
    cut = (k for k, ink in enumerate(inks) if _gaps(ink, (0, 0, width, height), max(height, width)))
    page = next(cut, grounds.index(border))
    return [inks[page], *inks[:page], *inks[page + 1 :]]


def _ground(image: np.ndarray) -> tuple[int, ...]:
    """The most frequent colour along the figure's border, to 1/32 of the scale, then the mean of what is of it."""
    height, width = (max(1, round(FRAME * side)) for side in image.shape[:2])
    sides = (image[:height], image[-height:], image[:, :width], image[:, -width:])
    border = np.concatenate([side.reshape(-1, 3) for side in sides]).astype(np.int32)
    codes = (border >> 3) @ (1024, 32, 1)
    return tuple(border[codes == np.bincount(codes).argmax()].mean(axis=0).round().astype(int).tolist())


def _ink(image: np.ndarray, ground: tuple[int, ...]) -> Ink:
    height, width = image.shape[:2]
    ink = np.zeros((height, width), bool)
    for channel, level in enumerate(ground):
        values = image[:, :, channel]
        ink |= (values < max(level - TOLERANCE, 0)) | (values > min(level + TOLERANCE, 255))
    rows, columns = np.zeros((height, width + 1), np.int32), np.zeros((height + 1, width), np.int32)
    np.cumsum(ink, axis=1, out=rows[:, 1:])
    np.cumsum(ink, axis=0, out=columns[1:])
    return Ink(rows, columns, min(ground) >= LIGHT)


def _parts(inks: list[Ink], region: Region, side: int) -> list[Region]:
    """The two regions beside the best cut, or none; letters along the borders are left out where only that makes a cut possible."""
    for x0, y0, x1, y1 in dict.fromkeys((region, _peeled(inks[0], region, side))):
        gaps = [gap for ink in inks for gap in _gaps(ink, (x0, y0, x1, y1), side)]
        if gaps:
            gap = max(gaps)
            if gap.axis == 0:
                return [(x0, y0, x1, y0 + gap.start), (x0, y0 + gap.stop, x1, y1)]
            return [(x0, y0, x0 + gap.start, y1), (x0 + gap.stop, y0, x1, y1)]
    return []


def _gaps(ink: Ink, region: Region, side: int) -> list[Gap]:
    """All cuts of a region that leave something substantial on both sides."""
    found = []
    for axis in (0, 1):
        share = _share(ink, region, axis)
        candidates = [*_blank(share, axis, ink.light, side), *_crossed(share, axis, side)]
        found += [gap for gap in candidates if min(gap.start, len(share) - gap.stop) >= SUBSTANTIAL * side]
    return found


def _blank(share: np.ndarray, axis: int, light: bool, side: int) -> Iterator[Gap]:
    """Runs of blank lines and letters, to be cut along the widest blank part."""
    blank = share == 0
    for start, stop in _runs(blank | _letters(share, side)):
        if blank[start:stop].any() and ((light and stop - start >= WIDE * side) or _edged(share, start, stop, EDGE)):
            low, high = max(_runs(blank[start:stop]), key=lambda run: run[1] - run[0])
            yield Gap(stop - start, axis, start + low, start + high)


def _crossed(share: np.ndarray, axis: int, side: int) -> Iterator[Gap]:
    """Thin runs between straight edges that letters fill so that no line of it is blank."""
    for start, stop in _runs(share <= CROSSED):
        if stop - start <= THIN * side and _edged(share, start, stop, STRONG):
            yield Gap(stop - start, axis, start, stop)


def _edged(share: np.ndarray, start: int, stop: int, least: float) -> bool:
    """Whether there is a straight edge on both sides of a run."""
    return all(share[max(at, 0) : at + REACH].max(initial=0) >= least for at in (start - REACH, stop))


def _letters(share: np.ndarray, side: int) -> np.ndarray:
    """Lines of runs between blank lines that are thin and have little ink: letters, numbers, labels."""
    flags = np.zeros(len(share), bool)
    for start, stop in _runs(share > 0):
        inside = start > 0 and stop < len(share)
        flags[start:stop] = inside and stop - start <= THIN * side and share[start:stop].max() <= SPARSE
    return flags


def _share(ink: Ink, region: Region, axis: int) -> np.ndarray:
    """The share of ink in each line of a region: in rows for axis 0, in columns for axis 1."""
    x0, y0, x1, y1 = region
    if axis == 0:
        return (ink.along_rows[y0:y1, x1] - ink.along_rows[y0:y1, x0]) / (x1 - x0)
    return (ink.along_columns[y1, x0:x1] - ink.along_columns[y0, x0:x1]) / (y1 - y0)


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Start and stop of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _tight(ink: Ink, region: Region) -> Region | None:
    """The smallest region with the same ink, or None where there is none."""
    x0, y0, _, _ = region
    rows, columns = (np.flatnonzero(_share(ink, region, axis)) for axis in (0, 1))
    if not len(rows):
        return None
    return x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1


def _peeled(ink: Ink, region: Region, side: int) -> Region:
    """The region without thin strips along its borders that blank lines part from the rest."""
    while True:
        before = region
        for axis in (0, 1):
            runs = _runs(_share(ink, region, axis) > 0)
            low, high = region[1 - axis] + runs[0][0], region[1 - axis] + runs[-1][1]
            if len(runs) > 1 and runs[0][1] - runs[0][0] <= THIN * side:
                low = region[1 - axis] + runs[1][0]
            elif len(runs) > 1 and runs[-1][1] - runs[-1][0] <= THIN * side:
                high = region[1 - axis] + runs[-2][1]
            x0, y0, x1, y1 = region
            region = (x0, low, x1, high) if axis == 0 else (low, y0, high, y1)
        if region == before:
            return region


def _without_letters(ink: Ink, region: Region, side: int) -> Region:
    """An image without the letters beside it; anything else, such as a plot with its labels, as it is."""
    core = _peeled(ink, region, side)
    return core if _share(ink, core, 0).mean() >= DENSE else region


def _large(leaves: list[Region], side: int) -> list[Region]:
    """Those with both sides of a panel's size; the largest where there is none."""
    kept = [box for box in leaves if min(box[2] - box[0], box[3] - box[1]) >= SUBSTANTIAL * side]
    return kept or sorted(leaves, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))[-1:]
