"""The command that finds one marked place in other images.

python -m medssl_jax.landmarks --run=runs/local_discrimination --query=IMAGE --point=X,Y --images=DIR
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from medssl_jax import cli, methods
from medssl_jax import pretrain as pretraining
from medssl_jax.data.formats import decode
from medssl_jax.data.sources import Dataset, open_dataset
from medssl_jax.downstream.landmarks import Describer, Found, Window, locate, marked
from medssl_jax.errors import UserError
from medssl_jax.methods import LocalDiscrimination
from medssl_jax.models import build_backbone
from medssl_jax.report import overlays
from medssl_jax.report.words import counted
from medssl_jax.train.logging import read_json, say
from medssl_jax.train.mesh import make_mesh

RUN = flags.DEFINE_string("run", None, "The directory of a finished pretraining.")
QUERY = flags.DEFINE_string("query", None, "The image with the marked place.")
POINT = flags.DEFINE_string("point", None, "The marked place, X,Y in pixels of the query from its top left corner.")
IMAGES = flags.DEFINE_string("images", None, "The folder of the images to search.")
LANDMARKS = flags.DEFINE_string("landmarks", "", "Where landmarks.csv and landmarks.png are left; RUN/landmarks where nothing is given.")
SIDE = flags.DEFINE_integer(
    "window", 0, "Side of the neighbourhood that stands for a place, in pixels the network sees; 0: an eighth of the image."
)
SIGMA = flags.DEFINE_float("sigma", -1.0, "Of the window's Gaussian in pixels; 0: no weighting; -1: a quarter of the window.")

SHOWN = 8  # images of the picture


def main() -> None:
    """Find the place that --point marks in --query in every image of --images."""
    run, query, images = (Path(cli.required(flag)).expanduser() for flag in (RUN, QUERY, IMAGES))
    x, y = _point(cli.required(POINT))
    pretrained = pretraining.load(run, make_mesh())
    config = run_config(run)
    dataset = _opened(config, images)
    channels = read_json(run / "pretrained.json", dict, "pretrain again")["channels"]
    if dataset.channels != channels:
        raise UserError(
            f"{images} holds images of {dataset.channels} channel(s), and {run} learned from {channels}; see config.data.color."
        )
    stored = decode(query)
    shown = dataset.pool.source.preparation.image(stored, str(query))  # type: ignore[attr-defined]
    window = _window(min(shown.shape[:2]))
    describe = describer(config, dataset, pretrained.parts, window)
    scale = shown.shape[0] / stored.shape[0]
    wanted = marked(describe(shown), y * scale, x * scale, f"{query} (as the network sees it, scaled by {scale:g})")
    out = Path(LANDMARKS.value).expanduser() if LANDMARKS.value else run / "landmarks"
    out.mkdir(parents=True, exist_ok=True)
    found = list(_search(dataset, describe, wanted, window))
    _write(out / "landmarks.csv", found)
    pictures = [line.panel for line in found if line.panel is not None]
    overlays(out / "landmarks.png", [(query.name, shown, (x * scale, y * scale), None), *pictures])
    say(f"{counted(len(found), 'image')} searched: {out / 'landmarks.csv'} and {out / 'landmarks.png'}")


def run_config(run: Path) -> ConfigDict:
    """The config of a whole run. Raises UserError where it has none, or a damaged one."""
    path = run / "config.json"
    if not path.exists():
        raise UserError(f"{run} has no config.json; point --run at the directory of a whole run.")
    read_json(path, dict, "point --run at another run, or pretrain again")
    return ConfigDict(cli.from_json(path.read_text()))


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--point={text} is no place; write X,Y in pixels, like --point=120,85.") from error
    return x, y


def _opened(config: ConfigDict, images: Path) -> Dataset:
    """All images of the folder, prepared as those of the run were."""
    data = config.data.copy_and_resolve_references()
    data.update({"source": "folder", "path": str(images), "splits": "", "task": "none", "val_fraction": 0.0, "test_fraction": 0.0})
    return open_dataset(data)


def _window(side: int) -> Window:
    size = SIDE.value or max(3, side // 8 // 2 * 2 + 1)
    return Window(size, size / 4 if SIGMA.value < 0 else SIGMA.value)


def describer(config: ConfigDict, dataset: Dataset, parts: Mapping[str, Any], window: Window) -> Describer:
    """What describes every pixel: the run's embedding where it learned one, else its encoder's maps."""
    embed = None
    if "embed" in parts:
        method = methods.build(config, dataset.channels, dataset.modality)
        embed = method.embed if isinstance(method, LocalDiscrimination) else None
    return Describer(build_backbone(config.model), embed, parts, window)


class Line(NamedTuple):
    """What is found in one image: the place as the network sees it, the scale to the stored image, and for the first ones a picture."""

    name: str
    place: Found
    scale: float
    panel: tuple[str, np.ndarray, tuple[float, float], np.ndarray] | None


def _search(dataset: Dataset, describe: Describer, wanted: np.ndarray, window: Window) -> Iterator[Line]:
    """Image by image."""
    for index in range(len(dataset.pool)):
        example = dataset.pool[index]
        place, likeness = locate(describe(example["image"]), wanted, window)
        name, image = example["id"], example["image"]
        panel = (name, image, (place.x, place.y), likeness) if index < SHOWN else None
        yield Line(name, place, dataset.pool.raw(index).shape[0] / image.shape[0], panel)  # type: ignore[attr-defined]


def _write(path: Path, found: list[Line]) -> None:
    """Places in pixels of the stored images."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "x", "y", "similarity", "confidence"])
        for name, place, scale, _ in found:
            where = round(place.x * scale, 1), round(place.y * scale, 1)
            table.writerow([name, *where, round(place.similarity, 4), round(place.confidence, 4)])


if __name__ == "__main__":
    sys.exit(cli.execute(main, sys.argv))
