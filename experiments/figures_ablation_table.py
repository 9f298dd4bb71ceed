"""Markdown of what `figures_ablation` recorded: scores of every arm, and its differences to the default over seeds and over figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cut_tables import EVERY, NOTHING, SHOWN, difference, markdown
from experiments.cutters import DETECTOR, TIGHT
from experiments.figures_ablation import ARMS, DEFAULT, JOBS, PAIRED
from medssl_jax.evaluate import paired_difference

SETS = {"semi-real": "semi-real figures", "simulated": "simulated figures of images held out"}
SCORES = ("over", "under", "imageclef", "ap50", "ap")
TITLES = {
    "default": "scale-free side loss, intra-class figures, aspect kept",
    "no-side": "no side loss",
    "original": "side loss as published",
    "symmetric": "symmetric side loss",
    "no-intra": "no intra-class figures",
    "stretched": "images stretched",
    "none-of-these": "no side loss, no intra-class figures, images stretched",
}

Runs = Mapping[str, Mapping[int, dict[str, Any]]]  # records by arm and seed


def table(records: Path) -> str:
    """A table of scores a set, then differences to the default: by seed (Student's t), and by figure (bootstrap)."""
    runs = _runs(records)
    if not runs:
        return NOTHING
    parts = []
    for name, title in SETS.items():
        parts += [f"**{title}**", _scores(runs, name), *_differences(runs, name)]
    return "\n\n".join([*parts, "**ImageCLEF by bucket, semi-real figures**", _by_group(runs, "semi-real", "imageclef")])


def _runs(records: Path) -> Runs:
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for job in JOBS:
        if (record := job.read(records)) is not None:
            found.setdefault(job.arm, {})[job.seed] = record
    return {arm: found[arm] for arm in ARMS if arm in found}


def _scores(runs: Runs, name: str) -> str:
    lines = [["trained with", "seeds", *(SHOWN[score] for score in SCORES)]]
    for arm, own in runs.items():
        values = {score: [_of(run, name, EVERY, score) for run in own.values()] for score in SCORES}
        lines.append([TITLES[arm], str(len(own)), *(_mean(values[score], score) for score in SCORES)])
    return markdown(lines)


def _by_group(runs: Runs, name: str, score: str) -> str:
    """Means over seeds, a column a bucket."""
    groups = [group for group in next(iter(next(iter(runs.values())).values()))["sets"][name]["groups"] if group != EVERY]
    lines = [["trained with", *groups]]
    lines += [
        [TITLES[arm], *(_mean([_of(r, name, group, score) for r in own.values()], score) for group in groups)] for arm, own in runs.items()
    ]
    return markdown(lines)


def _differences(runs: Runs, name: str) -> list[str]:
    """Both tables of differences, as far as an arm has seeds in common with the default."""
    pairs = {arm: [(own[s], runs[DEFAULT][s]) for s in own if s in runs[DEFAULT]] for arm, own in runs.items()} if DEFAULT in runs else {}
    pairs = {arm: found for arm, found in pairs.items() if found and arm != DEFAULT}
    kinds: list[tuple[str, Sequence[str], Callable]] = [("by seed", SCORES, _over_seeds), ("by figure", PAIRED, _over_figures)]
    found = []
    for kind, scores, compare in kinds:
        lines = [[f"minus the default, {kind}", *(SHOWN[score] for score in scores)]]
        lines += [[TITLES[arm], *(compare(own, name, score) for score in scores)] for arm, own in pairs.items()]
        found += [markdown(lines)] if pairs else []
    return found


def _over_seeds(pairs: Sequence[tuple[dict, dict]], name: str, score: str) -> str:
    ours, theirs = ([_of(run, name, EVERY, score) for run in column] for column in zip(*pairs, strict=True))
    return _compared(ours, theirs, score)


def _over_figures(pairs: Sequence[tuple[dict, dict]], name: str, score: str) -> str:
    """Every figure's mean over the seeds, so that figures are the pairs."""
    ours, theirs = (
        _over(np.array([run["sets"][name]["by_figure"][score] for run in column], float)) for column in zip(*pairs, strict=True)
    )
    return _compared(ours, theirs, score)


def _over(values: np.ndarray) -> list[float]:
    """Means [N] of values [seeds, N] without those that are NaN; NaN where all are."""
    count = np.isfinite(values).sum(axis=0)
    return np.divide(np.nansum(values, axis=0), count, out=np.full(values.shape[1], np.nan), where=count > 0).tolist()


def _compared(ours: Sequence[float], theirs: Sequence[float], score: str) -> str:
    both = np.isfinite(np.subtract(ours, theirs))
    if not both.any():
        return "-"
    return difference(dataclasses.asdict(paired_difference(np.array(ours)[both].tolist(), np.array(theirs)[both].tolist())), score)


def _of(run: dict[str, Any], name: str, group: str, score: str) -> float:
    value = run["sets"][name]["scores"][TIGHT][group][DETECTOR][score]
    return float("nan") if value is None else float(value)


def _mean(values: Sequence[float], score: str) -> str:
    kept = [value for value in values if np.isfinite(value)]
    if not kept:
        return "-"
    digits = 1 if score == "imageclef" else 3
    spread = f" ± {np.std(kept, ddof=1):.{digits}f}" if len(kept) > 1 else ""
    return f"{np.mean(kept):.{digits}f}{spread}"
