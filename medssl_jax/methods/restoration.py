"""Restoration: an encoder and decoder learn to undo the corruption of an image (Models Genesis; TOWER's generative arms)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from medssl_jax.augment import Proxy, Recipe, fold, to_unit
from medssl_jax.methods import base
from medssl_jax.models import Backbone, Network


@dataclasses.dataclass(frozen=True)
class Restoration:
    """`recipe.geometric` gives the clean crop, `proxy` corrupts it; the loss compares every pixel (reference: TOWER 2.2, Genesis 5)."""

    backbone: Backbone
    restorer: Network
    recipe: Recipe
    proxy: Proxy
    restoration: Callable[[jax.Array, jax.Array], jax.Array]
    decorrelation: float = 0.0  # weight of `base.repetition`

    def init(self, key: jax.Array, batch: base.Batch) -> tuple[Any, Any]:
        """Encoder, decoder and the head that paints pixels."""
        body, head = jax.random.split(key)
        images = to_unit(batch["image"][:1, : self.recipe.size, : self.recipe.size])
        params, stats, _, decoded = base.init_backbone(body, self.backbone, images, decoder=True)
        params["restorer"], stats["restorer"] = self.restorer.init(head, decoded)
        return params, {"stats": stats}

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """The clean crop, its corruption [B, S, S, C], and which pixels were hidden [B, S, S]."""
        clean, _, _, _ = self.recipe.geometric(fold(keys, 0), to_unit(batch["image"]))
        corrupted, hidden = self.proxy(fold(keys, 1), clean)
        return {"clean": clean, "corrupted": corrupted, "hidden": hidden}

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """The distance of the restored from the clean image, and the penalty of `decorrelation`."""
        features, stats = base.forward(self.backbone.encoder, "encoder", params, carried["stats"], views["corrupted"])
        restored, decoded, stats = self.paint(params, stats, features)
        generative = self.restoration(restored, views["clean"])
        penalty, logs = base.repetition(self.decorrelation, (*self.backbone.learned(features), decoded))
        return generative + penalty, ({"stats": stats}, {**logs, "restoration": generative, "hidden": views["hidden"].mean()})

    def paint(self, params: Any, stats: Any, features: Any, train: bool = True) -> tuple[jax.Array, jax.Array, Any]:
        """Feature maps -> image [B, S, S, C] in [0, 1], where the targets live, and the decoded map [B, S, S, D] that it is made of."""
        decoded, stats = base.forward(self.backbone.decoder, "decoder", params, stats, features, train)
        logits, stats = base.forward(self.restorer, "restorer", params, stats, decoded, train)
        return jax.nn.sigmoid(logits), decoded, stats

    def restore(self, params: Any, carried: Any, views: base.Views) -> jax.Array:
        """The restored images, for looking at."""
        stats = carried["stats"]
        features, _ = base.forward(self.backbone.encoder, "encoder", params, stats, views["corrupted"], train=False)
        return self.paint(params, stats, features, train=False)[0]

    def after_update(self, params: Any, carried: Any, step: jax.Array) -> Any:
        """Nothing moves beside the parameters."""
        return carried

    def transferable(self, params: Any, carried: Any) -> dict[str, Any]:
        """Encoder and decoder."""
        return base.parts(params, carried["stats"], "encoder", "decoder")
