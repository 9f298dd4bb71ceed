"""The command: `python -m medssl_jax.main --config=configs/tower.py --workdir=runs/tower`."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from medssl_jax import cli, cpu, experiment, mirror
from medssl_jax.config import flat, validate
from medssl_jax.errors import UserError
from medssl_jax.report import read_run, write_report
from medssl_jax.train import agree, processes
from medssl_jax.train.logging import say
from medssl_jax.train.loop import Interrupted
from medssl_jax.workdir import examine

COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0, for a run of several processes without a TPU pod or Slurm.")
PROCESS_COUNT = flags.DEFINE_integer("process_count", 0, "How many processes the run has.")
PROCESS_INDEX = flags.DEFINE_integer("process_index", -1, "Which of them this is, from 0.")
SILENCE = flags.DEFINE_integer("silence", processes.SILENCE, "Seconds after which a process that is not heard of counts as lost.", 1)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run is kept, a folder or a URL (gs://...); runs/<config.name> where nothing is given."
)
STOPPED_CODE = flags.DEFINE_integer(
    "stopped_code",
    0,
    "Exit code of a run that was taken back (SIGTERM) before its end; another than 0 for schedulers to whom 0 means finished.",
)


def main() -> None:
    """Start or continue the run that the flags describe."""
    cpu.settle()
    config = cli.config()
    validate(config)
    processes.initialise_distributed(COORDINATOR.value, PROCESS_COUNT.value, PROCESS_INDEX.value, SILENCE.value)
    with processes.together():
        _run(config)


def _run(config: ConfigDict) -> None:
    _check_alike(config)
    if config.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compilation_cache).expanduser()))
    place = WORKDIR.value or f"runs/{config.name}"
    with mirror.kept(place) if "://" in place else contextlib.nullcontext(Path(place).expanduser()) as workdir:
        _run_in(workdir, config, place)


def _check_alike(config: ConfigDict) -> None:
    """Raises UserError, in all processes, where one was started with other options: they would wait for one another, or not notice."""
    ours = {"workdir": WORKDIR.value, **flat(json.loads(config.to_json()), "config.")}
    theirs = agree.from_first(lambda: ours)
    differ = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if not agree.all_agree(not differ):
        named = "one has others"
        if differ:
            named = f"this one has --{differ[0]}={ours.get(differ[0])!r} and the first one {theirs.get(differ[0])!r}"
        raise UserError(f"the processes of a run take the same options, but {named}; start the same command in all.")


def _run_in(workdir: Path, config: ConfigDict, place: str) -> None:
    examine(workdir, config, place)
    finished = (workdir / "report.html").exists()
    lost = [problem for problem in read_run(workdir).problems if problem.startswith("results.json")] if finished else []
    if lost:
        say(f"{lost[0]} It is written again from the records of the fine-tunings.")
    elif finished:
        say(f"The run in {place} is finished; its table is below. Choose another --workdir to run again.")
        if jax.process_index() == 0:
            print(write_report(workdir))
        return
    try:
        experiment.run(config, workdir, shlex.join(["python", "-m", "medssl_jax.main", *sys.argv[1:]]))
    except Interrupted as reason:
        say(f"Interrupted: {reason}. The same command continues.")
        sys.exit(reason.code or STOPPED_CODE.value)


if __name__ == "__main__":
    sys.exit(cli.execute(main, sys.argv))
