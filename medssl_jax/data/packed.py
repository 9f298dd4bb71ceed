"""A packed data set (medssl_jax/pack.py) as a collection: the stored values of any other, read by random access from a few large files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medssl_jax.data import index, shards
from medssl_jax.data.collection import Item, Opened
from medssl_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Packed:
    """Records with their items; `rows[i]` is the number of item i's record."""

    folder: Path
    items: tuple[Item, ...]
    rows: Sequence[int]
    records: shards.Records
    compression: str

    def image(self, index: int) -> np.ndarray:
        """[H, W, C]."""
        return self._decoded(index)[0]

    def mask(self, index: int) -> np.ndarray:
        """int32 [H, W]."""
        mask = self._decoded(index)[1]
        assert mask is not None
        return mask

    def _decoded(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        item = self.items[index]
        try:
            return shards.decode(self.records[self.rows[index]], item.probe, self.compression)
        except (RuntimeError, ValueError) as error:  # of ArrayRecord, which checks a hash on each record, and of the codecs
            reason = " ".join(str(error).split())[:200].rstrip(".")
            raise UserError(f"{item.id} cannot be read from {self.folder}: {reason}; {shards.REPAIR}.") from error


def is_packed(path: Path) -> bool:
    """Whether the folder holds a packed data set, whole or not."""
    return any((path / name).exists() for name in (index.INDEX, index.UNFINISHED)) or any(path.glob(shards.FILES))


def open_packed(folder: Path) -> Opened:
    """The data set that was packed into the folder. Raises UserError where it is not finished, or a shard is missing or cut short."""
    found = read_index(folder)
    shards.check_present(folder, found.shards)
    records = shards.Records(folder, found.shards)
    return Opened(collection=Packed(folder, found.items, found.rows, records, found.plan.compression), **found.facts)


def verify(folder: Path) -> index.Index:
    """The index of a packed set of which every byte is as its checksum says. Raises UserError where one is not."""
    found = read_index(folder)
    shards.verify(folder, found.shards)
    return found


def read_index(folder: Path) -> index.Index:
    """The index of a finished pack. Raises UserError where there is none."""
    if not (folder / index.INDEX).exists():
        if (folder / index.UNFINISHED).exists():
            raise UserError(f"{folder} was not packed to its end; start the same medssl_jax.pack command again, which continues.")
        remedy = "copy that too from" if any(folder.glob(shards.FILES)) else "name"
        raise UserError(f"{os.fspath(folder)} holds no packed images (no {index.INDEX}); {remedy} the --out of medssl_jax.pack.")
    return index.read(folder / index.INDEX)
