"""Crops, poses and rotations, against NumPy and the coordinates they promise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medssl_jax import augment
from medssl_jax.errors import UserError

KEYS = jax.random.split(jax.random.key(0), 4)
BOXES = jnp.float32([[0, 0, 24, 20], [3.25, 2.5, 9, 11], [10, 1, 14, 18], [5.5, 5.5, 8, 8]])


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (4, 24, 20, 2))


def triangle_filter(length, start, extent, size):
    """Weights [size, length] of linear interpolation, widened by the factor by which it shrinks, each row summing to 1."""
    weights = np.zeros((size, length))
    for i in range(size):
        for j in range(length):
            centre = start + (i + 0.5) * extent / size
            weights[i, j] = max(0.0, 1 - abs(centre - (j + 0.5)) / max(extent / size, 1))
    return weights / weights.sum(1, keepdims=True)


def test_integers_become_shares_of_the_largest_value():
    np.testing.assert_allclose(augment.to_unit(jnp.uint8([0, 51, 255])), [0, 0.2, 1], atol=1e-7)
    np.testing.assert_allclose(augment.to_unit(np.array([0, 13107, 65535], np.uint16)), [0, 0.2, 1], atol=1e-7)
    with pytest.raises(UserError, match="uint8 or uint16, not float32"):
        augment.to_unit(jnp.zeros(3))


@pytest.mark.parametrize("size", [7, 16])
def test_a_crop_is_antialiased_linear_interpolation(images, size):
    out = jax.jit(augment.crop_and_resize, static_argnums=2)(images, BOXES, size)
    for image, (y, x, h, w), got in zip(np.asarray(images), np.asarray(BOXES), out):
        rows, columns = triangle_filter(24, y, h, size), triangle_filter(20, x, w, size)
        np.testing.assert_allclose(got, np.einsum("ia,abc,jb->ijc", rows, image, columns), atol=2e-6)


def test_the_whole_image_at_its_size_is_the_image(images):
    square = images[:, :20]
    np.testing.assert_allclose(augment.crop_and_resize(square, jnp.tile(jnp.float32([[0, 0, 20, 20]]), (4, 1)), 20), square, atol=1e-7)


def test_boxes_are_inside_with_uniform_area_and_allowed_ratio():
    keys = jax.random.split(jax.random.key(2), 4000)
    y, x, h, w = np.asarray(augment.sample_boxes(keys, 30, 40, (0.2, 1.0), (0.75, 4 / 3))).T
    assert min(y.min(), x.min()) >= 0
    assert (y + h).max() <= 30 + 1e-4
    assert (x + w).max() <= 40 + 1e-4
    share = h * w / 1200
    np.testing.assert_allclose(np.quantile(share, [0, 0.25, 0.5, 0.75, 1]), [0.2, 0.4, 0.6, 0.8, 1.0], atol=0.03)
    small = share < 0.5  # there all ratios fit
    assert 0.75 - 1e-4 <= (w / h)[small].min() < 0.77
    assert 1.3 < (w / h)[small].max() <= 4 / 3 + 1e-4
    assert abs(np.log(w / h)[small].mean()) < 0.02


def test_labels_are_read_under_the_pixel_centres_of_the_image_crop():
    ids = jnp.tile(jnp.arange(24 * 20).reshape(1, 24, 20), (4, 1, 1))
    labels = np.asarray(augment.crop_labels(ids, BOXES, 9))
    where = np.asarray(augment.source_coordinates(BOXES, jnp.zeros(4, jnp.int32), 9))
    assert labels.dtype == np.int32
    assert np.array_equal(labels, np.floor(where[..., 0]) * 20 + np.floor(where[..., 1]))


def test_pixels_keep_their_source_coordinates():
    y, x = jnp.meshgrid(jnp.arange(40) + 0.5, jnp.arange(40) + 0.5, indexing="ij")
    picture = jnp.tile(jnp.stack([y, x], -1)[None], (8, 1, 1, 1))
    boxes = jnp.tile(jnp.float32([[6.3, 9.1, 15, 11.5]]), (8, 1))
    pose = jnp.arange(8)
    seen = augment.dihedral(augment.crop_and_resize(picture, boxes, 16), pose)
    np.testing.assert_allclose(augment.source_coordinates(boxes, pose, 16), seen, atol=2e-5)


def test_poses_are_quarter_turns_then_a_mirror(images):
    square = jnp.tile(images[:1, :20], (8, 1, 1, 1))
    posed = augment.dihedral(square, jnp.arange(8))
    for pose in range(8):
        turned = np.rot90(np.asarray(square[0]), pose % 4)
        assert np.array_equal(posed[pose], turned[:, ::-1] if pose >= 4 else turned), pose
    assert np.array_equal(augment.dihedral(square[..., 0], jnp.arange(8)), posed[..., 0])
    assert np.array_equal(augment.dihedral(posed, augment.inverse_pose(jnp.arange(8))), square)
    with pytest.raises(UserError, match="square images, not 24 x 20"):
        augment.dihedral(images, jnp.arange(4))


@pytest.mark.parametrize(
    ("allowed", "poses"),
    [
        ((True, True, True), range(8)),
        ((True, False, False), range(4)),
        ((False, True, True), (0, 2, 4, 6)),
        ((False, True, False), (0, 4)),
        ((False, False, True), (0, 6)),
        ((False, False, False), (0,)),
    ],
)
def test_random_poses_are_uniform_over_the_allowed_ones(allowed, poses):
    keys = jax.random.split(jax.random.key(3), 4000)
    drawn = augment.random_pose(keys, rotate=allowed[0], horizontal=allowed[1], vertical=allowed[2])
    share = np.bincount(drawn, minlength=8) / 4000
    np.testing.assert_allclose(share, np.isin(np.arange(8), list(poses)) / len(poses), atol=0.03)


def test_rotation_is_counterclockwise_bilinear_and_mirrored(images):
    square = images[:3, :20]
    degrees = jnp.float32([0, 90, 20])
    turned, labels = augment.rotate(square, degrees), augment.rotate_labels((square[..., 0] * 99).astype(jnp.int32), degrees)
    np.testing.assert_allclose(turned[0], square[0], atol=1e-6)
    np.testing.assert_allclose(turned[1], np.rot90(square[1]), atol=1e-5)
    assert np.array_equal(labels[1], np.rot90((np.asarray(square[1, ..., 0]) * 99).astype(int)))
    padded = np.pad(np.asarray(square[2]), ((20, 20), (20, 20), (0, 0)), "symmetric")
    cos, sin = np.cos(np.deg2rad(20)), np.sin(np.deg2rad(20))
    for i, j in [(0, 0), (3, 17), (10, 9), (19, 19)]:
        dy, dx = i - 9.5, j - 9.5
        y, x = cos * dy + sin * dx + 9.5 + 20, cos * dx - sin * dy + 9.5 + 20
        a, b = int(np.floor(y)), int(np.floor(x))
        fy, fx = y - a, x - b
        weights = np.outer([1 - fy, fy], [1 - fx, fx])
        expected = np.einsum("ij,ijc->c", weights, padded[a : a + 2, b : b + 2])
        np.testing.assert_allclose(turned[2, i, j], expected, atol=1e-4)
        assert labels[2, i, j] == int(np.float32(padded[int(np.rint(y)), int(np.rint(x)), 0]) * np.float32(99))


def test_an_example_depends_on_its_own_key_only(images):
    crop = jax.jit(lambda keys, x: augment.random_resized_crop(keys, x, 8, (0.3, 1.0), (0.75, 1.33)))
    together, boxes = crop(KEYS, images)
    alone, box = crop(KEYS[2:3], images[2:3])
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)
    np.testing.assert_allclose(boxes[2:3], box, atol=1e-5)
    assert len(np.unique(np.asarray(boxes)[:, 0])) == 4


def test_bad_ranges_are_told():
    with pytest.raises(UserError, match="crop scale"):
        augment.sample_boxes(KEYS, 20, 20, (0.5, 1.5), (1, 1))
    with pytest.raises(UserError, match="crop ratio"):
        augment.sample_boxes(KEYS, 20, 20, (0.5, 1.0), (2, 1))
