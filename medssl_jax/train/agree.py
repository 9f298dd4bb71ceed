"""What the processes of a run tell one another. Each function is to be called in all of them, in one order; alone, one goes on at once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")

_asked = itertools.count(1)  # not the step: a notice that comes before the first question would name one that a continued run is past


def wait_for_all(name: str) -> None:
    """Go on once every process has come to the call of that name: what the first wrote, those that share its folder can then read."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def all_agree(holds: bool) -> bool:
    """Whether it holds in every process, the same answer in all."""
    return bool(np.all(multihost_utils.process_allgather(np.array(holds)))) if jax.process_count() > 1 else holds


def from_first(read: Callable[[], T]) -> T:
    """What `read` gives in the first process, a value for JSON: the others may see another folder, or an older state of it."""
    if jax.process_count() == 1:
        return read()
    text = json.dumps(read()).encode() if jax.process_index() == 0 else b""
    size = int(_from_first(np.int32(len(text))))
    return json.loads(_from_first(np.frombuffer(text or bytes(size), np.uint8)).tobytes())


def _from_first(array: Any) -> np.ndarray:
    return np.asarray(multihost_utils.broadcast_one_to_all(array))


def preempted() -> bool:
    """Whether the cluster takes a machine of the run back, the same answer in every process."""
    return multihost_utils.reached_preemption_sync_point(next(_asked))
