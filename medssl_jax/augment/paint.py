"""Models Genesis' in-painting and out-painting: boxes, or all but boxes, become noise (Zhou et al. 2021).

Each function takes keys [B] and images float32 [B, H, W, C], and returns the images and what was painted, bool [B, H, W].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medssl_jax.augment.draw import fold, integers, uniform
from medssl_jax.errors import UserError

MIN_SIDE = 14  # below, a box of out-painting has no corner at least 3 px from the border
BOXES = 5
GO_ON = 0.95  # probability of each further box
MARGIN = 3  # px between a box and the border


def inpaint(keys: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Up to 5 boxes with sides from d/6 to d/3 become uniform noise. Raises UserError below 14 px."""
    _check(images)
    sides = [integers(fold(keys, axis), d // 6, d // 3, (BOXES,)) for axis, d in enumerate(images.shape[1:3])]
    drawn = _unbroken(uniform(fold(keys, 2), 0.0, 1.0, (BOXES,)) < GO_ON)
    return _paint(keys, images, _union(keys, images, sides, drawn))


def outpaint(keys: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """All but 1 to 5 boxes with sides from d - 4d/7 to d - 3d/7 becomes uniform noise. Raises UserError below 14 px."""
    _check(images)
    sides = [d - integers(fold(keys, axis), 3 * d // 7, 4 * d // 7, (BOXES,)) for axis, d in enumerate(images.shape[1:3])]
    lucky = uniform(fold(keys, 2), 0.0, 1.0, (BOXES,)) < GO_ON
    return _paint(keys, images, ~_union(keys, images, sides, _unbroken(lucky.at[:, 0].set(True))))


def _check(images: jax.Array) -> None:
    side = min(images.shape[1:3])
    if side < MIN_SIDE:
        raise UserError(f"painting needs images of at least {MIN_SIDE} px, these have {side}; set paint_probability=0 or larger crops.")


def _unbroken(lucky: jax.Array) -> jax.Array:
    """True up to the first False, [B, n]."""
    return jnp.cumprod(lucky, axis=1) == 1


def _union(keys: jax.Array, images: jax.Array, sides: list[jax.Array], drawn: jax.Array) -> jax.Array:
    """The drawn boxes with the given sides, at random places, bool [B, H, W]."""
    inside = []
    for axis, (side, d) in enumerate(zip(sides, images.shape[1:3])):
        corner = integers(fold(keys, 3 + axis), MARGIN, d - side - MARGIN, (BOXES,))[..., None]
        place = jnp.arange(d)[None, None]
        inside.append((place >= corner) & (place < corner + side[..., None]))
    rows, columns = inside
    return (rows[:, :, :, None] & columns[:, :, None, :] & drawn[:, :, None, None]).any(1)


def _paint(keys: jax.Array, images: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.where(mask[..., None], uniform(fold(keys, 5), 0.0, 1.0, images.shape[1:]), images), mask
