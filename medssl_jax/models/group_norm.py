"""Group normalisation (Wu & He 2018)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-5


class GroupNorm(nn.Module):
    """The numbers and the parameters of `flax.linen.GroupNorm`, for images; where a mask hides a whole image, some number in place of NaN.

    That one sums a group's pixels and channels at once, which XLA does not vectorise on a CPU; this one each channel's pixels first.
    Raises ValueError where the groups do not divide the channels.
    """

    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> the same shape, of `dtype`. Where `mask`, bool [B, H, W, 1], is given, only what it holds counts."""
        channels = x.shape[-1]
        if channels % self.groups:
            raise ValueError(f"{channels} channels do not divide into {self.groups} groups.")
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        wide = x.astype(jnp.float32)
        mean, square = (self._of_group(_mean(values, mask)) for values in (wide, jnp.square(wide)))
        gain = scale[None] * jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0) + EPSILON)
        shift = bias[None] - gain * mean
        return (wide * gain[:, None, None] + shift[:, None, None]).astype(self.dtype)

    def _of_group(self, means: jax.Array) -> jax.Array:
        """Each channel's mean [B, C] -> its group's, [B, C]."""
        count, channels = means.shape
        size = channels // self.groups
        return jnp.repeat(means.reshape(count, self.groups, size).mean(-1), size, axis=-1)


def _mean(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Over the pixels, of those of the mask where there is one: [B, H, W, C] -> [B, C]; 0 where it holds none."""
    if mask is None:
        return x.mean((1, 2))
    return jnp.where(mask, x, 0).sum((1, 2)) / jnp.maximum(mask.sum((1, 2)), 1)
