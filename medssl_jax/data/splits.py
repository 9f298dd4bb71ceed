"""Who learns from what: the parts of a data set, and the labelled examples of one repeat of a comparison, stratified and seeded."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from medssl_jax.data.dataset import Dataset, Example, Selection, Source, describe
from medssl_jax.data.stream import sub_seed
from medssl_jax.errors import UserError

FOREGROUND = (0.1, 0.9)  # share of a labelled patch, so that it shows both classes
ATTEMPTS = 400  # random positions tried for each patch wanted
UNITS = ("patch", "image", "fraction")
LARGEST_REPEATS = 1000  # of one comparison


def split(strata: Sequence[Hashable], fractions: Mapping[str, float], seed: int) -> list[str]:
    """The part of each example: a share `fractions[part]` of them, the same share of every stratum to rounding; the rest is train.

    A part with a share above 0 gets at least one example where one is free: train keeps one, and one of every stratum where they hold
    two or more on average. Raises UserError where the fractions leave nothing to train on.
    """
    if sum(fractions.values()) >= 1:
        shares = " and ".join(f"config.data.{part}_fraction={fraction}" for part, fraction in fractions.items())
        raise UserError(f"{shares} leave nothing to train on; lower one of them.")
    rng = np.random.default_rng(sub_seed(seed, "split"))
    parts = ["train"] * len(strata)
    shuffled = rng.permutation(len(strata)).tolist()
    one_each = {strata[i]: i for i in shuffled}
    kept = set(one_each.values() if 2 * len(one_each) <= len(strata) else shuffled[:1])
    left = sorted((i for i in shuffled if i not in kept), key=lambda i: str(strata[i]))  # strata one after the other, random inside
    for part, fraction in fractions.items():
        count = min(max(1, round(fraction * len(strata))), len(left)) if fraction > 0 else 0
        offset = rng.random()
        taken = {left[int((k + offset) * len(left) / count)] for k in range(count)}
        for i in taken:
            parts[i] = part
        left = [i for i in left if i not in taken]
    return parts


@dataclasses.dataclass(frozen=True)
class Amount:
    """How many labels: a number of patches or of images, or a fraction of the labelled images."""

    value: float
    unit: str

    def __str__(self) -> str:
        if self.unit == "fraction":
            return "all" if self.value == 1 else f"{100 * self.value:g}%"
        plural = {"patch": "patches", "image": "images"}[self.unit] if self.value != 1 else self.unit
        return f"{self.value} {plural}"


def parse_amounts(text: str) -> list[Amount]:
    """`1 patch, 4 patches, 2 images, 10%, all` -> amounts. Raises UserError, with examples, for anything else."""
    return list(dict.fromkeys(_parse_amount(part.strip()) for part in text.split(",")))


def _parse_amount(text: str) -> Amount:
    if text == "all":
        return Amount(1.0, "fraction")
    if percent := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text):
        value = float(percent[1]) / 100
        if 0 < value <= 1:
            return Amount(value, "fraction")
    if count := re.fullmatch(r"([1-9]\d*) (patch|image)(?:es|s)?", text):
        return Amount(int(count[1]), count[2])
    raise UserError(f"{text!r} is no amount of labels; config.finetune.labels is a list like '1 patch, 4 patches, 2 images, 10%, all'.")


@dataclasses.dataclass(frozen=True)
class Subset:
    """The labelled training examples of one repeat: images of the pool, or squares cut from them at `corners` (y, x)."""

    amount: Amount
    indices: tuple[int, ...]
    ids: tuple[str, ...]
    corners: tuple[tuple[int, int], ...] = ()
    patch_size: int = 0

    def examples(self, dataset: Dataset) -> Source:
        """The examples {"image", "mask" or "label", "id"}: read as they are asked for (images), or a list (patches)."""
        if not self.corners:
            return Selection(dataset.pool, self.indices)
        return [_cut(dataset.pool[i], *corner, self.patch_size) for i, corner in zip(self.indices, self.corners)]

    def record(self) -> dict[str, Any]:
        """What was chosen, as JSON."""
        found: dict[str, Any] = {"amount": str(self.amount), "images": len(set(self.indices))}
        if self.corners:
            return found | {"side": self.patch_size, "patches": [[i, *corner] for i, corner in zip(self.ids, self.corners)]}
        return found if str(self.amount) == "all" else found | {"ids": list(self.ids)}


def label_seed(seed: int, repeat: int) -> int:
    """What chooses the labels of a repeat: another choice for every repeat of every `config.data.seed`."""
    return LARGEST_REPEATS * seed + repeat


def choose(dataset: Dataset, amount: Amount, subset_seed: int, patch_size: int) -> Subset:
    """The labelled training examples of the repeat `subset_seed`; of two amounts the smaller is contained in the larger.

    Images of a classification are stratified, at least one a class; patches have between 10 and 90 % foreground and do not overlap.
    Raises UserError where more labels are asked for than exist, or too few for every class.
    """
    rng = np.random.default_rng(sub_seed(subset_seed, f"labels/{amount.unit == 'patch'}"))
    labelled = [i for i in range(len(dataset.pool)) if describe(dataset.pool, i).labelled]
    if amount.unit == "patch":
        return _choose_patches(dataset, amount, labelled, rng, patch_size)
    order = _nested_order([describe(dataset.pool, i).label for i in labelled], rng)
    classes = len({describe(dataset.pool, i).label for i in labelled})
    count = round(amount.value * len(order)) if amount.unit == "fraction" else int(amount.value)
    if count > len(order):
        raise UserError(f"{amount} were asked for, but the training part has {len(order)} labelled images; lower config.finetune.labels.")
    if count < classes:
        what = f"{amount} of {len(order)} images ({count})" if amount.unit == "fraction" else str(amount)
        shown = f"all {classes} classes" if classes > 1 else "anything"
        raise UserError(f"{what} cannot show {shown}; ask for {classes} images or more in config.finetune.labels.")
    indices = tuple(labelled[i] for i in order[:count])
    return Subset(amount, indices, tuple(describe(dataset.pool, i).id for i in indices))


def _nested_order(labels: Sequence[int | None], rng: np.random.Generator) -> list[int]:
    """A random order of which every beginning is stratified: one of each class first, then each class at its own pace."""
    shuffled = rng.permutation(len(labels)).tolist()
    members: dict[int | None, list[int]] = {}
    for i in shuffled:
        members.setdefault(labels[i], []).append(i)
    pace = {i: (k > 0, (k + rng.random()) / len(same)) for same in members.values() for k, i in enumerate(same)}
    return sorted(shuffled, key=lambda i: pace[i])


def _choose_patches(dataset: Dataset, amount: Amount, labelled: list[int], rng: np.random.Generator, side: int) -> Subset:
    if dataset.task != "segmentation":
        raise UserError(f"{amount} were asked for, but only a segmentation is labelled by patches; name images or a percentage.")
    sizes = {i: (info.height, info.width) for i in labelled for info in [describe(dataset.pool, i)]}
    large = [i for i in labelled if min(sizes[i]) >= side]
    mask_of = functools.lru_cache(maxsize=64)(lambda i: _mask(dataset.pool, i))
    chosen: list[tuple[int, int, int]] = []
    for _ in range(ATTEMPTS * int(amount.value) if large else 0):
        index = large[rng.integers(len(large))]
        height, width = sizes[index]
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        apart = all(i != index or max(abs(y - v), abs(x - u)) >= side for i, v, u in chosen)
        if apart and FOREGROUND[0] <= (mask_of(index)[y : y + side, x : x + side] > 0).mean() <= FOREGROUND[1]:
            chosen.append((index, y, x))
        if len(chosen) == amount.value:
            ids = tuple(describe(dataset.pool, i).id for i, _, _ in chosen)
            return Subset(amount, tuple(i for i, _, _ in chosen), ids, tuple((y, x) for _, y, x in chosen), side)
    raise UserError(
        f"{amount} of {side} x {side} px were asked for, but only {len(chosen)} with both foreground and background were found in the "
        f"{len(labelled)} labelled images; lower config.finetune.labels or config.finetune.patch."
    )


def _mask(pool: Source, index: int) -> np.ndarray:
    return pool[index]["mask"]


def _cut(example: Example, y: int, x: int, side: int) -> Example:
    window = slice(y, y + side), slice(x, x + side)
    return {"image": example["image"][window], "mask": example["mask"][window], "id": f"{example['id']} ({y}, {x})"}
