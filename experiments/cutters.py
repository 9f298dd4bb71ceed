"""Ways to cut a compound figure, and what is found in a set of figures, in both conventions of boxes (section 2.2 of the reference).

Tight boxes are what was pasted or drawn; those of a partition are the cells of a recursive cut of the whole figure, through the widest
strips between the boxes. Cuts may pass through overlaps of what was found, as `separate --boxes=partition` makes them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medssl_jax.evaluate import paired_difference
from medssl_jax.figures.boxes import apart
from medssl_jax.figures.content import with_labels
from medssl_jax.figures.detect import Detector
from medssl_jax.figures.partition import partition, snap
from medssl_jax.figures.score import SURE, Detections, evaluate, meant, per_figure
from medssl_jax.figures.validate import LEAST
from medssl_jax.figures.xycut import xycut

TIGHT, PARTITION = "tight", "partition"
CONVENTIONS = (TIGHT, PARTITION)
DETECTOR, CONTROL = "detector", "xycut"  # what is compared
PAIRED = ("imageclef", "iou")
AGREEMENT = 1e-6  # mean IoU of boxes and cells: any, as these may lie in a corner of a large empty cell
GROUP = 16  # figures that are cut at a time

Find = Callable[[Sequence[np.ndarray]], list[Detections]]
Groups = Mapping[str, Sequence[str]]  # names of figures


class Cutter(NamedTuple):
    """Figures uint8 [H, W, 3] -> detections; boxes with a score of `sure` or more are meant, average precision asks for all."""

    find: Find
    sure: float = SURE
    mark: str = ""  # a detector's own, see `Detector.mark`


class Sample(NamedTuple):
    """A figure uint8 [H, W, 3] with its true tight boxes float32 [N, 4]."""

    name: str
    image: np.ndarray
    boxes: np.ndarray


@dataclasses.dataclass
class Cuts:
    """The true boxes of a set's figures by convention and name, and what was found there by convention, method and name."""

    sure: dict[str, float]
    truths: dict[str, dict[str, np.ndarray]]
    found: dict[str, dict[str, dict[str, Detections]]]

    def threshold(self, convention: str, method: str) -> float:
        """The score from which a box is meant; a partition is made of those alone."""
        return self.sure[method] if convention == TIGHT else 0.0

    def per_figure(self, convention: str, method: str) -> dict[str, dict[str, float]]:
        """`score.per_figure` by name, ImageCLEF's in percent; a figure in which no box matches a panel has the mean IoU 0."""
        found, sure = self.found[convention][method], self.threshold(convention, method)
        rows = {name: per_figure(truth, meant(found[name], sure)) for name, truth in self.truths[convention].items()}
        return {name: {**row, "imageclef": 100 * row["imageclef"], "iou": float(np.nan_to_num(row["iou"]))} for name, row in rows.items()}


def cutters(run: Path | None) -> dict[str, Cutter]:
    """The whole figure, four equal quarters, the cut along blank lines, and the detector of `run` or of the package.

    Raises UserError for a run without a detector.
    """
    blank_lines = Cutter(_cut_blank_lines, 0.0)  # all of its boxes are meant, as `separate` takes them
    return {"one panel": Cutter(_grid(1)), "2 x 2": Cutter(_grid(2)), CONTROL: blank_lines, DETECTOR: learned(Detector.load(run))}


def learned(detector: Detector) -> Cutter:
    """A detector with all its boxes from a score of 0.01 on, of which those above its own threshold are meant."""
    least = min(LEAST, detector.threshold)
    return Cutter(lambda images: [Detections(*one) for one in detector.every(images, least)], detector.threshold, detector.mark)


def labelled(way: Cutter) -> Cutter:
    """The same with what is meant grown to letters and labels, as people box lettered panels."""

    def find(images: Sequence[np.ndarray]) -> list[Detections]:
        """What the way finds, and more of the figure."""
        return [_grown(image, one, way.sure) for image, one in zip(images, way.find(images), strict=True)]

    return Cutter(find, way.sure)


def _grown(image: np.ndarray, found: Detections, sure: float) -> Detections:
    boxes, grown = np.array(found.boxes, np.float32), cut_out(found, sure)
    boxes[grown] = with_labels(image, boxes[grown])
    return Detections(boxes, found.scores)


def cut_out(found: Detections, sure: float) -> np.ndarray:
    """Which boxes are meant, bool [N]; what finds them gives the surest first."""
    stay = found.scores >= sure
    stay[stay] = apart(found.boxes[stay])
    return stay


def cut(samples: Iterable[Sample], ways: Mapping[str, Cutter]) -> Cuts:
    """Cut every figure in every way; the figures are asked for once, some at a time."""
    cuts = Cuts(
        {name: way.sure for name, way in ways.items()}, {c: {} for c in CONVENTIONS}, {c: {name: {} for name in ways} for c in CONVENTIONS}
    )
    for group in _grouped(samples):
        for sample in group:
            cuts.truths[TIGHT][sample.name] = sample.boxes
            cuts.truths[PARTITION][sample.name] = partition(sample.boxes, _canvas(sample))
        for method, way in ways.items():
            for sample, one in zip(group, way.find([sample.image for sample in group]), strict=True):
                cuts.found[TIGHT][method][sample.name] = one
                cuts.found[PARTITION][method][sample.name] = _cells(one, way.sure, _canvas(sample))
    return cuts


def summary(cuts: Cuts, groups: Groups) -> dict[str, Any]:
    """What is recorded of a set: the numbers of figures and panels a group, all scores of `score.evaluate` by convention, group and
    method, and the paired differences of the detector to the cut along blank lines, figure by figure."""
    sizes = {g: {"figures": len(names), "panels": sum(len(cuts.truths[TIGHT][n]) for n in names)} for g, names in groups.items()}
    scores = {c: {g: {m: _evaluated(cuts, c, m, names) for m in cuts.sure} for g, names in groups.items()} for c in CONVENTIONS}
    return {"groups": sizes, "scores": scores, "differences": {c: _differences(cuts, c, groups) for c in CONVENTIONS}}


def _evaluated(cuts: Cuts, convention: str, method: str, names: Sequence[str]) -> dict[str, float]:
    truths = cuts.truths[convention]
    return evaluate({name: truths[name] for name in names}, cuts.found[convention][method], cuts.threshold(convention, method))


def _differences(cuts: Cuts, convention: str, groups: Groups) -> dict[str, dict[str, Any]]:
    if not {DETECTOR, CONTROL} <= cuts.sure.keys():
        return {}
    rows = [cuts.per_figure(convention, method) for method in (DETECTOR, CONTROL)]
    return {group: {m: _paired(*([row[name][m] for name in names] for row in rows)) for m in PAIRED} for group, names in groups.items()}


def _paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    return dataclasses.asdict(paired_difference(ours, theirs))


def _canvas(sample: Sample) -> tuple[int, int, int, int]:
    return 0, 0, sample.image.shape[1], sample.image.shape[0]


def _cells(found: Detections, sure: float, canvas: tuple[int, int, int, int]) -> Detections:
    """The boxes that are meant as cells, with their scores."""
    kept = cut_out(found, sure)
    return Detections(snap(found.boxes[kept], canvas, agreement=AGREEMENT), found.scores[kept])


def _grouped(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    waiting = iter(samples)
    while group := list(itertools.islice(waiting, GROUP)):
        yield group


def _cut_blank_lines(images: Sequence[np.ndarray]) -> list[Detections]:
    return [Detections(*xycut(image)) for image in images]


def _grid(side: int) -> Find:
    """Equal cells, `side` by `side`."""

    def find(image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        ys, xs = (np.linspace(0, length, side + 1) for length in (height, width))
        boxes = [(xs[c], ys[r], xs[c + 1], ys[r + 1]) for r in range(side) for c in range(side)]
        return Detections(np.asarray(boxes, np.float32), np.ones(len(boxes), np.float32))

    return lambda images: [find(image) for image in images]
