"""What is watched while pretraining: kNN and ridge probes where labels exist, and whether the features collapse."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from medssl_jax.augment import to_unit
from medssl_jax.data.tiles import TileSource
from medssl_jax.downstream.predict import batched
from medssl_jax.evaluate import collapse_panel, collapse_warning, directions, knn_accuracy, ridge_accuracy
from medssl_jax.evaluate.collapse import FEWEST_DIRECTIONS
from medssl_jax.losses import effective_clusters
from medssl_jax.methods import LocalDiscrimination, Pretraining
from medssl_jax.models import pool
from medssl_jax.train.logging import say
from medssl_jax.train.mesh import replicated
from medssl_jax.train.state import State

IMAGES = 512  # tiles looked at; the panel's numbers depend on it
FEWEST_CLUSTERS = 0.25  # in use, as a share of all
CELLS = 2048  # feature vectors of a segmentation probe
DECODED = 64  # tiles whose decoded map is looked at, at every DECODED_STRIDE-th pixel each way
DECODED_STRIDE = 4
PROBE_STRIDE = 8  # segmentation probes classify the encoder's vectors at this stride, or the next finer one


@dataclasses.dataclass(frozen=True)
class Sample:
    """Tiles looked at: uint8|uint16 [N, T, T, C]; those at `labelled` [M] have a label [M] or a mask [M, T, T]."""

    images: np.ndarray
    labelled: np.ndarray
    targets: np.ndarray

    @classmethod
    def draw(cls, tiles: TileSource, seed: int) -> Sample:
        """Up to IMAGES tiles, labelled or not, chosen by the seed."""
        chosen = np.sort(np.random.default_rng(seed).permutation(len(tiles))[:IMAGES])
        examples = [tiles[int(i)] for i in chosen]
        targets = {n: e["mask"] if "mask" in e else e["label"] for n, e in enumerate(examples) if "mask" in e or "label" in e}
        return cls(np.stack([e["image"] for e in examples]), np.array(list(targets), int), np.array(list(targets.values())))


class Monitor:
    """Called with a state; returns scalars for the log and says so where something is wrong."""

    def __init__(self, method: Pretraining, mesh: Mesh, bank: Sample, queries: Sample | None, batch: int) -> None:
        self._method, self._mesh, self._batch = method, mesh, batch
        self._bank, self._queries = bank, queries
        everywhere = replicated(mesh)
        self._embed, self._decode = jax.jit(self._features, out_shardings=everywhere), jax.jit(self._decoded, out_shardings=everywhere)
        self.warning: str | None = None

    def _features(self, params: Any, carried: Any, images: jax.Array) -> dict[str, jax.Array]:
        """Pooled vectors [N, F], projections [N, P] where there is a projector, the probed feature map [N, h, w, D], and where the method
        has pixels' vectors and clusters, the middle's vector [N, D] and the clusters' shares of the pixels [N, K]."""
        maps, _ = self._method.backbone.encoder.apply(params["encoder"], carried["stats"]["encoder"], to_unit(images), train=False)
        found = {"backbone": pool(maps)}
        projector = getattr(self._method, "projector", None)
        if projector is not None:
            found["projector"], _ = projector.apply(params["projector"], carried["stats"]["projector"], found["backbone"], train=False)
        if isinstance(self._method, LocalDiscrimination):
            vectors, clusters, _ = self._method.maps(params, carried["stats"], to_unit(images), train=False)
            found["mass"] = clusters.mean((1, 2))
            found["pixel"] = vectors[:, vectors.shape[1] // 2, vectors.shape[2] // 2]  # places are to differ, not whole images
        strides = self._method.backbone.strides
        found["map"] = maps[max(i for i, stride in enumerate(strides) if stride <= max(PROBE_STRIDE, strides[0]))]
        return found

    def _decoded(self, params: Any, carried: Any, images: jax.Array) -> jax.Array:
        """Vectors of the decoder's finest map, [N, h, w, D], by the statistics of these very images: those that were learned are of
        corrupted ones, and are measured anew before anything is transferred."""
        stats, backbone = carried["stats"], self._method.backbone
        maps, _ = backbone.encoder.apply(params["encoder"], stats["encoder"], to_unit(images), train=True)
        found, _ = backbone.decoder.apply(params["decoder"], stats["decoder"], maps, train=True)
        return found[:, ::DECODED_STRIDE, ::DECODED_STRIDE]

    def __call__(self, state: State) -> dict[str, float]:
        """The collapse panel of backbone and projector, and the probes; `warning` is what is wrong now. Nothing of features that are no
        numbers: the loop stops at the loss that made them."""
        bank = self._vectors(state, self._bank)
        if not np.isfinite(bank["backbone"]).all():
            return {}
        scalars: dict[str, float] = {}
        self.warning = None
        if "decoder" in self._method.transferable(state.params, state.carried):
            scalars |= self._directions(state)
        told = "pixel" if "pixel" in bank else "backbone"
        for name in ("backbone", "projector", "pixel"):
            if name in bank and len(bank[name]) > 1:
                scalars |= self._panel(name, bank[name], int(state.step), told == name)
        if "mass" in bank:
            scalars |= self._clusters(bank["mass"].mean(0), int(state.step))
        if self._queries is not None:
            train, query = _labelled(bank, self._bank), _labelled(self._vectors(state, self._queries), self._queries)
            if train and query:
                scalars |= {"probe/knn": float(knn_accuracy(*train, *query)), "probe/ridge": float(ridge_accuracy(*train, *query))}
        return scalars

    def _vectors(self, state: State, sample: Sample) -> dict[str, np.ndarray]:
        return batched(self._embed, state.params, state.carried, self._mesh, self._batch)(sample.images)

    def _warn(self, sentence: str) -> None:
        self.warning = f"{self.warning} {sentence}" if self.warning else sentence
        say(sentence)

    def _panel(self, name: str, vectors: np.ndarray, step: int, told: bool) -> dict[str, float]:
        panel = collapse_panel(vectors)
        warning = collapse_warning(panel, vectors.shape[1])
        if warning and told:
            self._warn(f"Step {step}: {warning}")
        return {f"collapse/{name}_{key}": float(value) for key, value in panel.items()}

    def _directions(self, state: State) -> dict[str, float]:
        """How many directions the decoded map uses; a warning where its channels are nearly copies of each other, or dead."""
        devices = self._mesh.size
        count = max(min(DECODED, len(self._bank.images)) // devices, 1) * devices  # no more: what fills a batch up would count as images
        maps = batched(self._decode, state.params, state.carried, self._mesh, count)(self._bank.images[:count])
        used, depth = directions(maps.reshape(-1, maps.shape[-1])), maps.shape[-1]
        fewest = max(FEWEST_DIRECTIONS * depth, min(depth, 1.5))
        if used < fewest:
            remedy = "raise config.method.decorrelation, or " if hasattr(self._method, "decorrelation") else ""
            self._warn(
                f"Step {int(state.step)}: The decoder's channels repeat each other or are dead (its map uses {used:.1f} of {depth} "
                f"directions, healthy is above {fewest:.1f}): {remedy}transfer the encoder alone (config.finetune.inits)."
            )
        return {"collapse/decoded_directions": used}

    def _clusters(self, mass: np.ndarray, step: int) -> dict[str, float]:
        """How many clusters are in use, and the share of pixels of the smallest and the largest; a warning where few are."""
        effective = float(effective_clusters(jax.numpy.asarray(mass)))
        assert isinstance(self._method, LocalDiscrimination)
        fewest = max(FEWEST_CLUSTERS * len(mass), 1.5)
        if effective < fewest and step > self._method.stage_one * self._method.steps:
            self._warn(
                f"Step {step}: The clusters are collapsing (the pixels use {effective:.1f} of {len(mass)}, healthy is above "
                f"{fewest:g}): raise config.method.weights.balance, or lower config.pretrain.optimizer.learning_rate."
            )
        return {
            "collapse/clusters": effective,
            "collapse/smallest_cluster": float(mass.min()),
            "collapse/largest_cluster": float(mass.max()),
        }


def _labelled(vectors: dict[str, np.ndarray], sample: Sample) -> tuple[np.ndarray, np.ndarray] | None:
    """What a probe learns or predicts: pooled vectors with the tiles' labels, or the map's cells with their pixels' class."""
    if not len(sample.labelled):
        return None
    kind = "map" if sample.targets.ndim == 3 else "backbone"
    found = vectors[kind][sample.labelled]
    return _cells(found, sample.targets) if kind == "map" else (found, sample.targets)


def _cells(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One vector a cell of the feature map with the commonest class of its pixels; at most CELLS of them, from all over the maps."""
    count, height, width, depth = maps.shape
    rows, columns = masks.shape[1] // height, masks.shape[2] // width
    cut = masks[:, : height * rows, : width * columns].reshape(count, height, rows, width, columns)
    shares = np.stack([(cut == c).mean((2, 4)) for c in range(masks.max() + 1)], -1)
    chosen = np.random.default_rng(0).permutation(count * height * width)[:CELLS]
    return maps.reshape(-1, depth)[chosen], shares.argmax(-1).reshape(-1)[chosen]
