"""What a process settles before JAX starts, so that a CPU computes fast."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from importlib.metadata import version

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGEST, OLD_LARGEST = 2**31 - 1, 2**25  # thresholds in bytes; glibc before 2.36 or so refuses more than the second for M_MMAP_THRESHOLD
ACCELERATED = ("jax_plugins", "libtpu")  # where jax[cuda], jax[rocm] and jax[tpu] install
WITHOUT_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type=-INDIVIDUAL_CONVOLUTION"
KNOWN_TO = ("0.10.2", "0.12.0", "0.12.0.1")  # the jaxlibs that this was tried with: XLA ends the process at a flag it does not know


def settle() -> None:
    """Memory that is freed stays with the process, and convolutions are Eigen's. Call before JAX starts."""
    _keep_pages()
    _convolve_with_eigen()


def _keep_pages() -> None:
    """Tell glibc to keep freed memory: XLA frees and asks again for its large buffers at every step, and the kernel would map and clear
    them anew each time; other C libraries are left as they are."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_ARENA_MAX, 1)
    # without the first threshold the second would hold glibc's own at its start, 128 KiB, and map all above anew
    if mallopt(M_MMAP_THRESHOLD, LARGEST) or mallopt(M_MMAP_THRESHOLD, OLD_LARGEST):
        mallopt(M_TRIM_THRESHOLD, LARGEST)


def _convolve_with_eigen() -> None:
    """Leave YNNPACK to the other operations: its gradients to a convolution's kernel run on one core, and a SimCLR step took one and a
    half times as long (`experiments.speed`). Where XLA_FLAGS is set, or JAX has an accelerator, it is left as it is."""
    if version("jaxlib") in KNOWN_TO and not any(map(importlib.util.find_spec, ACCELERATED)):
        os.environ.setdefault("XLA_FLAGS", WITHOUT_YNNPACK)
