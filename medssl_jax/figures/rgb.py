"""From the arrays of a source to pictures that a figure shows: 8-bit RGB, bright enough, at the size of their panels."""

from __future__ import annotations

import numpy as np
from PIL import Image

PERCENTILES = (0.1, 99.9)  # of a 16-bit image, which become black and white
DIM = 128  # brightest value of an image that is shown brighter


def to_rgb(image: np.ndarray) -> np.ndarray:
    """uint8|uint16 [H, W, C] -> uint8 [H, W, 3]: one channel is gray, two are red and green, of more than three the first three are taken.

    16 bits are scaled from the 0.1 to the 99.9 percentile of each channel.
    """
    image = image[..., :3]
    if image.dtype != np.uint8:
        low, high = np.percentile(image, PERCENTILES, axis=(0, 1))
        image = np.clip((image - low) / np.maximum(high - low, 1) * 255, 0, 255).astype(np.uint8)
    if image.shape[-1] == 1:
        return np.repeat(image, 3, axis=-1)
    return np.ascontiguousarray(np.pad(image, ((0, 0), (0, 0), (0, 3 - image.shape[-1]))))


def brightened(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] that uses less than half of the range is scaled to all of it, as authors do with dim fluorescence."""
    top = int(image.max())
    return image if top >= DIM or not top else (image.astype(np.float32) * (255 / top)).astype(np.uint8)


def fit(image: Image.Image, part: tuple[float, float, float, float], width: int, height: int, keep_aspect: bool) -> Image.Image:
    """The part of the image scaled to `width` x `height`: cut centrally to that shape, or stretched where `keep_aspect` is False."""
    x0, y0, x1, y1 = (share * side for share, side in zip(part, (*image.size, *image.size), strict=True))
    if keep_aspect:
        scale = min((x1 - x0) / width, (y1 - y0) / height)
        x, y, w, h = (x0 + x1) / 2, (y0 + y1) / 2, width * scale / 2, height * scale / 2
        x0, y0, x1, y1 = max(x - w, 0), max(y - h, 0), min(x + w, image.width), min(y + h, image.height)
    return image.resize((width, height), Image.Resampling.BILINEAR, (x0, y0, x1, y1), 2.0)
