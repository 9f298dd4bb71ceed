"""The train steps of TOWER and SimCLR once more, in PyTorch: what `experiments.speed` measures the JAX steps against.

Written as a PyTorch user would: NCHW modules, batched tensor augmentations, fused AdamW. The plain U-Net with batch norm, in float32.
Tensors are [B, C, H, W]; formulas are those of medssl_jax.augment, .losses and .methods.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor, nn

from experiments.torch_views import corrupt, geometric, photometric
from medssl_jax.augment import Proxy, Recipe
from medssl_jax.errors import UserError

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


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


class Encoder(nn.Module):
    """`depth` levels; width doubles and side halves from level to level."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [channels, *(width * 2**i for i in range(depth))]
        for level, (inputs, features) in enumerate(itertools.pairwise(widths)):
            self.add_module(f"level{level}", ConvPair(inputs, features))

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] in [0, 1] -> the feature maps, finest first."""
        x = x * 2 - 1
        maps: list[Tensor] = []
        for level in self.children():
            x = level(F.max_pool2d(x, 2) if maps else x)
            maps.append(x)
        return maps


class Decoder(nn.Module):
    """Halve the channels, upsample, put the finer map beside, two convolutions; level by level."""

    def __init__(self, encoder_width: int, width: int, depth: int) -> None:
        super().__init__()
        inputs = encoder_width * 2 ** (depth - 1)
        for level in reversed(range(depth - 1)):
            features = width * 2**level
            self.add_module(f"narrow{level}", nn.Conv2d(inputs, features, 1, bias=False))
            self.add_module(f"level{level}", ConvPair(features + encoder_width * 2**level, features, signed=level == 0))
            inputs = features

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, finest first -> [B, width, H, W]."""
        x = maps[-1]
        for level in reversed(range(len(maps) - 1)):
            x = F.interpolate(self.get_submodule(f"narrow{level}")(x), size=maps[level].shape[2:], mode="nearest")
            x = self.get_submodule(f"level{level}")(torch.cat([x, maps[level]], 1))
        return x


class Twin(nn.Module):
    """Networks, views and loss of `config`'s method; sub-modules are named as the parts and layers of the JAX parameters.

    Raises UserError for a method, network, norm or precision that has no twin.
    """

    def __init__(self, config: ConfigDict, recipe: Recipe, channels: int) -> None:
        super().__init__()
        check(config)
        m = config.model
        features = m.width * 2 ** (m.depth - 1)
        self.method, self.recipe = config.method, recipe
        self.encoder = Encoder(channels, m.width, m.depth)
        self.projector = nn.ModuleDict({"fc1": nn.Linear(features, m.projection[0]), "fc2": nn.Linear(*m.projection)})
        if config.method.name == "tower":
            self.proxy = Proxy(**config.method.proxy)
            self.decoder = Decoder(m.width, m.decoder_width, m.depth)
            self.restorer = nn.ModuleDict({"fc": nn.Conv2d(m.decoder_width, channels, 1)})

    def views(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 | uint16 [B, C, H, W] -> two views [B, C, S, S]: clean and corrupted (TOWER), or two appearances (SimCLR)."""
        x = images.float() / (2 ** (8 * images.element_size()) - 1)
        first = geometric(x, self.recipe)
        if self.method.name == "tower":
            return first, corrupt(first, self.proxy)
        return photometric(first, self.recipe), photometric(geometric(x, self.recipe), self.recipe)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of two views."""
        t = self.method.temperature
        if self.method.name == "simclr":
            return info_nce(self._project(self.encoder(torch.cat([first, second]))), t)
        clean, corrupted = self.encoder(first), self.encoder(second)
        contrastive = info_nce(torch.cat([self._project(clean), self._project(corrupted)]), t)
        restored = torch.sigmoid(self.restorer["fc"](self.decoder(corrupted)))
        return self.method.restoration_weight * F.l1_loss(restored, first) + self.method.contrastive_weight * contrastive

    def _project(self, maps: list[Tensor]) -> Tensor:
        return self.projector["fc2"](F.relu(self.projector["fc1"](maps[-1].mean((2, 3)))))


def check(config: ConfigDict) -> None:
    """Raises UserError for a config that has no twin."""
    asked = [config.method.name, config.model.name, config.model.norm, config.model.dtype, config.pretrain.optimizer.name]
    has = [("tower", "simclr"), ("unet",), ("batch",), ("float32",), ("adamw",)]
    if wrong := [value for value, allowed in zip(asked, has) if value not in allowed]:
        raise UserError(f"the PyTorch twin has no {wrong[0]!r}; it does tower and simclr with unet, batch norm, float32 and adamw.")
    if config.method.get("restoration", "l1") != "l1" or config.pretrain.accumulate != 1:
        raise UserError("the PyTorch twin does config.method.restoration=l1 and config.pretrain.accumulate=1 only; set these.")


def load(twin: Twin, params: Any) -> None:
    """Copy the JAX parameters {part: {layer: ...}} into the twin. Raises UserError where the two do not stand one to one."""
    mine, theirs = dict(twin.named_parameters()), dict(flat(params))
    if mine.keys() != theirs.keys() or any(mine[k].numel() != theirs[k].size for k in mine):
        raise UserError(f"the twin's parameters differ from JAX's in {sorted(mine.keys() ^ theirs.keys())[:4] or 'size'}.")
    with torch.no_grad():
        for name, value in mine.items():
            value.copy_(torch.tensor(theirs[name]).reshape(value.shape))


def flat(tree: Any, prefix: str = "") -> list[tuple[str, np.ndarray]]:
    """Names and values as PyTorch has them: kernels are HWIO or IO there, OIHW or OI here."""
    found = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += flat(value, f"{prefix}{name}.")
        else:
            leaf = "bias" if name == "bias" else "weight"
            array = np.asarray(value)
            found.append((prefix + leaf, np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array))
    return found


def make_optimizer(twin: Twin, config: ConfigDict, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW without decay on biases and norms, and its warm-up and cosine."""
    groups = [{"params": [p for p in twin.parameters() if p.ndim > 1]}, {"params": [p for p in twin.parameters() if p.ndim < 2]}]
    groups[1]["weight_decay"] = 0.0  # type: ignore[assignment]
    adam = torch.optim.AdamW(groups, config.learning_rate, betas=(0.9, config.b2), weight_decay=config.weight_decay, fused=True)
    warmup = int(config.warmup * steps)

    def rate(step: int) -> float:
        return step / warmup if step < warmup else (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2

    return adam, torch.optim.lr_scheduler.LambdaLR(adam, rate)


def info_nce(z: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss of 2N projections [2N, D]; rows i and i + N are a pair."""
    z = F.normalize(z, dim=1)
    similarity = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(similarity, torch.arange(len(z)).roll(len(z) // 2))


class TorchSide:
    """The twin's step and its stages, in a memory layout; `image` [B, T, T, C] and the two views are NHWC, as JAX has them."""

    def __init__(self, config: ConfigDict, recipe: Recipe, image: np.ndarray, views: list[np.ndarray], layout: str) -> None:
        layout_ = LAYOUTS[layout]
        self.twin = Twin(config, recipe, image.shape[-1])
        self.twin.to(memory_format=layout_)  # type: ignore[call-overload]
        self.image, *self.views = (torch.tensor(np.moveaxis(x, 3, 1)).contiguous(memory_format=layout_) for x in (image, *views))
        self.optimizer, self.schedule = make_optimizer(self.twin, config.pretrain.optimizer, config.pretrain.steps)
        self.clip = config.pretrain.optimizer.clip
        self.layout = layout_

    def runs(self) -> dict[str, Callable[[], Any]]:
        """The stages."""
        return {"augmentation": self._augment, "forward": self.loss, "forward+backward": self._backward, "full step": self._full}

    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(p.numel() for p in self.twin.parameters())

    def loss(self) -> float:
        """The loss of the given views, without a gradient."""
        with torch.no_grad():
            return float(self.twin(*self.views))

    def _augment(self) -> list[Tensor]:
        with torch.no_grad():
            return [view.contiguous(memory_format=self.layout) for view in self.twin.views(self.image)]

    def _backward(self) -> None:
        self.optimizer.zero_grad()
        self.twin(*self.views).backward()

    def _full(self) -> float:
        views = self._augment()
        self.optimizer.zero_grad()
        loss = self.twin(*views)
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.twin.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())
