"""Batch k is a pure function of (seed, k): the state of the data in a checkpoint is one integer, the step.

The order is computed a whole batch at a time; Grain reads the batches by random access, so neither threads nor worker processes change
a byte, hosts share each global batch in order, and a stream continues at any step.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import grain
import jax
import numpy as np
from absl import flags

HostBatch = dict[str, np.ndarray]
STEPS = 2**31 - 1  # a stream has no end that a training could reach
PREFETCH = 4  # batches held ready; every thread builds a whole one


def sub_seed(seed: int, tag: str) -> int:
    """A seed of its own for each use, from 0 to 2**32 - 1; neighbouring seeds share nothing (numpy.random.SeedSequence)."""
    return int(np.random.SeedSequence([seed, *tag.encode()]).generate_state(1)[0])


class Examples(Protocol):
    """Random access to arrays of one shape, tiles for one: `examples[i]` has what `keys` names, the number "index" among it."""

    @property
    def keys(self) -> tuple[str, ...]:
        """What every example has."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Order:
    """One host's share of each global batch of indices into `length` examples: `order[k]` is a pure function of (seed, k).

    Every epoch is a new exact permutation; a batch may end one and begin the next, and repeats the data where it is larger than they are.
    """

    length: int
    seed: int
    global_batch: int
    host: int
    hosts: int

    def __getitem__(self, step: int) -> HostBatch:
        """{"index": int32 [b], "slot": int32 [b]}, b = global_batch / hosts; slot is the position in the global batch."""
        share = self.global_batch // self.hosts
        slot = np.arange(self.host * share, (self.host + 1) * share)
        epoch, position = np.divmod(int(step) * self.global_batch + slot, self.length)
        index = np.empty(share, np.int32)
        for e in range(epoch[0], epoch[-1] + 1):
            index[epoch == e] = _permutation(self.length, self.seed, e)[position[epoch == e]]
        return {"index": index, "slot": slot.astype(np.int32)}


@functools.lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


def index_batches(
    length: int, *, seed: int, global_batch: int, start_step: int = 0, host: int | None = None, hosts: int | None = None
) -> Iterator[HostBatch]:
    """This process's share of each global batch of indices, from `start_step` on, without end.

    Returns:
      An iterator of {"index": int32 [b], "slot": int32 [b]}, b = global_batch / hosts; slot is the position in the global batch. The
      shares of all hosts, in the order of the processes, are the global batch.
    """
    order = _order(length, seed, global_batch, host, hosts)
    return (order[step] for step in itertools.count(start_step))


def example_batches(
    examples: Examples,
    *,
    seed: int,
    global_batch: int,
    start_step: int = 0,
    threads: int = 4,
    workers: int = 0,
    host: int | None = None,
    hosts: int | None = None,
) -> Iterator[HostBatch]:
    """`index_batches` in the same order, with the examples read by `threads`, in `workers` processes where there are any.

    Returns:
      An iterator of what `examples.keys` names, stacked, and "slot": int32 [b]. Of tiles: {"image": uint8|uint16 [b, S, S, C],
      "mask"?: int32 [b, S, S], "label"?: int32 [b], "index": int32 [b], "slot"}; mask and label where every tile has one.
    """
    read = _Read(examples, _order(len(examples), seed, global_batch, host, hosts))
    stream = grain.MapDataset.range(start_step, STEPS).map(read).to_iter_dataset(_reading(threads))
    if workers:
        _let_grain_see_flags()
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return _iterate(stream, copy=workers > 0)


@dataclasses.dataclass(frozen=True)
class _Read:
    """step -> batch (a class, so that worker processes can be sent it)."""

    examples: Examples
    order: Order

    def __call__(self, step: int) -> HostBatch:
        where = self.order[step]
        found = [self.examples[int(i)] for i in where["index"]]
        return {**{key: np.stack([e[key] for e in found]) for key in self.examples.keys}, "slot": where["slot"]}


def _order(length: int, seed: int, global_batch: int, host: int | None, hosts: int | None) -> Order:
    hosts = jax.process_count() if hosts is None else hosts
    return Order(length, sub_seed(seed, "order"), global_batch, jax.process_index() if host is None else host, hosts)


def _reading(threads: int) -> grain.ReadOptions:
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(PREFETCH, threads) if threads else 0)


def _let_grain_see_flags() -> None:
    """Grain hands its absl flags to the workers, which fails where the program that uses this library has parsed none."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _iterate(stream: grain.IterDataset, copy: bool) -> Iterator[HostBatch]:
    """The batches; `copy` takes them out of the workers' shared memory, which must not outlive its iterator."""
    iterator = iter(stream)
    try:
        for batch in iterator:
            yield {key: np.array(value) for key, value in batch.items()} if copy else batch
    finally:
        iterator.close()
