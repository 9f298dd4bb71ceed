"""BYOL: the comparison arm without negatives, with the images, steps and fine-tuning of TOWER (Grill et al. 2020).

python -m medssl_jax.main --config=configs/byol.py
python -m medssl_jax.main --config=configs/byol.py:paper       # ResNet-50, LARS in BYOL's order, batch 512: 16 times TOWER's images

Two CPU cores, under ten minutes; what to expect stands in experiments/README.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from medssl_jax.config import base


def get_config(size: str = "small") -> ConfigDict:
    """`small`: the default run. `paper`: rate 0.2 * batch / 256 and decay 1.5e-6, written out; the teacher's decay starts at 0.996."""
    c = base(size)
    c.name = "byol"
    c.method = ConfigDict({"name": "byol", "decay": 0.99})
    if size == "paper":
        c.method.decay = 0.996
        c.model.projection = (4096, 256)
        c.pretrain.batch = 512
        c.pretrain.optimizer.update({"name": "lars_byol", "learning_rate": 0.4, "warmup": 0.01, "weight_decay": 1.5e-6})
    return c
