"""The mean teacher: its loss and its average against NumPy, and a whole fine-tuning with unlabelled images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_compare import comparison, dataset

from medssl_jax import experiment
from medssl_jax.data.splits import parse_amounts
from medssl_jax.downstream.compare import Cell
from medssl_jax.downstream.mean_teacher import MeanTeacher
from medssl_jax.train.loop import StopRequest

STEPS = 10


def started(task: str):
    """A mean teacher whose student has moved away from it, a batch's views, and the student's and teacher's state."""
    c = tiny.shrink(tiny.config("tower"))
    method = MeanTeacher(experiment.build_task(c, dataset(task)), STEPS, weight=2.0, decay=0.9)
    side = c.finetune.patch if task == "segmentation" else c.data.tile
    target = {"mask": np.zeros((4, side, side), np.int32)} if task == "segmentation" else {"label": np.zeros(4, np.int32)}
    images = tiny.images(8, side // 4 * 4, 1)
    batch = {"image": images[:4, :side, :side], "unlabelled": images[4:], **target}
    params, carried = method.init(jax.random.key(0), batch)
    params = jax.tree.map(lambda x: x + 0.1, params)
    return method, method.views(jax.random.split(jax.random.key(1), 4), batch), params, carried


@pytest.mark.parametrize("step", [0, 2, 7])
@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_loss_against_numpy(task, step):
    method, views, params, carried = started(task)
    loss, (_, logs) = method.loss(params, carried, views, jnp.int32(step))
    alone, _ = method.task.loss(params, {"stats": carried["stats"]}, views, jnp.int32(step))
    shown = []
    for weights, name in ((params, "student"), (carried["teacher"]["params"], "teacher")):
        logits = np.asarray(method.task.logits(weights, carried["stats"], views[name], train=True)[0], np.float64)
        shown.append(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    distance = np.mean((shown[0] - shown[1]) ** 2)
    ramp = np.exp(-5 * (1 - min(step / 5, 1)) ** 2)
    assert distance > 1e-5
    assert logs["consistency"] == pytest.approx(distance, rel=1e-3)
    assert loss == pytest.approx(float(alone) + 2 * ramp * distance, rel=1e-5)


def test_no_gradient_reaches_the_teacher():
    method, views, params, carried = started("segmentation")

    def loss(teacher):
        moved = {**carried, "teacher": {**carried["teacher"], "params": teacher}}
        return method.loss(params, moved, views, jnp.int32(7))[0]

    assert all(not np.any(g) for g in jax.tree.leaves(jax.grad(loss)(carried["teacher"]["params"])))


@pytest.mark.parametrize(("step", "stays"), [(0, 0.5), (1, 2 / 3), (100, 0.9)])
def test_the_teacher_is_an_average(step, stays):
    method, _, params, carried = started("classification")
    new = method.after_update(params, carried, jnp.int32(step))["teacher"]["params"]
    for moved, teacher, student in zip(*map(jax.tree.leaves, (new, carried["teacher"]["params"], params)), strict=True):
        np.testing.assert_allclose(moved, stays * teacher + (1 - stays) * student, rtol=1e-5, atol=1e-6)


def test_student_and_teacher_see_the_same_crop():
    _, views, _, _ = started("segmentation")
    assert views["student"].shape == views["teacher"].shape
    assert np.abs(views["student"] - views["teacher"]).max() > 0.01
    assert np.abs(views["student"] - views["teacher"]).mean() < 0.2


@pytest.mark.parametrize("norms", ["pool", "batch"])
@pytest.mark.parametrize(("task", "metric", "above"), [("segmentation", "dice", 0.8), ("classification", "balanced_accuracy", 0.9)])
def test_a_teacher_learns_what_is_easy(task, metric, above, norms, tmp_path):
    made = comparison(task, tmp_path, unlabelled=True, norms=norms)
    with StopRequest() as stop:
        (record,) = made.run([Cell("random", parse_amounts("all")[0], 0)], stop)
    assert above < record["metrics"][metric] <= 1
