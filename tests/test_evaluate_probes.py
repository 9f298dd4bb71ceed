"""kNN and ridge probes against scikit-learn and a plain solve."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from medssl_jax.evaluate import knn_accuracy, ridge_accuracy
from medssl_jax.evaluate.probes import ridge_scores


def clouds(seed, n=120, d=10, classes=4, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return np.random.default_rng(99).normal(size=(classes, d))[labels] + spread * rng.normal(size=(n, d)), labels


@pytest.mark.parametrize("k", [1, 7, 20])
def test_knn_agrees_with_sklearn(k):
    bank, labels = clouds(0)
    queries, truth = clouds(1, 80)
    model = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)).fit(bank, labels)
    assert knn_accuracy(bank, labels, queries, truth, k, 0.07) == pytest.approx(model.score(queries, truth))


def test_knn_ignores_length_and_survives_a_small_temperature():
    bank, labels = clouds(0)
    queries, truth = clouds(1, 80)
    scaled = bank * np.random.default_rng(2).uniform(0.1, 10, (len(bank), 1))
    assert knn_accuracy(scaled, labels, queries, truth) == knn_accuracy(bank, labels, queries, truth)
    assert knn_accuracy(bank, labels, queries, truth, 20, 1e-4) == knn_accuracy(bank, labels, queries, truth, 1)


def test_knn_temperature_lets_one_close_neighbour_outvote_two():
    bank, labels = np.array([[1, 0], [0, 1], [0, 1.0]]), np.array([5, 7, 7])
    query = np.array([[1, 0.1]])
    assert knn_accuracy(bank, labels, query, np.array([5]), k=3, temperature=0.07) == 1
    assert knn_accuracy(bank, labels, query, np.array([7]), k=3, temperature=100.0) == 1


@pytest.mark.parametrize(("n", "d"), [(60, 7), (12, 40)])
def test_ridge_scores_solve_the_normal_equations(n, d):
    rng = np.random.default_rng(0)
    x, y, q = rng.normal(2, 1, (n, d)), rng.normal(size=(n, 3)), rng.normal(2, 1, (5, d))
    strengths = np.array([3.0, 0.2, 1e-3])
    centred = x - x.mean(0)
    for strength, scores in zip(strengths, ridge_scores(x, y, q, strengths)):
        penalty = strength * np.trace(centred.T @ centred) / d
        by_hand = np.linalg.solve(centred.T @ centred + penalty * np.eye(d), centred.T @ (y - y.mean(0)))
        np.testing.assert_allclose(scores, (q - x.mean(0)) @ by_hand + y.mean(0), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(scores, Ridge(alpha=penalty).fit(x, y).predict(q), rtol=1e-6, atol=1e-8)


def test_ridge_finds_what_is_linear_and_nothing_in_noise():
    (bank, labels), (queries, truth) = clouds(0, 400, 20, spread=0.3), clouds(1, 200, 20, spread=0.3)
    assert ridge_accuracy(bank, labels, queries, truth) > 0.98
    noise = np.random.default_rng(3).normal(size=(600, 20))
    assert ridge_accuracy(noise[:400], labels, noise[400:], truth) < 0.4


def test_ridge_lambda_does_not_depend_on_the_queries():
    bank, labels = clouds(0, 60, 30)
    queries, truth = clouds(1, 50, 30)
    whole = ridge_accuracy(bank, labels, queries, truth)
    one_by_one = np.mean([ridge_accuracy(bank, labels, queries[i : i + 1], truth[i : i + 1]) for i in range(50)])
    assert whole == pytest.approx(one_by_one)


def test_ridge_chooses_a_strong_lambda_where_features_outnumber_examples_and_noise_dominates():
    """Ten informative directions among 200 noisy ones: the chosen strength beats an unregularised fit."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    features = rng.normal(size=(600, 100)) + 0.25 * np.outer(2 * labels - 1, np.arange(100) < 10)
    bank, queries = features[:110], features[110:]
    weak = ridge_scores(bank, np.eye(2)[labels[:110]], queries, np.array([1e-6]))[0].argmax(1)
    assert ridge_accuracy(bank, labels[:110], queries, labels[110:]) > np.mean(weak == labels[110:]) + 0.05


def test_a_class_that_the_bank_lacks_counts_as_wrong():
    bank, labels = np.eye(3).repeat(2, 0), np.array([10, 10, 20, 20, 30, 30])
    queries, truth = np.eye(3), np.array([10, 20, 99])
    assert knn_accuracy(bank, labels, queries, truth, k=2) == pytest.approx(2 / 3)
    assert ridge_accuracy(bank, labels, queries, truth) == pytest.approx(2 / 3)
