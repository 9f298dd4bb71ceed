"""Local Discrimination guided by a shape: one cluster's map is made to look like reference masks (arXiv 2108.09440, shape-guided part)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medssl_jax import losses
from medssl_jax.augment import fold, to_unit
from medssl_jax.methods import base
from medssl_jax.methods.local_discrimination import VIEWS, LocalDiscrimination
from medssl_jax.models import Network

GUIDED = 0  # the cluster that becomes the structure
DARKEST = 20 / 255  # outside of a fundus camera's field of view (as released)
RIM = 4  # px, of the field of view, that is left out with what is outside


@dataclasses.dataclass(frozen=True)
class ShapeGuided(LocalDiscrimination):
    """The second stage has one more term: a discriminator tells the guided cluster's map from masks of other images or of none.

    Both players are parts of one loss, each with the other's parameters held; the discriminator moves at a rate of its own.
    """

    discriminator: Network = dataclasses.field(kw_only=True)
    adversary: float = 1.0  # weight of the guided cluster's part
    fit: float = 1.0  # ours: weight of what the guided cluster and the rest leave unexplained of the image around every pixel
    fit_sigma: float = 8.0  # px, how far around
    tone: str = "any"  # dark | bright: what is sought, beside its surroundings
    bright: bool = False  # the field of view is what is not black, as a fundus camera's; else all of an image
    rate: float = 0.05  # of the discriminator, as a multiple of the network's

    @property
    def rates(self) -> dict[str, float]:
        """The parts that do not learn at the optimizer's own rate."""
        return {"discriminator": self.rate}

    def init(self, key: jax.Array, batch: base.Batch) -> tuple[Any, Any]:
        """Local Discrimination's, and a discriminator."""
        params, carried = super().init(jax.random.fold_in(key, 0), batch)
        maps = jnp.zeros((1, self.recipe.size, self.recipe.size, 1))
        params["discriminator"], carried["stats"]["discriminator"] = self.discriminator.init(jax.random.fold_in(key, 1), maps)
        return params, carried

    def views(self, keys: jax.Array, batch: base.Batch) -> base.Views:
        """Local Discrimination's, and [B, 2, S, S, .] of every view the crop in its own light, where its field of view is, and a crop of
        the references `shape` [B, T, T, 1], cut as an image is, soft at the border, where a network's map is soft too, and seen through
        the same field: a player must not know the other by its field.
        """
        crops = self.crops(fold(keys, 8), to_unit(batch["image"]))
        images = jnp.stack([crops[name] for name in VIEWS], axis=1)
        inside = jnp.stack([self._field(crops[name]) for name in VIEWS], axis=1)
        shapes = [self.recipe.geometric(fold(keys, 9 + number), to_unit(batch["shape"]))[0] for number, _ in enumerate(VIEWS)]
        return self.lit(fold(keys, 8), crops) | {"clean": images, "inside": inside, "shapes": inside * jnp.stack(shapes, axis=1)}

    def _field(self, crops: jax.Array) -> jax.Array:
        """1 in the field of view and 0 outside of it and on its rim, float32 [B, S, S, 1]."""
        lightest = crops.max(-1, keepdims=True)
        if not self.bright:
            return jnp.ones_like(lightest)
        window = (1, 2 * RIM + 1, 2 * RIM + 1, 1)
        return (jax.lax.reduce_window(lightest, jnp.inf, jax.lax.min, window, (1, 1, 1, 1), "SAME") > DARKEST).astype(jnp.float32)

    def loss(self, params: Any, carried: Any, views: base.Views, step: jax.Array) -> tuple[jax.Array, tuple[Any, base.Logs]]:
        """Local Discrimination's + weight L_G + L_D + weight L_fit, the last three in the second stage alone.

        L_G = BCE(D(p0), 1), D held; L_D = BCE(D([masks; p0]), [1; 0]), p0 held. With these alone the network may draw the shapes wherever
        it likes, the same in every crop; the fit ties them to the image.
        """
        loss, clusters, (carried, logs) = self.learn(params, carried, views, step)
        clean, inside, real = (views[name].reshape(-1, *views[name].shape[2:]) for name in ("clean", "inside", "shapes"))
        share = clusters[..., GUIDED : GUIDED + 1]
        drawn = inside * share
        fooled = _cross_entropy(self._judge(jax.lax.stop_gradient(params), drawn), 1.0)
        on_real, on_drawn = base.parted(self._judge(params, base.joined(real, jax.lax.stop_gradient(drawn))), 2)
        told = (_cross_entropy(on_real, 1.0) + _cross_entropy(on_drawn, 0.0)) / 2
        right = (jnp.concatenate([on_real, -on_drawn]) > 0).astype(jnp.float32).mean()
        unfit = losses.local_fit(clean, share, inside, self.fit_sigma, self.tone)
        logs = {**logs, "fooled": fooled, "told": told, "discriminator_accuracy": right, "guided_share": drawn.mean(), "unfit": unfit}
        return loss + self.late(step) * (self.adversary * fooled + told + self.fit * unfit), (carried, logs)

    def _judge(self, params: Any, maps: jax.Array) -> jax.Array:
        return self.discriminator.apply(params["discriminator"], {}, maps, train=True)[0]


def _cross_entropy(logits: jax.Array, target: float) -> jax.Array:
    return optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, target)).mean()
