"""Images read at arbitrary coordinates (pixel i covers [i, i + 1)), mirrored at the border: d c b a | a b c d | d c b a."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def sample_linear(images: jax.Array, coordinates: jax.Array) -> jax.Array:
    """[B, H, W, C] at (y, x) [B, h, w, 2] -> [B, h, w, C], bilinear."""
    centred = coordinates - 0.5
    corner = jnp.floor(centred)
    share = (centred - corner)[..., None]
    y, x = corner[..., 0].astype(jnp.int32), corner[..., 1].astype(jnp.int32)
    fy, fx = share[..., 0, :], share[..., 1, :]
    top = _read(images, y, x) * (1 - fx) + _read(images, y, x + 1) * fx
    bottom = _read(images, y + 1, x) * (1 - fx) + _read(images, y + 1, x + 1) * fx
    return top * (1 - fy) + bottom * fy


def sample_nearest(masks: jax.Array, coordinates: jax.Array) -> jax.Array:
    """[B, H, W] at (y, x) [B, h, w, 2] -> [B, h, w], the pixel under each coordinate."""
    y, x = (jnp.floor(coordinates[..., axis]).astype(jnp.int32) for axis in (0, 1))
    return _read(masks, y, x)


def _read(images: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    y, x = _mirror(y, images.shape[1]), _mirror(x, images.shape[2])
    return jax.vmap(lambda image, row, column: image[row, column])(images, y, x)


def _mirror(index: jax.Array, length: int) -> jax.Array:
    index = jnp.where(index < 0, -1 - index, index)
    return jnp.clip(jnp.where(index >= length, 2 * length - 1 - index, index), 0, length - 1)
