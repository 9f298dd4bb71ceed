"""Devices: one mesh axis `data`, and where each array of a state or a batch lives on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from medssl_jax.errors import UserError

FSDP_MIN_SIZE = 2**14  # smaller arrays cost more to gather than they save


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


def on_host(tree: Any) -> Any:
    """The arrays as the host's, each whole; to be called in all processes. Those that are divided over them are gathered one by one: all at
    once would take the memory that dividing them saves, and exchanges that run at once may wait for one another."""

    def whole(x: jax.Array) -> Any:
        """The array, or its copy on the host where it had to be gathered."""
        if x.is_fully_addressable or x.is_fully_replicated:
            return x
        assert isinstance(x.sharding, NamedSharding)
        return jax.device_get(jax.block_until_ready(_gather(NamedSharding(x.sharding.mesh, P()))(x)))

    return jax.device_get(jax.tree.map(whole, tree))


@functools.cache
def _gather(place: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda x: x, out_shardings=place)


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A host array that every process holds whole, as a global array; each device takes its own part."""

    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
