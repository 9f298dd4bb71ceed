"""The compact anchor-free detector: a ResNet, a feature pyramid, and one head for all its levels (FCOS, Tian et al. 2019)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from medssl_jax.models.network import Network, Style, to_signed, upsample
from medssl_jax.models.resnet import BasicBlock

DETECTOR_STRIDES = (8, 16, 32, 64)  # of the levels P3 to P6
PATCH = 4  # px a side that the stem takes in at once
WIDTHS = (1, 2, 4, 6)  # of the stages at strides 4 to 32, in multiples of the width
PRIOR = 0.01  # what every place says at first, so that the many places without a box do not drown the few with one (Lin et al. 2017)
FIRST = 2.0  # strides to each edge at first


class _Detector(nn.Module):
    width: int
    blocks: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> dict[str, jax.Array]:
        maps = _Pyramid(2 * self.width, self.style, name="pyramid")(self._stages(to_signed(x, self.style.dtype), train), train)
        head = _Head(2 * self.width, self.style, name="head")
        found = [head(x, train) for x in maps]
        raw = jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in found], axis=1)
        strides = jnp.concatenate([jnp.full(x.shape[1] * x.shape[2], s, jnp.float32) for x, s in zip(found, DETECTOR_STRIDES)])
        return {"objectness": raw[..., 0], "quality": raw[..., 1], "distances": nn.softplus(raw[..., 2:]) * strides[None, :, None]}

    def _stages(self, x: jax.Array, train: bool) -> list[jax.Array]:
        """The maps at strides 8, 16 and 32."""
        x = _normed(_patches(x, PATCH), self.width, 1, self.style, train, "stem")
        maps = []
        for stage, multiple in enumerate(WIDTHS):
            for i in range(self.blocks):
                stride = 2 if stage and not i else 1
                x = self.style.block(BasicBlock)(multiple * self.width, stride, self.style, name=f"stage{stage}_{i}")(x, train)
            maps.append(x)
        return maps[1:]


class _Pyramid(nn.Module):
    """Coarse maps added to finer ones, and one level more (Lin et al. 2017, feature pyramid networks)."""

    features: int
    style: Style

    @nn.compact
    def __call__(self, maps: list[jax.Array], train: bool) -> list[jax.Array]:
        x, levels = None, []
        for level in reversed(range(len(maps))):
            lateral = self.style.conv(self.features, 1, name=f"lateral{level}")(maps[level])
            x = lateral if x is None else lateral + upsample(x, lateral)
            levels.append(_normed(x, self.features, 1, self.style, train, f"level{level}"))
        coarser = _normed(levels[0], self.features, 2, self.style, train, f"level{len(maps)}")
        return [*reversed(levels), coarser]


class _Head(nn.Module):
    """Two convolutions that all levels share, then (objectness, quality, left, top, right, bottom)."""

    features: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in (1, 2):
            x = _normed(x, self.features, 1, self.style, train, f"tower{i}")
        out = nn.Conv(6, (3, 3), padding=((1, 1), (1, 1)), kernel_init=nn.initializers.normal(0.01), bias_init=_bias, name="out")
        return out(x.astype(jnp.float32))


def _bias(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    distance = np.log(np.expm1(FIRST))
    return jnp.array([-np.log(1 / PRIOR - 1), 0.0, *[distance] * 4], dtype)


def _normed(x: jax.Array, features: int, stride: int, style: Style, train: bool, name: str) -> jax.Array:
    """Convolution 3 x 3, norm, ReLU."""
    return nn.relu(style.normalise(style.conv(features, 3, stride, name=name)(x), train, f"{name}_norm"))


def _patches(x: jax.Array, side: int) -> jax.Array:
    """[B, H, W, C] -> [B, H / side, W / side, side^2 C]: no pixel is lost, and convolutions at full resolution are not paid for."""
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, height // side, side, width // side, side, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // side, width // side, side * side * channels)


def detector(width: int, *, blocks: int = 1, style: Style | None = None) -> Network:
    """[B, S, S, 3] in [0, 1], S a multiple of 64 -> what each of the A places of `detector_places` says, float32.

    {"objectness": logits [B, A], "quality": logits [B, A] of the IoU that its box has, "distances": [B, A, 4], pixels to the left, top,
    right and bottom edge}. Group norm unless the style says otherwise.
    """
    return Network(_Detector(width, blocks, style or Style("group")))


def detector_places(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of an image of `size` px a side, level by level and row by row: (x, y) float32 [A, 2] in pixels, strides float32 [A]."""
    places, strides = [], []
    for stride in DETECTOR_STRIDES:
        line = (np.arange(size // stride, dtype=np.float32) + 0.5) * stride
        y, x = np.meshgrid(line, line, indexing="ij")
        places.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full(x.size, stride, np.float32))
    return np.concatenate(places), np.concatenate(strides)
