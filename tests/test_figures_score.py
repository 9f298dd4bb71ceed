"""The measures of how well figures were cut: the reference's values, the challenge's trivial baselines, and a slow second reading of AP."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from medssl_jax.errors import UserError
from medssl_jax.figures.boxes import extent, iou
from medssl_jax.figures.clef import read_clef, read_nlm, read_panels
from medssl_jax.figures.score import (
    Detections,
    average_precision,
    evaluate,
    imageclef,
    imageclef_accuracy,
    meant,
    per_figure,
    yolo_precision,
)

GRID = np.float32([[0, 0, 100, 100], [100, 0, 200, 100], [0, 100, 100, 200], [100, 100, 200, 200]])
WHOLE = np.float32([[0, 0, 200, 200]])


def scaled(boxes, factor):
    """Every side by that factor, about the centres."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    return np.concatenate([centre - half, centre + half], axis=1)


def regular(boxes, rows, columns):
    """A grid in whole pixels on the extent of the boxes."""
    x0, y0, x1, y1 = extent(boxes)
    x, y = np.rint(np.linspace(x0, x1, columns + 1)), np.rint(np.linspace(y0, y1, rows + 1))
    return np.float32([[x[j], y[i], x[j + 1], y[i + 1]] for i in range(rows) for j in range(columns)])


@pytest.mark.parametrize(
    ("candidates", "score"),
    [
        *((scaled(GRID, factor), 1) for factor in (1, 0.1, 0.5, 1.2, 1.22)),
        *((scaled(GRID, factor), 0) for factor in (1.24, 1.25)),
        (WHOLE, 0),
        (GRID[:3], 0.75),
        (GRID[[0, 1, 2, 3, 3]], 0.8),
        ([[50, 50, 51, 51], [150, 50, 151, 51], [50, 150, 51, 151], [150, 150, 151, 151]], 1),
        ([[0, 0, 50, 100], [50, 0, 100, 100], *GRID[1:]], 0.8),
        (np.zeros((0, 4)), 0),
    ],
)
def test_imageclef_on_a_grid(candidates, score):
    assert imageclef(GRID, candidates) == pytest.approx(score)


def test_imageclef_of_a_panel_in_two():
    assert imageclef(GRID[:1], [[0, 0, 50, 100], [50, 0, 100, 100]]) == 0.5


@pytest.mark.parametrize(("width", "score"), [(200, 0), (201, 1)])
def test_exactly_two_thirds_is_too_little(width, score):
    assert imageclef([[0, 0, width, 100]], [[0, 0, width + 100, 100]]) == score


def test_imageclef_has_no_second_choice():
    assert imageclef([[0, 0, 100, 100]] * 2, [[10, 10, 50, 50], [0, 0, 100, 100]]) == 0.5


def test_a_figure_that_was_not_cut_counts():
    assert imageclef_accuracy({"a": GRID, "b": GRID}, {"a": GRID, "c": WHOLE}) == 50


@pytest.fixture(scope="module")
def challenge(datasets):
    return read_panels(datasets / "panel_layouts" / "imageclef2016_training_boxes.csv")


@pytest.mark.parametrize(
    ("rows", "columns", "percent"),
    [(1, 1, 1.1), (1, 2, 21.4), (2, 1, 22.3), (2, 2, 43.8), (1, 3, 18.4), (3, 1, 23.6), (2, 3, 36.3), (3, 2, 42.1)],
)
def test_the_challenges_trivial_baselines(challenge, rows, columns, percent):
    found = {name: regular(boxes, rows, columns) for name, boxes in challenge.items()}
    assert imageclef_accuracy(challenge, found) == pytest.approx(percent, abs=0.06)


@pytest.mark.parametrize(("factor", "percent"), [(0.1, 100.0), (1.2, 100.0), (1.25, 0.0)])
def test_the_challenge_does_not_see_the_size_of_boxes(challenge, factor, percent):
    found = {name: scaled(boxes, factor) for name, boxes in challenge.items()}
    assert imageclef_accuracy(challenge, found) == pytest.approx(percent, abs=0.05)


def test_the_best_regular_grid(challenge):
    best = []
    for boxes in challenge.values():
        score, sizes = 0.0, itertools.product(range(1, 7), repeat=2)
        for rows, columns in sorted(sizes, key=lambda size: abs(np.log(size[0] * size[1] / len(boxes)))):
            fewer, more = sorted((rows * columns, len(boxes)))
            if fewer / more > score:  # else no grid of that many cells can be better
                score = max(score, imageclef(boxes, regular(boxes, rows, columns)))
        best.append(score)
    assert 100 * np.mean(best) == pytest.approx(94.1, abs=0.06)


def noisy(rng, figures):
    """Detections of every kind: exact, displaced, doubled, missed and invented ones, with scores that tie."""
    truths, found = {}, {}
    for figure in range(figures):
        low = rng.uniform(0, 150, (rng.integers(1, 7), 2))
        truth = np.float32(np.concatenate([low, low + rng.uniform(30, 90, low.shape)], axis=1))
        boxes = truth[rng.integers(0, len(truth), rng.integers(0, 9))]
        boxes = boxes + rng.normal(0, 1, boxes.shape) * rng.choice([0, 3, 12], (len(boxes), 1))
        truths[str(figure)] = truth
        if figure % 9:
            found[str(figure)] = Detections(np.float32(boxes), rng.random(len(boxes)).round(2))
    return truths, found


def slow_ap(truths, found, threshold):
    """COCO's AP as the words say: detections of the whole set from the surest on, then the best precision at each recall or beyond."""
    free = {name: list(range(len(boxes))) for name, boxes in truths.items()}
    ranked = sorted(((-score, int(name), i) for name, own in found.items() for i, score in enumerate(own.scores)), key=lambda row: row[0])
    hits, points, total = 0, [], sum(len(boxes) for boxes in truths.values())
    for rank, (_, name, i) in enumerate(ranked, 1):
        overlaps = {j: iou(truths[str(name)][j : j + 1], found[str(name)].boxes[i : i + 1]).item() for j in free[str(name)]}
        best = max(overlaps, key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] >= threshold:
            free[str(name)].remove(best)
            hits += 1
        points.append((hits / total, hits / rank))
    return np.mean([max((p for r, p in points if r >= recall / 100), default=0) for recall in range(101)])


@pytest.mark.parametrize("threshold", [0.5, 0.75, 0.9])
def test_average_precision_as_the_words_say(rng, threshold):
    truths, found = noisy(rng, 40)
    assert average_precision(truths, found, (threshold,)) == pytest.approx(slow_ap(truths, found, threshold))


def test_average_precision_of_perfect_and_of_no_detections():
    perfect = {"a": Detections(GRID, np.ones(4))}
    assert average_precision({"a": GRID}, perfect) == 1
    assert average_precision({"a": GRID, "b": GRID}, perfect, (0.5,)) == pytest.approx(51 / 101)
    assert average_precision({"a": GRID}, {}) == 0
    assert yolo_precision({"a": GRID}, {}) == pytest.approx(0.005)  # the first of its 101 points is precision 1 at recall 0
    assert yolo_precision({"a": GRID}, perfect) == pytest.approx(1)


def test_yolos_detection_has_one_choice_and_spends_it():
    """Two detections prefer panel 0; COCO gives the second to panel 1. The first, of IoU 0.6, also blocks it at 0.75."""
    truth = np.float32([[0, 0, 100, 100], [30, 0, 130, 100]])
    boxes = np.float32([[0, 0, 60, 100], [2, 0, 102, 100]])
    found = {"a": Detections(boxes, np.array([0.9, 0.8]))}
    assert average_precision({"a": truth}, found, (0.5,)) == 1
    assert yolo_precision({"a": truth}, found, (0.5,)) == pytest.approx(np.trapezoid([1] * 50 + [0.5] + [0] * 50, dx=0.01))
    assert average_precision({"a": truth}, found, (0.75,)) == pytest.approx(51 / 101 / 2)
    assert yolo_precision({"a": truth}, found, (0.75,)) == 0


def test_what_is_said_of_a_figure():
    boxes = np.float32([[0, 0, 110, 100], [100, 20, 200, 100], [0, 100, 100, 140]])
    row = per_figure(GRID, boxes)
    assert row["iou"] == pytest.approx((100 / 110 + 0.8) / 2)
    assert row["over"] == pytest.approx(0.05)
    assert row["under"] == pytest.approx(0.1)
    assert (row["count_error"], row["right"], row["imageclef"]) == (1, 0, 0.75)
    assert per_figure(GRID, scaled(GRID, 0.9))["right"] == 1
    assert per_figure(GRID, scaled(GRID, 0.8))["right"] == 0
    assert per_figure(GRID, GRID[[0, 1, 2, 3, 3]])["right"] == 0
    assert np.isnan(per_figure(GRID, WHOLE)["iou"])


def test_the_scores_of_a_set():
    unsure = Detections(np.concatenate([WHOLE, GRID]), np.array([0.2, 0.9, 0.9, 0.9, 0.9]))
    np.testing.assert_array_equal(meant(unsure), GRID)
    scores = evaluate({"a": GRID, "b": GRID}, {"a": unsure})
    assert (scores["ap"], scores["ap50"]) == pytest.approx((51 / 101, 51 / 101))
    expected = {"imageclef": 50, "iou": 1, "over": 0, "under": 0, "count_error": 2, "right": 0.5}
    assert {key: scores[key] for key in expected} == expected
    assert evaluate({"a": GRID}, {"a": unsure}, sure=0.1)["count_error"] == 0  # all at once is no panel beside its panels
    surest = unsure._replace(scores=unsure.scores[::-1])
    assert evaluate({"a": GRID}, {"a": surest}, sure=0.95)["count_error"] == 4
    assert evaluate({"a": GRID}, {"a": surest._replace(scores=np.array([0.9, 0.8, 0.8, 0.8, 0.8]))})["count_error"] == 3


@pytest.mark.parametrize("measure", [average_precision, yolo_precision, imageclef_accuracy, evaluate])
def test_no_truth_is_refused(measure):
    with pytest.raises(UserError, match="there is no panel to score against"):
        measure({}, {})


XML = """<annotations><annotation><filename>{name}</filename><object><point x="0" y="1"/><point x="{x}" y="1"/>
<point x="0" y="9"/><point x="{x}" y="9"/></object></annotation>
<annotation><filename>1471-2261-9-18-2</filename></annotation></annotations>"""


def test_the_challenges_xml(tmp_path):
    path = tmp_path / "gt.xml"
    path.write_text(XML.format(name="fig1.jpg", x=20))
    (name,), (boxes,) = zip(*read_clef(path).items())
    assert name == "fig1"
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, [[0, 1, 20, 9]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation>", "cannot be read as ImageCLEF's XML"),
        ("<a/>", "holds no annotation"),
        (XML.format(name="a", x="wide"), "gives a the coordinate 'wide'"),
        (XML.format(name="a", x=0), "gives a the box 0, 1 to 0, 9, which has no extent"),
        ("<a><annotation><filename>b</filename><object/></annotation></a>", "an object without points in b"),
    ],
)
def test_other_xml_is_refused(tmp_path, text, said):
    path = tmp_path / "gt.xml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_clef(path)


def test_lists_of_nlm(tmp_path):
    """Made up in the form of the published ones: with a letter, with empty fields, and without fields for it."""
    path = tmp_path / "eval.csv"
    path.write_text("zou/5/a.jpg,1,0,61,40,panel,1,27,16,45,A\nzou/4/b.jpg,3,2,9,8,panel,,,,,\nzou/5/a.jpg,62,0,99,40,panel\n")
    found = read_nlm(path)
    assert list(found) == ["zou/5/a.jpg", "zou/4/b.jpg"]
    assert found["zou/4/b.jpg"].dtype == np.float32
    np.testing.assert_array_equal(found["zou/5/a.jpg"], [[1, 0, 61, 40], [62, 0, 99, 40]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no list of panels"),
        ("", "eval.csv is empty"),
        ("image,x0,y0,x1,y1\n", "line 1 of .*eval.csv is not NLM's"),
        ("a.jpg,1,0,61,40,panel\na.jpg,1,0,61,40,label\n", "line 2 of .* is not NLM's"),
        ("a.jpg,1,,61,40,panel\n", "gives a.jpg the coordinate ''"),
        ("a.jpg,1,2,0,4,panel\n", "the box 1, 2 to 0, 4"),
    ],
)
def test_other_lists_are_refused(tmp_path, text, said):
    path = tmp_path / "eval.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_nlm(path)


def test_tables_of_panels(tmp_path):
    path = tmp_path / "panels.csv"
    path.write_text("image,panel_label,x0,y0,x1,y1\na.png,A,3,4,5,6\nb.png,A,0,0,9,9\na.png,B,7,4,9,6\n")
    found = read_panels(path)
    np.testing.assert_array_equal(found["a.png"], [[3, 4, 5, 6], [7, 4, 9, 6]])
    assert list(found) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"has the columns \(none\)"),
        ("image,x0\na,1\n", "has the columns image, x0; needed are"),
        ("image,x0,y0,x1,y1\na,1,2,,4\n", "gives a the coordinate ''"),
        ("image,x0,y0,x1,y1\na,1,2,0,4\n", "the box 1, 2 to 0, 4"),
        ("image,x0,y0,x1,y1\na,1,2\n", "coordinate None"),
        (None, "there is no table of panels"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, said):
    path = tmp_path / "panels.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_panels(path)
