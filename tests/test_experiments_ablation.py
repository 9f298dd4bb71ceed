"""The ablation of the detector: a training that is scored, recorded and passed over; and the table of made-up records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from experiments import figures_ablation, figures_ablation_table, render, semireal
from experiments import run as runner
from experiments.figures_ablation import ARMS, JOBS, PAIRED, Job
from medssl_jax.figures.style import Style


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Trainings that leave random weights, on few figures; the single images are those that the semi-real figures are made of."""
    trained = []

    def run(config, workdir, command):
        trained.append((config, command))
        tiny.untrained_run(workdir)
        (workdir / "summary.json").write_text(json.dumps({"seconds": {"total": 1.0}, "device": "1 x cpu", "versions": {}}))

    monkeypatch.setattr(figures_ablation.experiment, "run", run)
    monkeypatch.setattr(figures_ablation, "COMMON", {**figures_ablation.COMMON, "compilation_cache": "", "data.tile": 64})
    monkeypatch.setattr(figures_ablation, "TRAINED_ON", semireal.SINGLES)
    monkeypatch.setattr(figures_ablation, "SIMULATED", 3)
    monkeypatch.setattr(semireal, "PER_BUCKET", 1)
    monkeypatch.setattr(figures_ablation, "CHOSEN_ON", 4)
    for cached in (figures_ablation._semireal, figures_ablation._simulated):
        cached.cache_clear()
    return tmp_path, trained


def call(home, *more):
    places = [f"--{name}={home / name}" for name in ("data", "records", "workdir")]
    return runner.main(["figures-ablation", *places, *more])


def test_a_training_is_scored_recorded_and_passed_over(small, capsys):
    small, trained = small
    tiny.figure_sets(small / "data")
    only = ("--only", "no-side", "--shard=5/39")  # the fifth training, of the first seed
    assert call(small, *only, "--list") == 0
    assert "no-side-0: missing" in capsys.readouterr().out
    assert call(small, *only) == 0
    ((config, command),) = trained
    assert (config.seed, config.method.side, config.pretrain.steps) == (0, "none", 800)
    assert command == "python -m experiments.run figures-ablation --only no-side"
    path = small / "records" / figures_ablation.FOLDER / "no-side-0.json"
    told = json.loads(path.read_text())
    assert told["config"]["method.side"] == "none"
    assert told["seconds"]["total"] > 0
    assert 0 < told["threshold"] <= 1
    assert told["trained_by"] == told["code"]
    for name, count in (("semi-real", 18), ("simulated", 3)):
        found = told["sets"][name]
        assert found["groups"]["all"]["figures"] == count
        assert {len(found["by_figure"][score]) for score in PAIRED} == {count}
        assert {"ap50", "ap", "over", "under", "imageclef"} <= found["scores"]["tight"]["all"]["detector"].keys()
    before = path.stat().st_mtime_ns
    assert call(small, *only) == 0
    assert len(trained) == 1
    assert path.stat().st_mtime_ns == before
    assert Job("no-side", 0).read(small / "records") == told
    semireal.PER_BUCKET += 1  # other figures, so that the record is of another question
    assert Job("no-side", 0).read(small / "records") is None


def test_missing_images_are_told(small, capsys):
    small, _ = small
    assert call(small) == runner.LEFT_OUT
    assert f"passed over, {small / 'data' / 'pbc_blood_cells'} does not exist; name the folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--only", "tower"), "has no 'tower'; --only takes default"), (("--shard=3/2",), "--shard=3/2 is not a share")],
)
def test_mistakes_are_told(small, capsys, arguments, said):
    assert call(small[0], *arguments) == 2
    assert said in capsys.readouterr().err


def test_arms_differ_in_what_they_say_and_share_the_rest(tmp_path):
    configs = {arm: Job(arm, 1).about()["config"] for arm in ARMS}
    for arm, options in ARMS.items():
        changed = {key for key, value in configs[arm].items() if value != configs["default"][key]}
        assert changed == set(options)
    assert configs["default"]["figures.style.intra_class"] == Style().intra_class > 0
    assert len({Job(arm, 0).about()["mark"] for arm in ARMS}) == len(ARMS)
    assert not set(semireal.SINGLES) & {name.split("/")[0] for name in figures_ablation.TRAINED_ON}
    shares = [figures_ablation.chosen([], f"{i}/4") for i in range(1, 5)]
    assert sorted(job.name for part in shares for job in part) == sorted(job.name for job in JOBS)
    assert [job.name for job in figures_ablation.chosen(["default"], "1/1")] == ["default-0", "default-1", "default-2"]


def record(job, over, figures):
    """A record whose numbers are known: the over-detection of the set, and of each figure."""
    scores = {"over": over, "under": 0.1, "imageclef": 50.0, "right": 0.25, "ap50": 0.6, "ap": 0.4}
    groups = {"all": {"figures": len(figures), "panels": 9}, "gap 0": {"figures": 1, "panels": 2}}
    by_figure = {"over": figures, "under": [0.1] * 4, "imageclef": [50.0] * 4, "iou": [0.5] * 4}
    found = {"groups": groups, "scores": {"tight": {group: {"detector": scores} for group in groups}}, "by_figure": by_figure}
    return {**job.about(), "sets": dict.fromkeys(("semi-real", "simulated"), found)}


def test_every_side_loss_with_and_without_the_rest():
    assert len(ARMS) == 3 * 2 * 2 + 1 == len(figures_ablation_table.TITLES)
    combined = Job("original+no-intra+stretched", 0).config(Path()).to_dict()
    assert (combined["method"]["side"], combined["method"]["side_weight"]) == ("original", 0.05)
    assert (combined["figures"]["style"]["intra_class"], combined["figures"]["style"]["keep_aspect"]) == (0.0, False)


def test_the_table_compares_by_training_and_by_figure(tmp_path):
    assert figures_ablation_table.table(tmp_path) == render.PARTS["figures-ablation"](tmp_path, "small") == "Nothing is recorded yet."
    (tmp_path / figures_ablation.FOLDER).mkdir()
    figures = np.array([0.1, 0.2, 0.3, np.nan])  # no box matched a panel in the last one
    for seed in range(3):
        for arm, more in (("default", 0.0), ("no-side", 0.1), ("stretched", 0.2), ("no-side+stretched", 0.4)):
            told = record(job := Job(arm, seed), 0.2 + 0.01 * seed + more, [None if np.isnan(x) else x + more for x in figures])
            (tmp_path / figures_ablation.FOLDER / f"{job.name}.json").write_text(json.dumps(told))
    table = figures_ablation_table.table(tmp_path)
    assert "| no side loss, intra-class figures, aspect kept | 3 | 0.310 ± 0.010 | 0.100 ± 0.000 | 50.0 ± 0.0 | 0.250 ± 0.000 |" in table
    no_side = "| no side loss, minus scale-free side loss | 6 |"  # 0.1 three times, and 0.2 with stretched images
    assert f"{no_side} +0.150 [+0.093, +0.207], 6/6 | +0.000 [+0.000, +0.000], 0/6 |" in table  # .15 ± t(5) * .0548 / sqrt(6)
    assert f"{no_side} +0.0 [+0.0, +0.0], 0/4 | +0.000 [+0.000, +0.000], 0/4 | +0.150 [+0.150, +0.150], 3/3 |" in table  # by figure
    assert "| images stretched, minus aspect kept | 6 | +0.250 [" in table
    assert "symmetric" not in table.split("**ImageCLEF")[0]
    (tmp_path / figures_ablation.FOLDER / "default-0.json").write_text(
        json.dumps({**record(Job("default", 0), 0.9, [0.9] * 4), "mark": "old"})
    )
    assert "| scale-free side loss, intra-class figures, aspect kept | 2 |" in figures_ablation_table.table(tmp_path)
