"""The little that all pretraining methods share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from medssl_jax.losses import correlation
from medssl_jax.models import Backbone, Network
from medssl_jax.train.method import Batch, Logs, Method, Tree, Views

__all__ = ["Batch", "Logs", "Pretraining", "Tree", "Views", "forward", "init_backbone", "joined", "parted", "parts", "repetition"]


class Pretraining(Method, Protocol):
    """A method whose networks are worth transferring."""

    @property
    def backbone(self) -> Backbone:
        """Encoder and decoder."""

    def transferable(self, params: Tree, carried: Tree) -> dict[str, Tree]:
        """{"encoder": {"params", "stats"}, "decoder"?: the same}: what fine-tuning starts from."""


def init_backbone(key: jax.Array, backbone: Backbone, images: jax.Array, decoder: bool) -> tuple[dict, dict, Any, Any]:
    """Parameters and statistics by part, with the feature maps and (where wanted) the decoded map of `images`."""
    encoder_key, decoder_key = jax.random.split(key)
    params, stats = {}, {}
    params["encoder"], stats["encoder"] = backbone.encoder.init(encoder_key, images)
    features, _ = forward(backbone.encoder, "encoder", params, stats, images, train=False)
    if not decoder:
        return params, stats, features, None
    params["decoder"], stats["decoder"] = backbone.decoder.init(decoder_key, features)
    decoded, _ = forward(backbone.decoder, "decoder", params, stats, features, train=False)
    return params, stats, features, decoded


def forward(
    network: Network, part: str, params: dict, stats: dict, x: Any, train: bool = True, visible: jax.Array | None = None
) -> tuple[Any, dict]:
    """Apply one part; returns its output and all statistics with that part's replaced."""
    out, new = network.apply(params[part], stats[part], x, train=train, visible=visible)
    return out, {**stats, part: new}


def repetition(weight: float, maps: Sequence[jax.Array]) -> tuple[jax.Array | float, Logs]:
    """`weight` times how much the channels of the maps repeat each other, and that for the log; nothing is computed for a weight of 0.

    What restores a gray image ends as copies of one channel, in the decoder above all; a fine-tuning that starts from there is worse than
    one from random weights (experiments/README.md).
    """
    if not weight:
        return 0.0, {}
    repeated = correlation(maps)
    return weight * repeated, {"correlation": repeated}


def joined(*views: jax.Array) -> jax.Array:
    """V views of B images, [B, ...] each, as one batch [B V, ...], the views of an image side by side: each device keeps its own images,
    where views one after the other would have to be exchanged."""
    return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])


def parted(x: jax.Array, views: int) -> list[jax.Array]:
    """What a network made of `joined` views, by view again: [B V, ...] -> V times [B, ...]."""
    apart = x.reshape(-1, views, *x.shape[1:])
    return [apart[:, view] for view in range(views)]


def parts(params: dict, stats: dict, *names: str) -> dict[str, Tree]:
    """The named parts, each as {"params", "stats"}."""
    return {name: {"params": params[name], "stats": stats[name]} for name in names}
