"""Recipes: which of the augmentations suit which kind of image, and how strongly."""

from __future__ import annotations

import dataclasses

import jax

from medssl_jax.augment import geometry, intensity
from medssl_jax.augment.draw import check_probability, fold, uniform
from medssl_jax.errors import UserError

COLOUR = ("saturation", "hue", "grayscale", "stain")  # fields that need RGB


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A view: crop, orientation, light. A strength of 0 leaves its step out; weaker or stronger views are `dataclasses.replace`.

    Strengths are those of the functions in `intensity`; each step happens with `jitter_probability`, blur and noise with their own.
    Raises UserError for a value out of range.
    """

    size: int = 64  # px, side of the view
    scale: tuple[float, float] = (0.3, 1.0)  # share of the image's area in the crop
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of the crop before it is resized
    quarter_turns: bool = True
    horizontal: bool = True
    vertical: bool = True
    rotation: float = 0.0  # degrees either way; a free rotation is not in the boxes and poses
    jitter_probability: float = 0.8
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    gain: float = 0.0  # of each channel
    stain: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # turns
    grayscale: float = 0.0  # a probability
    blur: tuple[float, float] = (0.1, 1.5)  # px
    blur_probability: float = 0.0
    noise: float = 0.0
    noise_probability: float = 0.5
    black_surround: bool = False  # around a camera's field of view, and not part of what is seen

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in ("jitter_probability", "blur_probability", "noise_probability", "grayscale"):
            check_probability(f"recipe.{name}", getattr(self, name))
        for name in ("rotation", "brightness", "contrast", "gamma", "gain", "stain", "saturation", "hue", "noise"):
            if getattr(self, name) < 0:
                raise UserError(f"recipe.{name}={getattr(self, name)!r} is negative; set a strength of 0 or more.")
        if self.size < 1:
            raise UserError(f"recipe.size={self.size} is not a side in pixels; set 1 or more.")
        if not 0 <= self.blur[0] <= self.blur[1]:
            raise UserError(f"recipe.blur={self.blur!r} is not a rising pair of standard deviations in pixels.")

    def __call__(self, keys: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """float32 [B, H, W, C] in [0, 1] -> views [B, size, size, C], boxes [B, 4], pose [B]."""
        views, _, boxes, pose = self.geometric(fold(keys, 0), images)
        return self.photometric(fold(keys, 1), views), boxes, pose

    def geometric(
        self, keys: jax.Array, images: jax.Array, masks: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array | None, jax.Array, jax.Array]:
        """Random crop, resized, in a random pose: images [B, size, size, C], masks int [B, size, size] (where given), boxes, pose.

        `geometry.source_coordinates(boxes, pose, size)` tells where each pixel came from, if `rotation` is 0.
        """
        images, boxes = geometry.random_resized_crop(fold(keys, 0), images, self.size, self.scale, self.ratio)
        pose = geometry.random_pose(fold(keys, 1), rotate=self.quarter_turns, horizontal=self.horizontal, vertical=self.vertical)
        images = geometry.dihedral(images, pose)
        if masks is not None:
            masks = geometry.dihedral(geometry.crop_labels(masks, boxes, self.size), pose)
        if self.rotation:
            degrees = uniform(fold(keys, 2), -self.rotation, self.rotation)
            images = geometry.rotate(images, degrees)
            masks = None if masks is None else geometry.rotate_labels(masks, degrees)
        return images, masks, boxes, pose

    def photometric(self, keys: jax.Array, images: jax.Array) -> jax.Array:
        """Light, colour, blur and noise, in the order of the fields. Raises UserError for colour on images that are not RGB."""
        steps = ("brightness", "contrast", "gamma", "gain", "stain", "saturation", "hue")
        for number, name in enumerate(steps):
            if strength := getattr(self, name):
                images = _STEPS[name](fold(keys, number), images, strength, self.jitter_probability)
        if self.grayscale:
            images = intensity.grayscale(fold(keys, 7), images, self.grayscale)
        if self.blur_probability:
            images = intensity.gaussian_blur(fold(keys, 8), images, self.blur, self.blur_probability)
        if self.noise and self.noise_probability:
            images = intensity.gaussian_noise(fold(keys, 9), images, self.noise, self.noise_probability)
        return images


_STEPS = {
    "brightness": intensity.brightness,
    "contrast": intensity.contrast,
    "gamma": intensity.gamma,
    "gain": intensity.channel_gain,
    "stain": intensity.stain_jitter,
    "saturation": intensity.saturation,
    "hue": intensity.hue,
}

RECIPES = {
    "brightfield": Recipe(brightness=0.2, contrast=0.4, gamma=0.3, blur_probability=0.3, noise=0.03),
    "fluorescence": Recipe(brightness=0.1, contrast=0.4, gamma=0.4, gain=0.3, blur_probability=0.3, noise=0.03),
    "histology": Recipe(brightness=0.1, contrast=0.2, stain=0.1, saturation=0.2, hue=0.02, blur_probability=0.3, noise=0.02),
    "fundus": Recipe(
        quarter_turns=False,
        vertical=False,
        rotation=15.0,
        brightness=0.2,
        contrast=0.2,
        gamma=0.2,
        saturation=0.2,
        hue=0.02,
        blur_probability=0.3,
        black_surround=True,
    ),
    "xray": Recipe(  # never mirrored: the heart is on one side
        quarter_turns=False,
        horizontal=False,
        vertical=False,
        rotation=10.0,
        brightness=0.2,
        contrast=0.3,
        gamma=0.3,
        blur_probability=0.3,
        noise=0.02,
    ),
}


def recipe(modality: str, size: int, channels: int) -> Recipe:
    """The recipe of a modality for views of `size` px of images with `channels` channels.

    Raises UserError for an unknown modality, and for steps on colour where the images are not RGB.
    """
    if modality not in RECIPES:
        raise UserError(f"modality {modality!r} has no recipe of augmentations; choose one of {', '.join(RECIPES)}.")
    chosen = dataclasses.replace(RECIPES[modality], size=size)
    colour = [name for name in COLOUR if getattr(chosen, name)]
    if channels != 3 and colour:
        raise UserError(
            f"the recipe {modality!r} changes colour ({', '.join(colour)}) and needs RGB images, these have {channels} channel(s); "
            f"choose a modality without colour (--config.views.modality=brightfield or fluorescence)."
        )
    return chosen
