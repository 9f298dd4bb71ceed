"""Real compound figures cut and scored: `python -m experiments.figures --data=DATASETS/compound_figures [--run=RUN]`.

The folder holds `images/` and `panels.csv` (image, x0, y0, x1, y1: tight boxes in pixels), and `index.csv` that names each image's article.
Beside the methods stand the whole figure as one panel and four equal quarters. It is a test set: nothing is chosen here.
Its boxes are of lettered panels as a whole, so beside what is cut out stands the same with the letters and labels around it.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments import commit
from experiments.cut_tables import EVERY, NOTHING, by_method, differences, one_score
from experiments.cutters import CONTROL, DETECTOR, PARTITION, TIGHT, Cutter, Sample, cut, cutters, labelled, summary
from experiments.records import RECORDS
from medssl_jax import cli
from medssl_jax.errors import UserError
from medssl_jax.figures.clef import read_panels
from medssl_jax.figures.read import figures_of
from medssl_jax.train.logging import read_json, say, write_json

RECORD = "figures.json"


def main(arguments: Sequence[str]) -> int:
    """Measure, record, and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of images/, panels.csv and index.csv")
    parser.add_argument("--run", type=Path, help="a run of configs/simcfs.py, whose detector is scored too")
    parser.add_argument("--record", type=Path, default=RECORDS / RECORD, help="where the scores are kept")
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: measure(asked.data, cutters(asked.run), asked.record))


def measure(data: Path, ways: Mapping[str, Cutter], record: Path) -> int:
    """Scores of every way to cut, of all figures and article by article, into `record`; 0. Raises UserError for what cannot be read."""
    truths = read_panels(data / "panels.csv")
    ways = {**ways, **{f"{name}, with labels": labelled(ways[name]) for name in (CONTROL, DETECTOR) if name in ways}}
    say(f"{data.name}: {len(truths)} figures, cut by {', '.join(ways)}.")
    cuts = cut((Sample(name, _image(data / "images" / name), boxes) for name, boxes in truths.items()), ways)
    write_json(record, {"dataset": data.name, "code": commit.current(), **summary(cuts, _groups(data, truths))})
    print(table(record))
    return 0


def table(record: Path) -> str:
    """Markdown: the scores of all figures a method in both conventions, AP@.5 article by article, and the detector's paired differences."""
    if not record.exists():
        return NOTHING
    told = read_json(record, dict, "measure again")
    parts = [by_method(told, TIGHT), by_method(told, PARTITION), one_score(told, TIGHT, "ap50"), differences(told)]
    return "\n\n".join(part for part in parts if part)


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
