"""Simulated shapes look like what they stand for: shares, parts and places, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medssl_jax.data import shapes
from medssl_jax.errors import UserError

COUNT, SIZE = 12, 128
SHARES = {"vessels": (0.03, 0.14), "optic_disc": (0.005, 0.03), "fovea": (0.005, 0.03), "lungs": (0.12, 0.35)}  # of the image


@pytest.fixture(scope="module", params=list(SHARES))
def simulated(request):
    return request.param, shapes.simulate(request.param, COUNT, SIZE, seed=1)


def test_shares_and_seeds(simulated):
    kind, masks = simulated
    low, high = SHARES[kind]
    assert masks.shape == (COUNT, SIZE, SIZE)
    assert masks.dtype == bool
    shares = masks.mean((1, 2))
    assert (shares > low).all()
    assert (shares < high).all()
    np.testing.assert_array_equal(masks, shapes.simulate(kind, COUNT, SIZE, seed=1))
    assert len({mask.tobytes() for mask in masks}) == COUNT
    assert not np.array_equal(masks, shapes.simulate(kind, COUNT, SIZE, seed=2))


def test_parts(simulated):
    """Two lungs, one disc, one fovea; vessels hang together but for the thinnest."""
    kind, masks = simulated
    for mask in masks:
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
        if kind == "vessels":
            whole, _ = ndimage.label(ndimage.binary_dilation(mask, np.ones((3, 3))))  # the thinnest lose pixels at this size
            assert np.bincount(whole[mask])[1:].max() > 0.95 * mask.sum()
        elif kind == "lungs":
            assert sizes[1] > 0.25 * mask.sum()
            assert sizes[:2].sum() > 0.98 * mask.sum()
        else:
            assert count == 1


def test_vessels_are_thin_and_lungs_are_not():
    """The share of a shape that is further than 4 % of the side from its border."""
    deep = {
        kind: np.mean([(ndimage.distance_transform_edt(m) > 0.04 * SIZE).sum() / m.sum() for m in shapes.simulate(kind, 4, SIZE, 0)])
        for kind in SHARES
    }
    assert deep["vessels"] < 0.01
    assert deep["lungs"] > 0.2


def test_anatomy_of_the_eye():
    """The fovea lies 2.5 disc diameters from the disc's centre, towards the centre of the image, and mostly lower."""
    eyes = [shapes.place_eye(np.random.default_rng(seed)) for seed in range(200)]
    distance = [np.hypot(e.fovea[0] - e.disc[0], e.fovea[1] - e.disc[1]) / (2 * e.radius) for e in eyes]
    assert 2.2 < np.mean(distance) < 2.8
    assert all((e.fovea[1] - e.disc[1]) * (0.5 - e.disc[1]) > 0 for e in eyes)
    assert np.mean([e.fovea[0] > e.disc[0] for e in eyes]) > 0.9
    assert 0.3 < np.mean([e.disc[1] > 0.5 for e in eyes]) < 0.7
    centre = ndimage.center_of_mass(shapes.optic_disc(5, 256))
    disc = shapes.place_eye(np.random.default_rng(5)).disc
    np.testing.assert_allclose(np.array(centre) / 256, disc, atol=0.01)


def test_the_heart_narrows_the_lung_on_the_right():
    masks = shapes.simulate("lungs", 20, SIZE, 0)
    left, right = masks[:, :, : SIZE // 2].sum((1, 2)), masks[:, :, SIZE // 2 :].sum((1, 2))
    assert np.mean(right < left) > 0.7


def test_a_kind_that_does_not_exist():
    with pytest.raises(UserError, match=r"no simulator of 'bones'; choose one of vessels"):
        shapes.simulate("bones", 1, 8, 0)
