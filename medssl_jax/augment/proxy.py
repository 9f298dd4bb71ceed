"""The corruption that pretraining undoes: TOWER's and Models Genesis' proxy tasks, each switched on by a field."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from medssl_jax.augment.curves import bezier_fixed, bezier_random
from medssl_jax.augment.draw import check_probability, flags, fold, maybe, spread
from medssl_jax.augment.masks import block_mask, check_zero_fraction, ray_mask, stripe_mask
from medssl_jax.augment.paint import inpaint, outpaint
from medssl_jax.augment.shuffle import local_shuffle
from medssl_jax.augment.warp import warp
from medssl_jax.errors import UserError

CURVES = {"none": None, "fixed": bezier_fixed, "random": bezier_random}
MASKS = ("none", "block", "stripe", "ray")


@dataclasses.dataclass(frozen=True)
class Proxy:
    """What to do to the clean crop, in Genesis' order: shuffle, curve, (warp,) paint; then TOWER's mask. All is off by default.

    TOWER is curve="fixed", mask="block"; Models Genesis is curve="random" at 0.9, shuffle 0.5, paint 0.9.
    Raises UserError for a value out of range.
    """

    curve: str = "none"
    curve_probability: float = 1.0
    inversion_probability: float = 0.5
    shuffle_probability: float = 0.0
    mask: str = "none"
    zero_fraction: float = 0.5
    mask_cells: int = 0
    paint_probability: float = 0.0
    inpaint_share: float = 0.2
    warp_probability: float = 0.0

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, allowed in (("curve", tuple(CURVES)), ("mask", MASKS)):
            if getattr(self, name) not in allowed:
                raise UserError(f"proxy.{name}={getattr(self, name)!r} does not exist; choose one of {', '.join(allowed)}.")
        for name in (
            "curve_probability",
            "inversion_probability",
            "shuffle_probability",
            "paint_probability",
            "inpaint_share",
            "warp_probability",
        ):
            check_probability(f"proxy.{name}", getattr(self, name))
        check_zero_fraction(self.zero_fraction)
        if self.mask_cells < 0:
            raise UserError(f"proxy.mask_cells={self.mask_cells} is negative; set the cells along a side, or 0 to go by the size.")

    def __call__(self, keys: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Clean images float32 [B, H, W, C] in [0, 1] -> corrupted ones, and what was masked or painted, bool [B, H, W].

        The mean of the latter is the achieved share. Raises UserError for images too small for a task that is on.
        """
        out = images
        if self.shuffle_probability:
            out = maybe(fold(keys, 0), self.shuffle_probability, local_shuffle(fold(keys, 1), out), out)
        if curve := CURVES[self.curve]:
            out = curve(fold(keys, 2), out, self.curve_probability, self.inversion_probability)
        if self.warp_probability:
            out = maybe(fold(keys, 3), self.warp_probability, warp(fold(keys, 4), out), out)
        out, painted = self._paint(keys, out)
        out, masked = self._mask(fold(keys, 8), out)
        return out, painted | masked

    def _paint(self, keys: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        if not self.paint_probability:
            return images, _nothing(images)
        inner, outer = inpaint(fold(keys, 5), images), outpaint(fold(keys, 5), images)
        chosen = flags(fold(keys, 6), self.inpaint_share)
        painted, mask = (jnp.where(spread(chosen, a.ndim), a, b) for a, b in zip(inner, outer))
        on = flags(fold(keys, 7), self.paint_probability)
        return jnp.where(spread(on, 4), painted, images), mask & spread(on, 3)

    def _mask(self, keys: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.mask == "block":
            return block_mask(keys, images, self.zero_fraction, self.mask_cells)
        if self.mask == "none":
            return images, _nothing(images)
        return {"stripe": stripe_mask, "ray": ray_mask}[self.mask](keys, images, self.zero_fraction)


def _nothing(images: jax.Array) -> jax.Array:
    return jnp.zeros(images.shape[:3], bool)
