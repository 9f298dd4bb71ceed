"""Steps in a row: how many a second, and for how long no batch was there; needs neither JAX nor PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

WARM_UP = 5  # steps of a turn that are not timed, besides those on batches that were read ahead

Step = Callable[[Any], Callable[[], Any]]  # starts a step on a batch; what it returns waits for the step's end
Pace = dict[str, float]


def whole(steps: int, readers: int) -> int:
    """So many steps that each reader has read as many batches as the others: readers that start together deliver together."""
    return -(-steps // readers) * readers


def in_a_row(step: Step, batches: Iterator[Any], warm_up: int, steps: int, images: int) -> Pace:
    """`images_per_s` of steps on batches of `images`, and `waiting`: the share of time in which the step before was done, and the next
    batch was not there. Steps may run ahead of the host, so a second thread looks when they end.
    """
    for _ in range(warm_up):
        step(next(batches))()
    came, done = [], []
    with ThreadPoolExecutor(1) as watcher:
        began = time.perf_counter()
        for _ in range(steps):
            batch = next(batches)
            came.append(time.perf_counter())
            done.append(watcher.submit(_end, step(batch)))
        ends = [began, *(end.result() for end in done)]
    seconds, idle = ends[-1] - began, sum(max(0.0, there - free) for there, free in zip(came, ends))
    return {"images_per_s": steps * images / seconds, "waiting": idle / seconds}


def _end(wait: Callable[[], Any]) -> float:
    wait()
    return time.perf_counter()


def by_round(turns: Sequence[Pace]) -> dict[str, list[float]]:
    """The turns that one side took, as lists over the rounds."""
    return {name: [turn[name] for turn in turns] for name in turns[0]}


def rate(side: Mapping[str, Sequence[float]]) -> float:
    """The median of images a second over the rounds."""
    return float(np.median(side["images_per_s"]))


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median with its range: `1.05 (1.02 to 1.09)`; a single value alone."""
    middle, *ends = (f"{value:.{digits}f}" for value in (np.median(values), min(values), max(values)))
    return f"{middle} ({' to '.join(ends)})" if len(values) > 1 else middle


def waited(side: Mapping[str, Sequence[float]]) -> str:
    """The median share of time without a batch."""
    return f"{np.median(side['waiting']):.0%}"
