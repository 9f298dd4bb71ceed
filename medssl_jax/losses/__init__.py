"""Losses: pure functions of arrays, float32 inside, importing only jax."""

from __future__ import annotations

from medssl_jax.losses.contrastive import byol, info_nce
from medssl_jax.losses.reconstruction import hidden_cells, l1, l2
from medssl_jax.losses.supervised import cross_entropy, dice_loss

__all__ = ["byol", "cross_entropy", "dice_loss", "hidden_cells", "info_nce", "l1", "l2"]
