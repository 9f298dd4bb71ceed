"""How fast a packed set comes from the disk, beside what the disk gives: the set once in the order of a pretraining, and bare bytes.

The bytes are those of the same files in pieces of the same sizes, in the order of the stream and from the first to the last. Before each
the system forgets the files (posix_fadvise); what a disk that is itself a file elsewhere keeps there, it cannot.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from medssl_jax.data.packed import Packed, open_packed, read_index
from medssl_jax.data.stream import index_batches

KINDS = {"stream": "images in the stream's order", "random": "bytes in that order", "sequential": "bytes from first to last"}
ROUNDS = 3  # of each kind in turn; the middle one counts
COUNTS = Path("/proc/self/io")

Piece = tuple[int, int, int]  # the number of a file, the first byte, how many


def measure(packed: Path, threads: int) -> dict[str, Any]:
    """The images of a packed set, the bytes of its files, the seconds of each of KINDS, and the fewest bytes that one took from the disk
    (None where the system does not tell)."""
    paths, seconds, fetched = [packed / shard.file for shard in read_index(packed).shards], [], []
    pieces, order = _pieces(packed, paths), _order(_open(packed))
    for _, kind in itertools.product(range(ROUNDS), KINDS):
        with ThreadPoolExecutor(threads) as pool, _opened(paths) as files:
            read = _reading(kind, packed, files, pieces, order, pool)
            _forget(files)
            before, began = _taken(), time.perf_counter()
            read()
            seconds.append(time.perf_counter() - began)
            fetched.append(None if before is None else (_taken() or 0) - before)
    middle = {kind: statistics.median(seconds[k :: len(KINDS)]) for k, kind in enumerate(KINDS)}
    least = min((count for count in fetched if count is not None), default=None)
    size = sum(path.stat().st_size for path in paths)
    return {"images": len(order), "bytes": size, "threads": threads, "seconds": middle, "fetched": least}


def _reading(
    kind: str, packed: Path, files: Sequence[int], pieces: Sequence[Piece], order: Sequence[int], pool: ThreadPoolExecutor
) -> Callable[[], int]:
    """What reads everything once and returns how many bytes it saw. From first to last one thread reads, and the system ahead of it."""
    collection = _open(packed)

    def piece(number: int) -> int:
        file, first, size = pieces[number]
        return len(os.pread(files[file], size, first))

    if kind == "stream":
        return lambda: sum(pool.map(lambda index: collection.image(index).nbytes, order))
    if kind == "random":
        return lambda: sum(pool.map(lambda index: piece(collection.rows[index]), order))
    return lambda: sum(map(piece, range(len(pieces))))


def _open(packed: Path) -> Packed:
    """Its files are opened at the first image."""
    collection = open_packed(packed).collection
    assert isinstance(collection, Packed)
    return collection


def _order(collection: Packed) -> list[int]:
    """Every image once, as the stream of a pretraining asks for them."""
    count = len(collection.items)
    batches = index_batches(count, seed=0, global_batch=count, host=0, hosts=1)
    return next(batches)["index"].tolist()


def _pieces(packed: Path, paths: Sequence[Path]) -> list[Piece]:
    """The files, divided as the sizes of their records are: where a record begins ArrayRecord does not tell."""
    records, pieces, first = _open(packed).records, [], 0
    for number, (path, shard) in enumerate(zip(paths, read_index(packed).shards, strict=True)):
        sizes = np.cumsum([0, *(len(records[first + i]) for i in range(shard.records))])
        ends = (sizes * (path.stat().st_size / max(1, sizes[-1]))).astype(int).tolist()
        pieces += [(number, begin, end - begin) for begin, end in itertools.pairwise(ends)]
        first += shard.records
    return pieces


@contextlib.contextmanager
def _opened(paths: Sequence[Path]) -> Iterator[list[int]]:
    """Their numbers to read by."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(path.open("rb", buffering=0)).fileno() for path in paths]


def _forget(files: Sequence[int]) -> None:
    """Have the system drop what it holds of the files, which it does once it is on the disk."""
    for file in files:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _taken() -> int | None:
    """Bytes that this process has had from disks."""
    if not COUNTS.exists():
        return None
    return int(dict(line.split(": ") for line in COUNTS.read_text().splitlines())["read_bytes"])
