"""Light, colour, stain, blur and noise: what was drawn is recovered from the output and compared with the formula."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medssl_jax.augment import intensity
from medssl_jax.errors import UserError

N = 64
KEYS = jax.random.split(jax.random.key(0), N)
GENERIC = {"brightness": 0.1, "contrast": 0.2, "gamma": 0.3, "channel_gain": 0.2, "gaussian_noise": 0.02, "gaussian_blur": (0.5, 1.5)}
COLOUR = {"saturation": 0.3, "hue": 0.1, "stain_jitter": 0.1}


@pytest.fixture(scope="module")
def images():
    """In the middle of the range, so that nothing is clipped."""
    return 0.35 + 0.3 * jax.random.uniform(jax.random.key(1), (N, 12, 10, 3))


def run(name, images, *strength):
    return np.asarray(getattr(intensity, name)(KEYS, images, *strength), np.float64), np.asarray(images, np.float64)


def assert_fills(values, low, high):
    """Uniform draws: inside the range, and spread over it."""
    values = np.asarray(values)
    assert low - 1e-3 <= values.min() < low + 0.15 * (high - low)
    assert high - 0.15 * (high - low) < values.max() <= high + 1e-3


def assert_constant(values, axes):
    np.testing.assert_allclose(values - values.mean(axes, keepdims=True), 0, atol=2e-4)


def test_brightness_adds_a_number(images):
    out, x = run("brightness", images, 0.1)
    assert_constant(out - x, (1, 2, 3))
    assert_fills((out - x)[:, 0, 0, 0], -0.1, 0.1)


def test_contrast_scales_the_distance_from_the_mean(images):
    out, x = run("contrast", images, 0.2)
    mean = x.mean((1, 2), keepdims=True)
    factor = np.linalg.norm((out - mean).reshape(N, -1), axis=1) / np.linalg.norm((x - mean).reshape(N, -1), axis=1)
    np.testing.assert_allclose(out, mean + factor[:, None, None, None] * (x - mean), atol=1e-5)
    assert_fills(factor, 0.8, 1.2)


def test_gamma_is_a_power(images):
    out, x = run("gamma", images, 0.3)
    power = np.log(np.log(out) / np.log(x))
    assert_constant(power, (1, 2, 3))
    assert_fills(power[:, 0, 0, 0], -0.3, 0.3)


def test_gain_is_a_factor_of_each_channel(images):
    out, x = run("channel_gain", images, 0.2)
    assert_constant(out / x, (1, 2))
    gain = (out / x)[:, 0, 0]
    assert_fills(gain, 0.8, 1.2)
    assert abs(np.corrcoef(gain.T)[0, 1]) < 0.4


def test_noise_is_white_with_a_drawn_deviation(images):
    out, x = run("gaussian_noise", images, 0.02)
    deviation = (out - x).std((1, 2, 3))
    assert_fills(deviation, 0, 0.02)
    scaled = ((out - x) / deviation[:, None, None, None])[deviation > 0.005]
    assert abs(scaled.mean()) < 0.02
    assert abs((scaled**4).mean() - 3) < 0.2


def test_blur_is_scipys_inside_and_keeps_constants():
    x = np.random.default_rng(0).random((2, 40, 36, 2), np.float32)
    sigma = np.float32([0.8, 2.1])
    out = np.asarray(intensity.blur(jnp.asarray(x), jnp.asarray(sigma)))
    for image, s, got in zip(x, sigma, out):
        expected = ndimage.gaussian_filter(image.astype(np.float64), (s, s, 0), truncate=6)
        np.testing.assert_allclose(got[14:-14, 14:-14], expected[14:-14, 14:-14], atol=2e-6)
    np.testing.assert_allclose(intensity.blur(jnp.full((2, 9, 9, 1), 0.3), jnp.asarray(sigma)), 0.3, atol=1e-6)


def test_blur_draws_sigma_from_its_range():
    point = jnp.zeros((N, 41, 41, 1)).at[:, 20, 20].set(1.0)
    out = np.asarray(intensity.gaussian_blur(KEYS, point, (1.0, 3.0)))[..., 0]
    variance = (out.sum(2) * (np.arange(41) - 20) ** 2).sum(1)
    assert_fills(np.sqrt(variance), 1.0, 3.0)


def test_saturation_scales_the_distance_from_luma(images):
    out, x = run("saturation", images, 0.3)
    gray = (x @ [0.299, 0.587, 0.114])[..., None]
    factor = np.linalg.norm((out - gray).reshape(N, -1), axis=1) / np.linalg.norm((x - gray).reshape(N, -1), axis=1)
    np.testing.assert_allclose(out, gray + factor[:, None, None, None] * (x - gray), atol=1e-5)
    assert_fills(factor, 0.7, 1.3)


def test_hue_turns_about_the_gray_axis(images):
    out, x = run("hue", images, 0.1)
    basis = np.array([[2, -1, -1], [0, np.sqrt(3), -np.sqrt(3)]]) / np.sqrt(6)
    np.testing.assert_allclose(out.sum(-1), x.sum(-1), atol=1e-5)
    before, after = (np.einsum("bhwc,kc->bhwk", v, basis) @ [1, 1j] for v in (x, out))
    np.testing.assert_allclose(abs(after), abs(before), atol=1e-5)
    turn = np.angle((after * before.conj()).sum((1, 2))) / (2 * np.pi)
    assert_fills(turn, -0.1, 0.1)
    np.testing.assert_allclose(after, before * np.exp(2j * np.pi * turn)[:, None, None], atol=1e-5)


def test_stain_jitter_changes_each_stains_amount_linearly(images):
    out, x = run("stain_jitter", images, 0.1)
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    unmix = np.linalg.inv(stains / np.linalg.norm(stains, axis=1, keepdims=True))
    before, after = (-np.log(v).reshape(N, -1, 3) @ unmix for v in (x, out))
    lines = np.array([[np.polyfit(b[:, s], a[:, s], 1) for s in range(3)] for b, a in zip(before, after)])
    np.testing.assert_allclose(after, before * lines[:, None, :, 0] + lines[:, None, :, 1], atol=1e-4)
    assert_fills(lines[..., 0], 0.9, 1.1)
    assert_fills(lines[..., 1], -0.1, 0.1)


def test_gray_is_luma_with_its_probability(images):
    out, x = run("grayscale", images, 0.4)
    gray = np.broadcast_to((x @ [0.299, 0.587, 0.114])[..., None], x.shape)
    changed = abs(out - x).max((1, 2, 3)) > 1e-6
    assert 0.2 < changed.mean() < 0.6
    np.testing.assert_allclose(out[changed], gray[changed], atol=1e-6)


@pytest.mark.parametrize("name", [*GENERIC, *COLOUR])
def test_probability_and_range(name):
    strength = {**GENERIC, **COLOUR}[name]
    extreme = jax.random.uniform(jax.random.key(2), (N, 8, 8, 3)).round()
    out, x = run(name, extreme * 0.98 + 0.01, strength, 0.5)
    changed = abs(out - x).max((1, 2, 3)) > 0
    assert 0.3 < changed.mean() < 0.7
    assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize("name", GENERIC)
@pytest.mark.parametrize("channels", [1, 5])
def test_any_number_of_channels_and_one_key_an_example(name, channels):
    x = jax.random.uniform(jax.random.key(3), (4, 8, 8, channels))
    together = getattr(intensity, name)(KEYS[:4], x, GENERIC[name], 0.5)
    alone = jnp.concatenate([getattr(intensity, name)(KEYS[i : i + 1], x[i : i + 1], GENERIC[name], 0.5) for i in range(4)])
    assert together.shape == x.shape
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("name", [*COLOUR, "grayscale"])
def test_colour_needs_rgb(name):
    with pytest.raises(UserError, match=r"needs RGB images, these have 2 channel\(s\)"):
        getattr(intensity, name)(KEYS, jnp.zeros((N, 8, 8, 2)), 0.1)
