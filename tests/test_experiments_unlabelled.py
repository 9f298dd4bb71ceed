"""The experiment without labels: which runs it asks for, and the table of its records."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from experiments import dense, unlabelled


@pytest.mark.parametrize("dataset", unlabelled.SETS)
@pytest.mark.parametrize("arm", unlabelled.ARMS)
def test_configs_are_valid_and_differ_by_their_arm(dataset, arm):
    ours, guided = (unlabelled.resolved(dataset, name, 2, Path("/data")) for name in (arm, "guided"))
    assert ours.seed == 2
    assert ours.data.path == f"/data/{dataset}"
    assert (ours.method.to_dict() != guided.method.to_dict()) == (arm != "guided")


@pytest.fixture
def records(tmp_path):
    """Two seeds of one arm, one of another."""
    folder = tmp_path / unlabelled.FOLDER
    folder.mkdir()
    for arm, seed, dice in (("guided", 0, 0.7), ("guided", 1, 0.8), ("no fit", 0, 0.2)):
        scores = {"shape_guided/cluster": dice, "otsu": 0.4, "random": 0.9}
        told = {"dataset": "chase_db1", "arm": arm, "seed": seed, "dice": scores}
        (folder / f"chase_db1-{arm.replace(' ', '_')}-{seed}.json").write_text(json.dumps(told))
    return tmp_path


def test_the_table(records):
    lines = unlabelled.table(records).splitlines()
    assert "| chase_db1 | guided | the guided cluster | 0.750 ± 0.071 (2) |" in lines
    assert "| chase_db1 | no fit | the guided cluster | 0.200 (1) |" in lines
    assert any("the same network taught with all labels | 0.900 ± 0.000 (3)" in line for line in lines)
    assert unlabelled.table(records / "none") == "Nothing is recorded yet."


def test_what_has_a_record_is_not_run_again(records, capsys):
    """No data set is at hand here: anything that ran would be refused."""
    flags = ["--data=/nowhere", f"--records={records}", f"--workdir={records / 'runs'}", "--only", "chase_db1"]
    assert unlabelled.main([*flags, "guided", "--seeds=2"]) == 0
    assert "0.750" in capsys.readouterr().out
    assert unlabelled.main([*flags, "linear discriminator", "--seeds=1"]) != 0
    assert "/nowhere/chase_db1" in capsys.readouterr().err


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")
def test_both_frameworks_compute_the_same_dense_loss(capsys):
    assert dense.main(["--side=16", "--rounds=1"]) == 0
    assert "| PyTorch |" in capsys.readouterr().out
