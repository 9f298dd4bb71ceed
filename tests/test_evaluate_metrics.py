"""Segmentation and classification metrics against sums written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, jaccard_score

from medssl_jax.errors import UserError
from medssl_jax.evaluate import classification_metrics, dice, iou, pooled_dice, segmentation_metrics

TRUTH = np.array([[1, 1, 0, 0], [1, 1, 0, 0]])
HALF = np.array([[1, 0, 0, 0], [1, 0, 1, 0]])  # TP 2, FP 1, FN 2
EMPTY = np.zeros((2, 4), int)


def by_sets(prediction, truth, classes):
    """Dice and IoU from sets of pixel positions, mean over foreground classes in the truth."""
    scores = []
    for k in range(1, classes):
        p, t = set(np.flatnonzero(prediction == k)), set(np.flatnonzero(truth == k))
        if t:
            scores.append((2 * len(p & t) / (len(p) + len(t)), len(p & t) / len(p | t)))
    return np.mean(scores, axis=0)


def test_binary_values_by_hand():
    assert dice(HALF, TRUTH, 2) == pytest.approx(4 / 7)
    assert iou(HALF, TRUTH, 2) == pytest.approx(2 / 5)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_against_sets_and_sklearn(classes):
    rng = np.random.default_rng(classes)
    prediction, truth = rng.integers(0, classes, (2, 13, 17))
    expected = by_sets(prediction, truth, classes)
    np.testing.assert_allclose((dice(prediction, truth, classes), iou(prediction, truth, classes)), expected)
    jaccard = jaccard_score(truth.ravel(), prediction.ravel(), labels=range(1, classes), average="macro")
    assert iou(prediction, truth, classes) == pytest.approx(jaccard)


def test_empty_masks():
    assert dice(EMPTY, EMPTY, 2) == iou(EMPTY, EMPTY, 2) == 1
    assert dice(HALF, EMPTY, 2) == iou(HALF, EMPTY, 2) == 0
    assert dice(EMPTY, TRUTH, 2) == 0


def test_class_missing_from_truth_costs_only_the_pixels_it_takes():
    truth, prediction = np.array([[1, 1, 1, 0]]), np.array([[1, 1, 2, 0]])
    assert dice(prediction, truth, 3) == pytest.approx(2 * 2 / (2 + 3))
    assert dice(np.array([[2, 0, 0, 0]]), np.zeros((1, 4), int), 3) == 0


def test_pooled_weighs_by_pixels_and_mean_does_not():
    small = np.array([[1, 0]])
    predictions, truths = [HALF, np.array([[0, 0]])], [TRUTH, small]
    found = segmentation_metrics(predictions, truths, 2)
    assert found["dice"] == pytest.approx((4 / 7 + 0) / 2)
    assert found["iou"] == pytest.approx((2 / 5 + 0) / 2)
    assert found["foreground"] == pytest.approx((HALF.mean() + 0) / 2)
    assert found["dice_pooled"] == pooled_dice(predictions, truths, 2) == pytest.approx(4 / (4 + 1 + 3))


@pytest.mark.parametrize(
    ("prediction", "truth", "words"),
    [(HALF, TRUTH[:1], "shape"), (HALF + 1, TRUTH, "values 1 to 2"), (HALF, TRUTH - 1, "values -1 to 0")],
)
def test_bad_masks_are_named(prediction, truth, words):
    with pytest.raises(UserError, match=words):
        dice(prediction, truth, 2)


def test_list_lengths_must_match():
    with pytest.raises(UserError, match="1 predictions cannot be scored against 2 masks"):
        segmentation_metrics([HALF], [TRUTH, TRUTH], 2)


def rank_auc(scores, positive):
    """Share of (positive, negative) pairs in the right order, ties half."""
    p, n = scores[positive], scores[~positive]
    return np.mean((p[:, None] > n[None]) + 0.5 * (p[:, None] == n[None]))


def test_classification_against_definitions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 90)
    logits = np.round(rng.normal(size=(90, 4)) + 1.2 * np.eye(4)[labels], 1)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = classification_metrics(probabilities, labels)
    predicted = probabilities.argmax(1)
    assert found["accuracy"] == pytest.approx(np.mean(predicted == labels))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    expected = np.mean([rank_auc(probabilities[:, k], labels == k) for k in range(4)])
    assert found["macro_auc"] == pytest.approx(expected)


def test_classes_absent_from_the_test_set():
    probabilities = np.array([[0.6, 0.1, 0.3], [0.2, 0.1, 0.7], [0.1, 0.6, 0.3]])
    found = classification_metrics(probabilities, np.array([0, 2, 2]))
    assert found["balanced_accuracy"] == pytest.approx((1 + 0.5) / 2)
    assert found["macro_auc"] == pytest.approx((1.0 + 0.75) / 2)  # class 2: one pair in order, one a tie
    single = classification_metrics(probabilities, np.array([2, 2, 2]))
    assert np.isnan(single["macro_auc"])
    assert single["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [(np.ones((2, 3)), [0], "do not fit"), (np.ones((2, 3)), [0, 3], "0 to 3"), (np.full((2, 3), np.nan), [0, 1], "not finite")],
)
def test_bad_classification_input(probabilities, labels, words):
    with pytest.raises(UserError, match=words):
        classification_metrics(probabilities, np.array(labels))
