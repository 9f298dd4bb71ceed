"""Which single images training figures are made of, and which validation figures: never the same."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from ml_collections import ConfigDict

from medssl_jax.data.sources import Dataset, Example, Info, Selection, Source, Unlabelled, describe, open_dataset
from medssl_jax.data.stream import sub_seed
from medssl_jax.errors import UserError

CUT = 160  # px, side of the squares that the built-in sample's frames are cut into: six training frames are few, and long


@dataclasses.dataclass(frozen=True)
class Pools:
    """Single images to train with and to validate with, and what a user should know of them."""

    train: Source
    held_out: Source
    notes: tuple[str, ...]


def open_pools(data: ConfigDict) -> Pools:
    """The single images of config.data, whose `path` may name several folders (or files), separated by commas.

    The training images of every folder train, and its validation images are held out; where it has none, a share `val_fraction` of the
    training images, at least one. Test images are left alone. Of one folder the classes are its labels, where it has any; of several,
    each folder's own, or the folder itself. Raises UserError as `open_dataset` does, where
    `path` holds commas alone, and where no image could be held out.
    """
    paths = listed(data.path)
    if data.path and not paths:
        raise UserError(f"config.data.path={data.path!r} names no folder; give one, or several, separated by commas.")
    opened = [_open(data, path) for path in paths or [""]]
    parts = [_divide(dataset, data) for dataset in opened]
    train, held_out = (Joined([part[which] for part in parts]) for which in (0, 1))
    if not len(held_out):
        raise UserError(
            f"no image of {', '.join(dataset.name for dataset in opened)} can be held out for validation; give two images or more, and "
            "set config.data.val_fraction above 0."
        )
    return Pools(train, held_out, tuple(f"{dataset.name}: {note}" for dataset in opened for note in dataset.notes))


def _open(data: ConfigDict, path: str) -> Dataset:
    own = data.copy_and_resolve_references()
    own.path = path
    return open_dataset(own)


def _divide(dataset: Dataset, data: ConfigDict) -> tuple[Source, Source]:
    """Images to train with, and images held out."""
    train, held_out = dataset.pool, dataset.val
    if not len(held_out) and len(train) > 1 and data.val_fraction:
        order = np.random.default_rng(sub_seed(data.seed, "figures/held out")).permutation(len(train)).tolist()
        count = min(max(1, round(data.val_fraction * len(train))), len(train) - 1)
        train, held_out = Selection(dataset.pool, sorted(order[count:])), Selection(dataset.pool, sorted(order[:count]))
    if dataset.name == "sample":
        return _Squares(Unlabelled(train), CUT), _Squares(Unlabelled(held_out), CUT)
    return (train, held_out) if dataset.task == "classification" else (Unlabelled(train), Unlabelled(held_out))


def listed(paths: str) -> list[str]:
    """The folders of a list with commas."""
    return [path.strip() for path in paths.split(",") if path.strip()]


class Joined:
    """Sources one after another, each up to its number in `ends`, empty ones left out; the classes of each are its own, numbered on, and a
    source without any is a class. One source alone stays as it is."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = [source for source in sources if len(source)]
        self.ends = list(accumulate(map(len, self._sources)))
        labels = [[describe(source, i).label for i in range(len(source))] for source in self._sources]
        highest = [max((label for label in own if label is not None), default=0) for own in labels]
        self._first = [0, *accumulate(label + 1 for label in highest)]

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> Example:
        which, own = self._find(index)
        example = dict(self._sources[which][own])
        if (label := self._label(which, example.get("label"))) is not None:
            example["label"] = label
        return example

    def info(self, index: int) -> Info:
        """What is known without decoding."""
        which, own = self._find(index)
        found = describe(self._sources[which], own)
        return found._replace(label=self._label(which, found.label))

    def _find(self, index: int) -> tuple[int, int]:
        index = range(len(self))[index]
        which = bisect_right(self.ends, index)
        return which, index - (self.ends[which - 1] if which else 0)

    def _label(self, which: int, label: int | None) -> int | None:
        if len(self._sources) == 1:
            return label
        return self._first[which] + (label or 0)


class _Squares:
    """Every image of a source cut into squares from left to right, as many as fit below each other."""

    def __init__(self, source: Source, side: int) -> None:
        self._source, self._side = source, side
        self._places: list[tuple[int, int, int]] = []
        for i in range(len(source)):
            info = describe(source, i)
            rows, columns = (range(0, length - side + 1, side) for length in (info.height, info.width))
            self._places += [(i, y, x) for y in rows for x in columns]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        image, y, x = self._places[index]
        example = self._source[image]
        return {"image": example["image"][y : y + self._side, x : x + self._side], "id": f"{example['id']} ({y}, {x})"}

    def info(self, index: int) -> Info:
        """What is known without decoding."""
        image, y, x = self._places[index]
        found = describe(self._source, image)
        return found._replace(id=f"{found.id} ({y}, {x})", height=self._side, width=self._side)
