"""Areas and overlaps of boxes, against counting pixels."""

from __future__ import annotations

import numpy as np
import pytest

from medssl_jax.figures.boxes import apart, area, clip, extent, intersection, iou, matches

SIDE = 40


def boxes_of(rng, count):
    low = rng.integers(0, SIDE - 2, (count, 2))
    return np.concatenate([low, low + rng.integers(1, SIDE - low)], axis=1).astype(np.float32)


def painted(boxes):
    """Which pixels each box covers, bool [N, SIDE, SIDE]."""
    masks = np.zeros((len(boxes), SIDE, SIDE), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int)):
        mask[y0:y1, x0:x1] = True
    return masks


def test_overlaps_are_counted_pixels(rng):
    first, second = boxes_of(rng, 30), boxes_of(rng, 20)
    a, b = painted(first), painted(second)
    both = np.einsum("nyx,myx->nm", a.astype(int), b.astype(int))
    either = (a[:, None] | b[None]).sum((2, 3))
    np.testing.assert_array_equal(area(first), a.sum((1, 2)))
    np.testing.assert_array_equal(intersection(first, second), both)
    np.testing.assert_allclose(iou(first, second), both / either)


def test_no_boxes_and_boxes_without_extent():
    none, point = np.zeros((0, 4), np.float32), np.float32([[3, 3, 3, 3]])
    assert iou(none, point).shape == (0, 1)
    assert iou(point, point) == 0
    assert area(np.float32([[5, 5, 2, 9]])) == 0


def test_what_lies_outside_is_cut_off():
    cut = clip(np.float32([[-3, 4, 50, 9]]), (0, 5, 40, 40))
    np.testing.assert_array_equal(cut, [[0, 5, 40, 9]])
    assert cut.dtype == np.float32
    assert extent(np.float32([[3, 4, 5, 6], [1, 5, 2, 9]])) == (1, 4, 5, 9)


@pytest.mark.parametrize(("threshold", "pairs"), [(0.5, [(0, 0), (1, 1)]), (0.7, [(0, 0)]), (0.9, [])])
def test_the_surest_box_takes_the_panel(threshold, pairs):
    """The first box overlaps most with panel 0; the second would too, but has to take the other."""
    panels = np.float32([[0, 0, 10, 10], [0, 3, 10, 13]])
    found = np.float32([[0, 0, 10, 9], [0, 1, 10, 11], [0, 0, 10, 10]])
    expected = np.array(pairs).reshape(-1, 2).T
    if threshold == 0.9:
        found = found[1:2]
    np.testing.assert_array_equal(matches(panels, found, threshold), expected)


def test_of_boxes_within_others_the_surest_stays():
    """A panel, a part of it, both panels at once, the other panel, and one that shares just half of the smaller with the first."""
    found = np.float32([[0, 0, 100, 100], [10, 10, 60, 60], [0, 0, 210, 100], [110, 0, 210, 100], [50, 0, 150, 100]])
    assert apart(found).tolist() == [True, False, False, True, True]
    assert apart(found[[0, 3]]).all()
    assert apart(found[[0, 4]]).all()
    assert apart(found[[1, 0, 3]]).tolist() == [True, False, True]
    assert apart(found[:0]).shape == (0,)
