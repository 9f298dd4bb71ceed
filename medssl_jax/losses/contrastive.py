"""Losses between the vectors of views: InfoNCE with negatives from the whole global batch, and BYOL's regression."""

from __future__ import annotations

import jax
import jax.numpy as jnp

SMALLEST = 1e-12  # of a squared norm: below it a vector is zero and stays zero, with a finite gradient


def unit(x: jax.Array, floor: float = 0.0) -> jax.Array:
    """Rows of `x` [..., D] divided by their length; float32. Well below a `floor` they stay short: 1 / length is also the gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), SMALLEST) + floor**2)


def info_nce(z1: jax.Array, z2: jax.Array, temperature: float) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Row i of z1 [N, D] and row i of z2 attract; each row repels the 2N - 2 others (SimCLR eq. 1; TOWER's L_con).

    Mean over all 2N rows of -log softmax of the positive's cosine / temperature among the 2N - 1 other rows. Also returned:
    `contrastive_accuracy`, how often the positive is the nearest.
    """
    z = unit(jnp.concatenate([z1, z2]))
    count = z.shape[0]
    # float32 throughout: an accelerator's default would round the cosines to about 1e-3, and the temperature multiplies that
    similarity = jnp.matmul(z, z.T, precision=jax.lax.Precision.HIGHEST) / temperature
    similarity = jnp.where(jnp.eye(count, dtype=bool), -jnp.inf, similarity)
    positive = (jnp.arange(count) + count // 2) % count
    chosen = jnp.take_along_axis(similarity, positive[:, None], axis=1)[:, 0]
    loss = (jax.nn.logsumexp(similarity, axis=1) - chosen).mean()
    return loss, {"contrastive_accuracy": (similarity.argmax(1) == positive).mean()}


def byol(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over rows of ||p - t||^2 of the unit vectors, which is 2 - 2 cos (BYOL eq. 2). [N, D] each; no gradient is stopped here."""
    return (2 - 2 * jnp.sum(unit(prediction) * unit(target), axis=-1)).mean()
