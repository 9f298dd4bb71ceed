"""The benchmark's runner and renderer on a tiny grid: what is missing is run, nothing twice, and the tables come from the records alone."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny
from test_compare import example

from experiments import grid, render
from experiments import run as runner
from experiments.compare import best, collect, enough, pooled
from experiments.held import held
from experiments.records import Book
from medssl_jax.data.sources import open_dataset
from medssl_jax.pretrain import fingerprints
from medssl_jax.train.loop import StopRequest

TINY = {
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
    "compilation_cache": "",
}


@pytest.fixture
def tiny_grid(tmp_path, monkeypatch):
    """A classification of 20 images in an .npz, two arms that share a pretraining and a control, two repeats."""
    images = np.stack([example(i, "classification")["image"][..., 0] for i in range(20)])
    images[:, 0, 0] = np.arange(20)  # no two alike
    labels = np.arange(20)[:, None] % 2
    parts = {"train": slice(0, 12), "val": slice(12, 16), "test": slice(16, 20)}
    arrays = {f"{part}_{kind}": array[cut] for part, cut in parts.items() for kind, array in (("images", images), ("labels", labels))}
    np.savez(tmp_path / "tiny.npz", **arrays)
    data = grid.DataSet("tiny", "tiny.npz", "4 images, all", TINY, segmentation=False)
    again = dataclasses.replace(
        grid.ARMS["tower"], name="again", inits=("tower",), options={"finetune.unlabelled": True}, only=("4 images",)
    )
    monkeypatch.setitem(grid.DATA, "tiny", data)
    monkeypatch.setitem(grid.ARMS, "again", again)
    monkeypatch.setitem(grid.TABLES, "classification", {"tiny": ("random", "tower", "again")})
    for module in (grid, runner):
        monkeypatch.setattr(module, "REPEATS", 2)
    runner.opened.cache_clear()
    runner.dataset_digest.cache_clear()
    return tmp_path


def call(home, *more) -> int:
    return runner.main(["classification", f"--data={home}", f"--workdir={home / 'work'}", f"--records={home / 'records'}", *more])


def book(home, arm, repeat=0) -> Book:
    return grid.Group(grid.DATA["tiny"], grid.ARMS[arm], repeat, "small").book(home / "records")


def lines(home, arm) -> list[dict]:
    return [record for repeat in range(2) for record in book(home, arm, repeat).read()]


def values(records):
    return {(r["init"], r["labels"], r["subset"]): r["metrics"] for r in records}


def test_a_table_is_run_once_continued_and_reproduced(tiny_grid, capsys):
    assert call(tiny_grid, "--shard=1/2") == 0
    first = {arm: len(lines(tiny_grid, arm)) for arm in ("random", "tower", "again")}
    assert call(tiny_grid) == 0
    assert {arm: len(lines(tiny_grid, arm)) for arm in first} == {"random": 4, "tower": 4, "again": 2}
    assert 0 < sum(first.values()) < 10
    record = lines(tiny_grid, "tower")[0]
    assert {"versions", "device", "cores", "seconds", "metrics", "choice", "n", "data", "validation"} <= record.keys()
    assert {"accuracy", "macro_auc", "knn_accuracy", "ridge_accuracy"} <= record["metrics"].keys()
    assert {r["init"] for r in lines(tiny_grid, "tower")} == {"tower"}  # a decoder takes no part in a classification
    levels = grid.Group(grid.DATA["tiny"], grid.ARMS["random"], 0, "small").levels(tiny_grid / "records").read()
    assert {(r["init"], r["labels"], r["subset"]) for r in levels} >= {("colour histogram", x, k) for x in (4, 1.0) for k in (0, 1)}
    pretrained = [p for p in (tiny_grid / "work" / "small").iterdir() if (p / "pretrained.json").exists()]
    assert len(pretrained) == 2  # one a repeat, for both arms
    capsys.readouterr()
    assert call(tiny_grid) == 0
    assert "to run" not in capsys.readouterr().err
    before = values(lines(tiny_grid, "tower"))
    path = book(tiny_grid, "tower").path
    head, _, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, *rest]))
    assert call(tiny_grid, "--only", "tower", f"--workdir={tiny_grid / 'elsewhere'}") == 0
    assert values(lines(tiny_grid, "tower")) == before  # bit for bit


def test_shards_divide_the_work_by_pretrainings():
    for table, count in (("segmentation", 5), ("classification", 3), ("ablation", 8)):
        shards = [runner.chosen(table, "small", (), f"{i}/{count}") for i in range(1, count + 1)]
        assert sum(map(len, shards)) == len(list(grid.groups(table, "small")))
        owners = [{group.pretraining for group in shard} for shard in shards]
        assert sum(map(len, owners)) == len(set().union(*owners))
        paths = [{str(group.book(tiny.ROOT).path) for group in shard} for shard in shards]
        assert sum(map(len, paths)) == len(set().union(*paths))
        arm = shards[0][0].arm.name
        narrowed = runner.chosen(table, "small", [arm], f"1/{count}")
        assert [g for g in shards[0] if g.arm.name == arm] == narrowed


def test_other_options_forget_what_was_recorded_with_the_old_ones(tiny_grid, monkeypatch):
    """After a change nothing old is read, though but one repeat was run again."""
    assert call(tiny_grid, "--only", "random") == 0
    old = book(tiny_grid, "random").mark
    assert len(lines(tiny_grid, "random")) == 4
    monkeypatch.setitem(grid.DATA, "tiny", dataclasses.replace(grid.DATA["tiny"], small={**TINY, "finetune.batch": 8}))
    assert lines(tiny_grid, "random") == []
    assert call(tiny_grid, "--only", "random", "--shard=1/4") == 0
    assert {r["subset"] for r in lines(tiny_grid, "random")} == {0}
    head = json.loads(book(tiny_grid, "random").path.read_text().splitlines()[0])
    assert head["mark"] != old
    assert head["config"]["finetune.batch"] == 8
    assert "data.path" not in head["config"]


def test_what_is_kept_in_memory_is_known_by_what_is_stored(tiny_grid):
    """So that a network pretrained here is never tested on its own images elsewhere."""
    config = grid.Group(grid.DATA["tiny"], grid.ARMS["tower"], 0, "small").config(tiny_grid)
    config.data.resize = 14  # no image is as it is stored
    config.data.tile = 14
    dataset = open_dataset(config.data)
    in_memory = held(dataset)
    for part in ("pool", "val", "test"):
        assert fingerprints(getattr(in_memory, part)) == fingerprints(getattr(dataset, part))
        assert len(getattr(in_memory, part)) == len(getattr(dataset, part))
        np.testing.assert_array_equal(getattr(in_memory, part)[0]["image"], getattr(dataset, part)[0]["image"])


def test_a_stop_keeps_what_is_done_and_is_continued(tiny_grid, monkeypatch):
    whole = tiny_grid / "whole"
    assert call(tiny_grid, "--only", "random", f"--records={whole}") == 0
    stops: list[StopRequest] = []

    class Noted(StopRequest):
        def __enter__(self):
            stops.append(self)
            return super().__enter__()

    add = Book.add

    def add_and_stop(self, *new):
        add(self, *new)
        if "levels" not in self.path.name:
            stops[-1].by = signal.SIGTERM

    monkeypatch.setattr(runner, "StopRequest", Noted)
    monkeypatch.setattr(Book, "add", add_and_stop)
    for done in range(1, 5):  # a cell at a time
        assert call(tiny_grid, "--only", "random") == 0
        assert len(lines(tiny_grid, "random")) == done
    found = {path.name: path.read_text() for path in (tiny_grid / "records" / "small" / "tiny").iterdir()}
    assert set(found) == {path.name for path in (whole / "small" / "tiny").iterdir()}
    expected = [json.loads(line).get("metrics") for line in (whole / "small" / "tiny" / "random-1.jsonl").read_text().splitlines()]
    assert [json.loads(line).get("metrics") for line in found["random-1.jsonl"].splitlines()] == expected


def test_another_process_at_the_same_pretraining_is_left_alone(tiny_grid, capsys):
    group = runner.chosen("classification", "small", ["random"], "1/1")[0]
    lock = tiny_grid / "work" / "small" / f"{'-'.join(map(str, group.pretraining))}.lock"
    lock.parent.mkdir(parents=True)
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert call(tiny_grid, "--only", "random") == 1
        other.stdin.close()
    assert "another process is at it" in capsys.readouterr().err
    assert {r["subset"] for r in lines(tiny_grid, "random")} == {1}
    assert call(tiny_grid, "--only", "random") == 0
    assert len(lines(tiny_grid, "random")) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "twoer"), "has no 'twoer'; --only takes"),
        (("--shard=3/2",), "--shard=3/2 is not a share"),
        (("--shard=a",), "not a share"),
        (("--shard=9/9",), "has no group of that kind in the share 9/9"),
    ],
)
def test_mistakes_are_told(tiny_grid, capsys, arguments, said):
    assert call(tiny_grid, *arguments) == 2
    assert said in capsys.readouterr().err


def test_a_data_set_that_is_not_there_is_passed_over(tiny_grid, capsys):
    (tiny_grid / "tiny.npz").unlink()
    assert call(tiny_grid) == 1
    assert "passed over" in capsys.readouterr().err
    assert call(tiny_grid, "--list") == 0
    assert "tiny, random, repeat 0: 2 of 2 cells are missing" in capsys.readouterr().out


@pytest.mark.parametrize("text", ['{"init": ', "3\n", '{"mark": "MARK"}\n{"init": "random"}\n'])
def test_a_damaged_record_is_named(tiny_grid, capsys, text):
    found = book(tiny_grid, "random")
    found.path.parent.mkdir(parents=True)
    found.path.write_text(text.replace("MARK", found.mark))
    assert call(tiny_grid) == 2
    assert f"line {text.count(chr(10)) or 1} of {found.path} is no record" in capsys.readouterr().err


def test_an_option_that_does_not_exist_is_no_arm(monkeypatch):
    arm = dataclasses.replace(grid.ARMS["tower"], options={"method.restoration_wieght": 1.0})
    with pytest.raises(KeyError, match="restoration_wieght"):
        grid.Group(grid.DATA["sample"], arm, 0, "small").config(tiny.ROOT)


def test_every_group_of_every_table_has_a_config(tmp_path):
    for table, budget in ((t, b) for t in grid.TABLES for b in grid.BUDGETS):
        for group in grid.groups(table, budget):
            config = group.config(tmp_path)
            assert config.seed == group.repeat
            assert config.data.seed == 0  # the same split and test images for all
            assert group.cells()


FEW, ALL = (0.1, "fraction"), (1.0, "fraction")
RANDOM = {FEW: [0.50, 0.52, 0.48, 0.51, 0.49], ALL: [0.80, 0.81, 0.79, 0.80, 0.82]}
TOWER = {FEW: [0.79, 0.82, 0.78, 0.80, 0.82], ALL: [0.85, 0.86, 0.84, 0.86, 0.85]}
NOISY = {FEW: [0.10, 0.90, 0.20, 0.95, 0.60], ALL: [0.70, 0.71, 0.69, 0.70, 0.70]}


def fake(scores: dict[str, dict[tuple, list[float]]]) -> list[dict]:
    """Records with the given Dice by arm, amount and repeat."""
    return [
        {"init": arm, "labels": amount[0], "label_unit": amount[1], "subset": r, "metrics": {"dice": value}, "validation": value}
        for arm, by_amount in scores.items()
        for amount, found in by_amount.items()
        for r, value in enumerate(found)
    ]


def test_numbers_from_records():
    scores = collect(fake({"random": RANDOM, "tower": TOWER, "noisy": NOISY}), [], "tiny", "dice", [FEW, ALL])
    assert scores.cell("tower", FEW) == TOWER[FEW]
    difference = scores.difference("tower", FEW, "random")
    assert difference.mean == pytest.approx(np.mean(TOWER[FEW]) - np.mean(RANDOM[FEW]))
    assert difference.higher == 5
    assert best(scores) == "tower"


def test_labels_that_are_enough_hold_at_all_larger_amounts():
    scores = collect(fake({"random": RANDOM, "tower": TOWER, "noisy": NOISY}), [], "tiny", "dice", [FEW, ALL])
    assert enough(scores, "tower", "random", None) == FEW  # 0.802 and 0.804
    assert enough(scores, "tower", "random", 0.05) == FEW
    assert enough(scores, "tower", "random", 0.001) == ALL
    assert enough(scores, "random", "random", None) == ALL
    assert enough(scores, "random", "tower", None) is None
    assert enough(scores, "noisy", "random", None) is None  # wide enough with few labels to reach 0, but clearly below with all


def test_pooled_over_data_sets_by_hand():
    """Two data sets with effects of their own: the mean of their means, and an interval of the repeats' spread alone."""
    far = {FEW: [x + 0.5 for x in RANDOM[FEW]], ALL: RANDOM[ALL]}
    sets = [collect(fake({"random": RANDOM, "tower": arm}), [], "x", "dice", [FEW, ALL]) for arm in (TOWER, far)]
    (found,) = pooled(sets, ["random", "tower", "absent"], "random", lambda s, arm: s.few(arm))
    first, second = (np.array(arm[FEW]) - RANDOM[FEW] for arm in (TOWER, far))
    assert (found.arm, found.n, found.higher) == ("tower", 10, 10)
    assert found.mean == pytest.approx((first.mean() + second.mean()) / 2)
    assert found.p == pytest.approx(2 / 2**10)
    half = 2.7764 * np.sqrt(first.var(ddof=1) / 5) / 2  # t with 4 degrees of freedom: the second set does not vary
    assert (found.low, found.high) == (pytest.approx(found.mean - half, abs=1e-4), pytest.approx(found.mean + half, abs=1e-4))
    short = collect(fake({"random": RANDOM, "tower": {FEW: TOWER[FEW][:4], ALL: TOWER[ALL]}}), [], "x", "dice", [FEW, ALL])
    assert pooled([short], ["tower"], "random", lambda s, arm: s.few(arm)) == []  # other repeats than the control's


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page with two tables, and records of two arms and a level."""
    monkeypatch.setattr(grid, "REPEATS", 5)
    monkeypatch.setitem(grid.TABLES, "segmentation", {"sample": ("random", "tower")})
    monkeypatch.setitem(grid.TABLES, "classification", {})
    monkeypatch.setitem(grid.DATA, "sample", dataclasses.replace(grid.DATA["sample"], amounts="10%, all"))
    for arm, scores in (("random", RANDOM), ("tower", TOWER)):
        for repeat in range(5):
            group = grid.Group(grid.DATA["sample"], grid.ARMS[arm], repeat, "small")
            group.book(tmp_path).add(*[{**r, "data": "a"} for r in fake({arm: scores}) if r["subset"] == repeat])
    level = {"init": "otsu", "labels": 10, "label_unit": "image", "subset": 0, "metrics": {"dice": 0.4}, "data": "a"}
    grid.Group(grid.DATA["sample"], grid.ARMS["random"], 0, "small").levels(tmp_path).add(level)
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- table segmentation small -->\nold\n<!-- end -->\nafter\n<!-- table savings small --><!-- end -->\n")
    return path


def test_pages_come_from_the_records_alone(page):
    arguments = [f"--records={page.parent}", f"--page={page}"]
    assert render.main([*arguments, "--check"]) == 1
    assert render.main(arguments) == 0
    assert render.main([*arguments, "--check"]) == 0
    text = page.read_text()
    assert "| random weights | 0.500 ± 0.016 | 0.804 ± 0.011 |" in text
    assert "| otsu | 0.400 | 0.400 |" in text
    assert "| sample | TOWER | 10 % of labels | 10 % of labels | all labels | all labels |" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert {path.name for path in (page.parent / "figures").iterdir()} == {"segmentation.png", "segmentation_differences.png"}


def test_arms_that_are_one_in_a_budget_are_run_once():
    """The published TOWER is the default of `full`, and an arm of its own in `small`."""
    small, full = ([group.arm.name for group in grid.groups("ablation", budget)] for budget in ("small", "full"))
    assert {"tower", "tower-pair", "tower-repeating", "tower-published"} <= set(small)
    same = {"tower-pair", "tower-repeating", "tower-published", "tower-nlm", "tower-contrast", "tower-restored"}
    assert set(small) - set(full) == same
    assert len(full) == len(set(full)) * grid.REPEATS


def test_savings_are_told_once_all_repeats_are_there(page):
    """Two pairs have an interval that nearly everything is within; the other table shows them all the same."""
    for repeat in (2, 3, 4):
        (page.parent / "small" / "sample" / f"tower-{repeat}.jsonl").unlink()
    assert render.main([f"--records={page.parent}", f"--page={page}"]) == 0
    text = page.read_text()
    assert "| TOWER | 0." in text
    assert "| sample | random weights |" in text
    assert "| sample | TOWER |" not in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- table nothing small --><!-- end -->", "asks for a table 'nothing small'"),
        ("<!-- table savings smal --><!-- end -->", "asks for a table 'savings smal'"),
        ("<!-- table savings small -->\nkept\n<!-- table savings small --><!-- end -->", "not in pairs"),
        ("nothing to fill", "no marker"),
    ],
)
def test_pages_that_cannot_be_filled_are_left_alone(page, capsys, text, said):
    page.write_text(text)
    assert render.main([f"--records={page.parent}", f"--page={page}"]) == 2
    assert said in capsys.readouterr().err
    assert page.read_text() == text


def test_records_of_images_that_changed_are_not_mixed(page, capsys):
    group = grid.Group(grid.DATA["sample"], grid.ARMS["tower"], 4, "small")
    group.book(page.parent).add(*[{**r, "data": "b"} for r in group.book(page.parent).read()])
    assert render.main([f"--records={page.parent}", f"--page={page}"]) == 2
    assert "images that differ (a, b)" in capsys.readouterr().err


def test_the_projects_page_is_what_its_records_say():
    assert all(render.render(render.RECORDS, page, check=True) == 0 for page in render.PAGES)
