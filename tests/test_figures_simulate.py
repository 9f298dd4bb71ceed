"""Simulated figures: the numbers of the reference, boxes that are exact, and the same figure in any order."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from PIL import Image

from medssl_jax.errors import UserError
from medssl_jax.figures import layouts, replay
from medssl_jax.figures.degrade import degrade
from medssl_jax.figures.distractors import DRAWN, content, draw_panel
from medssl_jax.figures.layouts import GAPS, Layout, Pad
from medssl_jax.figures.pen import draw_theme
from medssl_jax.figures.simulate import Figures, Style
from medssl_jax.figures.singles import ByFolder, Singles
from medssl_jax.figures.style import COUNTS, changed_style

WHITE = (255, 255, 255)
SIZES = ((60, 80), (96, 64), (50, 50), (120, 90))  # height, width
BARE = dict.fromkeys(("replayed", "intra_class", "tinted", "lettered", "framed", "scale_bars", "arrows", "headers", "crossing"), 0.0)


class Images:
    """Noise around a colour of its own, never near white or black; labels in turn."""

    def __init__(self, count=12, labels=3, channels=3, dtype=np.uint8):
        self.count, self.labels, self.channels, self.dtype = count, labels, channels, dtype

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        shape = (*SIZES[index % len(SIZES)], self.channels)
        image = rng.integers(60, 160, self.channels) + rng.integers(-20, 20, shape)
        example = {"image": image.astype(self.dtype), "id": f"{'ab'[index % 2]}/{index}.png"}
        return {**example, "label": index % self.labels} if self.labels else example


class Discs(Images):
    """A dark disc on a bright ground: it shows whether an image was stretched."""

    def __getitem__(self, index):
        height, width = (4 * side for side in SIZES[index % len(SIZES)])
        rows, columns = np.ogrid[:height, :width]
        inside = (rows + 0.5 - height / 2) ** 2 + (columns + 0.5 - width / 2) ** 2 < (0.4 * min(height, width)) ** 2
        return {"image": np.where(inside, 30, 220).astype(np.uint8)[..., None], "id": str(index)}


def extent(mask):
    """The rectangle (x0, y0, x1, y1) of what is True."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def overlap(boxes):
    """The largest width or height that two boxes share in both directions."""
    shared = (np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])).min(-1)
    return float(np.where(np.eye(len(boxes), dtype=bool), -np.inf, shared).max())


def test_a_figure_is_the_same_in_any_order():
    figures = Figures(Images(), seed=3)
    alone = Figures(Images(), seed=3)[17]
    sent = pickle.loads(pickle.dumps(figures))
    for i in (2, 17, 5):
        figures[i]
    for other in (figures[17], sent[17]):
        assert other["id"] == alone["id"]
        assert other["kinds"] == alone["kinds"]
        for key in ("image", "boxes", "cells"):
            np.testing.assert_array_equal(other[key], alone[key])
    assert not np.array_equal(Figures(Images(), seed=4)[17]["boxes"], alone["boxes"])
    assert len({figures[i]["image"].tobytes() for i in range(20)}) == 20


@pytest.mark.parametrize("style", [Style(), Style(intra_class=1.0), Style(replayed=1.0), Style(keep_aspect=False, letters_in_box=True)])
def test_tight_boxes_lie_in_disjoint_cells(style):
    for i in range(40):
        figure = Figures(Images(), style, seed=1)[i]
        boxes, cells, (height, width) = figure["boxes"], figure["cells"], figure["image"].shape[:2]
        assert figure["image"].dtype == np.uint8
        assert boxes.dtype == cells.dtype == np.float32
        assert boxes.shape == cells.shape == (len(figure["kinds"]), 4)
        assert set(figure["kinds"]) <= {"image", *DRAWN}
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes >= -1e-3).all()
        assert (boxes <= np.array([width, height, width, height]) + 1e-3).all()
        assert (np.concatenate([cells[:, :2] - boxes[:, :2], boxes[:, 2:] - cells[:, 2:]]) <= 3).all()
        assert overlap(cells) <= 1e-3


def test_the_histogram_of_counts(rng):
    counts = np.array([layouts.draw_count(rng, COUNTS) for _ in range(20_000)])
    groups = [counts == k for k in range(1, 7)] + [(counts >= 7) & (counts <= 9), counts >= 10]
    np.testing.assert_allclose([group.mean() for group in groups], np.array(COUNTS) / sum(COUNTS), atol=0.012)
    assert counts.max() <= layouts.MOST
    five = Figures(Images(), Style(counts=(0, 0, 0, 0, 1, 0, 0, 0), replayed=0.0), 0)
    assert {len(five[i]["boxes"]) for i in range(8)} == {5}


def test_a_fifth_of_the_figures_has_no_gap():
    figures = Figures(Images(), Style(intra_class=0.0, replayed=0.0), seed=1)
    plans = [plan for plan in map(figures.plan, range(2500)) if len(plan.kinds) > 1]
    gaps = np.array([plan.layout.gap for plan in plans])
    assert np.mean(gaps == 0) == pytest.approx(0.2, abs=0.02)
    shares = np.array([plan.layout.gap / plan.layout.width for plan in plans if plan.layout.gap > 3])
    assert shares.max() < 0.09  # the widest drawn is .07 of the width before letters and margins are added
    drawn = np.array([layouts.draw_gap(np.random.default_rng(i), Style(), False) for i in range(4000)])
    quantiles = np.quantile(drawn[drawn > 0], (np.array(GAPS[0]) - 0.25) / 0.7)
    np.testing.assert_allclose(quantiles[1:3], GAPS[1][1:3], rtol=0.15)
    np.testing.assert_allclose(quantiles[[0, 3]], [GAPS[1][0], GAPS[1][3]], rtol=0.02)


def test_aspect_is_kept_or_not():
    """Both sides of a panel are those of its image by one scale, to less than a pixel; its content too."""
    source, style = Discs(labels=0), {**BARE, "cropped": 0.0, "distractors": 0.0, "degrade": False}
    kept, stretched = Figures(source, Style(**style), 5), Figures(source, Style(**style, keep_aspect=False), 5)
    for i in range(25):
        plan = kept.plan(i)
        for image, box in zip(plan.shown, plan.layout.boxes):
            stored, drawn = np.array(source[image.number]["image"].shape[1::-1]), box[2:] - box[:2]
            assert ((drawn - 1) / stored).max() < ((drawn + 1) / stored).min()

    def round_discs(figure):
        found = []
        for x0, y0, x1, y1 in figure["boxes"].astype(int):
            x, y, right, low = extent(figure["image"][y0:y1, x0:x1, 0] < 128)
            found.append(abs((right - x) - (low - y)) <= 2)
        return np.mean(found)

    assert all(round_discs(kept[i]) == 1 for i in range(15))
    assert np.mean([round_discs(stretched[i]) for i in range(15)]) < 0.3


def test_trees_fill_the_figure_and_keep_pads(rng):
    """Panels and pads of a row end where the figure ends, gaps are all the same."""
    for kind in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        for _ in range(20):
            count = int(rng.integers(2, 15))
            aspects = np.exp(rng.normal(0, 0.4, count))
            tree = layouts.draw_tree(rng, aspects, kind)
            layout = layouts.arrange(tree, aspects, 600, 0.02, Pad(left=12, bottom=9), Pad(5, 6, 7, 8))
            outer = layout.boxes + np.array([-12, 0, 0, 9])
            np.testing.assert_allclose(outer[:, :2].min(0), [5, 6])
            np.testing.assert_allclose(outer[:, 2:].max(0), [layout.width - 7, layout.height - 8], atol=1)
            assert overlap(outer) == pytest.approx(-layout.gap, abs=1)
            assert (layout.boxes[:, 2:] - layout.boxes[:, :2]).min() >= layouts.TINY - 1


def test_rows_and_columns_are_what_they_say(rng):
    aspects = np.exp(rng.normal(0, 0.3, 9))
    for kind, axis in (((1, 0, 0), 1), ((0, 1, 0), 0)):
        layout = layouts.arrange(layouts.draw_tree(rng, aspects, kind), aspects, 600, 0.01, Pad(), Pad())
        lines = {(box[axis], box[axis + 2]) for box in layout.boxes.tolist()}
        assert all(low[1] <= high[0] for low, high in zip(sorted(lines)[:-1], sorted(lines)[1:]))


@pytest.mark.parametrize("distractors", [0.0, 1.0])
def test_boxes_are_tight(distractors):
    """Every side of a box has content on it, and ground just beyond where there is a gap."""
    style = Style(**{**BARE, "distractors": distractors, "degrade": False, "grounds": (1, 0, 0), "zero_gap": 0.0})
    figures = Figures(Images(), style, seed=2)
    for i in range(15):
        figure = figures[i]
        ink = (255 - figure["image"].astype(int)).max(-1) > 8
        framed = np.pad(ink, 1)
        for x0, y0, x1, y1 in figure["boxes"].astype(int):
            sides = (ink[y0, x0:x1], ink[y1 - 1, x0:x1], ink[y0:y1, x0], ink[y0:y1, x1 - 1])
            beyond = (framed[y0, x0 + 1 : x1], framed[y1 + 1, x0 + 1 : x1], framed[y0 + 1 : y1, x0], framed[y0 + 1 : y1, x1 + 1])
            assert all(side.any() if distractors else side.all() for side in sides)  # a plot has no frame
            assert not any(side.any() for side in beyond)
        assert not (ink & ~covered(figure)).any()


def covered(figure):
    """Where the panels are, bool [H, W]."""
    inside = np.zeros(figure["image"].shape[:2], bool)
    for x0, y0, x1, y1 in figure["boxes"].astype(int):
        inside[y0:y1, x0:x1] = True
    return inside


@pytest.mark.parametrize(
    ("mark", "inside", "outside"),
    [("framed", 1, 0), ("scale_bars", 1, 0), ("arrows", 0.5, 0), ("headers", 0, 1), ("crossing", 0, 0.6)],
)
def test_marks_stay_inside_or_lie_around(mark, inside, outside):
    """Frames, bars and arrows are drawn on panels; titles around them and names of axes between them, where they may touch both.

    `inside` and `outside` are the least shares of figures with such ink there; 0 outside means none at all.
    """
    style = Style(**{**BARE, mark: 1.0, "distractors": 0.0, "degrade": False, "grounds": (1, 0, 0), "zero_gap": 0.0})
    figures = Figures(Images(), style, seed=6)
    within, around = [], []
    for figure in map(figures.__getitem__, range(24)):
        panels, pixels = covered(figure), figure["image"].astype(int)
        within.append((panels & ((pixels < 35) | (pixels > 185)).any(-1)).any())  # beyond the colours of the images
        around.append((~panels & (pixels < 215).any(-1)).any())
    assert np.mean(within) >= inside
    assert np.mean(around) >= outside if outside else not any(around)


def test_boxes_may_take_in_their_letters():
    style = Style(**{**BARE, "lettered": 1.0, "distractors": 0.0, "degrade": False, "zero_gap": 0.0})
    without, within = (Figures(Images(), dataclasses.replace(style, letters_in_box=value), seed=0) for value in (False, True))
    for i in range(15):
        grown = np.concatenate(
            [without[i]["boxes"][:, :2] - within[i]["boxes"][:, :2], within[i]["boxes"][:, 2:] - without[i]["boxes"][:, 2:]]
        )
        assert (grown >= 0).all()
        assert (grown > 0).any() == (without.plan(i).letters.place != "inside")
        assert overlap(within[i]["boxes"]) <= 0


def test_content_of_drawn_panels_at_any_size(rng):
    for i in range(60):
        kind, (width, height) = DRAWN[i % len(DRAWN)], rng.integers(30, 300, 2)
        panel = draw_panel(rng, kind, int(width), int(height), draw_theme(rng, 500, WHITE), alone=i % 2 == 0)
        assert panel.size == (width, height)
        found = content(panel, WHITE)
        assert found is not None
        (x0, y0, x1, y1), pixels = found, np.asarray(panel)
        dark, marked = extent(np.asarray(panel.convert("L")) < 200), (pixels < 250).any(-1)
        assert (dark[:2] >= (x0, y0)).all()
        assert (dark[2:] <= (x1, y1)).all()
        assert all(side.any() for side in (marked[y0, x0:x1], marked[y1 - 1, x0:x1], marked[y0:y1, x0], marked[y0:y1, x1 - 1]))
    assert content(Image.new("RGB", (9, 9), WHITE), WHITE) is None


def test_boxes_go_with_a_degraded_figure(rng):
    pixels = np.full((200, 300, 3), 255, np.uint8)
    pixels[40:120, 30:260] = 20
    for _ in range(20):
        image, boxes = degrade(Image.fromarray(pixels), np.array([[30, 40, 260, 120.0]]), rng, (0.5, 1.5), (40, 95))
        np.testing.assert_allclose(extent(np.asarray(image.convert("L")) < 138), boxes[0], atol=1)
    sizes = [Figures(Images(), Style(side=(400, 400), margin=0.0, headers=0.0), 0)[i]["image"].shape[:2] for i in range(30)]
    longer = np.array([max(size) for size in sizes])
    assert longer.min() < 300
    assert longer.max() > 500


def test_replayed_intra_class_figures_show_one_class():
    figures = Figures(Images(count=30, labels=3), Style(intra_class=1.0, replayed=1.0), seed=0)
    for plan in map(figures.plan, range(50)):
        assert set(plan.kinds) == {"image"}
        assert len({image.number % 3 for image in plan.shown}) == 1


def test_intra_class_figures_show_one_class_nearly_touching():
    figures = Figures(Images(count=30, labels=3), Style(intra_class=1.0, replayed=0.0), seed=0)
    for plan in map(figures.plan, range(200)):
        numbers = [image.number for image in plan.shown]
        assert len({number % 3 for number in numbers}) == 1
        assert plan.layout.gap <= max(1, 0.003 * plan.layout.width + 0.5)
        assert set(plan.kinds) == {"image"}
    classless = Figures(Images(count=30, labels=0), Style(intra_class=1.0, replayed=0.0), seed=0)
    for plan in map(classless.plan, range(200)):
        numbers = [image.number for image in plan.shown]
        steps = np.diff(numbers) % 30
        assert (steps == 1).all() or (steps == 0).all()


def test_intra_class_figures_are_alike_in_brightness():
    style = {**BARE, "intra_class": 1.0, "cropped": 0.0, "degrade": False}

    class Flat(Images):
        def __getitem__(self, index):
            return {"image": np.full((60, 60, 1), 80 + 10 * index, np.uint8), "id": str(index), "label": 0}

    figures = Figures(Flat(), Style(**style), seed=0)
    for i in range(10):
        figure = figures[i]
        means = [figure["image"][y0:y1, x0:x1].mean() for x0, y0, x1, y1 in figure["boxes"].astype(int)]
        np.testing.assert_allclose(means, means[0], atol=2)


def test_the_share_of_drawn_panels():
    figures = Figures(Images(), Style(intra_class=0.0, replayed=0.0, distractors=0.35), seed=0)
    shares = [np.mean([kind != "image" for kind in figures.plan(i).kinds]) for i in range(1500)]
    assert np.mean(shares) == pytest.approx(0.35, abs=0.03)
    assert np.mean([share in (0, 1) for share in shares]) > 0.5  # most figures are of one sort
    none = Figures(Images(), Style(distractors=0.0, replayed=0.5), seed=0)
    assert all(set(none[i]["kinds"]) == {"image"} for i in range(10))


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (2, np.uint8), (5, np.uint8), (3, np.uint16)])
def test_images_of_any_channels_and_depth(channels, dtype):
    figure = Figures(Images(channels=channels, dtype=dtype), Style(**BARE), seed=0)[0]
    assert figure["image"].shape[-1] == 3
    picture = np.asarray(Singles(Images(channels=channels, dtype=dtype))[0])
    stored = Images(channels=channels, dtype=dtype)[0]["image"].astype(float)
    assert picture.shape == (*stored.shape[:2], 3)
    if dtype == np.uint16:
        low, high = np.percentile(stored, (0.1, 99.9), axis=(0, 1))
        np.testing.assert_allclose(picture, np.clip((stored - low) / (high - low), 0, 1) * 255, atol=1)
    elif channels == 1:
        assert (picture == picture[..., :1]).all()
    elif channels == 2:
        assert (picture[..., 2] == 0).all()


def test_long_images_and_many_panels_stay_within_bounds():
    class Long(Images):
        def __getitem__(self, index):
            return {"image": np.full((1000, 10, 1), 90, np.uint8), "id": str(index)}

    for source in (Long(), Images()):
        figures = Figures(source, Style(counts=(0, 0, 0, 0, 0, 0, 0, 1), replayed=0.0, lettered=1.0), seed=0)
        for layout in (figures.plan(i).layout for i in range(60)):
            assert max(layout.width, layout.height) < 2000
            assert (layout.boxes[:, 2:] - layout.boxes[:, :2]).min() >= layouts.TINY - 1


def table(path, lines, header="figure,x1,y1,x2,y2"):
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


def test_a_replayed_layout_keeps_its_geometry(tmp_path):
    boxes = np.array([[0, 0, 200, 100], [200, 0, 400, 100], [0, 110, 400, 310]])
    path = table(tmp_path / "own.csv", [f"f,{','.join(map(str, box))}" for box in boxes])
    style = Style(**{**BARE, "replayed": 1.0, "layouts": path, "distractors": 0.0, "degrade": False})
    for i in range(5):
        figure = Figures(Images(), style, 0)[i]
        scale = figure["image"].shape[1] / 400  # of a width that is rounded itself
        np.testing.assert_allclose(figure["boxes"], boxes * scale, atol=1)
        assert figure["boxes"][0, 2] == figure["boxes"][1, 0]


GRIDS = {  # cells of cuts with lines of 3 px; a 2 x 2, a row above a column, and three rows
    "f": [(0, 0, 200, 100), (203, 0, 400, 100), (0, 103, 200, 300), (203, 103, 400, 300)],
    "g": [(0, 0, 300, 120), (0, 123, 100, 400), (103, 123, 300, 250), (103, 253, 300, 400)],
    "h": [(0, 0, 300, 90), (0, 93, 300, 190), (0, 193, 300, 400)],
}


@pytest.fixture
def grids(tmp_path):
    return table(tmp_path / "grids.csv", [f"{name},{','.join(map(str, box))}" for name, boxes in GRIDS.items() for box in boxes])


def gaps(boxes):
    """Pixels between every two panels that look at each other with nothing between them."""
    found = []
    for axis in (0, 1):
        for a in boxes:
            shared = np.minimum(a[3 - axis], boxes[:, 3 - axis]) - np.maximum(a[1 - axis], boxes[:, 1 - axis])
            ahead = boxes[(shared > 0) & (boxes[:, axis] >= a[axis + 2])]
            found += [(ahead[:, axis] - a[axis + 2]).min()] if len(ahead) else []
    return np.array(found)


@pytest.mark.parametrize(("respaced", "low", "high"), [((0, 0), 0, 0), ((0.002, 0.01), 0.001, 0.01), ((0.011, 0.07), 0.01, 0.07)])
def test_replayed_layouts_are_closed_or_spaced(grids, respaced, low, high):
    style = Style(**{**BARE, "replayed": 1.0, "layouts": grids, "respaced": respaced, "distractors": 0.0, "degrade": False})
    figures, own = Figures(Images(), style, 0), Figures(Images(), dataclasses.replace(style, respaced=()), 0)
    for i in range(20):
        layout, as_published = figures.plan(i).layout, own.plan(i).layout
        found = gaps(layout.boxes)
        assert set(found) == {layout.gap}
        assert low * layout.width <= layout.gap <= high * layout.width
        assert (layout.width, layout.height) == (as_published.width, as_published.height)
        np.testing.assert_allclose(layout.boxes, as_published.boxes, atol=max(layout.gap, as_published.gap) / 2 + 3)
        np.testing.assert_array_equal(figures[i]["boxes"], layout.boxes)
    assert high == 0 or len({figures.plan(i).layout.gap / figures.plan(i).layout.width for i in range(20)}) > 5


def test_gaps_leave_room_for_panels():
    boxes = np.array([[0, 0, 100, 20], [0, 23, 100, 60], [0, 63, 100, 300]])
    spaced = replay.respace(Layout(100, 300, boxes, 3), 12)
    assert spaced.gap == 4  # the smallest panel has 20 px of which 16 are kept
    assert (spaced.boxes[:, 2:] - spaced.boxes[:, :2]).min() >= layouts.TINY
    pinwheel = np.array([[0, 0, 60, 30], [63, 0, 90, 60], [33, 63, 90, 90], [0, 33, 30, 90], [33, 33, 60, 60]])
    np.testing.assert_array_equal(replay.respace(Layout(90, 90, pinwheel, 3), 0).boxes, pinwheel)  # no straight line parts them


def test_replayed_layouts_have_so_many_panels(grids):
    style = Style(**{**BARE, "replayed": 1.0, "layouts": grids, "panels": (4, 9)})
    assert {len(plan.kinds) for plan in map(Figures(Images(), style, 0).plan, range(10))} == {4}
    with pytest.raises(UserError, match="has 5 to 9 panels; change the style's panels"):
        Figures(Images(), dataclasses.replace(style, panels=(5, 9)))


def test_replayed_cells_get_images_of_about_their_shape(tmp_path):
    """Of images of four shapes, those are taken of which little is cut off, where there are any among the tried."""
    path = table(tmp_path / "own.csv", ["f,0,0,100,133", "f,110,0,210,100"])
    plans = [Figures(Images(), Style(**{**BARE, "replayed": 1.0, "layouts": path, "cropped": 0.0}), 0).plan(i) for i in range(60)]
    seen = [min(image.aspect / a, a / image.aspect) for plan in plans for image, a in zip(plan.shown, (100 / 133, 1.0)) if image]
    assert np.mean(np.array(seen) > 0.9) > 0.75


def test_layouts_that_come_with_the_package():
    published = replay.read_layouts()
    assert len(published) == 189
    assert sum(len(layout.boxes) for layout in published) == 2386
    grouped = [replay.group(layout) for layout in published]
    assert sum(len(layout.boxes) for layout in grouped) < 1800
    for before, after in zip(published, grouped):
        assert overlap(after.boxes) <= 2
        others = [name for name in before.shown if name != replay.BLOT]
        assert [name for name in after.shown if name != replay.BLOT] == others
        drawn = replay.replay(after, 500)
        assert isinstance(drawn, Layout)
        assert (drawn.boxes >= 0).all()
        assert (drawn.boxes[:, 2:] <= [drawn.width, drawn.height]).all()
        assert (drawn.boxes[:, 2:] > drawn.boxes[:, :2]).all()


def test_strips_of_a_blot_are_one_panel():
    boxes = np.array([[0, 0, 100, 20], [2, 23, 101, 40], [0, 200, 100, 220], [0, 60, 100, 180.0]])
    layout = replay.Published("f", 300, 300, boxes, (replay.BLOT, replay.BLOT, replay.BLOT, "Graphs"))
    grouped = replay.group(layout)
    np.testing.assert_array_equal(grouped.boxes, [[0, 0, 101, 40], [0, 200, 100, 220], [0, 60, 100, 180]])
    assert grouped.shown == (replay.BLOT, replay.BLOT, "Graphs")


@pytest.mark.parametrize(
    ("lines", "header", "said"),
    [
        (["f,1,2,3"], "figure,x1,y1,x2", "lacks the column y2"),
        (["f,1,2,x,4"], "figure,x1,y1,x2,y2", "line 2 of .* is no box"),
        (["f,5,2,3,4"], "figure,x1,y1,x2,y2", "line 2 of .* is an empty box"),
        (["f,0,0,9,9", "f,1,1,8,8"], "figure,x1,y1,x2,y2", "no figure whose panels lie apart"),
    ],
)
def test_tables_of_layouts_that_cannot_be_used(tmp_path, lines, header, said):
    with pytest.raises(UserError, match=said):
        replay.read_layouts(table(tmp_path / "bad.csv", lines, header))
    with pytest.raises(UserError, match="does not exist"):
        replay.read_layouts(str(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"intra_class": 1.5}, "intra_class=1.5 is a share"),
        ({"counts": (1, 2)}, "no list of 8 weights"),
        ({"grounds": (0, 0, 0)}, "nor all of them 0"),
        ({"rescale": (2, 1)}, "no rising range"),
        ({"quality": (0, 95)}, "must lie from 1 to 100"),
        ({"respaced": (0.1, 0.2)}, "must lie from 0 to 0.07"),
    ],
)
def test_styles_that_cannot_be(changes, said):
    with pytest.raises(UserError, match=said):
        Style(**changes)


def test_styles_from_the_command_line():
    assert changed_style([]) == Style()
    expected = Style(intra_class=1.0, rescale=(1, 1), keep_aspect=False, layouts="own.csv")
    assert changed_style(["intra_class=1", "rescale=(1, 1)", "keep_aspect=False", "layouts=own.csv"]) == expected


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("gaps=3", "names no part of the style; choose one of counts"),
        ("keep_aspect=1", "like its default, True"),
        ("zero_gap=many", r"write a value like its default, 0\.2"),
        ("zero_gap='many'", r"write a value like its default, 0\.2"),
        ("side=300", r"write a value like its default, \(300, 640\)"),
        ("zero_gap=2", "must be from 0 to 1"),
    ],
)
def test_options_that_cannot_be(option, said):
    with pytest.raises(UserError, match=said):
        changed_style([option])


def test_sources_and_numbers_that_cannot_be():
    with pytest.raises(UserError, match="no single image"):
        Figures(Images(count=0))
    with pytest.raises(UserError, match="cannot be made"):
        Figures(Images(), count=0)
    with pytest.raises(UserError, match=r"none\.csv does not exist"):
        Figures(Images(), Style(layouts="none.csv"))
    figures = Figures(Images(), count=3)
    assert len(figures) == 3
    with pytest.raises(IndexError):
        figures[3]


def test_folders_are_classes():
    source = ByFolder(Images(labels=0))
    assert [source[i]["label"] for i in range(4)] == [0, 1, 0, 1]
    assert source.info(3).label == 1
    assert Singles(source).labels.tolist() == [0, 1] * 6
