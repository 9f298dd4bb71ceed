"""The cut along blank lines: near perfect where there are gaps, on any ground; one piece where panels touch."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from medssl_jax.figures.boxes import iou, matches
from medssl_jax.figures.xycut import xycut

WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (248, 248, 246)


def texture(rng, height, width):
    """Something like a micrograph: blobs of several sizes, of all brightnesses but the extremes."""
    low = Image.fromarray(rng.integers(50, 205, (max(2, height // 12), max(2, width // 12), 3), dtype=np.uint8))
    return np.asarray(low.resize((width, height), Image.Resampling.BICUBIC)).clip(45, 210)


def grid(rng, rows=2, columns=3, gap=8, margin=10, side=120, ground=WHITE):
    """A figure of equal panels and their boxes."""
    steps = [np.arange(count) * (side + gap) + margin for count in (rows, columns)]
    height, width = (int(at[-1]) + side + margin for at in steps)
    image = np.full((height, width, 3), ground, np.uint8)
    boxes = np.float32([(x, y, x + side, y + side) for y in steps[0] for x in steps[1]])
    for x0, y0, x1, y1 in boxes.astype(int):
        image[y0:y1, x0:x1] = texture(rng, side, side)
    return image, boxes


def jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def written(image, places, text, ink):
    picture = Image.fromarray(image)
    for place in places:
        ImageDraw.Draw(picture).text(place, text, fill=ink)
    return np.asarray(picture)


def assert_cut(image, boxes, least=0.95):
    found, scores = xycut(image)
    assert found.dtype == scores.dtype == np.float32
    assert len(found) == len(boxes)
    assert len(matches(boxes, found, least)[0]) == len(boxes), iou(boxes, found).max(axis=1)


@pytest.mark.parametrize("ground", [WHITE, BLACK, GREY])
@pytest.mark.parametrize("gap", [3, 12])
def test_panels_with_gaps(rng, ground, gap):
    image, boxes = grid(rng, gap=gap, ground=ground)
    assert_cut(image, boxes, 0.99)
    assert_cut(jpeg(image, 60), boxes)


@pytest.mark.parametrize("ground", [WHITE, BLACK])
def test_panels_without_a_margin(rng, ground):
    """The border of the figure is that of its images, so it does not tell the ground."""
    assert_cut(*grid(rng, margin=0, gap=5, ground=ground))


def test_noise_on_the_ground(rng):
    image, boxes = grid(rng)
    noisy = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    assert_cut(noisy, boxes)


def test_rows_of_other_widths_need_a_second_cut(rng):
    image = np.full((260, 400, 3), 255, np.uint8)
    boxes = np.float32([[0, 0, 195, 125], [205, 0, 400, 125], [0, 135, 260, 260], [270, 135, 400, 260]])
    for x0, y0, x1, y1 in boxes.astype(int):
        image[y0:y1, x0:x1] = texture(rng, y1 - y0, x1 - x0)
    assert_cut(image, boxes)


def test_letters_above_panels_are_no_part_of_them(rng):
    image, boxes = grid(rng, gap=22, margin=20)
    letters = [(x0, y0 - 14) for x0, y0, _, _ in boxes]
    assert_cut(written(image, letters, "A", BLACK), boxes, 0.99)


def test_letters_as_high_as_the_gap_do_not_close_it(rng):
    """A letter in front of each panel leaves no blank column between them."""
    image, boxes = grid(rng, rows=1, columns=3, gap=10)
    blocked = image.copy()
    for x0, y0, _, _ in boxes[1:].astype(int):
        blocked[y0 + 3 : y0 + 12, x0 - 10 : x0] = 0
    assert_cut(blocked, boxes, 0.9)


def plot(rng, height=150, width=200):
    """Axes with a curve, numbers beside and below them, and blank paper between."""
    picture = Image.new("RGB", (width, height), WHITE)
    draw = ImageDraw.Draw(picture)
    draw.line([(30, 5), (30, height - 30), (width - 5, height - 30)], fill=BLACK)
    draw.line([(30 + 8 * k, int(y)) for k, y in enumerate(rng.uniform(20, height - 40, 20))], fill=(200, 30, 30), width=2)
    for k in range(4):
        draw.text((4, 10 + 28 * k), f"{40 - 10 * k}", fill=BLACK)
        draw.text((40 + 40 * k, height - 22), f"{k}.5", fill=BLACK)
    return np.asarray(picture)


def test_a_plot_keeps_its_labels(rng):
    image = np.full((170, 470, 3), 255, np.uint8)
    image[10:160, 10:210], image[10:160, 240:440] = plot(rng), texture(rng, 150, 200)
    found, _ = xycut(image)
    assert len(found) == 2
    x0, _, x1, y1 = found[found[:, 0].argmin()]
    assert x0 < 20  # the numbers beside the axis
    assert y1 > 140  # and below it
    assert x1 < 220


def test_touching_panels_are_one(rng):
    image, _ = grid(rng, gap=0, margin=0)
    found, _ = xycut(image)
    np.testing.assert_array_equal(found, [[0, 0, image.shape[1], image.shape[0]]])


def test_dark_parts_of_an_image_are_no_gap(rng):
    """Fluorescence: bright spots on black, with whole rows and columns of black between them."""
    image = np.zeros((300, 400, 3), np.uint8)
    y, x = np.ogrid[:300, :400]
    for row, column in [(40, 60), (50, 330), (230, 80), (240, 300), (140, 200)]:
        spot = 220 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 200)
        image[:, :, 1] = np.maximum(image[:, :, 1], spot)
    assert len(xycut(image)[0]) == 1


def test_a_large_figure(rng):
    image, boxes = grid(rng, rows=2, columns=2, gap=40, margin=30, side=1500)
    assert_cut(image, boxes)


def test_slivers_are_less_sure(rng):
    image = np.full((220, 420, 3), 255, np.uint8)
    image[10:210, 10:210], image[10:210, 230:260] = texture(rng, 200, 200), texture(rng, 200, 30)
    found, scores = xycut(image)
    np.testing.assert_array_equal(found, [[10, 10, 210, 210], [230, 10, 260, 210]])
    np.testing.assert_allclose(scores, [1, 0.15])


@pytest.mark.parametrize("ground", [WHITE, BLACK, GREY])
def test_a_blank_figure_has_no_panel(ground):
    found, scores = xycut(np.full((50, 60, 3), ground, np.uint8))
    assert (found.shape, scores.shape) == ((0, 4), (0,))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2)])
def test_tiny_figures(shape):
    found, _ = xycut(np.full((*shape, 3), 128, np.uint8))
    assert found.shape[1] == 4
