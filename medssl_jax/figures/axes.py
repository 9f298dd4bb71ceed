"""The axes of a simulated plot with their lettering: title, ticks with numbers or names, labels, a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medssl_jax.figures.pen import Area, Pen, groups, quantity

TITLED, NAMED, LEGENDED = 0.4, 0.8, 0.45  # shares of plots with a title, axis labels, a legend
LEAST = 4  # letters' heights that the data need
STEPS = (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 25.0, 50.0, 100.0, 500.0, 1000.0)
Rng = np.random.Generator


def axes(pen: Pen, rng: Rng, area: Area, names: Sequence[str] = ()) -> Area:
    """Draw a title, axes, ticks with numbers (or `names` along x) and labels; what is left for the data, (x0, y0, x1, y1).

    A plot too small for its lettering gets bare axes.
    """
    (x0, y0, x1, y1), em = area, pen.size
    titled, named = rng.random() < TITLED, rng.random() < NAMED
    along_y, along_x = numbers(rng), names or numbers(rng)
    left = max(pen.wide(number) for number in along_y) + 0.8 * em + (1.4 * em if named else 0)
    slanted = bool(names) and (max(pen.wide(name) for name in names) + em / 2) * len(names) > x1 - em - x0 - left
    below = max(pen.wide(name) for name in names) + em if slanted else 1.6 * em
    inner = (x0 + left, y0 + em / 2 + (1.5 * em if titled else 0), x1 - em, y1 - below - (1.3 * em if named else 0))
    if inner[2] - inner[0] < LEAST * em or inner[3] - inner[1] < LEAST * em:
        inner = (x0 + em / 2, y0, x1, y1 - em / 2)
        _spines(pen, inner)
        return inner
    if titled:
        pen.text(groups(rng, 1)[0], ((x0 + x1) / 2, y0), (0.5, 0))
    if named:
        pen.text(quantity(rng), (x0, (inner[1] + inner[3]) / 2), (0, 0.5), turned=True)
        pen.text(quantity(rng), ((inner[0] + inner[2]) / 2, y1), (0.5, 1))
    _spines(pen, inner, along_y)
    _along(pen, inner, along_x, bool(names), slanted)
    return inner


def numbers(rng: Rng) -> list[str]:
    """What stands at the ticks of an axis."""
    step, count = STEPS[rng.integers(len(STEPS))], int(rng.integers(3, 7))
    return [f"{k * step:g}" for k in range(count)]


def _spines(pen: Pen, inner: Area, ticks: Sequence[str] = ()) -> None:
    (x0, y0, x1, y1), em = inner, pen.size
    for k, number in enumerate(ticks):
        y = y1 - (y1 - y0) * k / (len(ticks) - 1)
        if pen.theme.grid:
            pen.line((x0, y), (x1, y), ink=(220, 220, 220))
        pen.line((x0 - em / 3, y), (x0, y))
        pen.text(number, (x0 - em / 2, y), (1, 0.5))
    pen.line((x0, y0), (x0, y1), (x1, y1))
    if pen.theme.boxed:
        pen.line((x0, y0), (x1, y0), (x1, y1))


def _along(pen: Pen, inner: Area, names: Sequence[str], middles: bool, slanted: bool) -> None:
    """Ticks along x, at the middles of as many bins or from end to end."""
    (x0, _, x1, y1), em = inner, pen.size
    for k, name in enumerate(names):
        x = x0 + (x1 - x0) * ((k + 0.5) / len(names) if middles else k / (len(names) - 1))
        pen.line((x, y1), (x, y1 + em / 3))
        pen.text(name, (x, y1 + em / 2), (0.5, 0), turned=slanted)


def legend(pen: Pen, rng: Rng, inner: Area, count: int) -> None:
    """Names of the series in a corner of the plot, or nothing."""
    names, em = groups(rng, count), pen.size
    wide = max(pen.wide(name) for name in names)
    if rng.random() > LEGENDED or wide + 2 * em > 0.6 * (inner[2] - inner[0]):
        return
    x, y = inner[2] - wide - 1.5 * em, inner[1]
    for k, name in enumerate(names):
        pen.box(x, y + 1.3 * em * k, x + em, y + 1.3 * em * k + em * 0.7, pen.color(k))
        pen.text(name, (x + 1.3 * em, y + 1.3 * em * k), (0, 0))
