"""The command that makes compound figures of single images, to look at or to keep.

python -m medssl_jax.simulate --images=DIR --out=DIR --count=100
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image, ImageDraw
from tqdm import tqdm

from medssl_jax import cli
from medssl_jax.config import base
from medssl_jax.data import layout
from medssl_jax.data.sources import Source, open_dataset
from medssl_jax.errors import UserError
from medssl_jax.figures.pools import Joined
from medssl_jax.figures.simulate import Figures
from medssl_jax.figures.singles import ByFolder
from medssl_jax.figures.style import changed_style
from medssl_jax.train.logging import say

IMAGES = flags.DEFINE_string("images", None, "The folder of the single images, or several, separated by commas.")
OUT = flags.DEFINE_string("out", None, "An empty or new folder for the figures, panels.csv and contact_sheet.png.")
COUNT = flags.DEFINE_integer("count", 100, "How many figures are made.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Figure i depends on the seed and on i alone.", lower_bound=0)
STYLE = flags.DEFINE_multi_string("style", [], "name=value of medssl_jax/figures/style.py, as --style=intra_class=1; may be repeated.")

COLUMNS = ("image", "panel", "kind", "x0", "y0", "x1", "y1", "cell_x0", "cell_y0", "cell_x1", "cell_y1")
SHOWN = 24  # figures of the contact sheet
ACROSS, SIDE, BETWEEN = 6, 300, 6  # figures of a row, pixels of each, pixels between them
IMAGE_INK, DRAWN_INK, CELL_INK = (230, 60, 0), (0, 150, 70), (0, 110, 220)


def main() -> None:
    """Write figures as PNG, their boxes as panels.csv, and a contact sheet with the boxes drawn."""
    style, out = changed_style(STYLE.value), _free(Path(cli.required(OUT)).expanduser())
    source = Joined([_single_images(path.strip()) for path in cli.required(IMAGES).split(",") if path.strip()])
    figures = Figures(source, style, SEED.value, COUNT.value)
    out.mkdir(parents=True, exist_ok=True)
    begun, first = time.perf_counter(), []
    with (out / "panels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for i in tqdm(range(len(figures)), desc="figures", disable=not sys.stderr.isatty()):
            figure = figures[i]
            name = f"{figure['id']}.png"
            Image.fromarray(figure["image"]).save(out / name)
            table.writerows([name, k, *row] for k, row in enumerate(_rows(figure)))
            first += [outlined(figure)] if i < SHOWN else []
    contact_sheet(first).save(out / "contact_sheet.png")
    seconds = time.perf_counter() - begun
    say(f"{len(figures)} figures of {len(source)} images in {seconds:.1f} s: {out / 'panels.csv'} and {out / 'contact_sheet.png'}")


def outlined(figure: dict[str, Any]) -> Image.Image:
    """The figure as a thumbnail: cells in blue, single images in red, drawn panels in green."""
    image = Image.fromarray(figure["image"])
    scale = SIDE / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(image)
    for cell in figure["cells"] * scale:
        draw.rectangle((*cell[:2], *(cell[2:] - 1)), outline=CELL_INK)
    for box, kind in zip(figure["boxes"] * scale, figure["kinds"]):
        draw.rectangle((*box[:2], *(box[2:] - 1)), outline=IMAGE_INK if kind == "image" else DRAWN_INK, width=2)
    return image


def contact_sheet(pictures: list[Image.Image]) -> Image.Image:
    """Thumbnails in rows on grey."""
    step = SIDE + BETWEEN
    sheet = Image.new("RGB", (min(ACROSS, len(pictures)) * step + BETWEEN, -(-len(pictures) // ACROSS) * step + BETWEEN), (128, 128, 128))
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (BETWEEN + k % ACROSS * step, BETWEEN + k // ACROSS * step))
    return sheet


def _single_images(path: str) -> Source:
    """The training images of a folder, their folders as classes; damaged ones are named and left out."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"--images={path} is no folder; name the one that holds the single images.")
    if not layout.files(folder):
        raise UserError(f"--images={path} holds no image; name a folder of PNG, JPEG or TIFF files.")
    data = base().data
    data.update({"source": "folder", "path": str(folder), "task": "none", "val_fraction": 0.0, "test_fraction": 0.0, "on_damaged": "skip"})
    dataset = open_dataset(data)
    for note in dataset.notes:
        say(f"{path}: {note}")
    return ByFolder(dataset.pool)


def _free(folder: Path) -> Path:
    """The folder, which is new or empty."""
    if folder.is_file():
        raise UserError(f"--out={folder} is a file; name a new or an empty folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--out={folder} holds files already; name a new or an empty folder.")
    return folder


def _rows(figure: dict[str, Any]) -> list[list[Any]]:
    """Kind, tight box and cell of every panel, in pixels."""
    corners = np.concatenate([figure["boxes"], figure["cells"]], axis=1).astype(float).round(2).tolist()
    return [[kind, *line] for kind, line in zip(figure["kinds"], corners)]


if __name__ == "__main__":
    sys.exit(cli.execute(main, sys.argv))
