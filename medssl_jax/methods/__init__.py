"""Self-supervised methods, one a file, built from a config."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from medssl_jax.augment import Proxy, Recipe, recipe
from medssl_jax.errors import UserError
from medssl_jax.losses import l1, l2
from medssl_jax.methods.base import Pretraining
from medssl_jax.methods.byol import BYOL
from medssl_jax.methods.local_discrimination import LocalDiscrimination, Weights
from medssl_jax.methods.restoration import Restoration
from medssl_jax.methods.shape_guided import ShapeGuided
from medssl_jax.methods.simcfs import SimCFS
from medssl_jax.methods.simclr import SimCLR
from medssl_jax.methods.spark import Spark
from medssl_jax.methods.tower import Tower
from medssl_jax.models import Backbone, build_backbone, conv_head, discriminator, pixel_head, projector

__all__ = [
    "BYOL",
    "DETECTOR",
    "NO_METHOD",
    "LocalDiscrimination",
    "Pretraining",
    "Restoration",
    "ShapeGuided",
    "SimCFS",
    "SimCLR",
    "Spark",
    "Tower",
    "build",
    "view_recipe",
]

NO_METHOD = "none"  # the control alone: fine-tuning from random weights
DETECTOR = "simcfs"  # trained by figures.train: no pretraining, and nothing to fine-tune
RESTORATIONS = {"l1": l1, "l2": l2}


def build(config: ConfigDict, channels: int, modality: str) -> Pretraining:
    """The method that `config.method` describes, for images of that many channels; `modality` is the data set's own.

    Raises UserError for an unknown name, with the nearest one.
    """
    maker = _MAKERS.get(config.method.name)
    if config.method.name == DETECTOR:
        raise UserError(f"{DETECTOR} learns from simulated figures, not from tiles; look at them with python -m medssl_jax.simulate.")
    if maker is None:
        names = [*_MAKERS, NO_METHOD]
        near = difflib.get_close_matches(config.method.name, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}."
        raise UserError(f"config.method.name={config.method.name!r} is not a method; {hint}")
    backbone, views = build_backbone(config.model), view_recipe(config, channels, modality)
    try:
        return maker(config, backbone, views, channels)
    except AttributeError as error:  # of a config that was written for another method
        name = config.method.name
        raise UserError(
            f"this config has no option {error} under config.method, which {name} needs; use --config=configs/{name}.py."
        ) from error


def view_recipe(config: ConfigDict, channels: int, modality: str) -> Recipe:
    """The augmentations of `config.views`; its own modality wins over the data set's."""
    return recipe(chosen_modality(config, modality), config.views.size, channels)


def chosen_modality(config: ConfigDict, modality: str) -> str:
    """What kind of images the config says that these are, else what their data set says."""
    return modality if config.views.modality == "auto" else config.views.modality


def _simclr(config: ConfigDict, backbone: Backbone, views: Recipe, channels: int) -> SimCLR:
    return SimCLR(backbone, projector(*config.model.projection), views, temperature=config.method.temperature)


def _byol(config: ConfigDict, backbone: Backbone, views: Recipe, channels: int) -> BYOL:
    head = projector(*config.model.projection, norm=True)
    return BYOL(backbone, head, head, views, steps=config.pretrain.steps, decay=config.method.decay)


def _restoration(config: ConfigDict, backbone: Backbone, views: Recipe, channels: int) -> Restoration:
    m = config.method
    return Restoration(backbone, pixel_head(channels), views, Proxy(**m.proxy), RESTORATIONS[m.restoration], m.decorrelation)


def _local_discrimination(config: ConfigDict, backbone: Backbone, views: Recipe, channels: int) -> LocalDiscrimination:
    return LocalDiscrimination(backbone, **_local_options(config, views))


def _shape_guided(config: ConfigDict, backbone: Backbone, views: Recipe, channels: int) -> ShapeGuided:
    m = config.method
    critic = discriminator(m.discriminator_slope)
    options = _local_options(config, views)
    guided = {name: m[name] for name in ("adversary", "fit", "fit_sigma", "tone")}
    bright = {"auto": views.black_surround, "bright": True, "all": False}[m.field]
    return ShapeGuided(backbone, **options, **guided, discriminator=critic, bright=bright, rate=m.discriminator_rate)


def _local_options(config: ConfigDict, views: Recipe) -> dict[str, Any]:
    """What Local Discrimination takes, guided or not."""
    m, p = config.method, config.pretrain
    if p.batch // p.accumulate % 2:
        raise UserError(
            f"Local Discrimination mixes images two by two, and config.pretrain.batch={p.batch} in "
            f"config.pretrain.accumulate={p.accumulate} part(s) leaves one over; set an even number of images a part."
        )
    if config.views.size % m.cells:
        raise UserError(
            f"config.views.size={config.views.size} cannot be cut into config.method.cells={m.cells} a side; set a divisor of it."
        )
    if m.clusters > m.dimensions + 1:
        raise UserError(
            f"config.method.clusters={m.clusters} are more than vectors of config.method.dimensions={m.dimensions} can hold apart "
            f"(a simplex has {m.dimensions + 1} corners); set fewer clusters, or more dimensions."
        )
    return {
        "embed": conv_head(m.dimensions, m.dimensions),
        "cluster": conv_head(m.clusters, m.clusters),
        "recipe": views,
        "cells": m.cells,
        "steps": config.pretrain.steps,
        "weights": Weights(**m.weights),
        **{name: m[name] for name in ("stage_one", "temperature", "region_temperature", "same_crop", "same_place")},
    }


def _spark(config: ConfigDict, backbone: Backbone, views: Recipe, channels: int) -> Spark:
    return Spark(backbone, pixel_head(channels), views, config.method.zero_fraction, config.method.decorrelation)


def _tower(config: ConfigDict, backbone: Backbone, views: Recipe, channels: int) -> Tower:
    m = config.method
    return Tower(
        backbone,
        pixel_head(channels),
        views,
        Proxy(**m.proxy),
        RESTORATIONS[m.restoration],
        m.decorrelation,
        projector=projector(*config.model.projection),
        temperature=m.temperature,
        contrastive_weight=m.contrastive_weight,
        restoration_weight=m.restoration_weight,
        partner=m.partner,
    )


_MAKERS: dict[str, Callable[[ConfigDict, Backbone, Recipe, int], Pretraining]] = {
    "tower": _tower,
    "simclr": _simclr,
    "byol": _byol,
    "restoration": _restoration,
    "local_discrimination": _local_discrimination,
    "shape_guided": _shape_guided,
    "spark": _spark,
}
