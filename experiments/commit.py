"""Which state of the code measured something."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from medssl_jax.train.logging import read_json, write_json

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


def of(path: Path) -> str:
    """The code that began what the file `path` stands for: this one, where it is not there yet."""
    if not path.exists():
        write_json(path, {"code": current()})
    return str(read_json(path, dict, "delete it; it is then taken for made by the present code")["code"])
