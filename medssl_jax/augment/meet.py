"""Where two crops of one image meet: their common part, seen from each of them, and cells of it read from their maps.

Boxes (y0, x0, height, width) and coordinates as in `geometry`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medssl_jax.augment.draw import spread


def overlap(first: jax.Array, second: jax.Array) -> jax.Array:
    """The common part of boxes [B, 4]; sides of 0 where there is none."""
    low = jnp.maximum(first[:, :2], second[:, :2])
    high = jnp.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    return jnp.concatenate([low, jnp.maximum(high - low, 0.0)], axis=1)


def meeting_boxes(first: jax.Array, second: jax.Array, least: float) -> tuple[jax.Array, jax.Array]:
    """`second`, replaced by `first` where the common part is less than a share `least` of the smaller of the two; and the common part."""
    smaller = jnp.minimum(first[:, 2:].prod(1), second[:, 2:].prod(1))
    apart = overlap(first, second)[:, 2:].prod(1) < least * smaller
    second = jnp.where(spread(apart, 2), first, second)
    return second, overlap(first, second)


def within(boxes: jax.Array, crops: jax.Array, size: int) -> jax.Array:
    """Boxes [B, 4] of the source image in the pixels of its crops [B, 4] (upright, resized to `size`)."""
    scale = size / crops[:, 2:]
    return jnp.concatenate([(boxes[:, :2] - crops[:, :2]) * scale, boxes[:, 2:] * scale], axis=1)


def pool_cells(maps: jax.Array, boxes: jax.Array, cells: int) -> jax.Array:
    """The mean over each of cells x cells equal parts of a box, pixels counted by the share of them that lies in it.

    [B, H, W, D] and boxes [B, 4] in the map's pixels -> [B, cells, cells, D]; for the whole map, average pooling.
    """
    rows = _shares(boxes[:, 0], boxes[:, 2], maps.shape[1], cells)
    columns = _shares(boxes[:, 1], boxes[:, 3], maps.shape[2], cells)
    return jnp.einsum("bch,bhwd,bew->bced", rows, maps.astype(jnp.float32), columns, precision=jax.lax.Precision.HIGHEST)


def centres(boxes: jax.Array, cells: int) -> jax.Array:
    """The middle (y, x) of each of cells x cells equal parts of boxes: [B, cells, cells, 2]."""
    share = (jnp.arange(cells) + 0.5) / cells
    y, x = (boxes[:, axis, None] + share[None] * boxes[:, axis + 2, None] for axis in (0, 1))
    shape = (len(boxes), cells, cells)
    return jnp.stack([jnp.broadcast_to(y[:, :, None], shape), jnp.broadcast_to(x[:, None, :], shape)], axis=-1)


def _shares(start: jax.Array, length: jax.Array, pixels: int, cells: int) -> jax.Array:
    """How much of each cell along one axis lies in each pixel: [B, cells, pixels], rows sum to 1 inside the map."""
    side = (length / cells)[:, None, None]
    low = start[:, None, None] + jnp.arange(cells)[None, :, None] * side
    pixel = jnp.arange(pixels)[None, None, :]
    covered = jnp.minimum(low + side, pixel + 1) - jnp.maximum(low, pixel)
    return jnp.maximum(covered, 0.0) / side
