"""Distances of a restored image from the clean one, over every pixel and channel (TOWER's L_gen)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

FLAT = 1e-6  # added to a cell's variance


def l1(restored: jax.Array, clean: jax.Array) -> jax.Array:
    """Mean absolute difference; any equal shapes."""
    return jnp.abs(restored.astype(jnp.float32) - clean.astype(jnp.float32)).mean()


def hidden_cells(restored: jax.Array, clean: jax.Array, hidden: jax.Array) -> jax.Array:
    """Mean squared difference over the hidden cells alone, each clean cell taken at mean 0 and variance 1 (He et al. 2022; SparK).

    Images float32 [B, H, W, C], hidden bool [B, h, w], h and w dividing H and W.
    """
    target, given = _cells(clean, *hidden.shape[1:]), _cells(restored, *hidden.shape[1:])
    mean, variance = target.mean(-1, keepdims=True), target.var(-1, keepdims=True)
    distance = jnp.square(given - (target - mean) * jax.lax.rsqrt(variance + FLAT)).mean(-1)
    return (distance * hidden).sum() / jnp.maximum(hidden.sum(), 1)


def _cells(images: jax.Array, rows: int, columns: int) -> jax.Array:
    """[B, H, W, C] -> [B, rows, columns, pixels and channels of a cell]."""
    batch, height, width, channels = images.shape
    cut = images.astype(jnp.float32).reshape(batch, rows, height // rows, columns, width // columns, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)


def l2(restored: jax.Array, clean: jax.Array) -> jax.Array:
    """Mean squared difference; any equal shapes."""
    return jnp.square(restored.astype(jnp.float32) - clean.astype(jnp.float32)).mean()
