"""Images a second: every case is a config that can be built, the step on given views is the step, and what is recorded is rendered."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny

from experiments import throughput
from experiments.throughput import CASES, Case, Given
from medssl_jax import methods
from medssl_jax.train import mesh as meshes
from medssl_jax.train import optimizer
from medssl_jax.train.state import init_state
from medssl_jax.train.step import example_keys, make_step

TINY = Case("simclr", "unet", 16, 2, "float32")


@pytest.mark.parametrize("budget", CASES)
def test_every_case_is_a_config_with_a_name_of_its_own(budget):
    assert len({case.name for case in CASES[budget]}) == len(CASES[budget])
    for case in CASES[budget]:
        config = case.config()
        assert (config.model.name, config.views.size, config.pretrain.batch) == (case.network, case.size, case.batch)
        methods.build(config, throughput.CHANNELS, throughput.MODALITY)


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


def test_cases_are_timed_recorded_and_rendered(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(throughput.CASES, "small", (TINY, dataclasses.replace(TINY, method="byol")))
    record = tmp_path / "records" / "throughput.json"
    assert throughput.main(["--steps=2", "--only", "byol", f"--record={record}"]) == 0
    assert throughput.main(["--steps=2", "--only", "simclr", f"--record={record}"]) == 0
    rows = list(json.loads(record.read_text()).values())
    assert [row["case"]["method"] for row in rows] == ["byol", "simclr"]
    for row in rows:
        assert row["flops"] > 1e6
        assert row["bytes"] > 1e5
        for variant in throughput.VARIANTS:
            assert row[variant]["images_per_s"] > 0
            assert row[variant]["p95_ms"] >= row[variant]["ms"] > 0
            assert 0 <= row[variant]["waiting"] <= 1
    page = capsys.readouterr().out
    assert "| byol, unet, 16, 2, float32 |" in page
    assert page.count("| simclr, unet, 16, 2, float32 |") == 1


def test_a_share_of_the_peak_is_of_known_devices_alone(tmp_path):
    numbers = {"ms": 100.0, "p95_ms": 120.0, "images_per_s": 20.0, "waiting": 0.25}
    row = {"case": dataclasses.asdict(dataclasses.replace(TINY, dtype="bfloat16")), **dict.fromkeys(throughput.VARIANTS, numbers)}
    row |= {"flops": 9.89e12, "bytes": 2**31, "compile_s": 7.4}
    record = tmp_path / "throughput.json"
    record.write_text(json.dumps({device: {**row, "device": device} for device in ("NVIDIA H200", "cpu")}))
    lines = [line for line in throughput.table(record).splitlines() if line.startswith("| simclr")]
    shared = "| simclr, unet, 16, 2, bfloat16 | 20 | 20 | 20 | 25% | 100.0 (120.0) | 9890.0 | 98.90 |"
    assert lines == [f"{shared} 10.0% | 2.00 | 7 |", f"{shared} - | 2.00 | 7 |"]


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--only", "supervised"], "'supervised' is not timed here; --only takes"), (["--steps=0"], "--steps=0 times nothing")],
)
def test_what_cannot_be_timed_is_told(options, said, tmp_path, capsys):
    assert throughput.main([*options, f"--record={tmp_path / 'x.json'}"]) != 0
    assert said in capsys.readouterr().err
