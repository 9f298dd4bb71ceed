"""The U-Net on VGG-16's convolutions with batch norm, at any width (Simonyan & Zisserman 2015; Local Discrimination has width 16)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from medssl_jax.models.network import Style, hide, max_pool, to_signed, upsample

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # channels as multiples of the width, and convolutions


class ConvStack(nn.Module):
    """`count` times convolution 3 x 3, norm, ReLU."""

    features: int
    count: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, visible: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, features]."""
        for i in range(1, self.count + 1):
            x = self.style.conv(self.features, 3, name=f"conv{i}")(x)
            x = nn.relu(self.style.normalise(x, train, f"bn{i}", visible))
        return x


class VGGEncoder(nn.Module):
    """Thirteen convolutions; the maps are taken before each max pooling, and the last pooling is left out."""

    width: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, visible: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """[B, H, W, C] in [0, 1] -> maps at strides 1, 2, 4, 8, 16, finest first."""
        x, maps = hide(to_signed(x, self.style.dtype), visible), []
        for stage, (times, count) in enumerate(STAGES):
            if stage:
                x = max_pool(x, 2)
            x = self.style.block(ConvStack)(self.width * times, count, self.style, name=f"stage{stage}")(x, train, visible)
            maps.append(x)
        return tuple(maps)


class VGGDecoder(nn.Module):
    """From the coarsest map up: upsample, put the finer map beside, a convolution to that map's channels and one to half of them.

    At the finest level the two are only put side by side: 2 * width channels, half of them straight from the encoder.
    """

    style: Style

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...], train: bool) -> jax.Array:
        """Maps [B, h_i, w_i, C_i], finest first -> [B, h_0, w_0, 2 C_0]."""
        x = maps[-1]
        for level in reversed(range(len(maps) - 1)):
            x = jnp.concatenate([upsample(x, maps[level]), maps[level].astype(x.dtype)], axis=-1)
            if level:
                channels = maps[level].shape[-1]
                x = self.style.block(ConvStack)(channels, 1, self.style, name=f"level{level}_in")(x, train)
                x = self.style.block(ConvStack)(channels // 2, 1, self.style, name=f"level{level}_out")(x, train)
        return x
