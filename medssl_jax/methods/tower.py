"""TOWER: a corrupted crop and its partner attract, and the corruption is undone: encoder and decoder learn together (arXiv 2211.14715)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from medssl_jax.augment import fold, to_unit
from medssl_jax.losses import info_nce
from medssl_jax.methods import base
from medssl_jax.methods.restoration import Restoration
from medssl_jax.models import Network, pool


@dataclasses.dataclass(frozen=True)
class Tower(Restoration):
    """Restoration, with InfoNCE between the corrupted crop and its `partner`. The two are two passes, each with its own batch statistics
    (the paper's order: the partner, then the corruption). The weights reach the paper's ablation: Con NL+M is `restoration_weight=0`, where
    no decoder learns and nothing is penalised, Gen NL+M `contrastive_weight=0`."""

    projector: Network = dataclasses.field(kw_only=True)
    temperature: float = 0.1
    contrastive_weight: float = 1.0
    restoration_weight: float = 1.0
    partner: str = "clean"  # what the corruption attracts: its own clean crop (the paper), or another crop

    def init(self, key: jax.Array, batch: base.Batch) -> tuple[Any, Any]:
        """Encoder, decoder, the head that paints and the head that projects."""
        params, carried = super().init(jax.random.fold_in(key, 0), batch)
        pooled = jnp.zeros((1, self.backbone.feature_dim))
        params["projector"], carried["stats"]["projector"] = self.projector.init(jax.random.fold_in(key, 1), pooled)
        return params, carried

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """Those of restoration; with partner="crop" the crop is corrupted in another light, and there is another crop, in a light of
        its own, [B, S, S, C]: SimCLR's two views, one of them corrupted."""
        if self.partner == "clean":
            return super().views(keys, batch)
        images = to_unit(batch["image"])
        clean, _, _, _ = self.recipe.geometric(fold(keys, 0), images)
        corrupted, hidden = self.proxy(fold(keys, 1), self.recipe.photometric(fold(keys, 3), clean))
        partner, _, _ = self.recipe(fold(keys, 2), images)
        return {"clean": clean, "corrupted": corrupted, "hidden": hidden, "partner": partner}

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """L = restoration_weight * L_gen + contrastive_weight * L_con (the paper's L_gen + lambda L_con, lambda = 1),
        and, where something is restored, the penalty of `decorrelation`."""
        encoder = self.backbone.encoder
        partner, stats = base.forward(encoder, "encoder", params, carried["stats"], views.get("partner", views["clean"]))
        corrupted, stats = base.forward(encoder, "encoder", params, stats, views["corrupted"])
        z, stats = base.forward(self.projector, "projector", params, stats, pool(partner))
        z_plus, stats = base.forward(self.projector, "projector", params, stats, pool(corrupted))
        contrastive, logs = info_nce(z, z_plus, self.temperature)
        restored, decoded, stats = self.paint(params, stats, corrupted)
        generative = self.restoration(restored, views["clean"])
        maps = (*self.backbone.learned(corrupted), decoded)
        penalty, repeated = base.repetition(self.decorrelation if self.restoration_weight else 0.0, maps)
        loss = self.restoration_weight * generative + self.contrastive_weight * contrastive + penalty
        logs |= {**repeated, "contrastive": contrastive, "restoration": generative, "hidden": views["hidden"].mean()}
        return loss, ({"stats": stats}, logs)

    def transferable(self, params: Any, carried: Any) -> dict[str, Any]:
        """Encoder and, where restoration trained it, decoder."""
        names = ("encoder", "decoder") if self.restoration_weight else ("encoder",)
        return base.parts(params, carried["stats"], *names)
