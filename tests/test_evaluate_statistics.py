"""Paired differences: values by hand and by scipy, and whether the interval keeps its promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medssl_jax.evaluate import holm, paired_difference


def test_three_pairs_by_hand():
    found = paired_difference([0.5, 0.6, 0.9], [0.4, 0.55, 0.6])  # differences 0.1, 0.05, 0.3
    assert (found.mean, found.n, found.higher, found.interval) == (pytest.approx(0.15), 3, 3, "Student's t")
    half = 4.302653 * np.std([0.1, 0.05, 0.3], ddof=1) / math.sqrt(3)  # t table, 2 degrees of freedom, 0.975
    assert (found.low, found.high) == (pytest.approx(0.15 - half), pytest.approx(0.15 + half))
    assert found.p == pytest.approx(0.25)  # the smallest that three pairs can give
    assert found.verdict == "unclear"


def test_many_pairs_use_the_bootstrap_and_agree_with_scipy():
    rng = np.random.default_rng(0)
    b = rng.normal(size=40)
    a = b + rng.exponential(0.3, 40) - 0.1
    found = paired_difference(a, b, seed=3)
    reference = stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    assert (found.low, found.high) == (pytest.approx(reference.low, abs=0.01), pytest.approx(reference.high, abs=0.01))
    assert found.p == stats.wilcoxon(a - b).pvalue
    assert (found.interval, found.verdict) == ("bootstrap", "higher")
    assert found == paired_difference(a, b, seed=3)
    assert paired_difference(b, a).verdict == "lower"


@pytest.mark.parametrize("n", [3, 5, 25])
def test_the_interval_holds_the_truth_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    hits = [(f := paired_difference(rng.normal(size=n) + 0.2, np.zeros(n))).low <= 0.2 <= f.high for _ in range(300)]
    assert 0.90 <= np.mean(hits) <= 0.99


def test_one_pair_claims_nothing():
    found = paired_difference([0.9], [0.1])
    assert (found.low, found.high, found.verdict) == (-math.inf, math.inf, "unclear")


def test_no_difference_at_all():
    found = paired_difference([0.5, 0.5], [0.5, 0.5])
    assert (found.mean, found.low, found.high, found.p, found.verdict) == (0, 0, 0, 1, "unclear")


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([], []), ([math.nan], [0.0])])
def test_pairs_must_be_pairs(a, b):
    with pytest.raises(ValueError, match="pairs need"):
        paired_difference(a, b)


def test_holm_by_its_definition():
    """An adjusted p is the smallest level at which the step-down procedure rejects."""

    def rejected(p, level):
        found = np.zeros(len(p), bool)
        for left, i in enumerate(np.argsort(p, kind="stable")):
            if p[i] > level / (len(p) - left):
                break
            found[i] = True
        return found

    p = [0.02, 0.5, 0.001, 0.02, 0.3]
    adjusted = np.array(holm(p))
    np.testing.assert_allclose(adjusted, [0.08, 0.6, 0.005, 0.08, 0.6])
    for level in (0.005, 0.01, 0.05, 0.0801, 0.2, 0.61):
        np.testing.assert_array_equal(rejected(p, level + 1e-9), adjusted <= level + 1e-9)
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.2])


def test_independent_repeats_keep_their_promise_and_crossed_ones_do_not():
    """Why a repeat of the tables has a seed and a choice of labels of its own: where both matter as much as what is left, three seeds on
    three choices give nine pairs that are not independent, and an interval that misses the truth too often."""
    rng = np.random.default_rng(0)
    missed = {"independent": 0, "crossed": 0}
    for _ in range(2000):
        crossed = (rng.normal(size=(3, 1)) + rng.normal(size=(1, 3)) + rng.normal(size=(3, 3))).ravel()
        for name, difference in (("crossed", crossed), ("independent", rng.normal(scale=3**0.5, size=5))):
            found = paired_difference(difference, np.zeros(len(difference)))
            missed[name] += not found.low <= 0 <= found.high
    assert missed["independent"] / 2000 == pytest.approx(0.05, abs=0.015)
    assert missed["crossed"] / 2000 > 0.15
