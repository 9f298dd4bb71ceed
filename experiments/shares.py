"""How the runs of a table are divided among processes and machines."""

from __future__ import annotations

import contextlib
from pathlib import Path

from medssl_jax import machine
from medssl_jax.errors import UserError

LEFT_OUT = 1  # exit code where something could not be run


def share(text: str) -> tuple[int, int]:
    """`2/4` as (2, 4). Raises UserError for what is no share."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise UserError(f"--shard={text} is not a share; write --shard=2/4 for the second of four.")
    return int(index), int(count)


def alone(path: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the lock at `path`. Raises UserError where another process of this machine holds it."""
    return machine.alone(path, "another process is at it; start the same command again once that is done.")
