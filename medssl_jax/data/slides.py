"""A folder of whole slides as a collection of their tiles: a tile is decoded when it is asked for, and background is left out."""

from __future__ import annotations

import contextlib
import dataclasses
from functools import lru_cache
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from medssl_jax.data import formats, layout, tiff
from medssl_jax.data.collection import Item, Opened
from medssl_jax.data.folder import given_parts, parallel, sift
from medssl_jax.data.formats import Probe
from medssl_jax.data.layout import Found
from medssl_jax.data.prepare import resize
from medssl_jax.data.slide import Slide, open_slide
from medssl_jax.data.tissue import shares, thumbnail, tissue
from medssl_jax.errors import UserError

OPEN = 16  # slides whose tables of tiles are kept
FINER = 0.95  # a slide may be this much coarser than what is asked for, as scanners of one magnification differ


@dataclasses.dataclass(frozen=True)
class Cut:
    """How one slide is cut: from `level`, squares of `side` px, at `corners` int [N, 2] (y, x) of that level."""

    path: Path
    level: int
    side: int
    downsample: float
    probe: Probe
    corners: np.ndarray


@dataclasses.dataclass(frozen=True)
class Slides:
    """The tiles of all slides, each of `tile` px; tile i is number `where[i, 1]` of the cut `where[i, 0]`."""

    items: tuple[Item, ...]
    cuts: tuple[Cut, ...]
    where: np.ndarray
    tile: int

    def image(self, index: int) -> np.ndarray:
        """[T, T, C]."""
        number, corner = self.where[index]
        cut = self.cuts[number]
        with formats.named(cut.path):
            y, x = cut.corners[corner].tolist()
            window = _kept_open(cut.path).levels[cut.level].window(y, x, cut.side, cut.side)
        return resize(window, (self.tile, self.tile))

    def mask(self, index: int) -> np.ndarray:
        """Slides have no masks."""
        raise NotImplementedError


def open_slides(config: ConfigDict, root: Path) -> Opened:
    """The tiles of `config.tile` px of the slides below `root`, at `slide_level` or `slide_mpp`, that show enough tissue.

    Folders may be classes or parts, a table may give the parts. Raises UserError as `open_folder` does, for a level or a resolution that
    a slide does not have, and where no tile is left.
    """
    found = [f for f in layout.find(root, "none") if f.image.suffix.lower() in tiff.SUFFIXES]
    if not found:
        raise UserError(f"there is no slide in {root} (looked for {', '.join(s[1:] for s in tiff.SUFFIXES)}); check config.data.path.")
    found, notes = given_parts(config, root, found)
    names = layout.classes(found, config.task)
    cuts = parallel(lambda f: _cut(f.image, config), found)
    kept, damaged, told = sift(list(zip(found, cuts)), root, config.on_damaged)
    items = tuple(item for f, cut in kept for item in _items(f, cut, root, names))
    if not items:
        raise UserError(
            f"no tile of {config.tile} px in the {len(kept)} slides of {root} shows enough tissue; lower --config.data.slide_tissue "
            "(0 keeps all tiles) or --config.data.tile."
        )
    where = np.concatenate([np.stack([np.full(len(cut.corners), k), np.arange(len(cut.corners))], 1) for k, (_, cut) in enumerate(kept)])
    notes += [*told, *_notes(kept, root, len(items), config)]
    return Opened(root.resolve().name, Slides(items, tuple(cut for _, cut in kept), where, config.tile), names, tuple(notes), damaged)


def _cut(path: Path, config: ConfigDict) -> Cut | UserError:
    """Where a slide is cut; the error of one that cannot be read is returned, so that all can be named."""
    try:
        with formats.named(path), contextlib.closing(open_slide(path)) as slide:
            number, side = _chosen(slide, config)
            slide.levels[number].check()
            return _corners(slide, number, side, config)
    except UserError as error:
        return error


def _chosen(slide: Slide, config: ConfigDict) -> tuple[int, int]:
    """The level to read and the pixels of it that become a side of the tile. Raises UserError where the slide has no such level."""
    if not config.slide_mpp:
        if config.slide_level >= len(slide.levels):
            raise UserError(
                f"{slide.path} has no level {config.slide_level}, only 0 to {len(slide.levels) - 1}; set another --config.data.slide_level."
            )
        return config.slide_level, config.tile
    if slide.microns is None:
        raise UserError(f"{slide.path} does not tell its microns per pixel; choose by --config.data.slide_level, with slide_mpp=0.")
    wanted = config.slide_mpp / slide.microns
    if wanted < FINER:
        raise UserError(
            f"{slide.path} has {slide.microns:.3g} microns per pixel, coarser than config.data.slide_mpp={config.slide_mpp:g}; "
            f"set --config.data.slide_mpp={slide.microns:.3g} or more, or leave the slide out."
        )
    number = max(k for k, level in enumerate(slide.levels) if level.downsample * FINER <= max(wanted, 1))
    return number, round(config.tile * wanted / slide.levels[number].downsample)


def _corners(slide: Slide, number: int, side: int, config: ConfigDict) -> Cut:
    """The squares of a regular grid that show tissue; what is left at the right and the lower edge is no whole tile."""
    level = slide.levels[number]
    grid = np.mgrid[0 : level.height - side + 1 : side, 0 : level.width - side + 1 : side].reshape(2, -1).T
    if config.slide_tissue and len(grid):
        grid = grid[shares(tissue(thumbnail(slide)), grid, side, (level.height, level.width)) >= config.slide_tissue]
    probe = Probe(config.tile, config.tile, level.channels, level.dtype)
    return Cut(slide.path, number, side, level.downsample, probe, grid)


def _items(f: Found, cut: Cut, root: Path, names: tuple[str, ...]) -> list[Item]:
    """Tiles by their slide and their first pixel (y, x) in the largest level."""
    name = f.image.relative_to(root).as_posix()
    label = names.index(f.folder) if names and f.folder else None
    first = np.rint(cut.corners * cut.downsample).astype(int).tolist()
    return [Item(f"{name} ({y}, {x})", cut.probe, f.part, label, group=name) for y, x in first]


def _notes(kept: list[tuple[Found, Cut]], root: Path, tiles: int, config: ConfigDict) -> list[str]:
    at = f"{config.slide_mpp:g} microns per pixel" if config.slide_mpp else f"level {config.slide_level}"
    notes = [f"{tiles} tiles of {config.tile} px at {at} are read from {len(kept)} slides"]
    if empty := [f.image.relative_to(root).as_posix() for f, cut in kept if not len(cut.corners)]:
        notes.append(f"{len(empty)} slides have no tile with enough tissue: {layout.listed(empty)}")
    if config.window and any(cut.probe.dtype != np.uint8 for _, cut in kept):
        notes.append("every tile is scaled by percentiles of its own; --config.data.window='()' keeps the values as they are")
    return notes


@lru_cache(maxsize=OPEN)
def _kept_open(path: Path) -> Slide:
    return open_slide(path)
