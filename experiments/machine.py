"""What a time was measured on."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medssl_jax.machine import cores

LOAD = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None  # before anything is measured, which would be a load itself


def share_accelerator() -> None:
    """Have JAX take an accelerator's memory as it needs it, so that PyTorch finds some too. Call before JAX starts."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def machine() -> dict[str, Any]:
    """What it ran on, with the load of the minute before this process began."""
    names = ("jax", "jaxlib", "flax", "torch", "torchvision", "lightly")
    versions = {name: version(name) for name in names if importlib.util.find_spec(name)}
    return {"cpu": _cpu(), "cores": cores(), "load": LOAD, "python": platform.python_version(), **versions}


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
