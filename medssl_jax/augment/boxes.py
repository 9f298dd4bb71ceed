"""Views of images with boxes: zoomed, moved and mirrored, the boxes with them.

Boxes are float32 [B, M, 4], pixel corners (x0, y0, x1, y1) with x0 < x1, y0 < y1 and exclusive far edges.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from medssl_jax.augment.draw import flags, fold, uniform
from medssl_jax.augment.geometry import Range, crop_and_resize


class Motion(NamedTuple):
    """How squares of S pixels are seen: the window (y0, x0, height, width) [B, 4] of the source that fills the view, in pixels and also
    beyond the border, and whether the view is then mirrored left and right, or up and down, bool [B] each."""

    windows: jax.Array
    across: jax.Array
    upright: jax.Array


def draw_motion(keys: jax.Array, size: int, zoom: Range, stretch: float, across: float, upright: float) -> Motion:
    """A zoom with its logarithm uniform in that of `zoom`, each axis stretched by up to 1 +- `stretch` more, mirrors with their
    probabilities. What is zoomed out lies anywhere within the view; what is zoomed in loses a part of its border."""
    log_zoom = uniform(fold(keys, 0), math.log(zoom[0]), math.log(zoom[1]), (1,))
    sides = size / (jnp.exp(log_zoom) * uniform(fold(keys, 1), 1 - stretch, 1 + stretch, (2,)))
    corner = uniform(fold(keys, 2), 0.0, 1.0, (2,)) * (size - sides)
    return Motion(jnp.concatenate([corner, sides], axis=1), flags(fold(keys, 3), across), flags(fold(keys, 4), upright))


def move_images(images: jax.Array, motion: Motion, ground: float) -> jax.Array:
    """float32 [B, S, S, C] in [0, 1] -> the same size as the motion shows it, in [0, 1]; `ground` where nothing is."""
    seen = jnp.clip(crop_and_resize(images - ground, motion.windows, images.shape[1]) + ground, 0.0, 1.0)
    seen = jnp.where(motion.across[:, None, None, None], seen[:, :, ::-1], seen)
    return jnp.where(motion.upright[:, None, None, None], seen[:, ::-1], seen)


def move_boxes(boxes: jax.Array, motion: Motion, size: int) -> jax.Array:
    """Boxes [B, M, 4] in squares of `size` pixels -> where the motion takes them, also beyond the view."""
    x0, y0, x1, y1 = (boxes[..., i] for i in range(4))
    x0, x1 = _moved(x0, x1, motion.windows[:, 1, None], motion.windows[:, 3, None], motion.across[:, None], size)
    y0, y1 = _moved(y0, y1, motion.windows[:, 0, None], motion.windows[:, 2, None], motion.upright[:, None], size)
    return jnp.stack([x0, y0, x1, y1], axis=-1)


def in_view(boxes: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """What of boxes [B, M, 4] lies in a view of `size` pixels: the boxes cut to it, and the share of each one's area that is left."""
    cut = jnp.clip(boxes, 0.0, size)
    return cut, _area(cut) / jnp.maximum(_area(boxes), 1e-6)


def _moved(low: jax.Array, high: jax.Array, start: jax.Array, side: jax.Array, mirrored: jax.Array, size: int) -> tuple[jax.Array, ...]:
    """Both edges along an axis."""
    low, high = ((edge - start) * (size / side) for edge in (low, high))
    return jnp.where(mirrored, size - high, low), jnp.where(mirrored, size - low, high)


def _area(boxes: jax.Array) -> jax.Array:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
