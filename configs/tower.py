"""TOWER: contrastive and restorative pretraining of encoder and decoder, then segmentation with few labels.

python -m medssl_jax.main --config=configs/tower.py            # the built-in sample, two CPU cores
python -m medssl_jax.main --config=configs/tower.py:paper      # the paper's recipe, one GPU

The default takes 8 minutes on two CPU cores; what to expect stands in experiments/README.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from medssl_jax.config import base, proxy


def get_config(size: str = "small") -> ConfigDict:
    """`small`: the default run. `paper`: ResNet-50 U-Net, 224 px, 20 000 steps of 32 (arXiv 2211.14715; 100 epochs of 6 400 images)."""
    c = base(size)
    c.name = "tower"
    c.method = ConfigDict({"name": "tower", "temperature": 0.1, "contrastive_weight": 1.0, "restoration_weight": 1.0})
    c.method.update({"restoration": "l1", "partner": "clean", "decorrelation": 0.0})
    c.method.proxy = proxy(curve="fixed", mask="block", zero_fraction=0.5)
    if size == "small":  # chosen on validation images of the sample, nuclei and vessels (experiments/README.md)
        c.method.update({"partner": "crop", "decorrelation": 0.3})
        c.method.proxy.update({"curve": "random", "inversion_probability": 0.0, "mask": "none"})
    return c
