"""Figures from a folder or from PDFs, one after the other, as 8-bit RGB. A figure that cannot be read comes as the sentence that says why.

Of a PDF the embedded images are read: a figure that is drawn as vectors, or as text, is none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

from medssl_jax.data import tiff
from medssl_jax.errors import UserError
from medssl_jax.figures import pdf
from medssl_jax.figures.files import MANY, PDF, plain
from medssl_jax.figures.pixels import colours, decoded, upright

REDUCED = 254  # TIFF's tag of a page's kind, whose first bit is set where it is a smaller copy of another page
SMALLEST = 32  # px, both sides of an embedded image: lines and logos are smaller


class Figure(NamedTuple):
    """One figure of a file, or why there is none.

    Attributes:
      source: its path from the folder, with slashes.
      page: from 1, of a PDF or a TIFF; 1 for other files.
      number: which image of that page, from 1.
      image: uint8 [H, W, 3], or None where `error` says why not.
      scale: pixels of the file that one pixel of `image` stands for, along each side; 1 unless it is huge.
      size: width and height in pixels of the file.
      error: one sentence, or "".
    """

    source: str
    page: int
    number: int
    image: np.ndarray | None
    scale: int = 1
    size: tuple[int, int] = (0, 0)
    error: str = ""

    def stored(self, corners: np.ndarray) -> np.ndarray:
        """Corners int [..., 4] (x0, y0, x1, y1) in pixels of `image` as pixels of the file, whose sides `scale` need not divide."""
        return np.minimum(self.scale * corners, self.size * 2)


def where(source: str, page: int | str, number: int | str) -> str:
    """A figure in words: its source, with the page of a TIFF, and the page and the image of a PDF."""
    kind = PurePosixPath(source).suffix.lower()
    place = f", page {page}" if kind in MANY else ""
    return f"{source}{place}" + (f", image {number}" if kind == PDF else "")


def sentence(named: str, said: str) -> str:
    """'a.png' and 'is blank' -> 'a.png is blank.'; 'a.pdf, page 1' -> 'a.pdf, page 1, is blank.'."""
    return f"{named}{',' * (', page ' in named)} {said}."


def figures_of(file: Path, source: str, smallest: int = SMALLEST) -> Iterator[Figure]:
    """The figures of one file: of an image one for each page, of a PDF its embedded images with sides of `smallest` px or more.

    Raises nothing for a file that cannot be read, or a part of it: that comes as a figure with an error. There is one figure at least.
    """
    Image.MAX_IMAGE_PIXELS = None  # scans of 20,000 px are figures too; `decoded` has a limit of its own, before it decodes
    page = 1
    try:
        if file.stat().st_size == 0:
            raise UserError("is empty (0 bytes); get it again, or remove it")
        for figure in _pdf(file, source, smallest) if file.suffix.lower() == PDF else _image(file, source):
            page = figure.page + 1
            yield figure
    except Exception as error:  # whatever a decoder raises
        named = where(source, page, 1) if page > 1 and file.suffix.lower() != PDF else source
        yield Figure(source, page, 1, None, error=_why(named, error))


def _why(named: str, error: Exception) -> str:
    """One sentence for what a decoder raised."""
    if isinstance(error, UserError):
        return sentence(named, str(error))
    if pdf.is_locked(error):
        return sentence(
            named, "is encrypted with AES; install what reads it (pip install 'pypdf[crypto]'), or save a copy without encryption"
        )
    if "jbig2dec" in str(error):
        return sentence(named, "needs the program jbig2dec to be read (Debian: apt install jbig2dec); install it, or save the page as PNG")
    if isinstance(error, MemoryError):
        return sentence(named, "does not fit into the memory; make it smaller")
    if isinstance(error, PermissionError):
        return sentence(named, "may not be read (permission denied); change its rights")
    if isinstance(error, FileNotFoundError):
        return sentence(named, "is not there any more, or is a link to nothing; get it again, or remove it")
    said = (isinstance(error, OSError) and error.strerror) or str(error)
    reason = plain(" ".join(said.split())).rstrip(".") or type(error).__name__
    return sentence(named, f"cannot be read: {reason}; get it again, or remove it")


def _image(file: Path, source: str) -> Iterator[Figure]:
    """The pages of an image file, smaller copies of a page left out."""
    try:
        with Image.open(file) as picture:
            for number in _pages(picture):
                yield Figure(source, number, 1, *upright(decoded(picture), picture))
    except UnidentifiedImageError:
        if file.suffix.lower() not in tiff.SUFFIXES:
            raise UserError("is no image, or a damaged one; get it again, or remove it") from None
        image = colours(_other_tiff(file))
        yield Figure(source, 1, 1, image, size=image.shape[1::-1])


def _pages(picture: Image.Image) -> Iterator[int]:
    """Turn to the pages of a TIFF, from 1, but for smaller copies of others; of an animated PNG, GIF or WebP to the first."""
    if picture.format != "TIFF":
        yield 1
        return
    none = True
    for number, frame in enumerate(ImageSequence.Iterator(picture), 1):
        if not frame.tag_v2.get(REDUCED, 0) & 1:  # type: ignore[attr-defined]
            none = False
            yield number
    for number in range(1, picture.n_frames + 1) if none else ():  # type: ignore[attr-defined]  # all say that they are copies
        picture.seek(number - 1)
        yield number


def _other_tiff(file: Path) -> np.ndarray:
    """The stored values [H, W, C] of a TIFF that Pillow does not know: of fractions and colours, or of other channels."""
    try:
        return tiff.decode(file)
    except UserError as error:  # it names the file, which is named here too
        raise UserError(str(error).removeprefix(f"{file} ").rstrip(".")) from error


def _pdf(file: Path, source: str, smallest: int) -> Iterator[Figure]:
    """The embedded images of all pages, each once; one that cannot be read does not hide the others."""
    for page, number, found in pdf.embedded(file, smallest):
        if isinstance(found, Exception):
            yield Figure(source, page, number, None, error=_why(where(source, page, number), found))
        else:
            yield Figure(source, page, number, *found)
