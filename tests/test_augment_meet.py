"""Two crops meet where they should: the same places of the image, whatever the crops and poses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medssl_jax.augment import geometry, meet

SIDE, SIZE, CELLS = 60, 24, 4


def test_overlap_by_hand():
    first, second = jnp.float32([[0, 0, 10, 10], [0, 0, 4, 4]]), jnp.float32([[4, 6, 10, 3], [5, 5, 4, 4]])
    np.testing.assert_array_equal(meet.overlap(first, second), [[4, 6, 6, 3], [5, 5, 0, 0]])
    moved, common = meet.meeting_boxes(first, second, 0.25)
    np.testing.assert_array_equal(moved, [[4, 6, 10, 3], [0, 0, 4, 4]])
    np.testing.assert_array_equal(common, [[4, 6, 6, 3], [0, 0, 4, 4]])


def test_the_whole_map_is_average_pooling(rng):
    maps = rng.random((2, 12, 12, 3), np.float32)
    whole = np.tile(np.float32([0, 0, 12, 12]), (2, 1))
    expected = maps.reshape(2, 4, 3, 4, 3, 3).mean((2, 4))
    np.testing.assert_allclose(meet.pool_cells(maps, whole, 4), expected, rtol=1e-5)


def test_cells_that_cut_pixels_against_numpy(rng):
    """A fine grid of points in each cell, each reading the pixel it lies in."""
    maps = rng.random((1, 9, 9, 1), np.float32)
    y0, x0, height, width = box = (1.3, 0.4, 5.2, 7.1)
    found = np.asarray(meet.pool_cells(maps, jnp.float32([box]), 3))[0, ..., 0]
    share = (np.arange(3000) + 0.5) / 3000
    rows, columns = (np.floor(start + share * length).astype(int) for start, length in ((y0, height), (x0, width)))
    expected = maps[0, rows[:, None], columns[None, :], 0].reshape(3, 1000, 3, 1000).mean((1, 3))
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_matched_cells_are_the_same_places(seed):
    """The source coordinates of each view's pixels, turned upright and pooled over the common part, are that part's cells in both."""
    keys = jax.random.split(jax.random.key(seed), 16)
    first, second = (
        geometry.sample_boxes(jax.random.split(jax.random.key(10 * seed + k), 16), SIDE, SIDE, (0.3, 1.0), (0.75, 1.33)) for k in (1, 2)
    )
    second, common = meet.meeting_boxes(first, second, 0.25)
    assert (common[:, 2:] > 0).all()
    expected = meet.centres(common, CELLS)
    for number, boxes in enumerate((first, second)):
        pose = geometry.random_pose(jax.vmap(jax.random.fold_in, (0, None))(keys, number))
        coordinates = geometry.source_coordinates(boxes, pose, SIZE)
        upright = geometry.dihedral(coordinates, geometry.inverse_pose(pose))
        found = meet.pool_cells(upright, meet.within(common, boxes, SIZE), CELLS)
        pixel = boxes[:, 2:].max() / SIZE
        assert np.abs(found - expected).max() < 0.5 * pixel


def test_every_pose_is_undone_exactly(rng):
    images = rng.random((8, 5, 5, 2), np.float32)
    pose = jnp.arange(8)
    np.testing.assert_array_equal(geometry.dihedral(geometry.dihedral(images, pose), geometry.inverse_pose(pose)), images)
