"""A marked place is found again: the window and the search against NumPy, then the command on images whose answer is known."""

from __future__ import annotations

import csv
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import shell
import tiny
from PIL import Image
from scipy.ndimage import correlate1d
from shell import sentence

from medssl_jax import methods
from medssl_jax.downstream.landmarks import Window, correlate, locate, marked, smooth
from medssl_jax.errors import UserError
from medssl_jax.landmarks import describer


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize(("side", "sigma"), [(5, 1.2), (4, 0.0)])
def test_smoothing_against_scipy(side, sigma, rng):
    vectors = unit(rng.normal(size=(12, 9, 4))).astype(np.float32)
    window = Window(side, sigma)
    weights = window.weights()
    assert weights.sum() == pytest.approx(1)
    assert (np.ptp(weights) == 0) == (sigma == 0)
    expected = vectors
    for axis in (0, 1):
        expected = correlate1d(expected, weights, axis=axis, mode="nearest", origin=-1 if side % 2 == 0 else 0)
    np.testing.assert_allclose(smooth(vectors, window), unit(expected), atol=1e-5)


def test_the_place_itself_is_found_with_confidence(rng):
    vectors = unit(rng.normal(size=(20, 30, 16))).astype(np.float32)
    query = marked(vectors, 7.6, 21.2, "q.png")
    np.testing.assert_array_equal(query, vectors[7, 21])
    found, likeness = locate(vectors, query, Window(5, 1.0))
    assert (found.y, found.x) == (7, 21)
    assert found.similarity == pytest.approx(1, abs=1e-5)
    assert found.confidence > 0.5
    assert likeness.shape == (20, 30)
    alike, _ = locate(np.broadcast_to(query, vectors.shape), query, Window(5, 1.0))
    assert alike.confidence < 0.1  # everything is as like


def test_a_point_outside_is_refused():
    with pytest.raises(UserError, match=r"x=30, y=2 lies outside q\.png, which is 30 x 20 px"):
        marked(np.zeros((20, 30, 2)), 2, 30, "q.png")


def test_correlation_finds_a_patch(rng):
    image = rng.random((40, 50, 3))
    assert correlate(image, image[10:19, 20:29]) == (14, 24)


def cross(path, y, x, rng):
    """A bright cross on dark noise."""
    image = rng.integers(0, 40, (64, 64), dtype=np.uint8)
    image[y - 6 : y + 7, x - 1 : x + 2] = image[y - 1 : y + 2, x - 6 : x + 7] = 220
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A run on crosses, and where they are in the images to search."""
    home, rng = tmp_path_factory.mktemp("landmarks"), np.random.default_rng(0)
    places = {f"{i}.png": (int(y), int(x)) for i, (y, x) in enumerate(rng.integers(12, 52, (4, 2)))}
    for name, (y, x) in places.items():
        cross(home / "images" / name, y, x, rng)
    cross(home / "query.png", 30, 20, rng)
    flags = ["--config.method.cells=4", "--config.model.width=8", "--config.model.decoder_width=16", "--config.pretrain.steps=30"]
    given = shell.main(*flags, f"--config.data.path={home / 'images'}", config="local_discrimination", workdir=home / "run")
    shell.finished(shell.run(*(flag for flag in given if "projection" not in flag)))
    return home, places


def test_a_run_of_an_older_version_is_described_by_its_encoder():
    """A method's newer options have no part in it."""
    c = tiny.shrink(tiny.config("tower"))
    method = methods.build(c, tiny.CHANNELS, "brightfield")
    images = tiny.images(2)
    params, carried = method.init(jax.random.key(0), {"image": images})
    del c.method.decorrelation, c.method.partner
    described = SimpleNamespace(channels=tiny.CHANNELS, modality="brightfield")
    describe = describer(c, described, method.transferable(params, carried), Window(3, 0.0))
    assert describe(images[0]).shape[:2] == images[0].shape[:2]


def search(home, *flags, **options):
    given = {"run": home / "run", "query": home / "query.png", "point": "20,30", "images": home / "images", **options}
    return shell.run("medssl_jax.landmarks", *(f"--{name}={value}" for name, value in given.items() if value), *flags)


def test_the_command_finds_the_crosses(pretrained):
    home, places = pretrained
    result = search(home, "--window=9", "--sigma=3")
    assert result.returncode == 0, result.stderr
    with (home / "run" / "landmarks" / "landmarks.csv").open() as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(places)
    errors = [np.hypot(float(rows[name]["y"]) - y, float(rows[name]["x"]) - x) for name, (y, x) in places.items()]
    assert np.median(errors) < 4
    assert all(0 <= float(row["confidence"]) <= 1 for row in rows.values())
    assert (home / "run" / "landmarks" / "landmarks.png").exists()
    assert (home / "run" / "figures" / "clusters.png").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"point": "20;30"}, "--point=20;30 is no place"),
        ({"point": "20,300"}, "lies outside"),
        ({"query": ""}, "--query is missing"),
        ({"images": "/nowhere"}, "does not exist"),
        ({"run": "/nowhere"}, "no finished pretraining"),
    ],
)
def test_mistakes_are_told(pretrained, options, said):
    assert said in sentence(search(pretrained[0], **options))


def test_images_of_other_channels(pretrained, tmp_path):
    (tmp_path / "rgb").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "rgb" / "a.png")
    shutil.copy(tmp_path / "rgb" / "a.png", tmp_path / "rgb" / "b.png")
    assert "images of 3 channel(s)" in sentence(search(pretrained[0], images=tmp_path / "rgb"))
