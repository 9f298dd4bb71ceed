"""How a process on a CPU asks for memory."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGEST = 2**31 - 1


def keep_pages() -> None:
    """Tell glibc to keep freed memory: XLA frees and asks again for its large buffers at every step, and mapping them anew took
    20 to 25 % of a step's CPU time on two cores (measured). Call before JAX starts; other C libraries are left as they are."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, LARGEST)):
        mallopt(option, value)
