"""The speed comparison: other work is refused, sides take turns, and the table says what was timed."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import tiny

from experiments import render, speed, speed_table
from experiments.machine import share_accelerator
from experiments.records import keep
from medssl_jax.errors import UserError


def small(name):
    c = tiny.shrink(tiny.config(name))
    c.pretrain.optimizer.warmup = 0.0
    return c


def milliseconds(*rounds):
    return {stage: np.array([[ms, ms] for ms in rounds]) for stage in speed.STAGES}


def row(**sides):
    """A record whose sides take that many milliseconds in each of two rounds."""
    ms = {side: milliseconds(*rounds) for side, rounds in sides.items()}
    told = {side: {"compile_s": 12.4, "bytes": 2**31, "stages": speed.summary(stages, 32)} for side, stages in ms.items()}
    ratios = speed.ratios(ms["jax"], {side: stages for side, stages in ms.items() if side != "jax"})
    layouts = {"NCHW": 130.0, "channels_last": 125.0} if "eager" in sides else {}
    case = {"method": "tower", "network": "unet", "size": 64, "channels": 1, "batch": 32, "dtype": "float32"}
    return {"case": case, "parameters": 12345, "sides": told, "layout_ms": layouts, "ratios": ratios, "device": "cpu"}


def test_other_work_is_refused():
    speed.same_work(10, 10, 1.0, 1.0001, 1e-3)
    with pytest.raises(UserError, match="11 parameters and the JAX network 10"):
        speed.same_work(10, 11, 1.0, 1.0, 1e-3)
    for loss in (1.01, float("nan")):
        with pytest.raises(UserError, match="loss is"):
            speed.same_work(10, 10, 1.0, loss, 1e-3)
    speed.same_work(10, 10, 1.0, 1.004, speed.SAME_LOSS[speed.precision("float32", "cuda")])


def test_without_torch_jax_is_timed_alone(monkeypatch, capsys):
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: None)
    found = speed.measure(small("simclr"), channels=2, steps=2, rounds=1)
    assert capsys.readouterr().out.count("PyTorch is not installed") == 1
    assert found["sides"].keys() == {"jax"}
    assert found["ratios"] == found["layout_ms"] == {}
    assert found["case"] == {"method": "simclr", "network": "unet", "size": 20, "channels": 2, "batch": 8, "dtype": "float32"}
    ours = found["sides"]["jax"]
    assert list(ours["stages"]) == list(speed.STAGES)
    assert all(stage["p95_ms"] >= stage["ms"] > 0 for stage in ours["stages"].values())
    assert ours["bytes"] > 1e4


def test_beside_torch_both_layouts_are_timed(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from experiments import torch_side

    monkeypatch.setattr(torch_side, "LAYOUTS", torch_side.EAGER)
    found = speed.measure(small("byol"), channels=1, steps=1, rounds=1)
    assert found["sides"].keys() == {"jax", "eager"}
    assert found["layout_ms"].keys() == {"NCHW", "channels_last"}
    assert all(stage["side"] == "eager" and stage["ratio"] > 0 for stage in found["ratios"].values())
    assert found["sides"]["eager"]["bytes"] is None


class Side:
    """Of PyTorch or JAX, with a loss of 1.0; what is compiled ends in an error."""

    def __init__(self, error=None):
        self.error = error

    def parameters(self):
        return 10

    def loss(self):
        return 1.0

    def first_calls(self):
        if self.error:
            raise self.error
        return {"augmentation": 1.25, "forward": 9.0, "forward+backward": 2.5, "full step": 9.0}

    def bytes(self):
        return 7


def test_a_missing_compiler_is_told(capsys):
    assert speed.started("compiled", Side(), Side(), 1e-3) == {"compile_s": 3.8, "bytes": 7}
    failing = Side(RuntimeError("No working C++ compiler\nmore"))
    assert speed.started("compiled", failing, Side(), 1e-3) is None
    assert capsys.readouterr().out == "torch.compile cannot compile here and is left out: No working C++ compiler\n"
    with pytest.raises(RuntimeError):
        speed.started("NCHW", failing, Side(), 1e-3)


def test_sides_take_turns():
    calls = []
    runs = {name: {stage: lambda n=name, s=stage: calls.append((s, n)) for stage in speed.STAGES} for name in ("a", "b")}
    ms = speed.take_turns(runs, steps=2, rounds=3)
    assert ms["b"]["forward"].shape == (3, 2)
    each = speed.WARM_UP + 2
    one_round = [(stage, name) for stage in speed.STAGES for name in ("a", "b") for _ in range(each)]
    assert calls == one_round * 3


def test_the_ratio_is_to_the_faster_side():
    ours, eager, compiled = milliseconds(100.0, 50.0), milliseconds(150.0, 100.0), milliseconds(160.0, 120.0)
    compiled["forward"] = np.array([[60.0, 60.0], [60.0, 60.0]])
    found = speed.ratios(ours, {"eager": eager, "compiled": compiled})
    assert found["full step"] == {"side": "eager", "ratio": pytest.approx(125 / 75), "range": [1.5, 2.0]}
    assert found["forward"] == {"side": "compiled", "ratio": 0.8, "range": [0.6, 1.2]}
    assert speed.summary(ours, 32)["forward"] == {"ms": 75.0, "p95_ms": 100.0, "images_per_s": pytest.approx(32 / 0.075)}


def test_records_are_kept_by_device_and_case_and_rendered(tmp_path):
    record = tmp_path / speed_table.RECORD
    assert render.PARTS["speed"](tmp_path, "small") == "Nothing is recorded yet."
    both = row(jax=(100.0, 50.0), eager=(150.0, 100.0), compiled=(90.0, 60.0))
    alone = copy.deepcopy(row(jax=(10.0, 10.0)))
    alone["case"]["method"], alone["device"] = "simclr", "NVIDIA H200"
    for one in (row(jax=(1.0, 1.0)), alone, both):
        keep(record, f"{one['device']}: {one['case']['method']}", one)
    assert list(json.loads(record.read_text())) == ["cpu: tower", "NVIDIA H200: simclr"]
    page = render.PARTS["speed"](tmp_path, "small")
    assert page.index("**cpu**") < page.index("**NVIDIA H200**")
    times = "75.0 (100.0) | 427 | 125.0 (150.0) | 256 | 75.0 (90.0) | 427 | 1.00 (0.90 to 1.20)"
    assert f"| tower, unet, 64, 1, 32, float32: full step | {times} |" in page
    assert "| tower, unet, 64, 1, 32, float32 | 12,345 | 12 | 12 | 2.00 | 2.00 | 2.00 | NCHW 130.0, channels_last 125.0 |" in page
    assert "| simclr, unet, 64, 1, 32, float32: forward | 10.0 (10.0) | 3200 | - | - | - | - | - |" in page
    assert "| simclr, unet, 64, 1, 32, float32 | 12,345 | 12 | - | 2.00 | - | - | - |" in page


@pytest.mark.parametrize("budget", speed.CASES)
def test_every_case_is_a_config_that_the_twin_has(budget):
    for case in speed.CASES[budget]:
        config = case.config()
        assert config.method.name in speed.VIEWS
        assert config.pretrain.optimizer.name == "adamw"
        assert config.model.width == (16 if case.network == "unet" else 64)


def test_jax_leaves_memory_to_others_unless_told(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE")
    share_accelerator()
    assert speed.os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    share_accelerator()
    assert speed.os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"
