"""A data set kept in memory: many fine-tunings in one process read the same images."""

from __future__ import annotations

import dataclasses

import numpy as np

from medssl_jax.data.dataset import Dataset, Example, Info, Selection, Source, describe


@dataclasses.dataclass(frozen=True)
class Held:
    """A source whose examples have been read; what is stored on disk is still its source's to tell."""

    source: Source
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def info(self, index: int) -> Info:
        """What the source tells without decoding."""
        return describe(self.source, index)

    def raw(self, index: int) -> np.ndarray:
        """The image as it is stored, by which copies are known."""
        return Selection(self.source, range(len(self.source))).raw(index)


def held(dataset: Dataset) -> Dataset:
    """The data set with every image read."""
    pool, val, test = (Held(part, tuple(part[i] for i in range(len(part)))) for part in (dataset.pool, dataset.val, dataset.test))
    return dataclasses.replace(dataset, pool=pool, val=val, test=test)
