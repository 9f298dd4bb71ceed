"""A folder of results made one command's own, so that what is continued is the same thing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssl_jax.errors import UserError
from medssl_jax.train.logging import read_json


def claim(out: Path, record: str, told: Mapping[str, Any]) -> None:
    """Write what the results in `out` depend on, as JSON, into its file `record`, where nothing is yet; else compare with what is there.

    Of several processes that claim at once the first one's stands. Raises UserError where `out` is a file, holds other things, or results
    of other options.
    """
    path, told = out / record, json.loads(json.dumps(told))
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; name a new or an empty folder.")
    foreign = out.is_dir() and any(record not in other.name for other in out.iterdir())
    if not path.exists():  # asked last: another process may have begun meanwhile
        if foreign:
            raise UserError(f"--out={out} holds other files (no {record}); name a new or an empty folder.")
        out.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{record}.{os.getpid()}.partial")
        partial.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        _put(partial, path)
    theirs = read_json(path, dict, "choose another --out")
    for key, value in told.items():
        if theirs.get(key) != value:
            raise UserError(f"--out={out} was begun with {key}={theirs.get(key)}, and it is {value} here; choose another --out.")


def _put(partial: Path, path: Path) -> None:
    """Give a file its name, unless another has it by now."""
    try:
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
    except OSError:  # a file system without links
        partial.replace(path)
    partial.unlink(missing_ok=True)
