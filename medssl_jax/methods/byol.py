"""BYOL: predict what a slowly moving average of the network says of the other view (Grill et al. 2020)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medssl_jax.augment import Recipe, fold, to_unit
from medssl_jax.losses import byol
from medssl_jax.methods import base
from medssl_jax.models import Backbone, Network, pool

TEACHER = ("encoder", "projector")


@dataclasses.dataclass(frozen=True)
class BYOL:
    """Each view is a batch of its own. The teacher is float32, and has batch statistics of its own, gathered in training mode."""

    backbone: Backbone
    projector: Network
    predictor: Network
    recipe: Recipe
    steps: int
    decay: float = 0.99

    def init(self, key: jax.Array, batch: base.Batch) -> tuple[Any, Any]:
        """Online network with its predictor; the teacher starts as a copy of it."""
        body, projector, predictor = jax.random.split(key, 3)
        images = to_unit(batch["image"][:1, : self.recipe.size, : self.recipe.size])
        params, stats, features, _ = base.init_backbone(body, self.backbone, images, decoder=False)
        params["projector"], stats["projector"] = self.projector.init(projector, pool(features))
        z, stats = base.forward(self.projector, "projector", params, stats, pool(features), train=False)
        params["predictor"], stats["predictor"] = self.predictor.init(predictor, z)
        # copies: a donated state must not hold one buffer twice
        teacher = jax.tree.map(jnp.copy, {"params": {p: params[p] for p in TEACHER}, "stats": {p: stats[p] for p in TEACHER}})
        return params, {"stats": stats, "teacher": teacher}

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """Two independent crops and appearances: [B, S, S, C] each."""
        images = to_unit(batch["image"])
        first, second = (self.recipe(fold(keys, view), images)[0] for view in (0, 1))
        return {"first": first, "second": second}

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """Mean squared distance of unit vectors, both directions (eq. 2)."""
        teacher, stats = carried["teacher"], carried["stats"]
        teacher_stats = teacher["stats"]
        predictions, targets = [], []
        for name in ("first", "second"):
            z, stats = self._project(params, stats, views[name])
            prediction, stats = base.forward(self.predictor, "predictor", params, stats, z)
            target, teacher_stats = self._project(teacher["params"], teacher_stats, views[name])
            predictions.append(prediction)
            targets.append(jax.lax.stop_gradient(target))
        loss = byol(predictions[0], targets[1]) + byol(predictions[1], targets[0])
        return loss, ({"stats": stats, "teacher": {**teacher, "stats": teacher_stats}}, {})

    def _project(self, params: Any, stats: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        features, stats = base.forward(self.backbone.encoder, "encoder", params, stats, images)
        return base.forward(self.projector, "projector", params, stats, pool(features))

    def after_update(self, params: Any, carried: Any, step: jax.Array) -> Any:
        """The teacher moves towards the online network by 1 - tau, tau rising from `decay` to 1 by a cosine."""
        tau = 1 - (1 - self.decay) * (jnp.cos(jnp.pi * step / self.steps) + 1) / 2
        online = {part: params[part] for part in TEACHER}
        moved = optax.incremental_update(online, carried["teacher"]["params"], 1 - tau)
        return {**carried, "teacher": {**carried["teacher"], "params": moved}}

    def transferable(self, params: Any, carried: Any) -> dict[str, Any]:
        """The online encoder."""
        return base.parts(params, carried["stats"], "encoder")
