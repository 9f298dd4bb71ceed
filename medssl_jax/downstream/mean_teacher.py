"""Semi-supervised fine-tuning: on unlabelled images too, a student agrees with a slow average of itself (Tarvainen & Valpola 2017)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medssl_jax.augment import Recipe, fold, to_unit
from medssl_jax.downstream.classification import Classifier
from medssl_jax.downstream.segmentation import Segmenter
from medssl_jax.methods import base
from medssl_jax.models import Backbone

RAMP = 0.5  # of the steps, while the weight rises


@dataclasses.dataclass(frozen=True)
class MeanTeacher:
    """A task with one more term: student and teacher see the same crop of an unlabelled image, the student's with its light and colour
    changed, and the mean squared difference of their probabilities counts `weight`. The teacher is what predicts.
    """

    task: Segmenter | Classifier
    steps: int
    weight: float = 1.0
    decay: float = 0.99

    @property
    def backbone(self) -> Backbone:
        """The task's."""
        return self.task.backbone

    @property
    def recipe(self) -> Recipe:
        """The task's."""
        return self.task.recipe

    def init(self, key: jax.Array, batch: base.Batch) -> tuple[Any, Any]:
        """The task's, with a teacher."""
        return self.with_teacher(*self.task.init(key, batch))

    @staticmethod
    def with_teacher(params: Any, carried: Any) -> tuple[Any, Any]:
        """`carried` with a teacher of the weights and statistics there are now."""
        # copies: a donated state must not hold one buffer twice
        return params, {**carried, "teacher": jax.tree.map(jnp.copy, {"params": params, "stats": carried["stats"]})}

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """The task's, and of `unlabelled` [B, H, W, C] the teacher's and the student's view [B, S, S, C]."""
        labelled = self.task.views(fold(keys, 0), batch)
        crop, _, _, _ = self.recipe.geometric(fold(keys, 1), to_unit(batch["unlabelled"]))
        return {**labelled, "teacher": crop, "student": self.recipe.photometric(fold(keys, 2), crop)}

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """The task's loss + weight * ramp * consistency; the ramp is exp(-5 (1 - t)^2) with t from 0 to 1 over half of the steps."""
        supervised, (own, logs) = self.task.loss(params, {"stats": carried["stats"]}, views, step)
        teacher = carried["teacher"]
        target, teacher_stats = self.task.logits(teacher["params"], teacher["stats"], views["teacher"], train=True)
        logits, stats = self.task.logits(params, own["stats"], views["student"], train=True)
        difference = jax.nn.softmax(logits) - jax.lax.stop_gradient(jax.nn.softmax(target))
        consistency = jnp.square(difference).mean()
        ramp = jnp.exp(-5 * (1 - jnp.minimum(step / (RAMP * self.steps), 1.0)) ** 2)
        carried = {"stats": stats, "teacher": {**teacher, "stats": teacher_stats}}
        return supervised + self.weight * ramp * consistency, (carried, {**logs, "consistency": consistency})

    def after_update(self, params: Any, carried: Any, step: jax.Array) -> Any:
        """The teacher moves by 1 - decay, faster in the beginning: min(1 - 1 / (step + 2), decay) of it stays."""
        stays = jnp.minimum(1 - 1 / (step + 2), self.decay)
        moved = optax.incremental_update(params, carried["teacher"]["params"], 1 - stays)
        return {**carried, "teacher": {**carried["teacher"], "params": moved}}

    def predict(self, params: Any, carried: Any, images: jax.Array) -> jax.Array:
        """The teacher's probabilities."""
        teacher = carried["teacher"]
        return self.task.predict(teacher["params"], {"stats": teacher["stats"]}, images)
