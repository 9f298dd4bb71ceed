"""Boxes of panels: float32 [N, 4] pixel corners (x0, y0, x1, y1) with x0 < x1 and y0 < y1; x1 and y1 are the first pixel outside.

All that is computed here is float64, so that thresholds on ratios of areas fall where whole numbers put them.
"""

from __future__ import annotations

import numpy as np

Canvas = tuple[float, float, float, float]
NESTED = 0.5  # share of a box in a surer one above which both cannot be panels; chosen on simulated figures


def area(boxes: np.ndarray) -> np.ndarray:
    """Areas float64 [N] in pixels of boxes [N, 4]; 0 for a box without extent."""
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).reshape(-1, 4).T
    return np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)


def intersection(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Areas float64 [N, M] in pixels that boxes [N, 4] share with boxes [M, 4]."""
    a, b = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (first, second))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.maximum(high - low, 0).prod(axis=2)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union float64 [N, M] of boxes [N, 4] with boxes [M, 4]; 0 where both are without extent."""
    shared = intersection(first, second)
    union = area(first)[:, None] + area(second)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def apart(boxes: np.ndarray) -> np.ndarray:
    """Which of boxes [N, 4], the surest first, are cut out, bool [N]: one goes that shares more than half of the smaller of the two with
    one that stays. Suppression by IoU lets a part of a panel, or several panels at once, stand beside the panel."""
    own = area(boxes)
    share = intersection(boxes, boxes) / np.maximum(np.minimum(own[:, None], own[None, :]), 1e-9)
    stay = np.ones(len(own), bool)
    for k in range(len(own)):
        stay[k] = not (share[k, :k] > NESTED)[stay[:k]].any()
    return stay


def clip(boxes: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Boxes float32 [N, 4] cut to the canvas (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = canvas
    return np.clip(
        np.asarray(boxes, np.float32).reshape(-1, 4), np.array([x0, y0, x0, y0], np.float32), np.array([x1, y1, x1, y1], np.float32)
    )


def extent(boxes: np.ndarray) -> Canvas:
    """The smallest box (x0, y0, x1, y1) around boxes [N, 4], N at least 1."""
    low, high = np.min(boxes[:, :2], axis=0), np.max(boxes[:, 2:], axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def matches(truth: np.ndarray, boxes: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (indices of panels, indices of boxes), int64 [K] each: box by box, in their order, the free panel with the largest IoU.

    Args:
      truth: panels [N, 4].
      boxes: [M, 4], the surest first.
      threshold: the least IoU of a pair.
    """
    overlaps = iou(truth, boxes)
    pairs = []
    for box in range(overlaps.shape[1] if len(overlaps) else 0):
        panel = int(overlaps[:, box].argmax())
        if overlaps[panel, box] >= threshold:
            pairs.append((panel, box))
            overlaps[panel] = -1  # taken
    panels, chosen = np.array(pairs, np.int64).reshape(-1, 2).T
    return panels, chosen
