"""Losses: pure functions of arrays, float32 inside, importing only jax."""

from __future__ import annotations

from medssl_jax.losses.contrastive import byol, info_nce, unit
from medssl_jax.losses.pixel import (
    cluster_agreement,
    cluster_balance,
    cluster_entropy,
    cluster_floor,
    cluster_mass,
    effective_clusters,
    local_fit,
    patch_discrimination,
    region_discrimination,
    region_vectors,
)
from medssl_jax.losses.reconstruction import hidden_cells, l1, l2
from medssl_jax.losses.supervised import cross_entropy, dice_loss, soft_label_loss

__all__ = [
    "byol",
    "cluster_agreement",
    "cluster_balance",
    "cluster_entropy",
    "cluster_floor",
    "cluster_mass",
    "cross_entropy",
    "dice_loss",
    "effective_clusters",
    "hidden_cells",
    "info_nce",
    "l1",
    "l2",
    "local_fit",
    "patch_discrimination",
    "region_discrimination",
    "region_vectors",
    "soft_label_loss",
    "unit",
]
