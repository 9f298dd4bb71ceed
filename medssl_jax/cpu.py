"""What a process settles before JAX starts, so that a CPU computes fast."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from importlib.metadata import version

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGEST = 2**31 - 1
ACCELERATED = ("jax_plugins", "libtpu")  # where jax[cuda], jax[rocm] and jax[tpu] install
WITHOUT_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type=-INDIVIDUAL_CONVOLUTION"
KNOWN_TO = ("0.10.2", "0.12.0", "0.12.0.1")  # the jaxlibs that this was measured with: XLA ends the process at a flag it does not know


def settle() -> None:
    """Memory that is freed stays with the process, and convolutions are Eigen's. Call before JAX starts."""
    _keep_pages()
    _convolve_with_eigen()


def _keep_pages() -> None:
    """Tell glibc to keep freed memory: XLA frees and asks again for its large buffers at every step, and mapping them anew took
    20 to 25 % of a step's CPU time on two cores (measured); other C libraries are left as they are."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, LARGEST)):
        mallopt(option, value)


def _convolve_with_eigen() -> None:
    """Leave YNNPACK to the other operations: its gradients to a convolution's kernel run on one core, and a SimCLR step took one and a
    half times as long (`experiments.convolutions`). Where XLA_FLAGS is set, or JAX has an accelerator, it is left as it is."""
    if version("jaxlib") in KNOWN_TO and not any(map(importlib.util.find_spec, ACCELERATED)):
        os.environ.setdefault("XLA_FLAGS", WITHOUT_YNNPACK)
