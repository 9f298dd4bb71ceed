"""Devices: one mesh axis `data`, and where each array of a state or a batch lives on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from medssl_jax.errors import UserError

Exchange = Callable[[Callable[[], None]], None]

FSDP_MIN_SIZE = 2**14  # smaller arrays cost more to gather than they save


_exchanges: list[Exchange] = []  # of the run at hand


@contextlib.contextmanager
def own_folders(exchange: Exchange) -> Iterator[None]:
    """While it lasts every process has a folder of its own, and `exchange(meet)` brings the others' to the state of the first one's;
    `meet` waits for all."""
    _exchanges.append(exchange)
    try:
        yield
    finally:
        _exchanges.remove(exchange)


def wait_for_all(name: str) -> None:
    """Go on once every process of the run has come to the call of that name: what the first wrote before, the others can read after."""
    if jax.process_count() > 1:
        exchange = _exchanges[-1] if _exchanges else lambda meet: meet()
        exchange(lambda: multihost_utils.sync_global_devices(name))


def all_agree(holds: bool) -> bool:
    """Whether it holds in every process, the same answer in all."""
    return bool(np.all(multihost_utils.process_allgather(np.array(holds)))) if jax.process_count() > 1 else holds


def preempted(moment: int) -> bool:
    """Whether the cluster takes a machine of the run back, the same answer in every process; `moment` rises from call to call."""
    return multihost_utils.reached_preemption_sync_point(moment)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices (or those given) along the axis `data`."""
    count = len(devices) if devices is not None else jax.device_count()
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def check_batch(batch: int, accumulate: int, mesh: Mesh, key: str) -> None:
    """Raises UserError where a batch of that size cannot be divided over the devices, or a micro-batch would hold one image."""
    unit = mesh.size * accumulate
    if batch % unit:
        nearest = max(unit, round(batch / unit) * unit)
        raise UserError(
            f"config.{key}={batch} cannot be divided over {mesh.size} device(s) x {accumulate} micro-batch(es); "
            f"set --config.{key}={nearest} or another multiple of {unit}."
        )
    if accumulate > 1 and batch // accumulate < 2:
        raise UserError(f"config.{key}={batch} leaves one image to each of {accumulate} micro-batches; lower config.pretrain.accumulate.")


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, P())


def along_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis divided over the devices."""
    return NamedSharding(mesh, P("data"))


def shardings(tree: Any, mesh: Mesh, fsdp: bool) -> Any:
    """Where each array of a state lives: replicated, or (FSDP) large arrays divided along their largest axis that divides."""
    return jax.tree.map(lambda x: NamedSharding(mesh, _spec(x, mesh.size) if fsdp else P()), tree)


def _spec(x: Any, devices: int) -> P:
    axes = [axis for axis, side in enumerate(x.shape) if side % devices == 0]
    if x.size < FSDP_MIN_SIZE or not axes:
        return P()
    largest = max(axes, key=lambda axis: x.shape[axis])
    return P(*("data" if axis == largest else None for axis in range(x.ndim)))


def to_devices(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's share of a batch, leading axis b, becomes the global batch, leading axis B = b * processes."""
    return jax.make_array_from_process_local_data(along_batch(mesh), batch)


def to_all(mesh: Mesh, tree: Any) -> Any:
    """The same host arrays on every device of every process."""
    return jax.tree.map(lambda x: place(np.asarray(x), replicated(mesh)), tree)


def gathered(tree: Any) -> Any:
    """The arrays of a run of several processes, each whole on every device; to be called in all. Of one process: as they are."""
    if jax.process_count() == 1:
        return tree
    mesh = jax.tree.leaves(tree)[0].sharding.mesh
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A host array that every process holds whole, as a global array; each device takes its own part."""

    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
