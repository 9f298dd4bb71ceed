"""Tone curves against a table of TOWER's three curves and a NumPy reading of Models Genesis' sampled ones."""

from __future__ import annotations

from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medssl_jax.augment import curves

V = [0, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 1]
TABLE = np.array(
    [
        V,
        [0, 0.306, 0.387, 0.461, 0.479, 0.490, 0.499, 0.500, 0.501, 0.510, 0.521, 0.539, 0.613, 0.694, 1],
        [0, 0.127, 0.220, 0.344, 0.385, 0.418, 0.465, 0.500, 0.535, 0.582, 0.615, 0.656, 0.780, 0.873, 1],
    ]
)
SIX = np.concatenate([TABLE, TABLE[:, ::-1]])  # the reversed map is the row read from right to left


@pytest.fixture(scope="module")
def fixed():
    """10,000 draws on the table's intensities, [n, 15]."""
    keys = jax.random.split(jax.random.key(0), 10_000)
    images = jnp.tile(jnp.float32(V)[None, None, :, None], (10_000, 1, 1, 1))
    return np.asarray(jax.jit(curves.bezier_fixed)(keys, images))[:, 0, :, 0]


def test_the_six_fixed_maps_are_the_tables(fixed):
    distance = abs(fixed[:, None] - SIX[None]).max(2)
    assert distance.min(1).max() < 0.002
    share = np.bincount(distance.argmin(1), minlength=6) / len(fixed)
    np.testing.assert_allclose(share, 1 / 6, atol=0.02)


def test_a_sixth_stays_as_it_is_and_ends_meet_ends(fixed):
    assert abs((abs(fixed - np.array(V)).max(1) < 1e-5).mean() - 1 / 6) < 0.02
    assert 0 <= fixed.min() <= fixed.max() <= 1
    np.testing.assert_allclose(fixed[:, 0] + fixed[:, -1], 1, atol=1e-3)


def genesis(values, inner, decreasing):
    """The sampled curve, as Models Genesis has it: x sorted, y sorted too where the map is to increase."""
    points = np.array([[0, 0], *inner, [1, 1]])
    t = np.linspace(0, 1, 100_000)
    x, y = (sum(comb(3, i) * t ** (3 - i) * (1 - t) ** i * points[i, axis] for i in range(4)) for axis in (0, 1))
    return np.interp(values, np.sort(x), y if decreasing else np.sort(y))


@pytest.mark.parametrize("decreasing", [False, True])
def test_any_curve_is_genesis_sampled_curve(decreasing):
    inner = np.concatenate([np.random.default_rng(0).random((20, 2, 2)), [[[1, 0], [0, 1]], [[0, 1], [1, 0]]]])
    values = np.linspace(0, 1, 256)
    images = jnp.tile(jnp.float32(values)[None, :, None, None], (22, 1, 1, 1))
    out = np.asarray(curves.tone_curve(images, jnp.float32(inner), jnp.full(22, decreasing)))[:, :, 0, 0]
    for got, points in zip(out, inner):
        # At a vertical tangent a rounding of x is a step in y, so the curves are compared as sets of points there.
        error = abs(got - genesis(values, points, decreasing))
        slack = abs(genesis(values + 1e-5, points, decreasing) - genesis(values - 1e-5, points, decreasing))
        assert (error < 1e-3 + slack).all()


def test_random_maps_are_half_increasing_and_shared_by_channels():
    keys = jax.random.split(jax.random.key(1), 2000)
    ramp = jnp.tile(jnp.linspace(0, 1, 9)[None, None, :, None], (2000, 1, 1, 3))
    out = np.asarray(jax.jit(curves.bezier_random)(keys, ramp))[:, 0]
    assert np.array_equal(out[..., 0], out[..., 2])
    steps = np.diff(out[..., 0], axis=1)
    rising = (steps >= -1e-6).all(1)
    assert (rising | (steps <= 1e-6).all(1)).all()
    assert abs(rising.mean() - 0.5) < 0.04
    assert abs(out[:, 4, 0].mean() - 0.5) < 0.02
    assert out[:, 4, 0].std() > 0.1


def test_probability_and_one_key_an_example():
    keys = jax.random.split(jax.random.key(2), 500)
    x = jax.random.uniform(jax.random.key(3), (500, 2, 2, 1))
    out = curves.bezier_random(keys, x, 0.9)
    assert abs((abs(out - x).max((1, 2, 3)) > 0).mean() - 0.9) < 0.05
    np.testing.assert_allclose(curves.bezier_random(keys[7:8], x[7:8], 0.9), out[7:8], atol=1e-6)
