"""Whole runs beside lightly: both read the same files, what is recorded is rendered, and what cannot be timed is told."""

from __future__ import annotations

import dataclasses
import json

import pytest

from experiments import lightly, render, throughput
from experiments.throughput import Case

TINY = Case("simclr", "resnet18", 32, 2, "float32")
OURS = {"ms": 1.0, "p95_ms": 1.0, "images_per_s": 100.4, "waiting": 0.25}
THEIRS = {"images_per_s": 50.2, "waiting": 0.9, "workers": 2}


def test_cases_are_recorded_and_rendered(tmp_path, monkeypatch, capsys):
    def compare(case, steps):
        return {"case": dataclasses.asdict(case), "medssl_jax": OURS, "augmented": {**OURS, "images_per_s": 400.0}, "lightly": THEIRS}

    monkeypatch.setattr(lightly, "compare", compare)
    monkeypatch.setattr(lightly, "NEEDED", ())
    record = tmp_path / lightly.RECORD
    assert render.PARTS["lightly"](tmp_path, "small") == "Nothing is recorded yet."
    for method in ("byol", "simclr", "byol"):
        assert lightly.main(["--only", method, f"--record={record}"]) == 0
    assert list(json.loads(record.read_text())) == [f"cpu: {method}-resnet18-64-16-float32" for method in ("byol", "simclr")]
    assert "| byol, resnet18, 64, 16, float32 | 100 | 25% | 400 | 50 | 90% | 2 | 2.00 |" in capsys.readouterr().out
    assert render.PARTS["lightly"](tmp_path, "small") == lightly.table(record)


@pytest.mark.parametrize("budget", lightly.CASES)
def test_every_case_is_a_config(budget):
    for case in lightly.CASES[budget]:
        assert case.config().model.name == case.network


def test_what_cannot_be_timed_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lightly, "NEEDED", ("no_such_package",))
    assert lightly.main([f"--record={tmp_path / 'x.json'}"]) != 0
    assert "no_such_package is not installed; install it with pip install -e '.[speed]'" in capsys.readouterr().err
    assert lightly.main(["--steps=0"]) != 0
    assert "--steps=0 times nothing" in capsys.readouterr().err


@pytest.mark.parametrize("method", lightly.METHODS)
def test_lightly_learns_from_the_files(method, tmp_path, monkeypatch):
    pytest.importorskip("lightly", reason="lightly is not installed")
    from experiments import lightly_side

    monkeypatch.setattr(throughput, "FILES", 4)
    throughput.write_files(tmp_path, 40)
    case = dataclasses.replace(TINY, method=method, dtype="bfloat16")
    found = lightly_side.measured(dataclasses.asdict(case), tmp_path, steps=1, workers=0, device="cpu")
    assert found["images_per_s"] > 0
    assert 0 < found["waiting"] < 1
