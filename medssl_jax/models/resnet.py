"""ResNet-18, -34 and -50 encoders whose parameters stand one to one for torchvision's (He et al. 2016)."""

from __future__ import annotations

import re

import flax.linen as nn
import jax

from medssl_jax.models.network import Style, hide, max_pool, to_signed

STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
EXPANSION = {"resnet18": 1, "resnet34": 1, "resnet50": 4}


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and the shortcut."""

    features: int
    stride: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, visible: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, features]."""
        s = self.style
        y = nn.relu(s.normalise(s.conv(self.features, 3, self.stride, name="conv1")(x), train, "bn1", visible))
        y = s.normalise(s.conv(self.features, 3, name="conv2")(y), train, "bn2", visible)
        return nn.relu(y + _shortcut(x, y, self.stride, s, train, visible))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride, as torchvision has it), 1 x 1 to four times the features, and the shortcut."""

    features: int
    stride: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, visible: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, 4 * features]."""
        s = self.style
        y = nn.relu(s.normalise(s.conv(self.features, 1, name="conv1")(x), train, "bn1", visible))
        y = nn.relu(s.normalise(s.conv(self.features, 3, self.stride, name="conv2")(y), train, "bn2", visible))
        y = s.normalise(s.conv(4 * self.features, 1, name="conv3")(y), train, "bn3", visible)
        return nn.relu(y + _shortcut(x, y, self.stride, s, train, visible))


def _shortcut(x: jax.Array, y: jax.Array, stride: int, style: Style, train: bool, visible: jax.Array | None) -> jax.Array:
    if x.shape == y.shape:
        return x
    return style.normalise(style.conv(y.shape[-1], 1, stride, name="downsample_0")(x), train, "downsample_1", visible)


class ResNetEncoder(nn.Module):
    """The ResNet of that name without its classifier; `width` 64 is torchvision's."""

    name_: str
    width: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, visible: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """[B, H, W, C] in [0, 1] -> the input itself, the stem's map at stride 2, and the four stages' at 4, 8, 16, 32."""
        x = hide(to_signed(x, self.style.dtype), visible)
        maps = [x]
        x = self.style.conv(self.width, 7, 2, name="conv1")(x)
        x = nn.relu(self.style.normalise(x, train, "bn1", visible))
        maps.append(x)
        x = hide(max_pool(x, 3), visible)
        block = self.style.block(BasicBlock if EXPANSION[self.name_] == 1 else Bottleneck)
        for stage, count in enumerate(STAGES[self.name_]):
            for i in range(count):
                stride = 2 if stage and not i else 1
                x = block(self.width * 2**stage, stride, self.style, name=f"layer{stage + 1}_{i}")(x, train, visible)
            maps.append(x)
        return tuple(maps)


_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def torchvision_name(path: tuple[str, ...]) -> str:
    """The name in torchvision's state_dict of the parameter or statistic at `path`: layer1_0/conv1/kernel -> layer1.0.conv1.weight.

    Kernels are HWIO here and OIHW there.
    """
    *modules, leaf = path
    return ".".join([re.sub(r"_(\d+)$", r".\1", module) for module in modules] + [_LEAVES[leaf]])
