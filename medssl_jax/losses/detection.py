"""Losses of a detector of boxes: focal, intersection over union, and the side loss (SimCFS, arXiv 2107.08650 and 2208.14357).

A box is float32 [..., 4], pixel corners (x0, y0, x1, y1) with x0 < x1, y0 < y1 and exclusive far edges. Distances are float32 [..., 4],
pixels from a place to the left, top, right and bottom edge of a box. float32 inside.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

RADIUS = 1.5  # strides around a box's centre in which places learn it (FCOS, Tian et al. 2019, with centre sampling)
REACH = 4  # strides to the furthest edge that a level learns; the finest level learns all that is nearer, the coarsest all beyond
TINY = 1e-6  # px^2, so that an empty box divides nothing by zero


def focal(logits: jax.Array, targets: jax.Array, alpha: float = 0.25, gamma: float = 2.0) -> jax.Array:
    """Binary cross-entropy with a weight alpha (1 - alpha for target 0) times (1 - p of the target) ** gamma (Lin et al. 2017, eq. 5).

    Logits and targets (0 or 1) of one shape -> the loss of every element.
    """
    x, t = logits.astype(jnp.float32), targets.astype(jnp.float32)
    p, missed = jax.nn.sigmoid(x), binary_cross_entropy(x, t)
    wrong = p * (1 - t) + (1 - p) * t
    return (alpha * t + (1 - alpha) * (1 - t)) * wrong**gamma * missed


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-t log p - (1 - t) log(1 - p) of every element; targets from 0 to 1."""
    x, t = logits.astype(jnp.float32), targets.astype(jnp.float32)
    return jax.nn.softplus(x) - x * t


def box_overlap(predicted: jax.Array, true: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(IoU, GIoU) of boxes [..., 4] one to one: [...] each (Rezatofighi et al. 2019).

    GIoU = IoU - (hull - union) / hull, the hull being the smallest box around both. 1 for equal boxes, down to -1 for distant ones.
    """
    _check(predicted, true)
    p, g = predicted.astype(jnp.float32), true.astype(jnp.float32)
    shared = _area(jnp.maximum(p[..., :2], g[..., :2]), jnp.minimum(p[..., 2:], g[..., 2:]))
    hull = _area(jnp.minimum(p[..., :2], g[..., :2]), jnp.maximum(p[..., 2:], g[..., 2:]))
    union = _area(p[..., :2], p[..., 2:]) + _area(g[..., :2], g[..., 2:]) - shared
    iou = shared / jnp.maximum(union, TINY)
    return iou, iou - (hull - union) / jnp.maximum(hull, TINY)


def overshoot(predicted: jax.Array, true: jax.Array) -> jax.Array:
    """How far each edge of the predicted box lies outside the true one, in the boxes' unit and in the order of the corners; 0 inside.

    Boxes [..., 4] -> [..., 4]. The side loss of the paper is its sum over the last axis; the gradient at edges inside is 0.
    """
    return jax.nn.relu(_outward(predicted, true))


def side_loss(predicted: jax.Array, true: jax.Array) -> jax.Array:
    """s_n, the scale-free side loss (ours): overshoot left and right over the true width + top and bottom over the true height, [...]."""
    return (overshoot(predicted, true) / _sides(true)).sum(-1)


def symmetric_side_loss(predicted: jax.Array, true: jax.Array) -> jax.Array:
    """The control of the side loss: half the distance of each edge, outside or inside, over the true width or height, [...].

    Where errors are as often outside as inside it equals `side_loss`, so that both add as much regression, and only one of them a side.
    """
    return (jnp.abs(_outward(predicted, true)) / _sides(true)).sum(-1) / 2


def corners(places: jax.Array, distances: jax.Array) -> jax.Array:
    """Places (x, y) [..., 2] and distances [..., 4] -> boxes [..., 4]."""
    return jnp.concatenate([places - distances[..., :2], places + distances[..., 2:]], axis=-1)


def edge_distances(places: jax.Array, boxes: jax.Array) -> jax.Array:
    """The inverse of `corners`: distances [..., 4], of which one is negative where the place is outside the box."""
    return jnp.concatenate([places - boxes[..., :2], boxes[..., 2:] - places], axis=-1)


class Assigned(NamedTuple):
    """Which places learn a box, bool [B, A], and which box that is, [B, A, 4] (any box where there is none)."""

    positive: jax.Array
    boxes: jax.Array


def assign(boxes: jax.Array, valid: jax.Array, places: jax.Array, strides: jax.Array) -> Assigned:
    """What each place has to find, by FCOS' rules (Tian et al. 2019, 3.1-3.2, with centre sampling).

    A place learns a box that it lies in, if it is within RADIUS strides of its centre in x and in y and the furthest of the box's edges is
    within the level's range: over REACH / 2 and up to REACH strides. Of several boxes it learns the smallest. A box that no place would
    learn so (a long and narrow one between the places of its level) is learned by the finest level, if a place of that lies in it.

    Args:
      boxes: [B, M, 4], padded.
      valid: bool [B, M], which of them are there.
      places: [A, 2], (x, y) in pixels.
      strides: [A], of each place's level.
    """
    edges = edge_distances(places[None, :, None, :], boxes[:, None, :, :])
    off_centre = jnp.abs(edges[..., :2] - edges[..., 2:]).max(-1) / 2
    step = strides[None, :, None]
    near = (edges.min(-1) > 0) & (off_centre < RADIUS * step) & valid[:, None, :]
    furthest, finest = edges.max(-1), step == strides.min()
    fits = ((furthest > REACH / 2 * step) | finest) & ((furthest <= REACH * step) | (step == strides.max()))
    missed = ~(near & fits).any(1, keepdims=True)
    candidate = near & (fits | (missed & finest))
    area = jnp.where(candidate, _area(boxes[..., :2], boxes[..., 2:])[:, None, :], jnp.inf)
    chosen = jnp.take_along_axis(boxes, area.argmin(-1)[..., None], axis=1)
    return Assigned(candidate.any(-1), chosen)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean where the mask (bool, the same shape) holds; 0 where it holds nowhere."""
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)


def _outward(predicted: jax.Array, true: jax.Array) -> jax.Array:
    """Signed distances of the edges, positive outside."""
    _check(predicted, true)
    p, g = predicted.astype(jnp.float32), true.astype(jnp.float32)
    return jnp.concatenate([g[..., :2] - p[..., :2], p[..., 2:] - g[..., 2:]], axis=-1)


def _sides(boxes: jax.Array) -> jax.Array:
    """(width, height, width, height) of boxes [..., 4], never 0."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], TINY).astype(jnp.float32)
    return jnp.concatenate([sides, sides], axis=-1)


def _area(low: jax.Array, high: jax.Array) -> jax.Array:
    sides = jnp.maximum(high - low, 0.0)
    return sides[..., 0] * sides[..., 1]


def _check(predicted: jax.Array, true: jax.Array) -> None:
    """Boxes are compared one to one, as corners: four numbers each, as many on both sides."""
    assert predicted.shape == true.shape, f"boxes {predicted.shape} against boxes {true.shape}"
    assert predicted.shape[-1] == 4, f"a box is four corners, not {predicted.shape[-1]} numbers"
