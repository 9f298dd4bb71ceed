"""Plots that a figure may hold beside its images: lines, points, bars, boxes, histograms, heat maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from medssl_jax.figures.axes import Rng, axes, legend, numbers
from medssl_jax.figures.letters import BLACK, Color
from medssl_jax.figures.pen import Area, Pen, groups, quantity

ERRORS = 0.5  # share of lines with error bars
MAPS: tuple[tuple[Color, ...], ...] = (
    ((0, 0, 130), (0, 160, 255), (130, 255, 130), (255, 160, 0), (130, 0, 0)),
    ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)),
    ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43)),
    ((255, 255, 255), (252, 187, 161), (251, 106, 74), (203, 24, 29), (103, 0, 13)),
    ((0, 90, 0), (0, 200, 0), (0, 0, 0), (200, 0, 0), (255, 40, 40)),
)


def lines(pen: Pen, rng: Rng, area: Area) -> None:
    """Curves, as steps or with markers and error bars."""
    x0, y0, x1, y1 = axes(pen, rng, area)
    count, points = int(rng.integers(1, 5)), int(rng.choice((5, 7, 9, 40)))
    errors, stepped = rng.random() < ERRORS and points < 10, points == 40 and rng.random() < 0.4
    x = np.linspace(x0, x1, points)
    for k in range(count):
        y = y1 - (y1 - y0) * _curve(rng, points)
        path = list(zip(np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1])) if stepped else list(zip(x, y))
        pen.line(*path, ink=pen.color(k), width=1.5)
        for px, py in zip(x, y) if points < 10 else ():
            if errors:
                reach = rng.uniform(0.01, 0.08) * (y1 - y0)
                pen.line((px, py - reach), (px, py + reach), ink=pen.color(k))
            pen.disc(px, py, pen.size * 0.3, pen.color(k), BLACK)
    legend(pen, rng, (x0, y0, x1, y1), count)


def _curve(rng: Rng, points: int) -> np.ndarray:
    """Values in [0, 1]: rising to a level, falling, a peak, or wandering."""
    t, kind = np.linspace(0, 1, points), rng.integers(4)
    if kind == 0:
        y = 1 / (1 + np.exp(-rng.uniform(4, 12) * (t - rng.uniform(0.2, 0.7))))
    elif kind == 1:
        y = np.exp(-rng.uniform(1, 6) * t)
    elif kind == 2:
        y = np.exp(-(((t - rng.uniform(0.2, 0.8)) / rng.uniform(0.1, 0.4)) ** 2))
    else:
        y = 0.5 + np.cumsum(rng.normal(0, 0.1, points))
    return np.clip(rng.uniform(0.4, 0.9) * y + rng.normal(0, 0.01, points) + 0.05, 0, 1)


def points(pen: Pen, rng: Rng, area: Area) -> None:
    """Clouds of points, some along a line."""
    x0, y0, x1, y1 = axes(pen, rng, area)
    radius = pen.size * rng.uniform(0.12, 0.3)
    count = int(rng.integers(1, 4))
    for k in range(count):
        spread, middle, slope = rng.uniform(0.05, 0.15), rng.uniform(0.3, 0.7, 2), rng.uniform(-1, 1)
        shift = rng.normal(0, spread, (int(rng.integers(15, 70)), 2))
        shift[:, 1] += slope * shift[:, 0]
        for u, v in np.clip(middle + shift, 0, 1):
            pen.disc(x0 + u * (x1 - x0), y1 - v * (y1 - y0), radius, pen.color(k))
    legend(pen, rng, (x0, y0, x1, y1), count)


def bars(pen: Pen, rng: Rng, area: Area) -> None:
    """Groups of bars with error bars and stars."""
    names, series = groups(rng, int(rng.integers(2, 7))), int(rng.integers(1, 4))
    x0, y0, x1, y1 = axes(pen, rng, area, names)
    errors, bin_width = rng.random() < 0.8, (x1 - x0) / len(names)
    wide = bin_width * rng.uniform(0.5, 0.9) / series
    for g in range(len(names)):
        for k in range(series):
            x = x0 + bin_width * (g + 0.5) + wide * (k - series / 2)
            y = y1 - (y1 - y0) * rng.uniform(0.1, 0.85)
            pen.box(x, y, x + wide, y1, pen.color(k if series > 1 else g % 2))
            if errors:
                top = y - (y1 - y0) * rng.uniform(0.02, 0.08)
                pen.line((x + wide / 2, y), (x + wide / 2, top))
                pen.line((x + wide / 4, top), (x + 0.75 * wide, top))
                if rng.random() < 0.25:
                    pen.text("*" * int(rng.integers(1, 4)), (x + wide / 2, top), (0.5, 1))
    if series > 1:
        legend(pen, rng, (x0, y0, x1, y1), series)


def boxes(pen: Pen, rng: Rng, area: Area) -> None:
    """Quartiles, whiskers and what lies beyond them."""
    names = groups(rng, int(rng.integers(2, 6)))
    x0, y0, x1, y1 = axes(pen, rng, area, names)
    for k in range(len(names)):
        x, wide = x0 + (x1 - x0) * (k + 0.5) / len(names), (x1 - x0) / len(names) * 0.3
        low, first, middle, third, high = y1 - (y1 - y0) * np.sort(rng.uniform(0.02, 0.8, 5))
        pen.line((x, low), (x, high))
        pen.box(x - wide, third, x + wide, first, pen.color(k))
        pen.line((x - wide, middle), (x + wide, middle), width=2)
        for y in rng.uniform(y0, high, int(rng.integers(0, 6))):
            pen.disc(x, y, pen.size * 0.15, BLACK)


def histogram(pen: Pen, rng: Rng, area: Area) -> None:
    """Bars without a space between."""
    x0, y0, x1, y1 = axes(pen, rng, area)
    values = np.histogram(rng.normal(0, 1, 300), int(rng.integers(8, 30)))[0]
    edges = np.linspace(x0, x1, len(values) + 1)
    for left, right, value in zip(edges[:-1], edges[1:], values):
        pen.box(left, y1 - 0.9 * (y1 - y0) * value / values.max(), right, y1, pen.color(0), BLACK if len(values) < 15 else None)


def heat(pen: Pen, rng: Rng, area: Area) -> None:
    """A matrix of colours with a bar that explains them."""
    (x0, y0, x1, y1), em = area, pen.size
    high, wide = int(rng.integers(4, 20)), int(rng.integers(4, 20))
    names = groups(rng, high)
    left = max(pen.wide(name) for name in names) + em / 2 if (y1 - y0) / high > 1.3 * em and rng.random() < 0.6 else 0
    inner = (round(x0 + left), round(y0 + 1.5 * em), round(x1 - 4 * em), round(y1))
    colors = np.array(MAPS[rng.integers(len(MAPS))])
    values = np.clip(rng.normal(0.5, 0.15, (high, wide)) + np.linspace(-0.3, 0.3, wide) * rng.uniform(-1, 1), 0, 1)
    _tint(pen, colors, values, inner)
    _tint(pen, colors, np.linspace(1, 0, 24)[:, None], (inner[2] + round(em), inner[1], inner[2] + round(1.8 * em), inner[3]))
    pen.text(quantity(rng), ((inner[0] + inner[2]) / 2, y0), (0.5, 0))
    for k, name in enumerate(names if left else ()):
        pen.text(name, (inner[0] - em / 4, inner[1] + (inner[3] - inner[1]) * (k + 0.5) / high), (1, 0.5))
    for k, number in enumerate(numbers(rng)[:3]):
        pen.text(number, (inner[2] + 2 * em, inner[3] - (inner[3] - inner[1]) * k / 2), (0, 1 - k / 2))


def _tint(pen: Pen, colors: np.ndarray, values: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """Values in [0, 1] as colours, stretched over the box."""
    stops = np.linspace(0, 1, len(colors))
    rgb = np.stack([np.interp(values, stops, colors[:, c]) for c in range(3)], -1).astype(np.uint8)
    size = (max(1, box[2] - box[0]), max(1, box[3] - box[1]))
    pen.image.paste(Image.fromarray(rgb).resize(size, Image.Resampling.NEAREST), box[:2])


PLOTS: tuple[Callable[[Pen, Rng, Area], None], ...] = (lines, lines, points, bars, bars, boxes, histogram, heat)
