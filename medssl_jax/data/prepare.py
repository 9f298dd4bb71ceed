"""From stored values to what the device gets: colour, percentile window, integer type, size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from PIL import Image

from medssl_jax.errors import UserError

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
UINT8, UINT16 = np.dtype(np.uint8), np.dtype(np.uint16)
CHANNELS = {"gray": 1, "rgb": 3}


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What every image of a data set goes through: `color` (auto, gray, rgb), `dtype` by `window`, shorter side `resize` (0: as is)."""

    color: str
    dtype: np.dtype
    window: tuple[float, ...]
    resize: int

    def image(self, image: np.ndarray, name: str) -> np.ndarray:
        """Stored values [H, W, C] -> uint8|uint16 [H', W', C']."""
        image = to_dtype(recolor(image, self.color, name), self.dtype, self.window, name)
        return resize(image, self.shape(*image.shape[:2]))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Labels int32 [H, W] -> int32 [H', W'], nearest neighbour."""
        shape = self.shape(*mask.shape)
        return mask if shape == mask.shape else np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST))

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after scaling; the aspect ratio is kept to rounding."""
        shorter = min(height, width)
        if self.resize in (0, shorter):
            return height, width
        return round(height * self.resize / shorter), round(width * self.resize / shorter)

    def channels(self, stored: int) -> int:
        """Channels after the change of colour."""
        return CHANNELS.get(self.color, stored)


def recolor(image: np.ndarray, color: str, name: str) -> np.ndarray:
    """[H, W, C] -> one channel (luminance) for gray, three for rgb, unchanged for auto. Raises UserError for other channel counts."""
    wanted = CHANNELS.get(color, image.shape[2])
    if image.shape[2] == wanted:
        return image
    if image.shape[2] not in CHANNELS.values():
        raise UserError(
            f"{name} has {image.shape[2]} channels, which config.data.color={color!r} cannot convert; use --config.data.color=auto."
        )
    if wanted == 3:
        return np.repeat(image, 3, axis=2)
    gray = image.astype(np.float64) @ np.array(LUMINANCE)
    return (gray if image.dtype.kind == "f" else np.rint(gray)).astype(image.dtype)[:, :, None]


def target_dtype(stored: Iterable[np.dtype]) -> np.dtype:
    """uint8 where every image has 8 bits or less, else uint16."""
    return UINT8 if all(dtype in (UINT8, np.dtype(bool)) for dtype in stored) else UINT16


def to_dtype(image: np.ndarray, dtype: np.dtype, window: tuple[float, ...], name: str) -> np.ndarray:
    """Stored values -> `dtype`: 8-bit images keep their values (times 257 in a 16-bit set), all others are windowed to uint16."""
    if image.dtype == bool:
        image = image.astype(np.uint8) * np.uint8(255)
    if image.dtype == UINT8:
        return image if dtype == UINT8 else image.astype(np.uint16) * np.uint16(257)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{name} holds values that are not finite (NaN or infinity); replace them by numbers.")
    return percentile_window(image, window) if window else _as_it_is(image, name)


def percentile_window(image: np.ndarray, percentiles: tuple[float, ...]) -> np.ndarray:
    """[H, W, C] -> uint16: in each channel the two percentiles become 0 and 65535, linearly and clipped; a flat channel becomes 0."""
    values = image.astype(np.float64)
    low, high = np.percentile(values, percentiles, axis=(0, 1))
    span = np.where(high > low, high - low, np.inf)
    return np.rint(np.clip((values - low[None, None]) / span[None, None], 0, 1) * 65535).astype(np.uint16)


def _as_it_is(image: np.ndarray, name: str) -> np.ndarray:
    """uint16 of the same values, or of floats in [0, 1] times 65535."""
    top = 1 if image.dtype.kind == "f" else 65535
    if image.min() < 0 or image.max() > top:
        raise UserError(
            f"{name} has values from {image.min():g} to {image.max():g}, outside 0 to {top}; "
            "let percentiles scale them, e.g. --config.data.window='(0.1, 99.9)'."
        )
    return np.rint(image.astype(np.float64) * (65535 // top)).astype(np.uint16)


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """uint8|uint16 [H, W, C] scaled to `shape` by Lanczos with antialiasing, channel by channel."""
    if image.shape[:2] == shape:
        return image
    return np.stack([_resize_channel(image[:, :, c], shape) for c in range(image.shape[2])], axis=-1)


def _resize_channel(channel: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    wide = channel if channel.dtype == UINT8 else channel.astype(np.float32)  # Pillow scales 16 bits as floats
    scaled = np.asarray(Image.fromarray(wide).resize(shape[::-1], Image.Resampling.LANCZOS))
    return scaled if channel.dtype == UINT8 else np.rint(np.clip(scaled, 0, 65535)).astype(np.uint16)
