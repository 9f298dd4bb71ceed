"""The files of a packed set: what the bytes of a record are, and shards of them in ArrayRecord, each with its checksum.

A record is an image's values in row order, and its mask's after them; what shape and type they have stands in the index (index.py).
Uncompressed, which is the default, reading is a copy: 1.3 to 3.3 GB/s on one core, where PNG and JPEG give 0.1 to 0.7. `zstd` takes 0.2 to
0.7 of the space, about that of PNG, and gives 0.6 to 0.8 GB/s: differences along the rows, then Zstandard (experiments/packed_speed.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from medssl_jax.data.collection import Item
from medssl_jax.data.folder import parallel
from medssl_jax.data.formats import Probe
from medssl_jax.data.layout import listed
from medssl_jax.errors import UserError

COMPRESSIONS = ("none", "zstd")
FILES = "*.array_record"  # by the names that `name_of` gives
ZSTD_LEVEL = 1  # level 3 saves a twentieth more and takes twice the time
WRITING = "group_size:1,uncompressed"  # a record is read without its neighbours
READING = "readahead_buffer_size:0,max_parallelism:0"  # one record, by the thread that asks
BUFFER = 2**15  # bytes that a reader keeps
REPAIR = "the same medssl_jax.pack command writes such shards again, or copy them from where they are whole"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file: its name in the packed folder, its records, its size in bytes and the SHA-256 of these; `damaged` tells of the records
    that are empty, by their number in the whole set, because their image could not be read."""

    file: str
    records: int
    bytes: int
    sha256: str
    damaged: dict[str, str] = dataclasses.field(default_factory=dict)


def divide(items: Sequence[Item], limit: int) -> Iterator[range]:
    """Numbers of the images of each shard, in order: as many as have `limit` bytes of values, at least one."""
    start, filled = 0, 0
    for i, item in enumerate(items):
        size = size_of(item)
        if i > start and filled + size > limit:
            yield range(start, i)
            start, filled = i, 0
        filled += size
    if items:
        yield range(start, len(items))


def size_of(item: Item) -> int:
    """Bytes of the values of an image, and of its mask with a byte a pixel."""
    height, width, channels, dtype = item.probe
    return height * width * (channels * dtype.itemsize + item.masked)


def name_of(number: int, count: int) -> str:
    """The file of a shard."""
    return f"{number:05d}-of-{count:05d}.array_record"


def encode(image: np.ndarray, mask: np.ndarray | None, compression: str) -> bytes:
    """The record of an image [H, W, C] of any type, and its mask int32 [H, W]."""
    labels = b"" if mask is None else _narrow(mask).tobytes()
    if compression == "none":
        return image.tobytes() + labels
    words = np.ascontiguousarray(image).view(f"u{image.itemsize}")
    return bytes(imagecodecs.zstd_encode(imagecodecs.delta_encode(words, axis=1).tobytes() + labels, level=ZSTD_LEVEL))


def decode(record: bytes, probe: Probe, compression: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The image [H, W, C] in its own type, and the mask int32 [H, W] if there is one. Raises ValueError for a record of another size."""
    *shape, dtype = probe
    values = np.frombuffer(record if compression == "none" else imagecodecs.zstd_decode(record), np.uint8)
    size = math.prod(shape) * dtype.itemsize
    image = values[:size].view(dtype).reshape(shape)
    if compression != "none":
        image = imagecodecs.delta_decode(image.view(f"u{dtype.itemsize}"), axis=1).view(dtype)
    return image, _mask(values[size:], shape[0], shape[1])


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def whole(folder: Path, shards: Sequence[Shard]) -> list[Shard]:
    """Those whose file is there and has the checksum."""
    right = parallel(lambda shard: _present(folder, shard) and checksum(folder / shard.file) == shard.sha256, shards)
    return [shard for shard, one in zip(shards, right) if one]


def check_present(folder: Path, shards: Sequence[Shard]) -> None:
    """Raises UserError where a shard is missing or of another size; the contents are not read."""
    _refuse(folder, shards, [shard for shard in shards if _present(folder, shard)], "missing or cut short")


def verify(folder: Path, shards: Sequence[Shard]) -> None:
    """Raises UserError where a shard is not as its checksum says; every byte is read."""
    _refuse(folder, shards, whole(folder, shards), "missing or damaged")


class Records:
    """The records of all shards by their number; a file is opened when it is first needed. Safe for threads, and worker processes open
    their own.

    ArrayRecordDataSource would do the same, but asks for a list of one record, which takes ArrayRecord a time that grows with the file:
    1.4 ms at 466 000 records, where a range of one takes 0.01 ms.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._where = folder, tuple(shards)
        self._ends = list(accumulate(shard.records for shard in shards))
        self._readers: dict[int, ArrayRecordReader] = {}
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> bytes:
        number = bisect_right(self._ends, index)
        position = index - self._ends[number] + self._where[1][number].records
        return self._reader(number).read(position, position + 1)[0]

    def _reader(self, number: int) -> ArrayRecordReader:
        with self._lock:
            if number not in self._readers:
                path = self._where[0] / self._where[1][number].file
                self._readers[number] = ArrayRecordReader(str(path), READING, file_reader_buffer_size=BUFFER)
            return self._readers[number]

    def __reduce__(self) -> tuple[Any, ...]:
        return Records, self._where


def _present(folder: Path, shard: Shard) -> bool:
    path = folder / shard.file
    return path.is_file() and path.stat().st_size == shard.bytes


def _refuse(folder: Path, shards: Sequence[Shard], good: list[Shard], what: str) -> None:
    if bad := [shard for shard in shards if shard not in good]:
        names = listed(shard.file for shard in bad)
        raise UserError(f"{len(bad)} of the {len(shards)} shards in {folder} are {what} ({names}); {REPAIR}.")


def _narrow(mask: np.ndarray) -> np.ndarray:
    """The labels in as few bytes as hold them, int32 where one is negative."""
    kinds = (np.uint8, np.uint16) if mask.min(initial=0) >= 0 else ()
    return mask.astype(next((kind for kind in kinds if mask.max(initial=0) <= np.iinfo(kind).max), np.int32))


def _mask(values: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """The labels, whose type follows from how many bytes there are."""
    if not len(values):
        return None
    kind = {1: np.uint8, 2: np.uint16, 4: np.int32}.get(len(values) // (height * width))
    if kind is None:
        raise ValueError(f"it ends with {len(values)} bytes, which are no mask of {height} x {width} px")
    return values.view(kind).reshape(height, width).astype(np.int32)
