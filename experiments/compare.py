"""From records to numbers: scores by arm and amount of labels, paired differences, and what labels a method saves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from experiments.records import Record
from medssl_jax.evaluate import PairedDifference, holm, paired_difference

Amount = tuple[float, str]  # (0.1, "fraction"), as in results.json
ALL: Amount = (1.0, "fraction")


@dataclasses.dataclass(frozen=True)
class Scores:
    """One metric on one data set: by arm, amount of labels and repeat."""

    dataset: str
    metric: str
    amounts: tuple[Amount, ...]
    by_arm: Mapping[str, Mapping[Amount, Mapping[int, float]]]
    levels: Mapping[str, Mapping[Amount, float]]  # without a network
    chosen_by: Mapping[str, Mapping[Amount, Mapping[int, float]]]  # the scores on validation, as `by_arm`

    def cell(self, arm: str, amount: Amount) -> list[float]:
        """Scores in the order of the repeats; empty where none was run."""
        found = self.by_arm.get(arm, {}).get(amount, {})
        return [found[repeat] for repeat in sorted(found)]

    def difference(self, arm: str, amount: Amount, control: str, control_amount: Amount | None = None) -> PairedDifference | None:
        """Of the arm and the control (at an amount of its own, where one is given), paired by repeat; None where no repeat has both."""
        ours = self.by_arm.get(arm, {}).get(amount, {})
        theirs = self.by_arm.get(control, {}).get(control_amount or amount, {})
        shared = sorted(ours.keys() & theirs.keys())
        return paired_difference([ours[r] for r in shared], [theirs[r] for r in shared]) if shared else None

    def few(self, arm: str) -> dict[int, float]:
        """By repeat, the mean over the amounts short of all labels, where the arm was run at each of them."""
        amounts = [amount for amount in self.amounts if amount != ALL]
        found = [self.by_arm.get(arm, {}).get(amount, {}) for amount in amounts]
        repeats = set.intersection(*(set(scores) for scores in found)) if found else set()
        return {repeat: float(np.mean([scores[repeat] for scores in found])) for repeat in sorted(repeats)}


def collect(records: Iterable[Record], levels: Iterable[Record], dataset: str, metric: str, amounts: Sequence[Amount]) -> Scores:
    """The scores of one metric; `levels` are the records of what needs no network, of which those that learn count by amount."""
    by_arm: dict[str, dict[Amount, dict[int, float]]] = {}
    chosen_by: dict[str, dict[Amount, dict[int, float]]] = {}
    for record in records:
        amount = (float(record["labels"]), record["label_unit"])
        for found, value in ((by_arm, record["metrics"].get(metric)), (chosen_by, record.get("validation"))):
            if value is not None:
                found.setdefault(record["init"], {}).setdefault(amount, {})[record["subset"]] = value
    learned: dict[str, dict[Amount, list[float]]] = {}
    for record in levels:
        if metric in record["metrics"]:
            amount = (float(record["labels"]), record["label_unit"])
            learned.setdefault(record["init"], {}).setdefault(amount, []).append(record["metrics"][metric])
    means = {name: {amount: float(np.mean(values)) for amount, values in of.items()} for name, of in learned.items()}
    return Scores(dataset, metric, tuple(amounts), by_arm, means, chosen_by)


@dataclasses.dataclass(frozen=True)
class Pooled:
    """An arm minus a control on several data sets together: the mean of their mean differences, with its 95 % interval. It speaks of
    these data sets alone. `p` is Wilcoxon's over all pairs (nothing changes on any of them), adjusted by Holm; `higher` of `n` pairs.
    """

    arm: str
    mean: float
    low: float
    high: float
    higher: int
    n: int
    p: float


def pooled(sets: Sequence[Scores], arms: Sequence[str], control: str, of: Callable[[Scores, str], Mapping[int, float]]) -> list[Pooled]:
    """Each arm against the control, paired by data set and repeat, `of` giving the score of a data set's arm by repeat; p adjusted over
    the arms. Arms that lack one of the control's pairs are left out: they would be compared on other data.
    """
    found: list[tuple[str, list[np.ndarray]]] = []
    for arm in arms:
        ours, theirs = ([of(scores, name) for scores in sets] for name in (arm, control))
        if arm != control and all(a.keys() == b.keys() and len(b) > 1 for a, b in zip(ours, theirs, strict=True)):
            found.append((arm, [np.array([a[r] - b[r] for r in sorted(b)]) for a, b in zip(ours, theirs, strict=True)]))
    every = [np.concatenate(differences) for _, differences in found]
    adjusted = holm([float(stats.wilcoxon(d).pvalue) if np.any(d) else 1.0 for d in every])
    return [
        Pooled(arm, *_stratified(differences), int((d > 0).sum()), len(d), p)
        for (arm, differences), d, p in zip(found, every, adjusted, strict=True)
    ]


def _stratified(differences: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """The mean over data sets of the mean difference, and its 95 % interval: the repeats of a data set vary, the data sets are given
    (Student's t with Welch and Satterthwaite's degrees of freedom).
    """
    mean = float(np.mean([d.mean() for d in differences]))
    parts = np.array([d.var(ddof=1) / len(d) for d in differences]) / len(differences) ** 2
    if not parts.any():
        return mean, mean, mean
    freedom = parts.sum() ** 2 / np.sum(parts**2 / np.array([len(d) - 1 for d in differences]))
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum()))
    return mean, mean - half, mean + half


def enough(scores: Scores, arm: str, control: str, margin: float | None) -> Amount | None:
    """The fewest labels with which, and with all larger amounts, the arm holds against the control with all labels.

    Without a margin: it is not clearly below, the 95 % interval of the paired difference reaches 0 (noise helps). With one: it is
    surely no more than the margin below, the interval's lower end is not under -margin (noise hurts).
    """
    fewest = None
    for amount in reversed(scores.amounts):
        difference = scores.difference(arm, amount, control, ALL)
        if difference is None or difference.n == 1:
            break
        if difference.high < 0 if margin is None else difference.low < -margin:
            break
        fewest = amount
    return fewest


def best(scores: Scores) -> str | None:
    """The arm with the highest mean score on validation with all labels."""
    means = {arm: float(np.mean(list(found[ALL].values()))) for arm, found in scores.chosen_by.items() if found.get(ALL)}
    return max(means, key=lambda arm: means[arm]) if means else None
