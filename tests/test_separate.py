"""The command that cuts figures: crops, table and sheet, bad figures told in a line; stopped, sharded and repeated runs agree."""

from __future__ import annotations

import csv
import os
import re
from urllib.parse import unquote

import numpy as np
import pytest
import shell
import tiny
from PIL import Image
from shell import sentence
from test_figures_looks import blobs, chart
from test_figures_read import write_pdf
from test_figures_xycut import grid

from medssl_jax.config import base
from medssl_jax.data.sources import open_dataset
from medssl_jax.errors import UserError
from medssl_jax.figures import cut as cutting
from medssl_jax.figures import detect, pixels, sheet
from medssl_jax.figures import separate as command
from medssl_jax.figures import task as task_files
from medssl_jax.figures.boxes import iou
from medssl_jax.figures.files import find
from medssl_jax.figures.pools import open_pools
from medssl_jax.figures.read import Figure
from medssl_jax.figures.separate import Task, separate
from medssl_jax.figures.simulate import Figures
from medssl_jax.figures.style import Style


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three compound figures, a single image, a PDF with one of them on its second page, and three that cannot be cut."""
    home, rng = tmp_path_factory.mktemp("figures"), np.random.default_rng(0)
    for name, rows in [("a.png", 1), ("sub/b.png", 2), ("sub/c.png", 3)]:
        save(home / name, grid(rng, rows=rows, columns=2, side=60)[0])
    save(home / "single.png", grid(rng, rows=1, columns=1, side=90, margin=0)[0])
    write_pdf(home / "paper.pdf", [[], [np.ascontiguousarray(grid(rng, rows=1, columns=3, side=50)[0])]])
    save(home / "blank.png", np.full((80, 90, 3), 255, np.uint8))
    save(home / "dot.png", np.zeros((9, 9, 3), np.uint8) + np.arange(9, dtype=np.uint8)[:, None] * 20)
    (home / "broken.jpg").write_bytes(b"not a JPEG")
    return home


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new"
    separate(Task(folder, out, "xycut"))
    return out


def rows(out):
    with (out / "panels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def tree(out):
    """Every crop and thumbnail, the table and the pages, by their path from `out`."""
    kept = [path for path in out.rglob("*") if path.is_file() and path.parent.name != "parts" and path.name != "separate.json"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in kept}


def test_every_panel_is_a_crop_and_a_line(folder, done):
    lines = [row for row in rows(done) if not row["error"]]
    assert [row["source"] for row in lines] == ["a.png"] * 2 + ["paper.pdf"] * 3 + ["single.png"] + ["sub/b.png"] * 4 + ["sub/c.png"] * 6
    assert len({row["crop"] for row in lines}) == len(lines)
    for row in lines:
        crop = np.asarray(Image.open(done / row["crop"]))
        assert crop.shape == (int(row["height"]), int(row["width"]), 3)
        x0, y0, x1, y1 = (int(row[key]) for key in ("x0", "y0", "x1", "y1"))
        assert row["looks"] == "photograph"
        if not row["source"].endswith(".pdf"):
            np.testing.assert_array_equal(crop, np.asarray(Image.open(folder / row["source"]))[y0:y1, x0:x1])
    assert {row["page"] for row in lines if row["source"] == "paper.pdf"} == {"2"}


def test_panels_are_numbered_in_the_order_of_reading(done):
    places = [(int(row["panel"]), int(row["y0"]), int(row["x0"])) for row in rows(done) if row["source"] == "sub/b.png"]
    assert places == [(1, 10, 10), (2, 10, 78), (3, 78, 10), (4, 78, 78)]


def test_a_single_image_is_returned_whole(folder, done):
    (row,) = [row for row in rows(done) if row["source"] == "single.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(done / row["crop"])), np.asarray(Image.open(folder / "single.png")))


def test_what_cannot_be_cut_is_told(done):
    errors = {row["source"]: row["error"] for row in rows(done) if row["error"]}
    assert list(errors) == ["blank.png", "broken.jpg", "dot.png"]
    assert errors["blank.png"] == "blank.png is blank, so there is nothing to cut; leave it out."
    assert errors["broken.jpg"] == "broken.jpg is no image, or a damaged one; get it again, or remove it."
    assert errors["dot.png"] == "dot.png has no panel of 32 px a side that shows anything; lower --min-side to keep smaller ones."


def test_the_sheet_shows_every_figure_and_every_error(done):
    page = (done / "index.html").read_text()
    assert len(re.findall("<figure><img[^>]*data:image/jpeg;base64,", page)) == 5
    assert "8 figures, 16 panels: 16 like photographs, 0 like plots; 3 figures could not be cut." in page
    assert "blank.png is blank" in page
    assert "paper.pdf, page 2, image 1: 3 panels" in page
    assert "single.png: 1 panel " in page
    links = re.findall('href="(photographs/[^"]*)">', page)
    assert len(links) == 16
    assert all((done / unquote(link)).is_file() for link in links)
    assert 'src="http' not in page


def test_the_crops_are_a_data_set(done):
    data = tiny.config("tower").data.copy_and_resolve_references()
    data.update({"source": "folder", "path": str(done / "photographs"), "task": "none", "val_fraction": 0.0, "test_fraction": 0.0})
    assert len(open_dataset(data).pool) == 16


def test_plots_lie_apart(tmp_path, rng):
    figure = np.full((284, 620, 3), 255, np.uint8)
    figure[20:260, 10:250], figure[10:274, 280:610] = blobs(rng, 120), chart("bar", rng)
    save(tmp_path / "in" / "sub" / "a.png", figure)
    separate(Task(tmp_path / "in", tmp_path / "out", "xycut"))
    assert [(row["looks"], row["crop"]) for row in rows(tmp_path / "out")] == [
        ("photograph", "photographs/sub/a_png_1.png"),
        ("plot", "plots/sub/a_png_2.png"),
    ]
    assert all((tmp_path / "out" / row["crop"]).is_file() for row in rows(tmp_path / "out"))


def test_the_same_command_again_does_nothing_twice(folder, done, monkeypatch):
    """But what could not be cut is tried again."""
    before, tried, whole = tree(done), [], command.cut

    def counting(task, files, find):
        tried.extend(files)
        return whole(task, files, find)

    monkeypatch.setattr(command, "cut", counting)
    separate(Task(folder, done, "xycut"))
    assert tree(done) == before
    assert tried == ["blank.png", "broken.jpg", "dot.png"]


def test_a_figure_that_can_be_read_by_now_is_cut(tmp_path, rng, monkeypatch):
    """The file is as it was; what hindered it (a package that was missing, say) is not."""
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, grid(rng, rows=1, columns=2, side=60)[0])
    task, read = Task(tmp_path / "in", tmp_path / "out", "xycut"), cutting.figures_of
    monkeypatch.setattr(cutting, "figures_of", lambda file, name, least: [read_none(name)] if name == "b.png" else read(file, name, least))
    separate(task)
    assert [bool(row["error"]) for row in rows(tmp_path / "out")] == [False, False, True]
    monkeypatch.setattr(cutting, "figures_of", read)
    separate(task)
    assert [row["source"] for row in rows(tmp_path / "out") if not row["error"]] == ["a.png"] * 2 + ["b.png"] * 2


def read_none(name):
    return Figure(name, 1, 1, None, error=f"{name} cannot be read yet.")


def test_lost_crops_are_cut_again(tmp_path, rng):
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, grid(rng, rows=1, columns=2, side=60)[0])
    task = Task(tmp_path / "in", tmp_path / "out", "xycut")
    separate(task)
    before = tree(tmp_path / "out")
    (tmp_path / "out" / "photographs" / "b_png_2.png").unlink()
    separate(task)
    assert tree(tmp_path / "out") == before


def test_names_that_are_long_or_no_text(tmp_path, rng):
    """Two names that begin alike, too long for a crop's; one that is not UTF-8 is shown by its bytes."""
    home, image = tmp_path / "in", grid(rng, rows=1, columns=2, side=60)[0]
    for name in ("x" * 250 + "1.png", "x" * 250 + "2.png"):
        save(home / name, image)
    try:
        (home / os.fsdecode(b"latin\xe9.png")).write_bytes((home / ("x" * 250 + "1.png")).read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    separate(Task(home, tmp_path / "out", "xycut"))
    found = rows(tmp_path / "out")
    assert [row["source"] for row in found] == [r"latin\xe9.png"] * 2 + ["x" * 250 + "1.png"] * 2 + ["x" * 250 + "2.png"] * 2
    assert crops(tmp_path / "out") == {row["crop"] for row in found}
    assert len({row["crop"] for row in found}) == 6


def test_a_carriage_return_in_a_name(tmp_path, rng):
    """It would end a line of the table."""
    for name in ("a.png", "x\ry.png", r"x\ry.png", "in\rner/b.png"):
        save(tmp_path / "in" / name, grid(rng, rows=1, columns=2, side=60)[0])
    task = Task(tmp_path / "in", tmp_path / "out", "xycut")
    separate(task)
    separate(task)
    found = [row["source"] for row in rows(tmp_path / "out")]
    assert found[:6] == ["a.png"] * 2 + [r"in\rner/b.png"] * 2 + [r"x\ry.png"] * 2
    assert all(re.fullmatch(r"x\\ry~[0-9a-f]{8}\.png", name) for name in found[6:])  # another file
    assert len(found) == 8
    assert crops(tmp_path / "out") == {row["crop"] for row in rows(tmp_path / "out")}


def test_a_folder_that_cannot_be_read_for_a_while_keeps_its_crops(tmp_path, rng, monkeypatch, capsys):
    for name in ("a.png", "sub/b.png"):
        save(tmp_path / "in" / name, grid(rng, rows=1, columns=2, side=60)[0])
    task, found = Task(tmp_path / "in", tmp_path / "out", "xycut"), find(tmp_path / "in")
    separate(task)
    next((tmp_path / "out").rglob("b_png_1.png")).unlink()  # which cannot be cut again now
    before = tree(tmp_path / "out")
    monkeypatch.setattr(command, "find", lambda path: found._replace(files=found.files[:1], closed=("sub",)))
    separate(task)
    assert "no permission for the folders sub" in capsys.readouterr().err
    assert {name: data for name, data in tree(tmp_path / "out").items() if name != "index.html"} == {
        name: data for name, data in before.items() if name != "index.html"
    }


def test_a_lost_thumbnail_is_made_again(tmp_path, rng):
    save(tmp_path / "in" / "a.png", grid(rng, rows=1, columns=2, side=60)[0])
    task = Task(tmp_path / "in", tmp_path / "out", "xycut")
    separate(task)
    before = tree(tmp_path / "out")
    next((tmp_path / "out" / "thumbnails").rglob("*.jpg")).unlink()
    separate(task)
    assert tree(tmp_path / "out") == before


def test_blank_panels_are_left_out(tmp_path, rng, monkeypatch):
    image = np.full((100, 240, 3), 255, np.uint8)
    image[5:95, 10:100] = rng.integers(60, 200, (90, 90, 1))
    save(tmp_path / "in" / "a.png", image)
    boxes = np.float32([[130, 5, 220, 95], [10, 5, 100, 95]]), np.float32([0.9, 0.4])
    monkeypatch.setattr(command, "finder", lambda task: lambda images: [boxes for _ in images])
    separate(Task(tmp_path / "in", tmp_path / "out"))
    assert [(row["panel"], row["x0"], row["score"]) for row in rows(tmp_path / "out")] == [("1", "10", "0.4000")]


def test_pages_are_named_and_their_like_errors_told_once(tmp_path, rng):
    pages = [Image.fromarray(grid(rng, rows=1, columns=2, side=60)[0])] + [Image.new("L", (60, 40), 200)] * 5
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in" / "a.tif", save_all=True, append_images=pages[1:])
    separate(Task(tmp_path / "in", tmp_path / "out", "xycut"))
    page = (tmp_path / "out" / "index.html").read_text()
    assert "a.tif, page 1: 2 panels" in page
    said = "a.tif, page 2, is blank, so there is nothing to cut; leave it out. The same of 4 more in a.tif."
    assert re.findall("<li>(.*?)</li>", page) == [said]
    assert [row["error"].split(" is ")[0] for row in rows(tmp_path / "out")[2:]] == [f"a.tif, page {n}," for n in range(2, 7)]


def test_what_was_ignored_is_told(tmp_path, rng, capsys):
    save(tmp_path / "in" / "a.png", grid(rng, rows=1, columns=2, side=60)[0])
    (tmp_path / "in" / "b.xyz").write_text("")
    separate(Task(tmp_path / "in", tmp_path / "out", "xycut"))
    assert "1 figure, 1 of them cut apart: 2 panels in" in (said := capsys.readouterr().err)
    assert said.endswith("; ignored: 1 .xyz\n")
    assert "Ignored: 1 .xyz." in (tmp_path / "out" / "index.html").read_text()


def test_a_table_that_is_damaged(tmp_path, rng):
    save(tmp_path / "in" / "a.png", grid(rng, rows=1, columns=2, side=60)[0])
    task = Task(tmp_path / "in", tmp_path / "out", "xycut")
    separate(task)
    table = tmp_path / "out" / "parts" / "1-of-1.csv"
    for damage in (b"\xff\xfe", table.read_bytes().rsplit(b",", 3)[0] + b"\n"):
        table.write_bytes(damage)
        with pytest.raises(UserError, match=r"1-of-1.csv is damaged, or no table of separated panels; remove it and start"):
            separate(task)


def test_a_stopped_run_continues(folder, done, tmp_path, monkeypatch):
    """Stopped after four files, two at a time, its last line cut short."""
    whole, out, cuts = command.cut, tmp_path / "out", []
    monkeypatch.setattr(cutting, "GROUP", 2)

    def stopping(task, files, find):
        for number, lines in enumerate(whole(task, files, find)):
            if number == 2:
                raise KeyboardInterrupt
            yield lines

    def counting(task, files, find):
        cuts.extend(files)
        return whole(task, files, find)

    monkeypatch.setattr(command, "cut", stopping)
    with pytest.raises(KeyboardInterrupt):
        separate(Task(folder, out, "xycut"))
    part = out / "parts" / "1-of-1.csv.partial"
    part.write_text(part.read_text()[:-7])
    monkeypatch.setattr(command, "cut", counting)
    separate(Task(folder, out, "xycut"))
    assert 4 < len(cuts) < 8
    assert tree(out) == tree(done)


def test_what_was_being_written_is_not_left_behind(tmp_path, rng, monkeypatch):
    """Killed in the middle of a crop; before the next start one figure goes, and another is replaced by one of fewer panels."""
    home, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "b.png", "c.png"):
        save(home / name, grid(rng, rows=1, columns=4, side=60)[0])
    whole = cutting._write

    def killed(out, pieces):
        whole(out, pieces)
        last = out / pieces.lines[-1]["crop"]
        last.rename(task_files.partial_of(last))
        if pieces.lines[0]["source"] == "b.png":
            raise KeyboardInterrupt

    monkeypatch.setattr(cutting, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        separate(Task(home, out, "xycut"))
    monkeypatch.undo()
    assert len(crops(out)) >= 6
    (home / "a.png").unlink()
    save(home / "b.png", grid(rng, rows=1, columns=2, side=70)[0])
    separate(Task(home, out, "xycut"))
    assert [row["source"] for row in rows(out)] == ["b.png"] * 2 + ["c.png"] * 4
    assert crops(out) == {row["crop"] for row in rows(out)}
    assert not list(out.rglob("*.partial"))


def test_few_large_figures_are_cut_at_a_time(tmp_path, rng, monkeypatch):
    """By their pixels, so that the memory does not grow with the size of scans."""
    for name in "abcdef":
        save(tmp_path / "in" / f"{name}.png", grid(rng, rows=1, columns=2, side=60)[0])
    seen = []

    def counting(images):
        seen.append(len(images))
        return command._cut_blank_lines(images)

    monkeypatch.setattr(command, "finder", lambda task: counting)
    monkeypatch.setattr(cutting, "PIXELS", 2 * 80 * 148 - 1)  # two of them
    separate(Task(tmp_path / "in", tmp_path / "out", "xycut"))
    assert seen == [2, 2, 2]


def test_shares_make_the_same(folder, done, tmp_path):
    out = tmp_path / "out"
    for number in (2, 3, 1):
        assert not (out / "panels.csv").exists()
        separate(Task(folder, out, "xycut", shard=f"{number}/3"))
    assert tree(out) == tree(done)


def test_new_figures_are_added_and_lost_ones_left_out(tmp_path, rng):
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, grid(rng, rows=1, columns=2, side=60)[0])
    task = Task(tmp_path / "in", tmp_path / "out", "xycut")
    separate(task)
    (tmp_path / "in" / "a.png").unlink()
    save(tmp_path / "in" / "c.png", grid(rng, rows=1, columns=3, side=60)[0])
    separate(task)
    assert [row["source"] for row in rows(tmp_path / "out")] == ["b.png"] * 2 + ["c.png"] * 3
    assert crops(tmp_path / "out") == {row["crop"] for row in rows(tmp_path / "out")}  # nothing is left of the first


def crops(out):
    """What is pretrained on."""
    return {path.relative_to(out).as_posix() for folder in ("photographs", "plots") for path in (out / folder).rglob("*.png")}


def test_a_figure_that_was_replaced_is_cut_again(tmp_path, rng):
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, grid(rng, rows=1, columns=3, side=60)[0])
    task = Task(tmp_path / "in", tmp_path / "out", "xycut")
    separate(task)
    save(tmp_path / "in" / "b.png", grid(rng, rows=1, columns=2, side=70)[0])
    separate(task)
    found = rows(tmp_path / "out")
    assert [(row["source"], row["width"]) for row in found] == [("a.png", "60")] * 3 + [("b.png", "70")] * 2
    assert crops(tmp_path / "out") == {row["crop"] for row in found}


def test_shares_agree_however_the_folder_changes(tmp_path, rng, capsys):
    """Figures come and go between two shares: none is cut twice, and none is left out unsaid."""
    home, out = tmp_path / "in", tmp_path / "out"
    for name in "abcdefgh":
        save(home / f"{name}.png", grid(rng, rows=1, columns=2, side=60)[0])
    first, second = (Task(home, out, "xycut", shard=f"{number}/2") for number in (1, 2))
    separate(first)
    (home / "a.png").unlink()
    for name in "ijklmnop":
        save(home / f"{name}.png", grid(rng, rows=1, columns=2, side=60)[0])
    separate(second)
    assert not (out / "panels.csv").exists()
    assert "files to go: --shard=1/2 has" in capsys.readouterr().err
    separate(first)
    assert [row["source"] for row in rows(out)] == [f"{name}.png" for name in "bcdefghijklmnop" for _ in range(2)]
    assert crops(out) == {row["crop"] for row in rows(out)}


def test_two_processes_at_one_share(folder, tmp_path):
    task = Task(folder, tmp_path / "out", "xycut")
    separate(task)
    with task.part(1).held(), pytest.raises(UserError, match=r"another process writes .*1-of-1.csv; wait for it"):
        separate(task)
    separate(task)


def test_padding_and_the_least_side(tmp_path, rng):
    image = np.full((100, 200, 3), 255, np.uint8)
    image[5:95, 10:100], image[5:95, 115:140] = rng.integers(60, 200, (90, 90, 1)), rng.integers(60, 200, (90, 25, 1))
    save(tmp_path / "a.png", image)
    separate(Task(tmp_path / "a.png", tmp_path / "one", "xycut", pad=8, min_side=30))
    separate(Task(tmp_path / "a.png", tmp_path / "two", "xycut", pad=8, min_side=20))
    box = [[row[key] for key in ("source", "x0", "y0", "x1", "y1")] for row in rows(tmp_path / "two")]
    assert box == [["a.png", "2", "0", "108", "100"], ["a.png", "107", "0", "148", "100"]]
    assert [[row[key] for key in ("source", "x0", "y0", "x1", "y1")] for row in rows(tmp_path / "one")] == box[:1]


def test_a_partition_leaves_nothing_out(tmp_path, rng):
    save(tmp_path / "a.png", grid(rng, rows=1, columns=2, side=60, gap=9, margin=4)[0])
    separate(Task(tmp_path / "a.png", tmp_path / "out", "xycut", boxes="partition"))
    assert [[int(row[key]) for key in ("x0", "y0", "x1", "y1")] for row in rows(tmp_path / "out")] == [[0, 0, 67, 68], [70, 0, 137, 68]]


def test_labelled_boxes_take_in_the_letters(tmp_path, rng):
    image, _ = grid(rng, rows=1, columns=2, side=100, gap=30, margin=20)
    image[4:14, 22:30], image[4:14, 152:160] = 0, 0
    save(tmp_path / "a.png", image)
    for kind, top in (("tight", "20"), ("labelled", "4")):
        separate(Task(tmp_path / "a.png", tmp_path / kind, "xycut", boxes=kind))
        assert [row["y0"] for row in rows(tmp_path / kind)] == [top, top]


def test_the_detector_of_the_package_parts_what_touches(tmp_path):
    """Without --method and --run: simulated figures of the built-in sample without a gap, most of whose panels are found."""
    frames = open_pools(base("small").data).train
    style = Style(counts=(0, 1, 1, 1, 0, 0, 0, 0), replayed=0.0, zero_gap=1.0, intra_class=0.0, distractors=0.0)
    figures = [Figures(frames, style, seed=0)[k] for k in range(8)]
    for figure in figures:
        save(tmp_path / "in" / f"{figure['id']}.png", figure["image"])
    separate(Task(tmp_path / "in", tmp_path / "out"))
    lines, right = rows(tmp_path / "out"), 0
    for figure in figures:
        found = [[int(row[key]) for key in ("x0", "y0", "x1", "y1")] for row in lines if row["source"] == f"{figure['id']}.png"]
        right += (iou(figure["boxes"], np.float32(found)).max(1) > 0.5).sum()
    assert right >= 0.8 * sum(len(figure["boxes"]) for figure in figures)


def test_boxes_of_a_huge_figure_are_in_its_own_pixels(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(pixels, "READ_WHOLE", 400 * 400)
    image, boxes = grid(rng, rows=2, columns=2, side=360, gap=40, margin=20)
    save(tmp_path / "a.png", image)
    separate(Task(tmp_path / "a.png", tmp_path / "out", "xycut"))
    lines = rows(tmp_path / "out")
    np.testing.assert_allclose([[int(row[key]) for key in ("x0", "y0", "x1", "y1")] for row in lines], boxes, atol=4)
    assert [(row["width"], row["height"]) for row in lines] == [("180", "180")] * 4


def test_many_figures_fill_several_pages(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(sheet, "ON_PAGE", 3)
    monkeypatch.setattr(sheet, "MOST", 5)
    for number in range(10):
        save(tmp_path / "in" / f"{number}.png", grid(rng, rows=1, columns=2, side=40)[0])
    separate(Task(tmp_path / "in", tmp_path / "out", "xycut"))
    first, second = (tmp_path / "out" / "index.html").read_text(), (tmp_path / "out" / "index-2.html").read_text()
    assert re.findall(r"(\d)\.png: 2 panels <a", first + second) == ["0", "2", "4", "6", "8"]
    assert '<a href="index-2.html">2</a>' in first
    assert "5 of the figures are shown" in first


class Halves:
    """A detector that finds the left and the right half of every figure, and remembers how many it was given at a time."""

    def __init__(self):
        self.given = []

    def __call__(self, images):
        self.given.append(len(images))
        wide = [image.shape[1] for image in images]
        return [(np.float32([[w // 2, 0, w, 50], [0, 0, w // 2, 50]]), np.float32([0.9, 0.4])) for w in wide]


def test_a_detector_is_that_of_a_run_or_the_one_that_ships(folder, tmp_path, monkeypatch):
    found, runs = Halves(), []
    monkeypatch.setattr(detect.Detector, "load", lambda run=None: runs.append(run) or found)
    separate(Task(folder, tmp_path / "out", "detector"))
    separate(Task(folder, tmp_path / "own", "detector", run=tmp_path / "run"))
    assert runs == [None, tmp_path / "run"]
    assert sum(found.given) == 12  # six figures, twice; neither the broken nor the blank one
    first, second = [row for row in rows(tmp_path / "out") if row["source"] == "a.png"]
    assert (first["x0"], first["score"], second["score"]) == ("0", "0.4000", "0.9000")


def test_a_run_without_a_detector_leaves_the_folder_free(folder, tmp_path):
    with pytest.raises(UserError, match="holds no trained detector"):
        separate(Task(folder, tmp_path / "out", "detector", run=tmp_path))
    separate(Task(folder / "a.png", tmp_path / "out", "xycut"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pad": 3}, r"out was begun with pad=0, and it is 3 here; choose another --out"),
        ({"method": "detector"}, "method=xycut, and it is detector here"),
        ({"shard": "1/2"}, "shards=1, and it is 2 here"),
    ],
)
def test_results_of_another_command_are_refused(tmp_path, rng, monkeypatch, options, said):
    monkeypatch.setattr(detect.Detector, "load", lambda run=None: Halves())
    save(tmp_path / "in" / "a.png", grid(rng, rows=1, columns=2, side=60)[0])
    given = {"figures": tmp_path / "in", "out": tmp_path / "out", "method": "xycut"}
    separate(Task(**given))
    before = tree(tmp_path / "out")
    with pytest.raises(UserError, match=said):
        separate(Task(**given | options))
    assert tree(tmp_path / "out") == before


def test_folders_that_cannot_be_used(folder, tmp_path):
    (tmp_path / "file").write_text("")
    for out, said in [
        (folder / "panels", "lies in the folder of the figures"),
        (folder / "sub" / "new" / "panels", "lies in the folder of the figures"),
        (tmp_path / "file", "is a file; name a new or an empty folder"),
        (tmp_path, "holds other files"),
    ]:
        with pytest.raises(UserError, match=said):
            separate(Task(folder, out, "xycut"))


def test_no_figure_at_all_could_be_cut(folder, tmp_path):
    with pytest.raises(UserError, match=r"nothing could be cut out of 1 figure of .*broken.jpg; the first: broken.jpg is no image"):
        separate(Task(folder / "broken.jpg", tmp_path / "out", "xycut"))
    assert rows(tmp_path / "out")[0]["error"]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_shares_that_are_none(tmp_path, shard):
    with pytest.raises(UserError, match=f"--shard={shard} is no share of the files; write i/n"):
        Task(tmp_path, tmp_path, "xycut", shard=shard)


def test_a_run_needs_the_detector(tmp_path):
    with pytest.raises(UserError, match="leave out one of them"):
        Task(tmp_path, tmp_path, "xycut", run=tmp_path)


def call(*flags):
    return shell.run("medssl_jax.separate", *flags)


def test_the_command(folder, done, tmp_path):
    result = call(f"--figures={folder}", f"--out={tmp_path / 'out'}", "--method=xycut")
    assert result.returncode == 0, result.stderr
    assert "separate: 8/8 files" in result.stderr
    assert f"8 figures, 4 of them cut apart and 1 left whole: 16 panels in {tmp_path / 'out' / 'photographs'} and 0 panels" in result.stderr
    assert tree(tmp_path / "out") == tree(done)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out=x"], "--figures is missing"),
        (["--figures=/nowhere", "--out=x", "--method=xycut"], "/nowhere does not exist"),
        (["--figures=/nowhere", "--out=x", "--method=magic"], "should be one of"),
        (["--figures=/nowhere", "--out=x", "--run="], "--run is empty; name a finished run"),
        (["--figures=/nowhere", "--out=x", "--run=shipped"], "/nowhere does not exist"),
    ],
)
def test_mistakes_are_told(flags, said):
    assert said in sentence(call(*flags))
