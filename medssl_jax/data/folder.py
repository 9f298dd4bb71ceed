"""A folder of image files as a collection: every file is looked at before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from ml_collections import ConfigDict

from medssl_jax.data import formats, layout, remote
from medssl_jax.data.collection import Item, Opened
from medssl_jax.data.formats import Probe
from medssl_jax.data.layout import Found
from medssl_jax.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
THREADS = 8  # files looked at a time; their decoders release the interpreter's lock


@dataclasses.dataclass(frozen=True)
class Folder:
    """Image files with their items."""

    items: tuple[Item, ...]
    found: tuple[Found, ...]

    def image(self, index: int) -> np.ndarray:
        """[H, W, C]."""
        return formats.decode(self.found[index].image)

    def mask(self, index: int) -> np.ndarray:
        """int32 [H, W]."""
        path = self.found[index].mask
        assert path is not None
        return formats.read_mask(path)


def open_folder(config: ConfigDict, root: Path) -> Opened:
    """Reads names and headers of all images and masks below `root` by the options of `config.data`.

    Raises UserError as `layout` does, for a mask of another size than its image, and for an unreadable file unless
    `on_damaged` is skip.
    """
    found = layout.find(root, config.task)
    found, notes = given_parts(config, root, found)
    names = layout.classes(found, config.task)
    if names:
        notes.append(f"{len(names)} folders are read as classes; --config.data.task=none reads plain images")
    notes += layout.unread_classes(found, config.task)
    checked = parallel(lambda f: _look(f, root, names, config.on_damaged == "skip"), found)
    kept, damaged, told = sift(list(zip(found, checked)), root, config.on_damaged)
    files, items = zip(*kept)
    return Opened(root.resolve().name, Folder(items, files), names, (*notes, *told), damaged)


def sift(
    checked: Sequence[tuple[Found, R | UserError]], root: Path, on_damaged: str
) -> tuple[list[tuple[Found, R]], tuple[str, ...], list[str]]:
    """The files that could be read with what was found in them, a sentence for each that could not, and a note on these.

    Raises UserError for an unreadable file where `on_damaged` is stop, and where all are.
    """
    damaged = [str(result) for _, result in checked if isinstance(result, UserError)]
    if damaged and on_damaged == "stop":
        raise UserError(damaged[0] if len(damaged) == 1 else f"{damaged[0][:-1]} ({len(damaged)} such files in {root}).")
    kept = [(f, result) for f, result in checked if not isinstance(result, UserError)]
    if not kept:
        raise UserError(f"none of the {len(checked)} images in {root} can be read; the first: {damaged[0]}")
    left_out = layout.listed(str(f.image.relative_to(root)) for f, result in checked if isinstance(result, UserError))
    return kept, tuple(damaged), [f"{len(damaged)} unreadable images were left out: {left_out}"] if damaged else []


def parallel(function: Callable[[T], R], values: Sequence[T]) -> list[R]:
    """`function` of every value, in threads, in order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, values))


def given_parts(config: ConfigDict, root: Path, found: list[Found]) -> tuple[list[Found], list[str]]:
    """The parts by the CSV that the user named, by folders, or by an index.csv beside the images."""
    own = layout.find_index(root) if not any(f.part for f in found) else None
    table = remote.local(config.splits) if config.splits else own
    if table is None:
        return found, []
    found, unnamed = layout.read_splits(table, root, found)
    notes = [f"the split is the one of {table}"]
    if unnamed:
        notes.append(f"{unnamed} images that {table.name} does not name are used for training")
    return found, notes


def _look(f: Found, root: Path, names: tuple[str, ...], thorough: bool) -> Item | UserError:
    """The item of one image; a damaged file's error is returned, so that all can be named."""
    try:
        probe = formats.probe(f.image, thorough)
        mask = formats.probe(f.mask, thorough) if f.mask else None
    except UserError as error:
        return error
    if mask and mask[:2] != probe[:2]:
        raise UserError(f"{_unequal(f, probe, mask)}; a mask has a label for each pixel of its image.")
    label = names.index(f.folder) if names and f.folder else None
    return Item(f.image.relative_to(root).as_posix(), probe, f.part, label, f.mask is not None)


def _unequal(f: Found, image: Probe, mask: Probe) -> str:
    return f"the mask {f.mask} is {mask.height} x {mask.width} px, its image {image.height} x {image.width} px"
