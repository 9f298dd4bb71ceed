"""The command that makes compound figures of single images, to look at or to keep.

python -m medssl_jax.simulate --images=DIR --out=DIR --count=100
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags
from PIL import Image, ImageDraw
from tqdm import tqdm

from medssl_jax import cli
from medssl_jax.config import base
from medssl_jax.data import layout
from medssl_jax.data.sources import Source, open_dataset
from medssl_jax.errors import UserError
from medssl_jax.figures.album import RECORD, Album
from medssl_jax.figures.claim import claim
from medssl_jax.figures.pools import Joined, listed
from medssl_jax.figures.simulate import Figures
from medssl_jax.figures.singles import ByFolder
from medssl_jax.figures.style import changed_style
from medssl_jax.machine import alone
from medssl_jax.report.words import counted
from medssl_jax.train.logging import say

IMAGES = flags.DEFINE_string("images", None, "The folder of the single images, or several, separated by commas.")
OUT = flags.DEFINE_string("out", None, "A new folder for the figures, panels.csv and contact_sheet.png, or one to continue.")
COUNT = flags.DEFINE_integer("count", 100, "How many figures are made.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Figure i depends on the seed and on i alone.", lower_bound=0)
STYLE = flags.DEFINE_multi_string("style", [], "name=value of medssl_jax/figures/style.py, as --style=intra_class=1; may be repeated.")

SHOWN = 24  # figures of the contact sheet
ACROSS, SIDE, BETWEEN = 6, 300, 6  # figures of a row, pixels of each, pixels between them
IMAGE_INK, DRAWN_INK, CELL_INK = (230, 60, 0), (0, 150, 70), (0, 110, 220)


def main() -> None:
    """Write figures as PNG, their boxes as panels.csv, and a contact sheet with the boxes drawn; those that are there are kept."""
    style, out = changed_style(STYLE.value), Path(cli.required(OUT)).expanduser()
    folders = _folders(cli.required(IMAGES))
    source = Joined([_single_images(folder) for folder in folders])
    figures = Figures(source, style, SEED.value, COUNT.value)
    look = {f"style.{name}": value for name, value in dataclasses.asdict(style).items()}
    paths = [str(Path(folder).expanduser().resolve()) for folder in folders]
    claim(out, RECORD, {"images": paths, "single images": len(source), "seed": SEED.value, "count": COUNT.value, **look})
    with alone(out / f"{RECORD}.lock", f"another process makes figures in --out={out}; wait for it, or name another folder."):
        _make(figures, out, len(source))


def _make(figures: Figures, out: Path, images: int) -> None:
    """Write what is not there yet."""
    album, begun, first = Album(out), time.perf_counter(), []
    for i in tqdm(range(len(figures)), desc="figures", disable=not sys.stderr.isatty()):
        name = f"{figures.name(i)}.png"
        if i < SHOWN or name not in album:
            figure = figures[i]
            first += [outlined(figure)] if i < SHOWN else []
            if name not in album:
                album.add(name, figure)
    album.finish()
    contact_sheet(first).save(out / "contact_sheet.png")
    made, seconds = f"{counted(len(figures), 'figure')} of {counted(images, 'image')}", time.perf_counter() - begun
    say(f"{made} in {seconds:.1f} s: {album.table} and {out / 'contact_sheet.png'}")


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


def _folders(paths: str) -> list[str]:
    """The folders of a list with commas. Raises UserError where it names none."""
    folders = listed(paths)
    if not folders:
        raise UserError(f"--images={paths} names no folder; give the folder of the single images, or several, separated by commas.")
    return folders


def _single_images(path: str) -> Source:
    """The training images of a folder, their folders as classes; damaged ones are named and left out."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"--images={path} is no folder; name the one that holds the single images.")
    if not layout.files(folder):
        raise UserError(f"--images={path} holds no image; name a folder of PNG, JPEG or TIFF files.")
    data = base().data
    data.update({"source": "folder", "path": str(folder), "task": "none", "val_fraction": 0.0, "test_fraction": 0.0, "on_damaged": "skip"})
    try:
        dataset = open_dataset(data)
    except UserError as error:
        raise UserError(f"--images={path}: {_without_options(str(error))}; take such files out of the folder.") from error
    for note in dataset.notes:
        say(f"{path}: {_without_options(note)}")
    return ByFolder(dataset.pool)


def _without_options(said: str) -> str:
    """What a data set says, but for the advice to set options, which are other commands'."""
    return said.partition("--config")[0].rpartition("; ")[0] if "--config" in said else said.rstrip(".")


if __name__ == "__main__":
    sys.exit(cli.execute(main, sys.argv))
