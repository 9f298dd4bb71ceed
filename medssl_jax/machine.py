"""What the process may use of the machine that it runs on."""

from __future__ import annotations

import os


def cores() -> int:
    """How many cores the process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
