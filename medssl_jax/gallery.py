"""Pictures of what a pretraining learned, for the report: what is restored, which pixels belong together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medssl_jax import methods
from medssl_jax.augment import to_unit
from medssl_jax.data.tiles import TileSource
from medssl_jax.report import places, triplets
from medssl_jax.train import mesh as meshes
from medssl_jax.train.state import State
from medssl_jax.train.step import example_keys

PICTURED = 6  # images of a row


def draw(folder: Path, method: methods.Pretraining, state: State, tiles: TileSource) -> None:
    """The pictures that the method has something to show in, as PNG in `folder`; by the first process, though all compute."""
    for kind, (name, look, write) in _PICTURES.items():
        if isinstance(method, kind) and _trained(method):
            shown = _looked(look, method, state, tiles)
            if jax.process_index() == 0:
                write(folder / name, *shown)


def _trained(method: Any) -> bool:
    """Restoration that has no weight in the loss has nothing to show."""
    return getattr(method, "restoration_weight", 1.0) > 0


def _looked(look: Callable[..., Any], method: Any, state: State, tiles: TileSource) -> list[list[np.ndarray]]:
    """What `look(method, state, images)` finds in some tiles, the same on every device: a list of images a row."""
    count = min(PICTURED, len(tiles))
    images = np.stack([tiles[i * len(tiles) // count]["image"] for i in range(count)])
    mesh = jax.tree.leaves(state.params)[0].sharding.mesh
    found = jax.jit(lambda state, images: look(method, state, images), out_shardings=meshes.replicated(mesh))(state, images)
    return [list(np.asarray(row)) for row in found]


def _restored(method: methods.Restoration, state: State, images: jax.Array) -> tuple[jax.Array, ...]:
    """Clean crops, what the network saw of them, and its answers."""
    views = method.views(example_keys(state.key, state.step, jax.numpy.arange(len(images))), {"image": images})
    return views["clean"], views["corrupted"], method.restore(state.params, state.carried, views)


def _clustered(method: methods.LocalDiscrimination, state: State, images: jax.Array) -> tuple[jax.Array, ...]:
    """Tiles, their clusters, and how like the middle of the first tile every pixel is."""
    whole = to_unit(images)
    vectors, clusters, _ = method.maps(state.params, state.carried["stats"], whole, train=False)
    middle = vectors[0, vectors.shape[1] // 2, vectors.shape[2] // 2]
    return whole, clusters.argmax(-1), vectors @ middle


_PICTURES: dict[type, tuple[str, Callable[..., Any], Callable[..., Any]]] = {
    methods.Restoration: ("restoration.png", _restored, triplets),
    methods.LocalDiscrimination: ("clusters.png", _clustered, places),
}
