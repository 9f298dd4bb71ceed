"""One table of several runs: what they share stands once and must agree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tiny

sys.path.insert(0, str(tiny.ROOT))  # experiments/ is not part of the installed package
from experiments import table


def write(path, **scores):
    """A run whose arms have a Dice of that many repeats with one image."""
    shared = {
        "experiment": "e",
        "dataset": "d",
        "task": "segmentation",
        "labels": 1,
        "label_unit": "image",
        "seed": 0,
        "metric": "dice",
        "n": 3,
    }
    rows = [{**shared, "init": init, "subset": s, "value": value} for init, values in scores.items() for s, value in enumerate(values)]
    path.mkdir()
    (path / "results.json").write_text(json.dumps(rows))
    return str(path)


def test_what_runs_share_stands_once(tmp_path, capsys):
    runs = [write(tmp_path / "a", random=[0.25, 0.5], tower=[0.5, 0.75]), write(tmp_path / "b", random=[0.25, 0.5], simclr=[0.5, 0.5])]
    assert table.main(runs) == 0
    said = capsys.readouterr().out
    assert said.count("| random weights | 0.375 ± 0.177 |") == 1
    assert "| TOWER | 0.625 ± 0.177 |" in said
    assert "| SimCLR - random weights | +0.125 [" in said
    assert table.main([*runs, "--metric=dice"]) == 0
    assert capsys.readouterr().out == said


def test_runs_that_do_not_belong_together(tmp_path, capsys):
    runs = [write(tmp_path / "a", random=[0.25]), write(tmp_path / "b", random=[0.5])]
    assert table.main(runs) == 2
    assert "differ in dice of random, 1 image, repeat 0" in capsys.readouterr().err
    for run, tile in zip(runs, (96, 48)):
        (Path(run) / "config.json").write_text(json.dumps({"data": {"tile": tile}, "finetune": {"inits": str(tile)}}))
    assert table.main(runs) == 2
    assert "config.data.tile is 96 in" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert table.main([str(tmp_path / "empty")]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_scores_of_the_validation(tmp_path, capsys):
    run = Path(write(tmp_path / "a", random=[0.25, 0.5]))
    (run / "finetune").mkdir()
    for subset, score in ((0, 0.75), (1, None)):  # the second had no validation images
        record = {"init": "random", "labels": 1, "label_unit": "image", "subset": subset, "validation": score}
        (run / "finetune" / f"{subset}.json").write_text(json.dumps(record))
    (run / "summary.json").write_text(json.dumps({"dataset": {"val": 5}}))
    assert table.main([str(run), "--validation"]) == 0
    said = capsys.readouterr().out
    assert "(5 images; one repeat)" in said
    assert "| random weights | 0.750 |" in said
