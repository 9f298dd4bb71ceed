"""What the rest of the program knows of a data set: random access to examples, what is known of them without decoding, and three parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

Example = dict[str, Any]


class Source(Protocol):
    """Random access to images: `source[i] -> {"image": uint8|uint16 [H, W, C], "mask"?: int32 [H, W], "label"?: int, "id": str}`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class Info(NamedTuple):
    """What is known of an example before its pixels are read; sizes are those of the image that `source[i]` returns."""

    id: str
    height: int
    width: int
    channels: int
    label: int | None = None
    masked: bool = False

    @property
    def labelled(self) -> bool:
        """Whether it has a mask or a class."""
        return self.masked or self.label is not None


def describe(source: Source, index: int) -> Info:
    """The `Info` of one example: from the source's own `info(index)` where it has one, else by reading the example."""
    if hasattr(source, "info"):
        return cast(Info, source.info(index))
    example = source[index]
    height, width, channels = example["image"].shape
    return Info(example["id"], height, width, channels, example.get("label"), "mask" in example)


def _unlabelled(source: Source, index: int) -> Example:
    """The image and its id; a source that has `unlabelled(index)` leaves the rest unread."""
    example = source.unlabelled(index) if hasattr(source, "unlabelled") else source[index]
    return {"image": example["image"], "id": example["id"]}


@dataclasses.dataclass(frozen=True)
class Selection:
    """Some of a source's examples, in the given order."""

    source: Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[self.indices[index]]

    def info(self, index: int) -> Info:
        """What is known without decoding."""
        return describe(self.source, self.indices[index])

    def unlabelled(self, index: int) -> Example:
        """The image and its id alone."""
        return _unlabelled(self.source, self.indices[index])

    def raw(self, index: int) -> np.ndarray:
        """The stored image [H, W, C], before colour, window and size are adapted (where the source keeps it)."""
        return self.source.raw(self.indices[index]) if hasattr(self.source, "raw") else self[index]["image"]


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """A source's images alone: masks and labels are neither read nor told."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return _unlabelled(self.source, index)

    def info(self, index: int) -> Info:
        """What is known without decoding, as of an image without labels."""
        return describe(self.source, index)._replace(label=None, masked=False)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in three parts. `pool` holds the training images, labelled or not; `val` and `test` labelled ones only.

    `task` is segmentation, classification or none; `classes` the names of what the masks' or labels' integers mean; `notes` what was
    decided on reading that a user should know; `damaged` one sentence for each file that could not be read and was left out.
    """

    name: str
    pool: Source
    val: Source
    test: Source
    task: str
    classes: tuple[str, ...]
    channels: int
    dtype: np.dtype
    modality: str
    notes: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""
    damaged: tuple[str, ...] = ()
