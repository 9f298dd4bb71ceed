"""From places to boxes of a figure's own pixels: suppression, letterbox and back, what is kept, shipped and refused."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medssl_jax.errors import UserError
from medssl_jax.figures import detect
from medssl_jax.figures.boxes import iou
from medssl_jax.figures.detect import Detector
from medssl_jax.figures.letterbox import Squares, check_boxes, letterbox, to_figure, to_square
from medssl_jax.figures.suppress import KEPT, best_boxes, non_maximum_suppression
from medssl_jax.models import detector, detector_places

SIZE = 64


def boxes(rng, count, width=100, height=100):
    """Corners within a figure."""
    low = rng.uniform(0, 0.7, (count, 2))
    return (np.concatenate([low, low + rng.uniform(0.05, 0.3, (count, 2))], 1) * [width, height, width, height]).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_suppression_against_a_slow_reading(seed):
    found = boxes(np.random.default_rng(seed), 60)
    overlaps, stay = iou(found, found), []
    for k in range(60):
        if all(overlaps[k, earlier] <= 0.3 for earlier in stay):
            stay.append(k)
    np.testing.assert_array_equal(np.flatnonzero(non_maximum_suppression(jnp.asarray(found), 0.3)), stay)
    assert 5 < len(stay) < 60


def test_a_box_that_went_takes_none_with_it():
    """The second goes for the first; the third overlaps with the second alone, and stays."""
    found = np.float32([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]])
    assert non_maximum_suppression(jnp.asarray(found)).tolist() == [True, False, True]


def test_best_boxes_against_numpy(rng):
    places, _ = detector_places(128)
    raw = {
        "objectness": rng.normal(0, 3, (2, len(places))).astype(np.float32),
        "quality": rng.normal(0, 1, (2, len(places))).astype(np.float32),
        "distances": rng.uniform(1, 60, (2, len(places), 4)).astype(np.float32),
    }
    found, scores = map(np.asarray, best_boxes(jax.tree.map(jnp.asarray, raw), 128))
    kept = min(KEPT, len(places))
    assert found.shape == (2, kept, 4)
    for b in range(2):
        expected = np.sqrt(1 / (1 + np.exp(-raw["objectness"][b])) / (1 + np.exp(-raw["quality"][b])))
        order = np.argsort(-expected)[:kept]
        edges = raw["distances"][b][order]
        own = np.clip(np.concatenate([places[order] - edges[:, :2], places[order] + edges[:, 2:]], 1), 0, 128)
        np.testing.assert_allclose(found[b], own, atol=1e-3)
        stay = np.asarray(non_maximum_suppression(jnp.asarray(own)))
        np.testing.assert_allclose(scores[b], np.where(stay, expected[order], 0), atol=1e-5)


def test_every_panel_of_a_figure_of_many_is_kept():
    """Nine places box each of 36 panels alike, so that those of the first eleven alone would be a hundred boxes."""
    places, strides = detector_places(192)
    own = np.stack(np.meshgrid(*[np.arange(6.0) * 32] * 2), -1).reshape(-1, 1, 2)  # corners of 6 x 6 panels of 30 px
    panels = np.concatenate([own[:, 0] + 1, own[:, 0] + 31], 1).astype(np.float32)
    centre = (np.abs(places - own - 16) <= 8).all(2) & (strides == strides.min())  # [panels, places]
    assert (centre.sum(1) >= 4).all()
    assert centre.sum() > 100
    which = centre.argmax(0)
    edges = np.concatenate([places - panels[which, :2], panels[which, 2:] - places], 1)
    raw = {"objectness": np.where(centre.any(0), 4.0, -8.0), "quality": np.linspace(1, 2, len(places)), "distances": edges}
    found, scores = map(np.asarray, best_boxes({name: jnp.asarray(x[None], jnp.float32) for name, x in raw.items()}, 192))
    sure = found[0][scores[0] > 0.5]
    assert len(sure) == 36
    np.testing.assert_allclose(sure[np.lexsort(sure.T[:2])], panels[np.lexsort(panels.T[:2])], atol=1e-3)


@pytest.mark.parametrize("shape", [(40, 200), (333, 90), (64, 64), (1, 500), (2000, 1500)])
def test_a_figure_and_its_boxes_fit_the_square(shape, rng):
    """A white panel in a black figure is white where its box goes, and the ground is grey."""
    image = np.zeros((*shape, 3), np.uint8)
    box = np.float32([[shape[1] // 4, shape[0] // 3, shape[1] // 4 + shape[1] // 2, shape[0] // 3 + max(1, shape[0] // 2)]])
    x0, y0, x1, y1 = box[0].astype(int)
    image[y0:y1, x0:x1] = 255
    square, extent = letterbox(image, SIZE)
    assert square.shape == (SIZE, SIZE, 3)
    seen = to_square(box, shape, extent)
    np.testing.assert_allclose(to_figure(seen, shape, extent), box, atol=1e-2)
    rows, columns = (np.arange(SIZE) + 0.5 for _ in range(2))
    inside = np.logical_and.outer((rows > seen[0, 1]) & (rows < seen[0, 3]), (columns > seen[0, 0]) & (columns < seen[0, 2]))
    within = np.logical_and.outer((rows > extent[1]) & (rows < extent[3]), (columns > extent[0]) & (columns < extent[2]))
    assert (square[~within] == 128).all()
    wrong = within & ((square[..., 0] > 127) != inside)
    assert wrong.sum() <= 2 * (seen[0, 2:] - seen[0, :2]).sum()  # at the edges alone, a pixel each
    assert max(extent[2:] - extent[:2]) == SIZE


def test_boxes_beyond_the_figure_are_cut_to_it():
    extent = letterbox(np.zeros((50, 100, 3), np.uint8), SIZE).extent
    np.testing.assert_allclose(to_figure(np.float32([[-9, -9, 99, 99]]), (50, 100), extent), [[0, 0, 100, 50]])


def test_boxes_are_corners_and_nothing_else(rng):
    """A figure's boxes pass; the same as centre and sides, or y before x, do not."""
    for _ in range(50):
        corners = boxes(rng, 6, width=300)
        check_boxes(corners, (100, 300))
        centred = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
        for other in (centred, corners[:, [1, 0, 3, 2]]):
            with pytest.raises(UserError, match=r"corners with x0 < x1 and y0 < y1 within the figure's 100 x 300 px"):
                check_boxes(other, (100, 300))
    with pytest.raises(UserError, match="float64"):
        check_boxes(corners.astype(np.float64), (100, 300))


class Stand:
    """Figures with a few boxes."""

    def __init__(self, count=3):
        self.count = count

    def __len__(self):
        return 10

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return {"image": rng.integers(0, 256, (50, 100, 3), np.uint8), "boxes": boxes(rng, self.count, 100, 50)}


def test_squares_are_padded():
    squares = Squares(Stand(), SIZE, most=5, length=10)
    one = squares[4]
    assert set(one) == set(squares.keys)
    assert one["count"] == 3
    np.testing.assert_array_equal(one["boxes"][3:], 0)
    np.testing.assert_allclose(to_figure(one["boxes"][:3], (50, 100), one["extent"]), Stand()[4]["boxes"], atol=1e-3)
    with pytest.raises(UserError, match=r"figure 4 has 3 panels, more than config\.figures\.most=2"):
        Squares(Stand(), SIZE, most=2, length=10)[4]


@pytest.fixture(scope="module")
def untrained():
    weights, _ = detector(8).init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    rng = np.random.default_rng(0)
    weights["head"]["out"]["kernel"] = rng.normal(0, 0.2, weights["head"]["out"]["kernel"].shape).astype(np.float32)
    return Detector(jax.device_get(weights), width=8, blocks=1, size=SIZE, threshold=0.1)


def figures(count):
    return [np.random.default_rng(i).integers(0, 256, (30 + 7 * i, 90 - 3 * i, 3), np.uint8) for i in range(count)]


def test_each_figure_gets_its_own_boxes(untrained):
    """Whatever else is in the batch, and in pixels of the figure; the surest first."""
    together = untrained(figures(11))
    assert len(together) == 11
    for image, (found, scores) in zip(figures(11), together, strict=True):
        ((alone, their_scores),) = untrained([image])
        np.testing.assert_allclose(found, alone, atol=1e-3)
        np.testing.assert_allclose(scores, their_scores, atol=1e-5)
        assert found.dtype == scores.dtype == np.float32
        assert len(found) == len(scores) > 0
        assert (np.diff(scores) <= 0).all()
        assert (scores >= 0.1).all()
        check_boxes(found, image.shape[:2])
    assert untrained([]) == []


def test_boxes_come_back_to_the_pixels_they_were_seen_in(untrained):
    """A detector that says where the panels of the square are gives the panels of the figure."""
    own = boxes(np.random.default_rng(1), 3, width=90, height=30)
    image = figures(1)[0]
    seen = to_square(own, image.shape[:2], letterbox(image, SIZE).extent)
    told = dataclasses.replace(untrained, threshold=0.5)
    told.__dict__["_predict"] = lambda weights, squares: (np.tile(seen, (8, 1, 1)), np.tile(np.float32([0.9, 0.5, 0.4]), (8, 1)))
    ((found, scores),) = told([image])
    np.testing.assert_allclose(found, own[:2], atol=1e-3)
    np.testing.assert_allclose(scores, [0.9, 0.5])


def test_a_threshold_leaves_fewer(untrained):
    (image,) = figures(1)
    ((_, scores),) = dataclasses.replace(untrained, threshold=0.0)([image])
    ((_, fewer),) = dataclasses.replace(untrained, threshold=float(scores[2]))([image])
    np.testing.assert_allclose(fewer, scores[:3])


def test_what_a_run_keeps_and_what_is_shipped_find_the_same(untrained, tmp_path, monkeypatch):
    detect.keep(tmp_path, untrained)
    kept = Detector.load(tmp_path)
    for before, after in zip(untrained(figures(2)), kept(figures(2)), strict=True):
        np.testing.assert_allclose(after[0], before[0], atol=1e-3)
    detect.export(tmp_path, tmp_path / "weights" / "detector.npz")
    monkeypatch.setattr(detect, "OWN", tmp_path / "weights" / "detector.npz")
    shipped = Detector.load()
    assert dataclasses.replace(shipped, weights=None) == dataclasses.replace(untrained, weights=None)
    for ours, theirs in zip(jax.tree.leaves(untrained.weights), jax.tree.leaves(shipped.weights), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-6)
    with np.load(tmp_path / "weights" / "detector.npz") as file:
        assert {file[name].dtype for name in file.files if name != "about"} == {np.dtype(np.float16)}


def test_no_detector_and_damaged_ones(untrained, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no trained detector"):
        Detector.load(tmp_path)
    path = tmp_path / "detector.npz"
    monkeypatch.setattr(detect, "OWN", path)
    with pytest.raises(UserError, match=r"there is no trained detector at .*configs/simcfs\.py"):
        Detector.load()
    untrained.save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="is no detector, or is damaged"):
        Detector.load()
    detect.keep(tmp_path, untrained)
    victim = next(file for file in (tmp_path / detect.WEIGHTS).rglob("d/*") if file.is_file())
    victim.write_bytes(b"")
    with pytest.raises(UserError, match="is missing or damaged"):
        Detector.load(tmp_path)


@pytest.mark.parametrize("damage", [{"a": 1}, {"threshold": None}, {"files": []}])
def test_a_run_that_does_not_tell_its_detector(untrained, tmp_path, damage):
    detect.keep(tmp_path / "run", untrained)
    about = tmp_path / "run" / detect.ABOUT
    about.write_text(json.dumps(damage if "a" in damage else json.loads(about.read_text()) | damage))
    with pytest.raises(UserError, match=r"detector.json does not describe a detector as this version writes it"):
        Detector.load(tmp_path / "run")
