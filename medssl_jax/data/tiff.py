"""TIFF and OME-TIFF -> [H, W, C]: which axis is which, alpha, palettes, and whether the file is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from medssl_jax.errors import UserError

SUFFIXES = (".tif", ".tiff", ".lsm", ".svs")
CHANNEL_AXES = "CS"
UNNAMED_AXES = "QI"  # pages whose meaning the file does not tell: read as channels up to MAX_UNNAMED
MAX_UNNAMED = 16
LARGEST = 2**30  # pixels that are read at once
PLANES = {"T": "time points", "Z": "slices"}
MINISWHITE = 0  # TIFF's photometric interpretation in which 0 is white
ALPHA = (1, 2)  # TIFF's extra samples that are transparency


def decode(path: Path, palette: bool = True) -> np.ndarray:
    """The first series' values [H, W, C] in their own dtype. Raises UserError for stacks, tifffile's errors for damage."""
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        order, alpha = order_of(path, series), alpha_of(series)
        _check_size(path, series)
        check_whole(path, series)
        values = series.asarray()
        page = series.keyframe
        if page.colormap is not None and palette:
            return np.moveaxis(page.colormap[:, values.squeeze()] >> 8, 0, -1).astype(np.uint8)
    image = np.transpose(values, order)
    image = image.reshape(*image.shape[:2], -1)
    image = image[:, :, : image.shape[2] - alpha]
    if page.photometric == MINISWHITE and np.issubdtype(image.dtype, np.unsignedinteger):
        image = np.iinfo(image.dtype).max - image
    return image


def probe(path: Path) -> tuple[int, int, int, np.dtype]:
    """Height, width, channels and dtype from the header. Raises as `decode` does, also where bytes of pixels are missing."""
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        _check_size(path, series)
        check_whole(path, series)
        shape = [series.shape[axis] for axis in order_of(path, series)]
        if series.keyframe.colormap is not None:
            return shape[0], shape[1], 3, np.dtype(np.uint8)
        return shape[0], shape[1], int(np.prod(shape[2:])) - alpha_of(series), series.dtype


def too_many_planes(path: Path, count: int, things: str) -> UserError:
    """The error for a stack where one image is expected."""
    return UserError(f"{path} holds {count} {things}, and one file is read as one image; save each of them as a file of its own.")


def order_of(path: Path, series: tifffile.TiffPageSeries) -> list[int]:
    """Positions of the axes in the order height, width, then all that are channels."""
    axes, shape = series.axes, series.shape
    unnamed = next((i for i, axis in enumerate(axes) if axis in UNNAMED_AXES and shape[i] > MAX_UNNAMED), None)
    if unnamed is not None and len(axes) == 3 and shape[-1] <= MAX_UNNAMED:
        return [0, 1, 2]  # an array with the channels last, written without saying so: tifffile's default
    rest = [i for i, axis in enumerate(axes) if axis not in "YX"]
    for i in rest:
        known = axes[i] in CHANNEL_AXES or (axes[i] in UNNAMED_AXES and i != unnamed)
        if not known and shape[i] > 1:
            raise too_many_planes(path, shape[i], PLANES.get(axes[i], "pages"))
    return [axes.index("Y"), axes.index("X"), *rest]


def alpha_of(series: tifffile.TiffPageSeries) -> int:
    """Channels at the end that are transparency."""
    return sum(int(sample) in ALPHA for sample in series.keyframe.extrasamples)


def check_whole(path: Path, series: tifffile.TiffPageSeries) -> None:
    """Raises ValueError where the file ends before the pixels that it promises."""
    size = path.stat().st_size
    for page in series.pages:
        if page is None or any(at + n > size for at, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise ValueError(f"it is cut short at {size} bytes")


def _check_size(path: Path, series: tifffile.TiffPageSeries) -> None:
    """Raises UserError for what would fill the memory."""
    if series.keyframe.imagelength * series.keyframe.imagewidth > LARGEST:
        raise UserError(
            f"{path} is {series.keyframe.imagelength} x {series.keyframe.imagewidth} px, too large to be read at once; "
            "read it tile by tile with --config.data.source=slides."
        )
