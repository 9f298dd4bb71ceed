"""Real compound figures cut and scored: `python -m experiments.figures --data=DATASETS/compound_figures [--run=RUN]`.

The folder holds `images/` and `panels.csv` (image, x0, y0, x1, y1: tight boxes in pixels), and `index.csv` that names each image's article.
Beside the methods stand the whole figure as one panel and four equal quarters. It is a test set: nothing is chosen here.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments import commit
from experiments.records import RECORDS
from medssl_jax import cli
from medssl_jax.errors import UserError
from medssl_jax.figures.clef import read_panels
from medssl_jax.figures.detect import Detector
from medssl_jax.figures.read import figures_of
from medssl_jax.figures.score import Detections, evaluate
from medssl_jax.figures.xycut import xycut
from medssl_jax.train.logging import read_json, say, write_json

RECORD = "figures.json"
EVERY = "all"
SHOWN = {
    "ap50": "AP@.5",
    "ap": "AP@.5:.95",
    "imageclef": "ImageCLEF",
    "iou": "mean IoU",
    "over": "over",
    "under": "under",
    "right": "right",
}

Find = Callable[[np.ndarray], Detections]


def main(arguments: Sequence[str]) -> int:
    """Measure, record, and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of images/, panels.csv and index.csv")
    parser.add_argument("--run", type=Path, help="a run of configs/simcfs.py, whose detector is scored too")
    parser.add_argument("--record", type=Path, default=RECORDS / RECORD, help="where the scores are kept")
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: measure(asked.data, asked.run, asked.record))


def measure(data: Path, run: Path | None, record: Path) -> int:
    """Scores of every method, of all figures and article by article, into `record`; 0. Raises UserError for what cannot be read."""
    truths = read_panels(data / "panels.csv")
    images = {name: _image(data / "images" / name) for name in truths}
    finders: dict[str, Find] = {"one panel": _grid(1), "2 x 2": _grid(2), "xycut": lambda image: Detections(*xycut(image))}
    if run is not None:
        detector = Detector.load(run)
        finders["detector"] = lambda image: Detections(*detector([image])[0])
    found: dict[str, dict[str, dict[str, float]]] = {}
    for method, find in finders.items():
        say(f"{method}: {len(images)} figures.")
        boxes = {name: find(image) for name, image in images.items()}
        found[method] = {
            group: {**evaluate({n: truths[n] for n in names}, boxes), "figures": len(names), "panels": sum(len(truths[n]) for n in names)}
            for group, names in _groups(data, truths).items()
        }
    write_json(record, {"dataset": data.name, "code": commit.current(), "scores": found})
    print(table(record))
    return 0


def table(record: Path) -> str:
    """Markdown: the scores of all figures a method, then AP@.5 article by article."""
    if not record.exists():
        return "Nothing is recorded yet."
    scores = read_json(record, dict, "measure again")["scores"]
    first = [["cut by", *SHOWN.values()]]
    first += [[method, *(_shown(groups[EVERY][name], name) for name in SHOWN)] for method, groups in scores.items()]
    names = [name for name in next(iter(scores.values())) if name != EVERY]
    second = [["AP@.5", *(f"{name} ({next(iter(scores.values()))[name]['figures']})" for name in names)]]
    second += [[method, *(f"{groups[name]['ap50']:.3f}" for name in names)] for method, groups in scores.items()]
    return "\n\n".join(_markdown(lines) for lines in (first, second))


def _shown(score: float | None, name: str) -> str:
    return "-" if score is None else f"{score:.{1 if name == 'imageclef' else 3}f}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---", *["---:"] * (len(head) - 1)], *rest])


def _grid(side: int) -> Find:
    """Equal cells, `side` by `side`."""

    def find(image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        ys, xs = (np.linspace(0, length, side + 1) for length in (height, width))
        boxes = [(xs[c], ys[r], xs[c + 1], ys[r + 1]) for r in range(side) for c in range(side)]
        return Detections(np.asarray(boxes, np.float32), np.ones(len(boxes), np.float32))

    return find


def _image(path: Path) -> np.ndarray:
    figure = next(iter(figures_of(path, path.name)), None)
    if figure is None or figure.image is None:
        raise UserError(f"{path} cannot be read ({figure.error if figure else 'no such figure'}); the set is damaged, get it anew.")
    return figure.image


def _groups(data: Path, truths: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """The figures' names: all, and by article where index.csv tells."""
    groups = {EVERY: list(truths)}
    index = data / "index.csv"
    if index.is_file():
        with index.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["image"] in truths:
                    groups.setdefault(row["image"].rpartition("_")[0], []).append(row["image"])
    return groups


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
