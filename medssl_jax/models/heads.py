"""Heads: what is put on pooled features or on the decoded map, and stays behind after pretraining."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from medssl_jax.models.network import Network, Style, conv_init


class _Projector(nn.Module):
    hidden: int
    out: int
    norm: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Dense(self.hidden, kernel_init=nn.initializers.xavier_uniform(), name="fc1")(x.astype(jnp.float32))
        if self.norm:
            x = nn.BatchNorm(not train, momentum=0.9, use_fast_variance=False, name="bn1")(x)
        return nn.Dense(self.out, kernel_init=nn.initializers.xavier_uniform(), name="fc2")(nn.relu(x))


class _Linear(nn.Module):
    out: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(self.out, name="fc")(x.astype(jnp.float32))


class _ConvHead(nn.Module):
    hidden: int
    out: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        style = Style()
        x = style.conv(self.hidden, 3, name="conv1")(x.astype(jnp.float32))
        x = nn.relu(style.normalise(x, train, "bn1"))
        return nn.Conv(self.out, (3, 3), padding=((1, 1), (1, 1)), kernel_init=conv_init, name="conv2")(x)


def projector(hidden: int, out: int, *, norm: bool = False) -> Network:
    """[B, F] -> [B, out]: linear, (batch norm,) ReLU, linear; float32. TOWER and SimCLR without the norm, BYOL with it."""
    return Network(_Projector(hidden, out, norm))


def linear(out: int) -> Network:
    """[..., F] -> [..., out] logits, float32: a classifier of pooled features."""
    return Network(_Linear(out))


def pixel_head(out: int) -> Network:
    """[B, H, W, D] -> [B, H, W, out] logits, float32: the same linear map at every pixel (a 1 x 1 convolution)."""
    return Network(_Linear(out))


def conv_head(hidden: int, out: int) -> Network:
    """[B, H, W, D] -> [B, H, W, out], float32: convolution 3 x 3, batch norm, ReLU, convolution 3 x 3 (Local Discrimination's heads)."""
    return Network(_ConvHead(hidden, out))


def pool(maps: Sequence[jax.Array]) -> jax.Array:
    """The mean over height and width of the coarsest map: float32 [B, F]."""
    return maps[-1].astype(jnp.float32).mean((1, 2))
