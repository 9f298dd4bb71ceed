"""Images of mixed sizes -> squares of one static shape, by random access."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, product
from typing import Any

import numpy as np

from medssl_jax.data.dataset import Example, Info, Source, describe
from medssl_jax.errors import UserError

CACHED = 8  # decoded images kept, for tiles read in order
THREADS = 8
MULTIPLE = 16  # sides that are suggested


class TileSource:
    """The tiles of a source's images: `tiles[i] -> {"image": [S, S, C], "mask"?: [S, S], "label"?: int32, "index": int32}`.

    kind `grid`: tiles spread evenly over each image so that every pixel is in one (neighbours overlap where they must);
    `whole`: the central square of each image.

    Raises:
      UserError: a tile is larger than an image. `option` is the key of the config that holds the size, for the message.
    """

    def __init__(self, source: Source, size: int, *, kind: str = "grid", option: str = "data.tile") -> None:
        self.source, self.size, self.kind = source, size, kind
        infos = [describe(source, i) for i in range(len(source))]
        _check_sizes(infos, size, option)
        self._shapes = [(info.height, info.width) for info in infos]
        self._ends = list(accumulate(len(self._corners(i)) for i in range(len(infos))))
        there = {"mask": all(info.masked for info in infos), "label": all(info.label is not None for info in infos)}
        self._keys = ("image", *(key for key, everywhere in there.items() if everywhere))
        self._cache = _Cache(source)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def keys(self) -> tuple[str, ...]:
        """What every tile has: image and index, and mask and label where all images have them."""
        return (*self._keys, "index")

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[int(index)]
        image = bisect_right(self._ends, index)
        return self._cut(self._cache[image], image, index)

    def tiles_of(self, image: int) -> list[Example]:
        """All tiles of one image, which is read once."""
        example = self.source[image]
        return [self._cut(example, image, index) for index in range(self._start(image), self._ends[image])]

    def _start(self, image: int) -> int:
        return self._ends[image - 1] if image else 0

    def _corners(self, image: int) -> list[tuple[int, int]]:
        height, width = self._shapes[image]
        if self.kind == "whole":
            return [((height - self.size) // 2, (width - self.size) // 2)]
        return list(product(_starts(height, self.size), _starts(width, self.size)))

    def _cut(self, example: Example, image: int, index: int) -> Example:
        y, x = self._corners(image)[index - self._start(image)]
        window = slice(y, y + self.size), slice(x, x + self.size)
        tile: Example = {"image": np.ascontiguousarray(example["image"][window]), "index": np.int32(index)}
        if "mask" in example:
            tile["mask"] = np.ascontiguousarray(example["mask"][window])
        if "label" in example:
            tile["label"] = np.int32(example["label"])
        return tile


def load_all(tiles: TileSource, progress: Callable[[int, int], None] | None = None) -> dict[str, np.ndarray]:
    """All tiles as arrays: image [N, S, S, C], and mask int32 [N, S, S] and label int32 [N] where every tile has one.

    Images are read by threads, each once. `progress(done, total)` is told the number of images.
    """
    total = len(tiles.source)
    if not total:
        raise UserError("there is no image to cut tiles from; the training part of the data set is empty.")
    arrays: dict[str, np.ndarray] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for done, group in enumerate(pool.map(tiles.tiles_of, range(total)), 1):
            for tile in group:
                _store(arrays, tile, tiles.keys, len(tiles))
            if progress:
                progress(done, total)
    return {key: array for key, array in arrays.items() if key != "index"}


def _store(arrays: dict[str, np.ndarray], tile: Example, keys: tuple[str, ...], count: int) -> None:
    for key in keys:
        value = np.asarray(tile[key])
        if key not in arrays:
            arrays[key] = np.empty((count, *value.shape), value.dtype)
        arrays[key][tile["index"]] = value


def _starts(side: int, size: int) -> list[int]:
    """First pixels of the fewest windows of `size` that cover `side`, evenly spread."""
    count = -(-side // size)
    return [round(k * (side - size) / max(count - 1, 1)) for k in range(count)]


def _check_sizes(infos: list[Info], size: int, option: str) -> None:
    smallest = min(infos, key=lambda info: min(info.height, info.width), default=None)
    if smallest is None or min(smallest.height, smallest.width) >= size:
        return
    side = min(smallest.height, smallest.width)
    fitting = side // MULTIPLE * MULTIPLE
    views = f" --config.views.size={fitting}" if option == "data.tile" else ""
    lower = f"set --config.{option}={fitting}{views} or smaller, or " if fitting else ""
    raise UserError(
        f"a tile of {size} px is larger than {smallest.id} ({smallest.height} x {smallest.width} px); "
        f"{lower}scale the images up with --config.data.resize={size}."
    )


class _Cache:
    """The last decoded images of a source, safe for threads; worker processes start with an empty one."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: OrderedDict[int, Example] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, image: int) -> Example:
        with self._lock:
            if image in self._kept:
                self._kept.move_to_end(image)
                return self._kept[image]
        example = self._source[image]
        with self._lock:
            self._kept[image] = example
            while len(self._kept) > CACHED:
                self._kept.popitem(last=False)
        return example

    def __reduce__(self) -> tuple[Any, ...]:
        return _Cache, (self._source,)
