"""The tables of compound figures that need no training: real, semi-real, trivial, and how they are asked for."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import tiny
from PIL import Image

from experiments import compound, cutters, figures, figures_speed, front, render, semireal, single, trivial
from experiments import run as runner
from experiments.cutters import CONTROL, DETECTOR, PARTITION, TIGHT, Cutter, Sample
from medssl_jax.figures.boxes import intersection
from medssl_jax.figures.layouts import TINY
from medssl_jax.figures.replay import layouts_of, replay, respace
from medssl_jax.figures.score import Detections


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.figure_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.untrained_run(tmp_path_factory.mktemp("runs") / "detector")


def call(data, records, *more):
    return runner.main(["figures", f"--data={data}", f"--records={records}", "--per-bucket=1", *map(str, more)])


def test_methods_are_scored_over_all_and_by_article(data, tmp_path, capsys):
    record = tmp_path / "figures.json"
    assert call(data, tmp_path, "--only", "real") == 0
    told = json.loads(record.read_text())
    scores = told["scores"][TIGHT]
    assert scores["all"]["xycut"]["ap50"] == pytest.approx(1)
    assert scores["all"]["xycut"]["imageclef"] == pytest.approx(100)
    assert scores["all"]["one panel"]["ap50"] == 0  # no panel is half of its figure
    assert scores["one"]["2 x 2"]["imageclef"] == 0  # 64 of 100 px of a quarter are its panel: less than two thirds
    assert told["groups"] == {"all": {"figures": 2, "panels": 4}, **{name: {"figures": 1, "panels": 2} for name in ("one", "two")}}
    assert told["scores"][PARTITION]["one"]["xycut"]["ap"] == pytest.approx(1)
    for convention, of_groups in told["differences"].items():  # the package's detector beside the cut along blank lines
        for group, by_metric in of_groups.items():
            ours, theirs = (told["scores"][convention][group][method]["imageclef"] for method in ("detector", "xycut"))
            assert by_metric["imageclef"]["mean"] == pytest.approx(ours - theirs)
    printed = capsys.readouterr().out
    assert figures.table(record) in printed
    assert "| xycut | 1.000 | 1.000 |" in printed
    assert scores["all"]["xycut, with labels"] == scores["all"]["xycut"]  # there are none


def test_a_figure_that_cannot_be_read_is_told(tmp_path, capsys):
    folder = tiny.figure_sets(tmp_path / "sets") / "compound_figures"
    (folder / "images" / "one_a.png").write_bytes(b"")
    assert own(folder / "panels.csv", folder / "images") != 0
    assert "one_a.png cannot be read" in capsys.readouterr().err
    (folder / "images" / "one_a.png").unlink()
    assert own(folder / "panels.csv", folder / "images") != 0
    assert "holds no figure one_a.png, which the boxes name" in capsys.readouterr().err
    assert own(tmp_path / "panels.csv", tmp_path) != 0
    assert "there is no table of panels" in capsys.readouterr().err


def own(boxes, images, *more):
    return figures.main([f"--boxes={boxes}", f"--images={images}", *more])


def test_figures_of_ones_own_are_scored_by_boxes_of_any_kind(data, tmp_path, capsys):
    """The same boxes as a table, as ImageCLEF's XML without endings, and as a list of NLM's with folders."""
    home = data / "compound_figures"
    Image.open(home / "images" / "one_a.png").save(tmp_path / "one_a.jpg")
    objects = "".join(
        f"<object><point x='{x0}' y='{y0}'/><point x='{x1}' y='{y1}'/></object>" for x0, y0, x1, y1 in tiny.PANELS["one_a.png"]
    )
    (tmp_path / "truth.xml").write_text(f"<a><annotation><filename> one_a.jpg </filename>{objects}</annotation></a>")
    lines = [f"some/where/{name},{','.join(map(str, box))},panel" for name, own in tiny.PANELS.items() for box in own]
    (tmp_path / "eval.csv").write_text("\n".join(lines))
    printed = []
    for boxes, images in [
        (home / "panels.csv", home / "images"),
        (tmp_path / "truth.xml", tmp_path),
        (tmp_path / "eval.csv", home / "images"),
    ]:
        assert own(boxes, images, f"--record={tmp_path / 'own.json'}") == 0
        printed.append(capsys.readouterr().out)
        assert "| xycut | 1.000 |" in printed[-1]
    assert printed[0] == printed[2]
    assert json.loads((tmp_path / "own.json").read_text())["groups"] == {"all": {"figures": 2, "panels": 4}}


def test_both_conventions_of_what_a_detector_finds():
    """Boxes that reach over their neighbours by 4 px are cells of a cut all the same; unsure ones take no part in it."""
    truth = np.float32([[0, 0, 98, 100], [102, 0, 200, 100]])
    found = Detections(np.float32([[0, 0, 102, 100], [98, 0, 200, 100], [0, 0, 200, 50]]), np.float32([0.9, 0.8, 0.1]))
    cuts = cutters.cut([Sample("a", np.zeros((100, 200, 3), np.uint8), truth)], {"detector": Cutter(lambda images: [found], 0.5)})
    np.testing.assert_array_equal(cuts.truths[PARTITION]["a"], [[0, 0, 99, 100], [102, 0, 200, 100]])
    np.testing.assert_array_equal(cuts.found[PARTITION]["detector"]["a"].boxes, [[0, 0, 99, 100], [102, 0, 200, 100]])
    scores = cutters.summary(cuts, {"all": ["a"]})["scores"]
    assert scores[PARTITION]["all"]["detector"]["ap"] == pytest.approx(1)
    assert scores[TIGHT]["all"]["detector"]["over"] == pytest.approx(4 / 98)
    assert scores[TIGHT]["all"]["detector"]["count_error"] == 0
    assert cuts.per_figure(TIGHT, "detector")["a"]["imageclef"] == 100


def test_differences_are_paired_by_figure(rng):
    """One finder is right in two of three figures, where the other finds nothing that matches."""
    truth = np.float32([[0, 0, 50, 100], [50, 0, 100, 100]])
    samples = [Sample(str(i), np.full((100, 100, 3), i, np.uint8), truth) for i in range(3)]
    whole, right = (Detections(boxes, np.ones(len(boxes), np.float32)) for boxes in (np.float32([[0, 0, 9, 9]]), truth))
    ways = {
        DETECTOR: Cutter(lambda images: [right if image[0, 0, 0] else whole for image in images]),
        CONTROL: Cutter(lambda images: [whole for _ in images]),
    }
    found = cutters.summary(cutters.cut(samples, ways), {"all": ["0", "1", "2"]})["differences"][TIGHT]["all"]
    assert found["iou"]["mean"] == pytest.approx(2 / 3)
    assert found["iou"]["higher"] == 2
    assert found["imageclef"]["mean"] == pytest.approx(100 / 3)  # a small box in the left panel is half of what is asked for
    assert found["imageclef"]["low"] < found["imageclef"]["mean"] < found["imageclef"]["high"]


def test_the_command_measures_all_and_the_page_says_what_is_recorded(data, run, tmp_path, capsys):
    assert call(data, tmp_path, f"--run={run}") == 0
    printed = capsys.readouterr().out
    told = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert set(told) == {figures.RECORD, semireal.RECORD, single.RECORD, trivial.RECORD}
    half = told[semireal.RECORD]
    assert {name: size["figures"] for name, size in half["groups"].items()} == {
        "all": 18,
        **{f"{gap}, {classes}": 3 for gap in semireal.GAPS for classes in semireal.CLASSES},
        **dict.fromkeys(semireal.PANELS, 6),
    }
    for convention in cutters.CONVENTIONS:
        assert list(half["scores"][convention]["all"]) == ["one panel", "2 x 2", "xycut", "detector"]
        assert half["differences"][convention]["all"]["imageclef"]["n"] == 18
    page = "".join(f"<!-- table {name} small -->\n<!-- end -->\n" for name in ("figures", "figures-semireal", "figures-imageclef"))
    filled = render.filled(page, tmp_path)
    for part in (figures.table(tmp_path / figures.RECORD), semireal.table(tmp_path / semireal.RECORD)):
        assert part in filled
        assert part in printed
    assert "detector minus xycut" in filled
    assert "| 2 x 2 for every figure | 29.2 |" in filled  # all of one layout, half of 1 x 2, a quarter of one panel, nothing of three
    assert "| the truth, every side times 1.25 | 0.0 |" in filled
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert call(data, tmp_path, f"--run={run}", "--only", "semi-real") == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert call(data, tmp_path, "--list") == 0
    assert "semi-real: recorded" in capsys.readouterr().out


def test_semi_real_figures_are_what_their_buckets_say(data):
    source, layouts = semireal.singles(data), data / semireal.LAYOUTS
    assert len(source) == 11
    for bucket in semireal.BUCKETS:
        made = bucket.figures(source, layouts)
        low, high = semireal.PANELS[bucket.panels]
        for i in range(3):
            plan, boxes = made.plan(i), made[i]["boxes"]
            share = plan.layout.gap / plan.layout.width
            assert low <= len(boxes) <= high
            assert set(plan.kinds) == {"image"}
            assert {"gap 0": share == 0, "gap to 1 %": 0 < share <= 0.01, "gap above 1 %": 0.01 < share <= 0.07}[bucket.gap]
            if bucket.classes == "intra-class":
                assert len({source[image.number]["label"] for image in plan.shown}) == 1
    names = [sample.name for sample in semireal.samples(data, 1)]
    assert sorted(names) == sorted(semireal.groups(1)["all"])


def test_figures_of_several_classes_show_several_and_no_class_more_than_its_share(data):
    """One set is squares, the other wide: what fits a cell best must not decide which is seen."""
    source, layouts = semireal.singles(data), data / semireal.LAYOUTS
    shown = []
    for bucket in semireal.BUCKETS:
        made = bucket.figures(source, layouts)
        if bucket.classes == "inter-class":
            for i in itertools.islice(semireal.meant(bucket, made), 8):
                labels = [source[image.number]["label"] for image in made.plan(i).shown]
                assert len(set(labels)) > 1
                shown += [image.number >= source.ends[0] for image in made.plan(i).shown]
    assert 0.35 < np.mean(shown) < 0.65


def test_semi_real_figures_do_not_depend_on_how_many_there_are(data):
    few, many = ({sample.name: sample for sample in semireal.samples(data, count)} for count in (1, 2))
    assert len(many) == 2 * len(few)
    for name, sample in few.items():
        np.testing.assert_array_equal(sample.image, many[name].image)
        np.testing.assert_array_equal(sample.boxes, many[name].boxes)


def test_published_layouts_can_be_spaced(datasets):
    """All of ImageCLEF's are straight cuts, so that every gap is exact."""
    table = datasets / semireal.LAYOUTS
    assert [len(layouts_of(str(table), *panels)) for panels in semireal.PANELS.values()] == [4981, 1453, 317]
    for published in layouts_of(str(table), 2, 1000)[::40]:
        for share in (0.0, 0.01, 0.04):
            layout = replay(published, 500)
            spaced = respace(layout, round(share * layout.width))
            widened = spaced.boxes + np.array([-1, -1, 1, 1]) * spaced.gap / 2
            assert not np.triu(intersection(widened, widened), 1).any()
            assert (spaced.boxes[:, 2:] - spaced.boxes[:, :2]).min() >= TINY
            assert widened.min() >= -spaced.gap
            area = (widened[:, 2:] - widened[:, :2]).prod(1).sum()
            low, high = spaced.boxes[:, :2].min(0), spaced.boxes[:, 2:].max(0)
            assert area == pytest.approx((high - low + spaced.gap).prod())  # so every two neighbours are the gap apart


def test_what_is_missing_is_told_and_the_rest_measured(tmp_path, capsys):
    folder = tiny.figure_sets(tmp_path / "sets")
    (folder / "chase_db1").rename(folder / "elsewhere")
    assert call(folder, tmp_path / "records") == runner.LEFT_OUT
    said = capsys.readouterr().err
    assert f"semi-real: passed over, {folder / 'chase_db1'} does not exist; name the folder of the data sets with --data." in said
    assert {path.name for path in (tmp_path / "records").iterdir()} == {figures.RECORD, trivial.RECORD}  # single ones need them too
    (folder / "compound_figures" / "panels.csv").write_text("image\n")
    assert call(folder, tmp_path / "records", "--only", "real") == runner.LEFT_OUT
    assert "real: passed over" in capsys.readouterr().err


def test_single_images_are_left_whole_or_not(data, tmp_path, monkeypatch, capsys):
    """Of all parts where a set is not trained on, else of its test images."""
    cut_all = Cutter(
        lambda images: [Detections(np.float32([[0, 0, 9, 9], [0, 10, 9, 19]]), np.float32([0.9, 0.8])) for _ in images], 0.5, "mark"
    )
    cut_none = Cutter(lambda images: [Detections(np.float32([[0, 0, 9, 9], [0, 10, 9, 19]]), np.float32([0.9, 0.1])) for _ in images], 0.5)
    assert single.measure(data, {"detector": cut_all, "xycut": cut_none}, tmp_path / single.RECORD) == 0
    told = json.loads((tmp_path / single.RECORD).read_text())
    assert told["detector"] == "mark"
    assert {name: row["images"] for name, row in told["sets"].items()} == {
        "pbc_blood_cells": 7,
        "chase_db1": 4,
        "lc25000_histology": 3,
        "cxr_montgomery": 3,
        "dsb2018_nuclei": 3,
    }
    table = single.table(tmp_path / single.RECORD)
    assert table in capsys.readouterr().out
    assert "| pbc_blood_cells | 7 | 0.000 | 1.000 |" in table
    assert "| lc25000_histology, held out | 3 | 0.000 | 1.000 |" in table
    assert single.table(tmp_path / "none") == "Nothing is recorded yet."


def test_the_front_page_has_what_the_records_say(data, tmp_path):
    assert front.table(tmp_path) == "Nothing is recorded yet."
    assert call(data, tmp_path, "--only", "real", "semi-real") == 0
    lines = front.table(tmp_path).splitlines()
    scores = json.loads((tmp_path / figures.RECORD).read_text())["scores"][TIGHT]["all"]["xycut"]
    assert (
        f"|  | along blank lines | {scores['ap50']:.3f} | {scores['ap']:.3f} | {scores['imageclef']:.1f} | {scores['right']:.3f} |" in lines
    )
    assert [line.split("|")[1].strip() for line in lines[2:] if line.split("|")[1].strip()] == [
        "real figures (2)",
        "panels without gaps, alike (3)",
        "panels without gaps, unlike (3)",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,x0,y0,x1,y1\nM\xfcller.png,1,1,9,9\n".encode("latin-1"), "is no text in UTF-8; save it as CSV in UTF-8"),
        ("image,x0,y0,x1,y1\none_a.png,1,1,9,9\n".encode("utf-16"), "is no text in UTF-8; save it as CSV in UTF-8"),
        (b'image,x0,y0,x1,y1\n"one_a.png,1,1,9,9\n', "is no whole CSV (unexpected end of data); look for a quote that is not closed"),
        (b"image,x0,y0,x1,y1\none_a.png,1,1,250,9\n", "a box of one_a.png, 1, 1 to 250, 9, is not in its 200 x 200 pixels"),
        (b"image,x0,y0,x1,y1\none_a.png,-9,1,20,9\n", "a box of one_a.png, -9, 1 to 20, 9, is not in"),
        (b"image,x0,y0,x1,y1\none_a.png,1,1,inf,9\n", "to inf, 9, is not in"),
        (b"image,x0,y0,x1,y1\none_a.png,1\n", "gives one_a.png the coordinate None"),
    ],
)
def test_boxes_that_are_none_of_these_figures(data, tmp_path, capsys, content, said):
    (tmp_path / "boxes.csv").write_bytes(content)
    assert own(tmp_path / "boxes.csv", data / "compound_figures" / "images") == 2
    assert said in capsys.readouterr().err


def test_places_that_do_not_exist_are_told_before_anything_is_cut(data, tmp_path, capsys):
    home = data / "compound_figures"
    assert own(home / "panels.csv", tmp_path / "nowhere") == 2
    assert "nowhere is no folder; name the one that holds the figures" in capsys.readouterr().err
    assert own(home / "panels.csv", home / "images", f"--record={tmp_path / 'no' / 'x.json'}") == 2
    said = capsys.readouterr().err
    assert "lies in no folder that exists" in said
    assert "cut by" not in said
    assert own(home / "panels.csv", home / "images", f"--record={tmp_path}") == 2
    assert "is a folder; name a file" in capsys.readouterr().err


def test_panels_that_touch():
    first = np.float32([0, 0, 50, 50])
    for second, near in (
        ([51, 0, 90, 50], True),
        ([52, 0, 90, 50], False),
        ([0, 50, 50, 90], True),
        ([40, 40, 90, 90], True),
        ([80, 51, 90, 90], False),
    ):
        assert figures.touch(np.stack([first, np.float32(second)])) == near
    assert not figures.touch(first[None])


def test_a_detector_that_saw_the_images_is_refused(data, tmp_path, capsys):
    run = tiny.untrained_run(tmp_path / "run")
    layouts = {"figures": {"style": {"layouts": str(data / semireal.LAYOUTS)}}}
    for learned_from, part, said in (
        ({"data": {"path": f"/sets/cells,{data / 'pbc_blood_cells'}"}}, "semi-real", "pbc_blood_cells, of which the semi-real figures"),
        (layouts, "semi-real", "imageclef2016_training_boxes.csv, of which the semi-real figures"),
        ({"data": {"path": str(data / "compound_figures" / "images")}}, "real", "compound_figures, of which the real figures"),
    ):
        (run / "config.json").write_text(json.dumps(learned_from))
        assert call(data, tmp_path / "records", f"--run={run}", "--only", part) == runner.LEFT_OUT
        assert f"was trained on {said} are made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("segmentation", "--run=runs/simcfs"), "--run=runs/simcfs means nothing to the table segmentation"),
        (("figures-ablation", "--run=runs/simcfs"), "means nothing to the table figures-ablation"),
        (("figures-ablation", "--per-bucket=2"), "--per-bucket=2 means nothing to the table figures-ablation"),
        (("figures", "--budget=full"), "--budget=full means nothing to the table figures"),
        (("figures", "--shard=1/2"), "measured by one process"),
        (("figures-speed", "--shard=1/2"), "measured at once, by one process"),
        (("figures", "--only", "unreal"), "has no 'unreal'; --only takes real, semi-real, single, trivial"),
        (("figures", "--run=nowhere"), "nowhere holds no trained detector"),
    ],
)
def test_options_that_mean_nothing(arguments, said, tmp_path, capsys):
    assert runner.main([*arguments, f"--records={tmp_path}"]) == 2
    assert said in capsys.readouterr().err


def test_no_figure_to_score(data, tmp_path, capsys):
    assert runner.main(["figures", f"--data={data}", f"--records={tmp_path}", "--per-bucket=0", "--only", "semi-real"]) == runner.LEFT_OUT
    assert "--per-bucket=0 leaves no figure" in capsys.readouterr().err


def test_without_records_there_is_nothing_to_show(tmp_path):
    for name in ("figures", "figures-semireal", "figures-single", "figures-imageclef", "figures-speed"):
        assert render.PARTS[name](tmp_path, "small") == "Nothing is recorded yet."
    assert set(compound.PARTS) == {"real", "semi-real", "single", "trivial"}


def test_figures_a_second(data, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures_speed, "ROUNDS", 2)
    monkeypatch.setattr(figures_speed, "SIMULATED", 4)
    command = ["figures-speed", f"--data={data}", f"--records={tmp_path}"]
    assert runner.main([*command, f"--run={run}"]) == 0
    told = json.loads((tmp_path / figures_speed.RECORD).read_text())
    assert list(told["rows"]) == ["simulated", "separate, xycut", "separate, detector"]
    assert [row["figures"] for row in told["rows"].values()] == [4, 2, 2]
    assert all(0 < row["fastest"] <= row["median"] <= row["slowest"] for row in told["rows"].values())
    assert told["machine"]["cores"] >= told["cores"] >= 1
    assert figures_speed.table(tmp_path / figures_speed.RECORD) in capsys.readouterr().out
    (data / "chase_db1").rename(data / "elsewhere")
    assert runner.main(command) == runner.LEFT_OUT
    (data / "elsewhere").rename(data / "chase_db1")
    assert "chase_db1 does not exist" in capsys.readouterr().err
