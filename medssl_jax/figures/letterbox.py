"""A figure of any shape as a square of one size, its aspect kept, and its boxes there and back.

Boxes are float32 [N, 4], pixel corners (x0, y0, x1, y1) with x0 < x1, y0 < y1 and exclusive far edges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from medssl_jax.errors import UserError

GROUND = 128  # of uint8: the middle, which the network pads with too
GAP = 2.0  # how much larger than needed a large figure is first shrunk to by whole pixels, which is many times as fast
CORNERS = "a box is float32 (x0, y0, x1, y1), corners with x0 < x1 and y0 < y1 within the figure's {} x {} px"


class Letterboxed(NamedTuple):
    """The square uint8 [S, S, 3] and the box float32 [4] that the figure takes up in it."""

    image: np.ndarray
    extent: np.ndarray


def letterbox(image: np.ndarray, size: int) -> Letterboxed:
    """A figure uint8 [H, W, 3], scaled until its longer side is `size` pixels, in the middle of a grey square."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    rows, columns = (max(1, round(side * scale)) for side in (height, width))
    small = Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR, reducing_gap=GAP)
    y, x = (size - rows) // 2, (size - columns) // 2
    square = np.full((size, size, 3), GROUND, np.uint8)
    square[y : y + rows, x : x + columns] = np.asarray(small)
    return Letterboxed(square, np.array([x, y, x + columns, y + rows], np.float32))


def to_square(boxes: np.ndarray, shape: tuple[int, int], extent: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] in pixels of a figure of `shape` (height, width) -> in pixels of the square."""
    scale, offset = _scale(shape, extent)
    return (boxes * scale + offset).astype(np.float32)


def to_figure(boxes: np.ndarray, shape: tuple[int, int], extent: np.ndarray) -> np.ndarray:
    """The inverse of `to_square`, cut to the figure."""
    scale, offset = _scale(shape, extent)
    limits = np.array([[shape[1], shape[0]] * 2], np.float32)
    return np.clip((boxes - offset) / scale, 0, limits).astype(np.float32)


class Figures(Protocol):
    """Random access to figures: `figures[i] -> {"image": uint8 [H, W, 3], "boxes": float32 [N, 4], ...}`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Squares:
    """Figures as arrays of one shape, for batches: `squares[i] -> {"image": uint8 [S, S, 3], "boxes": float32 [most, 4], "count": int32,
    "extent": float32 [4], "index": int32}`; the first `count` boxes are there, in pixels of the square.

    There are `length` of them, and square i is figure i. Raises UserError for a figure of more than `most` panels, and for boxes that are
    not corners in their figure.
    """

    figures: Figures
    size: int
    most: int
    length: int

    @property
    def keys(self) -> tuple[str, ...]:
        """What every square has."""
        return ("image", "boxes", "count", "extent", "index")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        figure = self.figures[index]
        image, boxes = figure["image"], figure["boxes"]
        check_boxes(boxes, image.shape[:2])
        if len(boxes) > self.most:
            raise UserError(f"figure {index} has {len(boxes)} panels, more than config.figures.most={self.most}; raise it.")
        square, extent = letterbox(image, self.size)
        padded = np.zeros((self.most, 4), np.float32)
        padded[: len(boxes)] = to_square(boxes, image.shape[:2], extent)
        return {"image": square, "boxes": padded, "count": np.int32(len(boxes)), "extent": extent, "index": np.int32(index)}


def check_boxes(boxes: np.ndarray, shape: tuple[int, int]) -> None:
    """Raises UserError where boxes are not float32 [N, 4] corners within a figure of `shape` (height, width): a centre and its sides, or
    y before x, would pass for corners silently."""
    expected = CORNERS.format(*shape)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype != np.float32:
        raise UserError(f"{expected}, one a row; these are {boxes.dtype} of the shape {boxes.shape}.")
    low, high = boxes[:, :2], boxes[:, 2:]
    wrong = (low >= high).any(1) | (low < 0).any(1) | (high > np.array([[shape[1], shape[0]]], np.float32)).any(1)
    if wrong.any():
        raise UserError(f"{expected}; {boxes[wrong][0].tolist()} is none.")


def _scale(shape: tuple[int, int], extent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors and offsets [1, 4] from the figure to the square."""
    height, width = shape
    x, y, right, bottom = extent
    return np.array([[(right - x) / width, (bottom - y) / height] * 2], np.float32), np.array([[x, y] * 2], np.float32)
