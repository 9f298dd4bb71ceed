"""Curves of a run: score over labels, losses, probes, collapse panel. Each is saved under figures/ where its numbers exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from medssl_jax.evaluate.collapse import LARGEST_COSINE, SMALLEST_SPREAD
from medssl_jax.report.rundir import Run
from medssl_jax.report.tables import Table
from medssl_jax.report.words import amount_name, arm, metric_name

# Okabe & Ito's colours, told apart by colour-blind readers; markers and dashes carry the same information.
COLOURS = ("#4D4D4D", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vPX"
GRID = "#DDDDDD"
DPI = 110
SPEED = ("images_per_second", "data_wait")
CURVES = {
    "contrastive": "contrastive loss",
    "restoration": "restoration loss",
    "hidden": "share of pixels hidden",
    "contrastive_accuracy": "positives ranked first",
    "gradient_norm": "length of the gradient",
    "correlation": "squared correlation of two channels",
}
READINGS: dict[str, tuple[str, float | None, str, tuple[float, ...]]] = {  # title, limit, what it means, values always in view
    "std_sqrt_d": ("spread std·√d", SMALLEST_SPREAD, "collapse below", (0, 1)),
    "mean_cosine": ("mean cosine of two images", LARGEST_COSINE, "collapse above", (0, 1)),
    "effective_rank": ("effective rank", None, "", (0,)),
    "uniformity": ("uniformity (0: collapsed)", None, "", (0,)),
    "decoded_directions": ("directions of the decoded map", None, "", (0,)),
    "clusters": ("clusters in use", None, "", (0,)),
    "largest_cluster": ("share of the largest cluster", None, "", (0, 1)),
}


def draw_all(run: Run, table: Table | None) -> list[Path]:
    """Draw every plot that the run has numbers for; returns the files, in reading order.

    Args:
      run: of `read_run`.
      table: of the main metric, or None where there was no fine-tuning.
    """
    folder = run.workdir / "figures"
    folder.mkdir(exist_ok=True)
    drawn: list[Path] = []
    if table is not None and table.cells:
        drawn.append(label_efficiency(table, folder / "label_efficiency.png"))
    for phase in dict.fromkeys(str(line.get("phase")) for line in run.metrics):
        drawn += _phase(run, phase, folder)
    return drawn


def label_efficiency(table: Table, path: Path) -> Path:
    """Score over the amount of labels: a point a repeat, a line through the means, dashes for levels without a network."""
    figure, (axis,) = _axes(1, 7.2, 4.2)
    width = 0.5 / max(len(table.inits), 1)
    for number, init in enumerate(table.inits):
        colour, marker = _style(number)
        found = [(i, table.cells[init, amount]) for i, amount in enumerate(table.amounts) if (init, amount) in table.cells]
        places = [i + (number - (len(table.inits) - 1) / 2) * width for i, _ in found]
        for place, (_, cell) in zip(places, found):
            axis.plot([place] * len(cell.scores), list(cell.scores.values()), marker, color=colour, alpha=0.45, markersize=5, mew=0)
        axis.plot(places, [cell.mean for _, cell in found], marker=marker, color=colour, label=arm(init), lw=1.8, markersize=8, mec="white")
    for number, (name, value) in enumerate(table.levels.items()):
        axis.axhline(value, color="#888888", lw=1.2, ls=("--", ":", "-.")[number % 3], label=f"{arm(name)}: {value:.3f}", zorder=1)
    axis.set_xticks(range(len(table.amounts)), [amount_name(amount) for amount in table.amounts])
    axis.set_xlim(-0.5, len(table.amounts) - 0.5)
    axis.set_xlabel("labels to learn from")
    axis.set_ylabel(metric_name(table.metric).partition(",")[0])
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return _save(figure, path)


def _phase(run: Run, phase: str, folder: Path) -> list[Path]:
    """Losses, probes and collapse panel of one phase of metrics.jsonl."""
    keys = run.keys(phase)
    groups = {
        "loss": [key for key in keys if "/" not in key and key not in SPEED],
        "probes": [key for key in keys if key.startswith("probe/")],
        "collapse": [key for key in keys if key.startswith("collapse/") and not key.endswith(("/n", "_n"))],
    }
    drawn = []
    for kind, group in groups.items():
        panels = _collapse_panels(group) if kind == "collapse" else {"": group} if kind == "probes" else {key: [key] for key in group}
        panels = {title: found for title, found in panels.items() if found}
        if panels:
            drawn.append(_panels(run, phase, kind, panels, folder / f"{phase}_{kind}.png"))
    return drawn


def _collapse_panels(keys: list[str]) -> dict[str, list[str]]:
    """Panel a reading, with backbone and projector in the same panel."""
    return {reading: [key for key in keys if key.endswith(reading)] for reading in READINGS}


def _panels(run: Run, phase: str, kind: str, panels: dict[str, list[str]], path: Path) -> Path:
    figure, axes = _axes(len(panels), 3.6 if len(panels) > 1 else 5.4, 2.8)
    for axis, (title, keys) in zip(axes, panels.items()):
        label, limit, means, shown = READINGS.get(title, (CURVES.get(title, title.replace("_", " ")), None, "", ()))
        for number, key in enumerate(keys):
            steps, values = run.series(phase, key)
            colour, marker = _style(number + 1)
            few = marker if len(steps) < 30 else None
            axis.plot(steps, values, color=colour, marker=few, markersize=5, lw=1.6, label=_curve_name(key, kind))
        if limit is not None:
            axis.axhline(limit, color="#B00020", lw=1.1, ls="--", label=f"{means} {limit:g}")
        axis.set_title(label, fontsize=10)
        for value in shown:
            axis.axhline(value, alpha=0)
        axis.set_xlabel("step")
        if len(keys) > 1 or limit is not None or kind == "probes":
            axis.legend(frameon=False, fontsize=8)
    if kind == "probes":
        axes[0].set_ylabel("accuracy")
    return _save(figure, path)


def _curve_name(key: str, kind: str) -> str:
    """'collapse/backbone_std_sqrt_d' -> 'backbone', 'probe/knn' -> 'kNN'."""
    name = key.rpartition("/")[2]
    if kind != "collapse":
        return {"knn": "kNN", "ridge": "ridge regression"}.get(name, name)
    reading = next(reading for reading in READINGS if name.endswith(reading))
    return name.removesuffix(reading).rstrip("_") or "features"


def _axes(count: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """`count` axes of one size, two or three a row, in one figure without pyplot's global state."""
    columns = count if count < 4 else 2 if count == 4 else 3
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), dpi=DPI, layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axis in axes:
        axis.grid(color=GRID, lw=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def _style(number: int) -> tuple[str, str]:
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path
