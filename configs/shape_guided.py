"""Segmentation without labels, guided by the shape of what is sought: vessels, optic disc, fovea or lungs, or a folder of masks.

python -m medssl_jax.main --config=configs/shape_guided.py --config.data.path=/my/xrays --config.method.shapes=lungs
python -m medssl_jax.main --config=configs/shape_guided.py --config.data.path=/my/images --config.method.shapes=/masks/from/elsewhere

No result on test images is recorded yet; on validation it finds lungs with 500 steps, and vessels better than Frangi's filter with
config.method.tone=dark, fit=5, fit_sigma=6, poses=all, config.model.norm=group and 4000 steps (experiments/README.md).
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
    c.method.update({"name": "shape_guided", "clusters": 8, "shapes": "vessels", "references": 200, "field": "auto"})
    c.method.update({"adversary": 1.0, "discriminator_rate": 0.1, "discriminator_slope": 0.2, "fit": 0.3, "fit_sigma": 8.0, "tone": "any"})
    c.method.poses = "mirrored"  # that an image is marked in, one after the other; all: quarter turns too, as vessels have no upright
    c.method.weights.update({"regions": 1.0, "balance": 0.0, "floor": 1.0, "agreement": 1.0})
    c.pretrain.update({"batch": 8, "steps": 500})
    c.pretrain.optimizer.learning_rate = 1e-3
    if size == "paper":  # as released
        c.pretrain.update({"batch": 6, "steps": 80_000})
        c.method.update({"discriminator_rate": 0.05, "fit": 0.0})
        c.method.weights.update({"regions": 10.0, "floor": 0.0, "agreement": 0.0})
    return c
