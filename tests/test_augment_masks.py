"""Masks zero what they say, in all channels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medssl_jax.augment import masks
from medssl_jax.errors import UserError

KEYS = jax.random.split(jax.random.key(0), 3)


def bright(side, channels=2):
    return 0.1 + 0.9 * jax.random.uniform(jax.random.key(1), (3, side, side, channels))


@pytest.mark.parametrize(("side", "cells"), [(28, 7), (64, 16), (96, 24), (128, 32), (224, 32), (512, 32), (97, 24), (130, 26)])
def test_default_cells(side, cells):
    assert masks.default_cells(side, side) == cells


@pytest.mark.parametrize("side", [28, 64, 224, 512])
@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75, 0.6])
def test_blocks_zero_the_share_to_a_cell(side, fraction):
    images = bright(side, 1)
    out, mask = masks.block_mask(KEYS, images, fraction)
    cells = masks.default_cells(side, side)
    grid = np.asarray(mask).reshape(3, cells, side // cells, cells, side // cells)
    assert (grid == grid[:, :, :1, :, :1]).all()
    assert (grid[:, :, 0, :, 0].sum((1, 2)) == round(fraction * cells**2)).all()
    assert abs(mask.mean() - fraction) <= 1 / cells**2
    assert np.array_equal(out, np.where(np.asarray(mask)[..., None], 0, images))


def test_cells_that_do_not_divide_the_image_are_nearly_equal():
    _, mask = masks.block_mask(jax.random.split(jax.random.key(4), 200), jnp.ones((200, 30, 30, 1)), 24 / 49, cells=7)
    assert abs(mask.mean() - 24 / 49) < 0.005
    np.testing.assert_allclose(mask.mean(0), 24 / 49, atol=0.15)


def test_each_example_has_its_own_mask_that_its_key_determines():
    images = bright(28)
    for function in (masks.block_mask, masks.stripe_mask, masks.ray_mask):
        masked = jax.jit(function, static_argnums=2)
        out, mask = masked(KEYS, images, 0.5)
        alone, single = masked(KEYS[1:2], images[1:2], 0.5)
        assert np.array_equal(out[1:2], alone)
        assert np.array_equal(mask[1:2], single)
        assert not np.array_equal(mask[0], mask[1])
        assert np.array_equal(np.asarray(out) == 0, np.repeat(np.asarray(mask)[..., None], 2, -1))


def test_stripes_are_whole_rows():
    _, mask = masks.stripe_mask(KEYS, bright(40), 0.3)
    assert (np.asarray(mask) == np.asarray(mask)[:, :, :1]).all()
    assert (np.asarray(mask)[:, :, 0].sum(1) == 12).all()


@pytest.fixture(scope="module")
def eyes():
    """Dark images with a bright spot at (20, 44)."""
    return jnp.full((3, 64, 64, 3), 0.2).at[:, 18:23, 42:47].set(1.0)


@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_rays_reach_the_share_and_not_more_than_a_ray_beyond(eyes, fraction):
    share = np.asarray(masks.ray_mask(KEYS, eyes, fraction)[1]).mean((1, 2))
    assert (share >= fraction).all()
    assert (share < fraction + 4 * 64 * 2**0.5 / 64**2).all()


def test_rays_are_four_pixels_thick_from_the_bright_spot_to_the_border(eyes):
    keys = jax.random.split(jax.random.key(5), 40)
    first = np.asarray(masks.ray_mask(keys, jnp.tile(eyes[:1], (40, 1, 1, 1)), 1e-6)[1])
    y, x = np.mgrid[:64, :64] + 0.5
    for ray in first:
        assert ray[20, 44]
        end = x[0, ray[0]].mean()  # the first border is the top
        length = np.hypot(20.5, end - 44.5)
        distance = abs((x - 44.5) * 20.5 + (y - 20.5) * (end - 44.5)) / length
        above = y < 18
        inner, outer = above & (distance < 1.0), above & (distance > 3.0)
        assert ray[inner].all()
        assert not ray[outer].any()
        assert not ray[y > 23].any()
        assert ray.sum() == pytest.approx(4 * length, rel=0.35)


def test_no_more_than_forty_rays_a_border():
    side, rng = 160, np.random.default_rng(0)
    dim = jnp.zeros((3, side, side, 1)).at[:, 80, 80].set(1.0)
    got = np.asarray(masks.ray_mask(KEYS, dim, 0.99)[1]).mean()
    y, x = np.mgrid[:side, :side] - 80.0
    expected = []
    for _ in range(3):
        covered = np.zeros((side, side), bool)
        for border in range(4):
            for place in rng.random(40) * side - 80.5:
                dy, dx = [(-80.5, place), (79.5, place), (place, -80.5), (place, 79.5)][border]
                near = abs(y * dx - x * dy) / np.hypot(dy, dx) <= 2
                covered |= near & (y * dy + x * dx >= 0)
        expected.append(covered.mean())
    assert got == pytest.approx(np.mean(expected), abs=0.02)


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5])
@pytest.mark.parametrize("function", [masks.block_mask, masks.stripe_mask, masks.ray_mask])
def test_the_share_is_below_one(function, value):
    with pytest.raises(UserError, match="zero_fraction"):
        function(KEYS, bright(28), value)


def test_cells_need_pixels():
    with pytest.raises(UserError, match="mask_cells=64 is more than the 28 pixels"):
        masks.block_mask(KEYS, bright(28), 0.5, cells=64)


def test_nothing_is_zeroed_for_a_share_of_zero():
    for function in (masks.block_mask, masks.stripe_mask, masks.ray_mask):
        assert not function(KEYS, bright(28), 0.0)[1].any()
