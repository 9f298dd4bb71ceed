"""A folder of results made one command's own, so that what is continued is the same thing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssl_jax.errors import UserError
from medssl_jax.train.logging import read_json


def claim(out: Path, record: str, told: Mapping[str, Any], mark: str = "new") -> None:
    """Write what the results in `out` depend on, as JSON, into its file `record`, where nothing is yet; else compare with what is there.

    `mark` sets the unfinished file apart from those of other processes, which may claim the same for the same. Raises UserError where `out`
    is a file, holds other things, or results of other options.
    """
    path, told = out / record, json.loads(json.dumps(told))
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; name a new or an empty folder.")
    foreign = out.is_dir() and any(record not in other.name for other in out.iterdir())
    if not path.exists():  # asked last: another process may have begun meanwhile
        if foreign:
            raise UserError(f"--out={out} holds other files (no {record}); name a new or an empty folder.")
        out.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{record}.{mark}.partial")
        partial.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    theirs = read_json(path, dict, "choose another --out")
    for key, value in told.items():
        if theirs.get(key) != value:
            raise UserError(f"--out={out} was begun with {key}={theirs.get(key)}, and it is {value} here; choose another --out.")
