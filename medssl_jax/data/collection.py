"""What every kind of data set brings (stored images and what is known of them), and the source that prepares its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from medssl_jax.data.dataset import Example, Info
from medssl_jax.data.formats import Probe
from medssl_jax.data.prepare import Preparation
from medssl_jax.errors import UserError


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One stored image: its name, what its header says, the part (train, val, test) it was given to, its class, whether it has a mask.

    Items of one `group` (the tiles of a slide) are never divided between parts.
    """

    id: str
    probe: Probe
    part: str | None = None
    label: int | None = None
    masked: bool = False
    group: str | None = None

    def labelled(self, task: str) -> bool:
        """Whether it has what the task needs."""
        return self.masked if task == "segmentation" else self.label is not None if task == "classification" else False


class Collection(Protocol):
    """Stored images with their items, in a fixed order."""

    @property
    def items(self) -> Sequence[Item]:
        """What is known of each image."""

    def image(self, index: int) -> np.ndarray:
        """Stored values [H, W, C]."""

    def mask(self, index: int) -> np.ndarray:
        """Labels int32 [H, W], for items that are masked."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """What a kind of source brings, before colours, types and parts are settled."""

    name: str
    collection: Collection
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A `Source` over a collection: every image goes through the same preparation and comes with what `task` needs.

    Masks become foreground, unless their `mask_classes` values are the classes.
    """

    collection: Collection
    preparation: Preparation
    task: str = "none"
    mask_classes: int = 0

    def __len__(self) -> int:
        return len(self.collection.items)

    def __getitem__(self, index: int) -> Example:
        item, example = self.collection.items[index], self.unlabelled(index)
        if self.task == "segmentation" and item.masked:
            example["mask"] = self._mask(index, example["image"].shape[:2])
        if self.task == "classification" and item.label is not None:
            example["label"] = item.label
        return example

    def unlabelled(self, index: int) -> Example:
        """The image and its id alone."""
        item = self.collection.items[index]
        return {"image": self.preparation.image(self.collection.image(index), item.id), "id": item.id}

    def info(self, index: int) -> Info:
        """What is known of the example without decoding it."""
        item = self.collection.items[index]
        height, width = self.preparation.shape(item.probe.height, item.probe.width)
        label = item.label if self.task == "classification" else None
        masked = item.masked and self.task == "segmentation"
        return Info(item.id, height, width, self.preparation.channels(item.probe.channels), label, masked)

    def raw(self, index: int) -> np.ndarray:
        """The stored image [H, W, C]."""
        return self.collection.image(index)

    def _mask(self, index: int, shape: tuple[int, int]) -> np.ndarray:
        stored, name = self.collection.mask(index), self.collection.items[index].id
        mask = self.preparation.mask(stored)
        if mask.shape != shape:
            raise UserError(f"the mask of {name} is {stored.shape[0]} x {stored.shape[1]} px, another size than its image.")
        if not self.mask_classes:
            return (mask != 0).astype(np.int32)
        if mask.min() < 0 or mask.max() >= self.mask_classes:
            raise UserError(f"the mask of {name} holds the label {mask.max()}, beyond the {self.mask_classes} classes found at the start.")
        return mask
