"""The landmark experiment: places from masks, errors against what is known, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from PIL import Image

from experiments import landmarks as experiment
from medssl_jax import pretrain, workdir
from medssl_jax.data import shapes
from medssl_jax.data.sources import open_dataset
from medssl_jax.errors import UserError
from medssl_jax.train.loop import StopRequest
from medssl_jax.train.mesh import make_mesh


def test_landmarks_of_two_boxes():
    mask = np.zeros((20, 30), np.int32)
    mask[4:12, 3:10], mask[5:15, 18:27] = 1, 1
    assert experiment.lung_landmarks(mask) == {
        "left apex": (4.0, 6.0),
        "left corner": (11.0, 3.0),
        "right apex": (5.0, 22.0),
        "right corner": (14.0, 26.0),
    }


def test_a_mask_of_one_lung():
    with pytest.raises(UserError, match="does not show two lungs"):
        experiment.lung_landmarks(np.pad(np.ones((3, 3), int), 2))


@pytest.fixture(scope="module")
def lungs(tmp_path_factory):
    """Images of simulated lungs, bright on dark, with their masks."""
    home = tmp_path_factory.mktemp("lungs")
    for name in ("images", "masks"):
        (home / name).mkdir()
    for number, mask in enumerate(shapes.simulate("lungs", 16, 64, seed=0)):
        noise = np.random.default_rng(number).integers(0, 40, mask.shape)
        Image.fromarray((150 * mask + noise).astype(np.uint8)).save(home / "images" / f"{number}.png")
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(home / "masks" / f"{number}.png")
    return home


@pytest.mark.parametrize("name", ["local_discrimination", "simclr"])
def test_errors_of_a_run(name, lungs, tmp_path, capsys):
    c = tiny.shrink(tiny.config(name))
    c.data.path, c.data.resize = str(lungs), 64
    workdir.claim(tmp_path / "run", c)
    with StopRequest() as stop:
        pretrain.pretrain(c, open_dataset(c.data), make_mesh(), tmp_path / "run", stop)
    experiment.main([str(tmp_path / "run"), f"--data={lungs}", f"--record={tmp_path / 'record.json'}"])
    table = capsys.readouterr().out
    assert table.splitlines()[0].startswith("| found by | left apex | left corner | right apex | right corner | median | within 5 % |")
    rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()[2:]}
    assert {"the same place", "normalised cross-correlation", f"{name}, Gaussian window", f"{name}, flat window"} == set(rows)
    medians = {finder: float(line.split(" | ")[-2]) for finder, line in rows.items()}
    assert 0 < medians["the same place"] < 12


def test_bad_runs(lungs, tmp_path, capsys):
    assert experiment.main([str(tmp_path), f"--data={lungs}", f"--record={tmp_path / 'record.json'}"]) != 0
    assert "has no config.json" in capsys.readouterr().err
