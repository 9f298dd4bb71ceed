"""Augmentation on the device, inside the jitted step: batched, pure, for any number of channels; one key an example."""

from __future__ import annotations

from medssl_jax.augment.boxes import Motion, draw_motion, in_view, move_boxes, move_images
from medssl_jax.augment.draw import flags, fold, uniform
from medssl_jax.augment.geometry import (
    crop_and_resize,
    crop_labels,
    dihedral,
    inverse_pose,
    random_pose,
    random_resized_crop,
    rotate,
    rotate_labels,
    sample_boxes,
    source_coordinates,
    to_unit,
)
from medssl_jax.augment.masks import hidden_grid
from medssl_jax.augment.proxy import Proxy
from medssl_jax.augment.views import RECIPES, Recipe, recipe

__all__ = [
    "RECIPES",
    "Motion",
    "Proxy",
    "Recipe",
    "crop_and_resize",
    "crop_labels",
    "dihedral",
    "draw_motion",
    "flags",
    "fold",
    "hidden_grid",
    "in_view",
    "inverse_pose",
    "move_boxes",
    "move_images",
    "random_pose",
    "random_resized_crop",
    "recipe",
    "rotate",
    "rotate_labels",
    "sample_boxes",
    "source_coordinates",
    "to_unit",
    "uniform",
]
