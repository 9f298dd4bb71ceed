"""The benchmark's runner and renderer on a tiny grid: what is missing is run, nothing twice, and the tables come from the records alone."""

from __future__ import annotations

import dataclasses
import json
import signal

import numpy as np
import pytest
from test_compare import example

from experiments import grid, render
from experiments import run as runner
from experiments.compare import collect, enough, pooled
from experiments.records import Book
from medssl_jax.errors import UserError
from medssl_jax.train.loop import StopRequest

TINY = {
    "compilation_cache": "",
    "data.tile": 28,
    "views.size": 16,
    "model.width": 2,
    "model.depth": 2,
    "model.decoder_width": 2,
    "model.projection": (4, 4),
    "pretrain.steps": 2,
    "pretrain.batch": 4,
    "finetune.steps": 2,
    "finetune.epochs": 0.0,
    "finetune.batch": 4,
    "finetune.patch": 28,
}


@pytest.fixture
def tiny_grid(tmp_path, monkeypatch):
    """A classification of 20 images in an .npz, two arms that share a pretraining and a control, two repeats."""
    images = np.stack([example(i, "classification")["image"][..., 0] for i in range(20)])
    labels = np.arange(20)[:, None] % 2
    parts = {"train": slice(0, 12), "val": slice(12, 16), "test": slice(16, 20)}
    arrays = {f"{part}_{kind}": array[cut] for part, cut in parts.items() for kind, array in (("images", images), ("labels", labels))}
    np.savez(tmp_path / "tiny.npz", **arrays)
    data = grid.DataSet("tiny", "tiny.npz", "4 images, all", TINY, segmentation=False)
    again = dataclasses.replace(
        grid.ARMS["tower"], name="again", inits=("tower",), options={"finetune.unlabelled": True}, only=("4 images",)
    )
    monkeypatch.setattr(grid, "DATA", {"tiny": data, **grid.DATA})
    monkeypatch.setattr(render, "DATA", grid.DATA)
    monkeypatch.setitem(grid.ARMS, "again", again)
    monkeypatch.setitem(grid.TABLES, "classification", {"tiny": ("random", "tower", "again")})
    monkeypatch.setattr(grid, "REPEATS", 2)
    monkeypatch.setattr(runner, "REPEATS", 2)
    return tmp_path


def call(home, *more) -> int:
    return runner.main(["classification", f"--data={home}", f"--workdir={home / 'work'}", f"--records={home / 'records'}", *more])


def lines(home, arm) -> list[dict]:
    return Book("tiny", arm, "small", home / "records").read()


def values(records):
    return {(r["init"], r["labels"], r["subset"]): r["metrics"] for r in records}


def test_a_table_is_run_once_continued_and_reproduced(tiny_grid, capsys):
    assert call(tiny_grid, "--shard=1/2") == 0
    first = {arm: len(lines(tiny_grid, arm)) for arm in ("random", "tower", "again")}
    assert call(tiny_grid) == 0
    assert {arm: len(lines(tiny_grid, arm)) for arm in first} == {"random": 4, "tower": 4, "again": 2}
    assert sum(first.values()) < 10
    record = lines(tiny_grid, "tower")[0]
    assert {"config", "versions", "device", "seconds", "metrics", "choice", "n"} <= record.keys()
    assert {"accuracy", "macro_auc", "knn_accuracy", "ridge_accuracy"} <= record["metrics"].keys()
    assert {r["init"] for r in lines(tiny_grid, "tower")} == {"tower"}  # a decoder takes no part in a classification
    assert {(r["init"], r["labels"]) for r in lines(tiny_grid, "levels")} >= {("colour histogram", 4), ("colour histogram", 1.0)}
    pretrained = [p.name for p in (tiny_grid / "work" / "small" / "tiny").iterdir() if p.name.startswith("pretrain-tower")]
    assert len(pretrained) == 2  # one a repeat, for both arms
    capsys.readouterr()
    assert call(tiny_grid) == 0
    assert "to run" not in capsys.readouterr().err
    before = values(lines(tiny_grid, "tower"))
    path = Book("tiny", "tower", "small", tiny_grid / "records").path
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert call(tiny_grid, "--only", "tower", f"--workdir={tiny_grid / 'elsewhere'}") == 0
    assert values(lines(tiny_grid, "tower")) == before  # bit for bit


def test_other_options_run_again(tiny_grid, monkeypatch):
    assert call(tiny_grid, "--only", "random") == 0
    mark = lines(tiny_grid, "random")[0]["config"]
    monkeypatch.setitem(grid.DATA, "tiny", dataclasses.replace(grid.DATA["tiny"], small={**TINY, "finetune.batch": 8}))
    assert call(tiny_grid, "--only", "random") == 0
    assert {r["config"] for r in lines(tiny_grid, "random")}.isdisjoint({mark})
    config = json.loads(Book("tiny", "random", "small", tiny_grid / "records").path.with_suffix(".config.json").read_text())
    assert config["finetune"]["batch"] == 8


def test_a_stop_keeps_what_is_done(tiny_grid, monkeypatch):
    class Stopped(StopRequest):
        def __enter__(self):
            self.by = signal.SIGTERM
            return super().__enter__()

    monkeypatch.setattr(runner, "StopRequest", Stopped)
    assert call(tiny_grid, "--only", "random") == 0
    assert lines(tiny_grid, "random") == []
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "twoer"), "has no 'twoer'; --only takes"),
        (("--shard=3/2",), "--shard=3/2 is not a share"),
        (("--shard=a",), "not a share"),
    ],
)
def test_mistakes_are_told(tiny_grid, capsys, arguments, said):
    assert call(tiny_grid, *arguments) == 2
    assert said in capsys.readouterr().err


def test_a_data_set_that_is_not_there_is_passed_over(tiny_grid, capsys):
    (tiny_grid / "tiny.npz").unlink()
    assert call(tiny_grid) == 0
    assert "passed over" in capsys.readouterr().err


def test_a_damaged_record_is_named(tiny_grid, capsys):
    book = Book("tiny", "random", "small", tiny_grid / "records")
    book.path.parent.mkdir(parents=True)
    book.path.write_text('{"init": ')
    assert call(tiny_grid) == 2
    assert "line 1 of" in capsys.readouterr().err


def fake(scores: dict[str, dict[tuple, list[float]]]) -> list[dict]:
    """Records with the given Dice by arm, amount and repeat."""
    return [
        {"init": arm, "labels": amount[0], "label_unit": amount[1], "subset": r, "seed": r, "metrics": {"dice": value}, "config": "x"}
        for arm, by_amount in scores.items()
        for amount, found in by_amount.items()
        for r, value in enumerate(found)
    ]


FEW, ALL = (0.1, "fraction"), (1.0, "fraction")
RANDOM = {FEW: [0.50, 0.52, 0.48, 0.51, 0.49], ALL: [0.80, 0.81, 0.79, 0.80, 0.82]}
TOWER = {FEW: [0.79, 0.82, 0.78, 0.80, 0.82], ALL: [0.85, 0.86, 0.84, 0.86, 0.85]}


def test_numbers_from_records():
    scores = collect(fake({"random": RANDOM, "tower": TOWER}), [], "tiny", "dice", [FEW, ALL])
    assert scores.cell("tower", FEW) == TOWER[FEW]
    difference = scores.difference("tower", FEW, "random")
    assert difference.mean == pytest.approx(np.mean(TOWER[FEW]) - np.mean(RANDOM[FEW]))
    assert difference.higher == 5
    assert enough(scores, "tower", "random") == FEW  # 10 % from TOWER are no worse than all from random weights
    assert enough(scores, "random", "random") == ALL
    assert enough(scores, "random", "tower") is None
    (found,) = pooled([scores], ["random", "tower"], "random", lambda s, arm: s.few(arm))
    assert (found.arm, found.difference.n) == ("tower", 5)
    assert pooled([scores], ["half"], "random", lambda s, arm: s.few(arm)) == []


def test_pages_come_from_the_records_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(grid.TABLES, "segmentation", {"sample": ("random", "tower")})
    monkeypatch.setitem(render.DATA, "sample", dataclasses.replace(grid.DATA["sample"], amounts="10%, all"))
    for arm, scores in (("random", RANDOM), ("tower", TOWER)):
        Book("sample", arm, "small", tmp_path).write(fake({arm: scores}), {})
    level = {"init": "otsu", "labels": 10, "label_unit": "image", "subset": 0, "seed": 0, "metrics": {"dice": 0.4}, "config": "x"}
    Book("sample", "levels", "small", tmp_path).write([level], {})
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table segmentation small -->\nold\n<!-- end -->\nafter\n<!-- table savings small --><!-- end -->\n")
    arguments = [f"--records={tmp_path}", f"--page={page}"]
    assert render.main([*arguments, "--check"]) == 1
    assert render.main(arguments) == 0
    assert render.main([*arguments, "--check"]) == 0
    text = page.read_text()
    assert "| random weights | 0.500 ± 0.016 | 0.804 ± 0.011 |" in text
    assert "| otsu | 0.400 | 0.400 |" in text
    assert "| sample | TOWER | 10 % of labels | all labels |" in text
    assert "old" not in text
    assert text.startswith("before\n")


def test_a_table_that_does_not_exist(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- table nothing small --><!-- end -->")
    assert render.main([f"--page={page}"]) == 2
    assert "asks for a table 'nothing'" in capsys.readouterr().err


def test_every_cell_of_the_grid_has_a_valid_config_and_known_arms(tmp_path):
    for table in grid.TABLES:
        for group in grid.groups(table, "small"):
            config = group.config(tmp_path)
            assert config.seed == group.repeat
            assert group.cells()
    with pytest.raises(UserError, match="no table 'x'"):
        next(grid.groups("x", "small"))
