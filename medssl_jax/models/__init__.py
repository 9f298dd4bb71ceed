"""Flax Linen networks behind pure functions; the only place that imports flax.linen."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from medssl_jax.errors import UserError
from medssl_jax.models.detector import DETECTOR_STRIDES, detector, detector_places
from medssl_jax.models.discriminator import discriminator
from medssl_jax.models.heads import conv_head, linear, pixel_head, pool, projector
from medssl_jax.models.network import NORM_MOMENTUM, Network, Style, spread
from medssl_jax.models.resnet import EXPANSION, ResNetEncoder, torchvision_name
from medssl_jax.models.unet import Decoder, UNetEncoder
from medssl_jax.models.vgg import VGGDecoder, VGGEncoder

__all__ = [
    "DETECTOR_STRIDES",
    "NORM_MOMENTUM",
    "Backbone",
    "Network",
    "build_backbone",
    "conv_head",
    "detector",
    "detector_places",
    "discriminator",
    "linear",
    "pixel_head",
    "pool",
    "projector",
    "spread",
    "torchvision_name",
]


@dataclasses.dataclass(frozen=True)
class Backbone:
    """An encoder and a decoder that fit each other. `strides` of the encoder's maps, finest first; `feature_dim` channels of its
    coarsest map; `from_input`: the finest map is the input itself."""

    encoder: Network
    decoder: Network
    strides: tuple[int, ...]
    feature_dim: int
    from_input: bool = False

    def learned(self, maps: Sequence[jax.Array]) -> Sequence[jax.Array]:
        """Those of the encoder's maps that its parameters make."""
        return maps[1:] if self.from_input else maps


def build_backbone(config: ConfigDict) -> Backbone:
    """The U-Net that `config` (config.model) describes. Raises UserError for an unknown name, with the nearest one."""
    names = ("unet", "vgg16", *EXPANSION)
    if config.name not in names:
        near = difflib.get_close_matches(config.name, names, 1, cutoff=0)[0]
        raise UserError(f"config.model.name={config.name!r} is not a network; did you mean {near!r} (of {', '.join(names)})?")
    style = Style(config.norm, jnp.dtype(config.dtype), config.remat)
    if config.name == "vgg16":
        return Backbone(Network(VGGEncoder(config.width, style)), Network(VGGDecoder(style)), (1, 2, 4, 8, 16), 8 * config.width)
    if config.name == "unet":
        encoder, levels = Network(UNetEncoder(config.width, config.depth, style)), config.depth
        feature_dim = config.width * 2 ** (levels - 1)
    else:
        encoder, levels = Network(ResNetEncoder(config.name, config.width, style)), 6
        feature_dim = config.width * 8 * EXPANSION[config.name]
    widths = tuple(config.decoder_width * 2**i for i in range(levels - 1))
    decoder = Decoder(widths, style, narrow=config.name == "unet")
    return Backbone(encoder, Network(decoder), tuple(2**i for i in range(levels)), feature_dim, from_input=config.name != "unet")
