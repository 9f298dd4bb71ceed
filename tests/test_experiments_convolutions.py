"""The times of single convolutions: what is timed is the gradient, and the table says what was recorded with which XLA_FLAGS."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from experiments import convolutions, render
from experiments.kernel_gradients import FORMULATIONS
from experiments.records import keep
from medssl_jax import cpu


def given(rng, side=5, inputs=3, outputs=2):
    shapes = ((2, side, side + 1, inputs), (3, 3, inputs, outputs), (2, side, side + 1, outputs))
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


@pytest.mark.parametrize("name", FORMULATIONS)
@pytest.mark.parametrize("side", [1, 2, 5])
def test_every_formulation_is_the_gradient_to_the_kernel(name, side, rng):
    x, kernel, cotangent = given(rng, side)
    expected = convolutions.jax_passes(jax.lax.conv_general_dilated, x, kernel, cotangent)[2]()
    np.testing.assert_allclose(FORMULATIONS[name](x, cotangent), expected, atol=1e-5)


def test_both_frameworks_do_the_same(rng):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    arrays = given(rng)
    ours, theirs = convolutions.jax_passes(convolutions.network.convolve, *arrays), convolutions.torch_passes(*arrays)
    forward, to_input, to_kernel = (run() for run in ours)
    out, (of_input,), (of_kernel,) = (run() for run in theirs)
    np.testing.assert_allclose(out.permute(0, 2, 3, 1).numpy(), forward, atol=1e-5)
    np.testing.assert_allclose(of_input.permute(0, 2, 3, 1).numpy(), to_input, atol=1e-5)
    np.testing.assert_allclose(of_kernel.permute(2, 3, 1, 0).numpy(), to_kernel, atol=1e-5)


@pytest.mark.parametrize("flags", ["", "--xla_cpu_enable_fast_min_max=false"])
def test_numbers_are_recorded_by_flags_and_shape(flags, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.setattr(convolutions, "SHAPES", ((5, 3, 2), (2, 3, 2)))
    monkeypatch.setattr(convolutions, "BATCH", 2)
    monkeypatch.setattr(convolutions.cpu, "settle", lambda: None)
    monkeypatch.setenv("XLA_FLAGS", flags)
    record = tmp_path / "deeper" / "convolutions.json"
    assert convolutions.main(["--steps=1", f"--record={record}"]) == 0
    rows = json.loads(record.read_text())
    assert list(rows) == [f"cpu: 5-3-2, XLA_FLAGS={flags}", f"cpu: 2-3-2, XLA_FLAGS={flags}"]
    large, small = rows.values()
    assert large["command"] == "python -m experiments.convolutions --steps=1"
    assert large["ms"].keys() == {"jax", "torch", "kernel"}
    assert small["ms"].keys() == {"jax", "torch", "lax", "kernel"}
    assert large["ms"]["kernel"].keys() == set(FORMULATIONS)
    assert all(ms > 0 for side in small["ms"].values() for ms in side.values())
    assert capsys.readouterr().out.endswith(f"{render.PARTS['convolutions'](record.parent, 'small')}\n")


def row(flags, shape, jax_ms, **more):
    passes = ("forward", "to the input", "to the kernel")
    ms = {"jax": dict(zip(passes, jax_ms)), "torch": dict.fromkeys(passes, 2.0 if flags else 7.0), "kernel": {"nine taps": 9.0}, **more}
    return {"device": "cpu", "flags": flags, "shape": shape, "ms": ms}


def test_the_table_has_what_was_without_the_flag_in_brackets(tmp_path):
    assert render.PARTS["convolutions"](tmp_path, "small") == "Nothing is recorded yet."
    lax = {"lax": {"forward": 100.0, "to the input": 50.0, "to the kernel": 10.0}}
    rows = [
        row("", (64, 16, 32), (1.0, 2.0, 7.5)),
        row(cpu.WITHOUT_YNNPACK, (64, 16, 32), (1.0, 2.0, 3.0)),
        row(cpu.WITHOUT_YNNPACK, (2, 8, 8), (1.0, 1.0, 1.0), **lax),
        row("--other", (64, 16, 32), (70.0, 70.0, 70.0)),
    ]
    for number, one in enumerate(rows):
        keep(tmp_path / "convolutions.json", str(number), one)
    page = render.PARTS["convolutions"](tmp_path, "small")
    assert "| 64 x 64, 16 to 32 | 1.0 (1.0) / 2.0 | 2.0 (2.0) / 2.0 | 3.0 (7.5) / 2.0 | 1.00 (2.00) |" in page
    assert "| 2 x 2, 8 to 8 | 1.0 (-) / 2.0 | 1.0 (-) / 2.0 | 1.0 (-) / 2.0 | 2.00 (-) |" in page
    assert "| 2 x 2, 8 to 8, as lax's convolution | 100.0 (-) / 2.0 | 50.0 (-) / 2.0 | 10.0 (-) / 2.0 | 0.04 (-) |" in page
    assert "| to the kernel, JAX ms | kept | nine taps |" in page
    assert "| 64 x 64, 16 to 32 | 3.0 (7.5) | 9.0 (9.0) |" in page
    assert "70.0" not in page


def test_no_call_at_all_is_refused(tmp_path, capsys):
    assert convolutions.main(["--steps=0", f"--record={tmp_path / 'x.json'}"]) != 0
    assert "--steps=0 times nothing" in capsys.readouterr().err
