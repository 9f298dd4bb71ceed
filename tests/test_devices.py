"""A run on eight devices, with the parameters on each of them or divided over them, is the run on one."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import shell
import tiny

from medssl_jax import pretrain
from medssl_jax.data.sources import open_dataset
from medssl_jax.train.loop import StopRequest
from medssl_jax.train.mesh import make_mesh

FLAGS = [
    "--config.data.task=none",
    "--config.pretrain.optimizer.name=sgd",  # Adam would blow rounding up where a gradient is nearly zero
    "--config.pretrain.steps=6",
    "--config.pretrain.batch=8",
    "--config.pretrain.log_every=1",
    "--config.model.width=32",  # kernels large enough to be divided
]
KINDS = {"one": (1, ""), "eight": (8, ""), "divided": (8, "--config.pretrain.fsdp=True")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("devices")
    data = f"--config.data.path={tiny.folder(home / 'data')}"
    started = [
        shell.start(*shell.main(data, *FLAGS, *filter(None, [flag]), workdir=home / name), JAX_NUM_CPU_DEVICES=str(devices))
        for name, (devices, flag) in KINDS.items()
    ]
    for process in shell.ended(*started):
        shell.finished(process)
    return {name: home / name for name in KINDS}


def losses(run: Path) -> list[float]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("name", ["eight", "divided"])
def test_the_loss_curve_is_that_of_one_device(runs, name):
    assert len(losses(runs["one"])) == 6
    np.testing.assert_allclose(losses(runs[name]), losses(runs["one"]), rtol=1e-4)


class Built(Exception):
    """Instead of the training, once its step is to be built."""


@pytest.mark.parametrize("divided", [False, True])
def test_large_parameters_are_divided_where_that_is_asked_for(divided, tmp_path, monkeypatch):
    def stop(method, update, mesh, places, accumulate):
        raise Built(places)

    monkeypatch.setattr(pretrain, "make_step", stop)
    config = tiny.shrink(tiny.config("simclr"))
    config.data.path, config.data.task = str(tiny.folder(tmp_path / "data")), "none"
    config.model.width, config.pretrain.fsdp = 32, divided
    with pytest.raises(Built) as built, StopRequest() as request:
        pretrain.pretrain(config, open_dataset(config.data), make_mesh(jax.devices()[:4]), tmp_path / "run", request)
    (places,) = built.value.args
    for tree in (places.params, places.opt_state):
        assert any("data" in str(place.spec) for place in jax.tree.leaves(tree)) == divided
