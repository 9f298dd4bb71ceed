"""Which state of the code measured something."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = ("medssl_jax", "configs", "experiments/*.py", "pyproject.toml")


@functools.cache
def current() -> str:
    """The commit of this checkout, with `-changed` where its code is not that commit's; "" outside a repository."""
    commit = _git("rev-parse", "--short=10", "HEAD")
    return f"{commit}-changed" if commit and _git("status", "--porcelain", "--", *CODE) else commit


def _git(*arguments: str) -> str:
    try:
        told = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return told.stdout.strip()
