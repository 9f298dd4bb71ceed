"""What publishing does to a figure: it is scaled and compressed."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def degrade(
    image: Image.Image, boxes: np.ndarray, rng: np.random.Generator, rescale: tuple[float, float], quality: tuple[float, float]
) -> tuple[Image.Image, np.ndarray]:
    """An RGB figure scaled by U(`rescale`) and compressed as JPEG of quality U(`quality`) (section 2.1, item 8).

    Its boxes float [N, 4] (x0, y0, x1, y1; x1 and y1 exclusive) are scaled with it, and so may end between pixels.
    """
    scale = rng.uniform(*rescale)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    scaled = image.resize(size, FILTERS[rng.integers(len(FILTERS))], reducing_gap=2.0)
    file = io.BytesIO()
    scaled.save(file, "JPEG", quality=round(rng.uniform(*quality)))
    along = np.array([scaled.width / image.width, scaled.height / image.height] * 2)
    return Image.open(file), boxes * along
