"""Restoration alone: Models Genesis' corruptions, undone (Zhou et al. 2021); TOWER's generative arms by `config.method.proxy`.

    python -m medssl_jax.main --config=configs/restoration.py
    python -m medssl_jax.main --config=configs/restoration.py --config.method.proxy.curve=fixed --config.method.proxy.mask=block \\
        --config.method.proxy.shuffle_probability=0 --config.method.proxy.paint_probability=0      # the paper's Gen NL+M

Two CPU cores, under ten minutes; what to expect stands in experiments/README.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from medssl_jax.config import base, proxy


def get_config(size: str = "small") -> ConfigDict:
    """Squared error over all pixels, with Genesis' probabilities (0.5 shuffle, 0.9 curve, 0.9 paint)."""
    c = base(size)
    c.name = "restoration"
    c.method = ConfigDict({"name": "restoration", "restoration": "l2", "decorrelation": 0.0})
    c.method.proxy = proxy(curve="random", curve_probability=0.9, shuffle_probability=0.5, paint_probability=0.9)
    if size == "small":  # chosen on validation images of nuclei and vessels (experiments/README.md)
        c.method.decorrelation = 0.1
    return c
