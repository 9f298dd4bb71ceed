"""Markdown of what `cutters.summary` recorded of a set of compound figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.cutters import CONTROL, DETECTOR, PARTITION, TIGHT
from medssl_jax.report.words import signed

NOTHING = "Nothing is recorded yet."
FEW = 8  # figures: an interval of fewer says nothing
EVERY = "all"
TITLES = {TIGHT: "Tight boxes", PARTITION: "Cells of a partition"}
SHOWN = {
    "ap50": "AP@.5",
    "ap": "AP@.5:.95",
    "imageclef": "ImageCLEF",
    "iou": "mean IoU",
    "over": "over",
    "under": "under",
    "right": "right",
}

Told = dict[str, Any]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table whose first line is its head; the first column is text, the others are numbers."""
    head, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---", *["---:"] * (len(head) - 1)], *rest])


def shown(score: float | None, name: str) -> str:
    """A score as the tables have it: ImageCLEF's in percent, a dash where there is none."""
    return "-" if score is None else f"{score:.{1 if name == 'imageclef' else 3}f}"


def by_method(told: Told, convention: str) -> str:
    """All scores of all figures, a line a method."""
    lines = [["cut by", *SHOWN.values()]]
    lines += [[method, *_scores(row)] for method, row in told["scores"][convention][EVERY].items()]
    return f"**{TITLES[convention]}**\n\n{markdown(lines)}"


def by_group(told: Told, convention: str) -> str:
    """All scores, a line a group and method; the first of a group has its name and its numbers of figures and panels."""
    lines = [["figures, panels", "cut by", *SHOWN.values()]]
    for group, methods in told["scores"][convention].items():
        size = told["groups"][group]
        names = [f"{group} ({size['figures']}, {size['panels']})", *[""] * (len(methods) - 1)]
        lines += [[name, method, *_scores(row)] for name, (method, row) in zip(names, methods.items(), strict=True)]
    return f"**{TITLES[convention]}**\n\n{markdown(lines)}"


def one_score(told: Told, convention: str, name: str) -> str:
    """One score, a line a method and a column a group other than all; "" where there is no other."""
    groups = [group for group in told["groups"] if group != EVERY]
    if not groups:
        return ""
    lines = [[SHOWN[name], *(f"{group} ({told['groups'][group]['figures']})" for group in groups)]]
    methods = told["scores"][convention][EVERY]
    lines += [[method, *(shown(told["scores"][convention][group][method][name], name) for group in groups)] for method in methods]
    return markdown(lines)


def differences(told: Told) -> str:
    """The detector minus the cut along blank lines, a line a group: means over figures, with their 95 % intervals where they are not few;
    "" without both."""
    found = told["differences"]
    if not found[TIGHT]:
        return ""
    metrics = list(next(iter(found[TIGHT].values())))
    heads = [f"{SHOWN[metric]}, {TITLES[convention].lower()}" for convention in found for metric in metrics]
    lines = [[f"{DETECTOR} minus {CONTROL}", *heads]]
    for group, size in told["groups"].items():
        lines.append([f"{group} ({size['figures']})", *(difference(found[c][group][m], m, FEW) for c in found for m in metrics)])
    return markdown(lines)


def difference(found: Told, name: str, least: int = 2) -> str:
    """Mean, 95 % interval where there are `least` pairs, and in how many of the pairs it was above 0."""
    keys = ("mean", "low", "high") if found["n"] >= least else ("mean",)
    mean, *interval = (f"{found[key]:+.1f}" if name == "imageclef" else signed(found[key]) for key in keys)
    within = f" [{', '.join(interval)}]" if interval else ""
    return f"{mean}{within}, {found['higher']}/{found['n']}"


def _scores(row: Told) -> list[str]:
    return [shown(row[name], name) for name in SHOWN]
