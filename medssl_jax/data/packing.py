"""Any collection -> a packed data set: shard after shard, the images read by threads; what is finished is never written again."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from array_record.python.array_record_module import ArrayRecordWriter

from medssl_jax.data import index, origin, shards
from medssl_jax.data.collection import Opened
from medssl_jax.data.formats import Probe
from medssl_jax.data.shards import Shard
from medssl_jax.errors import UserError
from medssl_jax.machine import alone

R = TypeVar("R")
LOCK = "lock.partial"  # in the packed folder; it stays there, empty: where one who holds it removes it, two may each hold one
AHEAD = 2  # images a thread reads before they are written
GIGA = 10**9


@dataclasses.dataclass(frozen=True)
class Job:
    """What to pack, where to and how: `compression` none or zstd, `shard_bytes` of values in a file, `skip` what cannot be read."""

    opened: Opened
    out: Path
    compression: str = "none"
    shard_bytes: int = 2**30
    threads: int = 4
    skip: bool = False


def pack(job: Job, progress: Callable[[int, int], None] | None = None) -> int:
    """Write the set, or what an interrupted call left to write, and return the number of shards written.

    The bytes depend on the images, the state of their files and the options but for `threads`; shards of an earlier call are kept where
    their checksum is right. `progress(done, total)` is told the number of images. Raises UserError where `out` holds something else, or
    images that were changed since, or another process packs there, where the disk is too small, for images that change meanwhile, and for
    one that cannot be read unless it may be skipped; OSError where the disk is full.
    """
    if job.out.is_file():
        raise UserError(f"--out={job.out} is a file; name a new or an empty folder.")
    ranges = list(shards.divide(job.opened.collection.items, job.shard_bytes))
    if not job.out.exists():
        _check_space(job, ranges)  # before there is a folder to leave behind
    with alone(job.out / LOCK, f"another process packs into --out={job.out}; wait for it, or name another folder."):
        return _pack(job, ranges, progress)


def _pack(job: Job, ranges: Sequence[range], progress: Callable[[int, int], None] | None) -> int:
    state = origin.state(job.opened.collection)
    plan = index.Plan.of(job.opened, state, job.compression, len(ranges))
    kept = _finished(job, plan)
    left = [number for number in range(len(ranges)) if number not in kept]
    _check_space(job, [ranges[number] for number in left])
    count = _Count(len(job.opened.collection.items), sum(len(ranges[number]) for number in kept), progress)
    index.write_unfinished(job.out, plan, list(kept.values()))
    with ThreadPoolExecutor(job.threads) as pool:
        for number in left:
            kept[number] = _write_shard(job, ranges[number], shards.name_of(number, len(ranges)), pool, count)
            index.write_unfinished(job.out, plan, list(kept.values()))
    if origin.state(job.opened.collection) != state:
        raise UserError(f"images were changed while they were packed into --out={job.out}; delete it and start again.")
    index.write(job.out, plan, [kept[number] for number in range(len(ranges))], job.opened)
    return len(left)


@dataclasses.dataclass
class _Count:
    """How many images are done."""

    total: int
    done: int
    progress: Callable[[int, int], None] | None

    def one_more(self) -> None:
        """An image was written."""
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)


def _finished(job: Job, plan: index.Plan) -> dict[int, Shard]:
    """The whole shards that an earlier call has left, by their number, without those that left out what may no longer be left out.

    Raises UserError where `out` is not for this plan.
    """
    out = job.out
    there = [out / name for name in (index.INDEX, index.UNFINISHED) if (out / name).exists()]
    if not there:
        if out.is_dir() and any(path.suffix != ".partial" for path in out.iterdir()):  # what was cut short at its first word is nothing
            raise UserError(f"--out={out} holds other files; name a new or an empty folder.")
        return {}
    found = index.read(there[0])
    if found.plan != plan:
        raise UserError(
            f"--out={out} holds another data set, or this one with other options or with images that were changed since; name a new or an "
            "empty folder."
        )
    names = {shards.name_of(number, plan.shards): number for number in range(plan.shards)}
    return {names[shard.file]: shard for shard in shards.whole(out, found.shards) if job.skip or not shard.damaged}


def size(count: int) -> str:
    """12_345_678 -> '12.3 MB'."""
    return f"{count / GIGA:.1f} GB" if count >= GIGA else f"{count / 10**6:.1f} MB"


def _check_space(job: Job, left: Sequence[range]) -> None:
    """Raises UserError where uncompressed values would not fit; how far others shrink is known at the end."""
    items = job.opened.collection.items
    needed = sum(shards.size_of(items[row]) for rows in left for row in rows)
    free = shutil.disk_usage(next(path for path in (job.out.absolute(), *job.out.absolute().parents) if path.exists())).free
    if job.compression == "none" and needed > free:
        raise UserError(
            f"packing into --out={job.out} needs {size(needed)}, and {size(free)} are free; choose another disk, or "
            "--compression=zstd, which takes a fifth to three quarters of that."
        )


def _write_shard(job: Job, rows: range, name: str, pool: ThreadPoolExecutor, count: _Count) -> Shard:
    """Write one file, whole or not at all."""
    partial, damaged = job.out / f"{name}.partial", {}
    with _told(partial):
        writer = ArrayRecordWriter(str(partial), shards.WRITING)
        for row, record in zip(rows, _in_order(pool, lambda row: _record(job, row), rows, AHEAD * job.threads)):
            if isinstance(record, UserError):
                damaged[str(row)] = str(record)
            writer.write(b"" if isinstance(record, UserError) else record)
            count.one_more()
        writer.close()
    shard = Shard(name, len(rows), partial.stat().st_size, shards.checksum(partial), damaged)
    partial.replace(job.out / name)
    return shard


def _record(job: Job, row: int) -> bytes | UserError:
    """The bytes of an image; the error is returned where the image may be left out."""
    item, collection = job.opened.collection.items[row], job.opened.collection
    try:
        image = collection.image(row)
        mask = collection.mask(row) if item.masked else None
    except UserError as error:
        if job.skip:
            return error
        raise
    if Probe.of(image) != item.probe or (mask is not None and mask.shape != image.shape[:2]):
        raise UserError(f"{item.id} or its mask has another size or type than at the start; do not change images while they are packed.")
    return shards.encode(image, mask, job.compression)


def _in_order(pool: ThreadPoolExecutor, function: Callable[[int], R], values: Sequence[int], ahead: int) -> Iterator[R]:
    """`function` of every value, `ahead` of them at a time, so that the memory does not grow with their number."""
    waiting: deque[Future[R]] = deque()
    for value in values:
        waiting.append(pool.submit(function, value))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """The errors of ArrayRecord as those of the system, so that a full disk is told as everywhere."""
    try:
        yield
    except RuntimeError as error:
        kinds = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
        kind = next((kind for kind in kinds if os.strerror(kind) in str(error)), errno.EIO)
        raise OSError(kind, os.strerror(kind), str(path)) from error
