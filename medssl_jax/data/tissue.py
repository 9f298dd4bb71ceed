"""Where a slide shows tissue: a threshold on a thumbnail."""

from __future__ import annotations

import numpy as np
from skimage.filters import threshold_otsu

from medssl_jax.data.slide import Level, Slide

SIDE = 2048  # pixels, at most, of the thumbnail's longer side
BLOCK = 2048  # pixels of a side that are read at a time
CHROMA = (10, 30)  # of 255, between which Otsu's threshold is kept: a slide that is all tissue, or none, has no valley to find


def tissue(image: np.ndarray) -> np.ndarray:
    """bool [H, W] of uint8|uint16 [H, W, C].

    In RGB tissue is coloured, while glass, dust and ink are grey: the chroma (largest minus smallest of the three values) is above Otsu's
    threshold, which is kept within CHROMA. With other channels (fluorescence) tissue is brighter, on average over them, than Otsu's
    threshold.
    """
    if image.shape[2] == 3:
        chroma = image.max(axis=2) - image.min(axis=2)
        return chroma > np.clip(threshold_otsu(chroma), *(np.array(CHROMA) * (np.iinfo(image.dtype).max // 255)))
    brightness = np.rint(image.mean(axis=2)).astype(image.dtype)
    return brightness > threshold_otsu(brightness)


def thumbnail(slide: Slide) -> np.ndarray:
    """uint8|uint16 [h, w, C], at most SIDE px: every n-th pixel of the smallest level that is as large, read block by block."""
    level = min((one for one in slide.levels if max(one.height, one.width) >= SIDE), key=lambda one: one.height, default=slide.levels[0])
    step = -(-max(level.height, level.width) // SIDE)
    return _every(level, step)


def _every(level: Level, step: int) -> np.ndarray:
    side = BLOCK // step * step or step
    rows = []
    for y in range(0, level.height, side):
        height = min(side, level.height - y)
        row = [level.window(y, x, height, min(side, level.width - x))[::step, ::step] for x in range(0, level.width, side)]
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)


def shares(mask: np.ndarray, corners: np.ndarray, side: float, shape: tuple[int, int]) -> np.ndarray:
    """float [N]: how much of each square of `side` px at `corners` [N, 2] (y, x) of an image of that shape is in its mask's thumbnail."""
    scale = np.array(mask.shape) / shape
    first = np.floor(corners * scale).astype(int)
    last = np.maximum(np.ceil((corners + side) * scale).astype(int), first + 1)
    sums = np.pad(mask.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))  # of all pixels above and to the left
    (y0, x0), (y1, x1) = first.T, np.minimum(last, mask.shape).T
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return inside / ((y1 - y0) * (x1 - x0))
