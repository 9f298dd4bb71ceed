"""SparK, masked modelling for convolutions: the encoder sees what is visible, the decoder paints the rest (Tian et al. 2023)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from medssl_jax.augment import Recipe, fold, hidden_grid, to_unit
from medssl_jax.errors import UserError
from medssl_jax.losses import hidden_cells
from medssl_jax.methods import base
from medssl_jax.models import Backbone, Network, spread


@dataclasses.dataclass(frozen=True)
class Spark:
    """`zero_fraction` of the cells of the coarsest map is hidden, at every level of the encoder; a learned token stands there for the
    decoder. Two of the paper's parts are left out: the convolutions between encoder and decoder, which a U-Net's would not meet again in
    fine-tuning, and its own narrow decoder, for which the backbone's stands.
    """

    backbone: Backbone
    restorer: Network
    recipe: Recipe
    zero_fraction: float = 0.6
    decorrelation: float = 0.0  # weight of `base.repetition`

    def __post_init__(self) -> None:
        """Raises UserError where the coarsest cells do not divide the crop, or none would be hidden."""
        if self.recipe.size % self.backbone.strides[-1]:
            raise UserError(
                f"config.views.size={self.recipe.size} does not hold whole cells of {self.backbone.strides[-1]} px, which spark hides; "
                f"set a multiple of {self.backbone.strides[-1]}."
            )
        if not 0 < self._hidden < self._side**2:
            raise UserError(
                f"config.method.zero_fraction={self.zero_fraction} hides {self._hidden} of {self._side**2} cells; set one that hides "
                "some and leaves some."
            )

    @property
    def _side(self) -> int:
        return self.recipe.size // self.backbone.strides[-1]

    @property
    def _hidden(self) -> int:
        return round(self.zero_fraction * self._side**2)

    def init(self, key: jax.Array, batch: base.Batch) -> tuple[Any, Any]:
        """Encoder, decoder, the head that paints pixels, and a token a level."""
        body, head, tokens = jax.random.split(key, 3)
        images = to_unit(batch["image"][:1, : self.recipe.size, : self.recipe.size])
        params, stats, features, decoded = base.init_backbone(body, self.backbone, images, decoder=True)
        params["restorer"], stats["restorer"] = self.restorer.init(head, decoded)
        keys = jax.random.split(tokens, len(features))
        params["tokens"] = [0.02 * jax.random.truncated_normal(k, -2, 2, (f.shape[-1],)) for k, f in zip(keys, features)]
        return params, {"stats": stats}

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """The crop [B, S, S, C] and its hidden cells, bool [B, S / stride, S / stride]."""
        clean, _, _, _ = self.recipe.geometric(fold(keys, 0), to_unit(batch["image"]))
        return {"clean": clean, "hidden": hidden_grid(fold(keys, 1), self._side, self._hidden)}

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """Squared error of the hidden cells, each normalised on its own, and the penalty of `decorrelation`."""
        visible = ~views["hidden"]
        maps, stats = base.forward(self.backbone.encoder, "encoder", params, carried["stats"], views["clean"], visible=visible)
        filled = tuple(jnp.where(spread(visible, m), m, token.astype(m.dtype)) for m, token in zip(maps, params["tokens"]))
        decoded, stats = base.forward(self.backbone.decoder, "decoder", params, stats, filled)
        restored, stats = base.forward(self.restorer, "restorer", params, stats, decoded)
        generative = hidden_cells(restored, views["clean"], views["hidden"])
        # of the decoded map alone: the encoder's maps are 0 where cells are hidden, in all channels at once
        penalty, logs = base.repetition(self.decorrelation, (decoded,))
        return generative + penalty, ({"stats": stats}, {**logs, "restoration": generative, "hidden": views["hidden"].mean()})

    def after_update(self, params: Any, carried: Any, step: jax.Array) -> Any:
        """Nothing moves beside the parameters."""
        return carried

    def transferable(self, params: Any, carried: Any) -> dict[str, Any]:
        """Encoder and decoder; the paper transfers the encoder alone (`spark/encoder`)."""
        return base.parts(params, carried["stats"], "encoder", "decoder")
