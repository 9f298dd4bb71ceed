"""Pairs a second: every case is a config that can be built, inputs agree, the step on given views is the step, and records are rendered."""

from __future__ import annotations

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
import tiny

from experiments import render, throughput, throughput_table
from experiments.throughput import CASES, READ, VARIANTS, Bench, Case, Given
from medssl_jax import methods
from medssl_jax.machine import cores
from medssl_jax.train import mesh as meshes
from medssl_jax.train import optimizer
from medssl_jax.train.state import init_state
from medssl_jax.train.step import example_keys, make_step

TINY = Case("simclr", "unet", 16, 2, "float32")
CELLS = {"images_per_s": [20.0, 19.0, 23.0], "waiting": [0.25, 0.2, 0.9]}


@pytest.fixture(autouse=True)
def few_files(monkeypatch):
    monkeypatch.setattr(throughput, "FILES", 3)


def small(case=TINY):
    """Its config with a network that compiles in seconds, and the case's batch."""
    config = tiny.shrink(case.config())
    config.pretrain.batch = case.batch
    return config


@pytest.mark.parametrize("budget", CASES)
def test_every_case_is_a_config_with_a_name_of_its_own(budget):
    assert len({case.name for case in CASES[budget]}) == len(CASES[budget])
    assert {case.method for case in CASES[budget]} == set(tiny.METHODS)
    for case in CASES[budget]:
        config = case.config(throughput.SIZES[budget])
        assert (config.model.name, config.views.size, config.pretrain.batch) == (case.network, case.size, case.batch)
        methods.build(config, throughput.CHANNELS, throughput.MODALITY)


@pytest.mark.parametrize(("method", "projection", "rule"), [("byol", (4096, 256), "lars_byol"), ("tower", (2048, 128), "adamw")])
def test_an_accelerator_runs_the_recipes_of_the_papers(method, projection, rule):
    case = next(case for case in CASES["full"] if (case.method, case.network) == (method, "resnet50"))
    config = case.config(throughput.SIZES["full"])
    rules = config.pretrain.optimizer
    assert (config.model.projection, rules.name, rules.clip) == (projection, rule, 0.0)
    assert (config.data.tile, config.views.size) == (256, 224)


def test_the_step_on_given_views_is_the_step():
    config = tiny.shrink(TINY.config())
    mesh = meshes.make_mesh(jax.devices()[:1])
    method, update = methods.build(config, 3, "fluorescence"), optimizer.build(config.pretrain.optimizer, 10)
    side, count = config.data.tile, config.pretrain.batch
    batch = {"image": np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8), "slot": np.arange(count, dtype=np.int32)}
    batch = meshes.to_devices(mesh, batch)
    states = [jax.jit(lambda: init_state(method, update, jax.random.key(0), batch), out_shardings=meshes.replicated(mesh))() for _ in "ab"]
    places = jax.tree.map(lambda x: x.sharding, states[0])
    views = method.views(example_keys(states[0].key, states[0].step, batch["slot"]), batch)
    whole, _ = make_step(method, update, mesh, places)(states[0], batch)
    given, _ = make_step(Given(method), update, mesh, places)(states[1], {"views": views, "slot": batch["slot"]})
    for ours, theirs in zip(*(jax.tree.leaves(state.params) for state in (whole, given)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_every_input_gives_the_same_batches_and_every_variant_learns(tmp_path):
    config = small(dataclasses.replace(TINY, method="shape_guided", batch=4))
    config.method.shapes = "lungs"  # which take less to draw
    bench = Bench(config, tmp_path)
    read = [itertools.islice(bench.batches(variant), 3) for variant in READ]
    for first, *others in zip(*read, strict=True):
        assert first["image"].shape == (4, 28, 28, 3)
        assert first["shape"].shape == (4, 28, 28, 1)
        for other in others:
            assert jax.tree.all(jax.tree.map(np.array_equal, first, other))
    for variant in VARIANTS:
        before = int(bench.state.step)
        bench.turn(variant, 1)
        assert int(bench.state.step) == before + bench.warm_up + 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(bench.state.params))


def test_cases_are_timed_by_turns_recorded_and_rendered(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(CASES, "small", (TINY, dataclasses.replace(TINY, method="spark")))
    record = tmp_path / "records" / throughput_table.RECORD
    assert render.PARTS["throughput"](record.parent, "small") == "Nothing is recorded yet."
    for method in ("spark", "simclr"):
        assert throughput.main(["--steps=1", "--rounds=2", "--only", method, f"--record={record}"]) == 0
    rows = list(json.loads(record.read_text()).values())
    assert [row["case"]["method"] for row in rows] == ["spark", "simclr"]
    for row in rows:
        assert (row["steps"], row["rounds"], row["readers"], row["config"]) == (cores(), 2, cores(), "small")
        assert row["flops"] > 1e6
        assert row["bytes"] > 1e5
        assert row["p95_ms"] >= row["ms"] > 0
        assert row["command"].startswith("python -m experiments.throughput --steps=1")
        for variant in VARIANTS:
            assert len(row[variant]["images_per_s"]) == len(row[variant]["waiting"]) == 2
            assert min(row[variant]["images_per_s"]) > 0
            assert all(0 <= share <= 1 for share in row[variant]["waiting"])
    page = capsys.readouterr().out
    assert page.count("| spark, unet, 16, 2, float32 |") == 4  # two tables, printed twice
    assert render.PARTS["throughput"](record.parent, "small") in page


def test_a_share_of_the_peak_is_of_known_devices_alone(tmp_path):
    row = {"case": dataclasses.asdict(dataclasses.replace(TINY, dtype="bfloat16")), **dict.fromkeys(VARIANTS, CELLS)}
    row |= {"flops": 9.89e12, "bytes": 2**31, "compile_s": 7.4, "ms": 100.0, "p95_ms": 120.0}
    record = tmp_path / "throughput.json"
    record.write_text(json.dumps({device: {**row, "device": device} for device in ("NVIDIA H200", "cpu")}))
    name, pace = "| simclr, unet, 16, 2, bfloat16 |", "20 (19 to 23) |"
    paces = f"{name} {pace} {pace} {pace} 25% | {pace} 25% | {pace} 25% |"
    costs = f"{name} 100.0 (120.0) | 9890.0 | 98.90 |"
    lines = [line for line in throughput_table.table(record).splitlines() if line.startswith(name)]
    assert lines == [paces, f"{costs} 10.0% | 2.00 | 7 |", paces, f"{costs} - | 2.00 | 7 |"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "supervised"], "'supervised' is not timed here; --only takes"),
        (["--steps=0"], "--steps=0 times nothing"),
        (["--rounds=0"], "--rounds=0 times nothing"),
    ],
)
def test_what_cannot_be_timed_is_told(options, said, tmp_path, capsys):
    assert throughput.main([*options, f"--record={tmp_path / 'x.json'}"]) != 0
    assert said in capsys.readouterr().err
