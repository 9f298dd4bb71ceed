"""The command from outside: figures, their table and their picture, and one sentence for every mistake."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import shell
from PIL import Image
from shell import sentence

COUNT = 5


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two folders of images, one of which cannot be read."""
    folder, rng = tmp_path_factory.mktemp("single"), np.random.default_rng(0)
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(40, 200, (60, 80, 3), np.uint8)).save(folder / name)
    (folder / "b" / "broken.png").write_bytes(b"no image")
    return folder


def simulate(images, out, *flags):
    given = {"images": images, "out": out, "count": COUNT}
    return shell.run("medssl_jax.simulate", *(f"--{name}={value}" for name, value in given.items() if value), *flags)


def test_the_command_writes_figures_with_their_boxes(images, tmp_path):
    result = simulate(images, tmp_path / "out", "--style=intra_class=1", "--style=rescale=(1, 1)", "--seed=4")
    assert result.returncode == 0, result.stderr
    assert "broken.png" in result.stderr
    assert "5 figures of 4 images" in result.stderr
    with (tmp_path / "out" / "panels.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {row["image"] for row in rows}
    assert {path.name for path in (tmp_path / "out").glob("figure_*.png")} == names
    assert len(names) == COUNT
    assert Image.open(tmp_path / "out" / "contact_sheet.png").width > 300
    for row in rows:
        width, height = Image.open(tmp_path / "out" / row["image"]).size
        box, cell = ([float(row[prefix + key]) for key in ("x0", "y0", "x1", "y1")] for prefix in ("", "cell_"))
        assert row["kind"] == "image"
        for x0, y0, x1, y1 in (box, cell):
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height


@pytest.mark.parametrize(("name", "said"), [("nowhere", "is no folder"), ("empty", "holds no image")])
def test_images_that_are_not_there(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    assert said in sentence(simulate(tmp_path / name, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_other_content_is_not_overwritten(images):
    assert "holds files already" in sentence(simulate(images, images))
