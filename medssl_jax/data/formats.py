"""One image file -> one array. PNG and JPEG through Pillow, TIFF through tifffile, other microscope formats through bioio's plugins."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from medssl_jax.data import tiff
from medssl_jax.errors import UserError

PILLOW = (".png", ".jpg", ".jpeg", ".bmp")
PLUGINS = {  # formats that bioio reads once the user has installed the plugin
    ".czi": "bioio-czi",
    ".lif": "bioio-lif",
    ".nd2": "bioio-nd2",
    ".dv": "bioio-dv",
    ".r3d": "bioio-dv",
    ".oib": "bioio-bioformats",
    ".oif": "bioio-bioformats",
    ".vsi": "bioio-bioformats",
    ".ims": "bioio-bioformats",
}
SUFFIXES = frozenset((*PILLOW, *tiff.SUFFIXES, *PLUGINS))

JPEG_END = b"\xff\xd9"
TAIL = 64  # bytes searched for the end of a JPEG; some writers pad


class Probe(NamedTuple):
    """Height and width in pixels, channels (without alpha) and dtype of a stored image."""

    height: int
    width: int
    channels: int
    dtype: np.dtype

    @classmethod
    def of(cls, image: np.ndarray) -> Probe:
        """What a header would say of [H, W, C]."""
        return cls(image.shape[0], image.shape[1], image.shape[2], image.dtype)


def read_mask(path: str | Path) -> np.ndarray:
    """Labels int32 [H, W]. A JPEG mask, whose compression blurs values, is read as 0 below 128 and 1 from there on.

    Raises UserError for a file that cannot be read, that has colours, or that holds fractions.
    """
    mask = decode(path, palette=False)
    if mask.shape[2] > 1 and np.any(mask != mask[:, :, :1]):
        raise UserError(f"the mask {path} has {mask.shape[2]} different channels; a mask has one, whose values are the labels.")
    labels = mask[:, :, 0]
    if Path(path).suffix.lower() in (".jpg", ".jpeg"):
        return (labels >= 128).astype(np.int32)
    if np.any(labels != labels.astype(np.int32)):
        raise UserError(f"the mask {path} holds fractions ({labels.dtype}); the labels of a mask are whole numbers.")
    return labels.astype(np.int32)


def decode(path: str | Path, palette: bool = True) -> np.ndarray:
    """The stored values [H, W, C] in their own dtype, without alpha; palettes become RGB unless `palette` is False (masks)."""
    path = Path(path)
    with named(path):
        if path.suffix.lower() in tiff.SUFFIXES:
            return tiff.decode(path, palette)
        if path.suffix.lower() in PILLOW:
            return decode_bytes(path.read_bytes(), palette)
        return _bioio(path)


def decode_bytes(data: bytes, palette: bool = True) -> np.ndarray:
    """PNG, JPEG or BMP bytes -> [H, W, C]. Raises what Pillow raises."""
    if _deep_color_png(data):
        import imagecodecs

        image = imagecodecs.png_decode(data)  # Pillow would halve the bit depth
        return image[:, :, : 3 if image.shape[2] > 2 else 1]
    with Image.open(io.BytesIO(data)) as picture:
        mode = _MODES.get(picture.mode, "RGB")
        if picture.mode == "P" and not palette:
            mode = "P"
        array = np.asarray(picture if mode == picture.mode else picture.convert(mode))
    return array[:, :, None] if array.ndim == 2 else array


def probe(path: str | Path, thorough: bool = False) -> Probe:
    """Size, channels and dtype from the header, and whether the file is whole; `thorough` decodes it to be sure.

    Raises UserError, naming the file, for one that is empty, cut short, or no image. Without `thorough`, damage in the middle of a file
    of full length can pass.
    """
    path = Path(path)
    with named(path):
        if thorough or path.suffix.lower() in PLUGINS:
            return Probe.of(decode(path))
        if path.suffix.lower() in tiff.SUFFIXES:
            return Probe(*tiff.probe(path))
        _check_whole(path)
        with path.open("rb") as file:
            return _probe_header(file)


def probe_bytes(data: bytes) -> Probe:
    """As `probe`, for the bytes of a PNG, JPEG or BMP. Raises what Pillow raises."""
    return _probe_header(io.BytesIO(data))


def _probe_header(file: BinaryIO) -> Probe:
    deep, kind = _deep_color_png(head := file.read(26)), head[-1]
    file.seek(0)
    with Image.open(file) as picture:
        channels, dtype = _LAYOUT[_MODES.get(picture.mode, "RGB")]
        if deep:
            channels, dtype = (1 if kind == 4 else 3), "uint16"
        return Probe(picture.height, picture.width, channels, np.dtype(dtype))


# Pillow's modes -> the mode an image is read in; all others are colours.
_MODES = {"1": "1", "L": "L", "LA": "L", "I;16": "I;16", "I;16B": "I;16", "I": "I", "F": "F"}
_LAYOUT = {"1": (1, "bool"), "L": (1, "uint8"), "I;16": (1, "uint16"), "I": (1, "int32"), "F": (1, "float32"), "RGB": (3, "uint8")}


def _deep_color_png(data: bytes) -> bool:
    """Whether a PNG has 16 bits and colours or alpha (bit depth at byte 24, colour type at byte 25)."""
    return data[:4] == b"\x89PNG" and data[24] == 16 and data[25] != 0


def _check_whole(path: Path) -> None:
    """Cheap signs of damage: PNG's checksums, JPEG's end mark; where in doubt, the file is decoded."""
    if path.suffix.lower() == ".png":
        with Image.open(path) as picture:
            picture.verify()
    elif not (path.suffix.lower() in (".jpg", ".jpeg") and JPEG_END in _tail(path)):
        decode(path)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, os.path.getsize(path) - TAIL))
        return file.read()


def _bioio(path: Path) -> np.ndarray:
    """A microscope file of one plane -> [H, W, C]."""
    from bioio import BioImage
    from bioio_base.exceptions import UnsupportedFileFormatError

    try:
        image = BioImage(path)
    except UnsupportedFileFormatError as error:
        plugin = PLUGINS.get(path.suffix.lower())
        remedy = f"pip install {plugin}" if plugin else "save it as PNG or TIFF"
        raise UserError(f"{path} needs a reader for {path.suffix} files that is not installed; {remedy}.") from error
    for axis, things in (("T", "time points"), ("Z", "slices")):
        if getattr(image.dims, axis) > 1:
            raise tiff.too_many_planes(path, getattr(image.dims, axis), things)
    array = image.get_image_data("YXCS" if "S" in image.dims.order else "YXC")
    return array.reshape(*array.shape[:2], -1)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Whatever a decoder raises becomes one sentence that names the file."""
    try:
        if not path.exists():
            raise UserError(f"there is no file {path}.")
        if path.stat().st_size == 0:
            raise _damaged(path, "it is empty (0 bytes)")
        yield
    except (UserError, PermissionError, MemoryError):
        raise
    except Exception as error:
        raise _damaged(path, " ".join(str(error).split()) or type(error).__name__) from error


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} cannot be read as an image: {reason.rstrip('.')}; replace or remove it, or leave such files out with "
        "--config.data.on_damaged=skip."
    )
