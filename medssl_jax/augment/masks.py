"""TOWER's masks: pixels that become 0 in all channels. `zero_fraction` is the share of zeroed pixels, never of kept ones.

Each function takes keys [B] and images float32 [B, H, W, C], and returns the masked images and what was zeroed, bool [B, H, W].
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from medssl_jax.augment.draw import choose, fold, uniform
from medssl_jax.augment.intensity import blur
from medssl_jax.errors import UserError

Masked = tuple[jax.Array, jax.Array]
RAYS = 40  # at most, to each border (released: 40 in the code, 20 for the figure)
THICKNESS = 4.0  # pixels across a ray
DISC_SIGMA = 3.5  # of the 21 x 21 blur before the brightest pixel is taken


def block_mask(keys: jax.Array, images: jax.Array, zero_fraction: float, cells: int = 0) -> Masked:
    """Zeroes exactly round(zero_fraction * cells^2) cells of a cells x cells grid; cells=0: `default_cells`.

    Raises UserError for a zero_fraction outside [0, 1) and for more cells than pixels.
    """
    check_zero_fraction(zero_fraction)
    height, width = images.shape[1:3]
    cells = cells or default_cells(height, width)
    if cells > min(height, width):
        raise UserError(f"mask_cells={cells} is more than the {min(height, width)} pixels of the images' side; set at most that, or 0.")
    grid = hidden_grid(keys, cells, round(zero_fraction * cells**2))
    rows, columns = jnp.arange(height) * cells // height, jnp.arange(width) * cells // width
    return _zero(images, grid[:, rows][:, :, columns])


def hidden_grid(keys: jax.Array, cells: int, count: int) -> jax.Array:
    """Exactly `count` random cells of a cells x cells grid a key: bool [B, cells, cells]."""
    return choose(keys, cells**2, count).reshape(-1, cells, cells)


def default_cells(height: int, width: int) -> int:
    """Cells of at least 4 px, at most 32 a side, of equal size where a divisor allows it: 7 at 28 px, 16 at 64, 32 from 128 on."""
    most = max(min(32, min(height, width) // 4), 1)
    return next((n for n in range(most, most // 2, -1) if math.gcd(height, width) % n == 0), most)


def stripe_mask(keys: jax.Array, images: jax.Array, zero_fraction: float) -> Masked:
    """Zeroes exactly round(zero_fraction * H) whole rows. Raises UserError for a zero_fraction outside [0, 1)."""
    check_zero_fraction(zero_fraction)
    _, height, width, _ = images.shape
    rows = choose(keys, height, round(zero_fraction * height))
    return _zero(images, jnp.broadcast_to(rows[:, :, None], (*rows.shape, width)))


def ray_mask(keys: jax.Array, images: jax.Array, zero_fraction: float) -> Masked:
    """Zeroes straight rays, 4 px thick, from the brightest place (a fundus' optic disc) to random points of the four borders in turn.

    Rays are added until `zero_fraction` of the pixels is covered, so the share exceeds it by less than a ray, or until each border has
    40. Raises UserError for a zero_fraction outside [0, 1).
    """
    check_zero_fraction(zero_fraction)
    _, height, width, _ = images.shape
    gray = images.mean(3, keepdims=True)
    brightest = blur(gray, jnp.full(gray.shape[:1], DISC_SIGMA)).reshape(len(gray), -1).argmax(1)
    disc = jnp.stack([brightest // width, brightest % width], axis=1) + 0.5
    ends = _border(uniform(fold(keys, 0), 0.0, 1.0, (4 * RAYS,)), height, width)
    draw = jax.vmap(lambda start, stop: _rays(start, stop, height, width, zero_fraction * height * width))
    return _zero(images, draw(disc, ends))


def check_zero_fraction(value: float) -> None:
    """Raises UserError where `value` is outside [0, 1)."""
    if not 0 <= value < 1:
        raise UserError(f"zero_fraction={value!r} must be at least 0 and below 1: it is the share of the pixels set to zero.")


def _zero(images: jax.Array, mask: jax.Array) -> Masked:
    return jnp.where(mask[..., None], 0.0, images), mask


def _border(place: jax.Array, height: int, width: int) -> jax.Array:
    """Points (y, x) [B, n, 2] at places [B, n] along the top, bottom, left and right border in turn."""
    y, x = place * height, place * width
    side = jnp.arange(place.shape[1])[None] % 4
    y = jnp.where(side == 0, 0.0, jnp.where(side == 1, height, y))
    return jnp.stack([y, jnp.where(side == 2, 0.0, jnp.where(side == 3, width, x))], axis=2)


def _rays(start: jax.Array, ends: jax.Array, height: int, width: int, enough: float) -> jax.Array:
    """Pixels [H, W] within half the thickness of the first segments from `start` [2] to `ends` [n, 2] that cover `enough` pixels."""
    y = jnp.arange(height)[:, None] + 0.5 - start[0]
    x = jnp.arange(width)[None, :] + 0.5 - start[1]

    def add(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """The next segment, in the mask as well."""
        count, mask = state
        dy, dx = ends[count] - start
        along = jnp.clip((y * dy + x * dx) / jnp.maximum(dy**2 + dx**2, 1e-6), 0.0, 1.0)
        near = (y - along * dy) ** 2 + (x - along * dx) ** 2 <= (THICKNESS / 2) ** 2
        return count + 1, mask | near

    def lacking(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Whether segments are left and the mask covers too little."""
        return (state[0] < len(ends)) & (state[1].sum() < enough)

    return jax.lax.while_loop(lacking, add, (jnp.int32(0), jnp.zeros((height, width), bool)))[1]
