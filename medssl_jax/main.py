"""The command: `python -m medssl_jax.main --config=configs/tower.py --workdir=runs/tower`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from medssl_jax import cli, experiment
from medssl_jax.config import LAYOUT, validate
from medssl_jax.errors import UserError
from medssl_jax.memory import keep_pages
from medssl_jax.report import write_report
from medssl_jax.train.logging import say, write_json
from medssl_jax.train.loop import Interrupted
from medssl_jax.train.mesh import initialise_distributed, wait_for_all

COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0, for a run of several processes without a TPU pod or Slurm.")
PROCESS_COUNT = flags.DEFINE_integer("process_count", 0, "How many processes the run has.")
PROCESS_INDEX = flags.DEFINE_integer("process_index", -1, "Which of them this is, from 0.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept; runs/<config.name> where nothing is given.")


def main() -> None:
    """Start or continue the run that the flags describe."""
    keep_pages()
    config = cli.config()
    validate(config)
    initialise_distributed(COORDINATOR.value, PROCESS_COUNT.value, PROCESS_INDEX.value)
    if config.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compilation_cache).expanduser()))
    workdir = Path(WORKDIR.value or f"runs/{config.name}").expanduser()
    claim(workdir, config)
    if (workdir / "report.html").exists():
        say(f"The run in {workdir} is finished; its table is below. Choose another --workdir to run again.")
        if jax.process_index() == 0:
            print(write_report(workdir))
        return
    try:
        experiment.run(config, workdir, shlex.join(["python", "-m", "medssl_jax.main", *sys.argv[1:]]))
    except Interrupted as reason:
        say(f"Interrupted: {reason}. The same command continues from there.")
        return
    say(f"Report: {workdir / 'report.html'}")


def claim(workdir: Path, config: ConfigDict) -> None:
    """Make `workdir` this config's own. Raises UserError where it holds a run of another config, naming what differs."""
    path, ours = workdir / "config.json", _flat(json.loads(config.to_json()))
    theirs = _flat(json.loads(path.read_text())) if path.exists() else None
    occupied = workdir.is_dir() and any(workdir.iterdir())
    wait_for_all("the workdir was looked at")  # by every process, before one of them writes there
    if theirs is None:
        if occupied:
            raise UserError(f"{workdir} holds files but no run (no config.json); choose an empty or new --workdir.")
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "figures").mkdir(exist_ok=True)
        write_json(path, json.loads(config.to_json()))
        return
    differ = sorted(k for k in ours.keys() | theirs.keys() if k not in LAYOUT and ours.get(k) != theirs.get(k))
    if differ:
        first = f"config.{differ[0]} is {theirs.get(differ[0])!r} there and {ours.get(differ[0])!r} here"
        more = f", and {len(differ) - 1} more" if len(differ) > 1 else ""
        raise UserError(f"{workdir} holds a run of another config ({first}{more}); choose another --workdir.")


def _flat(tree: dict, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


if __name__ == "__main__":
    sys.exit(cli.execute(main, sys.argv))
