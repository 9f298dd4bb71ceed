"""Losses against labels: cross-entropy and soft Dice."""

from __future__ import annotations

import jax
import jax.numpy as jnp

SMOOTH = 1.0  # pixels added to both sides of the Dice ratio: an absent class that is not predicted costs nothing


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean of -log softmax at the label. Logits [..., K], labels int [...]."""
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1).mean()


def dice_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 - soft Dice, a mean over images and over the classes but the background (class 0) (Milletari et al. 2016).

    Logits [B, H, W, K], labels int [B, H, W]; per image and class (2 sum p t + 1) / (sum p + sum t + 1).
    """
    p = jax.nn.softmax(logits.astype(jnp.float32))[..., 1:]
    t = jax.nn.one_hot(labels, logits.shape[-1])[..., 1:]
    shared, total = (p * t).sum((1, 2)), (p + t).sum((1, 2))
    return 1 - ((2 * shared + SMOOTH) / (total + SMOOTH)).mean()
