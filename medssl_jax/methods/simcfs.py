"""SimCFS: a detector of the panels of compound figures, learned from simulated figures alone (arXiv 2107.08650, 2208.14357)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medssl_jax import losses
from medssl_jax.augment import Recipe, draw_motion, flags, fold, in_view, move_boxes, move_images, to_unit
from medssl_jax.methods import base
from medssl_jax.models import DETECTOR_STRIDES, Network, detector_places

SIDES = ("scale_free", "original", "symmetric", "none")
GROUND = 0.5  # around a figure: what the network's own zero padding is
SEEN = 0.3  # share of a panel's area that must be in view for it to be learned
LIGHT = Recipe(brightness=0.15, contrast=0.3, gamma=0.2, saturation=0.3, hue=0.05, grayscale=0.1)


@dataclasses.dataclass(frozen=True)
class SimCFS:
    """Batches are {"image": uint8 [B, S, S, 3], "boxes": float32 [B, M, 4], "count": int32 [B], "extent": float32 [B, 4]}.

    A box is pixel corners (x0, y0, x1, y1) with exclusive far edges; the first `count` of M are there, and `extent` is the box that the
    figure itself takes up. `average` follows the parameters, and is the detector that is kept.
    """

    network: Network
    size: int
    side: str = "scale_free"
    side_weight: float = 0.25
    light: Recipe = LIGHT
    zoom: tuple[float, float] = (0.75, 1.1)
    stretch: float = 0.1
    inversion: float = 0.1  # share of the figures whose bright turns dark
    decay: float = 0.998  # of the average, a step

    def init(self, key: jax.Array, batch: base.Batch) -> tuple[Any, Any]:
        """The detector, and an average that starts as a copy of it."""
        params, _ = self.network.init(key, jnp.zeros((1, self.size, self.size, 3)))
        params = {"detector": params}
        return params, {"average": jax.tree.map(jnp.copy, params)}  # a donated state must not hold one buffer twice

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """Figures zoomed, moved, mirrored and in other light, with the panels that are still in view."""
        motion = draw_motion(fold(keys, 0), self.size, self.zoom, self.stretch, across=0.5, upright=0.1)
        images = self.light.photometric(fold(keys, 1), move_images(to_unit(batch["image"]), motion, GROUND))
        images = jnp.where(flags(fold(keys, 2), self.inversion)[:, None, None, None], 1 - images, images)
        boxes, share = in_view(move_boxes(batch["boxes"], motion, self.size), self.size)
        extent = move_boxes(batch["extent"][:, None], motion, self.size)[:, 0]
        valid = _first(batch) & (share >= SEEN)
        return {"image": _on_ground(images, extent), "boxes": boxes, "valid": valid}

    def plain(self, batch: base.Batch) -> base.Views:
        """The figures as they are, for validation."""
        return {"image": to_unit(batch["image"]), "boxes": batch["boxes"], "valid": _first(batch)}

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """focal + (1 - GIoU) + quality + side_weight * side; the first a sum over all places, the others over those that have a box, all
        by the number of these. `side_n` is s_n and `overshooting` the share of edges beyond the true one, whatever the side loss is."""
        found, _ = self.network.apply(params["detector"], {}, views["image"], train=True)
        places, strides = (jnp.asarray(part) for part in detector_places(self.size))
        target = losses.assign(views["boxes"], views["valid"], places, strides)
        predicted = losses.corners(places[None], found["distances"])
        iou, giou = losses.box_overlap(predicted, target.boxes)
        agreement = losses.binary_cross_entropy(found["quality"], jax.lax.stop_gradient(iou))
        objectness = losses.focal(found["objectness"], target.positive.astype(jnp.float32)).sum() / jnp.maximum(target.positive.sum(), 1)
        overlap, quality = (losses.masked_mean(values, target.positive) for values in (1 - giou, agreement))
        side = self._side(predicted, target, strides)
        beyond = (losses.overshoot(predicted, target.boxes) > 0).mean(-1)
        logs = {"focal": objectness, "overlap": overlap, "quality": quality, "side": self.side_weight * side}
        logs["side_n"] = losses.masked_mean(losses.side_loss(predicted, target.boxes), target.positive)
        logs["overshooting"] = losses.masked_mean(beyond, target.positive)
        logs["places_a_figure"] = target.positive.sum() / len(views["image"])
        return objectness + overlap + quality + logs["side"], (carried, logs)

    def _side(self, predicted: jax.Array, target: losses.Assigned, strides: jax.Array) -> jax.Array:
        """The side loss by its name; the original's is the overshoot in cells of each level, a mean a level, summed over levels."""
        if self.side == "none":
            return jnp.float32(0)
        if self.side != "original":
            form = losses.side_loss if self.side == "scale_free" else losses.symmetric_side_loss
            return losses.masked_mean(form(predicted, target.boxes), target.positive)
        cells = losses.overshoot(predicted, target.boxes).sum(-1) / strides[None]
        means = [losses.masked_mean(cells, target.positive & (strides == stride)[None]) for stride in DETECTOR_STRIDES]
        return jnp.stack(means).sum()

    def after_update(self, params: Any, carried: Any, step: jax.Array) -> Any:
        """The average moves towards the parameters, faster in the first steps."""
        decay = jnp.minimum(self.decay, (1 + step) / (10 + step))
        return {"average": optax.incremental_update(params, carried["average"], 1 - decay)}

    def transferable(self, params: Any, carried: Any) -> dict[str, Any]:
        """The averaged detector."""
        return {"detector": {"params": carried["average"]["detector"], "stats": {}}}


def _first(batch: base.Batch) -> jax.Array:
    """Which of the padded boxes are there, bool [B, M]."""
    return jnp.arange(batch["boxes"].shape[1])[None] < batch["count"][:, None]


def _on_ground(images: jax.Array, extent: jax.Array) -> jax.Array:
    """Images [B, S, S, C] with the ground outside their extent [B, 4], where light and noise have changed it."""
    centre = jnp.arange(images.shape[1])[None] + 0.5
    columns, rows = ((centre > extent[:, i, None]) & (centre < extent[:, i + 2, None]) for i in (0, 1))
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], images, GROUND)
