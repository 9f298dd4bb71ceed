"""The table of mined images: who is mined and who is labelled, what each arm pretrains on, one run of it, and its page."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from test_tables import TINY

from experiments import grid, mining, render
from experiments import run as runner
from medssl_jax.data.sources import describe, open_dataset
from medssl_jax.errors import UserError
from medssl_jax.figures import detect
from medssl_jax.figures.detect import Detector
from medssl_jax.models import detector
from medssl_jax.train.loop import Interrupted, StopRequest

MINED = grid.Mining(share=0.6, figures=5, images=4)


def save(path, rng, tone):
    image = rng.integers(tone, tone + 60, (15, 18, 3)).repeat(4, 0).repeat(4, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes of cells, ten of each to train with, and two detectors that know nothing."""
    home, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for part, count in (("train", 10), ("val", 2), ("test", 2)):
        for number in range(count):
            for name, tone in (("dark", 40), ("light", 140)):
                save(home / "cells" / part / name / f"{part}{number}.png", rng, tone)
    network = detector(4, blocks=1)
    for seed in range(2):
        weights, _ = network.init(jax.random.key(seed), np.zeros((1, 64, 64, 3), np.float32))
        detect.keep(home / f"detector{seed}", Detector(jax.device_get(weights), 4, 1, 64, 0.99))
        (home / f"detector{seed}" / "config.json").write_text('{"data": {"path": "elsewhere"}}')
    return home


@pytest.fixture
def table(monkeypatch):
    """The table on those cells: one repeat of two arms."""
    cells = grid.DataSet("cells", "cells", "2 images", {**TINY, "data.tile": 28}, {}, False, MINED)
    monkeypatch.setitem(grid.DATA, "cells", cells)
    monkeypatch.setitem(grid.TABLES, "mining", {"cells": ("mined-whole", "mined-detector")})
    for module in (grid, runner):
        monkeypatch.setattr(module, "REPEATS", 1)
    runner.opened.cache_clear()
    runner.dataset_digest.cache_clear()
    mining.of_run.cache_clear()


def group(arm, repeat=0):
    return grid.Group(grid.DATA["cells"], grid.ARMS[arm], repeat, "small")


def pool(data, workdir, arm, run=None, repeat=0):
    """What the arm pretrains on."""
    config = group(arm).config(data)
    return mining.pool(group(arm, repeat), runner.opened(config.data.to_json()), config, workdir, run, StopRequest()).pool


def test_figures_and_labels_share_no_image(data, table):
    whole = runner.opened(group("random").config(data).data.to_json())
    mined, ours = set(mining.single_images(whole, MINED)), mining.labelled(whole, MINED)
    kept = {describe(ours.pool, i).id for i in range(len(ours.pool))}
    assert not mined & kept
    assert mined | kept == {describe(whole.pool, i).id for i in range(len(whole.pool))}
    assert [sum(name.startswith(f"train/{kind}") for name in mined) for kind in ("dark", "light")] == [6, 6]
    assert (len(ours.val), len(ours.test)) == (len(whole.val), len(whole.test)) == (4, 4)


def test_what_each_arm_pretrains_on(data, table, tmp_path):
    pools = {arm: pool(data, tmp_path, f"mined-{arm}") for arm in ("single", "whole", "truth", "xycut")}
    (home,) = tmp_path.iterdir()
    assert {arm: len(found) for arm, found in pools.items()} == dict.fromkeys(pools, MINED.images)
    assert all("label" not in found[0] and min(found[0]["image"].shape[:2]) == 28 for found in pools.values())
    names = set(mining.single_images(runner.opened(group("random").config(data).data.to_json()), MINED))
    assert {describe(pools["single"], i).id for i in range(4)} <= names
    figures = {path.stem: np.asarray(Image.open(path)) for path in (home / "figures").iterdir()}
    assert len(figures) == MINED.figures
    for path in (home / "truth").iterdir():  # every crop is a part of its figure
        crop, figure = np.asarray(Image.open(path)), figures[path.stem.split("_")[0]]
        height, width = crop.shape[:2]
        starts = np.argwhere((figure[: len(figure) - height + 1, : figure.shape[1] - width + 1] == crop[0, 0]).all(-1))
        assert any((figure[y : y + height, x : x + width] == crop).all() for y, x in starts)
    assert {path.stem.split("_")[0] for path in (home / "truth").iterdir()} == set(figures)  # each has a single image
    assert ids(pool(data, tmp_path, "mined-truth")) == ids(pools["truth"])
    assert ids(pool(data, tmp_path, "mined-whole", repeat=1)) != ids(pools["whole"])


def ids(source):
    return [describe(source, i).id for i in range(len(source))]


def test_drawing_stops_between_figures_and_goes_on(data, table, tmp_path):
    singles = [{"image": tiny.images(6, 48, 3)[i], "id": f"a/{i}"} for i in range(6)]
    mining.draw(tmp_path / "whole", singles, 3, 0, StopRequest())
    stop = StopRequest()
    stop.by = signal.SIGTERM
    with pytest.raises(Interrupted, match="0 of 3 figures are drawn"):
        mining.draw(tmp_path / "parts", singles, 3, 0, stop)
    mining.draw(tmp_path / "parts", singles, 2, 0, StopRequest())
    mining.draw(tmp_path / "parts", singles, 3, 0, StopRequest())
    whole, parts = ({path.name: path.read_bytes() for path in sorted((tmp_path / name).rglob("*.png"))} for name in ("whole", "parts"))
    assert whole == parts


def call(data, home, *more):
    return runner.main(["mining", f"--data={data}", f"--workdir={home / 'work'}", f"--records={home / 'records'}", *more])


def records(home, arm):
    return group(arm).book(home / "records").read()


def fake(arm, repeat, home, **more):
    """A record as if the cell had been run."""
    found = {"init": arm, "label_unit": "image", "labels": 2, "subset": repeat, "metrics": {"balanced_accuracy": 0.5}}
    group(arm, repeat).book(home).add(found | more)


def test_the_table_is_run_and_rendered(data, table, tmp_path, capsys):
    images = runner.dataset_digest(group("mined-whole").config(data).data.to_json())
    fake("mined-whole", 0, tmp_path / "records", pool={"images": 3, "detector": ""}, data=images)
    detectors = [data / f"detector{number}" for number in range(2)]
    assert call(data, tmp_path, f"--run={detectors[0]}") == 0
    (found,) = records(tmp_path, "mined-detector")
    assert 0 < found["pool"]["images"] <= MINED.images
    assert {"balanced_accuracy", "macro_auc", "ridge_accuracy"} <= found["metrics"].keys()
    capsys.readouterr()
    assert call(data, tmp_path, f"--run={detectors[0]}") == 0
    assert "to run" not in capsys.readouterr().err
    marks = [mining.mark(group("mined-detector"), run) for run in detectors]
    assert marks[0] == found["pool"]["detector"] != marks[1]
    assert [len(runner.missing(group("mined-detector"), tmp_path / "records", mark)) for mark in marks] == [0, 1]
    page = render.mining_page(tmp_path / "records", "small")
    for title in ("figures not cut", "figures cut by the detector", "minus figures not cut"):
        assert f"| {title} |" in page
    assert f"Images pretrained on: figures not cut 3, figures cut by the detector {found['pool']['images']}." in page


def test_repeats_of_different_detectors_are_not_one_table(table, tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "REPEATS", 2)
    for repeat, mark in enumerate(("0123", "abcd")):
        fake("mined-detector", repeat, tmp_path, pool={"images": 3, "detector": mark})
    with pytest.raises(UserError, match=r"of several detectors \(0123, abcd\); run the table again with one of them"):
        render.mining_page(tmp_path, "small")


def test_a_run_without_a_detector_is_told(data, table, tmp_path, capsys):
    assert call(data, tmp_path, f"--run={data}", "--only", "mined-detector") == 2
    assert "holds no trained detector" in capsys.readouterr().err


def test_a_detector_that_has_seen_the_cells_is_refused(data, table, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"data": {"path": "/sets/tissue, /sets/cells/train"}}')
    assert call(data, tmp_path, f"--run={tmp_path}", "--only", "mined-detector") == 2
    assert "was trained on cells, of which the figures are made; train it on others." in capsys.readouterr().err


def test_other_figures_are_other_records(table, monkeypatch):
    before = {arm: (group(arm).book(tiny.ROOT).mark, group(arm).pretraining) for arm in ("random", "mined-whole", "mined-truth")}
    assert len(set(before.values())) == 3
    monkeypatch.setitem(grid.DATA, "cells", dataclasses.replace(grid.DATA["cells"], mining=dataclasses.replace(MINED, figures=6)))
    after = {arm: (group(arm).book(tiny.ROOT).mark, group(arm).pretraining) for arm in before}
    assert not set(before.values()) & set(after.values())


def test_the_blood_cells(datasets):
    """The real table: 50 labelled images of every class, none of them mined, and the set's own test."""
    real = grid.Group(grid.DATA["pbc_mined"], grid.ARMS["random"], 0, "small")
    config = real.config(datasets)
    if not Path(config.data.path).is_dir():
        pytest.skip("the blood cells are not here")
    ours = mining.labelled(open_dataset(config.data), real.data.mining)
    assert np.bincount([describe(ours.pool, i).label for i in range(len(ours.pool))]).tolist() == [50] * 8
    assert len(ours.test) == 640
