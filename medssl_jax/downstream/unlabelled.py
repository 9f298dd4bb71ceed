"""Segmentation without labels: the guided cluster of Local Discrimination, by its map or by the likeness to its mean vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from scipy.ndimage import minimum_filter

from medssl_jax.augment import geometry, to_unit
from medssl_jax.downstream.predict import batched, blend
from medssl_jax.methods import LocalDiscrimination
from medssl_jax.methods.shape_guided import DARKEST, GUIDED, RIM
from medssl_jax.train import mesh as meshes

BATCH = 32  # windows at a time
SMALL = 1e-12
SCALE = 255
ENDS = (0.05, 0.95)  # lowest and highest level


class Guided(NamedTuple):
    """Of one image: the guided cluster's share of every pixel, and the softmax of the likeness to the clusters' vectors [H, W]."""

    cluster: np.ndarray
    likeness: np.ndarray


def guided_maps(
    method: LocalDiscrimination, parts: Mapping[str, Any], mesh: Mesh, images: Iterable[np.ndarray], poses: Sequence[int] = (0,)
) -> Iterator[Guided]:
    """Both maps of images uint8|uint16 [H, W, C] of any sizes, from windows as large as the method's crops, each seen in several poses."""
    params, stats = ({name: parts[name][kind] for name in parts} for kind in ("params", "stats"))

    def both(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        """Clusters and vectors in one array, for windows to be blended in one go."""
        vectors, clusters, _ = method.maps(params, stats, to_unit(images), train=False)
        return jnp.concatenate([clusters, vectors], axis=-1)

    seen = jax.jit(in_poses(both, poses), out_shardings=meshes.replicated(mesh))
    predict = batched(seen, params, stats, mesh, -(-BATCH // mesh.size) * mesh.size)
    for sums in blend(predict, images, method.recipe.size, group=1):
        clusters, vectors = np.split(sums, [sums.shape[-1] - parts["embed"]["params"]["conv2"]["kernel"].shape[-1]], axis=-1)
        yield _guided(clusters / clusters.sum(-1, keepdims=True), vectors, method.region_temperature)


def in_poses(predict: Callable[[Any, Any, jax.Array], jax.Array], poses: Sequence[int]) -> Callable[[Any, Any, jax.Array], jax.Array]:
    """`predict(params, carried, images [B, S, S, C]) -> [B, S, S, D]` as its mean over poses of `augment.dihedral`, each turned back.

    Errors differ from pose to pose, and what is there does not.
    """

    def everywhere(params: Any, carried: Any, images: jax.Array) -> jax.Array:
        """The mean."""

        def once(pose: jax.Array) -> jax.Array:
            """In one pose."""
            each = jnp.full(len(images), pose)
            return geometry.dihedral(predict(params, carried, geometry.dihedral(images, each)), geometry.inverse_pose(each))

        return jax.lax.map(once, jnp.array(poses)).mean(0)

    return everywhere


def eight_bits(share: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A map [H, W] in [0, 1] as uint8, 0 outside of `inside`, bool [H, W]: of many images no more is kept."""
    return np.rint(SCALE * np.where(inside, share, 0)).astype(np.uint8)


def level(maps: Iterable[np.ndarray], share: float) -> float:
    """The value above which lies a given share of all pixels of maps uint8 [H, W], in [0, 1] as the maps before `eight_bits`.

    What is told of a shape tells how much of an image it takes (ours). A map that is the same everywhere has no such level; what is
    returned is never at an end.
    """
    counts = sum(np.bincount(found.ravel(), minlength=SCALE + 1) for found in maps)
    above = np.cumsum(np.asarray(counts)[::-1])[::-1]
    first = int(np.argmax(above <= share * above[0])) if above[-1] <= share * above[0] else SCALE
    return float(np.clip((first - 0.5) / SCALE, *ENDS))


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
