"""What a pixel's value becomes: light, contrast, colour, stain, blur and noise, each drawn once an example.

Every function takes keys [B] and images float32 [B, H, W, C] in [0, 1], changes a `probability` of the examples, and returns images in
[0, 1]. Saturation, hue, gray and stain are about colour: they raise UserError where C is not 3.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from medssl_jax.augment.draw import fold, maybe, normal, spread, uniform
from medssl_jax.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # Rec. 601
# Optical densities (R, G, B) of haematoxylin, eosin and DAB; Ruifrok & Johnston 2001, "Quantification of histochemical staining".
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


def brightness(keys: jax.Array, images: jax.Array, strength: float, probability: float = 1.0) -> jax.Array:
    """Adds one number uniform in [-strength, strength]."""
    shift = uniform(keys, -strength, strength)
    return _finish(keys, probability, images + spread(shift, 4), images)


def contrast(keys: jax.Array, images: jax.Array, strength: float, probability: float = 1.0) -> jax.Array:
    """Scales the distance from each channel's mean by a factor uniform in [1 - strength, 1 + strength]."""
    factor = spread(uniform(keys, 1 - strength, 1 + strength), 4)
    mean = images.mean((1, 2), keepdims=True)
    return _finish(keys, probability, mean + (images - mean) * factor, images)


def gamma(keys: jax.Array, images: jax.Array, strength: float, probability: float = 1.0) -> jax.Array:
    """Raises to a power with a logarithm uniform in [-strength, strength]."""
    power = jnp.exp(uniform(keys, -strength, strength))
    return _finish(keys, probability, images ** spread(power, 4), images)


def channel_gain(keys: jax.Array, images: jax.Array, strength: float, probability: float = 1.0) -> jax.Array:
    """Multiplies each channel by its own factor uniform in [1 - strength, 1 + strength]."""
    gain = uniform(keys, 1 - strength, 1 + strength, (1, 1, images.shape[-1]))
    return _finish(keys, probability, images * gain, images)


def gaussian_noise(keys: jax.Array, images: jax.Array, strength: float, probability: float = 1.0) -> jax.Array:
    """Adds white noise of a standard deviation uniform in [0, strength]."""
    deviation = spread(uniform(fold(keys, 0), 0.0, strength), 4)
    return _finish(keys, probability, images + deviation * normal(fold(keys, 1), images.shape[1:]), images)


def gaussian_blur(keys: jax.Array, images: jax.Array, sigma: tuple[float, float], probability: float = 1.0) -> jax.Array:
    """Blurs with a standard deviation uniform in `sigma`, in pixels."""
    return _finish(keys, probability, blur(images, uniform(keys, *sigma)), images)


def blur(images: jax.Array, sigma: jax.Array) -> jax.Array:
    """[B, H, W, C] blurred by a Gaussian of `sigma` [B] pixels: two products with banded matrices; at the border the rest of the
    kernel is scaled up, so that a constant image stays as it is."""
    rows, columns = (_kernel(sigma, length) for length in images.shape[1:3])
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("bij,bjkc,blk->bilc", rows, images, columns, precision=exact)


def saturation(keys: jax.Array, images: jax.Array, strength: float, probability: float = 1.0) -> jax.Array:
    """Scales the distance from gray (luma) by a factor uniform in [1 - strength, 1 + strength]. RGB."""
    _need_rgb("saturation", images)
    factor = spread(uniform(keys, 1 - strength, 1 + strength), 4)
    gray = _luma(images)
    return _finish(keys, probability, gray + (images - gray) * factor, images)


def hue(keys: jax.Array, images: jax.Array, strength: float, probability: float = 1.0) -> jax.Array:
    """Turns the colours about the gray axis of the RGB cube by an angle uniform in [-strength, strength] turns (0.5: all hues). RGB."""
    _need_rgb("hue", images)
    angle = 2 * jnp.pi * uniform(keys, -strength, strength)
    # A rotation that keeps gray is a circulant matrix; a third of a turn takes red to green, green to blue and blue to red.
    weights = (1 + 2 * jnp.cos(angle[:, None] + 2 * jnp.pi / 3 * jnp.arange(3)[None])) / 3
    matrix = jnp.stack([jnp.roll(weights, shift, axis=1) for shift in range(3)], axis=2)
    return _finish(keys, probability, _mix(images, matrix), images)


def grayscale(keys: jax.Array, images: jax.Array, probability: float) -> jax.Array:
    """Replaces all channels by the luma. RGB."""
    _need_rgb("grayscale", images)
    return _finish(keys, probability, jnp.broadcast_to(_luma(images), images.shape), images)


def stain_jitter(keys: jax.Array, images: jax.Array, strength: float, probability: float = 1.0) -> jax.Array:
    """H&E: the amount of each stain becomes a * amount + b, a uniform in 1 +- strength, b in +- strength (natural optical density).

    Colour deconvolution after Ruifrok & Johnston 2001; the jitter of Tellez et al. 2018, section III-B. RGB.
    """
    _need_rgb("stain jitter", images)
    stains = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    mix, unmix = jnp.float32(stains), jnp.float32(np.linalg.inv(stains))
    scale = uniform(fold(keys, 0), 1 - strength, 1 + strength, (3, 1))
    shift = uniform(fold(keys, 1), -strength, strength, (3, 1))
    density = -jnp.log(jnp.maximum(images, 1 / 255))
    matrix = jnp.einsum("ij,bjk->bik", unmix, scale * mix[None], precision=jax.lax.Precision.HIGHEST)
    jittered = _mix(density, matrix) + (shift * mix[None]).sum(1)[:, None, None]
    return _finish(keys, probability, jnp.exp(-jittered), images)


def _finish(keys: jax.Array, probability: float, changed: jax.Array, images: jax.Array) -> jax.Array:
    return maybe(fold(keys, 99), probability, jnp.clip(changed, 0.0, 1.0), images)


def _kernel(sigma: jax.Array, length: int) -> jax.Array:
    """Rows of a Gaussian over the pixels, each summing to 1: [B, length, length]."""
    place = jnp.arange(length, dtype=jnp.float32)
    distance = (place[:, None] - place[None, :])[None] / spread(jnp.maximum(sigma, 1e-3), 3)
    weights = jnp.exp(-0.5 * distance**2)
    return weights / weights.sum(2, keepdims=True)


def _mix(images: jax.Array, matrix: jax.Array) -> jax.Array:
    """Each pixel's colour, as a row, times the example's matrix [B, 3, 3]."""
    red, green, blue = (images[..., i, None] * matrix[:, None, None, i] for i in range(3))
    return red + green + blue


def _luma(images: jax.Array) -> jax.Array:
    red, green, blue = (images[..., i, None] * LUMA[i] for i in range(3))
    return red + green + blue


def _need_rgb(what: str, images: jax.Array) -> None:
    if images.shape[-1] != 3:
        raise UserError(
            f"{what} needs RGB images, these have {images.shape[-1]} channel(s); set its strength to 0, or choose a modality without "
            f"colour (--config.views.modality=brightfield)."
        )
