"""Probes of frozen features: cosine k-nearest neighbours and closed-form ridge. Queries are never in the bank."""

from __future__ import annotations

import numpy as np

K = 20
TEMPERATURE = 0.07
HELD_OUT = 5  # one in five examples of each class of the bank chooses lambda
LAMBDAS = np.logspace(3, -6, 10)  # times the mean eigenvalue of the features' scatter; the strongest first

PROBE_VERSION = f"probes-2: cosine kNN, k={K}, temperature={TEMPERATURE}; ridge, lambda of 10 by 1/{HELD_OUT} of the bank"


def knn_accuracy(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    k: int = K,
    temperature: float = TEMPERATURE,
) -> float:
    """Share of queries whose k nearest neighbours in the bank vote for the right class.

    Each neighbour votes with exp(cosine / temperature) (Wu et al. 2018, "Unsupervised feature learning via non-parametric
    instance discrimination", section 3.4). A bank smaller than k votes as a whole.

    Args:
      bank: float [N, D]; queries: float [M, D].
      bank_labels: int [N]; query_labels: int [M]. A class that the bank lacks cannot be right.
    """
    classes, codes = np.unique(np.asarray(bank_labels), return_inverse=True)
    bank, queries = _unit(bank), _unit(queries)
    votes = [_votes(part @ bank.T, codes, len(classes), k, temperature) for part in np.array_split(queries, -(-len(queries) // 1024))]
    return float(np.mean(classes[np.concatenate(votes).argmax(axis=1)] == np.asarray(query_labels)))


def ridge_accuracy(bank: np.ndarray, bank_labels: np.ndarray, queries: np.ndarray, query_labels: np.ndarray, seed: int = 0) -> float:
    """Accuracy of multi-class ridge regression on one-hot targets, fitted on the bank.

    Lambda is chosen by accuracy on a held-out fifth of each class of the bank (the larger one of equals), then the
    regression is fitted to the whole bank; queries take no part. A bank without a class of five examples uses lambda 1.

    Args:
      bank: float [N, D]; queries: float [M, D].
      bank_labels: int [N]; query_labels: int [M]. A class that the bank lacks cannot be right.
      seed: chooses the held-out examples.
    """
    classes, codes = np.unique(np.asarray(bank_labels), return_inverse=True)
    bank, targets = np.asarray(bank, np.float64), np.eye(len(classes))[codes]
    held = _held_out(codes, seed)
    strength = 1.0
    if held.any():
        scores = ridge_scores(bank[~held], targets[~held], bank[held], LAMBDAS)
        strength = float(LAMBDAS[np.argmax([np.mean(s.argmax(axis=1) == codes[held]) for s in scores])])
    (scores,) = ridge_scores(bank, targets, np.asarray(queries, np.float64), np.array([strength]))
    return float(np.mean(classes[scores.argmax(axis=1)] == np.asarray(query_labels)))


def ridge_scores(features: np.ndarray, targets: np.ndarray, queries: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Ridge predictions with an unpenalised intercept for several strengths from one eigendecomposition.

    Minimises |Xc W - Yc|^2 + lambda |W|^2 with centred Xc, Yc and lambda = strength * trace(Xc' Xc) / D, so that a strength
    means the same for features of any scale. The smaller of Xc' Xc [D, D] and Xc Xc' [N, N] is decomposed.

    Args:
      features: float [N, D]; targets: float [N, K]; queries: float [M, D].
      strengths: float [L], above 0.

    Returns:
      float64 [L, M, K].
    """
    centre, level = features.mean(axis=0, keepdims=True), targets.mean(axis=0, keepdims=True)
    x, y, q = features - centre, targets - level, queries - centre
    n, d = x.shape
    wide = n < d
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    lambdas = np.asarray(strengths) * max(float(values.sum()), np.finfo(float).tiny) / d
    # W = (X'X + l)^-1 X'Y = X' (XX' + l)^-1 Y: project once, then every lambda is a rescale.
    left, right = ((q @ x.T) @ vectors, vectors.T @ y) if wide else (q @ vectors, vectors.T @ (x.T @ y))
    return np.stack([(left / (values + penalty)[None]) @ right + level for penalty in lambdas])


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _votes(cosine: np.ndarray, codes: np.ndarray, classes: int, k: int, temperature: float) -> np.ndarray:
    """Weighted votes [M, classes] from cosines [M, N]."""
    k = min(k, cosine.shape[1])
    nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(cosine, nearest, axis=1).astype(np.float64)
    # Relative to the nearest neighbour, so that a small temperature cannot overflow.
    weights = np.exp((near - near.max(axis=1, keepdims=True)) / temperature)
    votes = np.zeros((len(cosine), classes))
    np.add.at(votes, (np.arange(len(cosine))[:, None], codes[nearest]), weights)
    return votes


def _held_out(codes: np.ndarray, seed: int) -> np.ndarray:
    """True for one in HELD_OUT examples of each class; a class with fewer keeps all its examples for fitting."""
    order = np.random.default_rng(seed).permutation(len(codes))
    held = np.zeros(len(codes), bool)
    for code in np.unique(codes):
        members = order[codes[order] == code]
        held[members[HELD_OUT - 1 :: HELD_OUT]] = True
    return held
