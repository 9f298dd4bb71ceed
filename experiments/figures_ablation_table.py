"""Markdown of what `figures_ablation` recorded: scores of every arm, and what a change does on average over the other factors."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cut_tables import EVERY, NOTHING, SHOWN, difference, markdown
from experiments.cutters import DETECTOR, TIGHT
from experiments.figures_ablation import ARMS, DEFAULT, FACTORS, JOBS, PAIRED, SYMMETRIC, arm_of
from medssl_jax.evaluate import paired_difference

SETS = {"semi-real": "semi-real figures", "simulated": "simulated figures of images held out"}
SCORES = ("over", "under", "imageclef", "right", "ap50", "ap")
LEVELS = (  # of the factors, in their order
    {"": "scale-free side loss", "no-side": "no side loss", "original": "side loss as published"},
    {"": "intra-class figures", "no-intra": "no intra-class figures"},
    {"": "aspect kept", "stretched": "images stretched"},
)
TITLES = {arm_of(*levels): ", ".join(map(dict.__getitem__, LEVELS, levels)) for levels in itertools.product(*LEVELS)}
TITLES[SYMMETRIC] = "symmetric side loss, intra-class figures, aspect kept"

Runs = Mapping[str, Mapping[int, dict[str, Any]]]  # records by arm and seed
Pairs = Sequence[tuple[dict[str, Any], dict[str, Any]]]  # of trainings that differ in one thing


def table(records: Path) -> str:
    """A table of scores a set, then what each change does: by pairs of trainings (Student's t), and by figure (bootstrap)."""
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
    """Both tables of differences, of the changes that there are pairs for."""
    changes = {title: found for title, arms in _changes().items() if (found := _pairs(runs, arms))}
    kinds: list[tuple[str, Sequence[str], Callable]] = [("by training", SCORES, _over_trainings), ("by figure", PAIRED, _over_figures)]
    tables = []
    for kind, scores, compare in kinds:
        lines = [[f"difference, {kind}", "pairs of trainings", *(SHOWN[score] for score in scores)]]
        lines += [[title, str(len(own)), *(compare(own, name, score) for score in scores)] for title, own in changes.items()]
        tables += [markdown(lines)] if changes else []
    return tables


def _changes() -> dict[str, list[tuple[str, str]]]:
    """By what was changed, the arms (changed, not changed) that differ in this alone."""
    found: dict[str, list[tuple[str, str]]] = {}
    for number, titles in enumerate(LEVELS):
        others = [list(factor) if k != number else [""] for k, factor in enumerate(FACTORS)]
        for level in filter(None, titles):
            bases = list(itertools.product(*others))
            changed = [tuple(level if k == number else one for k, one in enumerate(base)) for base in bases]
            found[f"{titles[level]}, minus {titles['']}"] = [(arm_of(*one), arm_of(*base)) for one, base in zip(changed, bases)]
    return found | {"symmetric side loss, minus scale-free": [(SYMMETRIC, DEFAULT)]}


def _pairs(runs: Runs, arms: Sequence[tuple[str, str]]) -> Pairs:
    """The trainings of these arms, seed by seed."""
    both = [(runs.get(changed, {}), runs.get(base, {})) for changed, base in arms]
    return [(changed[seed], base[seed]) for changed, base in both for seed in changed if seed in base]


def _over_trainings(pairs: Pairs, name: str, score: str) -> str:
    ours, theirs = ([_of(run, name, EVERY, score) for run in column] for column in zip(*pairs, strict=True))
    return _compared(ours, theirs, score)


def _over_figures(pairs: Pairs, name: str, score: str) -> str:
    """Every figure's mean over the trainings, so that figures are the pairs."""
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
