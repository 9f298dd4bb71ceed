"""The plain U-Net encoder, and the decoder that it shares with the ResNets (Ronneberger et al. 2015)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from medssl_jax.errors import UserError
from medssl_jax.models.network import ConvPair, Style, hide, max_pool, to_signed, upsample


class UNetEncoder(nn.Module):
    """`depth` levels of two convolutions; width doubles and side halves (max pooling) from level to level."""

    width: int
    depth: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, visible: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """[B, H, W, C] in [0, 1] -> maps [B, H / 2^i, W / 2^i, width * 2^i], finest first."""
        smallest = 2 ** (self.depth - 1)
        if min(x.shape[1:3]) < smallest:
            raise UserError(
                f"a U-Net of config.model.depth={self.depth} halves its images to nothing: they are {x.shape[1]} x {x.shape[2]} px and "
                f"must be {smallest} or more; lower the depth or raise config.views.size and config.finetune.patch."
            )
        x, maps = hide(to_signed(x, self.style.dtype), visible), []
        for level in range(self.depth):
            if level:
                x = max_pool(x, 2)
            x = self.style.block(ConvPair)(self.width * 2**level, self.style, name=f"level{level}")(x, train, visible)
            maps.append(x)
        return tuple(maps)


class Decoder(nn.Module):
    """From the coarsest map up: upsample to the next finer map, put it beside, two convolutions (reference: TOWER 2.3).

    `widths` are the channels a level, finest first. With `narrow`, a 1 x 1 convolution halves the channels before upsampling (where
    the U-Net paper has its up-convolution): the widest convolution, at the finest level, then costs two thirds.

    Its output has both signs. After a ReLU, restoration leaves dark pixels with zeros in every channel, and a segmentation that starts
    from there finds no gradient at them (Dice of 0 on lungs, measured).
    """

    widths: tuple[int, ...]
    style: Style
    narrow: bool = False

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...], train: bool) -> jax.Array:
        """Maps [B, h_i, w_i, C_i], finest first, one more than `widths` -> [B, h_0, w_0, widths[0]]."""
        x = maps[-1]
        for level in reversed(range(len(self.widths))):
            if self.narrow:
                x = self.style.conv(self.widths[level], 1, name=f"narrow{level}")(x)
            x = jnp.concatenate([upsample(x, maps[level]), maps[level].astype(x.dtype)], axis=-1)
            x = self.style.block(ConvPair)(self.widths[level], self.style, signed=level == 0, name=f"level{level}")(x, train)
        return x
