"""The pictures of the tables: scores over labels, and paired differences with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.compare import Pooled, Scores
from medssl_jax.report.plots import COLOURS, GRID, MARKERS
from medssl_jax.report.words import amount_name

DPI = 110
Title = Callable[[str], str]


def label_efficiency(sets: Sequence[Scores], arms: Sequence[str], title: Title, axis_name: str, path: Path) -> None:
    """A panel a data set: mean over repeats by amount of labels, a line an arm, dashes for levels without a network."""
    figure = Figure(figsize=(4.6 * len(sets), 4.4), dpi=DPI, layout="constrained")
    for axis, scores in zip(np.ravel(figure.subplots(1, len(sets), squeeze=False)), sets):
        for number, arm in enumerate(arms):
            found = [(i, np.mean(scores.cell(arm, amount))) for i, amount in enumerate(scores.amounts) if scores.cell(arm, amount)]
            if found:
                style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
                axis.plot(*zip(*found), **style, lw=1.7, markersize=6, mec="white", label=title(arm))
        _levels(axis, scores)
        axis.set_xticks(
            range(len(scores.amounts)), [amount_name(a).replace(" of labels", "").replace(" labels", "") for a in scores.amounts]
        )
        axis.set(title=scores.dataset, xlabel="labels", ylabel=axis_name)
        _plain(axis)
    handles = {label: line for axis in figure.axes for line, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path)


def _levels(axis: Axes, scores: Scores) -> None:
    """Levels that learn from no amount of the table as dashes, the others as points."""
    for number, (name, by_amount) in enumerate(scores.levels.items()):
        found = [(i, by_amount[amount]) for i, amount in enumerate(scores.amounts) if amount in by_amount]
        dashes = ("--", ":", "-.")[number % 3]
        if found:
            axis.plot(*zip(*found), color="#888888", ls=dashes, lw=1.3, label=name)
        else:
            axis.axhline(next(iter(by_amount.values())), color="#888888", ls=dashes, lw=1.3, label=name)


def differences(found: Sequence[Pooled], title: Title, axis_name: str, path: Path) -> None:
    """A line an arm: the mean paired difference to the control with its 95 % interval."""
    figure = Figure(figsize=(7.2, 0.45 * len(found) + 1.2), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    for place, one in enumerate(reversed(found)):
        axis.plot([one.low, one.high], [place, place], color=COLOURS[1], lw=2)
        axis.plot(one.mean, place, "o", color=COLOURS[1], mec="white", markersize=8)
    axis.axvline(0, color=COLOURS[0], lw=1)
    axis.set_yticks(range(len(found)), [title(one.arm) for one in reversed(found)])
    axis.set_xlabel(axis_name)
    _plain(axis)
    figure.savefig(path)


def _plain(axis: Axes) -> None:
    axis.grid(color=GRID, lw=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
