"""How well figures were cut: ImageCLEF's accuracy, average precision, and what both do not see.

Boxes are float32 [N, 4] pixel corners (x0, y0, x1, y1), x0 < x1 and y0 < y1, x1 and y1 the first pixel outside. Truth and detections come
as mappings by the name of the figure; a figure without detections may be missing there, and one without truth is ignored.
Reference: compound_figures.md, 2.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medssl_jax.errors import UserError
from medssl_jax.figures.boxes import apart, area, intersection, iou, matches

THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))
RECALLS = np.linspace(0, 1, 101)
CLEF_INSIDE = 1 - 1 / 3  # in doubles just above 2/3, so that a ratio of exactly 2/3 does not reach it
MATCHED = 0.5  # IoU of a pair
RIGHT = 0.75  # IoU of every pair of a figure that is entirely right
SURE = 0.25  # score of the detections that are meant, where all of them are not asked for


class Detections(NamedTuple):
    """Boxes [N, 4] of one figure and their scores [N], the higher the surer."""

    boxes: np.ndarray
    scores: np.ndarray


Truths = Mapping[str, np.ndarray]
Found = Mapping[str, Detections]
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


def imageclef(truth: np.ndarray, candidates: np.ndarray) -> float:
    """ImageCLEF's score of one figure, 0 to 1: the share of panels that were found, of the more of panels [N, 4] and candidates [M, 4].

    Panel after panel takes the candidate of which the largest part lies inside it, where that is more than two thirds and no earlier panel
    has taken it; there is no second choice. Coordinates are rounded, as the challenge's are whole numbers.
    """
    truth, candidates = np.rint(np.reshape(truth, (-1, 4))), np.rint(np.reshape(candidates, (-1, 4)))
    if not len(truth) or not len(candidates):
        return 0.0
    shared, whole = intersection(truth, candidates), area(candidates)[None, :]
    inside = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    chosen = inside.argmax(axis=1)[inside.max(axis=1) >= CLEF_INSIDE]
    return len(np.unique(chosen)) / max(len(truth), len(candidates))


def imageclef_accuracy(truths: Truths, candidates: Mapping[str, np.ndarray]) -> float:
    """The mean of `imageclef` over the figures of the truth, in percent. Raises UserError where there is none."""
    _check(truths)
    nothing = NOTHING.boxes
    return 100 * float(np.mean([imageclef(truth, candidates.get(name, nothing)) for name, truth in truths.items()]))


def average_precision(truths: Truths, found: Found, thresholds: Sequence[float] = THRESHOLDS) -> float:
    """COCO's average precision, 0 to 1: the mean over the IoU thresholds of the highest precision at 101 recalls or beyond.

    In each figure the surest detection takes the panel it overlaps most with, if by the threshold or more; then the next one of those
    that are left. All detections count, of whatever size. Raises UserError where there is no panel.
    """
    _check(truths)
    return float(np.mean([_coco_area(*_ranked(truths, found, threshold)) for threshold in thresholds]))


def yolo_precision(truths: Truths, found: Found, thresholds: Sequence[float] = THRESHOLDS) -> float:
    """YOLOv5's (5.0) mean average precision, 0 to 1, for comparison with SimCFS; COCO's is the one to trust.

    A detection can only take the panel it overlaps most with, and does so above an IoU of 0.5 whatever the threshold; it is right where
    its IoU is above the threshold. The area under the envelope begins at precision 1 and falls to 0 just after the last recall.
    Raises UserError where there is no panel.
    """
    total = _check(truths)
    parts = [_first_choices(truth, found.get(name, NOTHING)) for name, truth in truths.items()]
    scores, overlaps = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    overlaps = overlaps[np.argsort(-scores, kind="stable")]
    return float(np.mean([_trapezoids(overlaps > threshold, total) for threshold in thresholds]))


def per_figure(truth: np.ndarray, boxes: np.ndarray) -> dict[str, float]:
    """What can be said of one figure with panels [N, 4] and the boxes [M, 4] that were found, the surest first.

    Returns:
      {"imageclef": its score, "iou", "over", "under": means over the panels that a box matches at IoU 0.5 or more, NaN where none does;
      "over" is the area of the box outside its panel and "under" that of the panel outside its box, both over the panel's,
      "count_error": boxes too many or too few, "right": 1 where as many boxes as panels match these at IoU 0.75 or more}.
    """
    panels, chosen = matches(truth, boxes, MATCHED)
    overlaps, shared = (f(truth, boxes)[panels, chosen] for f in (iou, intersection))
    own, theirs = area(truth)[panels], area(boxes)[chosen]
    return {
        "imageclef": imageclef(truth, boxes),
        "iou": _mean(overlaps),
        "over": _mean((theirs - shared) / own),
        "under": _mean((own - shared) / own),
        "count_error": float(abs(len(boxes) - len(truth))),
        "right": float(len(truth) == len(boxes) and len(matches(truth, boxes, RIGHT)[0]) == len(truth)),
    }


def evaluate(truths: Truths, found: Found, sure: float = SURE) -> dict[str, float]:
    """All scores of a set: average precision of all detections, the rest of those that are meant (`meant`).

    Returns:
      {"ap50", "ap": COCO's at IoU 0.5 and at 0.5 to 0.95, "yolo50", "yolo": YOLOv5's, "imageclef": percent, and the means of
      `per_figure` over the figures, those of matched panels over the figures that have any}.

    Raises:
      UserError: there is no panel.
    """
    rows = [per_figure(truth, meant(found.get(name, NOTHING), sure)) for name, truth in truths.items()]
    scores = {
        "ap50": average_precision(truths, found, (0.5,)),
        "ap": average_precision(truths, found),
        "yolo50": yolo_precision(truths, found, (0.5,)),
        "yolo": yolo_precision(truths, found),
    }
    means = {key: _mean(np.array([row[key] for row in rows if not np.isnan(row[key])])) for key in rows[0]}
    return scores | means | {"imageclef": 100 * means["imageclef"]}


def meant(found: Detections, sure: float = SURE) -> np.ndarray:
    """The boxes [M, 4] with a score of at least `sure`, the surest first, without those that are mostly in a surer one (`boxes.apart`)."""
    order = _surest_first(found.scores)
    boxes = np.reshape(found.boxes, (-1, 4))[order[np.asarray(found.scores)[order] >= sure]]
    return boxes[apart(boxes)]


def _ranked(truths: Truths, found: Found, threshold: float) -> tuple[np.ndarray, int]:
    """Whether each detection of the set is right, the surest first, and the number of panels."""
    scores, right = [], []
    for name, truth in truths.items():
        own = found.get(name, NOTHING)
        order = _surest_first(own.scores)
        hits = np.zeros(len(order), bool)
        hits[matches(truth, np.reshape(own.boxes, (-1, 4))[order], threshold)[1]] = True
        scores.append(np.asarray(own.scores)[order])
        right.append(hits)
    return np.concatenate(right)[_surest_first(np.concatenate(scores))], sum(map(len, truths.values()))


def _first_choices(truth: np.ndarray, found: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Scores of one figure's detections and their IoU with the panel they take, 0 for those that take none."""
    order = _surest_first(found.scores)
    overlaps = iou(truth, np.reshape(found.boxes, (-1, 4))[order])
    out, taken = np.zeros(len(order)), set()
    for box in range(len(order) if len(truth) else 0):
        panel = int(overlaps[:, box].argmax())
        if overlaps[panel, box] > MATCHED and panel not in taken:
            taken.add(panel)
            out[box] = overlaps[panel, box]
    return np.asarray(found.scores)[order], out


def _curve(right: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after each detection."""
    hits = np.cumsum(right)
    return hits / total, hits / np.arange(1, len(right) + 1)


def _coco_area(right: np.ndarray, total: int) -> float:
    recall, precision = _curve(right, total)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(recall, RECALLS, side="left")].mean())


def _trapezoids(right: np.ndarray, total: int) -> float:
    recall, precision = _curve(right, total)
    last = recall[-1] if len(recall) else 0.0
    x, y = np.concatenate([[0], recall, [last + 0.01]]), np.concatenate([[1], precision, [0]])
    return float(np.trapezoid(np.interp(RECALLS, x, np.maximum.accumulate(y[::-1])[::-1]), RECALLS))


def _surest_first(scores: np.ndarray) -> np.ndarray:
    return np.argsort(-np.asarray(scores, np.float64), kind="stable")


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _check(truths: Truths) -> int:
    """The number of panels."""
    total = sum(map(len, truths.values()))
    if not total:
        raise UserError("there is no panel to score against; give the true boxes of at least one figure.")
    return total
