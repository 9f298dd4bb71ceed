"""Prediction over whole images and whole sets: sliding windows with blending, batches of one static shape."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from medssl_jax.train import mesh as meshes

Predict = Callable[[np.ndarray], Any]  # images [N, S, S, C] -> probabilities [N, ...], or a tree of such arrays
GROUP = 16  # images whose probability maps are held at a time


def batched(predict: Callable[..., Any], params: object, carried: object, mesh: Mesh, batch: int) -> Predict:
    """`predict(params, carried, images)`, jitted, over any number of images in batches of `batch`, divided over the mesh."""

    def run(images: np.ndarray) -> Any:
        """The last batch is filled up with its last image, so that every batch has one shape."""
        found = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            padded = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
            placed = meshes.place(padded, meshes.along_batch(mesh))
            found.append(jax.device_get(predict(params, carried, placed)))
        return jax.tree.map(lambda *pieces: np.concatenate(pieces)[: len(images)], *found)

    return run


def window_corners(height: int, width: int, size: int, overlap: float) -> list[tuple[int, int]]:
    """Top left corners of windows that cover the image, evenly spread, neighbours sharing at least `overlap` of their side."""
    stride = max(1, round(size * (1 - overlap)))

    def starts(side: int) -> list[int]:
        """Where the windows begin along a side of that length."""
        count = 1 + max(0, -(-(side - size) // stride))
        return [round(i * (side - size) / max(count - 1, 1)) for i in range(count)]

    return list(itertools.product(starts(height), starts(width)))


def blending(size: int) -> np.ndarray:
    """Weights [size, size] of a window's pixels: highest in its middle, never zero."""
    ramp = np.hanning(size + 2)[1:-1] + 1e-3
    return np.outer(ramp, ramp).astype(np.float32)


def segment(predict: Predict, images: Iterable[np.ndarray], size: int, overlap: float = 0.5) -> Iterator[np.ndarray]:
    """Images [H, W, C] of any sizes -> class maps int32 [H, W], in order.

    Images of two windows a side and more are mirrored outwards by a quarter of a window: a convolution's zero padding then falls on
    pixels that are cut off again, not on the image's own border. Smaller ones are seen as they are, and only extended to a window: in
    the training's crops most of such an image is in sight, and a window that shows a half of it and that half's mirror image misleads.
    """
    for total in blend(predict, images, size, overlap):
        yield total.argmax(-1).astype(np.int32)


def blend(predict: Predict, images: Iterable[np.ndarray], size: int, overlap: float = 0.5, group: int = GROUP) -> Iterator[np.ndarray]:
    """The same windows, their weighted sums float32 [H, W, D] of whatever is predicted for every pixel; the weights differ from place to
    place. `group` images are held at a time."""
    source = iter(images)
    while some := list(itertools.islice(source, group)):
        yield from _blend_group(predict, some, size, overlap)


def _blend_group(predict: Predict, images: list[np.ndarray], size: int, overlap: float) -> Iterator[np.ndarray]:
    margins = [size // 4 if min(image.shape[:2]) >= 2 * size else 0 for image in images]
    padded = [_extend(image, margin, size) for image, margin in zip(images, margins)]
    places = [(i, y, x) for i, p in enumerate(padded) for y, x in window_corners(p.shape[0], p.shape[1], size, overlap)]
    probabilities = predict(np.stack([padded[i][y : y + size, x : x + size] for i, y, x in places]))
    sums = [np.zeros((*p.shape[:2], probabilities.shape[-1]), np.float32) for p in padded]
    weights = blending(size)[:, :, None]
    for (i, y, x), window in zip(places, probabilities, strict=True):
        sums[i][y : y + size, x : x + size] += weights * window
    for image, total, margin in zip(images, sums, margins, strict=True):
        yield total[margin:, margin:][: image.shape[0], : image.shape[1]]


def _extend(image: np.ndarray, margin: int, size: int) -> np.ndarray:
    """Mirrored by `margin` on every side, and further below and to the right where the result would be smaller than a window."""
    below, right = (max(margin, size - margin - side) for side in image.shape[:2])
    return np.pad(image, ((margin, below), (margin, right), (0, 0)), mode="symmetric")
