"""Two processes of two devices each are one process of four: the same numbers, one set of files."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import portpicker
import pytest
import shell
import tiny
from shell import sentence, wait_for

from medssl_jax.train import checkpoint, mesh

FLAGS = [
    "--config.pretrain.optimizer.name=sgd",  # Adam would blow rounding up where a gradient is nearly zero
    "--config.finetune.optimizer.name=sgd",
    "--config.finetune.optimizer.learning_rate=0.1",
    "--config.finetune.steps=20",  # enough for an answer that is neither empty nor full
    "--config.finetune.eval_every=20",
    "--config.finetune.labels=1 patch",
    "--config.finetune.inits=tower",
]
Said = list[subprocess.CompletedProcess]


def run(workdir: Path, *flags: str, processes: int) -> Said:
    """The command in that many processes, of four devices together."""
    return shell.ended(*start(workdir, *flags, processes=processes))


def start(workdir: Path, *flags: str, processes: int) -> list[subprocess.Popen]:
    environment = {"JAX_NUM_CPU_DEVICES": str(4 // processes)}
    if processes > 1:
        address = f"localhost:{portpicker.pick_unused_port()}"
        environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_PROCESS_COUNT": str(processes)}
    call = shell.main(f"--config.data.path={workdir.parent / 'data'}", *FLAGS, *flags, workdir=workdir)
    return [shell.start(*call, **environment, JAX_PROCESS_INDEX=str(i)) for i in range(processes)]


def finished(said: Said) -> Said:
    return [shell.finished(process) for process in said]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The images, and the run of one process."""
    home = tmp_path_factory.mktemp("processes")
    tiny.folder(home / "data")
    finished(run(home / "one", processes=1))
    return home


@pytest.fixture(scope="module")
def two(home) -> Said:
    """The same run in two processes. They read the pretraining's images themselves; fine-tuning has them on the devices either way."""
    return finished(run(home / "two", "--config.data.placement=host", processes=2))


def losses(workdir: Path) -> dict[int, float]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_two_processes_are_one(home, two):
    assert losses(home / "two").keys() == losses(home / "one").keys() == {2, 4}
    np.testing.assert_allclose(list(losses(home / "two").values()), list(losses(home / "one").values()), rtol=1e-5)
    place = mesh.replicated(mesh.make_mesh(jax.devices()[:1]))
    ours, theirs = (jax.tree.leaves(checkpoint.load_tree(home / name / "pretrained", place)) for name in ("two", "one"))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_fine_tuning_ends_at_the_same_scores(home, two):
    one, both = (json.loads((home / name / "results.json").read_text()) for name in ("one", "two"))
    assert [{**row, "value": 0} for row in one] == [{**row, "value": 0} for row in both]
    np.testing.assert_allclose([row["value"] for row in both], [row["value"] for row in one], atol=0.01)  # a pixel at 0.5 may fall
    dice = [row["value"] for row in both if row["init"] == "tower" and row["metric"] == "dice"]
    assert len(dice) == 1
    assert dice[0] > 0.5


def test_one_process_writes_and_speaks(home, two):
    assert "Report: " in two[0].stderr
    assert "TOWER" in two[0].stdout
    assert "Report: " not in two[1].stderr
    assert "TOWER" not in two[1].stdout
    assert len(list((home / "two" / "tensorboard").iterdir())) == 1
    assert len((home / "two" / "metrics.jsonl").read_text().splitlines()) == len((home / "one" / "metrics.jsonl").read_text().splitlines())
    assert {path.name for path in (home / "two").iterdir()} == {path.name for path in (home / "one").iterdir()}


def test_sigterm_to_one_of_two_stops_both_and_the_same_command_continues(home):
    flags = ("--config.pretrain.steps=2000", "--config.pretrain.checkpoint_every=1000", "--config.pretrain.eval_every=2000")
    started = start(home / "cut", *flags, processes=2)
    wait_for(home / "cut" / "metrics.jsonl", lines=2, process=started[0])
    started[1].send_signal(signal.SIGTERM)
    for process in finished(shell.ended(*started)):
        assert "Traceback" not in process.stderr
    (step,) = (int(path.name) for path in (home / "cut" / "checkpoints").iterdir() if path.name.isdigit())
    assert 0 < step < 2000
    started = start(home / "cut", *flags, processes=2)
    wait_for(home / "cut" / "metrics.jsonl", lines=len((home / "cut" / "metrics.jsonl").read_text().splitlines()) + 1, process=started[0])
    started[0].send_signal(signal.SIGTERM)
    assert f"Continuing the pretraining at step {step} of 2000" in finished(shell.ended(*started))[0].stderr


def test_both_refuse_the_workdir_of_another_config(home, two):
    for process in run(home / "two", "--config.seed=5", processes=2):
        assert "config.seed is 0 there and 5 here" in sentence(process)
