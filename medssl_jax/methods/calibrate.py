"""Norm statistics for what comes after pretraining: gathered anew on images without the corruptions of pretraining."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from medssl_jax.augment import Recipe, to_unit
from medssl_jax.methods import base
from medssl_jax.train.step import Batch, example_keys

BATCHES = 40  # with momentum 0.9, 1.5 % of what was there before remains


def calibrate(parts: dict[str, Any], method: base.Pretraining, recipe: Recipe, key: jax.Array, batches: Iterator[Batch]) -> dict[str, Any]:
    """The transferable `parts` with batch statistics of clean, augmented crops; the weights stay as they are.

    Pretraining leaves statistics of corrupted views (of the decoder: of nothing else), and fine-tuning on a patch or two has too few
    images for its own. The same idea in domain adaptation: Li et al. 2017, adaptive batch normalisation.
    """
    params = {name: part["params"] for name, part in parts.items()}
    stats = {name: part["stats"] for name, part in parts.items()}

    @jax.jit
    def see(params: Any, stats: Any, keys: jax.Array, batch: Batch) -> Any:
        images = recipe(keys, to_unit(batch["image"]))[0]
        features, stats = base.forward(method.backbone.encoder, "encoder", params, stats, images)
        if "decoder" in params:
            _, stats = base.forward(method.backbone.decoder, "decoder", params, stats, features)
        return stats

    for number in range(BATCHES if jax.tree.leaves(stats) else 0):
        batch = next(batches)
        stats = see(params, stats, example_keys(key, jax.numpy.int32(number), batch["slot"]), batch)
    return {name: {"params": params[name], "stats": stats[name]} for name in parts}
