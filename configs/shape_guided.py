"""Segmentation without labels, guided by the shape of what is sought: vessels, optic disc, fovea or lungs, or a folder of masks.

python -m medssl_jax.main --config=configs/shape_guided.py --config.data.path=/my/fundi --config.method.shapes=vessels
python -m medssl_jax.main --config=configs/shape_guided.py --config.data.path=/my/images --config.method.shapes=/masks/from/elsewhere
"""

from __future__ import annotations

import runpy
from pathlib import Path

from ml_collections import ConfigDict

LOCAL = Path(__file__).with_name("local_discrimination.py")


def get_config(size: str = "small") -> ConfigDict:
    """Local Discrimination with 8 clusters, the first of which takes the shape. `paper`: 80 000 steps, the discriminator at 5e-5."""
    c = runpy.run_path(str(LOCAL))["get_config"](size)
    c.name = "shape_guided"
    c.method.update({"name": "shape_guided", "clusters": 8, "shapes": "vessels", "references": 200})
    c.method.update({"fit": 1.0, "fit_sigma": 8.0})
    c.method.update({"adversary": 1.0, "discriminator_rate": 0.05, "discriminator_slope": 0.2, "field": "auto"})
    c.method.weights.update({"balance": 0.0, "floor": 1.0})
    return c
