"""One whole slide: a tiled TIFF, with its smaller copies (levels) where it has them, of which only the asked window is ever decoded.

Pyramidal TIFF, BigTIFF, OME-TIFF (channels as planes too) and Aperio's SVS, through tifffile and imagecodecs.
"""

from __future__ import annotations

import dataclasses
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from medssl_jax.data import tiff
from medssl_jax.errors import UserError

LARGEST_SEGMENT = 2**28  # bytes that are decoded at once
COARSEST = 50.0  # microns per pixel; what the resolution of a TIFF says beyond it was meant for a printer
METRIC = (3, 4, 5)  # TIFF's units of resolution that are metric: centimetre, millimetre, micrometre
UNITS = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3}


@dataclasses.dataclass(frozen=True)
class Level:
    """One copy of the slide, and how many times smaller than the first it is."""

    path: Path
    series: tifffile.TiffPageSeries
    height: int
    width: int
    downsample: float

    @cached_property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.series.dtype

    @cached_property
    def channels(self) -> int:
        """Without alpha."""
        return self._samples - tiff.alpha_of(self.series)

    def window(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        """Values [height, width, C] of the window whose first pixel is (y, x), which lies within the level.

        Raises what the decoders raise.
        """
        out = np.full((height, width, self._samples), self.series.keyframe.nodata, self.dtype)
        for plane in range(self._planes):
            for segment, top, left in self._segments(plane, y, x, height, width):
                _paste(out, segment, top - y, left - x, plane * self._contiguous)
        out = out[:, :, : self.channels]
        inverted = self.series.keyframe.photometric == tiff.MINISWHITE
        return np.iinfo(out.dtype).max - out if inverted else np.ascontiguousarray(out)

    def _segments(self, plane: int, y: int, x: int, height: int, width: int) -> Any:
        """Decoded segments [h, w, S] of a plane that meet the window, each with its first pixel; those that the file leaves out are not."""
        keyframe, (length, breadth) = self.series.keyframe, self._segment
        page: Any = self.series.pages[plane // self._separate]
        rows, columns = -(-self.height // length), -(-self.width // breadth)
        for row in range(y // length, -(-(y + height) // length)):
            for column in range(x // breadth, -(-(x + width) // breadth)):
                number = (plane % self._separate * rows + row) * columns + column
                if page.databytecounts[number]:
                    data = os.pread(page.parent.filehandle.fileno(), page.databytecounts[number], page.dataoffsets[number])
                    segment: Any = keyframe.decode(data, number, jpegtables=page.jpegtables)[0]
                    yield segment[0], row * length, column * breadth

    @cached_property
    def _segment(self) -> tuple[int, int]:
        """Height and width of what is decoded at once: a tile, or a strip."""
        page = self.series.keyframe
        return (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, page.imagelength), page.imagewidth)

    @cached_property
    def _contiguous(self) -> int:
        """Samples that lie beside each other in a segment."""
        page = self.series.keyframe
        return page.samplesperpixel // self._separate

    @cached_property
    def _separate(self) -> int:
        """Planes of samples in a page."""
        page = self.series.keyframe
        return page.samplesperpixel if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else 1

    @cached_property
    def _planes(self) -> int:
        return len(self.series.pages) * self._separate

    @cached_property
    def _samples(self) -> int:
        return self._planes * self._contiguous

    def check(self) -> None:
        """Raises UserError for what is no slide, ValueError for a file that ends too early."""
        page = self.series.keyframe
        tiff.order_of(self.path, self.series)  # refuses stacks
        tiff.check_whole(self.path, self.series)
        if page.colormap is not None or self.dtype not in (np.uint8, np.uint16):
            what = "a palette" if page.colormap is not None else f"{self.dtype} values"
            raise UserError(f"{self.path} has {what}; slides of 8 or 16 bit are read.")
        if np.prod(self._segment) * self._contiguous * self.dtype.itemsize > LARGEST_SEGMENT:
            remedy = "save it in tiles, as with `vips tiffsave IN OUT --tile --pyramid --compression jpeg`"
            raise UserError(f"{self.path} is not stored in tiles but in pieces of {self._segment[0]} x {self._segment[1]} px; {remedy}.")


@dataclasses.dataclass(frozen=True)
class Slide:
    """The levels, largest first, and the microns of a pixel of the first where the file tells them."""

    path: Path
    levels: tuple[Level, ...]
    microns: float | None
    file: tifffile.TiffFile

    def close(self) -> None:
        """After which no level can be read."""
        self.file.close()


def open_slide(path: Path) -> Slide:
    """Reads the headers. Raises UserError for what is no slide, tifffile's errors for damage."""
    file = tifffile.TiffFile(path)
    series = file.series[0].levels
    shapes = [(s.keyframe.imagelength, s.keyframe.imagewidth) for s in series]
    levels = tuple(Level(path, s, *shape, shapes[0][0] / shape[0]) for s, shape in zip(series, shapes))
    return Slide(path, levels, _microns(file), file)


def _paste(out: np.ndarray, segment: np.ndarray, top: int, left: int, channel: int) -> None:
    """Copy what of the segment [h, w, S], whose first pixel is (top, left) of `out`, lies within it."""
    y, x = max(top, 0), max(left, 0)
    piece = segment[y - top : out.shape[0] - top, x - left : out.shape[1] - left]
    out[y : y + piece.shape[0], x : x + piece.shape[1], channel : channel + piece.shape[2]] = piece


def _microns(file: tifffile.TiffFile) -> float | None:
    """Width of a pixel of the first level, by Aperio's description, OME's, or TIFF's own resolution."""
    page = file.pages.first
    if file.is_svs and (told := re.search(r"MPP\s*=\s*([\d.]+)", page.description)):
        return float(told[1])
    if file.is_ome and (told := re.search(r'PhysicalSizeX="([\d.eE+-]+)"', page.description)):
        unit = re.search(r'PhysicalSizeXUnit="([^"]+)"', page.description)
        return float(told[1]) * UNITS[unit[1] if unit else "µm"] if not unit or unit[1] in UNITS else None
    if page.tags.valueof(296) in METRIC and (per_micron := page.get_resolution("MICROMETER")[0]) > 1 / COARSEST:
        return 1 / per_micron
    return None
