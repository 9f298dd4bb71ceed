"""From figures to a classifier as the README does: figures cut, pretrained on the photographs, fine-tuned on another folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
from PIL import Image

from medssl_jax import experiment
from medssl_jax.data.sources import open_dataset
from medssl_jax.errors import UserError
from medssl_jax.figures.separate import Task, separate
from medssl_jax.figures.simulate import Figures, Style
from medssl_jax.figures.singles import ByFolder


def config(path, **options):
    """SimCLR on a small scale."""
    c = tiny.shrink(tiny.config("simclr"))
    c.data.path, c.finetune.labels = str(path), "2 images"
    c.update_from_flattened_dict({key.replace("__", "."): value for key, value in options.items()})
    return c


def singles(folder, count, channels=3, start=0):
    """Two classes, of vertical and of horizontal stripes."""
    for i in range(start, start + count):
        rng = np.random.default_rng(i)
        image = rng.integers(60, 200, (60, 1, channels)).repeat(70, 1) if i % 2 else rng.integers(60, 200, (1, 70, channels)).repeat(60, 0)
        path = folder / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8).squeeze()).save(path)
    return folder


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    """A pretraining on what was cut out of simulated figures, and what was cut."""
    home = tmp_path_factory.mktemp("mined")
    data = tiny.config("tower").data
    data.update({"path": str(singles(home / "singles", 8)), "task": "none"})
    figures = Figures(ByFolder(open_dataset(data).pool), Style(side=(120, 160), rescale=(1, 1)))
    (home / "figures").mkdir()
    for i in range(6):
        Image.fromarray(figures[i]["image"]).save(home / "figures" / f"{i}.png")
    separate(Task(home / "figures", home / "mined"))
    c = config(home / "mined" / "photographs", data__task="none", data__resize=28)
    experiment.run(c, home / "run", "the command")
    return home


def test_what_was_mined_is_fine_tuned_on_another_folder(mined, tmp_path):
    data = singles(tmp_path / "labelled", 20, start=100)
    experiment.run(config(data, pretrain__from_run=str(mined / "run")), tmp_path / "run", "the command")
    rows = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"random", "simclr"} <= {row["init"] for row in rows if row["metric"] == "balanced_accuracy"}
    assert {row["dataset"] for row in rows} == {"labelled"}


def test_the_plots_take_no_part(mined):
    pool = json.loads((mined / "run" / "pretrained.json").read_text())["pool"]
    cut = {folder: len(list((mined / "mined" / folder).iterdir())) for folder in ("photographs", "plots")}
    assert len(pool) == cut["photographs"]
    assert min(cut.values()) > 0


def test_other_colours_are_told_before_anything_is_trained(mined, tmp_path):
    c = config(singles(tmp_path / "gray", 20, channels=1), pretrain__from_run=str(mined / "run"))
    with pytest.raises(UserError, match=r"run sees 3 channels, and the images of gray have 1; set --config\.data\.color=rgb\."):
        experiment.run(c, tmp_path / "run", "the command")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["shipped", "detector"])
def test_a_detector_is_not_fine_tuned(mined, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "detector").mkdir()
    (tmp_path / "detector" / "detector.json").write_text("{}")
    c = config(singles(tmp_path / "data", 20), pretrain__from_run=name)
    with pytest.raises(UserError, match=f"{name} is a detector of compound figures, which cannot be fine-tuned; point"):
        experiment.run(c, tmp_path / "run", "the command")
