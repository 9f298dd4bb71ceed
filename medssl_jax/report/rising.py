"""Whether fine-tuning ended too early: its scores on validation images were still rising."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medssl_jax.report.words import amount_name, amount_order, arm

KEYS = {"init", "labels", "label_unit", "looks"}
PART = 0.75  # of the steps: had it ended here,
GAIN = 0.02  # this much would have been missed, mean over repeats


def still_rising(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence, or none, with each amount of labels at which the best score came in the last quarter of the steps in every repeat and
    was well above what came before; `cells` are the records of fine-tunings with their `looks`, pairs of a step and a score."""
    gains: dict[tuple[tuple[float, str], str], list[float]] = {}
    for cell in cells:
        if cell.keys() >= KEYS and len(cell["looks"]) > 1:
            amount = float(cell["labels"]), str(cell["label_unit"])
            gains.setdefault((amount, str(cell["init"])), []).append(_late(cell["looks"]))
    rising = {key: float(np.mean(found)) for key, found in gains.items() if min(found) > 0 and np.mean(found) >= GAIN}
    if not rising:
        return []
    named = []
    for amount in sorted({amount for amount, _ in rising}, key=amount_order):
        own = [f"{arm(init)} +{gain:.2f}" for (of, init), gain in rising.items() if of == amount]
        named.append(f"{amount_name(amount)} {', '.join(own)}")
    return [
        "Fine-tuning ended while scores on validation images were still rising (in the last quarter of its steps with "
        f"{'; with '.join(named)}): a larger config.finetune.steps or config.finetune.epochs may bring more."
    ]


def _late(looks: Sequence[tuple[int, float]]) -> float:
    """What the best score of the last quarter of the steps is above the best one before; 0 at least."""
    last = looks[-1][0]
    early, late = ([score for step, score in looks if (step > PART * last) == wanted] for wanted in (False, True))
    return max(0.0, max(late) - max(early, default=0.0))
