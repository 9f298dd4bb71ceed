"""Losses: pure functions of arrays, float32 inside, importing only jax."""

from __future__ import annotations

from medssl_jax.losses.contrastive import byol, info_nce, unit
from medssl_jax.losses.correlation import correlation
from medssl_jax.losses.detection import (
    Assigned,
    assign,
    binary_cross_entropy,
    box_overlap,
    corners,
    edge_distances,
    focal,
    masked_mean,
    overshoot,
    side_loss,
    symmetric_side_loss,
)
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
    "Assigned",
    "assign",
    "binary_cross_entropy",
    "box_overlap",
    "byol",
    "cluster_agreement",
    "cluster_balance",
    "cluster_entropy",
    "cluster_floor",
    "cluster_mass",
    "corners",
    "correlation",
    "cross_entropy",
    "dice_loss",
    "edge_distances",
    "effective_clusters",
    "focal",
    "hidden_cells",
    "info_nce",
    "l1",
    "l2",
    "local_fit",
    "masked_mean",
    "overshoot",
    "patch_discrimination",
    "region_discrimination",
    "region_vectors",
    "side_loss",
    "soft_label_loss",
    "symmetric_side_loss",
    "unit",
]
