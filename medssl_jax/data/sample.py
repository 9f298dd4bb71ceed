"""The built-in sample: a wound-healing assay that comes with the package ndev-sampledata. Ten frames of label-free microscopy."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import tifffile

from medssl_jax.data.collection import Item
from medssl_jax.data.formats import Probe
from medssl_jax.data.npz import Arrays
from medssl_jax.errors import UserError

PACKAGE, FILE = "ndev_sampledata", "samples/scratch-assay-labeled-10T-2Ch.tiff"
OBLIQUE, CYTOPLASM = 1, 3  # channels of the stack (Hoechst, oblique light, nuclei labels, cytoplasm labels), axes C T Y X
TEST, VAL = (2, 5, 8), (4,)
LICENCE = "BSD-3-Clause"
CITATION = "Tim Monko, ndev-sampledata: scratch-assay-labeled-10T-2Ch, https://github.com/ndev-kit/ndev-sampledata"


def open_sample() -> Arrays:
    """Oblique-light frames uint16 [210, 576, 1] with cytoplasm labels; frames 2, 5, 8 test, 4 validation, the others training."""
    stack = tifffile.imread(_locate())
    items = tuple(
        Item(f"frame {t}", Probe(stack.shape[2], stack.shape[3], 1, stack.dtype), _part(t), None, True) for t in range(stack.shape[1])
    )
    return Arrays(items, tuple(np.ascontiguousarray(stack[OBLIQUE, ..., None])), tuple(stack[CYTOPLASM]))


def _part(frame: int) -> str:
    return "test" if frame in TEST else "val" if frame in VAL else "train"


def _locate() -> Path:
    """The file inside the installed package, found without importing the package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the built-in sample needs the package ndev-sampledata; pip install ndev-sampledata, or set --config.data.path.")
    return Path(spec.submodule_search_locations[0]) / FILE
