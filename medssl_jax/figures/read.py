"""Figures from a folder or from PDFs, one after the other, as 8-bit RGB. A figure that cannot be read comes as the sentence that says why.

Of a PDF the embedded images are read: a figure that is drawn as vectors, or as text, is none of them.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pypdf
from PIL import Image, ImageSequence, UnidentifiedImageError

from medssl_jax.data import tiff
from medssl_jax.errors import UserError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
PDF = ".pdf"
READ_WHOLE = 40_000_000  # pixels from which an image is read at a fraction of its size: A4 at 600 dpi has 35 million
LARGEST = 500_000_000  # pixels, beyond which an image is not read at all; Pillow's own limit is a third of it
DRAFTS = (2, 4, 8)  # fractions that a JPEG can be decoded at
BAND = 256  # rows of the small image that are converted at a time
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # Pillow's modes of more than 8 bits
REDUCED = 254  # TIFF's tag of a page's kind, whose first bit is set where it is a smaller copy of another page
PDF_BYTES = 6 * READ_WHOLE  # of an image in a PDF, unpacked; pypdf's own limit is 25 million pixels
PDF_LIMITS: dict[str, Any] = dict.fromkeys(
    ("zlib_maximum_output_length", "image_maximum_buffer_size", "maximum_declared_stream_length"), PDF_BYTES
)
SMALLEST = 32  # px, both sides of an embedded image: lines and logos are smaller


class Figure(NamedTuple):
    """One figure of a file, or why there is none.

    Attributes:
      source: its path from the folder, with slashes.
      page: from 1, of a PDF or a TIFF; 1 for other files.
      number: which image of that page, from 1.
      image: uint8 [H, W, 3], or None where `error` says why not.
      scale: pixels of the file that one pixel of `image` stands for, along each side; 1 unless it is huge.
      error: one sentence, or "".
    """

    source: str
    page: int
    number: int
    image: np.ndarray | None
    scale: int = 1
    error: str = ""


def figure_files(path: Path) -> list[Path]:
    """The images and PDFs below a folder, sorted, hidden ones left out; or the one file. Raises UserError where there is none."""
    kinds = ", ".join(suffix[1:] for suffix in (*IMAGES, PDF))
    if path.is_file():
        if _kind(path) is None:
            raise UserError(f"{path} is not a figure; give a file of one of the kinds {kinds}, or a folder.")
        return [path]
    if not path.is_dir():
        raise UserError(f"{path} does not exist; give a folder of figures, or one PDF or image.")
    found = []
    for folder, below, names in os.walk(path):
        below[:] = [name for name in below if not name.startswith((".", "__MACOSX"))]
        found += [Path(folder, name) for name in names if not name.startswith(".") and _kind(Path(name))]
    if not found:
        raise UserError(f"there is no figure in {path} (looked for {kinds}); give the folder that holds them.")
    return sorted(found)


def figures(path: Path | str, smallest: int = SMALLEST) -> Iterator[Figure]:
    """All figures of a folder, of a PDF, or of one image, read as they are asked for. Raises UserError where there is no file to read."""
    path = Path(path).expanduser()
    for file in figure_files(path):
        yield from figures_of(file, name_of(file, path), smallest)


def name_of(file: Path, root: Path) -> str:
    """The source of a file's figures: its path from the folder `root`, or its name where it is `root` itself."""
    return file.name if file == root else file.relative_to(root).as_posix()


def figures_of(file: Path, source: str, smallest: int = SMALLEST) -> Iterator[Figure]:
    """The figures of one file: of an image one for each page, of a PDF its embedded images with sides of `smallest` px or more.

    Raises nothing for a file that cannot be read, or a part of it: that comes as a figure with an error.
    """
    page = 1
    try:
        if file.stat().st_size == 0:
            raise UserError("is empty (0 bytes); get it again, or remove it")
        for figure in _pdf(file, source, smallest) if _kind(file) == PDF else _image(file, source):
            page = figure.page + 1
            yield figure
    except Exception as error:  # whatever a decoder raises
        yield Figure(source, page, 1, None, error=_sentence(source, error))


def _kind(path: Path) -> str | None:
    suffix = path.suffix.lower()
    return suffix if suffix in (*IMAGES, PDF) else None


def _sentence(source: str, error: Exception) -> str:
    if isinstance(error, UserError):
        return f"{source} {error}."
    if _is_locked(error):
        return f"{source} is encrypted with AES; install what reads it (pip install 'pypdf[crypto]'), or save a copy without encryption."
    if isinstance(error, MemoryError):
        return f"{source} does not fit into the memory; make it smaller."
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return f"{source} cannot be read: {reason}; get it again, or remove it."


def _image(file: Path, source: str) -> Iterator[Figure]:
    """The pages of an image file, smaller copies of a page left out."""
    Image.MAX_IMAGE_PIXELS = None  # scans of 20,000 px are figures too; `_decoded` has a limit of its own, before it decodes
    try:
        with Image.open(file) as picture:
            many = picture.format == "TIFF"  # an animated PNG is one figure
            for number, frame in enumerate(ImageSequence.Iterator(picture) if many else [picture], 1):
                if not (many and frame.tag_v2.get(REDUCED, 0) & 1):  # type: ignore[attr-defined]
                    image, scale = _decoded(frame)
                    yield Figure(source, number, 1, image, scale)
    except UnidentifiedImageError:
        if file.suffix.lower() not in tiff.SUFFIXES:
            raise UserError("is no image, or a damaged one; get it again, or remove it") from None
        yield Figure(source, 1, 1, _colours(_other_tiff(file)))


def _other_tiff(file: Path) -> np.ndarray:
    """The stored values [H, W, C] of a TIFF that Pillow does not know: of fractions and colours, or of other channels."""
    try:
        return tiff.decode(file)
    except UserError as error:  # it names the file, which is named here too
        raise UserError(str(error).removeprefix(f"{file} ").rstrip(".")) from error


def _decoded(picture: Image.Image) -> tuple[np.ndarray, int]:
    """RGB uint8 [H, W, 3], and by how much it is smaller than what is stored."""
    width, height = picture.size
    if width * height > LARGEST:
        raise UserError(f"has {width} x {height} pixels, and figures are read up to {LARGEST // 10**6} million; make it smaller")
    scale = math.ceil(math.sqrt(width * height / READ_WHOLE))
    if picture.format == "JPEG" and scale > 1:
        scale = next((draft for draft in DRAFTS if draft >= scale), DRAFTS[-1])
        picture.draft("RGB", (width // scale, height // scale))
    left = max(1, round(scale * picture.width / width))
    return (_rgb(picture), scale) if left == 1 else (_reduced(picture, left), scale)


def _reduced(picture: Image.Image, factor: int) -> np.ndarray:
    """RGB at 1 / `factor` of the size, converted band by band: the whole would need a multiple of the memory."""
    if picture.mode in DEEP:
        return _colours(np.asarray(picture)[::factor, ::factor, None])
    step = BAND * factor
    bands = (picture.crop((0, y, picture.width, min(y + step, picture.height))) for y in range(0, picture.height, step))
    return np.concatenate([np.asarray(Image.fromarray(_rgb(band)).reduce(factor)) for band in bands])


def _rgb(picture: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]: transparent pixels on white, 16 bits by the bits that are used."""
    if picture.mode in DEEP:
        return _colours(np.asarray(picture)[:, :, None])
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB"))


def _colours(values: np.ndarray) -> np.ndarray:
    """[H, W, C] of any type -> uint8 [H, W, 3]. Whole numbers are scaled by the power of two that holds the largest one."""
    if values.shape[2] not in (1, 3):
        raise UserError(f"has {values.shape[2]} channels, and a figure has 1 or 3; save it as RGB")
    if values.dtype != np.uint8:
        values = np.nan_to_num(values.astype(np.float32)).clip(0)
        top = float(values.max(initial=0))
        full = 1.0 if 0 < top <= 1 else 2.0 ** max(8, math.ceil(math.log2(top + 1))) - 1
        values = (values * (255 / full)).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def _pdf(file: Path, source: str, smallest: int) -> Iterator[Figure]:
    """The embedded images of all pages, each once; one that cannot be read does not hide the others."""
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it would report what it mends
    Image.MAX_IMAGE_PIXELS = None  # as for files
    seen: set[int] = set()
    with pypdf.PdfReader(file) as reader:
        _unlock(reader)
        empty = True
        for number in range(1, len(reader.pages) + 1):
            for count, figure in enumerate(_embedded(reader, number, smallest, seen), 1):
                empty = False
                if isinstance(figure, Exception):
                    yield Figure(source, number, count, None, error=_sentence(f"{source}, page {number},", figure))
                else:
                    yield Figure(source, number, count, *figure)
    if empty:
        raise UserError(f"holds no embedded image of {smallest} px or more; save the pages with figures as PNG")


def _unlock(reader: pypdf.PdfReader) -> None:
    """Open what was encrypted without a password for reading."""
    if not reader.is_encrypted:
        return
    if not reader.decrypt(""):
        raise UserError("is encrypted and needs a password; save a copy without one")


def _is_locked(error: Exception) -> bool:
    """Whether pypdf asks for the package that reads AES: on opening the file, or at the first page."""
    return isinstance(error, pypdf.errors.DependencyError) and "AES" in str(error)


def _embedded(reader: pypdf.PdfReader, number: int, smallest: int, seen: set[int]) -> Iterator[tuple[np.ndarray, int] | Exception]:
    """The images of a page (with their scale) that no earlier page showed, or what was raised instead of one."""
    try:
        images = reader.pages[number - 1].images
        keys = images.keys()
    except Exception as error:  # pypdf raises many kinds for damage
        if _is_locked(error):
            raise  # once for the file, not for each of its pages
        yield error
        return
    for key in keys:
        try:
            with pypdf.apply_configuration(**PDF_LIMITS):
                embedded = images[key]
            place = embedded.indirect_reference
            known = place is not None and place.idnum in seen
            if place is not None:
                seen.add(place.idnum)
            if embedded.image is not None and min(embedded.image.size) >= smallest and not known:
                yield _decoded(embedded.image)
        except Exception as error:
            yield error
