"""The table's numbers, the page's promises (self-contained, escaped, complete or said to be missing), and the pictures."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from medssl_jax.config import base
from medssl_jax.errors import UserError
from medssl_jax.report import outlines, summarise, triplets, write_report
from medssl_jax.report.pictures import displayable
from medssl_jax.report.rising import still_rising
from medssl_jax.report.rundir import read_run
from medssl_jax.report.tables import one_sided, sentences, to_html, to_markdown, to_text
from medssl_jax.report.words import amount_name, duration

ABOUT = {"experiment": "tower", "dataset": "sample", "task": "segmentation", "n": 3}
SCORES = {  # (init, labels, unit): one score a repeat
    ("tower", 1, "patch"): [0.52, 0.55, 0.60],
    ("random", 1, "patch"): [0.42, 0.45, 0.51],
    ("tower", 6, "image"): [0.86, 0.88, 0.87],
    ("random", 6, "image"): [0.87, 0.86, 0.88],
    ("tower/encoder", 1, "patch"): [0.50, 0.41, 0.52],
}


def row(init, labels, unit, value, subset=0, metric="dice"):
    return {**ABOUT, "init": init, "labels": labels, "label_unit": unit, "subset": subset, "seed": 0, "metric": metric, "value": value}


def rows():
    found = [row(*key, value, subset) for key, values in SCORES.items() for subset, value in enumerate(values)]
    found += [row("tower", 1, "patch", 0.3, metric="iou"), row("random", 1, "patch", 0.2, metric="iou")]
    return [*found, row("all foreground", 0, "image", 0.647), row("otsu", 6, "image", 0.41)]


def test_summary_by_hand():
    table = summarise(rows(), "dice")
    assert table.inits == ["random", "tower", "tower/encoder"]
    assert table.amounts == [(1.0, "patch"), (6.0, "image")]
    cell = table.cells["tower", (1.0, "patch")]
    assert (cell.mean, cell.std) == (pytest.approx(np.mean([0.52, 0.55, 0.60])), pytest.approx(np.std([0.52, 0.55, 0.60], ddof=1)))
    assert (cell.difference.mean, cell.difference.higher, cell.difference.n) == (pytest.approx((0.1 + 0.1 + 0.09) / 3), 3, 3)
    assert table.cells["random", (1.0, "patch")].difference is None
    assert table.levels == {"all foreground": 0.647, "otsu": 0.41}


def test_differences_are_paired_by_repeat_not_by_order():
    shuffled = [rows()[i] for i in np.random.default_rng(1).permutation(len(rows()))]
    assert (
        summarise(shuffled, "dice").cells["tower", (6.0, "image")].difference
        == summarise(rows(), "dice").cells["tower", (6.0, "image")].difference
    )
    fewer = [r for r in rows() if not (r["init"] == "random" and r["subset"] == 0)]
    difference = summarise(fewer, "dice").cells["tower", (1.0, "patch")].difference
    assert (difference.n, difference.mean) == (2, pytest.approx((0.10 + 0.09) / 2))


def test_scores_that_are_not_finite_are_left_out_of_the_count():
    table = summarise([*rows(), row("tower", 1, "patch", float("nan"), 3), row("tower", 1, "patch", None, 4)], "dice")
    assert len(table.cells["tower", (1.0, "patch")].scores) == 3


def test_sentences_claim_only_what_the_interval_carries():
    first, second = sentences(summarise(rows(), "dice"))
    assert first.startswith(
        "With 1 patch, TOWER is higher: 0.557 against 0.460 from random weights (+0.097, 95 % interval +0.082 to +0.111"
    )
    assert "below 'all foreground', which needs no network (0.647)" in first
    assert second.startswith("With 6 images, there is no clear difference")
    assert "all foreground" not in second


def test_all_or_nothing_is_said_to_be_no_segmentation():
    shares = {("random", 0): 0.995, ("random", 1): 0.5, ("tower/encoder", 0): 0.0, ("all foreground", 0): 1.0}
    marked = [row(init, 4, "patch", value, subset, metric="foreground") for (init, subset), value in shares.items()]
    (said,) = one_sided([*rows(), *marked])
    assert said.startswith("With 4 patches, not a segmentation")
    assert "random weights in repeat 0 (100 %), TOWER, encoder only in repeat 0 (0 %)" in said
    assert one_sided(rows()) == []


def cell(init, looks, number=4, unit="patch"):
    return {"init": init, "labels": number, "label_unit": unit, "looks": [[25 * (i + 1), score] for i, score in enumerate(looks)]}


ROSE = (0.3, 0.5, 0.6, 0.7)


def test_best_scores_at_the_end_are_told():
    fell, slow = cell("random", (0.3, 0.7, 0.6, 0.6)), cell("random", (0.3, 0.5, 0.60, 0.61))
    told = [cell("tower/encoder", ROSE), cell("simclr", ROSE), cell("tower", (0.3, 0.5, None, 0.6), 1, "fraction")]
    (said,) = still_rising([*told, *told, fell, slow])
    assert "(with 4 patches +0.10 from TOWER, encoder only and +0.10 from SimCLR; with all labels +0.10 from TOWER)" in said
    assert "--config.finetune.steps" in said


def test_scores_without_an_end_to_speak_of_are_not_told():
    slow, flat, one = (cell("random", looks) for looks in ((0.3, 0.5, 0.60, 0.61), (), (0.8,)))
    assert still_rising([cell("random", ROSE)]) == []  # one repeat
    assert still_rising([cell("random", ROSE), cell("random", (0.3, 0.7, 0.6, 0.6))]) == []  # not in every one
    assert still_rising([slow, slow]) == still_rising([flat, flat]) == still_rising([one, one]) == still_rising([{}, {}]) == []
    late = {**cell("random", ()), "looks": [[80, 0.8], [100, 0.8]]}  # none in the first three quarters
    assert still_rising([late, late]) == []


def test_best_scores_at_the_end_reach_terminal_and_page(workdir):
    (workdir / "finetune").mkdir()
    for repeat in range(2):
        (workdir / "finetune" / f"random_4patch_{repeat}.json").write_text(json.dumps(cell("random", ROSE)))
    said = "with 4 patches +0.10 from random weights"
    assert said in write_report(workdir)
    assert said in (workdir / "report.html").read_text()


def test_terminal_table_is_aligned_and_narrow():
    lines = to_text(summarise(rows(), "dice")).splitlines()
    assert max(map(len, lines[1:])) <= 80
    starts = {line.index(word) for line, word in zip(lines[3:6], ("random weights", "TOWER", "TOWER, encoder only"))}
    assert len(starts) == 1
    assert "0.557 ± 0.040  +0.097 [+0.082, +0.111]  3/3" in lines[4]
    assert lines[-1] == "without a network: all foreground 0.647, otsu 0.410"


def test_markdown_has_one_width():
    lines = to_markdown(summarise(rows(), "dice")).splitlines()
    assert {line.count("|") for line in lines} == {4}
    assert any("| 0.557 ± 0.040 | 0.870 ± 0.010 |" in line for line in lines)


def test_html_escapes_names():
    hostile = [{**r, "init": "<script>x</script>"} if r["init"] == "tower" else r for r in rows()]
    page = to_html(summarise(hostile, "dice"))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("amount", "name"),
    [((1, "patch"), "1 patch"), ((16, "patch"), "16 patches"), ((6, "image"), "6 images"), ((0.1, "fraction"), "10 % of labels")],
)
def test_amounts_in_words(amount, name):
    assert amount_name(amount) == name


def test_durations_in_words():
    assert [duration(s) for s in (3.21, 59.7, 75.3, 7300)] == ["3.2 s", "1 min 0 s", "1 min 15 s", "2 h 1 min"]


class Page(HTMLParser):
    """Collects what a browser would fetch, the pictures, and tags left open."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.links, self.open, self.images, self.alts = [], [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values[name] for name in ("src", "href", "srcset") if name in values]
        self.images += tag == "img"
        self.alts += [values["alt"]] if tag == "img" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def workdir(tmp_path):
    """A finished run directory."""
    config = base()
    config.name = "tower"
    (tmp_path / "config.json").write_text(config.to_json())
    (tmp_path / "results.json").write_text(json.dumps(rows()))
    lines = [{"phase": "pretrain", "step": s, "loss": 5 / s, "images_per_second": 400.0, "data_wait": 0.02} for s in (20, 40, 60)]
    readings = {"std_sqrt_d": 0.8, "mean_cosine": 0.3, "effective_rank": 30.0, "uniformity": -2.0, "n": 48.0}
    lines += [{"phase": "pretrain", "step": 60, "probe/knn": 0.7, **{f"collapse/backbone_{k}": v for k, v in readings.items()}}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset = {
        "name": "sample & co",
        "licence": "BSD-3-Clause",
        "citation": "A. Author <a@b.org>",
        "pool": 6,
        "test": 3,
        "notes": ["ten frames"],
    }
    about = {"dataset": dataset, "method": "tower", "seconds": {"pretrain": 61.0, "total": 130.0}, "device": "1 x cpu"}
    (tmp_path / "summary.json").write_text(json.dumps({**about, "command": "python -m x --a='1'", "warnings": ["Step 60: collapsing"]}))
    return tmp_path


def test_page_of_a_finished_run(workdir):
    crops = np.random.default_rng(0).random((2, 8, 8, 1)).astype(np.float32)
    triplets(workdir / "figures" / "restoration.png", crops, crops, crops)
    told = write_report(workdir)
    assert "TOWER" in told
    text = (workdir / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"<script|@import|url\(", text)
    names = {path.stem for path in (workdir / "figures").glob("*.png")}
    assert names == {"label_efficiency", "pretrain_loss", "pretrain_probes", "pretrain_collapse", "restoration"}
    assert page.images == len(names)
    assert all(page.alts)
    for words in (
        "sample &amp; co",
        "A. Author &lt;a@b.org&gt;",
        "BSD-3-Clause",
        "ten frames",
        "Step 60: collapsing",
        "0.557",
        "2 min 10 s",
    ):
        assert words in text
    assert "python -m x --a=&#x27;1&#x27;" in text
    assert "&quot;compilation_cache&quot;" in text


def test_page_of_a_run_that_started_from_another(workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["pretrain"]["from_run"] = "/data/runs/earlier"
    (workdir / "config.json").write_text(json.dumps(config))
    write_report(workdir)
    assert "was taken from the run earlier" in (workdir / "report.html").read_text()


def test_page_of_a_run_without_validation(workdir):
    summary = json.loads((workdir / "summary.json").read_text())
    for count, words in ((0, "those of the last step"), (1, "best score on 1 validation image,")):
        (workdir / "summary.json").write_text(json.dumps({**summary, "dataset": {**summary["dataset"], "val": count}}))
        write_report(workdir)
        assert words in (workdir / "report.html").read_text()


def test_page_of_a_run_without_its_results(workdir):
    for name in ("results.json", "summary.json"):
        (workdir / name).unlink()
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "pretrain", "st')
    told = write_report(workdir)
    assert told.startswith("No fine-tuning results yet")
    text = (workdir / "report.html").read_text()
    assert "metrics.jsonl: 1 line(s) cut short" in text
    assert "--config=configs/tower.py" in text


@pytest.mark.parametrize("missing", ["config.json", "metrics.jsonl", "summary.json", "results.json"])
def test_page_without_one_of_its_files(workdir, missing):
    (workdir / missing).unlink()
    write_report(workdir)
    assert Page((workdir / "report.html").read_text()).open == []


def test_page_of_an_empty_directory(tmp_path):
    write_report(tmp_path)
    assert "No fine-tuning results" in (tmp_path / "report.html").read_text()


def test_damaged_results_are_named_on_the_page(workdir):
    (workdir / "results.json").write_text('[{"init": ')
    write_report(workdir)
    assert "results.json could not be read" in (workdir / "report.html").read_text()


def test_no_such_directory(tmp_path):
    with pytest.raises(UserError, match="there is no run directory"):
        write_report(tmp_path / "nowhere")


def test_series_skips_lines_without_the_key_and_values_that_are_no_numbers(workdir):
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "pretrain", "step": 80, "loss": NaN}\n{"phase": "finetune", "step": 20, "loss": 1.0}\n')
    assert read_run(workdir).series("pretrain", "loss") == ([20, 40, 60], [5 / 20, 5 / 40, 5 / 60])


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_image_is_displayable(channels, dtype):
    image = np.random.default_rng(0).integers(0, 250, (6, 7, channels)).astype(dtype)
    shown = displayable(image)
    assert shown.shape == (6, 7, 3)
    assert shown.min() >= 0
    assert shown.max() <= 1
    if dtype == np.uint8:
        np.testing.assert_allclose(shown[..., 0], image[..., 0] / 255, atol=1e-6)
    if channels == 2:
        assert not shown[..., 2].any()


def test_the_clean_image_sets_the_scale():
    clean = np.linspace(0, 1000, 64).reshape(8, 8, 1).astype(np.uint16)
    assert displayable(clean // 2, clean).max() == pytest.approx(0.5, abs=0.01)


def colours(path):
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
    return {
        name: int((np.abs(pixels - colour).sum(1) < 12).sum())
        for name, colour in {"truth": (0x56, 0xB4, 0xE9), "arm": (0xE6, 0x9F, 0)}.items()
    }


@pytest.mark.parametrize("shape", [(20, 20, 1), (12, 40, 3)])
def test_outlines_draws_truth_and_prediction(tmp_path, shape):
    image, mask = np.full(shape, 90, np.uint8), np.zeros(shape[:2], np.int32)
    mask[3:9, :8] = 2  # a class above 1 that touches the edge
    empty = np.zeros_like(mask)
    both = outlines(
        tmp_path / "new" / "a.png", [image] * 2, [mask] * 2, {"random": [empty] * 2, "tower": [mask.T.copy().T] * 2}, ["a", "b"]
    )
    none = outlines(tmp_path / "b.png", [image] * 2, [empty] * 2, {"random": [empty] * 2}, ["a", "b"])
    assert all(colours(both)[name] > colours(none)[name] + 200 for name in ("truth", "arm"))
