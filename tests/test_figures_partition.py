"""Cells of recursive cuts: the reference's values, the identity on the challenge's own boxes, and the order of reading."""

from __future__ import annotations

import numpy as np
import pytest

from medssl_jax.figures.boxes import extent, iou
from medssl_jax.figures.clef import read_panels
from medssl_jax.figures.partition import partition, reading_order, snap

TIGHT = np.float32([[10, 10, 90, 90], [110, 10, 190, 90], [10, 110, 190, 190]])
CELLS = np.float32([[0, 0, 99, 99], [102, 0, 200, 99], [0, 102, 200, 200]])
CANVAS = (0, 0, 200, 200)
WINDMILL = np.float32([[0, 0, 60, 30], [70, 0, 100, 60], [40, 70, 100, 100], [0, 40, 30, 100]])


def random_cells(rng, cell, depth):
    """A recursive cut with 3 px between cells, drawn at random."""
    x0, y0, x1, y1 = cell
    side = (y1 - y0, x1 - x0)[axis := int(rng.integers(2))]
    if depth == 0 or side < 60:
        return [cell]
    at = int(rng.integers(25, side - 30))
    halves = ((x0, y0, x1, y0 + at), (x0, y0 + at + 3, x1, y1)) if axis == 0 else ((x0, y0, x0 + at, y1), (x0 + at + 3, y0, x1, y1))
    return [leaf for half in halves for leaf in random_cells(rng, half, depth - 1)]


def test_the_values_of_the_reference():
    np.testing.assert_array_equal(partition(TIGHT, CANVAS), CELLS)
    np.testing.assert_array_equal(partition(CELLS, CANVAS), CELLS)


def test_boxes_keep_their_order():
    order = [2, 0, 1]
    np.testing.assert_array_equal(partition(TIGHT[order], CANVAS), CELLS[order])


def test_one_box_is_the_canvas_and_no_box_is_none():
    np.testing.assert_array_equal(partition(TIGHT[:1], CANVAS), [CANVAS])
    assert partition(np.zeros((0, 4), np.float32), CANVAS).shape == (0, 4)


def test_no_straight_line_through_a_windmill():
    np.testing.assert_array_equal(partition(WINDMILL, (0, 0, 100, 100)), WINDMILL)


def test_what_is_beside_a_windmill_is_cut_off():
    boxes = np.concatenate([WINDMILL, [[120, 0, 150, 100]]]).astype(np.float32)
    cells = partition(boxes, (0, 0, 160, 100))
    np.testing.assert_array_equal(cells[:4], WINDMILL)
    np.testing.assert_array_equal(cells[4], [112, 0, 160, 100])


@pytest.mark.parametrize(("overlap", "apart"), [(2, True), (3, False)])
def test_neighbours_may_overlap_by_two_pixels(overlap, apart):
    boxes = np.float32([[0, 0, 100, 50], [100 - overlap, 0, 200, 50]])
    assert np.array_equal(partition(boxes, (0, 0, 200, 50)), boxes) != apart


def test_a_cut_leaves_room_on_both_sides():
    """Overlapping slivers at the edge of the canvas would be cut into cells without extent."""
    boxes = np.float32([[0, 0, 1, 50], [0, 0, 2, 50]])
    np.testing.assert_array_equal(partition(boxes, (0, 0, 200, 50)), boxes)


def test_random_cuts_are_found_again(rng):
    for _ in range(60):
        cells = np.float32(random_cells(rng, (0, 0, 640, 480), 4))
        shrunk = cells + rng.uniform(0, 8, cells.shape).astype(np.float32) * [1, 1, -1, -1]
        found = partition(shrunk, (0, 0, 640, 480))
        assert np.diag(iou(found, found)).all()
        assert (iou(found, found)[~np.eye(len(cells), dtype=bool)] == 0).all()
        assert ((found[:, :2] <= shrunk[:, :2] + 3) & (found[:, 2:] >= shrunk[:, 2:] - 3)).all()
        np.testing.assert_array_equal(partition(cells, (0, 0, 640, 480)), cells)


def test_the_challenges_own_boxes_are_their_partition(datasets):
    figures = read_panels(datasets / "panel_layouts" / "imageclef2016_training_boxes.csv")
    same = [np.array_equal(partition(boxes, extent(boxes)), boxes) for boxes in figures.values()]
    assert (sum(same), len(same)) == (6782, 6782)


def test_detections_snap_to_the_cut_they_agree_with():
    """Detections that overlap by 10 px are no partition of their own."""
    detections = np.float32([[2, 1, 105, 92], [95, 3, 199, 95], [1, 98, 197, 199]])
    np.testing.assert_array_equal(partition(detections, CANVAS)[:2], detections[:2])
    snapped = snap(detections, CANVAS)
    assert (snapped[1, 0] - snapped[0, 2], snapped[2, 1] - snapped[0, 3]) == (3, 3)
    assert (np.diag(iou(snapped, detections)) > 0.85).all()


def test_detections_that_no_cut_fits_are_kept():
    small = np.float32([[90, 90, 110, 110], [180, 180, 195, 195]])
    np.testing.assert_array_equal(snap(small, CANVAS), small)
    np.testing.assert_array_equal(snap(WINDMILL, (0, 0, 100, 100)), WINDMILL)
    assert snap(np.zeros((0, 4), np.float32), CANVAS).shape == (0, 4)


def test_reading_order_is_by_rows():
    rows = np.float32([[0, 5, 40, 50], [50, 0, 90, 50], [100, 4, 140, 50], [0, 60, 70, 99], [75, 62, 140, 99]])
    mixed = [3, 2, 0, 4, 1]
    np.testing.assert_array_equal(np.array(mixed)[reading_order(rows[mixed], 100)], [0, 1, 2, 3, 4])
    assert reading_order(np.zeros((0, 4)), 100).shape == (0,)


def test_a_row_is_five_percent_of_the_height():
    boxes = np.float32([[50, 0, 90, 50], [0, 6, 40, 50]])
    assert reading_order(boxes, 100).tolist() == [0, 1]
    assert reading_order(boxes, 200).tolist() == [1, 0]
