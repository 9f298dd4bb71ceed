"""A run on eight devices, with the parameters on each of them or divided over them, is the run on one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shell
import tiny

FLAGS = [
    "--config.data.task=none",
    "--config.pretrain.optimizer.name=sgd",  # Adam would blow rounding up where a gradient is nearly zero
    "--config.pretrain.steps=6",
    "--config.pretrain.batch=8",
    "--config.pretrain.log_every=1",
    "--config.model.width=32",  # kernels large enough to be divided
]
KINDS = {"one": (1, ""), "eight": (8, ""), "divided": (8, "--config.pretrain.fsdp=True")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("devices")
    data = f"--config.data.path={tiny.folder(home / 'data')}"
    started = [
        shell.start(*shell.main(data, *FLAGS, *filter(None, [flag]), workdir=home / name), JAX_NUM_CPU_DEVICES=str(devices))
        for name, (devices, flag) in KINDS.items()
    ]
    for process in shell.ended(*started):
        shell.finished(process)
    return {name: home / name for name in KINDS}


def losses(run: Path) -> list[float]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


def kept_places(run: Path) -> str:
    """What the last checkpoint tells of where its parameters were."""
    return (run / "checkpoints" / "6" / "params" / "_sharding").read_text()


@pytest.mark.parametrize("name", ["eight", "divided"])
def test_the_loss_curve_is_that_of_one_device(runs, name):
    assert len(losses(runs["one"])) == 6
    np.testing.assert_allclose(losses(runs[name]), losses(runs["one"]), rtol=1e-4)


def test_large_parameters_are_divided_where_that_is_asked_for(runs):
    divided, whole = (kept_places(runs[name]).count("data") for name in ("divided", "eight"))
    assert divided > whole
