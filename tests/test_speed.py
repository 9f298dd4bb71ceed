"""The speed comparison: other work is refused, sides take turns, and the table says what was timed."""

from __future__ import annotations

import copy
import json
import os

import jax
import numpy as np
import pytest
import tiny

from experiments import machine, records, render, speed, speed_table
from experiments.jax_side import MODALITY, JaxSide
from experiments.machine import share_accelerator
from experiments.records import keep
from medssl_jax import methods
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
        return {"augmentation": 1.25, "forward": 9.0, "forward+backward": 2.5, "optimizer": 9.0, "full step": 9.0}

    def bytes(self):
        return 7


def test_a_missing_compiler_is_told(capsys):
    assert speed.started("compiled NCHW", Side(), Side(), 1e-3, may_fail=True) == {"compile_s": 3.8, "bytes": 7}
    failing = Side(RuntimeError("No working C++ compiler\nmore"))
    assert speed.started("compiled NCHW", failing, Side(), 1e-3, may_fail=True) is None
    assert capsys.readouterr().out == "torch.compile cannot compile here, and 'compiled NCHW' is left out: No working C++ compiler\n"
    with pytest.raises(RuntimeError):
        speed.started("NCHW", failing, Side(), 1e-3, may_fail=False)


def test_the_faster_layout_of_each_kind_is_kept():
    ms = {"NCHW": 3.0, "channels_last": 4.0, "compiled NCHW": 6.0, "compiled channels_last": 5.0}
    assert speed.fastest(ms) == {"eager": "NCHW", "compiled": "compiled channels_last"}
    assert speed.fastest({"channels_last": 4.0}) == {"eager": "channels_last"}
    assert speed.fastest({}) == {}


def moved(after, before):
    """How far all numbers went, side by side."""
    pairs = zip(*(jax.tree.leaves(jax.device_get((state.params, state.carried["teacher"]["params"]))) for state in (after, before)))
    return np.concatenate([(a - b).ravel() for a, b in pairs])


def test_a_full_step_ends_as_the_optimizer_alone():
    c = small("byol")
    c.pretrain.optimizer.update({"name": "sgd", "learning_rate": 10.0})  # Adam would blow rounding up where a gradient is nearly zero
    ours = JaxSide(c)
    alone = ours.update(jax.tree.map(lambda x: x.copy(), ours.state), ours.grads)
    whole, _ = ours.step(jax.tree.map(lambda x: x.copy(), ours.state), ours.batch)
    assert int(alone.step) == int(whole.step) == 1
    expected = moved(whole, ours.state)
    assert np.linalg.norm(moved(alone, ours.state) - expected) < 1e-3 * np.linalg.norm(expected)


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
    assert found["full step"] == {"side": "eager", "ratio": 1.75, "range": [1.5, 2.0]}
    assert found["forward"] == {"side": "compiled", "ratio": pytest.approx(0.9), "range": [0.6, 1.2]}
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
    times = "75.0 (100.0) | 427 | 125.0 (150.0) | 256 | 75.0 (90.0) | 427 | 1.05 (0.90 to 1.20)"
    assert f"| tower, unet, 64, 1, 32, float32: full step | {times} |" in page
    assert "| tower, unet, 64, 1, 32, float32 | 12,345 | 12 | 12 | 2.00 | 2.00 | 2.00 | NCHW 130.0, channels_last 125.0 |" in page
    assert "| simclr, unet, 64, 1, 32, float32: forward | 10.0 (10.0) | 3200 | - | - | - | - | - |" in page
    assert "| simclr, unet, 64, 1, 32, float32 | 12,345 | 12 | - | 2.00 | - | - | - |" in page


EVERY = {f"{budget} {case.name}": (budget, case) for budget, cases in speed.CASES.items() for case in cases}


@pytest.mark.parametrize(("budget", "case"), EVERY.values(), ids=EVERY)
def test_every_case_has_a_twin(budget, case):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if case.network != "unet":
        pytest.importorskip("torchvision", reason="torchvision is not installed")
    from experiments import torch_twin

    config, channels = case.config(), speed.CHANNELS[budget]
    assert config.method.name in speed.VIEWS
    with torch.device("meta"):
        twin = torch_twin.build(config, methods.view_recipe(config, channels, MODALITY), channels)
    image = jax.ShapeDtypeStruct((2, case.size, case.size, channels), np.uint16)
    params, _ = jax.eval_shape(methods.build(config, channels, MODALITY).init, jax.random.key(0), {"image": image})
    assert sum(value.numel() for value in twin.learned().values()) == sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize("given", [["--record=/a/b.json"], ["--record", "/a/b.json"], ["-record=/a/b.json"], []])
def test_commands_are_recorded_without_the_place_of_their_record(given):
    assert records.command("experiments.speed", ["--steps=2", *given, "--budget", "a b"]) == (
        "python -m experiments.speed --steps=2 --budget 'a b'"
    )


def test_the_load_is_not_that_of_the_measurement(monkeypatch):
    before = machine.machine()["load"]
    monkeypatch.setattr(os, "getloadavg", lambda: (before + 7.0, 0.0, 0.0))
    assert machine.machine()["load"] == before


def test_jax_leaves_memory_to_others_unless_told(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE")
    share_accelerator()
    assert speed.os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    share_accelerator()
    assert speed.os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"
