"""The U-Nets of medssl_jax.models once more, in PyTorch: the plain one, and those around torchvision's ResNets; with their heads.

Modules are named as the layers of the JAX parameters, ResNets as torchvision names them. Tensors are [B, C, H, W].
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor, nn

RESNETS = ("resnet18", "resnet34", "resnet50")
WIDTH = 64  # of torchvision's ResNets


class ConvPair(nn.Module):
    """Twice convolution 3 x 3, batch norm, ReLU; the last ReLU is left out where the outputs are to be `signed`."""

    def __init__(self, inputs: int, features: int, signed: bool = False) -> None:
        super().__init__()
        self.signed = signed
        self.conv1, self.bn1 = nn.Conv2d(inputs, features, 3, padding=1, bias=False), nn.BatchNorm2d(features)
        self.conv2, self.bn2 = nn.Conv2d(features, features, 3, padding=1, bias=False), nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, features, H, W]."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        return x if self.signed else F.relu(x, inplace=True)


class UNetEncoder(nn.Module):
    """`depth` levels; width doubles and side halves from level to level. `widths` are the channels of its maps."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.widths = [width * 2**level for level in range(depth)]
        for level, (inputs, features) in enumerate(itertools.pairwise([channels, *self.widths])):
            self.add_module(f"level{level}", ConvPair(inputs, features))

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] in [0, 1] -> the feature maps, finest first."""
        x = x * 2 - 1
        maps: list[Tensor] = []
        for level in self.children():
            x = level(F.max_pool2d(x, 2) if maps else x)
            maps.append(x)
        return maps


class ResNetEncoder(nn.Module):
    """torchvision's ResNet of that name, its first convolution for that many channels. `widths` are the channels of its maps."""

    def __init__(self, name: str, channels: int) -> None:
        from torchvision import models  # here, so that the plain U-Net's twin does without

        super().__init__()
        net = getattr(models, name)(weights=None)
        first = net.conv1 if channels == 3 else nn.Conv2d(channels, WIDTH, 7, 2, 3, bias=False)
        self.conv1, self.bn1, self.relu, self.maxpool = first, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.widths = [channels, WIDTH, *(net.fc.in_features // 2**stage for stage in (3, 2, 1, 0))]

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] in [0, 1] -> the input itself, the stem's map and the four stages'."""
        x = x * 2 - 1
        stem = self.relu(self.bn1(self.conv1(x)))
        maps = [x, stem, self.layer1(self.maxpool(stem))]
        for stage in (self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps


class Decoder(nn.Module):
    """(Narrow,) upsample, put the finer map beside, two convolutions; level by level. `widths` and those of the maps are finest first."""

    def __init__(self, maps: list[int], widths: list[int], narrow: bool) -> None:
        super().__init__()
        self.narrow, inputs = narrow, maps[-1]
        for level in reversed(range(len(widths))):
            if narrow:
                self.add_module(f"narrow{level}", nn.Conv2d(inputs, widths[level], 1, bias=False))
            wide = (widths[level] if narrow else inputs) + maps[level]
            self.add_module(f"level{level}", ConvPair(wide, widths[level], signed=level == 0))
            inputs = widths[level]

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, finest first, one more than `widths` -> [B, widths[0], H, W]."""
        x = maps[-1]
        for level in reversed(range(len(maps) - 1)):
            if self.narrow:
                x = getattr(self, f"narrow{level}")(x)
            x = F.interpolate(x, size=maps[level].shape[2:], mode="nearest-exact")
            x = getattr(self, f"level{level}")(torch.cat([x, maps[level].to(x.dtype)], 1))
        return x


class Projector(nn.Module):
    """Linear, (batch norm,) ReLU, linear."""

    def __init__(self, inputs: int, hidden: int, out: int, norm: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, out)
        self.bn1 = nn.BatchNorm1d(hidden) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, out]."""
        return self.fc2(F.relu(self.bn1(self.fc1(x))))


def encoder(config: ConfigDict, channels: int) -> UNetEncoder | ResNetEncoder:
    """That of `config` (config.model)."""
    return ResNetEncoder(config.name, channels) if config.name in RESNETS else UNetEncoder(channels, config.width, config.depth)


def decoder(config: ConfigDict, maps: list[int]) -> Decoder:
    """That of `config` (config.model), for maps of that many channels."""
    return Decoder(maps, [config.decoder_width * 2**level for level in range(len(maps) - 1)], narrow=config.name == "unet")
