"""The command that looks at a data set before anything is trained: `python -m medssl_jax.inspect_data --config=configs/tower.py`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from medssl_jax import cli, methods
from medssl_jax.config import validate
from medssl_jax.data.sources import Dataset, Selection, describe, open_dataset
from medssl_jax.data.survey import Survey, lines, survey
from medssl_jax.data.tiles import TileSource
from medssl_jax.errors import UserError
from medssl_jax.train.step import example_keys

OUT = flags.DEFINE_string("out", None, "Where the contact sheet is left; runs/<data set>-data where nothing is given.")

SHOWN = 8  # images of a row
INCHES = 1.6  # width of a picture on the sheet
TITLE = 0.15  # height of a row's title, as a share of that width


def main() -> None:
    """Print what is in the data set of the config and leave a picture of its images and of the views that the method will see."""
    config = cli.config().copy_and_resolve_references()
    validate(config)
    config.data.on_damaged = "skip"  # here every unreadable file is named, not only the first
    dataset = open_dataset(config.data)
    found = survey(dataset)
    print("\n".join(lines(found)))
    folder = Path(OUT.value or f"runs/{dataset.name}-data").expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out={folder} is a file; choose a folder for the contact sheet.")
    folder.mkdir(parents=True, exist_ok=True)
    contact_sheet(folder / "contact_sheet.png", rows(config, readable(found)))
    print(f"{'pictures':<12}{folder / 'contact_sheet.png'}")


def readable(found: Survey) -> Dataset:
    """The data set without the images of its pool that the survey could not read. Raises UserError where none is left."""
    pool, good = found.dataset.pool, {image.id for image in found.seen if image.part == "pool"}
    kept = tuple(i for i in range(len(pool)) if describe(pool, i).id in good)
    if not kept:
        raise UserError(f"none of the {len(pool)} training images of {found.dataset.name} can be read; the first: {found.damaged[0]}")
    return dataclasses.replace(found.dataset, pool=Selection(pool, kept))


def rows(config: ConfigDict, dataset: Dataset) -> dict[str, list[np.ndarray]]:
    """Pictures [H, W] or [H, W, 3] with values in [0, 1] by the title of their row: images, their masks, tiles, views."""
    count = min(SHOWN, len(dataset.pool))
    examples = [dataset.pool[i * len(dataset.pool) // count] for i in range(count)]
    found = {"images": [displayed(_unit(e["image"])) for e in examples]}
    if any("mask" in e for e in examples):
        # nothing is drawn where there is no mask, so that it does not look like an empty one
        found["masks"] = [e["mask"] / max(1, len(dataset.classes) - 1) if "mask" in e else np.full((2, 2), np.nan) for e in examples]
    tiles = TileSource(dataset.pool, config.data.tile, kind="whole" if dataset.task == "classification" else "grid")
    batch = np.stack([tiles[i * len(tiles) // SHOWN]["image"] for i in range(SHOWN)])
    found["tiles"] = [displayed(_unit(tile)) for tile in batch]
    return found | {f"view: {name}": [displayed(v) for v in view] for name, view in method_views(config, dataset, batch).items()}


def method_views(config: ConfigDict, dataset: Dataset, images: np.ndarray) -> dict[str, np.ndarray]:
    """The pictures [B, H, W, C] in [0, 1] among what the method (if any) makes of uint8|uint16 tiles [B, T, T, C] at its first step."""
    if config.method.name == methods.NO_METHOD:
        return {}
    method = methods.build(config, dataset.channels, dataset.modality)
    slots = np.arange(len(images), dtype=np.int32)

    def look(key: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The views that the training makes of the batch at step 0."""
        return method.views(example_keys(key, jax.numpy.int32(0), batch["slot"]), batch)

    views = jax.jit(look)(jax.random.key(config.seed), {"image": images, "slot": slots})
    return {name: np.asarray(view) for name, view in views.items() if getattr(view, "ndim", 0) == 4}


def displayed(image: np.ndarray) -> np.ndarray:
    """[H, W, C] in [0, 1] -> RGB as it is, any other number of channels as their mean."""
    image = np.clip(image.astype(np.float32), 0, 1)
    return image if image.shape[-1] == 3 else image.mean(-1)


def contact_sheet(path: Path, pictures: dict[str, list[np.ndarray]]) -> None:
    """Writes rows of pictures with their titles as a PNG."""
    heights = [max(picture.shape[0] / picture.shape[1] for picture in row) + TITLE for row in pictures.values()]
    figure = Figure(figsize=(INCHES * SHOWN, INCHES * sum(heights)), layout="constrained")
    grid = figure.subplots(len(pictures), SHOWN, squeeze=False, height_ratios=heights)
    for axes, (title, row) in zip(grid, pictures.items(), strict=True):
        axes[0].set_title(title, loc="left", fontsize=9)
        for place in axes:
            place.axis("off")
        for place, picture in zip(axes, row):
            place.imshow(picture, cmap="gray", vmin=0, vmax=1)
    figure.savefig(path, dpi=120)


def _unit(image: np.ndarray) -> np.ndarray:
    return image / np.float32(np.iinfo(image.dtype).max)


if __name__ == "__main__":
    sys.exit(cli.execute(main, sys.argv))
