"""Distances of a restored image from the clean one, over every pixel and channel (TOWER's L_gen)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def l1(restored: jax.Array, clean: jax.Array) -> jax.Array:
    """Mean absolute difference; any equal shapes."""
    return jnp.abs(restored.astype(jnp.float32) - clean.astype(jnp.float32)).mean()


def l2(restored: jax.Array, clean: jax.Array) -> jax.Array:
    """Mean squared difference; any equal shapes."""
    return jnp.square(restored.astype(jnp.float32) - clean.astype(jnp.float32)).mean()
