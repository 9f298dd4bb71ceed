"""Shuffling, painting and warping: Models Genesis' numbers, and what must not change."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medssl_jax.augment.paint import inpaint, outpaint
from medssl_jax.augment.shuffle import default_windows, local_shuffle
from medssl_jax.augment.warp import warp
from medssl_jax.errors import UserError


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def numbered(count, side):
    """Images whose pixel values are the pixels' own row and column."""
    y, x = np.mgrid[:side, :side]
    return jnp.tile(jnp.float32(np.stack([y, x], -1))[None], (count, 1, 1, 1))


@pytest.fixture(scope="module")
def shuffled():
    """48 shuffled images of 64 px: where each pixel came from, [n, 64, 64, 2]."""
    return np.asarray(jax.jit(local_shuffle)(keys(48), numbered(48, 64)))


def genesis_shuffle(side, windows, rng):
    """Models Genesis' loop: each window is read from the unshuffled image, permuted and written, the later over the earlier."""
    start = np.asarray(numbered(1, side)[0])
    out = start.copy()
    for h, w in rng.integers(1, side // 10 + 1, (windows, 2)):
        y, x = rng.integers(0, side - h + 1), rng.integers(0, side - w + 1)
        out[y : y + h, x : x + w] = rng.permutation(start[y : y + h, x : x + w].reshape(-1, 2)).reshape(h, w, 2)
    return out


def test_the_number_of_windows():
    assert default_windows(28, 28) == pytest.approx(650, abs=10)
    assert default_windows(224, 224) == pytest.approx(710, abs=5)
    assert default_windows(512, 512) == pytest.approx(725, abs=5)


def test_one_window_permutes_the_pixels_of_one_rectangle():
    start = np.asarray(numbered(300, 30))
    out = np.asarray(jax.jit(local_shuffle, static_argnums=2)(keys(300), jnp.asarray(start), 1))
    moved = 0
    for before, after in zip(start, out):
        changed = np.argwhere((before != after).any(-1))
        assert np.array_equal(np.unique(after.reshape(-1, 2), axis=0), np.unique(before.reshape(-1, 2), axis=0))
        if len(changed):
            assert (np.ptp(changed, axis=0) < 3).all()
            moved += 1
    # 1/9 of the windows are single pixels, others may draw the identity.
    assert 0.6 < moved / 300 < 0.9


def test_all_orders_of_a_small_window_are_equally_likely():
    count = 40_000
    out = np.asarray(jax.jit(lambda k, x: local_shuffle(k, x, 1))(keys(count), numbered(count, 20)), np.int32)
    index = out[..., 0] * 20 + out[..., 1]
    changed = (index != np.arange(400).reshape(20, 20)).reshape(count, -1)
    # Windows of 2 x 2 (a quarter): how often n of the four pixels stay, against the 24 permutations; 9 of 24 move all four.
    all_four = (changed.sum(1) == 4).mean()
    three = (changed.sum(1) == 3).mean()
    assert all_four == pytest.approx(0.25 * 9 / 24, rel=0.06)
    assert three == pytest.approx(0.25 * 8 / 24, rel=0.06)
    # Pairs: half of the windows hold two pixels, swapped half of the time; 6 of 24 orders of four swap one pair.
    assert (changed.sum(1) == 2).mean() == pytest.approx(0.5 / 2 + 0.25 * 6 / 24, rel=0.03)


def test_shuffled_images_are_like_those_of_the_loop(shuffled):
    rng = np.random.default_rng(0)
    looped = np.stack([genesis_shuffle(64, default_windows(64, 64), rng) for _ in range(48)])
    start = np.asarray(numbered(1, 64))

    def describe(out):
        distance = abs(out - start)
        lost = np.mean([len(np.unique(image.reshape(-1, 2), axis=0)) for image in out]) / 64**2
        still = (distance == 0).all(-1)
        border = (still.sum() - still[:, 3:-3, 3:-3].sum()) / (still.size - still[:, 3:-3, 3:-3].size)
        return border, [still.mean(), lost, *distance.mean((0, 1, 2)), distance.std(), distance.max()]

    (border, whole), (looped_border, looped_whole) = describe(shuffled), describe(looped)
    assert border == pytest.approx(looped_border, abs=0.04)
    np.testing.assert_allclose(whole, looped_whole, rtol=0.05)


def test_shuffling_depends_on_the_examples_key_only(shuffled):
    alone = jax.jit(local_shuffle)(keys(48)[5:6], numbered(1, 64))
    assert np.array_equal(alone[0], shuffled[5])
    assert not np.array_equal(shuffled[0], shuffled[1])


@pytest.mark.parametrize(("side", "visible", "noised"), [(28, 0.448, 0.187), (64, 0.519, 0.209), (224, 0.545, 0.222)])
def test_painted_shares_are_genesis(side, visible, noised):
    count = {28: 4000, 64: 4000, 224: 600}[side]
    canvas = jnp.full((count, side, side, 1), 2.0)
    for paint, share in ((outpaint, 1 - visible), (inpaint, noised)):
        mask = jax.jit(lambda k, x, paint=paint: paint(k, x)[1])(keys(count, 1), canvas)
        assert mask.mean() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("paint", [inpaint, outpaint])
def test_paint_is_uniform_noise_where_the_mask_says(paint):
    canvas = jnp.full((64, 40, 40, 2), 2.0)
    out, mask = (np.asarray(a) for a in jax.jit(paint)(keys(64), canvas))
    assert np.array_equal(out[..., 0] != 2.0, mask)
    assert np.array_equal(out[..., 1] != 2.0, mask)
    noise = out[mask]
    assert 0 <= noise.min() <= noise.max() < 1
    np.testing.assert_allclose(np.quantile(noise, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.02)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.05
    border = mask.copy()
    border[:, 3:-3, 3:-3] = paint is outpaint
    assert border.all() if paint is outpaint else not border.any()
    single = jax.jit(paint)(keys(64)[9:10], canvas[9:10])
    assert np.array_equal(single[0][0], out[9])


def test_warping_moves_the_inside_smoothly_and_keeps_the_border():
    start = numbered(16, 64)
    out = np.asarray(jax.jit(warp)(keys(16), start))
    moved = out - np.asarray(start)
    # sigma of 10 .. 19 px at 512 px is 1.25 .. 2.4 px at 64; a cubic B-spline averages it to about half.
    deviation = moved[:, 20:44, 20:44].std()
    assert 0.5 < deviation < 1.6
    assert abs(moved[:, [0, -1]]).max() < 0.2
    assert abs(moved[:, :, [0, -1]]).max() < 0.2
    assert abs(np.diff(moved, axis=1)).max() < 3
    assert abs(moved.mean((1, 2))).max() < 0.5
    alone = jax.jit(warp)(keys(16)[3:4], start[3:4])
    np.testing.assert_allclose(alone[0], out[3], atol=1e-4)


def test_warping_moves_all_channels_alike():
    x = jnp.tile(jax.random.uniform(jax.random.key(1), (2, 32, 32, 1)), (1, 1, 1, 4))
    out = np.asarray(jax.jit(warp)(keys(2), x))
    assert np.array_equal(out, np.repeat(out[..., :1], 4, -1))
    assert not np.allclose(out, x)


def test_images_can_be_too_small():
    with pytest.raises(UserError, match="at least 14 px, these have 13"):
        inpaint(keys(1), jnp.zeros((1, 13, 13, 1)))
    with pytest.raises(UserError, match="at least 14 px, these have 13"):
        outpaint(keys(1), jnp.zeros((1, 13, 16, 1)))
    with pytest.raises(UserError, match="at least 20 px, these have 19"):
        local_shuffle(keys(1), jnp.zeros((1, 19, 19, 1)))
    assert outpaint(keys(1), jnp.zeros((1, 14, 14, 1)))[1].any()
