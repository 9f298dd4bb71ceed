"""Tone curves: a cubic Bezier from (0, 0) to (1, 1) maps all intensities of an image, or, reversed, inverts them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from medssl_jax.augment.draw import flags, fold, integers, maybe, spread, uniform

# TOWER's three pairs of inner points, (x, y) each; the first is the identity.
FIXED = np.array([[[0, 0], [1, 1]], [[0, 1], [1, 0]], [[0.25, 0.75], [0.75, 0.25]]], np.float32)
HALVINGS = 20  # of the interval that holds the curve's parameter: s to 1e-6; the intensity to 1e-3 where the curve is vertical


def bezier_fixed(keys: jax.Array, images: jax.Array, probability: float = 1.0, inversion: float = 0.5) -> jax.Array:
    """One of TOWER's six maps: three curves, each increasing or reversed; a sixth of the images stay as they are (arXiv 2211.14715).

    Images float32 [B, H, W, C] in [0, 1]; all channels of an image share the map.
    """
    inner = jnp.asarray(FIXED)[integers(fold(keys, 0), 0, 2)]
    return maybe(fold(keys, 2), probability, tone_curve(images, inner, flags(fold(keys, 1), inversion)), images)


def bezier_random(keys: jax.Array, images: jax.Array, probability: float = 1.0, inversion: float = 0.5) -> jax.Array:
    """Models Genesis' non-linear map: inner points uniform in the unit square, the share `inversion` of the maps decreasing (half in
    Zhou et al. 2021)."""
    inner = uniform(fold(keys, 0), 0.0, 1.0, (2, 2))
    return maybe(fold(keys, 2), probability, tone_curve(images, inner, flags(fold(keys, 1), inversion)), images)


def tone_curve(images: jax.Array, inner: jax.Array, decreasing: jax.Array) -> jax.Array:
    """Map images [B, ...] in [0, 1] by the curves with inner points [B, 2 points, (x, y)]; decreasing bool [B].

    The curve is x(s), y(s), s from 0 to 1. Increasing is y where x(s) = v; decreasing is y at 1 - s. With inner points inside the unit
    square both coordinates are monotone in s, so this is what Genesis gets by sorting samples of x, and of y or not.
    """
    x1, y1, x2, y2 = (spread(inner[:, point, axis], images.ndim) for point in (0, 1) for axis in (0, 1))
    s, step = jnp.full_like(images, 0.5), 0.5
    for _ in range(HALVINGS):
        step /= 2
        s = s + jnp.where(_bezier(s, x1, x2) < images, step, -step)
    return _bezier(jnp.where(spread(decreasing, images.ndim), 1 - s, s), y1, y2)


def _bezier(s: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """The cubic 3 first s (1 - s)^2 + 3 second s^2 (1 - s) + s^3."""
    return s * (3 * first + s * (3 * second - 6 * first + s * (1 + 3 * first - 3 * second)))
