"""Norm statistics of a network on unlabelled images, measured at once instead of gathered by a moving average."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from medssl_jax.augment import Recipe, to_unit
from medssl_jax.data.tiles import TileSource
from medssl_jax.methods import base
from medssl_jax.models import NORM_MOMENTUM, Backbone
from medssl_jax.train import mesh as meshes
from medssl_jax.train.step import example_keys

BATCHES, BATCH = 8, 32


class Calibration:
    """Clean, augmented crops of the pool, on which the norms of any weights of one backbone can be measured.

    Pretraining leaves statistics of corrupted views (of the decoder: of nothing else), and a labelled patch or two are too few for
    statistics of their own. The same idea in domain adaptation: Li et al. 2017, adaptive batch normalisation.
    """

    def __init__(self, backbone: Backbone, recipe: Recipe, tiles: TileSource, mesh: Mesh, seed: int) -> None:
        self._backbone, self._recipe, self._mesh = backbone, recipe, mesh
        # each device takes its share of a batch, or (where they cannot share it) all of it: the images are the same on any number
        self._place = meshes.replicated(mesh) if BATCH % mesh.size else meshes.along_batch(mesh)
        drawn = np.resize(np.random.default_rng(seed).permutation(len(tiles)), (BATCHES, BATCH))
        self._images = [np.stack([tiles[int(i)]["image"] for i in part]) for part in drawn]
        self._key = jax.random.key(seed)
        self._add = jax.jit(self._added, out_shardings=meshes.replicated(mesh))

    def __call__(self, parts: dict[str, Any]) -> dict[str, Any]:
        """`parts` {"encoder": {"params", "stats"}, "decoder"?: the same} with the mean statistics of the batches; weights, and parts of
        other names, as they are.

        Returns once they are there, and the batches follow one another: computations that exchange numbers between processes, and run at
        once, may take their turns in another order in another process, and two that wait for one another never end.
        """
        measured = {name: part for name, part in parts.items() if name in ("encoder", "decoder")}
        stats = {name: part["stats"] for name, part in measured.items()}
        if not jax.tree.leaves(stats):
            return parts  # group norm has none
        stats = meshes.to_all(self._mesh, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), stats))
        for number, images in enumerate(self._images):
            keys = example_keys(self._key, jax.numpy.int32(number), jax.numpy.arange(len(images)))
            stats = self._add(stats, measured, keys, meshes.place(images, self._place))
        stats = jax.block_until_ready(stats)
        return parts | {name: {"params": part["params"], "stats": stats[name]} for name, part in measured.items()}

    def _added(self, total: Any, parts: dict[str, Any], keys: jax.Array, images: jax.Array) -> Any:
        """A batch's share of the mean, on top of `total`."""
        found = self._one_batch(parts, keys, images)
        return jax.tree.map(lambda before, one: before + one / BATCHES, total, found)

    def _one_batch(self, parts: dict[str, Any], keys: jax.Array, images: jax.Array) -> Any:
        params = {name: part["params"] for name, part in parts.items()}
        stats = jax.tree.map(jax.numpy.zeros_like, {name: part["stats"] for name, part in parts.items()})
        features, stats = base.forward(self._backbone.encoder, "encoder", params, stats, self._recipe(keys, to_unit(images))[0])
        if "decoder" in params:
            _, stats = base.forward(self._backbone.decoder, "decoder", params, stats, features)
        return jax.tree.map(lambda moved: moved / (1 - NORM_MOMENTUM), stats)  # moved from zero by one step of the average
