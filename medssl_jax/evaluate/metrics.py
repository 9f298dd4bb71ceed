"""Segmentation and classification metrics, each with its convention in its name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from medssl_jax.errors import UserError

METRICS_VERSION = (
    "metrics-2: dice and iou per image, classes present in the truth, background excluded; foreground: share of the pixels predicted so; "
    "AUC one-vs-rest over the whole set"
)


def counts(prediction: np.ndarray, truth: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of each foreground class that are right (TP), too many (FP) and missing (FN).

    Args:
      prediction: int [H, W], classes 0 .. classes-1 with 0 the background.
      truth: int [H, W].
      classes: number of classes with the background; 2 is binary.

    Returns:
      Three int64 arrays [classes - 1].

    Raises:
      UserError: shapes differ, or a mask holds a value that is no class.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    _check_masks(prediction, truth, classes)
    pairs = np.bincount(truth.ravel().astype(np.int64) * classes + prediction.ravel().astype(np.int64), minlength=classes**2)
    table = pairs.reshape(classes, classes)
    right = np.diag(table)[1:]
    return right, table.sum(axis=0)[1:] - right, table.sum(axis=1)[1:] - right


def dice(prediction: np.ndarray, truth: np.ndarray, classes: int = 2) -> float:
    """Dice coefficient of one image, 2 TP / (2 TP + FP + FN).

    Binary: of the foreground. More classes: the mean over the foreground classes present in the truth; pixels given to a
    class that the truth lacks count as missing from the class they belong to. Where the truth has no foreground, the value
    is 1 for a prediction without foreground and 0 for any other.

    Args:
      prediction: int [H, W].
      truth: int [H, W].
      classes: number of classes with the background.
    """
    right, extra, missing = counts(prediction, truth, classes)
    return _mean_present(2 * right, extra + missing, right + missing, extra)


def iou(prediction: np.ndarray, truth: np.ndarray, classes: int = 2) -> float:
    """Intersection over union of one image, TP / (TP + FP + FN); classes and empty masks as in `dice`."""
    right, extra, missing = counts(prediction, truth, classes)
    return _mean_present(right, extra + missing, right + missing, extra)


def pooled_dice(predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray], classes: int = 2) -> float:
    """Dice with TP, FP and FN summed over all images first, the convention of the TOWER paper's code.

    Large structures weigh more than in the mean of `dice` over images, and an empty image costs nothing.
    """
    _check_lists(predictions, truths)
    right, extra, missing = (np.sum(part, axis=0) for part in zip(*(counts(p, t, classes) for p, t in zip(predictions, truths))))
    return _mean_present(2 * right, extra + missing, right + missing, extra)


def segmentation_metrics(predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray], classes: int = 2) -> dict[str, float]:
    """Dice and IoU as means over images, the pooled Dice, and how much was marked: all or nothing is no segmentation, whatever its Dice.

    Args:
      predictions: int masks [H, W], one an image; sizes may differ between images.
      truths: int masks of the same sizes.
      classes: number of classes with the background.

    Returns:
      {"dice", "iou", "dice_pooled", "foreground": share of the pixels predicted as foreground, mean over images}.
    """
    _check_lists(predictions, truths)
    return {
        "dice": float(np.mean([dice(p, t, classes) for p, t in zip(predictions, truths)])),
        "iou": float(np.mean([iou(p, t, classes) for p, t in zip(predictions, truths)])),
        "dice_pooled": pooled_dice(predictions, truths, classes),
        "foreground": float(np.mean([(np.asarray(p) > 0).mean() for p in predictions])),
    }


def classification_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro one-vs-rest AUC, each computed once over the whole test set.

    Balanced accuracy is the mean recall of the classes that occur in `labels`. The AUC is the mean over the classes that
    have both examples and counter-examples; with a single class in `labels` there is none and it is NaN.

    Args:
      probabilities: float [N, K], rows sum to 1.
      labels: int [N], values 0 .. K-1.

    Raises:
      UserError: lengths differ, a label is outside 0 .. K-1, or a probability is not finite.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    _check_labels(probabilities, labels)
    predicted, present = probabilities.argmax(axis=1), np.unique(labels)
    areas = [roc_auc_score(labels == k, probabilities[:, k]) for k in present if len(present) > 1]
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": float(recall_score(labels, predicted, labels=present, average="macro")),
        "macro_auc": float(np.mean(areas)) if areas else float("nan"),
    }


def _mean_present(overlap: np.ndarray, errors: np.ndarray, in_truth: np.ndarray, extra: np.ndarray) -> float:
    """Mean of overlap / (overlap + errors) over classes with pixels in the truth."""
    present = in_truth > 0
    if not present.any():
        return 0.0 if extra.any() else 1.0
    return float(np.mean(overlap[present] / (overlap + errors)[present]))


def _check_masks(prediction: np.ndarray, truth: np.ndarray, classes: int) -> None:
    if prediction.shape != truth.shape:
        raise UserError(
            f"a prediction of shape {prediction.shape} cannot be scored against a mask of shape {truth.shape}: give equal sizes"
        )
    for name, mask in (("prediction", prediction), ("mask", truth)):
        if mask.size and (mask.min() < 0 or mask.max() >= classes):
            raise UserError(f"a {name} holds values {mask.min()} to {mask.max()}, but the task has the classes 0 to {classes - 1}")


def _check_lists(predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> None:
    if len(predictions) != len(truths) or not len(truths):
        raise UserError(f"{len(predictions)} predictions cannot be scored against {len(truths)} masks: give one each, and at least one")


def _check_labels(probabilities: np.ndarray, labels: np.ndarray) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not labels.size:
        raise UserError(f"probabilities of shape {probabilities.shape} do not fit labels of shape {labels.shape}: give [N, K] and [N]")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise UserError(f"labels {labels.min()} to {labels.max()} do not fit {probabilities.shape[1]} classes: number them from 0")
    if not np.isfinite(probabilities).all():
        raise UserError("the predicted probabilities are not finite, so they cannot be scored: look for NaN in the training loss")
