"""The comparison on small data sets: every cell is recorded once, the levels to beat stand beside, tidy rows come out."""

from __future__ import annotations

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest
import tiny

from medssl_jax import experiment
from medssl_jax.data.dataset import Dataset
from medssl_jax.data.splits import choose, parse_amounts
from medssl_jax.downstream.compare import Cell, Comparison, colour, labels_of, rows
from medssl_jax.errors import UserError
from medssl_jax.train.loop import Interrupted, StopRequest
from medssl_jax.train.mesh import make_mesh

CLASSES = {"segmentation": ("background", "nucleus", "debris"), "classification": ("dark", "bright")}


def example(i: int, task: str) -> dict:
    image = tiny.images(1, 28, 1)[0] // 4
    if task == "classification":
        return {"image": image + np.uint8(120 * (i % 2)), "label": i % 2, "id": f"image {i}"}
    mask = np.zeros((28, 28), np.int32)
    mask[4:14, 4:24], mask[18:24, 4:24] = 1, 2
    return {"image": np.where(mask[..., None] > 0, 100 * mask[..., None], image).astype(np.uint8), "mask": mask, "id": f"image {i}"}


def dataset(task: str) -> Dataset:
    parts = {name: [example(i, task) for i in range(start, start + 8)] for name, start in (("pool", 0), ("val", 8), ("test", 16))}
    return Dataset("tiny", **parts, task=task, classes=CLASSES[task], channels=1, dtype=np.dtype(np.uint8), modality="brightfield")


def configured(task: str, **options):
    c = tiny.shrink(tiny.config("tower"))
    c.data.tile, c.model.width, c.model.decoder_width = 28, 6, 6
    c.finetune.update({"steps": 60, "eval_every": 30, "patch": 16 if task == "classification" else 20, **options})
    c.finetune.optimizer.learning_rate = 0.03
    return c


def comparison(task: str, folder, **options) -> Comparison:
    c, data, mesh = configured(task, **options), dataset(task), make_mesh(jax.devices()[:1])
    return Comparison(c, data, experiment.build_task(c, data), {}, mesh, folder)


@pytest.mark.parametrize(("task", "metric", "above"), [("segmentation", "dice", 0.8), ("classification", "balanced_accuracy", 0.9)])
def test_random_weights_learn_what_is_easy(task, metric, above, tmp_path):
    made = comparison(task, tmp_path)
    cells = [Cell("random", amount, 0) for amount in parse_amounts("all")]
    with StopRequest() as stop:
        records = made.run(cells, stop)
    found = rows(records, {"experiment": "x", "dataset": "tiny", "task": task}, seed=0)
    (told,) = records
    assert max(score for _, score in told["looks"]) == told["validation"]
    assert told["selected_step"] in {step for step, _ in told["looks"]}
    score = next(r["value"] for r in found if r["metric"] == metric)
    assert above < score <= 1
    assert {r["n"] for r in found} == {8}
    assert {(r["labels"], r["label_unit"], r["subset"]) for r in found} == {(1.0, "fraction", 0)}


def test_a_recorded_cell_is_not_run_again(tmp_path):
    made = comparison("segmentation", tmp_path, steps=1)
    cells = [Cell("random", amount, 0) for amount in parse_amounts("1 patch, 2 images")]
    with StopRequest() as stop:
        first = made.run(cells[:1], stop)
        (made.folder / f"{cells[0].file}.json").write_text(json.dumps(first[0] | {"validation": 7.0}))
        both = made.run(cells, stop)
    assert [r["validation"] == 7.0 for r in both] == [True, False]
    assert [(r["labels"], r["label_unit"]) for r in both] == [(1, "patch"), (2, "image")]
    assert both[0]["choice"]["side"] == 20
    assert len(both[1]["choice"]["ids"]) == 2


def test_without_validation_there_is_no_score_of_it(tmp_path):
    made = comparison("segmentation", tmp_path, steps=1)
    made.dataset = dataclasses.replace(made.dataset, val=[])
    with StopRequest() as stop:
        (record,) = made.run([Cell("random", parse_amounts("1 patch")[0], 0)], stop)
    assert record["validation"] is None
    assert record["selected_step"] == 1
    assert record["looks"] == []


def test_another_seed_of_the_data_chooses_other_labels(tmp_path):
    made, amount = comparison("segmentation", tmp_path), parse_amounts("2 images")[0]
    of_seeds = []
    for made.config.data.seed in (0, 1):
        of_seeds.append([labels_of(made.config, made.dataset, amount, repeat).ids for repeat in range(8)])
    assert of_seeds[0] == [choose(made.dataset, amount, repeat, 20).ids for repeat in range(8)]
    assert of_seeds[0] != of_seeds[1]


def test_a_stop_between_cells_says_how_many_are_done(tmp_path):
    made = comparison("segmentation", tmp_path, steps=1)
    cells = [Cell("random", amount, 0) for amount in parse_amounts("1 patch, 2 patches")]
    with StopRequest() as stop:
        made.run(cells[:1], stop)
        stop.by = signal.SIGTERM
        with pytest.raises(Interrupted, match="1 of 2 fine-tunings are done") as caught:
            made.run(cells, stop)
        assert caught.value.code == 0


def test_usual_amounts_that_a_small_set_does_not_have_are_left_out():
    for count in (3, 4):  # four images are all of four
        few = dataclasses.replace(dataset("segmentation"), pool=[example(i, "segmentation") for i in range(count)])
        assert [str(a) for a in experiment._amounts(configured("segmentation", labels="auto"), few)] == ["1 image", "all"]
    assert [str(a) for a in experiment._amounts(configured("classification", labels="auto"), dataset("classification"))] == ["all"]


@pytest.mark.parametrize(("part", "name"), [("pool", "training"), ("val", "validation"), ("test", "test")])
def test_masks_of_one_value_are_refused(part, name):
    data = dataset("segmentation")
    empty = dataclasses.replace(data, **{part: [{**example, "mask": example["mask"] * 0} for example in data.test]})
    with pytest.raises(UserError, match=rf"all \d masks of the {name} images of .* are empty"):
        experiment.check(configured("segmentation"), empty, make_mesh(jax.devices()[:1]))
    full = dataclasses.replace(
        data, classes=("background", "cell"), **{part: [{**example, "mask": example["mask"] * 0 + 1} for example in data.test]}
    )
    with pytest.raises(UserError, match=rf"all \d masks of the {name} images of .* are full"):
        experiment.check(configured("segmentation"), full, make_mesh(jax.devices()[:1]))


def test_colour_is_a_level_of_classification_alone(tmp_path):
    made = comparison("classification", tmp_path)
    cells = [Cell("random", amount, s) for amount in parse_amounts("4 images, all") for s in range(2)]
    found = [r for r in colour(made.config, made.dataset, cells) if r["metric"] == "balanced_accuracy"]
    assert [(r["labels"], r["subset"]) for r in found] == [(4, 0), (4, 1), (1.0, 0), (1.0, 1)]
    assert all(r["value"] == 1.0 for r in found)  # dark and bright
    assert colour(configured("segmentation"), dataset("segmentation"), cells) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "99 images"}, "99 images were asked for, but the training part has 8"),
        ({"labels": "some"}, "'some' is no amount of labels"),
        ({"inits": "random, byol"}, "names 'byol'; this run has random, tower, tower/encoder"),
        ({"labels": "all", "patch": 32}, r"a tile of 32 px is larger than image \d .* set --config\.finetune\.patch"),
        ({"optimizer.learning_rate": 0.5}, r"config\.finetune\.optimizer\.learning_rate=0\.5 is a rate for lars or sgd"),
        ({"optimizer.name": "adan"}, r"config\.finetune\.optimizer\.name='adan' is unknown"),
        ({"batch": 5}, r"finetune\.batch=5 cannot be divided over 4 device"),
    ],
)
def test_what_fine_tuning_would_refuse_is_said_before_pretraining(options, message):
    c = configured("segmentation")
    c.finetune.update_from_flattened_dict(options)
    with pytest.raises(UserError, match=message):
        experiment.check(c, dataset("segmentation"), make_mesh(jax.devices()[:4]))


@pytest.mark.parametrize(
    ("task", "norms", "held"),
    [("segmentation", "auto", True), ("classification", "auto", False), ("segmentation", "batch", False), ("classification", "pool", True)],
)
def test_norms_hold_the_pools_statistics_where_a_few_patches_have_none(task, norms, held, tmp_path):
    assert comparison(task, tmp_path, norms=norms).tuner.task.steady is held
