"""One marked place in one image -> the same place in others, by the likeness of features (reference: Local Discrimination 2.6).

The paper shows the idea in a figure and names no sizes: the window and its sigma are ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from skimage.feature import match_template

from medssl_jax.augment import to_unit
from medssl_jax.errors import UserError
from medssl_jax.losses import unit
from medssl_jax.models import Backbone, Network
from medssl_jax.models.network import upsample

SHARPNESS = 0.05  # of the softmax over places whose mass near the found one is its confidence


@dataclasses.dataclass(frozen=True)
class Window:
    """The neighbourhood whose mean stands for a place: a square of `side` pixels, weighted by a Gaussian (sigma 0: all alike)."""

    side: int
    sigma: float

    def weights(self) -> np.ndarray:
        """Along one axis, [side], with the sum 1; the window is their product."""
        offset = np.arange(self.side) - (self.side - 1) / 2
        weight = np.exp(-(offset**2) / (2 * self.sigma**2)) if self.sigma else np.ones(self.side)
        return (weight / weight.sum()).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Found:
    """A place in an image, in its pixels, with its cosine to the marked one and a confidence from 0 to 1: how much of the likeness of the
    whole image is within the window around it.
    """

    y: float
    x: float
    similarity: float
    confidence: float


class Describer:
    """Smoothed unit vectors for every pixel of an image of any size, by a pretrained network."""

    def __init__(self, backbone: Backbone, embed: Network | None, parts: Mapping[str, Any], window: Window) -> None:
        """With an `embed` head (Local Discrimination) its vectors; without, those of all the encoder's maps, side by side."""
        self._parts, self.window = parts, window
        self._maps = jax.jit(lambda image: _embedded(backbone, embed, parts, image) if embed else _stacked(backbone, parts, image))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8|uint16 [H, W, C] -> float32 [H, W, D]."""
        return np.asarray(smooth(self._maps(to_unit(jnp.asarray(image))[None])[0], self.window))


def _embedded(backbone: Backbone, embed: Network, parts: Mapping[str, Any], images: jax.Array) -> jax.Array:
    x: Any = images
    for name, network in (("encoder", backbone.encoder), ("decoder", backbone.decoder), ("embed", embed)):
        x, _ = network.apply(parts[name]["params"], parts[name]["stats"], x, train=False)
    return unit(x)


def _stacked(backbone: Backbone, parts: Mapping[str, Any], images: jax.Array) -> jax.Array:
    maps, _ = backbone.encoder.apply(parts["encoder"]["params"], parts["encoder"]["stats"], images, train=False)
    return unit(jnp.concatenate([unit(upsample(m, images)) for m in maps], axis=-1))


def smooth(vectors: jax.Array, window: Window) -> jax.Array:
    """The weighted mean of each place's neighbourhood, of unit length again; beyond the border the edge is repeated. [H, W, D]."""
    weights = jnp.asarray(window.weights())
    before, after = (window.side - 1) // 2, window.side // 2
    for axis in (0, 1):
        pad = [(before, after) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(vectors.astype(jnp.float32), pad, mode="edge")
        length = vectors.shape[axis]
        shifted = [weights[k] * jax.lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(window.side)]
        vectors = jnp.stack(shifted).sum(0)
    return unit(vectors)


def marked(vectors: np.ndarray, y: float, x: float, name: str) -> np.ndarray:
    """The vector [D] at a place of the query [H, W, D]. Raises UserError for a place outside it."""
    height, width = vectors.shape[:2]
    if not (0 <= y < height and 0 <= x < width):
        raise UserError(f"the point x={x:g}, y={y:g} lies outside {name}, which is {width} x {height} px; give one inside.")
    return vectors[int(y), int(x)]


def locate(vectors: np.ndarray, query: np.ndarray, window: Window) -> tuple[Found, np.ndarray]:
    """The most alike place of an image, and the likeness of all [H, W]. Vectors [H, W, D], query [D], all of unit length."""
    likeness = np.asarray(vectors, np.float32) @ query
    y, x = np.unravel_index(likeness.argmax(), likeness.shape)
    mass = np.exp((likeness - likeness.max()) / SHARPNESS)
    reach = window.side / 2
    rows, columns = np.ogrid[: likeness.shape[0], : likeness.shape[1]]
    near = (np.abs(rows - y) <= reach) & (np.abs(columns - x) <= reach)
    return Found(float(y), float(x), float(likeness[y, x]), float(mass[near].sum() / mass.sum())), likeness


def correlate(image: np.ndarray, patch: np.ndarray) -> tuple[int, int]:
    """The place (y, x) whose neighbourhood has the highest normalised cross-correlation with a patch [h, w, C]: what needs no network."""
    score = match_template(image.astype(np.float32), patch.astype(np.float32), pad_input=True)[..., patch.shape[-1] // 2]
    y, x = np.unravel_index(score.argmax(), score.shape)
    return int(y), int(x)
