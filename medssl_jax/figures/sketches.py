"""Drawn panels that are no plots: blots, tables, texts, flow diagrams, networks and Venn diagrams."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from medssl_jax.figures.axes import Rng
from medssl_jax.figures.letters import BLACK, WHITE, Color
from medssl_jax.figures.pen import Area, Pen, groups, within, words, wrapped

PALE: tuple[Color, ...] = ((221, 235, 247), (226, 239, 218), (255, 242, 204), (252, 228, 214), (237, 237, 237), WHITE)


def blot(pen: Pen, rng: Rng, area: Area) -> None:
    """Strips of a gel with bands, the lanes named above and the proteins beside."""
    (x0, y0, x1, y1), em = area, pen.size
    lanes, strips = int(rng.integers(3, 10)), int(rng.integers(1, 5))
    names, lane_names = groups(rng, strips), groups(rng, lanes)
    right, top = x1 - max(pen.wide(name) for name in names) - em / 2, y0 + max(pen.wide(name) for name in lane_names) + em / 2
    if right - x0 < 4 * em or y1 - top < 2 * strips * em:
        right, top, names, lane_names = x1, y0, [], []
    high = (y1 - top) / strips
    for k in range(strips):
        strip(pen, rng, (x0, top + k * high, right, top + (k + 1) * high - em / 3), lanes)
    for k, name in enumerate(names):
        pen.text(name, (right + em / 2, top + high * (k + 0.5) - em / 6), (0, 0.5))
    for k, name in enumerate(lane_names):
        pen.text(name, (x0 + (right - x0) * (k + 0.5) / lanes, top - em / 4), (0.5, 1), turned=True)


def strip(pen: Pen, rng: Rng, area: Area, lanes: int = 0) -> None:
    """Dark smooth bands on a noisy grey ground; without a number of lanes, as many as the shape suggests."""
    x0, y0, x1, y1 = (round(v) for v in area)
    wide, high = max(8, x1 - x0) // 2, max(8, y1 - y0) // 2
    lanes = lanes or max(2, min(12, round(wide / high * rng.uniform(0.7, 2))))
    x, y = np.arange(wide)[None, :] * lanes / wide, np.arange(high)[:, None] / high
    gray = rng.uniform(170, 245) + rng.normal(0, 4, (high, wide))
    for at, thick in zip(rng.uniform(0.25, 0.75, 3)[: int(rng.integers(1, 4))], rng.uniform(0.04, 0.14, 3)):
        depth = np.repeat(rng.uniform(0, 1, lanes) ** 0.7, -(-wide // lanes))[None, :wide]
        gray = gray - 200 * depth * np.clip(1.3 - 2.6 * np.abs(x % 1 - 0.5), 0, 1) * np.exp(-(((y - at) / thick) ** 2))
    shown = Image.fromarray(np.clip(gray, 0, 255).astype(np.uint8)).resize((max(1, x1 - x0), max(1, y1 - y0)), Image.Resampling.BILINEAR)
    pen.image.paste(shown.convert("RGB"), (x0, y0))
    if rng.random() < 0.6:
        pen.box(x0, y0, x1 - 1, y1 - 1)


def table(pen: Pen, rng: Rng, area: Area) -> None:
    """Rows of numbers under a head, ruled or coloured."""
    (x0, y0, x1, y1), em = area, pen.size
    columns = max(2, min(6, round((x1 - x0) / (7 * em))))
    rows = max(3, min(14, int((y1 - y0) / (em * rng.uniform(1.6, 2.4)))))
    high, wide, ruled, head = (y1 - y0) / rows, (x1 - x0) / columns, rng.random() < 0.5, PALE[rng.integers(len(PALE))]
    pen.box(x0, y0, x1, y0 + high, head, None)
    texts = [groups(rng, columns), *([name, *(f"{v:.2f}" for v in rng.normal(0, 3, columns - 1))] for name in groups(rng, rows - 1))]
    for r, line in enumerate(texts):
        for c, text in enumerate(line):
            pen.text(text[: max(3, int(1.6 * wide / em))], (x0 + wide * (c + 0.5), y0 + high * (r + 0.5)))
    for r in range(rows + 1) if ruled else (0, 1, rows):
        pen.line((x0, y0 + high * r), (x1, y0 + high * r))
    for c in range(columns + 1) if ruled else ():
        pen.line((x0 + wide * c, y0), (x0 + wide * c, y1))


def text(pen: Pen, rng: Rng, area: Area) -> None:
    """Lines of text, on a coloured box or on the paper."""
    (x0, y0, x1, y1), em = area, pen.size
    if rng.random() < 0.5:
        pen.box(x0, y0, x1, y1, PALE[rng.integers(len(PALE))], BLACK if rng.random() < 0.5 else (200, 200, 200))
    for k, line in enumerate(wrapped(pen, words(rng, 60), x1 - x0 - 2 * em)):
        if em * (1.5 * k + 2) > y1 - y0:
            break
        pen.text(line, (x0 + em, y0 + em * (1.5 * k + 0.7)), (0, 0))


def flow(pen: Pen, rng: Rng, area: Area) -> None:
    """Boxes of words with arrows from one to the next."""
    (x0, y0, x1, y1), em, down = area, pen.size, area[3] - area[1] > area[2] - area[0]
    count, others, fill = int(rng.integers(2, 5)), int(rng.integers(1, 4)), PALE[rng.integers(len(PALE))]
    columns, rows = (others, count) if down else (count, others)
    wide, high = (x1 - x0) / columns, (y1 - y0) / rows
    for c in range(columns):
        for r in range(rows):
            left, top = x0 + wide * c, y0 + high * r
            pen.box(left, top, left + 0.75 * wide, top + 0.6 * high, fill)
            for k, line in enumerate(wrapped(pen, words(rng, 4), 0.7 * wide)[: max(1, int(0.5 * high / em / 1.2))]):
                pen.text(line, (left + 0.375 * wide, top + em * (0.4 + 1.2 * k)), (0.5, 0))
            if down and r + 1 < rows:
                pen.arrow((left + 0.375 * wide, top + 0.62 * high), (left + 0.375 * wide, top + 0.98 * high))
            elif not down and c + 1 < columns:
                pen.arrow((left + 0.77 * wide, top + 0.3 * high), (left + 0.98 * wide, top + 0.3 * high))


def network(pen: Pen, rng: Rng, area: Area) -> None:
    """Discs with names, joined by lines."""
    x0, y0, x1, y1 = within(area, min(2 * pen.size, (area[2] - area[0]) / 4, (area[3] - area[1]) / 4))
    count, ink = int(rng.integers(6, 18)), int(rng.integers(100, 190))
    places = np.stack([rng.uniform(x0, x1, count), rng.uniform(y0, y1, count)], 1)
    for x, y in places:
        for other in places[rng.integers(0, count, 2)]:
            pen.line((x, y), tuple(other), ink=(ink, ink, ink))
    for (x, y), name in zip(places, groups(rng, count)):
        pen.disc(x, y, pen.size * rng.uniform(0.4, 1.0), pen.color(int(rng.integers(3))), BLACK)
        pen.text(name, (x, y + pen.size), (0.5, 0))


def venn(pen: Pen, rng: Rng, area: Area) -> None:
    """Two or three circles that share parts, with their numbers."""
    (x0, y0, x1, y1), count = area, int(rng.integers(2, 4))
    radius = min(x1 - x0, y1 - y0) * 0.3
    for k in range(count):
        angle = 2 * math.pi * k / count + (0 if count == 2 else math.pi / 6)
        x, y = (x0 + x1) / 2 + 0.6 * radius * math.cos(angle), (y0 + y1) / 2 + 0.6 * radius * math.sin(angle)
        mask = Image.new("L", pen.image.size)
        ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), 150)
        pen.image.paste(pen.color(k), mask=mask)
        pen.disc(x, y, radius, None, BLACK)
        pen.text(str(rng.integers(1, 900)), (x + 0.4 * radius * math.cos(angle), y + 0.4 * radius * math.sin(angle)))
