"""What is written and drawn on panels and between them: frames, scale bars, arrows, titles of columns and rows, text across gaps."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from medssl_jax.figures.axes import Rng
from medssl_jax.figures.letters import Color, Rectangle, contrast, write
from medssl_jax.figures.pen import Theme, groups, quantity

UNITS = ("um", "mm", "nm", "cm")
LENGTHS = (5, 10, 20, 50, 100, 200, 500)
BRIGHT: tuple[Color, ...] = ((255, 255, 0), (255, 0, 0), (255, 255, 255), (0, 0, 0))


def frame(canvas: Image.Image, panel: Rectangle, ink: Color) -> None:
    """A thin line on the outermost pixels of the panel."""
    x0, y0, x1, y1 = panel
    ImageDraw.Draw(canvas).rectangle((x0, y0, x1 - 1, y1 - 1), None, ink)


def scale_bar(canvas: Image.Image, rng: Rng, panel: Rectangle, theme: Theme) -> None:
    """A bar in a lower corner of the panel, black or white, with or without its length."""
    x0, _, x1, y1 = panel
    wide, thick, near = max(6, round((x1 - x0) * rng.uniform(0.1, 0.3))), int(rng.integers(1, 5)), max(3, (x1 - x0) // 25)
    left = x1 - near - wide if rng.random() < 0.8 else x0 + near
    bar = (left, y1 - near - thick, left + wide, y1 - near)
    ink = contrast(canvas, bar)
    canvas.paste(ink, bar)
    text = f"{LENGTHS[rng.integers(len(LENGTHS))]} {UNITS[rng.choice(len(UNITS), p=(0.7, 0.15, 0.1, 0.05))]}"
    if rng.random() < 0.5 and wide > 25:
        write(canvas, text, (left + wide / 2, bar[1] - 2), (0.5, 1), theme.size, theme.font, ink)


def arrows(canvas: Image.Image, rng: Rng, panel: Rectangle) -> None:
    """One to three arrows that point at something in the panel."""
    x0, y0, x1, y1 = panel
    draw, ink, length = ImageDraw.Draw(canvas), BRIGHT[rng.integers(len(BRIGHT))], max(8, min(x1 - x0, y1 - y0) / 10)
    for _ in range(int(rng.integers(1, 4))):
        tip = np.array([rng.uniform(x0 + length, x1 - length), rng.uniform(y0 + length, y1 - length)])
        angle = rng.uniform(0, 2 * np.pi)
        back, side = length * np.array([np.cos(angle), np.sin(angle)]), length * 0.3 * np.array([-np.sin(angle), np.cos(angle)])
        if rng.random() < 0.6:
            draw.line([tuple(tip), tuple(tip + back * 0.95)], ink, 2)
        draw.polygon([tuple(tip), tuple(tip + 0.5 * back + side), tuple(tip + 0.5 * back - side)], ink)


def headers(canvas: Image.Image, rng: Rng, panels: np.ndarray, theme: Theme, beside: bool, off: int) -> None:
    """Titles over the panels of the first row, or turned beside those of the first column, `off` pixels away from them."""
    first = panels[panels[:, 0 if beside else 1] == panels[:, 0 if beside else 1].min()]
    for (x0, y0, x1, y1), name in zip(first, groups(rng, len(first))):
        place = (x0 - off, (y0 + y1) / 2) if beside else ((x0 + x1) / 2, y0 - off)
        write(canvas, name, place, (1, 0.5) if beside else (0.5, 1), theme.size, theme.font, turned=beside)


def crossing(canvas: Image.Image, rng: Rng, panels: np.ndarray, gap: int, theme: Theme) -> None:
    """A name of an axis across the gap at the right of a panel or below it, where there is another one beyond."""
    for x0, y0, x1, y1 in rng.permutation(panels):
        places = []
        if x1 + gap + theme.size < canvas.width:
            places.append((x1 + gap / 2, rng.uniform(y0, y1)))
        if y1 + gap + theme.size < canvas.height:
            places.append(((x0 + x1) / 2, y1 + gap / 2))
        if places:
            write(canvas, quantity(rng), places[rng.integers(len(places))], (0.5, 0.5), theme.size, theme.font, turned=rng.random() < 0.25)
            return
