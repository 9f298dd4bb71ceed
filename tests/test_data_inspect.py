"""The survey finds what a person would have to look for, and the pictures show what the method will see."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import shell
import tifffile
from PIL import Image

from medssl_jax import inspect_data
from medssl_jax.config import base, proxy
from medssl_jax.data.sources import open_dataset
from medssl_jax.data.survey import lines, survey
from medssl_jax.errors import UserError


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def troubled(tmp_path, rng):
    """Ten images with masks: three copies (two of them across parts), an empty mask, a full one, a flat image, two damaged files."""
    for i in range(10):
        part = "test" if i > 6 else "train"
        image = rng.integers(0, 200, (20, 24), dtype=np.uint8)
        mask = np.zeros((20, 24), np.uint8)
        mask[: 20 if i == 8 else i + 1] = 255
        save(tmp_path / part / "images" / f"{i}.png", np.full_like(image, 9) if i == 3 else image)
        save(tmp_path / part / "masks" / f"{i}.png", mask * (i != 4))
    images = tmp_path / "train" / "images"
    (images / "1.png").write_bytes((images / "0.png").read_bytes())
    save(tmp_path / "test" / "images" / "9.png", np.asarray(Image.open(images / "0.png")))
    (images / "5.png").write_bytes(b"")
    (images / "6.png").write_bytes((images / "2.png").read_bytes()[:100])
    return tmp_path


def test_the_survey_names_all_that_is_wrong(troubled):
    config = base().data
    config.update({"path": str(troubled), "on_damaged": "skip", "val_fraction": 0.0})
    found = survey(open_dataset(config))
    text = "\n".join(lines(found))
    assert len(found.seen) == 8
    assert len(found.damaged) == 2
    for name in ("train/images/5.png cannot be read", "train/images/6.png cannot be read"):
        assert name in text
    assert "sizes       20 x 24 (8)" in text
    assert "parts       pool 5, val 0, test 3" in text
    assert "1 images are in more than one part" in text
    assert [{s.id for s in group} for group in found.leaks()] == [{"train/images/0.png", "train/images/1.png", "test/images/9.png"}]
    assert "1 masks are empty: train/images/4.png" in text
    assert "1 masks mark every pixel: test/images/8.png" in text
    assert "1 images have one value only: train/images/3.png" in text
    assert "pool: 5 of 5 images, foreground 10.0% of the pixels on average (0.0% to 20.0%)" in text  # rows 1, 2, 3, 4 and none of 20


def test_the_survey_counts_classes_and_finds_copies(tmp_path, rng):
    for name, count in (("a", 6), ("b", 4)):
        for i in range(count):
            save(tmp_path / name / f"{i}.png", rng.integers(0, 255, (20, 20), dtype=np.uint8))
    (tmp_path / "a" / "0.png").write_bytes((tmp_path / "a" / "1.png").read_bytes())
    config = base().data
    config.update({"path": str(tmp_path), "val_fraction": 0.0, "test_fraction": 0.0})
    text = "\n".join(lines(survey(open_dataset(config))))
    assert "pool: a 6, b 4" in text
    assert "1 images are exact copies of others in their part: a/0.png = a/1.png" in text
    assert "more than one part" not in text


@pytest.fixture(scope="module")
def config():
    c = base()
    c.data.tile, c.views.size = 32, 16
    c.model.width, c.model.depth, c.model.decoder_width = 4, 2, 4
    c.method.update(
        {
            "temperature": 0.1,
            "contrastive_weight": 1.0,
            "restoration_weight": 1.0,
            "restoration": "l1",
            "partner": "clean",
            "decorrelation": 0.0,
        }
    )
    c.method.proxy = proxy(mask="block")
    return c


def test_the_pictures_show_images_masks_tiles_and_views(config, tmp_path):
    dataset = open_dataset(config.data)
    rows = inspect_data.rows(config, dataset)
    assert {"images", "masks", "tiles", "view: clean", "view: corrupted"} <= set(rows)
    assert rows["view: clean"][0].shape == (16, 16)
    for row in rows.values():
        assert all(picture.min() >= 0 and picture.max() <= 1 for picture in row)
    inspect_data.contact_sheet(tmp_path / "sheet.png", rows)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 500
    np.testing.assert_allclose(rows["images"][0], dataset.pool[0]["image"][:, :, 0] / 65535, atol=1e-6)


def test_images_that_hold_nan_are_named_and_left_out_of_the_pictures(config, tmp_path, rng):
    images = rng.random((3, 40, 40)).astype(np.float32)
    images[0, 2, 3] = np.nan
    for i, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"{i}.tif", image)
    own = config.copy_and_resolve_references()
    own.data.path = str(tmp_path)
    found = survey(open_dataset(own.data))
    assert "0.tif holds values that are not finite" in "\n".join(lines(found))
    rows = inspect_data.rows(own, inspect_data.readable(found))
    assert len(rows["images"]) == 2
    with pytest.raises(UserError, match="none of the 3 training images"):
        inspect_data.readable(dataclasses.replace(found, seen=()))


def test_other_channel_counts_are_shown_as_their_mean():
    image = np.linspace(0, 1, 4 * 5 * 2).reshape(4, 5, 2)
    np.testing.assert_allclose(inspect_data.displayed(image), image.mean(-1), atol=1e-6)
    assert inspect_data.displayed(np.zeros((4, 5, 3))).shape == (4, 5, 3)


def test_a_wrong_path_ends_in_one_sentence():
    ended = shell.run("medssl_jax.inspect_data", "--config=configs/tower.py", "--config.data.path=/no/such/folder")
    assert ended.returncode != 0
    assert ended.stdout == ""
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "config.data.path='/no/such/folder' does not exist" in ended.stderr
