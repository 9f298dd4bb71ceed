"""A network as pure functions, and the layers that all networks here are made of."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medssl_jax.models.group_norm import GroupNorm

Tree = Any
NORM_MOMENTUM = 0.9  # of the running statistics
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # He et al. 2015, as torchvision has it


@dataclasses.dataclass(frozen=True)
class Network:
    """A Linen module `(x, train) -> output` behind two pure functions; `stats` are its batch statistics ({} where it has none)."""

    module: nn.Module

    def init(self, key: jax.Array, x: Any) -> tuple[Tree, Tree]:
        """Fresh float32 parameters and statistics for inputs of the shapes of `x`."""
        variables = self.module.init(key, x, train=False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(self, params: Tree, stats: Tree, x: Any, *, train: bool, visible: jax.Array | None = None) -> tuple[Any, Tree]:
        """The output and the new statistics. With train=False the running statistics are used, and come back unchanged.

        An encoder also takes what is `visible` of its input, bool [B, h, w], each cell the same share of the image.
        """
        options = {"train": train} if visible is None else {"train": train, "visible": visible}
        if not (train and stats):
            return self.module.apply({"params": params, "batch_stats": stats}, x, **options), stats
        out, new = self.module.apply({"params": params, "batch_stats": stats}, x, **options, mutable=["batch_stats"])
        return out, new["batch_stats"]


@dataclasses.dataclass(frozen=True)
class Style:
    """What all layers of a network share: the norm (batch | group), what is computed in, and whether blocks are recomputed."""

    norm: str = "batch"
    dtype: Any = jnp.float32
    remat: bool = False

    def block(self, module: type[nn.Module]) -> Any:
        """The module, its activations recomputed in the backward pass where `remat` says so."""
        return nn.remat(module, static_argnums=(2,)) if self.remat else module

    def conv(self, features: int, kernel: int, stride: int = 1, *, name: str) -> nn.Conv:
        """A convolution without bias, padded as PyTorch's `padding=kernel // 2`."""
        pad = (kernel // 2, kernel // 2)
        sizes: dict[str, Any] = {"kernel_size": (kernel, kernel), "strides": (stride, stride), "padding": (pad, pad)}
        return nn.Conv(features, **sizes, use_bias=False, dtype=self.dtype, kernel_init=conv_init, conv_general_dilated=convolve, name=name)

    def normalise(self, x: jax.Array, train: bool, name: str, visible: jax.Array | None = None) -> jax.Array:
        """Batch norm over the global batch (PyTorch's momentum is one minus this one), or group norm with 8 groups at most.

        Where `visible` is given, only what is visible counts, and the rest comes out as 0: what a sparse convolution gives.
        """
        seen = None if visible is None else spread(visible, x)
        if self.norm == "group":
            return hide(GroupNorm(_groups(x.shape[-1]), self.dtype, name=name)(x, seen), visible)
        norm = nn.BatchNorm(not train, momentum=NORM_MOMENTUM, epsilon=1e-5, dtype=self.dtype, name=name)
        return hide(norm(x, mask=None if seen is None else jnp.broadcast_to(seen, x.shape)), visible)


def _groups(channels: int, most: int = 8) -> int:
    return max(g for g in range(1, most + 1) if channels % g == 0)


def convolve(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]], **options: Any) -> jax.Array:
    """`lax.conv_general_dilated` of x [B, H, W, C] and kernel [k, k, C, D]; where a side of x is shorter than the kernel's, as the product
    of the gathered patches.

    XLA has no fast convolution for those on a CPU, where 3 x 3 on 2 x 2 px, a ResNet's last stage on 64 px, took hundreds of times as long.
    """
    size = kernel.shape[0]
    if min(x.shape[1:3]) >= size:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = ((length - size) // stride + 1 for length, stride in zip(padded.shape[1:3], strides))
    steps = (1, *strides, 1)

    def part(row: int, column: int) -> jax.Array:
        """What one pixel of the kernel meets, [B, rows, columns, C]."""
        ends = (len(x), row + (rows - 1) * strides[0] + 1, column + (columns - 1) * strides[1] + 1, x.shape[3])
        return jax.lax.slice(padded, (0, row, column, 0), ends, steps)

    patches = jnp.concatenate([part(row, column) for row in range(size) for column in range(size)], axis=-1)
    return jnp.dot(patches, kernel.reshape(-1, kernel.shape[-1]), precision=options.get("precision"))


class ConvPair(nn.Module):
    """Twice convolution 3 x 3, norm, ReLU; the last ReLU is left out where the outputs are to be `signed`."""

    features: int
    style: Style
    signed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, visible: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, features]."""
        for i in (1, 2):
            x = self.style.conv(self.features, 3, name=f"conv{i}")(x)
            x = self.style.normalise(x, train, f"bn{i}", visible)
            x = x if i == 2 and self.signed else nn.relu(x)
        return x


def max_pool(x: jax.Array, size: int) -> jax.Array:
    """Max pooling with stride 2: size 2 without padding ([B, H, W, C] -> [B, H // 2, W // 2, C]), or size 3 with one pixel of padding
    (-> [B, ceil(H / 2), ceil(W / 2), C]).

    The maximum of strided slices, one axis at a time: the gradient of a reduce-window, which `nn.max_pool` becomes, is a scatter, and
    six times as slow on a CPU.
    """
    for axis in (1, 2):
        length = (x.shape[axis] + size - 2) // 2
        if size == 3:
            ends = [(0, 0, 0)] * x.ndim
            ends[axis] = (1, 2 * length - x.shape[axis], 0)
            x = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), ends)
        x = functools.reduce(jnp.maximum, (jax.lax.slice_in_dim(x, k, k + 2 * length - 1, 2, axis) for k in range(size)))
    return x


def upsample(x: jax.Array, like: jax.Array) -> jax.Array:
    """Nearest neighbour [B, h, w, C] -> the height and width of `like`: never assumed to be twice as large (28 px gives 4 -> 7)."""
    batch, height, width, channels = x.shape
    rows, columns = like.shape[1:3]
    if (rows, columns) == (2 * height, 2 * width):
        spread = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
        return spread.reshape(batch, rows, columns, channels)
    return jax.image.resize(x, (batch, rows, columns, channels), "nearest")


def spread(cells: jax.Array, like: jax.Array) -> jax.Array:
    """[B, h, w] -> [B, H, W, 1], the height and width of `like`, of which h and w are divisors."""
    rows, columns = (whole // part for whole, part in zip(like.shape[1:3], cells.shape[1:3], strict=True))
    return cells.repeat(rows, axis=1).repeat(columns, axis=2)[..., None]


def hide(x: jax.Array, visible: jax.Array | None) -> jax.Array:
    """0 in the cells that are not visible (None: all are)."""
    return x if visible is None else jnp.where(spread(visible, x), x, jnp.zeros((), x.dtype))


def to_signed(x: jax.Array, dtype: Any) -> jax.Array:
    """[0, 1] -> [-1, 1]: the input normalisation, (x - 0.5) / 0.5."""
    return (x * 2.0 - 1.0).astype(dtype)
