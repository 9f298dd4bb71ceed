"""Free-form deformation: pixels move by a cubic B-spline through random displacements on a grid (TOWER's twist, Rueckert et al. 1999)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medssl_jax.augment.draw import fold, integers, normal, spread
from medssl_jax.augment.resample import sample_linear

CELLS = (10, 19)  # of the grid, along a side
SIGMA = (10, 19)  # standard deviation of the displacements in pixels, of an image of REFERENCE pixels
REFERENCE = 512
POINTS = CELLS[1] + 3


def warp(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Deform images [B, H, W, C], all channels alike; the border stays where it is.

    The released lengths (10 to 19 px at 512 px) are taken relative to the side, so that small crops are deformed, not shredded.
    """
    height, width = images.shape[1:3]
    cells = [integers(fold(keys, axis), *CELLS) for axis in (0, 1)]
    sigma = spread(integers(fold(keys, 2), *SIGMA) / REFERENCE, 4)
    free = _inner(cells[0])[:, :, None, None] * _inner(cells[1])[:, None, :, None]
    control = normal(fold(keys, 3), (POINTS, POINTS, 2)) * sigma * free
    splines = _splines(cells[0], height), _splines(cells[1], width)
    moved = jnp.einsum("bik,bklc,bjl->bijc", splines[0], control, splines[1]) * jnp.float32([height, width])[None, None, None]
    y, x = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    return sample_linear(images, jnp.stack([y, x], axis=-1)[None] + moved)


def _splines(cells: jax.Array, length: int) -> jax.Array:
    """Weight of each control point at each pixel centre, [B, length, POINTS]; point k sits at (k - 1) cells."""
    place = (jnp.arange(length) + 0.5)[None, :, None] / length * spread(cells, 3)
    d = jnp.abs(place - (jnp.arange(POINTS) - 1)[None, None])
    return jnp.where(d < 1, 2 / 3 - d**2 + d**3 / 2, jnp.maximum(2 - d, 0) ** 3 / 6)


def _inner(cells: jax.Array) -> jax.Array:
    """1 for the control points that do not reach the border, whose displacement is free, 0 for the three on either side."""
    point = jnp.arange(POINTS)[None]
    return ((point >= 3) & (point < cells[:, None])).astype(jnp.float32)
