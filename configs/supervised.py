"""No pretraining: random weights, fine-tuned on the labels alone. The control of every other config, by itself.

python -m medssl_jax.main --config=configs/supervised.py
python -m medssl_jax.main --config=configs/supervised.py:paper

The first line of every table in experiments/README.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from medssl_jax.config import base


def get_config(size: str = "small") -> ConfigDict:
    """The fine-tuning of every other config of that size."""
    c = base(size)
    c.name = "supervised"
    c.method = ConfigDict({"name": "none"})
    return c
