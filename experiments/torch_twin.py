"""TOWER, SimCLR and BYOL once more, in PyTorch: what `experiments.speed` measures the JAX steps against.

Written as a PyTorch user would: NCHW modules, batched tensor augmentations, autocast. Formulas are those of medssl_jax.augment, .losses and
.methods, parameters float32; in bfloat16 encoder and decoder run under autocast, and heads and losses in float32, as in JAX.
"""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor, nn

from experiments import torch_networks as networks
from experiments.torch_views import check_proxy, check_recipe, corrupt, geometric, photometric
from medssl_jax.augment import Proxy, Recipe
from medssl_jax.errors import UserError
from medssl_jax.losses.correlation import FLAT
from medssl_jax.models import torchvision_name

HAS = {
    "method.name": ("tower", "simclr", "byol"),
    "method.restoration": ("l1",),
    "model.name": ("unet", *networks.RESNETS),
    "model.norm": ("batch",),
    "model.remat": (False,),
    "pretrain.accumulate": (1,),
    "pretrain.optimizer.name": ("adamw",),
}


class Twin(nn.Module):
    """What the methods share: an encoder, a projector, and two appearances of an image as its views."""

    norm = False  # in the projector

    def __init__(self, config: ConfigDict, recipe: Recipe, channels: int) -> None:
        super().__init__()
        m = config.model
        self.recipe, self.mixed = recipe, m.dtype == "bfloat16"
        self.encoder = networks.encoder(m, channels)
        hidden, out = m.projection
        self.projector = networks.Projector(self.encoder.widths[-1], hidden, out, self.norm)

    def views(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 | uint16 [B, C, H, W] -> two views [B, C, S, S]."""
        x = to_unit(images)
        return photometric(geometric(x, self.recipe), self.recipe), photometric(geometric(x, self.recipe), self.recipe)

    def after_update(self, step: int) -> None:
        """Nothing moves beside the parameters."""

    def learned(self) -> dict[str, nn.Parameter]:
        """The parameters with a gradient, by their names."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def autocast(self, like: Tensor) -> contextlib.AbstractContextManager[Any]:
        """Where encoder and decoder run."""
        return torch.autocast(like.device.type, torch.bfloat16) if self.mixed else contextlib.nullcontext()


class SimCLR(Twin):
    """Both views as one batch."""

    def __init__(self, config: ConfigDict, recipe: Recipe, channels: int) -> None:
        super().__init__(config, recipe, channels)
        self.temperature = float(config.method.temperature)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of two views."""
        with self.autocast(first):
            maps = self.encoder(torch.cat([first, second]))
        return info_nce(self.projector(pool(maps)), self.temperature)


class Tower(SimCLR):
    """A corrupted crop and its partner (the clean crop, or another), each a batch of its own."""

    def __init__(self, config: ConfigDict, recipe: Recipe, channels: int) -> None:
        super().__init__(config, recipe, channels)
        self.proxy, m = Proxy(**config.method.proxy), config.method
        self.restoration_weight, self.contrastive_weight = float(m.restoration_weight), float(m.contrastive_weight)
        self.partner, self.decorrelation = m.partner, float(m.decorrelation if m.restoration_weight else 0.0)
        self.decoder = networks.decoder(config.model, self.encoder.widths)
        self.input_maps = int(config.model.name != "unet")  # the finest map of torchvision's networks is their input
        self.restorer = nn.ModuleDict({"fc": nn.Conv2d(config.model.decoder_width, channels, 1)})

    def views(self, images: Tensor) -> tuple[Tensor, ...]:
        """The crop, what the proxy makes of it, and another crop where that is the partner."""
        x = to_unit(images)
        clean = geometric(x, self.recipe)
        if self.partner == "clean":
            return clean, corrupt(clean, self.proxy)
        return clean, corrupt(photometric(clean, self.recipe), self.proxy), photometric(geometric(x, self.recipe), self.recipe)

    def forward(self, clean: Tensor, corrupted: Tensor, partner: Tensor | None = None) -> Tensor:
        """InfoNCE between the partners, L1 of what is restored, and how much the channels repeat each other."""
        with self.autocast(clean):
            maps, maps_plus = self.encoder(clean if partner is None else partner), self.encoder(corrupted)
            decoded = self.decoder(maps_plus)
        z = torch.cat([self.projector(pool(maps)), self.projector(pool(maps_plus))])
        restoration = F.l1_loss(torch.sigmoid(self.restorer["fc"](decoded.float())), clean)
        loss = self.restoration_weight * restoration + self.contrastive_weight * info_nce(z, self.temperature)
        if not self.decorrelation:
            return loss
        return loss + self.decorrelation * torch.stack([correlation(m.float()) for m in (*maps_plus[self.input_maps :], decoded)]).mean()


class BYOL(Twin):
    """The online network predicts what a slowly moving average of it says of the other view."""

    norm = True

    def __init__(self, config: ConfigDict, recipe: Recipe, channels: int) -> None:
        super().__init__(config, recipe, channels)
        hidden, out = config.model.projection
        self.predictor = networks.Projector(out, hidden, out, self.norm)
        self.teacher = copy.deepcopy(nn.ModuleDict({"encoder": self.encoder, "projector": self.projector})).requires_grad_(False)
        self.steps, self.decay = config.pretrain.steps, float(config.method.decay)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Squared distance of unit vectors, in both directions; each view a batch of its own."""
        with self.autocast(first):
            online = [self.encoder(view) for view in (first, second)]
            with torch.no_grad():
                teacher = [self.teacher["encoder"](view) for view in (first, second)]
        predictions = [self.predictor(self.projector(pool(maps))) for maps in online]
        with torch.no_grad():
            targets = [self.teacher["projector"](pool(maps)) for maps in teacher]
        return distance(predictions[0], targets[1]) + distance(predictions[1], targets[0])

    def after_update(self, step: int) -> None:
        """The teacher moves by 1 - tau, tau rising from `decay` to 1 by a cosine."""
        share = (1 - self.decay) * (math.cos(math.pi * step / self.steps) + 1) / 2
        online = [*self.encoder.parameters(), *self.projector.parameters()]
        torch._foreach_lerp_([p.data for p in self.teacher.parameters()], [p.data for p in online], share)


TWINS: dict[str, type[Twin]] = {"tower": Tower, "simclr": SimCLR, "byol": BYOL}


def build(config: ConfigDict, recipe: Recipe, channels: int) -> Twin:
    """The twin of `config`'s method. Raises UserError for a config or a recipe that has none."""
    check(config)
    check_recipe(recipe)
    return TWINS[config.method.name](config, recipe, channels)


def check(config: ConfigDict) -> None:
    """Raises UserError for a config that has no twin."""
    for key, allowed in HAS.items():
        value: Any = config
        for name in key.split("."):
            value = value.get(name, allowed[0])
        if value not in allowed:
            raise UserError(f"the PyTorch twin has no {value!r}; it does config.{key}={' or '.join(map(str, allowed))}.")
    if config.model.name in networks.RESNETS and config.model.width != networks.WIDTH:
        raise UserError(f"the twin's ResNets are torchvision's, {networks.WIDTH} wide; set --config.model.width={networks.WIDTH}.")
    if "proxy" in config.method:
        check_proxy(Proxy(**config.method.proxy))


def load(twin: Twin, params: Any) -> None:
    """Copy the JAX parameters {part: {layer: ...}} into the twin, and into its teacher where it has one.

    Raises UserError where the two do not stand one to one.
    """
    mine, theirs = twin.learned(), flat(params)
    if mine.keys() != theirs.keys() or any(mine[k].numel() != theirs[k].size for k in mine):
        raise UserError(f"the twin's parameters differ from JAX's in {sorted(mine.keys() ^ theirs.keys())[:4] or 'size'}.")
    with torch.no_grad():
        for name, value in twin.named_parameters():
            value.copy_(torch.tensor(theirs[name.removeprefix("teacher.")]).reshape(value.shape))


def flat(tree: Any) -> dict[str, np.ndarray]:
    """Values by name as PyTorch has them: kernels are HWIO or IO there, OIHW or OI here."""
    found = {}
    for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(value)
        name = torchvision_name(tuple(entry.key for entry in path))
        found[name] = np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array
    return found


def to_unit(images: Tensor) -> Tensor:
    """uint8 | uint16 -> float32 in [0, 1]."""
    return images.float() / (2 ** (8 * images.element_size()) - 1)


def pool(maps: list[Tensor]) -> Tensor:
    """The mean over height and width of the coarsest map, float32 [B, F]."""
    return maps[-1].float().mean((2, 3))


def info_nce(z: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss of 2N projections [2N, D]; rows i and i + N are a pair."""
    z = F.normalize(z, dim=1)
    similarity = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(similarity, torch.arange(len(z), device=z.device).roll(len(z) // 2))


def correlation(x: Tensor) -> Tensor:
    """Squared correlation of two channels over all pixels, mean over the pairs; x [B, C, H, W]."""
    vectors = x.transpose(0, 1).flatten(1)
    vectors = vectors - vectors.mean(1, keepdim=True)
    vectors = vectors * (vectors.square().mean(1, keepdim=True) + FLAT).rsqrt()
    shared = vectors @ vectors.T / vectors.shape[1]
    return (shared.square().sum() - shared.diagonal().square().sum()) / max(len(shared) * (len(shared) - 1), 1)


def distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over rows [B, D] of the squared distance of the unit vectors."""
    return (2 - 2 * F.cosine_similarity(prediction, target)).mean()
