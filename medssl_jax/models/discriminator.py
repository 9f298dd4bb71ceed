"""Local Discrimination's critic of shapes: whether the map of a cluster looks like a reference mask."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from medssl_jax.models.network import Network, conv_init, max_pool

WIDTHS = (16, 32, 32, 32, 32)
SMALLEST = 7  # px of the last pooled map, of which two unpadded convolutions leave 3


class _Discriminator(nn.Module):
    slope: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = x.astype(jnp.float32)
        for number, width in enumerate(WIDTHS):
            x = self._activate(nn.Conv(width, (3, 3), padding=((1, 1), (1, 1)), kernel_init=conv_init, name=f"conv{number}")(x))
            if min(x.shape[1:3]) // 2 >= SMALLEST:
                x = max_pool(x, 2)
        for number in (0, 1):
            x = self._activate(nn.Conv(WIDTHS[-1], (3, 3), padding="VALID", kernel_init=conv_init, name=f"inner{number}")(x))
        x = self._activate(nn.Dense(WIDTHS[-1], name="fc1")(x.mean((1, 2))))
        return nn.Dense(1, name="fc2")(x)[:, 0]

    def _activate(self, x: jax.Array) -> jax.Array:
        return nn.leaky_relu(x, self.slope)


def discriminator(slope: float = 0.2) -> Network:
    """[B, H, W, 1] -> [B] logits, above 0 for a reference; 52,129 parameters, none of them a norm's.

    As released for 448 px, but for the slope of the leaky ReLUs, which was 1 there, so that all but the pooling was linear. Smaller maps
    are pooled less often, so that something is left of them; at least 7 px a side.
    """
    return Network(_Discriminator(slope))
