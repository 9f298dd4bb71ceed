"""Panels with their letters and labels."""

from __future__ import annotations

import numpy as np

from medssl_jax.figures.content import with_labels


def figure(ground=255):
    """Two images side by side on an even ground, each with a letter above its left corner and a label below."""
    image = np.full((160, 400, 3), ground, np.uint8)
    for x in (30, 220):
        image[30:130, x : x + 140] = 90
        image[10:22, x - 12 : x - 4] = 160 - ground // 3
        image[140:150, x + 50 : x + 90] = 160 - ground // 3
    return image, np.array([[30, 30, 170, 130], [220, 30, 360, 130]], np.float32)


def test_a_box_takes_in_the_letter_and_the_label_of_its_panel():
    for ground in (255, 0):
        image, boxes = figure(ground)
        np.testing.assert_array_equal(with_labels(image, boxes), [[18, 10, 170, 150], [208, 10, 360, 150]])


def test_boxes_never_shrink():
    image, boxes = figure()
    wider = boxes + np.float32([-3, -25, 3, 25])
    grown = with_labels(image, wider)
    assert (grown[:, :2] <= wider[:, :2]).all()
    assert (grown[:, 2:] >= wider[:, 2:]).all()


def test_boxes_that_no_line_parts_stay_as_they_are():
    image, _ = figure()
    pinwheel = np.float32([[0, 0, 250, 60], [250, 0, 400, 100], [150, 100, 400, 160], [0, 60, 150, 160]])
    np.testing.assert_array_equal(with_labels(image, pinwheel), pinwheel)
    assert with_labels(image, np.zeros((0, 4))).shape == (0, 4)


def test_one_box_takes_in_the_figure_only_where_it_is_most_of_it():
    image, boxes = figure()
    np.testing.assert_array_equal(with_labels(image, boxes[:1]), boxes[:1])
    np.testing.assert_array_equal(with_labels(image[:, :200], boxes[:1]), [[18, 10, 170, 150]])
