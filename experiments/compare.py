"""From records to numbers: scores by arm and amount of labels, paired differences, and what labels a method saves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

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
    levels: Mapping[str, Mapping[Amount, float]]  # without a network; an amount of (nan, "") where they learn from no labels

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
    for record in records:
        if metric in record["metrics"]:
            amount = (float(record["labels"]), record["label_unit"])
            by_arm.setdefault(record["init"], {}).setdefault(amount, {})[record["subset"]] = record["metrics"][metric]
    found: dict[str, dict[Amount, list[float]]] = {}
    for record in levels:
        if metric in record["metrics"]:
            amount = (float(record["labels"]), record["label_unit"])
            found.setdefault(record["init"], {}).setdefault(amount, []).append(record["metrics"][metric])
    means = {name: {amount: float(np.mean(values)) for amount, values in of.items()} for name, of in found.items()}
    return Scores(dataset, metric, tuple(amounts), by_arm, means)


@dataclasses.dataclass(frozen=True)
class Pooled:
    """An arm minus a control over several data sets: pairs are (data set, repeat); `p` is Wilcoxon's, adjusted by Holm."""

    arm: str
    control: str
    difference: PairedDifference
    p: float


def pooled(sets: Sequence[Scores], arms: Sequence[str], control: str, of: Callable[[Scores, str], Mapping[int, float]]) -> list[Pooled]:
    """Each arm against the control, a pair a data set and repeat, `of` giving the score of a data set's arm by repeat; p adjusted over
    the arms. Arms without a pair on one of the data sets are left out: they would be compared on other data.
    """
    found: list[tuple[str, PairedDifference]] = []
    for arm in arms:
        ours, theirs = ([of(scores, name) for scores in sets] for name in (arm, control))
        shared = [sorted(a.keys() & b.keys()) for a, b in zip(ours, theirs, strict=True)]
        if arm != control and all(shared):
            first, second = ([one[repeat] for one, repeats in zip(side, shared) for repeat in repeats] for side in (ours, theirs))
            found.append((arm, paired_difference(first, second)))
    adjusted = holm([difference.p for _, difference in found])
    return [Pooled(arm, control, difference, p) for (arm, difference), p in zip(found, adjusted, strict=True)]


def enough(scores: Scores, arm: str, control: str, control_amount: Amount = ALL) -> Amount | None:
    """The fewest labels with which the arm is not clearly below the control with `control_amount`: the 95 % interval of the paired
    difference reaches 0. Few repeats make wide intervals, and so small amounts: read it beside the scores.
    """
    for amount in scores.amounts:
        difference = scores.difference(arm, amount, control, control_amount)
        if difference is not None and difference.n > 1 and difference.high >= 0:
            return amount
    return None


def best(scores: Scores, amount: Amount = ALL) -> str | None:
    """The arm with the highest mean at an amount."""
    means = {arm: float(np.mean(scores.cell(arm, amount))) for arm in scores.by_arm if scores.cell(arm, amount)}
    return max(means, key=lambda arm: means[arm]) if means else None
