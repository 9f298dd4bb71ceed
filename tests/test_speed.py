"""The speed comparison: PyTorch's twin does the same work, other work is refused, and the table says what was timed."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import jax
import numpy as np
import pytest
import tiny

from medssl_jax import methods
from medssl_jax.augment import crop_and_resize, dihedral, sample_boxes
from medssl_jax.augment.curves import FIXED, tone_curve
from medssl_jax.augment.intensity import blur
from medssl_jax.errors import UserError

sys.path.insert(0, str(tiny.ROOT))  # experiments/ and configs/ are not part of the installed package
from experiments import speed

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


def twin_module(name: str):
    return importlib.import_module(f"experiments.{name}")


def small(name: str):
    c = tiny.shrink(tiny.config(name))
    c.pretrain.optimizer.warmup = 0.0
    return c


@needs_torch
@pytest.mark.parametrize("name", ["tower", "simclr"])
def test_twin_has_the_same_parameters_loss_and_gradient(name):
    import torch

    c = small(name)
    ours = speed.JaxSide(c)
    torch_twin = twin_module("torch_twin")
    views = [np.asarray(ours.views[v]) for v in speed.VIEWS[name]]
    side = torch_twin.TorchSide(c, methods.view_recipe(c, 1, "brightfield"), np.asarray(ours.batch["image"]), views, "channels_last")
    torch_twin.load(side.twin, jax.device_get(ours.state.params))
    (loss, _), grads = ours.backward(*ours.inputs)
    assert side.parameters() == ours.parameters()
    assert side.loss() == pytest.approx(float(loss), rel=1e-5)
    side.runs()["forward+backward"]()
    theirs = dict(torch_twin.flat(jax.device_get(grads)))
    for parameter, value in side.twin.named_parameters():
        expected = theirs[parameter].reshape(value.shape)
        np.testing.assert_allclose(value.grad.numpy(), expected, atol=2e-3 * np.abs(expected).max() + 1e-6)
    before = [p.detach().clone() for p in side.twin.parameters()]
    side.runs()["full step"]()
    assert not any(torch.equal(a, b) for a, b in zip(before, side.twin.parameters()))


@needs_torch
def test_twins_augmentations_are_the_same_formulas(rng):
    import torch

    views = twin_module("torch_views")
    x = rng.random((6, 24, 24, 1)).astype(np.float32)
    channels_first = torch.tensor(x).permute(0, 3, 1, 2)
    boxes = np.asarray(sample_boxes(jax.random.split(jax.random.key(0), 6), 24, 24, (0.3, 1.0), (0.75, 1.33)))
    pose, decreasing = np.arange(6, dtype=np.int32) + 1, np.arange(6) % 2 == 0
    inner, sigma = FIXED[np.arange(6) % 3], np.linspace(0.1, 1.5, 6, dtype=np.float32)
    pairs = [
        (crop_and_resize(x, boxes, 16), views.crop_and_resize(channels_first, torch.tensor(boxes), 16), 1e-5),
        (dihedral(x, pose), views.dihedral(channels_first, torch.tensor(pose)), 0),
        (blur(x, sigma), views.blur(channels_first, torch.tensor(sigma)[:, None, None, None]), 1e-5),
        (tone_curve(x, inner, decreasing), views.tone_curve(channels_first, torch.tensor(inner), torch.tensor(decreasing)), 2e-3),
    ]
    for ours, theirs, tolerance in pairs:
        np.testing.assert_allclose(theirs.permute(0, 2, 3, 1).numpy(), ours, atol=tolerance)
    kept = views.block_mask(torch.ones(3, 1, 16, 16), 0.5, 4)
    assert kept.mean((1, 2, 3)).tolist() == [0.5] * 3


@needs_torch
def test_configs_without_a_twin_are_named():
    check = twin_module("torch_twin").check
    with pytest.raises(UserError, match="no 'byol'"):
        check(tiny.config("byol"))
    c = tiny.config("tower")
    c.model.dtype = "bfloat16"
    with pytest.raises(UserError, match="no 'bfloat16'"):
        check(c)


def test_other_work_is_refused():
    speed.same_work(10, 10, 1.0, 1.0001)
    with pytest.raises(UserError, match="11 parameters and the JAX network 10"):
        speed.same_work(10, 11, 1.0, 1.0)
    with pytest.raises(UserError, match=r"loss is 1\.0100"):
        speed.same_work(10, 10, 1.0, 1.01)


def test_without_torch_jax_is_timed_alone(monkeypatch, capsys):
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: None)
    found = speed.measure(small("simclr"), steps=2, rounds=1)
    assert capsys.readouterr().out.count("PyTorch is not installed") == 1
    assert [r["stage"] for r in found["rows"]] == list(speed.STAGES)
    assert all(r["jax_ms"] > 0 and "ratio" not in r for r in found["rows"])
    assert set(found["compile_s"]) == set(speed.STAGES)


def test_sides_take_turns():
    calls = []
    runs = {name: {stage: lambda n=name, s=stage: calls.append((s, n)) for stage in speed.STAGES} for name in ("a", "b")}
    ms = speed.take_turns(runs, steps=2, rounds=3)
    assert ms["b"]["forward"].shape == (3, 2)
    each = speed.WARM_UP + 2
    one_round = [(stage, name) for stage in speed.STAGES for name in ("a", "b") for _ in range(each)]
    assert calls == one_round * 3


def test_row_and_table_against_numbers():
    c = tiny.config("tower")
    c.pretrain.batch = 32
    ours, theirs = np.array([[100.0, 100.0], [50.0, 50.0]]), np.array([[150.0, 150.0], [100.0, 100.0]])
    row = speed.row(c, "forward", ours, theirs)
    assert (row["jax_ms"], row["torch_ms"], row["ratio"], row["ratio_range"]) == (75.0, 125.0, 1.67, [1.5, 2.0])
    assert (row["jax_p95_ms"], row["jax_images_per_s"]) == (100.0, round(32 / 0.075))
    lines = speed.table([row, speed.row(c, "forward", ours, None)]).splitlines()
    assert lines[2] == "| tower | forward | 75.0 (100.0) | 427 | 125.0 (150.0) | 256 | 1.67 (1.50 to 2.00) |"
    assert lines[3] == "| tower | forward | 75.0 (100.0) | 427 | - | - | - |"
