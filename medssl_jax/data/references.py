"""Reference shapes as a bank of tiles: simulated, or read from a folder of masks that need not belong to any image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from medssl_jax.data import layout, shapes
from medssl_jax.data.dataset import Source, describe
from medssl_jax.data.formats import read_mask
from medssl_jax.data.prepare import Preparation
from medssl_jax.data.stream import sub_seed
from medssl_jax.data.tiles import TileSource, load_all
from medssl_jax.errors import UserError

FEW = 2  # simulated masks, where it is only asked whether they can be made


def reference_masks(method: ConfigDict, pool: Source, seed: int, few: bool = False) -> list[np.ndarray]:
    """Reference masks bool [H, W] at the size of the pool's images, by the options `shapes` and `references` of config.method.

    `shapes` names a simulator, which draws `references` masks, or a folder, whose masks are scaled until their shorter side is the
    images' usual one. Raises UserError for what is neither, for a folder without masks, and for masks that show nothing.
    """
    kind, sides = method.shapes, [min(describe(pool, i)[1:3]) for i in range(len(pool))]
    side = int(np.median(sides))
    if kind in shapes.SIMULATORS:
        return list(shapes.simulate(kind, FEW if few else method.references, side, sub_seed(seed, "references")))
    folder = Path(kind).expanduser()
    if kind and folder.is_dir():
        return _folder(folder, side)
    raise UserError(
        f"config.method.shapes={kind!r} is neither a folder nor one of the simulated shapes; name a folder of masks or one of "
        f"{', '.join(shapes.SIMULATORS)}."
    )


def reference_tiles(masks: Sequence[np.ndarray], tile: int) -> np.ndarray:
    """The tiles of masks bool [H, W] of any sizes, uint8 [N, T, T, 1], 0 or 255. Raises UserError for a mask smaller than a tile."""
    return load_all(TileSource(_Masks([np.where(mask, 255, 0).astype(np.uint8)[..., None] for mask in masks]), tile))["image"]


def _folder(folder: Path, side: int) -> list[np.ndarray]:
    paths = layout.files(folder)
    if not paths:
        raise UserError(f"config.method.shapes={folder} holds no masks; put PNG or TIFF files there, 0 for the background.")
    scaling = Preparation("auto", np.dtype(np.uint8), (), side)
    masks = [scaling.mask(read_mask(path)) > 0 for path in paths]
    for every, what in ((0.0, "empty (every pixel is 0)"), (1.0, "full (no pixel is 0)")):
        if all(mask.mean() == every for mask in masks):
            raise UserError(f"all {len(masks)} masks in {folder} are {what}: there is no shape to learn; check them.")
    return masks


class _Masks:
    """A source of masks as images [H, W, 1]."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"image": self._images[index], "id": f"reference mask {index}"}
