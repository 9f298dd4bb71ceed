"""SparK: masked image modelling for convolutions, the arm a user would reach for today, on TOWER's images and steps (Tian et al. 2023).

python -m medssl_jax.main --config=configs/spark.py
python -m medssl_jax.main --config=configs/spark.py:paper      # ResNet-50 at 224 px

The steps and crops of configs/tower.py; what is measured of it stands in the tables of experiments/README.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from medssl_jax.config import base


def get_config(size: str = "small") -> ConfigDict:
    """Six tenths of the cells hidden, as published; AdamW stands for the published LAMB."""
    c = base(size)
    c.name = "spark"
    c.method = ConfigDict({"name": "spark", "zero_fraction": 0.6, "decorrelation": 0.0})
    if size == "small":  # chosen on validation images of nuclei and vessels (experiments/README.md)
        c.method.decorrelation = 0.3
    if size == "paper":
        c.pretrain.optimizer.update({"learning_rate": 4e-4, "warmup": 0.025, "weight_decay": 0.04})
    return c
