"""SimCLR: the contrastive comparison arm, with the images, steps and fine-tuning of TOWER (Chen et al. 2020).

python -m medssl_jax.main --config=configs/simclr.py
python -m medssl_jax.main --config=configs/simclr.py:paper     # ResNet-50, LARS, batch 512: 16 times the images of TOWER

Two CPU cores, under ten minutes; what to expect stands in experiments/README.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from medssl_jax.config import base


def get_config(size: str = "small") -> ConfigDict:
    """`small`: the default run. `paper`: LARS with the published rate 0.3 * batch / 256 and decay 1e-6, written out."""
    c = base(size)
    c.name = "simclr"
    c.method = ConfigDict({"name": "simclr", "temperature": 0.1})
    if size == "paper":
        c.pretrain.batch = 512
        c.pretrain.optimizer.update({"name": "lars", "learning_rate": 0.6, "warmup": 0.1, "weight_decay": 1e-6})
    return c
