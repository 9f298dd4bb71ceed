"""The table of real figures: boxes that are known, cut and scored."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from experiments import figures

PANELS = {"one_a.png": [(10, 10, 90, 90), (110, 10, 190, 90)], "two_a.png": [(10, 10, 190, 90), (10, 110, 190, 190)]}


@pytest.fixture
def data(tmp_path):
    """Two figures of grey squares on white, of two articles."""
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, boxes in PANELS.items():
        image = np.full((200, 200, 3), 255, np.uint8)
        for x0, y0, x1, y1 in boxes:
            image[y0:y1, x0:x1] = rng.integers(0, 150, (y1 - y0, x1 - x0, 3))
        Image.fromarray(image).save(folder / "images" / name)
    with (folder / "panels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "panel_label", "x0", "y0", "x1", "y1"])
        writer.writerows([name, "", *box] for name, boxes in PANELS.items() for box in boxes)
    (folder / "index.csv").write_text("image,n_panels\n" + "".join(f"{name},2\n" for name in PANELS))
    return folder


def test_methods_are_scored_over_all_and_by_article(data, tmp_path, capsys):
    record = tmp_path / "figures.json"
    assert figures.main([f"--data={data}", f"--record={record}"]) == 0
    scores = json.loads(record.read_text())["scores"]
    assert scores["xycut"]["all"]["ap50"] == pytest.approx(1)
    assert scores["xycut"]["all"]["imageclef"] == pytest.approx(100)
    assert scores["one panel"]["all"]["ap50"] == 0  # no panel is half of its figure
    assert scores["2 x 2"]["one"]["imageclef"] == 0  # 64 of 100 px of a quarter are its panel: less than two thirds
    assert {group: of["figures"] for group, of in scores["xycut"].items()} == {"all": 2, "one": 1, "two": 1}
    printed = capsys.readouterr().out
    assert figures.table(record) in printed
    assert "| xycut | 1.000 | 1.000 |" in printed


def test_a_figure_that_cannot_be_read_is_told(data, tmp_path, capsys):
    (data / "images" / "one_a.png").write_bytes(b"")
    assert figures.main([f"--data={data}", f"--record={tmp_path / 'figures.json'}"]) != 0
    assert "one_a.png" in capsys.readouterr().err


def test_a_folder_without_boxes_is_told(tmp_path, capsys):
    assert figures.main([f"--data={tmp_path}", f"--record={tmp_path / 'figures.json'}"]) != 0
    assert "panels.csv" in capsys.readouterr().err
