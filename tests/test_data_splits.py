"""Parts are stratified and seeded; of two label amounts the smaller is inside the larger."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from medssl_jax.config import base
from medssl_jax.data.sources import Dataset, open_dataset
from medssl_jax.data.splits import Amount, choose, parse_amounts, split
from medssl_jax.errors import UserError


def dataset(pool, task, classes=("a", "b")):
    return Dataset("toy", pool, [], [], task, classes, 1, np.dtype(np.uint8), "brightfield")


def labelled(*counts):
    """`counts[k]` images of class k, and three without a class."""
    labels = [k for k, count in enumerate(counts) for _ in range(count)]
    known = [{"image": np.zeros((16, 16, 1), np.uint8), "label": k, "id": f"{i}"} for i, k in enumerate(labels)]
    return dataset(known + [{"image": np.zeros((16, 16, 1), np.uint8), "id": f"free {i}"} for i in range(3)], "classification")


@pytest.fixture(scope="module")
def sample():
    return open_dataset(base().data)


def test_every_stratum_gives_its_share():
    strata = ["a"] * 200 + ["b"] * 100 + ["c"] * 40
    parts = split(strata, {"test": 0.2, "val": 0.15}, 0)
    assert Counter(parts) == {"train": 221, "test": 68, "val": 51}
    for name, count in (("a", 200), ("b", 100), ("c", 40)):
        inside = Counter(part for part, stratum in zip(parts, strata) if stratum == name)
        assert abs(inside["test"] - 0.2 * count) <= 1
        assert abs(inside["val"] - 0.15 * count) <= 1.5


def test_the_seed_decides_and_small_sets_keep_something_to_train_on():
    strata = [0] * 30
    assert split(strata, {"test": 0.2}, 1) == split(strata, {"test": 0.2}, 1) != split(strata, {"test": 0.2}, 2)
    assert Counter(split([0] * 3, {"test": 0.2, "val": 0.15}, 0)) == {"train": 1, "test": 1, "val": 1}
    assert split([0], {"test": 0.2}, 0) == ["train"]
    assert sorted(split([0, 1], {"test": 0.2, "val": 0.15}, 0)) == ["test", "train"]  # sizes of their own
    pairs = [c for c in "abcdef" for _ in range(2)]
    for seed in range(5):
        parts = split(pairs, {"test": 0.2, "val": 0.15}, seed)
        assert {c for c, part in zip(pairs, parts) if part == "train"} == set(pairs)
        assert Counter(parts) == {"train": 8, "test": 2, "val": 2}
    assert split([], {"test": 0.2}, 0) == []
    assert set(split(strata, {"test": 0, "val": 0.0}, 0)) == {"train"}
    with pytest.raises(UserError, match="leave nothing to train on"):
        split(strata, {"test": 0.6, "val": 0.4}, 0)


def test_amounts_are_read_and_written_back():
    text = "1 patch, 4 patches, 1 image, 2 images, 10%, 0.5%, all"
    amounts = parse_amounts(text)
    assert amounts[0] == Amount(1, "patch")
    assert amounts[3] == Amount(2, "image")
    assert amounts[4] == Amount(0.1, "fraction")
    assert amounts[6] == Amount(1.0, "fraction")
    assert ", ".join(map(str, amounts)) == text


@pytest.mark.parametrize("text", ["", "many", "0 patches", "-1 image", "0%", "120%", "4", "1 patch 2 images"])
def test_bad_amounts_are_refused_with_examples(text):
    with pytest.raises(UserError, match="4 patches, 2 images, 10%, all"):
        parse_amounts(text)


def test_images_are_stratified_and_nested():
    data = labelled(100, 50, 10)
    small, large, everything = (choose(data, amount, 3, 16) for amount in parse_amounts("10%, 50%, all"))
    assert [len(s.indices) for s in (small, large, everything)] == [16, 80, 160]
    assert set(small.indices) < set(large.indices) < set(everything.indices)
    for subset in (small, large):
        counts = Counter(e["label"] for e in subset.examples(data))
        for k, total in enumerate((100, 50, 10)):
            assert abs(counts[k] - total * len(subset.indices) / 160) <= 2
    assert choose(data, Amount(10, "image"), 3, 16).indices == small.indices[:10]
    assert choose(data, Amount(0.1, "fraction"), 4, 16).indices != small.indices


def test_every_class_is_shown_at_least_once():
    data = labelled(500, 1, 1)
    assert {e["label"] for e in choose(data, Amount(0.006, "fraction"), 0, 16).examples(data)} == {0, 1, 2}
    with pytest.raises(UserError, match=r"0\.1% of 502 images \(1\) cannot show all 3 classes; ask for 3 images or more"):
        choose(data, Amount(0.001, "fraction"), 0, 16)
    with pytest.raises(UserError, match="2 images cannot show all 3 classes"):
        choose(data, Amount(2, "image"), 0, 16)
    with pytest.raises(UserError, match="600 images were asked for, but the training part has 502 labelled images"):
        choose(data, Amount(600, "image"), 0, 16)
    with pytest.raises(UserError, match="only a segmentation is labelled by patches"):
        choose(data, Amount(1, "patch"), 0, 16)


def test_patches_show_both_classes_do_not_overlap_and_are_nested(sample):
    few, many = (choose(sample, Amount(count, "patch"), 0, 64) for count in (4, 16))
    assert many.indices[:4] == few.indices
    assert many.corners[:4] == few.corners
    for example, i, (y, x) in zip(many.examples(sample), many.indices, many.corners):
        whole = sample.pool[i]
        np.testing.assert_array_equal(example["image"], whole["image"][y : y + 64, x : x + 64])
        np.testing.assert_array_equal(example["mask"], whole["mask"][y : y + 64, x : x + 64])
        assert example["image"].shape == (64, 64, 1)
        assert 0.1 <= example["mask"].mean() <= 0.9
    used = [np.zeros((210, 576), int) for _ in range(6)]
    for i, (y, x) in zip(many.indices, many.corners):
        used[i][y : y + 64, x : x + 64] += 1
    assert max(u.max() for u in used) == 1
    assert choose(sample, Amount(4, "patch"), 1, 64).corners != few.corners


def test_more_patches_than_there_are(sample):
    with pytest.raises(UserError, match="200 patches of 64 x 64 px were asked for, but only"):
        choose(sample, Amount(200, "patch"), 0, 64)
    with pytest.raises(UserError, match="but only 0 with both"):
        choose(sample, Amount(1, "patch"), 0, 512)


def test_a_choice_is_recorded(sample):
    patches = choose(sample, Amount(2, "patch"), 0, 64).record()
    assert json.loads(json.dumps(patches)) == patches
    assert patches["side"] == 64
    assert len(patches["patches"]) == 2
    images = choose(sample, Amount(2, "image"), 0, 64)
    assert images.record()["ids"] == [sample.pool[i]["id"] for i in images.indices]
    assert choose(sample, Amount(1.0, "fraction"), 0, 64).record() == {"amount": "all", "images": 6}
