"""Local Discrimination: a vector and a cluster for every pixel, learned together (arXiv 2012.09333, 2108.09440)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from medssl_jax import losses
from medssl_jax.augment import Recipe, fold, geometry, meet, to_unit, uniform
from medssl_jax.methods import base
from medssl_jax.models import Backbone, Network

VIEWS = ("first", "second")
PICTURES = 5  # that the network sees of two neighbours: two views of each, and their mixture
MIX = (0.2, 0.8)  # share of the first image in a mixture
LEAST = 0.25  # common part of two crops, as a share of the smaller
FINE = 4  # px of a crop for a cell in which the clusters of two views agree
SHORT = 1e-3  # vectors well below it have no direction: black ground leaves a bias alone, whose gradient would drown all others
WEIGHTLESS = 1e-9  # added to the clusters' sum


@dataclasses.dataclass(frozen=True)
class Weights:
    """Of the terms of the loss; regions, entropy, balance and agreement count in the second stage alone."""

    patches: float = 1.0
    mixup: float = 1.0
    regions: float = 10.0
    entropy: float = 0.1
    balance: float = 1.0  # ours: the published losses let one cluster take everything
    floor: float = 0.0  # ours: in place of balance where a structure is small by nature
    agreement: float = 0.0  # ours, after PiCIE: the same place is in the same cluster in both views


@dataclasses.dataclass(frozen=True)
class LocalDiscrimination:
    """Two crops of an image in poses of their own; where they meet, cells x cells patches are matched and told from all others.

    The first `stage_one` of the steps learns vectors alone, the rest clusters too: the paper's two stages as a schedule of weights.
    """

    backbone: Backbone
    embed: Network
    cluster: Network
    recipe: Recipe
    cells: int
    steps: int
    weights: Weights
    stage_one: float = 0.2
    temperature: float = 0.1
    region_temperature: float = 0.2
    same_crop: bool = False  # the paper's views: one crop in two poses
    same_place: int = -1  # patches of other images up to so many cells away are no negatives; -1: all are

    def init(self, key: jax.Array, batch: base.Batch) -> tuple[Any, Any]:
        """Encoder, decoder and the two heads on it."""
        body, embed, cluster = jax.random.split(key, 3)
        images = to_unit(batch["image"][:1, : self.recipe.size, : self.recipe.size])
        params, stats, _, decoded = base.init_backbone(body, self.backbone, images, decoder=True)
        params["embed"], stats["embed"] = self.embed.init(embed, decoded)
        params["cluster"], stats["cluster"] = self.cluster.init(cluster, decoded)
        return params, {"stats": stats}

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """Two views [B, S, S, C], their crops [B, 4] and poses [B], the part they share [B, 4], and the share of a mixture [B]."""
        return self.lit(keys, self.crops(keys, to_unit(batch["image"])))

    def lit(self, keys: jax.Array, found: base.Views) -> base.Views:
        """Both crops in lights of their own."""
        return found | {name: self.recipe.photometric(fold(keys, 6 + number), found[name]) for number, name in enumerate(VIEWS)}

    def crops(self, keys: jax.Array, images: jax.Array) -> base.Views:
        """What `views` tells, of float32 [B, H, W, C] in [0, 1], before the light is changed."""
        r = self.recipe
        if r.rotation:
            images = geometry.rotate(images, uniform(fold(keys, 0), -r.rotation, r.rotation))
        crops = [geometry.sample_boxes(fold(keys, 1 + k), images.shape[1], images.shape[2], r.scale, r.ratio) for k in (0, 1)]
        second, shared = meet.meeting_boxes(crops[0], crops[0] if self.same_crop else crops[1], LEAST)
        found = {"shared": shared, "share": uniform(fold(keys, 3), *MIX)}
        for number, (name, boxes) in enumerate(zip(VIEWS, (crops[0], second))):
            pose = geometry.random_pose(fold(keys, 4 + number), rotate=r.quarter_turns, horizontal=r.horizontal, vertical=r.vertical)
            view = geometry.dihedral(geometry.crop_and_resize(images, boxes, r.size), pose)
            found |= {name: view, f"{name}_crop": boxes, f"{name}_pose": pose}
        return found

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """L_PD + L_mix, and from the second stage on 10 L_LD + 0.1 L_ent and ours; one pass over all views and mixtures."""
        loss, _, found = self.learn(params, carried, views, step)
        return loss, found

    def learn(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, jax.Array, tuple[Any, base.Logs]]:
        """The loss, the clusters of both views [2 B, S, S, K], `base.joined`, that it was made of, and new statistics with the logs.

        B is even: neighbours are mixed, and their views and mixture lie side by side, so that a device keeps its own images.
        """
        *maps, stats = self.maps(params, carried["stats"], self._pictures(views))
        vectors, clusters = (base.parted(found, PICTURES) for found in maps)
        fine = max(self.recipe.size // FINE, 1)
        (u1, p1), (u2, p2) = (
            [self._cells(views, name, base.joined(*found[number:4:2]), cells) for found, cells in ((vectors, self.cells), (clusters, fine))]
            for number, name in enumerate(VIEWS)
        )
        both = base.joined(*clusters[:4])
        terms = {
            "patches": losses.patch_discrimination(_rows(u1, u2), self.temperature, self._same_place(views)),
            "mixup": self._mixup(vectors[0], vectors[2], vectors[4], _shares(views)),
            **self._cluster_terms(base.joined(*vectors[:4]), both, p1, p2),
        }
        late, weights = self.late(step), dataclasses.asdict(self.weights)
        loss = sum(weights[name] * (1.0 if name in ("patches", "mixup") else late) * value for name, value in terms.items())
        return jnp.asarray(loss), both, ({"stats": stats}, {**terms, **_masses(both)})

    def _pictures(self, views: base.Views) -> jax.Array:
        """Of every two neighbours both views of the one, both of the other and the mixture of their first: [5 B / 2, S, S, C]."""
        (one, other), (second, others) = (base.parted(views[name], 2) for name in VIEWS)
        return base.joined(one, second, other, others, _mixture(one, other, _shares(views)))

    def late(self, step: jax.Array) -> jax.Array:
        """1.0 in the second stage, 0.0 before it."""
        return (step >= self.stage_one * self.steps).astype(jnp.float32)

    def maps(self, params: Any, stats: Any, images: jax.Array, train: bool = True) -> tuple[jax.Array, jax.Array, Any]:
        """Images [B, S, S, C] -> unit vectors [B, S, S, D], shares of clusters [B, S, S, K] (sigmoids over their sum), new statistics."""
        features, stats = base.forward(self.backbone.encoder, "encoder", params, stats, images, train)
        decoded, stats = base.forward(self.backbone.decoder, "decoder", params, stats, features, train)
        vectors, stats = base.forward(self.embed, "embed", params, stats, decoded, train)
        logits, stats = base.forward(self.cluster, "cluster", params, stats, decoded, train)
        shares = jax.nn.sigmoid(logits)
        return losses.unit(vectors, SHORT), shares / (shares.sum(-1, keepdims=True) + WEIGHTLESS), stats

    def _cells(self, views: base.Views, name: str, maps: jax.Array, cells: int) -> jax.Array:
        """A view's maps [B, S, S, D] in the cells of the shared part, upright: [B, cells, cells, D]."""
        boxes = meet.within(views["shared"], views[f"{name}_crop"], self.recipe.size)
        return meet.pool_cells(geometry.dihedral(maps, geometry.inverse_pose(views[f"{name}_pose"])), boxes, cells)

    def _mixup(self, one: jax.Array, other: jax.Array, mixed: jax.Array, share: jax.Array) -> jax.Array:
        """The vectors of a mixture are the mixture of the vectors: L_mix on [u(x3); t], t without gradient, in the views' own frame."""
        whole = jnp.tile(jnp.float32([[0, 0, self.recipe.size, self.recipe.size]]), (len(mixed), 1))
        first, second, found = (losses.unit(meet.pool_cells(vectors, whole, self.cells)) for vectors in (one, other, mixed))
        target = jax.lax.stop_gradient(_mixture(first, second, share))
        return losses.patch_discrimination(_rows(found, target), self.temperature)

    def _cluster_terms(self, vectors: jax.Array, clusters: jax.Array, first: jax.Array, second: jax.Array) -> dict[str, jax.Array]:
        regions, mass = losses.region_vectors(vectors, clusters), losses.cluster_mass(clusters)
        return {
            "regions": losses.region_discrimination(regions, self.region_temperature),
            "entropy": losses.cluster_entropy(clusters),
            "balance": losses.cluster_balance(mass),
            "floor": losses.cluster_floor(mass),
            "agreement": losses.cluster_agreement(first, second),
        }

    def _same_place(self, views: base.Views) -> jax.Array | None:
        """Which pairs of patches of different images lie within `same_place` cells of the tile: bool [N, N], N = 2 B cells^2."""
        if self.same_place < 0:
            return None
        side = views["shared"][:, 2:].mean() / self.cells
        place = jnp.tile(meet.centres(views["shared"], self.cells).reshape(-1, 2), (2, 1))
        image = jnp.tile(jnp.repeat(jnp.arange(len(views["first"])), self.cells**2), 2)
        near = jnp.abs(place[:, None] - place[None]).max(-1) <= (self.same_place + 0.5) * side
        return near & (image[:, None] != image[None])

    def after_update(self, params: Any, carried: Any, step: jax.Array) -> Any:
        """Nothing moves beside the parameters."""
        return carried

    def transferable(self, params: Any, carried: Any) -> dict[str, Any]:
        """Encoder and decoder (the paper transfers the encoder alone), and the heads, by which landmarks and clusters are found."""
        return base.parts(params, carried["stats"], "encoder", "decoder", "embed", "cluster")


def _shares(views: base.Views) -> jax.Array:
    """Of every two neighbours the share that the one has of their mixture: [B / 2, 1, 1, 1]."""
    return base.parted(views["share"], 2)[0][:, None, None, None]


def _mixture(one: jax.Array, other: jax.Array, share: jax.Array) -> jax.Array:
    return share * one + (1 - share) * other


def _rows(*cells: jax.Array) -> jax.Array:
    """[B, cells, cells, D] one after the other as rows [N, D]."""
    return jnp.concatenate([c.reshape(-1, c.shape[-1]) for c in cells])


def _masses(clusters: jax.Array) -> base.Logs:
    mass = losses.cluster_mass(clusters)
    return {"clusters": losses.effective_clusters(mass), "smallest_cluster": mass.min(), "largest_cluster": mass.max()}
