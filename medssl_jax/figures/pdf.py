"""The images that are embedded in a PDF, as they are stored: neither turned with their page, nor what is drawn as vectors or text."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypdf
from PIL import Image
from pypdf.generic import DecodedStreamObject, NameObject, NumberObject, StreamObject

from medssl_jax.errors import UserError
from medssl_jax.figures.pixels import READ_WHOLE, Pixels, decoded

BYTES = 6 * READ_WHOLE  # of an image, unpacked; pypdf's own limit is 25 million pixels
LIMITS: dict[str, Any] = dict.fromkeys(("zlib_maximum_output_length", "image_maximum_buffer_size", "maximum_declared_stream_length"), BYTES)
PACKED = ("/Filter", "/DecodeParms", "/Length")  # keys of a stream that say how it is compressed


def embedded(file: Path, smallest: int) -> Iterator[tuple[int, int, Pixels | Exception]]:
    """Page and number (from 1) of every image with sides of `smallest` px or more, each image once; its pixels, or what was raised instead.

    Raises UserError for a file without an image, or that needs a password, and what pypdf raises for one that it cannot open.
    """
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it would report what it mends
    seen: set[int] = set()
    with pypdf.PdfReader(file) as reader:
        _unlock(reader)
        empty = True
        for page in range(1, len(reader.pages) + 1):
            for number, found in enumerate(_of_page(reader, page, smallest, seen), 1):
                empty = False
                yield page, number, found
    if empty:
        raise UserError(f"holds no embedded image of {smallest} px or more; save the pages with figures as PNG")


def is_locked(error: Exception) -> bool:
    """Whether pypdf asks for the package that reads AES: on opening the file, or at the first page."""
    return isinstance(error, pypdf.errors.DependencyError) and "AES" in str(error)


def _unlock(reader: pypdf.PdfReader) -> None:
    """Open what was encrypted without a password for reading."""
    if not reader.is_encrypted:
        return
    if not reader.decrypt(""):
        raise UserError("is encrypted and needs a password; save a copy without one")


def _of_page(reader: pypdf.PdfReader, page: int, smallest: int, seen: set[int]) -> Iterator[Pixels | Exception]:
    """The images of a page that no earlier page showed, or what was raised instead of one."""
    try:
        images = reader.pages[page - 1].images
        keys = images.keys()
    except Exception as error:  # pypdf raises many kinds for damage
        if is_locked(error):
            raise  # once for the file, not for each of its pages
        yield error
        return
    for key in keys:
        try:
            found = _pixels(images, key, smallest, seen)
        except Exception as error:
            yield error
        else:
            if found is not None:
                yield found


def _pixels(images: Any, key: Any, smallest: int, seen: set[int]) -> Pixels | None:
    """One image of a page; None for a small one, and one that was seen before."""
    with pypdf.apply_configuration(**LIMITS):
        found = images[key]
        place = found.indirect_reference
        known = place is not None and place.idnum in seen
        if place is not None:
            seen.add(place.idnum)
        if known or found.image is None or min(found.image.size) < smallest:
            return None
        stored = place.get_object() if place is not None else None
        return decoded(_mended(found.image, stored) if isinstance(stored, StreamObject) else found.image)


def _mended(picture: Image.Image, stored: StreamObject) -> Image.Image:
    """The picture, where pypdf reads such as it is stored; of 16 bits a colour it would take each half for a value.

    Raises UserError for colours in Lab, which it takes for others.
    """
    if "/Lab" in str(stored.get("/ColorSpace", "")):
        raise UserError("has its colours in Lab, which cannot be read; save the page as PNG")
    if stored.get("/BitsPerComponent") != 16 or "/JPXDecode" in str(stored.get("/Filter", "")):
        return picture
    upper = DecodedStreamObject()
    upper.update({key: value for key, value in stored.items() if key not in PACKED})
    upper.update({NameObject("/BitsPerComponent"): NumberObject(8)})
    upper.set_data(stored.get_data()[::2])
    return upper.decode_as_image()
