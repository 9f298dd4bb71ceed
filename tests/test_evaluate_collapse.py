"""The collapse panel on features whose state is known, and against pairwise sums."""

from __future__ import annotations

import numpy as np
import pytest

from medssl_jax.evaluate import collapse_panel, collapse_warning, directions


def features(kind, n=512, d=32):
    rng = np.random.default_rng(0)
    if kind == "healthy":
        return rng.normal(size=(n, d))
    if kind == "rank 4":
        return rng.normal(size=(n, 4)) @ rng.normal(size=(4, d))
    return rng.normal(size=(1, d)) + 1e-4 * rng.normal(size=(n, d))


@pytest.mark.parametrize(
    ("kind", "spread", "cosine", "rank", "uniformity"),
    [("healthy", 1.0, 0.0, 31.7, -3.75), ("rank 4", 0.94, 0.0, 3.96, -2.30), ("collapsed", 0.0, 1.0, 1.01, 0.0)],
)
def test_reference_table(kind, spread, cosine, rank, uniformity):
    panel = collapse_panel(features(kind))
    assert panel["std_sqrt_d"] == pytest.approx(spread, abs=0.04)  # of rank 4 it depends on the draw of the four directions
    assert panel["mean_cosine"] == pytest.approx(cosine, abs=0.005)
    assert panel["effective_rank"] == pytest.approx(rank, rel=0.01)
    assert panel["uniformity"] == pytest.approx(uniformity, abs=0.1)
    assert panel["n"] == 512


def test_against_pairs_written_out():
    z = features("rank 4", 1100, 6) + 0.5  # more rows than one block
    panel = collapse_panel(z)
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    off = ~np.eye(len(u), dtype=bool)
    squared = np.stack([np.sum((u - row) ** 2, axis=1) for row in u])
    assert panel["uniformity"] == pytest.approx(np.log(np.mean(np.exp(-2 * squared[off]))))
    assert panel["mean_cosine"] == pytest.approx(np.mean((u @ u.T)[off]))
    assert panel["std_sqrt_d"] == pytest.approx(np.mean(np.std(u, axis=0)) * np.sqrt(6))


def test_effective_rank_counts_equal_directions_exactly():
    assert collapse_panel(np.eye(7, 9).repeat(3, 0))["effective_rank"] == pytest.approx(7)


def test_healthy_features_give_no_warning():
    assert collapse_warning(collapse_panel(features("healthy")), 32) is None


def test_collapse_is_told_with_a_remedy():
    warning = collapse_warning(collapse_panel(features("collapsed")), 32)
    assert "1.0 of 32 directions" in warning
    assert "mean cosine of 1" in warning
    assert "lower config.pretrain.optimizer.learning_rate" in warning


def test_few_directions_alone_are_seen():
    panel = collapse_panel(np.random.default_rng(0).normal(size=(512, 4)) @ np.random.default_rng(1).normal(size=(4, 128)))
    warning = collapse_warning(panel, 128)
    assert "of 128 directions" in warning
    assert "cosine" not in warning


def test_rank_is_judged_by_what_few_images_can_show():
    """40 images span at most 40 of 2048 directions, which is below 5 % of them and no collapse."""
    assert collapse_warning(collapse_panel(np.random.default_rng(0).normal(size=(40, 2048))), 2048) is None


def test_features_that_are_not_finite():
    z = features("healthy")
    z[3, 3] = np.nan
    assert "not finite" in collapse_warning(collapse_panel(z), 32)


@pytest.mark.parametrize("columns", [1, 2, 7])
def test_directions_of_independent_columns_and_of_copies(columns):
    """Orthogonal columns of the same length, wherever their mean is; copies of one at any scale; nothing that varies."""
    free = np.linalg.qr(np.random.default_rng(0).normal(size=(64, columns + 1)) + np.eye(64, columns + 1))[0]
    free -= free.mean(0)
    free = np.linalg.qr(free)[0][:, :columns] + 9
    assert directions(free) == pytest.approx(columns, rel=1e-6)
    assert directions(free[:, :1] * np.arange(1, columns + 1)) == pytest.approx(1, rel=1e-6)
    assert directions(np.ones((64, columns))) == 0
    assert np.isnan(directions(np.full((64, columns), np.inf)))


def test_directions_are_those_of_the_correlations():
    """Two columns with a correlation of 0.8, whatever their scales: eigenvalue shares 0.9 and 0.1."""
    even, odd = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])
    rows = np.stack([100 * even, 0.01 * (0.8 * even + 0.6 * odd)], 1)
    assert directions(rows) == pytest.approx(0.9**-0.9 * 0.1**-0.1)


def test_dead_columns_are_no_directions():
    rows = np.random.default_rng(0).normal(size=(4096, 16))
    assert directions(rows) == pytest.approx(16, rel=1e-2)
    rows[:, 2:] = 3.0
    assert directions(rows) == pytest.approx(2, rel=1e-2)
