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


def soft_label_loss(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Cross-entropy + 1 - soft Dice of the second class against labels in [0, 1], every pixel with its weight (ours).

    Logits [B, H, W, 2], labels and weights [B, H, W]; the cross-entropy is the weighted mean of all pixels, the Dice a mean over images.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    t, w = labels.astype(jnp.float32), weights.astype(jnp.float32)
    entropy = -(w * (t * log_p[..., 1] + (1 - t) * log_p[..., 0])).sum() / jnp.maximum(w.sum(), SMOOTH)
    p = jnp.exp(log_p[..., 1])
    shared, total = (w * p * t).sum((1, 2)), (w * (p + t)).sum((1, 2))
    return entropy + 1 - ((2 * shared + SMOOTH) / (total + SMOOTH)).mean()
