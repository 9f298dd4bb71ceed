"""What is watched while a detector is trained: its losses and average precision on simulated figures of images it never saw."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from medssl_jax.augment import to_unit
from medssl_jax.figures.boxes import apart, matches
from medssl_jax.figures.letterbox import Squares
from medssl_jax.figures.score import MATCHED, Detections, average_precision, evaluate
from medssl_jax.figures.suppress import best_boxes
from medssl_jax.methods import SimCFS
from medssl_jax.train import mesh as meshes
from medssl_jax.train.state import State

READERS = 4
LEAST = 0.01  # score of a detection that counts for the average precision
USUAL = 0.5  # threshold of a detector that finds nothing


class Validation:
    """Called with a state; returns scalars of the averaged detector for the log. The figures are made once; those that fill up the last
    batch are not scored (in the mean losses they have a share)."""

    def __init__(self, method: SimCFS, mesh: Mesh, squares: Squares, batch: int) -> None:
        self._mesh, self._batch = mesh, batch
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(squares.__getitem__, range(len(squares))))
        found += [found[i % len(found)] for i in range(-len(found) % batch)]
        self._count = len(squares)
        self._arrays = {key: np.stack([square[key] for square in found]) for key in squares.keys}
        self._truths = {str(i): square["boxes"][: square["count"]] for i, square in enumerate(found[: self._count]) if square["count"]}
        self._look = jax.jit(lambda average, part: _look(method, average, part), out_shardings=meshes.replicated(mesh))

    def __call__(self, state: State) -> dict[str, float]:
        """Losses, and average precision at IoU 0.5 and from 0.5 to 0.95, by the names that validation gives them."""
        found, losses = self._run(state.carried["average"])
        scores = {"ap50": average_precision(self._truths, found, (MATCHED,)), "ap": average_precision(self._truths, found)}
        return {f"validation_{name}": float(value) for name, value in (losses | scores).items()}

    def scores(self, average: Any) -> tuple[float, dict[str, float]]:
        """The threshold of the best F1, and all scores of the detections that it leaves (see `score.evaluate`)."""
        found, _ = self._run(average)
        threshold = best_threshold(self._truths, found)
        return threshold, evaluate(self._truths, found, threshold)

    def _run(self, average: Any) -> tuple[dict[str, Detections], dict[str, float]]:
        """Detections of every figure, in pixels of its square, and the mean losses."""
        found: list[Detections] = []
        losses: list[dict[str, Any]] = []
        for start in range(0, len(self._arrays["image"]), self._batch):
            part = {key: array[start : start + self._batch] for key, array in self._arrays.items()}
            placed = {key: meshes.place(array, meshes.along_batch(self._mesh)) for key, array in part.items()}
            boxes, scores, logs = jax.device_get(self._look(average, placed))
            found += [Detections(b[s >= LEAST], s[s >= LEAST]) for b, s in zip(boxes, scores)]
            losses.append(logs)
        return {str(i): one for i, one in enumerate(found[: self._count])}, {
            k: float(np.mean([log[k] for log in losses])) for k in losses[0]
        }


def best_threshold(truths: dict[str, np.ndarray], found: dict[str, Detections]) -> float:
    """The score from which on detections, matched at IoU 0.5, have the highest F1 = 2 right / (panels + detections) over all figures.

    Counted are those that would be cut out: whether a box is apart depends on surer ones alone, so it is the same for every threshold.
    """
    scores, right = [np.zeros(0)], [np.zeros(0, bool)]
    for name, (boxes, own) in found.items():
        stay = apart(boxes)
        one = Detections(boxes[stay], own[stay])
        hits = np.zeros(len(one.scores), bool)
        if name in truths:
            hits[matches(truths[name], one.boxes, MATCHED)[1]] = True
        scores.append(one.scores)
        right.append(hits)
    ranked = np.argsort(-np.concatenate(scores), kind="stable")
    if not len(ranked):
        return USUAL
    panels = sum(map(len, truths.values()))
    f1 = 2 * np.cumsum(np.concatenate(right)[ranked]) / (panels + np.arange(1, len(ranked) + 1))
    return float(np.concatenate(scores)[ranked[f1.argmax()]])


def _look(method: SimCFS, average: Any, batch: Any) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Boxes, their scores, and the losses of one batch."""
    loss, (_, logs) = method.loss(average, {}, method.plain(batch), jax.numpy.int32(0))
    raw, _ = method.network.apply(average["detector"], {}, to_unit(batch["image"]), train=False)
    return *best_boxes(raw, method.size), {"loss": loss, **logs}
