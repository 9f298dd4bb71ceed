"""A segmenter that learns from soft labels, each pixel with the confidence in its label (the refinement of shape-guided clusters).

The paper shows the idea in a figure and gives no formula. The cluster's map, calibrated to be p = 1/2 at a level, as the label and
|2 p - 1| as the confidence are ours. The likeness to the cluster's vector as a second opinion made the labels worse
(experiments/README.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medssl_jax.augment import fold, to_unit
from medssl_jax.data.dataset import Example, Info, Source, describe
from medssl_jax.downstream.segmentation import Segmenter
from medssl_jax.losses import soft_label_loss
from medssl_jax.methods import base

SCALE = 255  # soft labels and confidences are kept in eight bits


@dataclasses.dataclass(frozen=True)
class Refiner(Segmenter):
    """`mask` of its batches is uint8 [B, H, W, 2]: the label and the confidence in it, of 255."""

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """The crop [B, S, S, C] with labels and confidences [B, S, S]."""
        whole = jnp.concatenate([to_unit(batch["image"]), to_unit(batch["mask"])], axis=-1)
        crops, _, _, _ = self.recipe.geometric(fold(keys, 0), whole)
        return {"image": self.recipe.photometric(fold(keys, 1), crops[..., :-2]), "label": crops[..., -2], "confidence": crops[..., -1]}

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """Cross-entropy + soft Dice, weighted by the confidence."""
        logits, stats = self.logits(params, carried["stats"], views["image"], train=True)
        return soft_label_loss(logits, views["label"], views["confidence"]), ({"stats": stats}, {})


def soft_label(share: np.ndarray, level: float) -> np.ndarray:
    """A map uint8 [H, W] -> label and confidence, uint8 [H, W, 2]; the label's odds are the map's over those of the `level` in (0, 1)."""
    p = share.astype(np.float32) / SCALE
    label = p * (1 - level) / (p * (1 - level) + (1 - p) * level)
    return np.rint(SCALE * np.stack([label, np.abs(2 * label - 1)], axis=-1)).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class SoftLabelled:
    """A source's images with soft labels, made of maps uint8 [H, W], in place of masks."""

    source: Source
    shares: Sequence[np.ndarray]
    level: float

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        example = self.source[index]
        return {"image": example["image"], "mask": soft_label(self.shares[index], self.level), "id": example["id"]}

    def info(self, index: int) -> Info:
        """What is known without decoding."""
        return describe(self.source, index)._replace(masked=True)
