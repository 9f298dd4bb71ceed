"""Segmentation without labels: the guided cluster of Local Discrimination, by its map or by the likeness to its mean vector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from scipy.ndimage import minimum_filter

from medssl_jax.augment import to_unit
from medssl_jax.downstream.predict import batched, blend
from medssl_jax.methods import LocalDiscrimination
from medssl_jax.methods.shape_guided import DARKEST, GUIDED, RIM
from medssl_jax.train import mesh as meshes

BATCH = 32  # windows at a time
SMALL = 1e-12


class Guided(NamedTuple):
    """Of one image: the guided cluster's share of every pixel, and the softmax of the likeness to the clusters' vectors [H, W]."""

    cluster: np.ndarray
    likeness: np.ndarray


def guided_maps(method: LocalDiscrimination, parts: Mapping[str, Any], mesh: Mesh, images: Iterable[np.ndarray]) -> Iterator[Guided]:
    """Both maps of images uint8|uint16 [H, W, C] of any sizes, from windows as large as the method's crops."""
    params, stats = ({name: parts[name][kind] for name in parts} for kind in ("params", "stats"))

    def both(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        """Clusters and vectors in one array, for windows to be blended in one go."""
        vectors, clusters, _ = method.maps(params, stats, to_unit(images), train=False)
        return jnp.concatenate([clusters, vectors], axis=-1)

    predict = batched(jax.jit(both, out_shardings=meshes.replicated(mesh)), params, stats, mesh, -(-BATCH // mesh.size) * mesh.size)
    for sums in blend(predict, images, method.recipe.size, group=1):
        clusters, vectors = np.split(sums, [sums.shape[-1] - parts["embed"]["params"]["conv2"]["kernel"].shape[-1]], axis=-1)
        yield _guided(clusters / clusters.sum(-1, keepdims=True), vectors, method.region_temperature)


def _guided(clusters: np.ndarray, vectors: np.ndarray, temperature: float) -> Guided:
    vectors = _unit(vectors)
    regions = _unit(np.einsum("hwk,hwd->kd", clusters, vectors))
    logits = vectors @ regions.T / temperature
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return Guided(clusters[..., GUIDED], shares[..., GUIDED] / shares.sum(-1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), SMALL)


def field_of_view(image: np.ndarray) -> np.ndarray:
    """What a fundus camera sees: where any channel of uint8|uint16 [H, W, C] is above 20 of 255 (as released) and so are the pixels around,
    for the rim is darker than what it encloses, as a vessel is; bool [H, W].
    """
    return minimum_filter(image.max(-1), 2 * RIM + 1, mode="nearest") > DARKEST * np.iinfo(image.dtype).max
