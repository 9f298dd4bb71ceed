"""Real compound figures cut and scored; your own: `python -m experiments.figures --boxes=FILE --images=DIR [--run=RUN]`.

FILE is ImageCLEF's XML, a list of NLM's, or a CSV with the columns image, x0, y0, x1, y1 (tight boxes in pixels); see `figures.clef`.
The project's set holds `images/`, `panels.csv`, and `index.csv` that names each image's article.
Beside the methods stand the whole figure as one panel and four equal quarters. It is a test set: nothing is chosen here.
Its boxes are of lettered panels as a whole, so beside what is cut out stands the same with the letters and labels around it.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import commit
from experiments.cut_tables import EVERY, NOTHING, by_method, differences, one_score
from experiments.cutters import CONTROL, DETECTOR, PARTITION, TIGHT, Cutter, Sample, cut, cutters, labelled, summary
from medssl_jax import cli
from medssl_jax.errors import UserError
from medssl_jax.figures.clef import read_boxes
from medssl_jax.figures.read import figures_of
from medssl_jax.report.words import counted
from medssl_jax.train.logging import read_json, say, write_json

RECORD = "figures.json"
SLACK = 0.02  # of the figure, that a box may reach beyond it
TOUCHING, APART = "touching", 1.0  # figures with two panels no more than so many px apart


def main(arguments: Sequence[str]) -> int:
    """Score figures of one's own, and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=Path, required=True, help="the true boxes: ImageCLEF's XML, NLM's list, or a CSV")
    parser.add_argument("--images", type=Path, required=True, help="the folder of the figures that the boxes name")
    parser.add_argument("--run", type=Path, help="a run of configs/simcfs.py, whose detector is scored in place of the package's")
    parser.add_argument("--record", type=Path, help="a file for the scores as JSON; they are only printed where nothing is given")
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: own(asked.boxes, asked.images, cutters(asked.run), asked.record))


def own(boxes: Path, images: Path, ways: Mapping[str, Cutter], record: Path | None) -> int:
    """Print the scores of every way to cut, and keep them in `record` where there is one; 0. Raises UserError for what cannot be read."""
    if record is not None and (record.is_dir() or not record.parent.is_dir()):
        raise UserError(f"--record={record} {'is a folder' if record.is_dir() else 'lies in no folder that exists'}; name a file.")
    told = scored(read_boxes(boxes), images, ways, {})
    print("\n\n".join(_tables(told)))
    if record is not None:
        write_json(record, told)
    return 0


def measure(data: Path, ways: Mapping[str, Cutter], record: Path) -> int:
    """Scores of every way to cut, of all figures, of those with touching panels, and article by article, into `record`; 0.

    Raises UserError for what cannot be read.
    """
    truths = read_boxes(data / "panels.csv")
    touching = [name for name, boxes in truths.items() if touch(boxes)]
    groups = {TOUCHING: touching} if touching else {}
    told = scored(truths, data / "images", ways, groups | _articles(data, truths))
    write_json(record, {"dataset": data.name, "code": commit.current(), "detector": ways[DETECTOR].mark, **told})
    print(table(record))
    return 0


def touch(boxes: np.ndarray) -> bool:
    """Whether two of these panels [N, 4] lie no more than a pixel apart."""
    low, high = boxes[:, :2], boxes[:, 2:]
    between = np.maximum(low[:, None] - high[None], low[None] - high[:, None]).max(-1)
    return bool((between[np.triu_indices(len(boxes), 1)] <= APART).any())


def scored(truths: Mapping[str, np.ndarray], images: Path, ways: Mapping[str, Cutter], groups: Mapping[str, list[str]]) -> dict[str, Any]:
    """Scores of every way to cut, also with letters and labels, over all figures and group by group (see `cutters.summary`)."""
    ways = {**ways, **{f"{name}, with labels": labelled(ways[name]) for name in (CONTROL, DETECTOR) if name in ways}}
    paths = {name: _path(images, name) for name in truths}
    say(f"{counted(len(truths), 'figure')} in {images}, cut by {', '.join(ways)}.")
    cuts = cut((Sample(name, _image(paths[name], boxes), boxes) for name, boxes in truths.items()), ways)
    return summary(cuts, {EVERY: list(truths), **groups})


def table(record: Path) -> str:
    """Markdown: the scores of all figures a method in both conventions, AP@.5 group by group, and the detector's paired differences."""
    if not record.exists():
        return NOTHING
    return "\n\n".join(_tables(read_json(record, dict, "measure again")))


def _tables(told: dict[str, Any]) -> list[str]:
    parts = [by_method(told, TIGHT), by_method(told, PARTITION), one_score(told, TIGHT, "ap50"), differences(told)]
    return [part for part in parts if part]


def _path(folder: Path, name: str) -> Path:
    """The figure of that name, which may lack its ending or have folders before it that are not here."""
    if not folder.is_dir():
        raise UserError(f"--images={folder} is no folder; name the one that holds the figures.")
    path = next((path for path in (folder / name, folder / f"{name}.jpg", folder / Path(name).name) if path.is_file()), None)
    if path is None:
        raise UserError(f"{folder} holds no figure {name}, which the boxes name; give the folder with --images.")
    return path


def _image(path: Path, boxes: np.ndarray) -> np.ndarray:
    """The figure that these boxes are of. Raises UserError where it cannot be read, and where a box cannot be of it."""
    figure = next(figures_of(path, path.name))
    if figure.image is None:
        raise UserError(f"{path} cannot be read ({figure.error}); the set is damaged, get it anew.")
    if figure.scale != 1:
        raise UserError(f"{path} was made {figure.scale:.2f} times smaller on reading, where its boxes are none of; leave it out.")
    height, width = figure.image.shape[:2]
    wrong = (boxes[:, :2] < -SLACK * max(width, height)).any(1) | (boxes[:, 2:] > np.array([width, height]) * (1 + SLACK)).any(1)
    if wrong.any():
        x0, y0, x1, y1 = boxes[int(wrong.argmax())]
        raise UserError(
            f"a box of {path.name}, {x0:g}, {y0:g} to {x1:g}, {y1:g}, is not in its {width} x {height} pixels; give boxes of this file."
        )
    return figure.image


def _articles(data: Path, truths: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """The figures' names by article, where index.csv tells."""
    groups: dict[str, list[str]] = {}
    index = data / "index.csv"
    if index.is_file():
        with index.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["image"] in truths:
                    groups.setdefault(row["image"].rpartition("_")[0], []).append(row["image"])
    return groups


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
