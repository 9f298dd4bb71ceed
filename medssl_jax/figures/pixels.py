"""From what Pillow or tifffile decoded to 8-bit RGB, the huge at a fraction of their size."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from medssl_jax.errors import UserError

READ_WHOLE = 40_000_000  # pixels from which an image is read at a fraction of its size: A4 at 600 dpi has 35 million
LARGEST = 500_000_000  # pixels, beyond which an image is not read at all; Pillow's own limit is a third of it
DRAFTS = (2, 4, 8)  # fractions that a JPEG can be decoded at
BAND = 256  # rows of the small image that are converted at a time
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # Pillow's modes of more than 8 bits
WINDOW = (0.1, 99.9)  # percentiles that become black and white where values have signs, as those of `config.data.window` do
TURNED = (5, 6, 7, 8)  # EXIF orientations by which width and height change places


class Pixels(NamedTuple):
    """RGB uint8 [H, W, 3], by how much it is smaller than what is stored, and the width and height of that."""

    image: np.ndarray
    scale: int
    size: tuple[int, int]


def decoded(picture: Image.Image) -> Pixels:
    """What is shown, at a fraction of its size where it is huge. Raises UserError beyond LARGEST."""
    width, height = picture.size
    if width * height > LARGEST:
        raise UserError(f"has {width} x {height} pixels, and figures are read up to {LARGEST // 10**6} million; make it smaller")
    scale = math.ceil(math.sqrt(width * height / READ_WHOLE))
    if picture.format == "JPEG" and scale > 1:
        scale = next((draft for draft in DRAFTS if draft >= scale), DRAFTS[-1])
        picture.draft("RGB", (width // scale, height // scale))
    left = max(1, round(scale * picture.width / width))
    return Pixels(_rgb(picture) if left == 1 else _reduced(picture, left), scale, (width, height))


def upright(found: Pixels, picture: Image.Image) -> Pixels:
    """What was decoded of the picture, turned as its EXIF data say that the camera was held."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation == 1:
        return found
    turned = Image.fromarray(found.image)
    turned.getexif()[ExifTags.Base.Orientation] = orientation
    width, height = found.size
    size = (height, width) if orientation in TURNED else (width, height)
    return Pixels(np.asarray(ImageOps.exif_transpose(turned)), found.scale, size)


def colours(values: np.ndarray) -> np.ndarray:
    """[H, W, C] of any type -> uint8 [H, W, 3]. Raises UserError for other than 1 or 3 channels.

    Whole numbers are scaled by the power of two that holds the largest one, fractions in 0..1 by 255. Where values are negative, as
    Hounsfield units are, the 0.1 and 99.9 percentiles become black and white.
    """
    if values.shape[2] not in (1, 3):
        raise UserError(f"has {values.shape[2]} channels, and a figure has 1 or 3; save it as RGB")
    if values.dtype != np.uint8:
        values = np.nan_to_num(values.astype(np.float32))
        low, high = np.percentile(values, WINDOW) if values.min(initial=0) < 0 else (0.0, _full(float(values.max(initial=0))))
        values = ((values - low) * (255 / max(high - low, 1e-6))).clip(0, 255).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def _full(top: float) -> float:
    """The value that is white where the largest one is `top`."""
    return 1.0 if 0 < top <= 1 else 2.0 ** max(8, math.ceil(math.log2(top + 1))) - 1


def _reduced(picture: Image.Image, factor: int) -> np.ndarray:
    """RGB at 1 / `factor` of the size, converted band by band: the whole would need a multiple of the memory."""
    if picture.mode in DEEP:
        return colours(np.asarray(picture)[::factor, ::factor, None])
    step = BAND * factor
    bands = (picture.crop((0, y, picture.width, min(y + step, picture.height))) for y in range(0, picture.height, step))
    return np.concatenate([np.asarray(Image.fromarray(_rgb(band)).reduce(factor)) for band in bands])


def _rgb(picture: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]: transparent pixels on white, 16 bits by the bits that are used."""
    if picture.mode in DEEP:
        return colours(np.asarray(picture)[:, :, None])
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB"))
