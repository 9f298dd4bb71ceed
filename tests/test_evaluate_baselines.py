"""Levels without a network, on images where the answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from medssl_jax.evaluate import baselines


def blobs(seed, n=3, bright=True, dtype=np.uint8, side=24):
    """Squares that are brighter (or darker) than a noisy ground, with instance labels as masks."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    examples = []
    for i in range(n):
        mask = np.zeros((side, side), np.int32)
        mask[3 + i : 11 + i, 4:12] = 1
        level = np.where((mask > 0) == bright, 0.8, 0.2)[..., None] + rng.normal(0, 0.03, (side, side, 2))
        examples.append({"image": (np.clip(level, 0, 1) * top).astype(dtype), "mask": mask, "id": str(i)})
    return examples


def test_all_foreground_is_the_closed_form():
    test = blobs(0)
    share = 64 / 24**2
    found = baselines.all_foreground(test)
    assert (found["dice"], found["dice_pooled"]) == (pytest.approx(2 * share / (1 + share)),) * 2
    assert found["iou"] == pytest.approx(share)


@pytest.mark.parametrize("bright", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_otsu_learns_the_polarity_from_training_images(bright, dtype):
    assert baselines.otsu(blobs(0, 2, bright, dtype), blobs(1, 3, bright, dtype))["dice"] > 0.99


def test_otsu_polarity_never_comes_from_the_test_images():
    assert baselines.otsu(blobs(0, 2, bright=True), blobs(1, 3, bright=False))["dice"] < 0.05


def test_ridges_mark_a_given_share_of_dark_lines_and_not_the_rim():
    """Dark lines on a bright disc: most of what is marked are they, though the disc's edge is the stronger ridge."""
    rows, columns = np.ogrid[:128, :128]
    seen = (rows - 64) ** 2 + (columns - 64) ** 2 < 60**2
    mask = (np.abs(rows - 40) < 4) | (np.abs(rows - 80) < 4) | (columns < 0)
    mask = (mask & ((rows - 64) ** 2 + (columns - 64) ** 2 < 50**2)).astype(np.int32)
    image = np.where(seen, np.where(mask > 0, 90, 160), 0).astype(np.uint8)[..., None].repeat(3, -1)
    found = baselines.ridges([{"image": image, "mask": mask}], [seen], float(mask.mean()))
    assert found["dice"] > 0.65
    everywhere = baselines.ridges([{"image": image, "mask": mask}], [np.ones_like(seen)], float(mask.mean()))
    assert everywhere["dice"] < found["dice"] - 0.1
    assert 0.8 * mask.mean() < found["foreground"] < mask.mean() + 1e-3


def test_majority():
    found = baselines.majority([0, 1, 1, 1, 2], [0, 1, 1, 2], classes=3)
    assert found == {"accuracy": pytest.approx(0.5), "balanced_accuracy": pytest.approx(1 / 3), "macro_auc": pytest.approx(0.5)}


def tinted(seed, n, classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    labels[:classes] = range(classes)
    return [{"image": rng.integers(60 * k, 60 * k + 90, (9, 7, 3)).astype(np.uint8), "label": int(k), "id": "x"} for k in labels]


def test_colour_histogram_learns_colour():
    assert baselines.colour_histogram(tinted(0, 30), tinted(1, 40), 3)["accuracy"] > 0.95


def test_colour_histogram_with_missing_classes():
    test = tinted(1, 40, 3)
    two = [example for example in tinted(0, 30, 3) if example["label"] != 1]
    found = baselines.colour_histogram(two, test, 3)
    assert 0.6 < found["balanced_accuracy"] < 0.67  # two of three classes can be right
    one = [example for example in two if example["label"] == 2]
    assert baselines.colour_histogram(one, test, 3)["macro_auc"] == pytest.approx(0.5)


def dataset(task, pool, test, classes):
    return SimpleNamespace(task=task, pool=pool, test=test, classes=classes)


def test_levels_of_a_segmentation_are_tidy_rows():
    unlabelled = [{"image": example["image"], "id": "u"} for example in blobs(5, 2)] * 400  # more than the levels read
    rows = baselines.levels(dataset("segmentation", [*unlabelled, *blobs(0)], blobs(1), ("background", "cell")))
    assert {(row["init"], row["labels"]) for row in rows} == {("all foreground", 0), ("otsu", 3)}
    assert {row["metric"] for row in rows} == {"dice", "iou", "dice_pooled", "foreground"}
    assert all(set(row) == {"init", "labels", "label_unit", "subset", "metric", "value", "n"} and row["n"] == 3 for row in rows)


def test_levels_of_a_classification():
    rows = baselines.levels(dataset("classification", tinted(0, 30), tinted(1, 20), ("a", "b", "c")))
    assert {row["init"] for row in rows} == {"majority"}


def test_levels_without_a_fitting_level():
    assert baselines.levels(dataset("segmentation", blobs(0), blobs(1), ("a", "b", "c"))) == []
    assert baselines.levels(dataset("segmentation", blobs(0), [], ("a", "b"))) == []
