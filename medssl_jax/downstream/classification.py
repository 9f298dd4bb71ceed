"""Classification as a trainable: the encoder, pooled, with a linear head and cross-entropy."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from medssl_jax.augment import Recipe, crop_and_resize, to_unit
from medssl_jax.losses import cross_entropy
from medssl_jax.methods import base
from medssl_jax.models import Backbone, Network, pool


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Encoder and a linear head."""

    backbone: Backbone
    head: Network
    recipe: Recipe
    steady: bool = False  # the encoder keeps the statistics of its norms while training

    def init(self, key: jax.Array, batch: base.Batch) -> tuple[Any, Any]:
        """Fresh encoder and head."""
        body, head = jax.random.split(key)
        images = to_unit(batch["image"][:1, : self.recipe.size, : self.recipe.size])
        params, stats, features, _ = base.init_backbone(body, self.backbone, images, decoder=False)
        params["head"], stats["head"] = self.head.init(head, pool(features))
        return params, {"stats": stats}

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """The augmented crop [B, S, S, C] with its label int32 [B]."""
        return {"image": self.recipe(keys, to_unit(batch["image"]))[0], "label": batch["label"]}

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """Cross-entropy."""
        logits, stats = self.logits(params, carried["stats"], views["image"], train=True)
        accuracy = (logits.argmax(-1) == views["label"]).mean()
        return cross_entropy(logits, views["label"]), ({"stats": stats}, {"accuracy": accuracy})

    def logits(self, params: Any, stats: Any, images: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        """[B, S, S, C] in [0, 1] -> logits [B, K] and new statistics."""
        features, stats = base.forward(self.backbone.encoder, "encoder", params, stats, images, train and not self.steady)
        return base.forward(self.head, "head", params, stats, pool(features), train)

    def after_update(self, params: Any, carried: Any, step: jax.Array) -> Any:
        """Nothing moves beside the parameters."""
        return carried

    def predict(self, params: Any, carried: Any, images: jax.Array) -> jax.Array:
        """uint8|uint16 [B, T, T, C], the whole image, scaled to the crop size -> class probabilities [B, K]."""
        return jax.nn.softmax(self.logits(params, carried["stats"], self._whole(images), train=False)[0])

    def features(self, params: Any, carried: Any, images: jax.Array) -> jax.Array:
        """uint8|uint16 [B, T, T, C], as in `predict` -> the encoder's pooled features, float32 [B, F]."""
        return pool(base.forward(self.backbone.encoder, "encoder", params, carried["stats"], self._whole(images), train=False)[0])

    def _whole(self, images: jax.Array) -> jax.Array:
        count, height, width, _ = images.shape
        boxes = jnp.tile(jnp.float32([[0, 0, height, width]]), (count, 1))
        return crop_and_resize(to_unit(images), boxes, self.recipe.size)
