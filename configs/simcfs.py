"""A detector that cuts compound figures into their panels, trained on simulated figures alone (SimCFS, arXiv 2107.08650, 2208.14357).

python -m medssl_jax.main --config=configs/simcfs.py                       # figures made of the built-in sample: a smoke run
python -m medssl_jax.main --config=configs/simcfs.py --config.data.path=/images/histology,/images/blood_cells,/images/x-rays
python -m medssl_jax.main --config=configs/simcfs.py:paper --config.data.path=...     # one GPU

python -m medssl_jax.main --config=configs/simcfs.py --config.pretrain.from=shipped --config.data.path=... # on from the package's detector

The first is for a look: for use on real figures name folders of single images, of as many kinds as there are. No label is needed; folders
of one class each make figures of one class, and of several folders each is a class at least.
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from medssl_jax.config import base, figures
from medssl_jax.figures.style import COUNTS, Style

SINGLE = 20.0  # weight of figures of one panel beside the other counts: folders hold such too, and ImageCLEF's set next to none


def get_config(size: str = "small") -> ConfigDict:
    """`small`: 320 px, 2.2 million parameters, two CPU cores. `paper`: 512 px and the 100 epochs of a set as large as ImageCLEF 2016's."""
    c = base(size)
    c.name = "simcfs"
    # side: scale_free (ours) | original (in cells of the levels; its own weight is 0.05) | symmetric (the control) | none
    c.method = ConfigDict({"name": "simcfs", "side": "scale_free", "side_weight": 0.25})
    c.figures = figures(style=ConfigDict(dataclasses.asdict(Style(counts=(SINGLE, *COUNTS[1:])))))
    c.model.update({"name": "detector", "width": 32, "norm": "group"})
    c.model.blocks = 2  # of the detector's stages
    c.data.tile = 256  # side that images of class folders are scaled to
    c.pretrain.update({"steps": 5000, "batch": 8, "log_every": 50, "eval_every": 500, "checkpoint_every": 500})
    c.pretrain.optimizer.update({"learning_rate": 1e-3, "weight_decay": 0.01, "clip": 5.0, "warmup": 0.05})
    if size == "paper":
        c.figures.size = 512
        c.model.update({"width": 64})
        c.pretrain.update({"steps": 20_000, "batch": 32, "eval_every": 1000, "checkpoint_every": 1000})
    return c
