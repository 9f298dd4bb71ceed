"""SimCLR: two augmented views of an image attract, all other images in the global batch repel (Chen et al. 2020)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from medssl_jax.augment import Recipe, fold, to_unit
from medssl_jax.losses import info_nce
from medssl_jax.methods import base
from medssl_jax.models import Backbone, Network, pool


@dataclasses.dataclass(frozen=True)
class SimCLR:
    """Both views go through the encoder as one batch, so batch statistics are over 2B images."""

    backbone: Backbone
    projector: Network
    recipe: Recipe
    temperature: float = 0.1

    def init(self, key: jax.Array, batch: base.Batch) -> tuple[Any, Any]:
        """Encoder and projection head."""
        body, head = jax.random.split(key)
        images = to_unit(batch["image"][:1, : self.recipe.size, : self.recipe.size])
        params, stats, features, _ = base.init_backbone(body, self.backbone, images, decoder=False)
        params["projector"], stats["projector"] = self.projector.init(head, pool(features))
        return params, {"stats": stats}

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """Two independent crops and appearances: [B, S, S, C] each."""
        images = to_unit(batch["image"])
        first, second = (self.recipe(fold(keys, view), images)[0] for view in (0, 1))
        return {"first": first, "second": second}

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """InfoNCE over the 2B projections (NT-Xent, eq. 1)."""
        both = base.joined(views["first"], views["second"])
        features, stats = base.forward(self.backbone.encoder, "encoder", params, carried["stats"], both)
        z, stats = base.forward(self.projector, "projector", params, stats, pool(features))
        first, second = base.parted(z, 2)
        loss, logs = info_nce(first, second, self.temperature)
        return loss, ({"stats": stats}, logs)

    def after_update(self, params: Any, carried: Any, step: jax.Array) -> Any:
        """Nothing moves beside the parameters."""
        return carried

    def transferable(self, params: Any, carried: Any) -> dict[str, Any]:
        """The encoder."""
        return base.parts(params, carried["stats"], "encoder")
