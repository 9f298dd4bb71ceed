"""Paired comparison of two arms over shared seeds and label choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

FEW = 20  # pairs below which the bootstrap is too narrow: of 3 pairs its 95 % interval holds the truth in 75 % of cases, of 10 in 90 %


@dataclass(frozen=True)
class PairedDifference:
    """a - b over pairs: mean, 95 % interval of the mean, Wilcoxon's p, number of pairs, and in how many a was higher."""

    mean: float
    low: float
    high: float
    p: float
    n: int
    higher: int
    interval: str

    @property
    def verdict(self) -> str:
        """'higher' or 'lower' where the interval leaves out 0, else 'unclear'."""
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "unclear"


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> PairedDifference:
    """Mean of a - b with a 95 % interval and Wilcoxon's signed-rank test.

    The interval is Student's t below 20 pairs and the percentile bootstrap (10,000 resamples) from there on. The smallest
    two-sided p that n pairs can give is 2 / 2^n: 0.25 for three pairs, so p says little about few repeats.

    Args:
      a: scores of one arm, one a (label choice, seed).
      b: scores of the other arm, in the same order.
      seed: of the bootstrap.

    Raises:
      ValueError: the lengths differ or are 0, or a score is not finite.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or not first.size or not np.isfinite(first - second).all():
        raise ValueError(f"pairs need two equally long, finite lists; found shapes {first.shape} and {second.shape}")
    difference = first - second
    low, high = _student(difference) if len(difference) < FEW else _bootstrap(difference, seed)
    return PairedDifference(
        mean=float(difference.mean()),
        low=low,
        high=high,
        p=float(stats.wilcoxon(difference).pvalue) if np.any(difference) else 1.0,
        n=len(difference),
        higher=int(np.sum(difference > 0)),
        interval="Student's t" if len(difference) < FEW else "bootstrap",
    )


def holm(p: Sequence[float]) -> list[float]:
    """p-values of a family of tests, adjusted so that the chance of any false finding stays at the level (Holm 1979), in the given order.

    Raises:
      ValueError: a value is no probability.
    """
    values = np.asarray(p, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p-values lie between 0 and 1; found {values}")
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted.tolist()


def _student(difference: np.ndarray) -> tuple[float, float]:
    """Infinite for a single pair: one repeat says nothing about the spread."""
    n = len(difference)
    if n == 1:
        return -np.inf, np.inf
    half = stats.t.ppf(0.975, n - 1) * difference.std(ddof=1) / np.sqrt(n)
    return float(difference.mean() - half), float(difference.mean() + half)


def _bootstrap(difference: np.ndarray, seed: int) -> tuple[float, float]:
    draws = np.random.default_rng(seed).integers(0, len(difference), (10_000, len(difference)))
    low, high = np.percentile(difference[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
