"""True boxes of panels in files: ImageCLEF's XML, NLM's lists, or a table.

They are read as float32 [N, 4] by the name of the figure: pixel corners (x0, y0, x1, y1), x0 < x1 and y0 < y1, x1 and y1
the first pixel outside, in the order of the file, which ImageCLEF's accuracy depends on.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from medssl_jax.errors import UserError

WITHDRAWN = ("1471-2261-9-18-2", "1471-244X-7-25-4")  # test figures that the organisers took back
NAMES = ("image", "figure")  # columns with the figure's name
BOX = ("x0", "y0", "x1", "y1")
NLM_FIELDS = (6, 11)  # of a line of NLM's lists, without and with the box and the text of the panel's letter
NLM_PANEL = "panel"  # the sixth of them
CORNERS = (BOX, ("x1", "y1", "x2", "y2"))  # columns with the box


def read_boxes(path: Path | str) -> dict[str, np.ndarray]:
    """The boxes of a file of any of these kinds: ImageCLEF's where it ends in .xml, NLM's where its first line is a panel, else a table
    with a head. Raises UserError for a file that is missing, is none of them, or has a line that is no box."""
    path = Path(path)
    if path.suffix.lower() == ".xml":
        return read_clef(path)
    lines = _lines(path) if path.is_file() else []
    return read_nlm(path) if lines and len(lines[0]) in NLM_FIELDS and lines[0][5] == NLM_PANEL else read_panels(path)


def read_clef(path: Path | str) -> dict[str, np.ndarray]:
    """The boxes of FigureSeparationTraining2016-GT.xml, FigureSeparationTest2016GT.xml, or a run in that format, without withdrawn figures.

    Names are without .jpg. A panel is an object of four points, its corners in any order; a figure without objects has boxes [0, 4].
    Raises UserError for a file that is missing or is not such XML, and for an object that is no box.
    """
    path = Path(path)
    try:
        annotations = ElementTree.parse(path).getroot().iter("annotation")
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{path} cannot be read as ImageCLEF's XML ({error}); give the file as the challenge distributes it.") from error
    figures: dict[str, np.ndarray] = {}
    for annotation in annotations:
        name = (annotation.findtext("filename") or "").strip().removesuffix(".jpg")
        if name not in WITHDRAWN:
            rows = [_points(path, name, panel) for panel in annotation.iter("object")]
            figures[name] = _boxes(path, name, rows)
    if not figures:
        raise UserError(f"{path} holds no annotation with a filename; give a figure-separation file of ImageCLEF.")
    return figures


def read_nlm(path: Path | str) -> dict[str, np.ndarray]:
    """The boxes of NLM's multi-panel figures, from train.csv or eval.csv as github.com/GaetanLepage/compound-figure-separator has them.

    A line a panel, no header: the image's path, which is the figure's name here, x0, y0, x1, y1 of the panel with its letter in whole
    pixels, the word panel, and the letter's box and text, which may be empty or missing. Raises UserError for a file that is missing or has
    other lines, and for a line that is no box.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no list of panels {path}; give a train.csv or eval.csv of NLM's multi-panel figures.")
    figures: dict[str, list[list[float]]] = {}
    for number, row in enumerate(_lines(path), 1):
        if len(row) not in NLM_FIELDS or row[5] != NLM_PANEL:
            raise UserError(f"line {number} of {path} is not NLM's; a line is IMAGE,x0,y0,x1,y1,panel and the letter's box and text.")
        figures.setdefault(row[0], []).append([_number(path, row[0], text) for text in row[1:5]])
    if not figures:
        raise UserError(f"{path} is empty; give a train.csv or eval.csv of NLM's multi-panel figures.")
    return {name: _boxes(path, name, boxes) for name, boxes in figures.items()}


def read_panels(path: Path | str) -> dict[str, np.ndarray]:
    """The boxes of a CSV with a line a panel: the columns image or figure, and x0, y0, x1, y1 or x1, y1, x2, y2.

    Raises UserError for a file that is missing or has other columns, and for a line that is no box.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no table of panels {path}; give a CSV with the columns image, x0, y0, x1, y1.")
    head, *lines = _lines(path) or [[]]
    rows = [dict(itertools.zip_longest(head, line[: len(head)])) for line in lines]
    columns = set(head) if rows else set()
    name = next((name for name in NAMES if name in columns), None)
    corners = next((corners for corners in CORNERS if columns.issuperset(corners)), None)
    if name is None or corners is None:
        raise UserError(f"{path} has the columns {', '.join(sorted(columns)) or '(none)'}; needed are image, x0, y0, x1, y1.")
    figures: dict[str, list[list[float]]] = {}
    for row in rows:
        figures.setdefault(row[name], []).append([_number(path, row[name], row[corner]) for corner in corners])
    return {name: _boxes(path, name, boxes) for name, boxes in figures.items()}


def _lines(path: Path) -> list[list[str]]:
    """The lines of a CSV that are not empty. Raises UserError for a file that is no text in UTF-8, and for a quote without an end."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [line for line in csv.reader(file, strict=True) if line]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8; save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise UserError(f"{path} is no whole CSV ({error}); look for a quote that is not closed.") from error


def _points(path: Path, name: str, panel: ElementTree.Element) -> list[float]:
    """The box around an object's points."""
    points = [(_number(path, name, point.get("x")), _number(path, name, point.get("y"))) for point in panel.iter("point")]
    if not points:
        raise UserError(f"{path} has an object without points in {name}; a panel has four.")
    x, y = zip(*points, strict=True)
    return [min(x), min(y), max(x), max(y)]


def _boxes(path: Path, name: str, rows: list[list[float]]) -> np.ndarray:
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    wrong = ~((boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3]))
    if wrong.any():
        x0, y0, x1, y1 = rows[int(wrong.argmax())]
        raise UserError(f"{path} gives {name} the box {x0:g}, {y0:g} to {x1:g}, {y1:g}, which has no extent; correct or remove it.")
    return boxes


def _number(path: Path, name: str, text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError as error:
        raise UserError(f"{path} gives {name} the coordinate {text!r}; coordinates are numbers of pixels.") from error
