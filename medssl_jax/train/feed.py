"""From a stream of indices or examples on the host to global batches on the devices."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from medssl_jax.train import mesh as meshes

HostBatch = dict[str, np.ndarray]
Batch = dict[str, jax.Array]


def from_host(mesh: Mesh, local: Iterator[HostBatch]) -> Iterator[Batch]:
    """This process's shares [b, ...] -> global batches [B, ...]. The next batch is on its way while one is used."""
    ahead: Batch | None = None
    for batch in local:
        ready, ahead = ahead, meshes.to_devices(mesh, batch)
        if ready is not None:
            yield ready
    if ahead is not None:
        yield ahead


def from_device(mesh: Mesh, examples: HostBatch, local: Iterator[HostBatch]) -> Iterator[Batch]:
    """`examples` [N, ...] go to every device once; per step only this process's indices travel."""
    return from_resident(mesh, meshes.to_all(mesh, examples), local)


def from_resident(mesh: Mesh, resident: Batch, local: Iterator[HostBatch]) -> Iterator[Batch]:
    """The same for examples [N, ...] that are on every device already."""
    split = meshes.along_batch(mesh)
    gather = jax.jit(lambda arrays, at: {name: a[at] for name, a in arrays.items()}, out_shardings=split)
    for indices in from_host(mesh, local):
        yield {**gather(resident, indices["index"]), "slot": indices["slot"]}
