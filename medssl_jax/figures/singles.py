"""The single images that figures are made of: as 8-bit RGB, kept once read, chosen at random or of one class."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from medssl_jax.data.dataset import Example, Info, Source, Unlabelled, describe
from medssl_jax.errors import UserError
from medssl_jax.figures.rgb import brightened, to_rgb

LARGEST = 512  # pixels of the longer side that an image is kept at; panels are hardly ever larger
KEPT = 400_000_000  # bytes of decoded images kept
SERIES = 0.25  # share of intra-class figures that show several parts of one image, as slices of a stack look
SHAPES = (0.65, 2.8)  # width / height of a part
AREA = (0.4, 1.0)  # share of the image that a part takes, at most: its shape limits it
LONG = 5.0  # width / height, or the inverse, beyond which an image is never shown whole
NEAR = 0.9  # an image fits into a cell where this much of it is seen
SHIFTED = 0.06  # of the image's side, between the parts of a series


class Shown(NamedTuple):
    """A part of the image `number`, (x0, y0, x1, y1) in shares of its width and height, and its width / height in pixels."""

    number: int
    part: tuple[float, float, float, float]
    aspect: float


class Singles:
    """Images of a source by number, safe for threads; worker processes start with none kept. Raises UserError for an empty source."""

    def __init__(self, source: Source) -> None:
        if not len(source):
            raise UserError("there is no single image to make figures of; the part of the data set is empty.")
        self.source, self._images = source, Unlabelled(source)
        self.labels = _labels(source)
        self._ends = getattr(source, "ends", [len(source)])
        self._kept: OrderedDict[int, Image.Image] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Singles, (self.source,)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Image.Image:
        """RGB, the longer side of LARGEST pixels at most; it is shared, so do not draw on it."""
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        image = Image.fromarray(brightened(to_rgb(self._images[index]["image"])))
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.BICUBIC)
        with self._lock:
            self._bytes += 0 if index in self._kept else 3 * image.width * image.height
            self._kept[index] = image
            while self._bytes > KEPT and len(self._kept) > 1:
                _, old = self._kept.popitem(last=False)
                self._bytes -= 3 * old.width * old.height
        return image

    def choose(self, rng: np.random.Generator, count: int, intra: bool, cropped: bool) -> list[Shown]:
        """`count` images, whole or as parts of them.

        `intra` takes images of one class. Where the source has no classes, it takes neighbours in the source, whose order mostly keeps
        what was imaged together. A quarter of these figures shows parts of one image, a little apart.
        """
        if not intra:
            return [self.part(rng, self._draw(rng), cropped) for _ in range(count)]
        first = self._draw(rng)
        if rng.random() < SERIES:
            return self._series(rng, first, count)
        if self.labels is None:
            return [self.part(rng, (first + k) % len(self), cropped) for k in range(count)]
        alike = np.flatnonzero(self.labels == self.labels[first])
        return [self.part(rng, int(k), cropped) for k in rng.choice(alike, count, replace=count > len(alike))]

    def fitting(self, rng: np.random.Generator, aspect: float, tried: int, cropped: bool) -> Shown:
        """An image for a cell of that width / height: of some of one class, the one that fits (see `closest`).

        The class is that of a random image: were it chosen by its shape as well, figures would be full of the class that fits cells best.
        """
        first = self._draw(rng)
        alike = np.arange(len(self)) if self.labels is None else np.flatnonzero(self.labels == self.labels[first])
        others = rng.choice(alike, tried - 1).tolist()
        return closest([self.part(rng, index, cropped) for index in (first, *others)], aspect)

    def _draw(self, rng: np.random.Generator) -> int:
        """A random image: of joined sources each is as likely as the others, however many images it has."""
        which = int(rng.integers(len(self._ends)))
        return int(rng.integers(self._ends[which - 1] if which else 0, self._ends[which]))

    def part(self, rng: np.random.Generator, index: int, cropped: bool) -> Shown:
        """The whole image, or a random part of it of a random shape; of a very long one always a part."""
        width, height = self._size(index)
        if not cropped and 1 / LONG <= width / height <= LONG:
            return Shown(index, (0, 0, 1, 1), width / height)
        shape, area = float(np.exp(rng.uniform(*np.log(SHAPES)))) / (width / height), rng.uniform(*AREA)
        area = min(area, shape, 1 / shape)  # what fits
        w, h = min(1.0, float(np.sqrt(area * shape))), min(1.0, float(np.sqrt(area / shape)))
        x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
        return Shown(index, (x, y, x + w, y + h), w * width / (h * height))

    def _series(self, rng: np.random.Generator, index: int, count: int) -> list[Shown]:
        """Parts of one shape, a little apart."""
        _, (x0, y0, x1, y1), aspect = self.part(rng, index, cropped=False)
        side, wide, high = rng.uniform(0.6, 1 - SHIFTED), x1 - x0, y1 - y0
        places = rng.uniform(0, 1 - side - SHIFTED, 2) + rng.uniform(0, SHIFTED, (count, 2))
        corners = [(x0 + u * wide, y0 + v * high) for u, v in places.tolist()]
        return [Shown(index, (x, y, x + side * wide, y + side * high), aspect) for x, y in corners]

    def _size(self, index: int) -> tuple[int, int]:
        """Width and height of an image, or of what is kept of it where only reading tells."""
        if hasattr(self.source, "info"):
            info = describe(self.source, index)
            return info.width, info.height
        return self[index].size


def closest(shown: Sequence[Shown], aspect: float) -> Shown:
    """The first of some images whose shape is near an aspect ratio (their quotient at least NEAR), else the one that is nearest."""
    for one in shown:
        if min(one.aspect / aspect, aspect / one.aspect) >= NEAR:
            return one
    return min(shown, key=lambda one: abs(np.log(one.aspect / aspect)))


class ByFolder:
    """A source whose images are of one class where they lie in one folder, by their ids; every image in one folder has no class."""

    def __init__(self, source: Source) -> None:
        self._source = source
        folders = [str(PurePosixPath(describe(source, i).id).parent) for i in range(len(source))]
        names = sorted(set(folders))
        self._labels = [names.index(name) for name in folders] if len(names) > 1 else None

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        example = Unlabelled(self._source)[index]
        return example if self._labels is None else {**example, "label": self._labels[index]}

    def info(self, index: int) -> Info:
        """What is known without decoding, the folder as the class."""
        return describe(self._source, index)._replace(label=None if self._labels is None else self._labels[index], masked=False)


def _labels(source: Source) -> np.ndarray | None:
    """The class of every image, int [N]; None where the first one has none."""
    if describe(source, 0).label is None:
        return None
    found = [describe(source, i).label for i in range(len(source))]
    return np.array([-1 if label is None else label for label in found])
