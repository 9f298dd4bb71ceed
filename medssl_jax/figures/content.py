"""Panels with what belongs to them: the letter, the title and the labels beside a box."""

from __future__ import annotations

import numpy as np

from medssl_jax.figures.partition import snap
from medssl_jax.figures.xycut import ink_within

FILLED = 0.25  # share of a cell that its panel takes on average: where panels were missed, cells are larger


def with_labels(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] found in a figure uint8 [H, W, 3], grown to all that is drawn in their cells, float32 [N, 4].

    Cells are those of the recursive cut that the boxes agree with (`snap`); where there is none, or boxes take little of theirs, they stay
    as they are. It is how people box lettered panels (ours; compound_figures.md, 2.2, has the other conventions).
    """
    height, width = image.shape[:2]
    found = np.array(boxes, np.float32).reshape(-1, 4)
    cells = snap(found, (0, 0, width, height), gap=0, agreement=FILLED)
    if not len(cells) or np.array_equal(cells, found):
        return found
    drawn = ink_within(image, np.rint(cells).astype(int))
    return np.concatenate([np.minimum(found[:, :2], drawn[:, :2]), np.maximum(found[:, 2:], drawn[:, 2:])], axis=1)
