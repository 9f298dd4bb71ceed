"""Two processes of two devices each are one process of four: the same numbers, one set of files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import portpicker
import pytest
import tiny
from test_main import ENVIRONMENT, command, folder

FLAGS = ["--config.finetune.labels=1 patch", "--config.finetune.inits=random, tower", "--config.pretrain.optimizer.name=sgd"]


def start(workdir: Path, data: Path, placement: str, **environment: str) -> subprocess.Popen:
    call = command(f"--config.data.path={data}", f"--config.data.placement={placement}", *FLAGS, workdir=workdir)
    return subprocess.Popen(
        call, cwd=tiny.ROOT, env={**ENVIRONMENT, **environment}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def finish(processes: list[subprocess.Popen]) -> list[tuple[str, str]]:
    found = [process.communicate(timeout=400) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), found
    return found


def losses(workdir: Path) -> list[float]:
    return [row["loss"] for row in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()) if "loss" in row]


@pytest.mark.parametrize("placement", ["device", "host"])
def test_two_processes_are_one(placement, tmp_path):
    data = folder(tmp_path / "data")
    finish([start(tmp_path / "one", data, placement, JAX_NUM_CPU_DEVICES="4")])
    port = portpicker.pick_unused_port()
    several = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_PROCESS_COUNT": "2", "JAX_NUM_CPU_DEVICES": "2"}
    said = finish([start(tmp_path / "two", data, placement, JAX_PROCESS_INDEX=str(i), **several) for i in range(2)])
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4)
    assert len(losses(tmp_path / "two")) == 2  # steps 2 and 4, once each: one process writes
    one, two = (json.loads((tmp_path / run / "results.json").read_text()) for run in ("one", "two"))
    assert [{**a, "value": 0} for a in one] == [{**a, "value": 0} for a in two]
    np.testing.assert_allclose([a["value"] for a in two], [a["value"] for a in one], atol=0.02)  # a pixel at 0.5 may fall either way
    assert "Report" in said[0][1]
    assert not said[1][0]
