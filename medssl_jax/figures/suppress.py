"""From what every place of the detector says to a few boxes, on the device, with static shapes.

Boxes are float32 [..., 4], pixel corners (x0, y0, x1, y1) with x0 < x1, y0 < y1 and exclusive far edges.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medssl_jax.losses import box_overlap, corners
from medssl_jax.models import detector_places

KEPT = (
    500  # boxes of a figure, before those of the same panel are left out: nine places are trained to box a panel, and it may have 50 panels
)
SAME = 0.45  # IoU from which two boxes are of one panel


def best_boxes(found: dict[str, jax.Array], size: int) -> tuple[jax.Array, jax.Array]:
    """The surest boxes of each figure, in the pixels of its square of `size`: [B, K, 4], scores [B, K], the surest first.

    `found` is what `models.detector` returns. A score is the geometric mean of the objectness and the IoU that the detector expects of
    the box; it is 0 for a box that a surer one of the same panel stands for.
    """
    places = jnp.asarray(detector_places(size)[0])
    boxes = jnp.clip(corners(places[None], found["distances"]), 0.0, size)
    scores = jnp.sqrt(jax.nn.sigmoid(found["objectness"]) * jax.nn.sigmoid(found["quality"]))
    scores, chosen = jax.lax.top_k(scores, min(KEPT, scores.shape[1]))
    boxes = jnp.take_along_axis(boxes, chosen[..., None], axis=1)
    return boxes, jnp.where(jax.vmap(non_maximum_suppression)(boxes), scores, 0.0)


def non_maximum_suppression(boxes: jax.Array, same: float = SAME) -> jax.Array:
    """Greedy non-maximum suppression of boxes [K, 4], the surest first: whether each stays, bool [K].

    A box goes where its IoU with an earlier one that stays is above `same`.
    """
    count = len(boxes)
    first, second = (jnp.broadcast_to(jnp.expand_dims(boxes, axis), (count, count, 4)) for axis in (1, 0))
    later = jnp.arange(count)[:, None] < jnp.arange(count)[None, :]
    covers = (box_overlap(first, second)[0] > same) & later
    return jax.lax.fori_loop(0, count, lambda i, stay: stay & ~(covers[i] & stay[i]), jnp.ones(count, bool))
