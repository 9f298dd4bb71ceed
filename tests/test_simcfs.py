"""SimCFS: views that move boxes as they move pixels, the loss from its parts, and a run that resumes bit for bit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from medssl_jax import experiment, losses, methods
from medssl_jax.augment import Recipe, draw_motion, in_view, move_boxes, move_images
from medssl_jax.config import validate
from medssl_jax.data.stream import example_batches, index_batches, sub_seed
from medssl_jax.errors import UserError
from medssl_jax.figures import train as detectors
from medssl_jax.figures.boxes import area, intersection, iou
from medssl_jax.figures.detect import Detector
from medssl_jax.figures.letterbox import Squares
from medssl_jax.figures.pools import open_pools
from medssl_jax.figures.score import Detections
from medssl_jax.figures.simulate import Figures
from medssl_jax.figures.style import Style
from medssl_jax.figures.validate import Validation, best_threshold
from medssl_jax.models import detector_places
from medssl_jax.train import feed, optimizer
from medssl_jax.train import mesh as meshes
from medssl_jax.train.loop import Interrupted, StopRequest
from medssl_jax.train.state import init_state
from medssl_jax.train.step import make_step

SIZE, BATCH, MOST = 64, 4, 6


def config(**method):
    """The project's config with a network and figures that compile in seconds."""
    c = tiny.config("simcfs")
    c.compilation_cache = ""
    c.figures.update({"size": SIZE, "validation": 4})
    c.figures.style.update({"side": (80, 120)})
    c.model.update({"width": 4, "blocks": 1})
    c.pretrain.update({"steps": 4, "batch": BATCH, "log_every": 2, "eval_every": 4, "checkpoint_every": 2})
    c.data.threads = 2
    c.method.update(method)
    return c


class Panels:
    """Figures of one to three bright panels of noise on black, above and beside each other."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        found = np.float32([[4, 5, 24, 55], [30, 6, 58, 28], [32, 34, 60, 60]])[: rng.integers(1, 4)]
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        for x0, y0, x1, y1 in found.astype(int):
            image[y0:y1, x0:x1] = rng.integers(150, 256, (y1 - y0, x1 - x0, 3))
        return {"image": image, "boxes": found}


PANELS = Squares(Panels(), SIZE, MOST, 64)


def batch(count=BATCH):
    found = [PANELS[i] for i in range(count)]
    return {key: np.stack([one[key] for one in found]) for key in PANELS.keys} | {"slot": np.arange(count, dtype=np.int32)}


@pytest.fixture(scope="module")
def started():
    method = detectors.build(config())
    params, carried = method.init(jax.random.key(0), {})
    return method, params, carried


def test_boxes_move_as_pixels_do():
    """A white panel on black, anywhere: what is white afterwards is the moved box, to half a pixel's blur."""
    rng = np.random.default_rng(0)
    low = rng.integers(2, 30, (20, 2))
    found = np.concatenate([low, low + rng.integers(12, 30, (20, 2))], 1).astype(np.float32)
    images = np.zeros((20, SIZE, SIZE, 1), np.float32)
    for image, (x0, y0, x1, y1) in zip(images, found.astype(int)):
        image[y0:y1, x0:x1] = 1
    motion = draw_motion(jax.random.split(jax.random.key(2), 20), SIZE, (0.7, 1.3), 0.15, 0.5, 0.5)
    assert 0 < motion.across.sum() < 20
    assert 0 < motion.upright.sum() < 20
    seen = np.asarray(move_images(jnp.asarray(images), motion, 0.0))[..., 0]
    moved, share = in_view(move_boxes(jnp.asarray(found)[:, None], motion, SIZE), SIZE)
    centres = np.arange(SIZE) + 0.5
    for picture, (x0, y0, x1, y1), part in zip(seen, np.asarray(moved)[:, 0], np.asarray(share)[:, 0]):
        inside = np.logical_and.outer((centres > y0) & (centres < y1), (centres > x0) & (centres < x1))
        deep = np.logical_and.outer((centres > y0 + 1) & (centres < y1 - 1), (centres > x0 + 1) & (centres < x1 - 1))
        far = ~np.logical_and.outer((centres > y0 - 1.5) & (centres < y1 + 1.5), (centres > x0 - 1.5) & (centres < x1 + 1.5))
        assert picture[deep].min() > 0.95
        assert picture[far].max() < 0.05
        assert ((picture > 0.5) != inside).sum() <= 2 * (x1 - x0 + y1 - y0)
        assert 0 < part <= 1.0001


def test_the_share_in_view():
    cut, share = in_view(jnp.float32([[[-10, 0, 10, 10], [0, 0, 64, 64], [70, 0, 80, 10]]]), 64)
    np.testing.assert_array_equal(cut[0, :2], [[0, 0, 10, 10], [0, 0, 64, 64]])
    np.testing.assert_allclose(share, [[0.5, 1, 0]], atol=1e-6)


def test_views_keep_panels_and_ground(started):
    method, _, _ = started
    keys = jax.random.split(jax.random.key(1), BATCH)
    views = jax.jit(method.views)(keys, batch())
    assert views["image"].shape == (BATCH, SIZE, SIZE, 3)
    assert 0 <= float(views["image"].min()) <= float(views["image"].max()) <= 1
    assert not (np.asarray(views["valid"]) & (np.arange(MOST) >= batch()["count"][:, None])).any()
    still = dataclasses.replace(method, light=Recipe(), inversion=0.0, zoom=(0.5, 0.5), stretch=0.0)
    seen = jax.jit(still.views)(keys, batch())
    sides = (seen["boxes"][..., 2:] - seen["boxes"][..., :2])[batch()["boxes"][..., 2] > 0]
    np.testing.assert_allclose(
        np.sort(sides.ravel()),
        np.sort(np.concatenate([b[:c, 2:] - b[:c, :2] for b, c in zip(batch()["boxes"], batch()["count"])]).ravel()) / 2,
        atol=1e-3,
    )
    assert (np.asarray(seen["image"]) == 0.5).all(-1).sum() == BATCH * (SIZE**2 - (SIZE // 2) ** 2)
    dark = dataclasses.replace(still, inversion=1.0)
    inverted = np.asarray(jax.jit(dark.views)(keys, batch())["image"])
    np.testing.assert_allclose(inverted, 1 - np.asarray(seen["image"]), atol=1e-6)  # the grey ground is its own inverse


def test_an_example_does_not_depend_on_the_others(started):
    method, _, _ = started
    keys = jax.random.split(jax.random.key(1), BATCH)
    whole = method.views(keys, batch())
    alone = method.views(keys[2:3], {key: value[2:3] for key, value in batch().items()})
    for name in whole:
        np.testing.assert_allclose(whole[name][2], alone[name][0], atol=1e-5)


@pytest.mark.parametrize("side", ["scale_free", "original", "symmetric", "none"])
def test_the_loss_from_its_parts(side, started):
    """Focal over all places; GIoU, quality and the side loss over the places of panels, everything by hand."""
    _, params, carried = started
    method = detectors.build(config(side=side, side_weight=0.7))
    views = method.plain(batch())
    loss, (_, logs) = method.loss(params, carried, views, jnp.int32(0))
    raw, _ = method.network.apply(params["detector"], {}, views["image"], train=True)
    places, strides = detector_places(SIZE)
    positive, target = map(np.asarray, losses.assign(views["boxes"], views["valid"], places, strides))
    assert positive.sum() > 20
    edges = np.asarray(raw["distances"])
    predicted = np.concatenate([places[None] - edges[..., :2], places[None] + edges[..., 2:]], -1)
    sure = 1 / (1 + np.exp(-np.asarray(raw["objectness"], np.float64)))
    focal = np.where(positive, -0.25 * (1 - sure) ** 2 * np.log(sure), -0.75 * sure**2 * np.log(1 - sure)).sum() / positive.sum()
    p, g = predicted[positive], target[positive]
    shared = np.diag(iou(p, g))
    hull = (np.maximum(p[:, 2:], g[:, 2:]) - np.minimum(p[:, :2], g[:, :2])).prod(1)
    area = [(b[:, 2:] - b[:, :2]).prod(1) for b in (p, g)]
    union = sum(area) / (1 + shared)
    overlap = (1 - shared + (hull - union) / hull).mean()
    q = 1 / (1 + np.exp(-np.asarray(raw["quality"], np.float64)[positive]))
    quality = -(shared * np.log(q) + (1 - shared) * np.log(1 - q)).mean()
    out = np.concatenate([g[:, :2] - p[:, :2], p[:, 2:] - g[:, 2:]], 1)
    sides, step = np.tile(g[:, 2:] - g[:, :2], 2), np.broadcast_to(strides[None], positive.shape)[positive]
    cells = np.maximum(out, 0).sum(1) / step
    forms = {
        "scale_free": (np.maximum(out, 0) / sides).sum(1).mean(),
        "original": sum(cells[step == s].mean() for s in np.unique(step)),
        "symmetric": (np.abs(out) / sides).sum(1).mean() / 2,
        "none": 0.0,
    }
    assert logs["focal"] == pytest.approx(focal, rel=1e-3)
    assert logs["overlap"] == pytest.approx(overlap, rel=1e-3)
    assert logs["quality"] == pytest.approx(quality, rel=1e-3)
    assert logs["side"] == pytest.approx(0.7 * forms[side], rel=1e-3)
    assert logs["side_n"] == pytest.approx(forms["scale_free"], rel=1e-3)
    assert logs["overshooting"] == pytest.approx((out > 0).mean(), rel=1e-3)
    assert float(loss) == pytest.approx(focal + overlap + quality + 0.7 * forms[side], rel=1e-3)


class Trainer:
    """The method on a mesh of `devices`, stepping through the panels."""

    def __init__(self, c, devices=1):
        self.mesh, self.method = meshes.make_mesh(jax.devices()[:devices]), detectors.build(c)
        update = optimizer.build(c.pretrain.optimizer, c.pretrain.steps)
        start = jax.tree_util.Partial(init_state, self.method, update, batch={})
        self.places = meshes.shardings(jax.eval_shape(start, jax.random.key(3)), self.mesh, False)
        self.start = jax.jit(start, out_shardings=self.places)
        self.step = make_step(self.method, update, self.mesh, self.places, c.pretrain.accumulate)
        self.batch = c.pretrain.batch

    def run(self, steps):
        state, logs = self.start(jax.random.key(3)), []
        local = example_batches(PANELS, seed=1, global_batch=self.batch, threads=1)
        for examples, _ in zip(feed.from_host(self.mesh, local), range(steps)):
            state, log = self.step(state, {key: value for key, value in examples.items() if key != "index"})
            logs.append({name: float(value) for name, value in log.items()})
        return state, logs


def largest_difference(a, b):
    pairs = zip(jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b)), strict=True)
    return max(float(np.abs(x - y).max()) for x, y in pairs)


def test_one_and_four_devices_agree():
    c = config()
    c.pretrain.optimizer.update({"name": "sgd", "weight_decay": 0.0, "warmup": 0.0})
    trainers = [Trainer(c, devices) for devices in (1, 4)]
    before = jax.device_get(trainers[0].start(jax.random.key(3)).params)
    (one, logs_one), (four, logs_four) = (trainer.run(3) for trainer in trainers)
    assert largest_difference(one.params, four.params) < 2e-5
    assert largest_difference(one.carried, four.carried) < 2e-5
    for a, b in zip(logs_one, logs_four, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    moved = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - b).max()) > 0, jax.device_get(one.params), before)
    coarse = ("level2", "level2_norm", "level3", "level3_norm")  # of 64 px no panel is large enough for these
    moved["detector"]["pyramid"] = {name: leaf for name, leaf in moved["detector"]["pyramid"].items() if name not in coarse}
    assert all(jax.tree.leaves(moved))


def test_the_average_follows(started):
    method, params, carried = started
    zeros = jax.tree.map(jnp.zeros_like, params)
    for step, decay in ((0, 0.1), (90, 0.91), (10**6, 0.998)):
        moved = method.after_update(zeros, carried, jnp.int32(step))["average"]
        expected = jax.tree.map(lambda x, decay=decay: decay * x, carried["average"])
        assert largest_difference(moved, expected) < 1e-5
    assert method.transferable(zeros, carried)["detector"]["params"] is carried["average"]["detector"]


def test_it_learns_to_find_panels():
    """From nothing to nearly all of them: places, levels, distances and scores mean the same in training and in validation."""
    c = config()
    c.model.width, c.pretrain.batch, c.pretrain.steps = 8, 8, 150
    c.pretrain.optimizer.learning_rate = 5e-3
    trainer = Trainer(c)
    trainer.method = dataclasses.replace(trainer.method, decay=0.9)
    validation = Validation(trainer.method, trainer.mesh, Squares(Panels(), SIZE, MOST, 16), 8)
    before = validation(trainer.start(jax.random.key(3)))
    state, logs = trainer.run(c.pretrain.steps)
    after = validation(state)
    assert before["validation_ap50"] < 0.2
    assert after["validation_ap50"] > 0.8
    assert after["validation_loss"] < 0.6 * before["validation_loss"]
    assert np.mean([log["loss"] for log in logs[-10:]]) < 0.6 * logs[0]["loss"]
    threshold, scores = validation.scores(state.carried["average"])
    assert 0.05 < threshold < 0.95
    assert scores["right"] > 0.2


def test_the_threshold_has_the_best_f1(rng):
    truths = {str(i): np.float32([[0, 0, 10, 10], [20, 0, 30, 10]]) for i in range(6)}
    found = {}
    for name, truth in truths.items():
        noise = truth[rng.integers(0, 2, 5)] + rng.normal(0, 2.5, (5, 4)).astype(np.float32)
        found[name] = Detections(noise, np.sort(rng.random(5).astype(np.float32))[::-1])

    def f1(threshold):
        right = total = 0
        for name, (own, scores) in found.items():
            free, kept = [0, 1], []
            for box in own[scores >= threshold]:
                if any(intersection(box[None], other[None]) > min(area(box[None]), area(other[None])) / 2 for other in kept):
                    continue  # it would not be cut out
                kept.append(box)
                total += 1
                overlaps = iou(truths[name], box[None])[:, 0]
                best = max(free, key=lambda k: overlaps[k], default=None)
                if best is not None and overlaps[best] >= 0.5:
                    free.remove(best)
                    right += 1
        return 2 * right / (12 + total)

    scores = np.concatenate([one.scores for one in found.values()])
    assert f1(best_threshold(truths, found)) == pytest.approx(max(f1(s) for s in scores))
    assert best_threshold(truths, {}) == 0.5


@pytest.mark.parametrize(("threads", "workers"), [(0, 0), (3, 0), (2, 2)])
def test_figures_stream_the_same_from_any_step(threads, workers, folders):
    c = config()
    c.data.update({"threads": threads, "workers": workers, "path": str(folders / "cells")})
    squares = detectors.squares(c, open_pools(c.data).train, "train", detectors.epoch(c))
    stream = detectors.feed_figures(c, squares, meshes.make_mesh(jax.devices()[:1]), 2)
    order = [i for step in range(4) for i in _indices(c, squares)[step]]
    assert sorted(order) == list(range(16))  # no figure comes twice
    for step in (2, 3):
        found = next(stream)
        expected = [squares[i] for i in _indices(c, squares)[step]]
        assert set(found) == {"image", "boxes", "count", "extent", "slot"}
        for key in ("image", "boxes", "count", "extent"):
            np.testing.assert_array_equal(found[key], np.stack([one[key] for one in expected]))
    stream.close()


def _indices(c, squares):
    order = index_batches(len(squares), seed=sub_seed(c.seed, "figures/order"), global_batch=BATCH)
    return [next(order)["index"].tolist() for _ in range(4)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Ten gray images without a class, and two classes of six colour images."""
    home, rng = tmp_path_factory.mktemp("singles"), np.random.default_rng(0)
    for name, count, channels in (("cells", 10, 1), ("tissue/colon", 6, 3), ("tissue/lung", 6, 3)):
        (home / name).mkdir(parents=True)
        for i in range(count):
            coarse = rng.integers(0, 256, (6, 8, channels), np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(coarse.squeeze()).save(home / name / f"{i}.png")
    return home


def ids(source):
    return {source.info(i).id for i in range(len(source))}


def test_pools_share_no_image(folders):
    c = config()
    c.data.path, c.data.tile = f"{folders / 'cells'}, {folders / 'tissue'}", 32
    pools = open_pools(c.data)
    assert not ids(pools.train) & ids(pools.held_out)
    assert (len(pools.train), len(pools.held_out)) == (8 + 8, 2 + 2)  # .15 of the first; the second brings test images, which stay out
    labels = {pools.train.info(i).id.split("/")[0]: pools.train.info(i).label for i in range(len(pools.train))}
    assert len({label for name, label in labels.items() if name.endswith(".png")}) == 1
    assert len({labels["colon"], labels["lung"], *(label for name, label in labels.items() if name.endswith(".png"))}) == 3
    example = pools.train[len(pools.train) - 1]
    assert example["label"] == pools.train.info(len(pools.train) - 1).label
    again = open_pools(c.data)
    assert ids(again.held_out) == ids(pools.held_out)
    assert any("classes" in note for note in pools.notes)


def test_the_sample_is_cut_and_one_folder_keeps_its_classes(folders):
    pools = open_pools(config().data)
    assert pools.train[0]["image"].shape[:2] == (160, 160)
    assert pools.train.info(0).label is None
    assert len(pools.train) == len(ids(pools.train)) == 18
    c = config()
    c.data.path, c.data.tile = str(folders / "tissue"), 32
    labels = {open_pools(c.data).train.info(i).label for i in range(8)}
    assert labels == {0, 1}


def test_one_image_cannot_be_held_out(folders, tmp_path):
    Image.open(folders / "cells" / "0.png").save(tmp_path / "only.png")
    c = config()
    c.data.path = str(tmp_path)
    with pytest.raises(UserError, match="can be held out for validation; give two images or more"):
        open_pools(c.data)


def test_a_folder_with_one_image_trains_alone(folders, tmp_path):
    """Beside another that has images to hold out."""
    Image.open(folders / "cells" / "0.png").save(tmp_path / "only.png")
    c = config()
    c.data.path, c.data.tile = f"{tmp_path},{folders / 'cells'}", 32
    pools = open_pools(c.data)
    assert (len(pools.train), len(pools.held_out)) == (9, 2)
    figures = Figures(pools.held_out, Style(replayed=0.0))
    assert all(len(figures[i]["boxes"]) for i in range(6))


def test_commas_alone_name_no_folder():
    c = config()
    c.data.path = " , "
    with pytest.raises(UserError, match="names no folder; give one, or several"):
        open_pools(c.data)


class Leave(StopRequest):
    """Asks to stop after so many looks."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        return self.looks < 0


def test_a_run_resumes_bit_for_bit_and_says_when_it_is_finished(folders, tmp_path, capsys):
    c = config()
    c.data.path = str(folders / "cells")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    experiment.run(c, whole, "the command")
    mesh = meshes.make_mesh()
    parts.mkdir()
    with pytest.raises(Interrupted, match="step 3 of 4 and is saved"):
        detectors.run(c, mesh, parts, Leave(2), detectors.check(c, mesh))
    detectors.run(c, mesh, parts, Leave(99), detectors.check(c, mesh))
    assert "Continuing the training at step 3 of 4" in capsys.readouterr().err
    first, second = (Detector.load(path) for path in (whole, parts))
    assert first.threshold == second.threshold
    for a, b in zip(jax.tree.leaves(first.weights), jax.tree.leaves(second.weights), strict=True):
        assert a.tobytes() == b.tobytes()
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4]
    assert {"focal", "overlap", "quality", "side", "side_n", "overshooting", "data_wait"} <= set(lines[0])
    assert {"validation_ap50", "validation_ap", "validation_side_n"} <= set(lines[-1])
    rows = json.loads((whole / "results.json").read_text())
    assert {"ap50", "ap", "over", "imageclef"} <= {row["metric"] for row in rows}
    assert {row["init"] for row in rows} == {"simcfs"}
    before = (whole / "detector.json").stat().st_mtime_ns
    experiment.run(c, whole, "the command")
    assert "is finished" in capsys.readouterr().err
    assert (whole / "detector.json").stat().st_mtime_ns == before


def test_a_training_goes_on_from_an_earlier_detector(folders, tmp_path):
    """With a rate of nothing the detector stays what it was."""
    c = config()
    c.data.path, c.pretrain.steps = str(folders / "cells"), 2
    experiment.run(c, tmp_path / "first", "the command")
    c.pretrain.from_run, c.pretrain.optimizer.learning_rate, c.seed = str(tmp_path / "first"), 1e-12, 1
    experiment.run(c, tmp_path / "second", "the command")
    first, second = (Detector.load(tmp_path / name).weights for name in ("first", "second"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), first, second)


@pytest.mark.parametrize("size", ["small", "paper"])
def test_the_config_is_valid(size):
    c = tiny.config("simcfs", size)
    validate(c)
    assert detectors.build(c).size == c.figures.size
    with pytest.raises(AttributeError):
        c.lock().figures.sise = 3


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("figures.size", 300, r"config\.figures\.size=300 is no multiple of 64; set --config\.figures\.size=320"),
        ("method.side", "both", r"config\.method\.side='both' is no side loss; choose one of scale_free, original"),
        ("pretrain.from_run", "runs/tower", r"runs/tower holds no trained detector"),
        ("pretrain.from_run", "shipped", r"another size; set --config\.model\.width=32 --config\.model\.blocks=2"),
        ("pretrain.batch", 6, r"config\.pretrain\.batch=6 cannot be divided over 4 device"),
        ("figures.style.quality", (0, 200), "quality"),
        ("data.path", "/nowhere", "does not exist"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(key, value, message, tmp_path):
    c = config()
    c.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        experiment.run(c, tmp_path / "run", "the command")
    assert not (tmp_path / "run").exists()


def test_other_commands_say_what_simcfs_is():
    with pytest.raises(UserError, match=r"look at them with python -m medssl_jax\.simulate"):
        methods.build(config(), 3, "brightfield")
