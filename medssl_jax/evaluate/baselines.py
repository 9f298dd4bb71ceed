"""Levels to print beside a result: what needs no network, or no learning at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.filters import frangi, threshold_otsu
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medssl_jax.data.dataset import Dataset, Source, describe
from medssl_jax.evaluate.metrics import classification_metrics, dice, segmentation_metrics

Example = Mapping[str, Any]
BINS = 16
RIM = 1  # times the widest sigma, next to the edge of the field of view, is not looked at
WIDTHS = (2, 3, 4)  # px, sigmas of the ridge filter
LABELLED = 500  # labelled images of the pool that the levels may learn from, evenly taken

ALL_FOREGROUND = "all foreground"
OTSU = "otsu"
FRANGI = "frangi filter"
MAJORITY = "majority"
COLOUR_HISTOGRAM = "colour histogram"


def levels(dataset: Dataset) -> list[dict[str, Any]]:
    """The levels that fit the task, as tidy rows without experiment, data set and seed.

    Binary segmentation: `all foreground`, `otsu`. Classification: `majority`. What learns uses up to 500 labelled images of the
    pool, which is its `labels`. Segmentation of several classes has no such level: an empty list.

    Returns:
      Rows {"init", "labels", "label_unit", "subset", "metric", "value", "n"}.
    """
    key = "label" if dataset.task == "classification" else "mask"
    train = _labelled(dataset.pool, key)
    test = [example for i in range(len(dataset.test)) if key in (example := dataset.test[i])]
    classes = len(dataset.classes)
    found: dict[str, tuple[int, dict[str, float]]] = {}
    if not test or (key == "mask" and classes != 2):
        return []
    if key == "mask":
        found[ALL_FOREGROUND] = (0, all_foreground(test))
    if key == "mask" and train:
        found[OTSU] = (len(train), otsu(train, test))
    if key == "label" and train:
        labels, truth = [[int(example["label"]) for example in part] for part in (train, test)]
        found[MAJORITY] = (len(train), majority(labels, truth, classes))
    about = {"label_unit": "image", "subset": 0, "n": len(test)}
    return [
        {"init": init, "labels": labels, "metric": metric, "value": value, **about}
        for init, (labels, metrics) in found.items()
        for metric, value in metrics.items()
    ]


def all_foreground(test: Iterable[Example]) -> dict[str, float]:
    """Metrics of calling every pixel foreground: what a useless network can reach.

    Args:
      test: {"mask": int [H, W], ...}; any class above 0 is foreground.

    Returns:
      {"dice", "iou", "dice_pooled", "foreground"}.
    """
    truths = [_foreground(example) for example in test]
    return segmentation_metrics([np.ones_like(truth) for truth in truths], truths)


def otsu(train: Iterable[Example], test: Iterable[Example]) -> dict[str, float]:
    """Metrics of Otsu's threshold (1979) of each image's mean over channels.

    Whether bright or dark is foreground is the polarity with the higher Dice on the training images.

    Args:
      train: {"image": [H, W, C], "mask": int [H, W]}; test: the same.

    Returns:
      {"dice", "iou", "dice_pooled", "foreground"} on test.
    """
    pairs = [(_bright(example), _foreground(example)) for example in train]
    bright, dark = (np.mean([dice(mask ^ flip, truth) for mask, truth in pairs]) for flip in (0, 1))
    flip = int(dark > bright)
    scored = [(_bright(example) ^ flip, _foreground(example)) for example in test]
    return segmentation_metrics([mask for mask, _ in scored], [truth for _, truth in scored])


def ridges(test: Iterable[Example], inside: Iterable[np.ndarray], share: float) -> dict[str, float]:
    """Metrics of Frangi's vesselness (1998) for dark ridges, at the threshold that marks a given share of each image: no label is used.

    Args:
      test: {"image": [H, W, C], "mask": int [H, W]}; of RGB the green channel is filtered, where vessels are darkest, else the mean.
      inside: bool [H, W] an image, the field of view; nothing is marked outside.
      share: of the whole image that is marked.

    Returns:
      {"dice", "iou", "dice_pooled", "foreground"}.
    """
    masks, truths = [], []
    for example, seen in zip(test, inside, strict=True):
        image = np.asarray(example["image"], np.float32) / np.iinfo(example["image"].dtype).max
        found = frangi(image[..., 1] if image.shape[-1] == 3 else image.mean(-1), sigmas=WIDTHS, black_ridges=True)
        rim = distance_transform_edt(np.pad(seen, 1))[1:-1, 1:-1] <= RIM * max(WIDTHS)  # the edge of the field is the strongest ridge
        found = np.where(rim, 0, found)
        masks.append((found > np.quantile(found, 1 - share)).astype(np.int32))
        truths.append(_foreground(example))
    return segmentation_metrics(masks, truths)


def majority(train_labels: Sequence[int], test_labels: Sequence[int], classes: int) -> dict[str, float]:
    """Metrics of giving every image the class frequencies of the training labels.

    Returns:
      {"accuracy", "balanced_accuracy", "macro_auc"}; the last is 0.5 and the middle one 1 / (classes in the test set).
    """
    frequency = np.bincount(np.asarray(train_labels), minlength=classes) / len(train_labels)
    return classification_metrics(np.tile(frequency, (len(test_labels), 1)), np.asarray(test_labels))


def colour_histogram(train: Iterable[Example], test: Iterable[Example], classes: int) -> dict[str, float]:
    """Metrics of logistic regression on each channel's histogram: what colour alone tells.

    16 bins a channel between the training images' extremes, standardised; with a single class among the training labels it
    is `majority`.

    Args:
      train: {"image": [H, W, C], "label": int}, the labelled examples; test: the same.
      classes: K of the task.

    Returns:
      {"accuracy", "balanced_accuracy", "macro_auc"} on test.
    """
    train, test = list(train), list(test)
    labels, truth = [np.array([example["label"] for example in part]) for part in (train, test)]
    if len(np.unique(labels)) < 2:
        return majority(labels.tolist(), truth.tolist(), classes)
    describe = _histogram(train)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(np.stack([describe(example) for example in train]), labels)
    probabilities = np.zeros((len(test), classes))
    probabilities[:, model.classes_] = model.predict_proba(np.stack([describe(example) for example in test]))
    return classification_metrics(probabilities, truth)


def _labelled(pool: Source, key: str) -> list[Example]:
    """Evenly taken examples of those in the pool that have `key`, LABELLED at most."""
    known = [(i, describe(pool, i)) for i in range(len(pool))]
    having = [i for i, info in known if (info.masked if key == "mask" else info.label is not None)]
    chosen = np.unique(np.linspace(0, max(len(having) - 1, 0), min(LABELLED, len(having))).astype(int))
    return [pool[having[i]] for i in chosen]


def _foreground(example: Example) -> np.ndarray:
    return (np.asarray(example["mask"]) > 0).astype(np.int32)


def _bright(example: Example) -> np.ndarray:
    gray = np.asarray(example["image"], np.float32).mean(axis=-1)
    return (gray > threshold_otsu(gray)).astype(np.int32)


def _histogram(train: Sequence[Example]) -> Callable[[Example], np.ndarray]:
    """image -> histograms [C * BINS] that sum to 1 a channel, with edges from the training images."""
    lows = np.min([np.min(example["image"], axis=(0, 1)) for example in train], axis=0).astype(np.float64)
    highs = np.max([np.max(example["image"], axis=(0, 1)) for example in train], axis=0).astype(np.float64)
    widths = np.maximum(highs - lows, 1e-12)

    def describe(example: Example) -> np.ndarray:
        """Of one image; values beyond the edges count in the outermost bins."""
        pixels = np.asarray(example["image"], np.float64).reshape(-1, len(lows))
        bins = np.clip((pixels - lows[None]) / widths[None] * BINS, 0, BINS - 1).astype(int)
        return np.concatenate([np.bincount(channel, minlength=BINS) for channel in bins.T]) / len(pixels)

    return describe
