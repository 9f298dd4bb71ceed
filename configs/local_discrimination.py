"""Local Discrimination: a vector and a cluster for every pixel, for structures within images (arXiv 2012.09333, 2108.09440).

python -m medssl_jax.main --config=configs/local_discrimination.py
python -m medssl_jax.main --config=configs/local_discrimination.py:paper     # the quarter-width VGG U-Net at 448 px, one GPU

What is measured of it are landmarks (experiments/README.md).
The paper's views are `config.method.same_crop=True`; its losses alone `config.method.weights.balance=0`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from medssl_jax.config import base


def get_config(size: str = "small") -> ConfigDict:
    """16 clusters, 32 dimensions, 8 x 8 patches. `paper`: 20 000 and 80 000 steps of 8 images, Adam with rate 1e-3."""
    c = base(size)
    c.name = "local_discrimination"
    c.method = ConfigDict({"name": "local_discrimination", "clusters": 16, "dimensions": 32, "cells": 8, "stage_one": 0.2})
    c.method.update({"temperature": 0.1, "region_temperature": 0.2, "same_crop": False, "same_place": -1})
    c.method.weights = ConfigDict({"patches": 1.0, "mixup": 1.0, "regions": 10.0, "entropy": 0.1, "balance": 1.0})
    c.method.weights.update({"floor": 0.0, "agreement": 0.0})
    c.pretrain.batch = 16
    if size == "paper":
        c.data.tile, c.views.size, c.pretrain.batch, c.pretrain.steps = 512, 448, 8, 100_000
        c.model.update({"name": "vgg16", "width": 16})
        c.method.same_crop = True
    return c
