"""Whose run a directory holds: asked before anything is read, written down once the data and the options are known to be usable."""

from __future__ import annotations

import json
from pathlib import Path

from ml_collections import ConfigDict

from medssl_jax.config import LAYOUT, flat
from medssl_jax.errors import UserError
from medssl_jax.train.agree import wait_for_all
from medssl_jax.train.logging import read_json, write_json

CONFIG = "config.json"


def examine(workdir: Path, config: ConfigDict, name: str = "") -> None:
    """Raises UserError where `workdir` is a file, holds something else than a run, or a run of another config, naming what differs; `name`
    is what the user called it (a URL)."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; choose a folder, new or empty.")
    path, ours = workdir / CONFIG, flat(json.loads(config.to_json()))
    if not path.exists():
        if workdir.is_dir() and any(file.suffix != ".partial" for file in workdir.iterdir()):  # what a full disk cut short is no run
            raise UserError(f"{name or workdir} holds files but no run (no {CONFIG}); choose an empty or new --workdir.")
        return
    if not _begun(workdir):
        return
    theirs = flat(read_json(path, dict, "put back the one of this run, or choose another --workdir"))
    differ = sorted(k for k in ours.keys() | theirs.keys() if k not in LAYOUT and ours.get(k) != theirs.get(k))
    if differ:
        there, here = (repr(options[differ[0]]) if differ[0] in options else "not an option" for options in (theirs, ours))
        first = f"config.{differ[0]} is {there} there and {here} here"
        more = f", and {len(differ) - 1} more" if len(differ) > 1 else ""
        raise UserError(f"{name or workdir} holds a run of another config ({first}{more}); choose another --workdir.")


def claim(workdir: Path, config: ConfigDict) -> bool:
    """Make `workdir` this config's own; whether it already was, and had begun."""
    continued = _begun(workdir)
    wait_for_all("the workdir was examined")  # by every process, before one of them writes there
    workdir.mkdir(parents=True, exist_ok=True)
    if not continued:
        write_json(workdir / CONFIG, json.loads(config.to_json()))
    (workdir / "figures").mkdir(exist_ok=True)
    return continued


def _begun(workdir: Path) -> bool:
    """Whether a run left anything but its config here: what was refused right after it was claimed is no run."""
    left = (file for file in workdir.rglob("*") if file.is_file() and file.name != CONFIG and file.suffix != ".partial")
    return (workdir / CONFIG).exists() and any(left)
