"""Whole runs beside lightly: both read the same files in turns, what is recorded is rendered, and what cannot be timed is told."""

from __future__ import annotations

import dataclasses
import json

import pytest

from experiments import lightly, render, throughput
from experiments.throughput import Case
from medssl_jax.machine import cores

TINY = Case("simclr", "resnet18", 32, 2, "float32")
FOUND = {
    "augmented": {"images_per_s": [400.0, 410.0], "waiting": [0.0, 0.0]},
    "files": {"images_per_s": [100.4, 102.4], "waiting": [0.25, 0.25]},
    "lightly": {"images_per_s": [50.2, 51.2], "waiting": [0.9, 0.9]},
}


def test_cases_are_recorded_and_rendered(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(lightly, "compare", lambda *said: asked.append(said[1:]) or FOUND)
    monkeypatch.setattr(lightly, "NEEDED", ())
    record = tmp_path / lightly.RECORD
    assert render.PARTS["lightly"](tmp_path, "small") == "Nothing is recorded yet."
    for method in ("byol", "simclr", "byol"):
        assert lightly.main(["--only", method, f"--steps={cores()}", "--rounds=2", f"--record={record}"]) == 0
    assert asked == [("small", cores(), 2)] * 3
    assert list(json.loads(record.read_text())) == [f"cpu: {method}-resnet18-64-16-float32" for method in ("byol", "simclr")]
    line = f"101 (100 to 102) | 25% | 405 (400 to 410) | 51 (50 to 51) | 90% | {cores()} | 2.00 (2.00 to 2.00) |"
    assert f"| byol, resnet18, 64, 16, float32 | {line}" in capsys.readouterr().out
    assert render.PARTS["lightly"](tmp_path, "small") == lightly.table(record)


def test_both_take_turns_on_the_same_files(tmp_path, monkeypatch):
    turns = []

    class Pool:
        """One that computes at once, in this process."""

        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, function, *arguments):
            found = function(*arguments)
            return type("Future", (), {"result": lambda self: found})()

    class Bench:
        def __init__(self, config, folder):
            self.config = config

        def turn(self, side, steps):
            turns.append((side, steps))
            return {"images_per_s": float(len(turns)), "waiting": 0.0}

    def theirs(case, folder, steps, device):
        turns.append((len(list(folder.glob("*.png"))), steps))
        return {"images_per_s": float(len(turns)), "waiting": 0.0}

    monkeypatch.setattr(throughput, "FILES", 2)
    for name, stand_in in {"ProcessPoolExecutor": Pool, "Bench": Bench, "_lightly": theirs}.items():
        monkeypatch.setattr(lightly, name, stand_in)
    found = lightly.compare(TINY, "small", 4, 2)
    assert turns == [("augmented", 4), ("files", 4), (2, 4)] * 2
    assert {side: paces["images_per_s"] for side, paces in found.items()} == {"augmented": [1, 4], "files": [2, 5], "lightly": [3, 6]}


@pytest.mark.parametrize("budget", lightly.CASES)
def test_every_case_is_a_config(budget):
    for case in lightly.CASES[budget]:
        assert case.config(throughput.SIZES[budget]).model.name == case.network


def test_what_cannot_be_timed_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lightly, "NEEDED", ("no_such_package",))
    assert lightly.main([f"--record={tmp_path / 'x.json'}"]) != 0
    assert "no_such_package is not installed; install it with pip install -e '.[speed]'" in capsys.readouterr().err
    for option in ("--steps=0", "--rounds=0"):
        assert lightly.main([option]) != 0
        assert f"{option} times nothing" in capsys.readouterr().err


@pytest.mark.parametrize(("method", "dtype"), [("simclr", "bfloat16"), ("byol", "float32")])
def test_lightly_learns_from_the_files(method, dtype, tmp_path, monkeypatch):
    pytest.importorskip("lightly", reason="lightly is not installed")
    from experiments import lightly_side

    monkeypatch.setattr(throughput, "FILES", 4)
    files = throughput.stored(tmp_path, 40)
    case = dataclasses.replace(TINY, method=method, dtype=dtype)
    found = lightly_side.measured(dataclasses.asdict(case), files, steps=1, workers=0, device="cpu")
    assert found["images_per_s"] > 0
    assert 0 < found["waiting"] < 1
