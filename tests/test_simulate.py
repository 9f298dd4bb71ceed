"""The command from outside: figures, their table and their picture, and one sentence for every mistake."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import shell
import tifffile
from PIL import Image
from shell import sentence

from medssl_jax.machine import alone

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


def test_a_stopped_command_continues(images, tmp_path):
    """Two figures and the end of the table are lost, and half a figure is left."""
    out = tmp_path / "out"
    assert simulate(images, out).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "figure_0_000001.png").unlink()
    (out / "figure_0_000004.png").rename(out / "figure_0_000004.png.partial")
    (out / "panels.csv").write_bytes(before["panels.csv"][:-9])
    kept = (out / "figure_0_000002.png").stat().st_mtime_ns
    assert simulate(images, out).returncode == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert (out / "figure_0_000002.png").stat().st_mtime_ns == kept
    said = sentence(simulate(images, out, "--style=margin=0.5"))
    assert said.endswith("was begun with style.margin=0.6, and it is 0.5 here; choose another --out.")


def test_gray_and_colour_become_colour_without_advice_that_cannot_be_followed(images, tmp_path):
    for name, shape in (("gray", (60, 80)), ("colour", (60, 80, 3))):
        Image.fromarray(np.full(shape, 90, np.uint8)).save(tmp_path / f"{name}.png")
    result = simulate(tmp_path, tmp_path.parent / f"{tmp_path.name}_out")
    assert result.returncode == 0, result.stderr
    assert "1 gray images are read as RGB because 1 others are RGB" in result.stderr
    assert "--config" not in result.stderr


def test_no_folder_at_all(tmp_path):
    assert "--images=, names no folder" in sentence(simulate(",", tmp_path / "out"))


@pytest.mark.parametrize(("name", "said"), [("nowhere", "is no folder"), ("empty", "holds no image")])
def test_images_that_are_not_there(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    assert said in sentence(simulate(tmp_path / name, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_files_that_do_not_belong_together_are_told_without_other_commands_options(images, tmp_path):
    for name, array in (("a.png", np.zeros((40, 40, 3), np.uint8)), ("b.tif", np.zeros((40, 40, 9), np.uint8))):
        (tmp_path / "odd").mkdir(exist_ok=True)
        if name.endswith("png"):
            Image.fromarray(array).save(tmp_path / "odd" / name)
        else:
            tifffile.imwrite(tmp_path / "odd" / name, array, photometric="minisblack")
    said = sentence(simulate(tmp_path / "odd", tmp_path / "out"))
    assert "b.tif: 9" in said
    assert said.endswith("take such files out of the folder.")
    assert "--config" not in said


def test_two_processes_at_one_folder(images, tmp_path):
    with alone(tmp_path / "out" / "simulate.json.lock", ""):
        assert "another process makes figures in --out=" in sentence(simulate(images, tmp_path / "out"))


def test_other_content_is_not_overwritten(images):
    assert "holds other files (no simulate.json)" in sentence(simulate(images, images))
