"""One-shot landmarks of the lungs: `python -m experiments.landmarks --data=DATASETS/cxr_montgomery RUN [RUN ...]`.

Landmarks come from the masks: the apex and the costophrenic corner of either lung. Each is marked in one training image at a time and
sought in every test image, by the features of the runs (of config.data.resize pixels), by normalised cross-correlation of the
marked neighbourhood, and at the very place where it was marked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from scipy import ndimage

from experiments.records import RECORDS
from medssl_jax import cli, landmarks
from medssl_jax import pretrain as pretraining
from medssl_jax.data.sources import Dataset, open_dataset
from medssl_jax.downstream.landmarks import Window, correlate, locate
from medssl_jax.errors import UserError
from medssl_jax.train.logging import read_json, say, write_json
from medssl_jax.train.mesh import make_mesh

SUPPORTS = 10  # training images in which the landmarks are marked, one at a time
RECORD = "landmarks.json"
SAME_PLACE, CORRELATION = "the same place", "normalised cross-correlation"

Place = tuple[float, float]
Finder = Callable[[dict[str, Any], Place], Callable[[dict[str, Any]], Place]]  # a marked example -> a search in others


def main(arguments: Sequence[str]) -> int:
    """Measure and record; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="directories of finished pretrainings on these images")
    parser.add_argument("--data", type=Path, required=True, help="the folder of images and masks")
    parser.add_argument("--record", type=Path, default=RECORDS / RECORD, help="where the errors are kept")
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: measure(asked.runs, asked.data, asked.record))


def measure(runs: Sequence[Path], data: Path, record: Path) -> int:
    """Errors of all finders on all landmarks, as percent of the image's side, into `record`; 0."""
    configs = [landmarks.run_config(run) for run in runs]
    sizes = {config.data.resize for config in configs}
    if len(sizes) > 1:
        raise UserError(f"the runs saw images of {', '.join(map(str, sorted(sizes)))} px; compare runs of one config.data.resize.")
    options = configs[0].data.copy_and_resolve_references()
    options.update({"path": str(data), "task": "segmentation"})
    dataset = open_dataset(options)
    for run, config in zip(runs, configs, strict=True):
        config.pretrain.from_run = str(run)
        pretraining.check(config, dataset, make_mesh())
    side = min(dataset.test[0]["image"].shape[:2])
    size = max(3, side // 8 // 2 * 2 + 1)
    finders: dict[str, Finder] = {SAME_PLACE: lambda _, place: lambda _: place, CORRELATION: _correlation(size)}
    for run, config in zip(runs, configs, strict=True):
        for name, sigma in (("Gaussian", size / 4), ("flat", 0.0)):
            finders[f"{config.name}, {name} window"] = _by_features(run, config, dataset, Window(size, sigma))
    found = {name: list(_errors(finder, dataset)) for name, finder in finders.items()}
    write_json(record, {"dataset": dataset.name, "side": side, "window": size, "supports": SUPPORTS, "errors": found})
    print(table(record))
    return 0


def table(record: Path) -> str:
    """Markdown: median error a landmark and over all, in percent of the side, and how often it was within 5 %."""
    if not record.exists():
        return "Nothing is recorded yet."
    told = read_json(record, dict, "measure again")
    names = list(next(iter(told["errors"].values()))[0])
    lines = [["found by", *names, "median", "within 5 %"], ["---", *["---:"] * (len(names) + 2)]]
    for finder, errors in told["errors"].items():
        columns = np.array([[error[name] for name in names] for error in errors])
        medians = [*np.median(columns, axis=0), np.median(columns)]
        lines.append([finder, *(f"{100 * value:.1f}" for value in medians), f"{100 * (columns <= 0.05).mean():.0f} %"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def lung_landmarks(mask: np.ndarray) -> dict[str, Place]:
    """(y, x) of the apices and the costophrenic corners, left and right in the image. Raises UserError for masks without two lungs."""
    labels, count = ndimage.label(mask)
    if count < 2:
        raise UserError("a mask does not show two lungs apart from each other; landmarks are derived from the masks of two lungs.")
    largest = np.argsort(np.bincount(labels.ravel())[1:])[-2:] + 1
    lungs = sorted((np.argwhere(labels == label) for label in largest), key=lambda pixels: pixels[:, 1].mean())
    found: dict[str, Place] = {}
    for side, pixels, outward in (("left", lungs[0], -1), ("right", lungs[1], 1)):
        top = pixels[pixels[:, 0] == pixels[:, 0].min()].mean(0)
        corner = pixels[(pixels[:, 0] + outward * pixels[:, 1]).argmax()]
        found |= {f"{side} apex": (float(top[0]), float(top[1])), f"{side} corner": (float(corner[0]), float(corner[1]))}
    return found


def _errors(finder: Finder, dataset: Dataset) -> Iterator[dict[str, float]]:
    """Of every support and test image: the distance of the found from the true place, as a share of the side."""
    test = [dataset.test[i] for i in range(len(dataset.test))]
    truths = [lung_landmarks(example["mask"]) for example in test]
    for number in range(SUPPORTS):
        support = dataset.pool[number * len(dataset.pool) // SUPPORTS]
        searches = {name: finder(support, place) for name, place in lung_landmarks(support["mask"]).items()}
        for example, truth in zip(test, truths, strict=True):
            side = min(example["image"].shape[:2])
            yield {name: float(np.hypot(*np.subtract(search(example), truth[name])) / side) for name, search in searches.items()}


def _by_features(run: Path, config: ConfigDict, dataset: Dataset, window: Window) -> Finder:
    describe = landmarks.describer(config, dataset, pretraining.load(run, make_mesh()).parts, window)
    maps: dict[str, np.ndarray] = {}

    def mapped(example: dict[str, Any]) -> np.ndarray:
        if example["id"] not in maps:
            maps[example["id"]] = describe(example["image"])
        return maps[example["id"]]

    def finder(support: dict[str, Any], place: Place) -> Callable[[dict[str, Any]], Place]:
        wanted = mapped(support)[int(place[0]), int(place[1])]

        def search(example: dict[str, Any]) -> Place:
            found, _ = locate(mapped(example), wanted, window)
            return found.y, found.x

        return search

    say(f"{run}: its features, window {window.side} px, sigma {window.sigma:g}.")
    return finder


def _correlation(size: int) -> Finder:
    """The patch around the place, cut at the border by repeating the edge."""
    half = size // 2

    def finder(support: dict[str, Any], place: Place) -> Callable[[dict[str, Any]], Place]:
        padded = np.pad(support["image"], ((half, half), (half, half), (0, 0)), mode="edge")
        y, x = int(place[0]), int(place[1])
        patch = padded[y : y + size, x : x + size]
        return lambda example: correlate(example["image"], patch)

    return finder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
