"""The corruptions together: switched by fields, in order, with an honest mask."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medssl_jax import config
from medssl_jax.augment import Proxy
from medssl_jax.errors import UserError

KEYS = jax.random.split(jax.random.key(0), 64)
GENESIS = Proxy(curve="random", curve_probability=0.9, shuffle_probability=0.5, paint_probability=0.9)


@pytest.fixture(scope="module")
def images():
    return 0.1 + 0.8 * jax.random.uniform(jax.random.key(1), (64, 28, 28, 1))


def test_nothing_is_on_by_default(images):
    out, hidden = Proxy()(KEYS, images)
    assert np.array_equal(out, images)
    assert hidden.shape == (64, 28, 28)
    assert not hidden.any()


def test_the_configs_options_are_the_fields():
    assert Proxy(**config.proxy()) == Proxy()
    assert Proxy(**config.proxy(mask="ray", zero_fraction=0.25)) == Proxy(mask="ray", zero_fraction=0.25)


@pytest.mark.parametrize("mask", ["block", "stripe", "ray"])
def test_tower_zeroes_half_of_the_pixels_after_the_curve(images, mask):
    out, hidden = (np.asarray(a) for a in jax.jit(Proxy(curve="fixed", mask=mask))(KEYS, images))
    assert np.array_equal(out[..., 0] == 0, hidden)
    assert hidden.mean() == pytest.approx(0.5, abs=0.15 if mask == "ray" else 0.02)
    same = abs(np.where(hidden[..., None], 0, out - images)).max((1, 2, 3)) < 1e-5
    assert 0 < same.mean() < 0.45  # the curves leave a sixth of the images as they are


def test_mask_cells_reach_the_mask(images):
    _, hidden = Proxy(mask="block", mask_cells=2, zero_fraction=0.25)(KEYS, images)
    assert (np.asarray(hidden).reshape(64, 2, 14, 2, 14).all((2, 4)).sum((1, 2)) == 1).all()


def test_genesis_paints_inside_or_outside_with_its_shares(images):
    many = jax.random.split(jax.random.key(3), 3000)
    _, hidden = jax.jit(Proxy(paint_probability=0.9))(many, jnp.tile(images[:1], (3000, 1, 1, 1)))
    hidden = np.asarray(hidden)
    outside, nothing = hidden[:, 0, 0], ~hidden.any((1, 2))
    inside = ~outside & ~nothing
    # 5 % of the in-paintings draw no box at all.
    np.testing.assert_allclose([inside.mean(), outside.mean(), nothing.mean()], [0.18 * 0.95, 0.72, 0.10 + 0.18 * 0.05], atol=0.025)


@pytest.mark.parametrize("tasks", [{"shuffle_probability": 0.5}, {"warp_probability": 0.5}, {"curve": "random", "curve_probability": 0.5}])
def test_each_task_is_switched_by_its_probability(images, tasks):
    out, hidden = jax.jit(Proxy(**tasks))(KEYS, images)
    assert 0.3 < (abs(out - images).max((1, 2, 3)) > 1e-4).mean() < 0.7
    assert not hidden.any()


def test_a_batch_is_its_examples_on_any_number_of_devices(images):
    proxy = jax.jit(dataclasses.replace(GENESIS, warp_probability=0.3, mask="ray", zero_fraction=0.2))
    out, hidden = proxy(KEYS[:8], images[:8])
    backwards, mask = proxy(KEYS[7::-1], images[7::-1])
    np.testing.assert_allclose(backwards[::-1], out, atol=1e-5)
    assert np.array_equal(mask[::-1], hidden)
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    spread, mask = proxy(*jax.device_put((KEYS[:8], images[:8]), sharding))
    np.testing.assert_allclose(spread, out, atol=1e-5)
    assert np.array_equal(mask, hidden)


def test_any_number_of_channels():
    x = jax.random.uniform(jax.random.key(2), (2, 28, 28, 5))
    out, hidden = jax.jit(GENESIS)(KEYS[:2], x)
    assert out.shape == x.shape
    assert 0 <= out.min() <= out.max() <= 1
    assert hidden.dtype == bool


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("curve", "cubic", "proxy.curve='cubic' does not exist; choose one of none, fixed, random"),
        ("mask", "dots", "choose one of none, block, stripe, ray"),
        ("zero_fraction", 1.0, "zero_fraction=1.0 must be at least 0 and below 1"),
        ("zero_fraction", -0.1, "zero_fraction=-0.1"),
        ("mask_cells", -1, "mask_cells=-1 is negative"),
        ("curve_probability", 1.1, "proxy.curve_probability=1.1 is not a probability"),
        ("shuffle_probability", -1, "shuffle_probability"),
        ("paint_probability", 2, "paint_probability"),
        ("inpaint_share", 2, "inpaint_share"),
        ("warp_probability", 2, "warp_probability"),
    ],
)
def test_bad_values_are_told(field, value, told):
    with pytest.raises(UserError, match=told):
        Proxy(**{field: value})
