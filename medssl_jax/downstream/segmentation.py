"""Segmentation as a trainable: the backbone with a pixel classifier, Dice + cross-entropy."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from medssl_jax.augment import Recipe, fold, to_unit
from medssl_jax.losses import cross_entropy, dice_loss
from medssl_jax.methods import base
from medssl_jax.models import Backbone, Network


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """Encoder, decoder and a head of `classes` logits a pixel; background is class 0."""

    backbone: Backbone
    head: Network
    recipe: Recipe
    steady: bool = False  # encoder and decoder keep the statistics of their norms while training

    def init(self, key: jax.Array, batch: base.Batch) -> tuple[Any, Any]:
        """Fresh encoder, decoder and head."""
        body, head = jax.random.split(key)
        images = to_unit(batch["image"][:1, : self.recipe.size, : self.recipe.size])
        params, stats, _, decoded = base.init_backbone(body, self.backbone, images, decoder=True)
        params["head"], stats["head"] = self.head.init(head, decoded)
        return params, {"stats": stats}

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """The crop [B, S, S, C] with its mask int32 [B, S, S]."""
        images, masks, _, _ = self.recipe.geometric(fold(keys, 0), to_unit(batch["image"]), batch["mask"])
        assert masks is not None
        return {"image": self.recipe.photometric(fold(keys, 1), images), "mask": masks}

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """Cross-entropy + soft Dice (the usual sum, as nnU-Net has it)."""
        logits, stats = self.logits(params, carried["stats"], views["image"], train=True)
        entropy, overlap = cross_entropy(logits, views["mask"]), dice_loss(logits, views["mask"])
        return entropy + overlap, ({"stats": stats}, {"cross_entropy": entropy, "dice_loss": overlap})

    def logits(self, params: Any, stats: Any, images: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        """[B, S, S, C] in [0, 1] -> logits [B, S, S, K] and new statistics."""
        features, stats = base.forward(self.backbone.encoder, "encoder", params, stats, images, train and not self.steady)
        decoded, stats = base.forward(self.backbone.decoder, "decoder", params, stats, features, train and not self.steady)
        return base.forward(self.head, "head", params, stats, decoded, train)

    def after_update(self, params: Any, carried: Any, step: jax.Array) -> Any:
        """Nothing moves beside the parameters."""
        return carried

    def predict(self, params: Any, carried: Any, images: jax.Array) -> jax.Array:
        """uint8|uint16 [B, S, S, C] -> class probabilities [B, S, S, K]."""
        logits, _ = self.logits(params, carried["stats"], to_unit(images), train=False)
        return jax.nn.softmax(logits)
