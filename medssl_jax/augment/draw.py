"""Random numbers, one key an example: an example's draws depend on its own key and on nothing else in the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medssl_jax.errors import UserError

Value = float | jax.Array


def fold(keys: jax.Array, number: int) -> jax.Array:
    """Independent keys [B] for the purpose `number`."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def uniform(keys: jax.Array, low: float, high: float, shape: tuple[int, ...] = ()) -> jax.Array:
    """Uniform in [low, high), float32 [B, *shape]."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=low, maxval=high))(keys)


def normal(keys: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """Standard normal, float32 [B, *shape]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def integers(keys: jax.Array, low: Value, high: Value, shape: tuple[int, ...] = ()) -> jax.Array:
    """Uniform integers from low to high, both included, int32 [B, *shape]; bounds are numbers or arrays [B, *shape]."""
    share = uniform(keys, 0.0, 1.0, shape)
    return jnp.minimum(low + jnp.floor(share * (high - low + 1)), high).astype(jnp.int32)


def flags(keys: jax.Array, probability: float) -> jax.Array:
    """True with `probability`, bool [B]."""
    return uniform(keys, 0.0, 1.0) < probability


def choose(keys: jax.Array, count: int, chosen: int) -> jax.Array:
    """Exactly `chosen` of `count` are True, each subset equally likely, bool [B, count]."""
    # Sorting random numbers yields a random order of 0 .. count - 1, and any fixed subset of those lands anywhere.
    return jnp.argsort(jax.vmap(lambda key: jax.random.bits(key, (count,)))(keys), axis=1) < chosen


def spread(values: jax.Array, ndim: int) -> jax.Array:
    """[B, ...] with axes of length 1 appended up to `ndim`, to meet images."""
    return values.reshape(values.shape + (1,) * (ndim - values.ndim))


def maybe(keys: jax.Array, probability: float, changed: jax.Array, images: jax.Array) -> jax.Array:
    """`changed` [B, ...] for a `probability` of the examples, `images` for the others."""
    if probability >= 1:
        return changed
    return jnp.where(spread(flags(keys, probability), images.ndim), changed, images)


def check_probability(name: str, value: float) -> None:
    """Raises UserError where `value` is not from 0 to 1."""
    if not 0 <= value <= 1:
        raise UserError(f"{name}={value!r} is not a probability; set a number from 0 to 1.")
