"""The detector's network: what it says at first, in which order, and how large it is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from medssl_jax.models import DETECTOR_STRIDES, detector, detector_places


@pytest.fixture(scope="module")
def first():
    network = detector(8)
    params, stats = network.init(jax.random.key(0), jnp.zeros((1, 128, 128, 3)))
    assert not stats
    images = jax.random.uniform(jax.random.key(1), (2, 128, 128, 3))
    return network, params, images, network.apply(params, stats, images, train=False)[0]


def test_places_are_the_centres_of_cells_level_by_level():
    places, strides = detector_places(128)
    assert len(places) == 16**2 + 8**2 + 4**2 + 2**2
    np.testing.assert_array_equal(places[:3], [[4, 4], [12, 4], [20, 4]])
    np.testing.assert_array_equal(places[-4:], [[32, 32], [96, 32], [32, 96], [96, 96]])
    np.testing.assert_array_equal(np.unique(strides), DETECTOR_STRIDES)
    for stride in DETECTOR_STRIDES:  # the cells of a level cover the square once
        assert ((strides == stride) * stride**2).sum() == 128**2
        assert len(np.unique(places[strides == stride] // stride, axis=0)) == (strides == stride).sum()


def test_at_first_a_place_is_hardly_sure_and_sees_two_strides_far(first):
    _, _, _, found = first
    _, strides = detector_places(128)
    assert {name: x.shape for name, x in found.items()} == {
        "objectness": (2, len(strides)),
        "quality": (2, len(strides)),
        "distances": (2, len(strides), 4),
    }
    np.testing.assert_allclose(jax.nn.sigmoid(found["objectness"]), 0.01, atol=0.005)
    np.testing.assert_allclose(found["distances"] / strides[None, :, None], 2, atol=0.4)


def test_figures_of_a_batch_do_not_see_each_other(first):
    network, params, images, found = first
    alone, _ = network.apply(params, {}, images[1:], train=True)
    for name, value in alone.items():
        np.testing.assert_allclose(value[0], found[name][1], rtol=1e-4, atol=1e-4)


def test_what_lies_below_moves_what_is_said_there(first):
    """The level of stride 8 at the places around a bright square changes more than elsewhere."""
    network, params, images, found = first
    changed, _ = network.apply(params, {}, images.at[:, 80:96, 16:32].set(1.0), train=False)
    places, strides = detector_places(128)
    moved = np.abs(changed["objectness"] - found["objectness"]).mean(0)[strides == 8]
    near = (np.abs(places[strides == 8] - np.float32([[24, 88]])) < 20).all(1)
    swapped = (np.abs(places[strides == 8] - np.float32([[88, 24]])) < 20).all(1)
    assert moved[near].mean() > 2 * moved[~near].mean()
    assert moved[near].mean() > 2 * moved[swapped].mean()


@pytest.mark.parametrize(("size", "least", "most"), [("small", 1.0e6, 2.6e6), ("paper", 4e6, 12e6)])
def test_parameters_of_the_configs(size, least, most):
    c = tiny.config("simcfs", size)
    network = detector(c.model.width, blocks=c.model.blocks)
    params, _ = jax.eval_shape(lambda key: network.init(key, jnp.zeros((1, 64, 64, 3))), jax.random.key(0))
    assert least <= sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params)) <= most
