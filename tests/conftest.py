"""Four CPU devices for every test, silent broadcasting forbidden, and small fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# tiny programs, of which most of the time is compilation
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The folder of real image sets; a test that needs it is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "datasets"
    folder = Path(os.environ.get("MEDSSL_DATASETS", beside))
    if not folder.is_dir():
        pytest.skip("the image sets are not here; set MEDSSL_DATASETS to their folder")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
