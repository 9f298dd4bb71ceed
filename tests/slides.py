"""Small whole slides: pyramidal tiled TIFFs of stained tissue on glass, in the dialects of scanners."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

GLASS = 240


def tissue_on_glass(side: int = 512, channels: int = 3, seed: int = 0) -> np.ndarray:
    """uint8 [S, S, C]: purple tissue in the left upper quarter, grey glass elsewhere, each with a little noise."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, channels), GLASS)
    image[: side // 2, : side // 2] = np.array([150, 60, 160])[:channels]
    return np.clip(image + rng.integers(-6, 7, (side, side, 1)), 0, 255).astype(np.uint8)


def write(path: Path, image: np.ndarray, levels: int = 3, **options) -> Path:
    """A tiled BigTIFF with `levels` copies, each half as large, as SubIFDs; 0.5 microns per pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {
        "tile": (64, 64),
        "compression": "zlib",
        "resolution": (20_000, 20_000),
        "resolutionunit": "CENTIMETER",
        "metadata": None,
        **options,
    }
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(image, subifds=levels - 1, **known)
        for k in range(1, levels):
            smaller = image[..., :: 2**k, :: 2**k] if image.shape[0] < 16 else image[:: 2**k, :: 2**k]
            file.write(smaller, subfiletype=1, **{**known, "metadata": None})
    return path


def svs(path: Path, image: np.ndarray, mpp: float = 0.25) -> Path:
    """The same as Aperio's: the levels are pages, the microns stand in the description, the tiles are JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = f"Aperio Image Library v11\n{image.shape[1]}x{image.shape[0]} [0,0] (64x64) JPEG/RGB Q=90|AppMag = 40|MPP = {mpp}"
    with tifffile.TiffWriter(path) as file:
        for k, step in enumerate((1, 8, 4)):  # the slide, its thumbnail, the second level
            description = about if k == 0 else f"Aperio Image Library v11\n-> {image.shape[1] // step}x{image.shape[0] // step}"
            known = {"tile": (64, 64), "compression": "jpeg", "photometric": "rgb", "metadata": None, "description": description}
            file.write(image[::step, ::step], **known)
    return path
