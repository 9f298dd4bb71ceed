"""Do the channels of feature maps say different things?"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

FLAT = 1e-4  # added to a channel's variance


def correlation(maps: Sequence[jax.Array]) -> jax.Array:
    """Squared correlation of two channels over all pixels of the batch: mean over the pairs of a map, then over the maps.

    0 where channels have nothing in common, 1 where all are copies of one: VICReg's covariance criterion (arXiv 2105.04906, section 4.1)
    over D - 1, of channels at mean 0 and variance 1. Channels whose deviation is not well above sqrt(FLAT) = 0.01 count for less, dead
    ones for nothing. Maps [B, h, w, D], each with its own h, w and D; one of a single channel counts as 0.
    """
    return jnp.stack([_correlation(m) for m in maps]).mean()


def _correlation(features: jax.Array) -> jax.Array:
    depth = features.shape[-1]
    vectors = features.reshape(-1, depth).astype(jnp.float32)
    vectors -= vectors.mean(0, keepdims=True)
    vectors *= jax.lax.rsqrt(jnp.square(vectors).mean(0, keepdims=True) + FLAT)
    shared = jnp.matmul(vectors.T, vectors, precision=jax.lax.Precision.HIGHEST) / len(vectors)
    return (jnp.square(shared).sum() - jnp.square(jnp.diagonal(shared)).sum()) / max(depth * (depth - 1), 1)
