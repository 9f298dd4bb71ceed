"""Panels that are no images, drawn by the simulator: plots, blots, tables, texts and diagrams. They have boxes as all panels do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops

from medssl_jax.figures.axes import Rng
from medssl_jax.figures.letters import Color
from medssl_jax.figures.pen import Area, Pen, Theme, within
from medssl_jax.figures.plots import PLOTS
from medssl_jax.figures.sketches import blot, flow, network, strip, table, text, venn

IMAGE, PLOT, BLOT, TABLE, TEXT, DIAGRAM = "image", "plot", "blot", "table", "text", "diagram"
DRAWN = (PLOT, BLOT, TABLE, TEXT, DIAGRAM)
WEIGHTS = (0.6, 0.12, 0.07, 0.06, 0.15)
SHAPES = {PLOT: (0.75, 1.7), BLOT: (0.8, 2.5), TABLE: (1.0, 2.5), TEXT: (0.8, 2.5), DIAGRAM: (0.8, 2.0)}  # width / height
SEVERAL = 0.15  # share of plots that are two or three side by side or above each other, which one letter stands for
LONG = 3  # width / height from which on a blot is a strip without names
SEEN = 12  # difference from the paper, of 255, that counts as content
SKETCHES: dict[str, tuple[Callable[[Pen, Rng, Area], None], ...]] = {
    BLOT: (blot,),
    TABLE: (table,),
    TEXT: (text,),
    DIAGRAM: (flow, network, venn),
}


def draw_kinds(rng: Rng, count: int) -> list[str]:
    """What kinds of drawn panels a figure has."""
    return [str(kind) for kind in rng.choice(DRAWN, count, p=WEIGHTS)]


def draw_shape(rng: Rng, kind: str) -> float:
    """Width / height that a drawn panel of the kind gets."""
    return float(np.exp(rng.uniform(*np.log(SHAPES[kind]))))


def draw_panel(rng: Rng, kind: str, width: int, height: int, theme: Theme, alone: bool = True) -> Image.Image:
    """A drawn panel as an RGB image of `width` x `height` pixels on the theme's paper; `alone`: a plot is a single one."""
    pen = Pen(width, height, theme)
    if kind == PLOT and not alone and rng.random() < SEVERAL:
        _several(pen, rng)
    else:
        choices = PLOTS if kind == PLOT else (strip,) if kind == BLOT and width > LONG * height else SKETCHES[kind]
        choices[rng.integers(len(choices))](pen, rng, within(pen.area, pen.size / 4))
    return pen.done()


def content(panel: Image.Image, paper: Color) -> tuple[int, int, int, int] | None:
    """The rectangle (x0, y0, x1, y1) of what differs from the paper; None where nothing does."""
    seen = ImageChops.difference(panel, Image.new("RGB", panel.size, paper)).convert("L").point([0] * SEEN + [255] * (256 - SEEN))
    return seen.getbbox()


def _several(pen: Pen, rng: Rng) -> None:
    """Plots of one kind in a row or a column."""
    x0, y0, x1, y1 = pen.area
    plot, across = PLOTS[rng.integers(len(PLOTS))], x1 - x0 > y1 - y0
    count = int(rng.integers(2, 4))
    for k in range(count):
        low, high = k / count, (k + 1) / count
        part = (x0 + low * (x1 - x0), y0, x0 + high * (x1 - x0), y1) if across else (x0, y0 + low * (y1 - y0), x1, y0 + high * (y1 - y0))
        plot(pen, rng, within(part, pen.size / 4))
