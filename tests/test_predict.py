"""Sliding windows: every pixel is covered, blending adds nothing of its own, batches are padded and divided."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from medssl_jax.downstream.predict import batched, blending, segment, window_corners
from medssl_jax.train.mesh import make_mesh


def by_value(images: np.ndarray) -> np.ndarray:
    """Foreground where a pixel is bright: a predictor that looks at nothing else."""
    bright = images[..., :1] / 255.0
    return np.concatenate([1 - bright, bright], axis=-1)


@pytest.mark.parametrize("shape", [(50, 80), (16, 16), (9, 40), (33, 5)])
def test_pixelwise_answers_survive_windows_and_borders(shape, rng):
    images = [rng.integers(0, 256, (*shape, 1)).astype(np.uint8) for _ in range(2)]
    found = list(segment(by_value, images, 16))
    for image, classes in zip(images, found, strict=True):
        np.testing.assert_array_equal(classes, image[..., 0] > 127)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_windows_cover_every_pixel(overlap):
    covered = np.zeros((37, 61), int)
    for y, x in window_corners(37, 61, 16, overlap):
        covered[y : y + 16, x : x + 16] += 1
    assert covered.min() >= 1
    assert covered.shape == (37, 61)


def test_a_window_counts_most_in_its_middle_and_everywhere():
    weights = blending(16)
    assert weights.min() > 0
    assert weights[7:9, 7:9].min() == weights.max()


def test_batches_are_padded_and_divided_over_devices(rng):
    images = rng.integers(0, 256, (11, 4, 4, 1)).astype(np.uint8)
    seen = []

    def predict(params, carried, x):
        seen.append(x.sharding.num_devices)
        return x.astype(np.float32).mean((1, 2, 3)) + params

    run = batched(predict, 1.0, None, make_mesh(jax.devices()[:4]), 8)
    np.testing.assert_allclose(run(images), images.mean((1, 2, 3)) + 1, rtol=1e-6)
    assert seen == [4, 4]


@pytest.mark.parametrize(("side", "windows", "mirrored"), [(16, 1, False), (31, 9, False), (32, 16, True)])
def test_only_large_images_are_mirrored_outwards(side, windows, mirrored):
    """A window of a small image shows nothing that is not in the image; beyond a large one lies its mirror image."""
    image = np.arange(side * side, dtype=np.uint16).reshape(side, side, 1)
    seen = []

    def predict(images):
        seen.extend(images)
        return by_value(images)

    next(segment(predict, [image], 16))
    assert len(seen) == windows
    repeated = [len(np.unique(window)) < window.size for window in seen]
    assert any(repeated) == mirrored
