"""Two processes of two devices each are one process of four: the same numbers, one set of files."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import portpicker
import pytest
import shell
import tiny
from shell import sentence, wait_for

from medssl_jax.mirror import Mirror
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
BY_HOST = "--config.data.placement=host"
STEPS, EVERY = 40, 8
LONGER = ["--config.data.task=none", f"--config.pretrain.steps={STEPS}", f"--config.pretrain.checkpoint_every={EVERY}", "--silence=10"]
Said = list[subprocess.CompletedProcess]


def run(workdir: Path, *flags: str, processes: int) -> Said:
    """The command in that many processes, of four devices together."""
    return shell.ended(*start(workdir, *flags, processes=processes))


def start(
    workdir: Path,
    *flags: str,
    processes: int,
    config: str = "tower",
    url: str = "",
    own: Sequence[dict[str, str]] = ({}, {}),
    last: str = "",
) -> list[subprocess.Popen]:
    environment = {"JAX_NUM_CPU_DEVICES": str(4 // processes)}
    if processes > 1:
        address = f"localhost:{portpicker.pick_unused_port()}"
        environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_PROCESS_COUNT": str(processes)}
    call = shell.main(f"--config.data.path={workdir.parent / 'data'}", *FLAGS, *flags, config=config, workdir=url or workdir)
    calls = [*[call] * (processes - 1), [*call, last] if last else call]
    return [shell.start(*call, **environment, **own[i], JAX_PROCESS_INDEX=str(i)) for i, call in enumerate(calls)]


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
    return finished(run(home / "two", BY_HOST, processes=2))


def losses(workdir: Path) -> dict[int, float]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def weights(workdir: Path) -> list[np.ndarray]:
    place = mesh.replicated(mesh.make_mesh(jax.devices()[:1]))
    return [np.asarray(x) for x in jax.tree.leaves(checkpoint.load_tree(workdir / "pretrained", place))]


def checkpoints(workdir: Path) -> list[int]:
    return [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]


def test_two_processes_are_one(home, two):
    assert losses(home / "two").keys() == losses(home / "one").keys() == {2, 4}
    np.testing.assert_allclose(list(losses(home / "two").values()), list(losses(home / "one").values()), rtol=1e-5)
    ours, theirs = (weights(home / name) for name in ("two", "one"))
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


DETECTOR = [
    "--config.figures.size=64",
    "--config.figures.validation=4",
    "--config.figures.style.side=(80, 120)",
    "--config.model.width=4",
    "--config.model.blocks=1",
    "--config.pretrain.optimizer.learning_rate=0.01",
]


def test_the_detector_of_two_processes_is_that_of_one(home):
    started = {count: start(home / f"detector{count}", *DETECTOR, processes=count, config="simcfs") for count in (1, 2)}
    for processes in started.values():
        finished(shell.ended(*processes))
    one, two = (home / f"detector{count}" for count in started)
    assert losses(one).keys() == losses(two).keys() == {2, 4}
    np.testing.assert_allclose(list(losses(two).values()), list(losses(one).values()), rtol=1e-4)
    for a, b in zip(weights(two), weights(one), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}


@pytest.fixture(scope="module")
def whole(home) -> Path:
    """A pretraining of two processes that nothing disturbs."""
    finished(run(home / "whole", *LONGER, processes=2))
    return home / "whole"


def test_one_of_two_is_stopped_then_killed_and_the_same_command_ends_with_the_same_bits(home, whole):
    path = home / "cut"
    survivor, victim = start(path, *LONGER, processes=2)
    wait_for(path / "metrics.jsonl", lines=2, process=survivor)
    victim.send_signal(signal.SIGTERM)
    for process in finished(shell.ended(survivor, victim)):
        assert "Traceback" not in process.stderr
    step = max(checkpoints(path))
    assert 0 < step < STEPS

    survivor, victim = start(path, *LONGER, processes=2)
    wait_for(path / "metrics.jsonl", lines=len(losses(path)) + EVERY, process=survivor)
    victim.kill()
    cut_off, _ = shell.ended(survivor, victim)
    assert f"Continuing the pretraining at step {step} of {STEPS}" in cut_off.stderr
    assert cut_off.returncode != 0
    assert cut_off.stderr.splitlines()[-1].startswith("error: this process cannot go on, most likely because another process")
    assert step <= max(checkpoints(path)) < STEPS  # the next one may not have been written whole

    finished(run(path, *LONGER, processes=2))
    assert losses(path)[STEPS] == losses(whole)[STEPS]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(weights(path), weights(whole), strict=True))


def apart(workdir: Path, *flags: str, machines: str) -> list[subprocess.Popen]:
    """Two processes of a run at a URL, on two machines of that name: what one keeps for itself is nowhere that the other would see it."""
    own = [{"XDG_CACHE_HOME": str(workdir.parent / f"{machines}{i}")} for i in range(2)]
    return start(workdir, *flags, processes=2, url=f"file://{workdir}", own=own)


def test_two_machines_without_a_common_folder(home, two):
    """Fine-tuning and its report, too."""
    said = finished(shell.ended(*apart(home / "bucket", BY_HOST, machines="first")))
    assert "TOWER" in said[0].stdout
    ours, theirs = (json.loads((home / name / "results.json").read_text()) for name in ("bucket", "two"))
    assert ours == theirs


def test_two_other_machines_go_on_from_a_url(home, whole, monkeypatch):
    bucket = home / "cut_bucket"
    first = apart(bucket, *LONGER, machines="second")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "second0"))
    wait_for(Mirror(f"file://{bucket}").here / "metrics.jsonl", lines=EVERY, process=first[0])
    first[1].send_signal(signal.SIGTERM)
    finished(shell.ended(*first))
    step = max(checkpoints(bucket))
    assert 0 < step < STEPS
    second = finished(shell.ended(*apart(bucket, *LONGER, machines="third")))
    assert f"Continuing the pretraining at step {step} of {STEPS}" in second[0].stderr
    assert all(a.tobytes() == b.tobytes() for a, b in zip(weights(bucket), weights(whole), strict=True))


def test_parameters_that_are_divided_over_processes_are_saved_whole(home):
    """Continued from the checkpoint in its middle, a pretraining ends with the same bits."""
    wide = ["--config.pretrain.fsdp=True", "--config.model.width=24", "--config.data.task=none", "--config.pretrain.keep=3"]
    path = home / "divided"
    finished(run(path, *wide, processes=2))
    before = weights(path)
    assert max(x.size for x in before) >= mesh.FSDP_MIN_SIZE
    for left in ("pretrained", "checkpoints/4"):
        shutil.rmtree(path / left)
    for left in ("pretrained.json", "report.html", "results.json"):
        (path / left).unlink(missing_ok=True)
    assert "Continuing the pretraining at step 2 of 4" in finished(run(path, *wide, processes=2))[0].stderr
    assert all(a.tobytes() == b.tobytes() for a, b in zip(weights(path), before, strict=True))


@pytest.mark.parametrize("last", ["--config.pretrain.steps=5", "--workdir=elsewhere"])
def test_both_refuse_where_one_has_other_options(home, last):
    first, second = shell.ended(*start(home / "unlike", processes=2, last=last))
    name, value = last.split("=")
    assert "the processes of a run take the same options, but one has others" in sentence(first)
    assert f"this one has {name}=" in sentence(second)
    assert value in sentence(second)
    assert not (home / "unlike").exists()


def test_both_refuse_the_workdir_of_another_config(home, two):
    for process in run(home / "two", "--config.seed=5", processes=2):
        assert "config.seed is 0 there and 5 here" in sentence(process)
