"""Whether fine-tuning may have ended too early: its best scores on validation images came at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medssl_jax.report.words import amount_name, amount_order, arm

LAST = 0.75  # where the last quarter of the steps begins
GAIN = 0.02  # of the best score there above the best one before, mean over repeats, that is worth a word

Look = tuple[float, float]


def still_rising(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence, or none, naming where the best score came in the last quarter of the steps in each of two or more repeats, well above
    those before; `cells` are the records of fine-tunings with their `looks`, pairs of a step and a score."""
    gains: dict[tuple[float, str], dict[str, list[float]]] = {}
    for cell in cells:
        if (looks := _looks(cell)) and cell.keys() >= {"init", "labels", "label_unit"}:
            amount = float(cell["labels"]), str(cell["label_unit"])
            gains.setdefault(amount, {}).setdefault(str(cell["init"]), []).append(_late(looks))
    named = [f"with {amount_name(amount)} {told}" for amount in sorted(gains, key=amount_order) if (told := _told(gains[amount]))]
    if not named:
        return []
    return [
        f"The best score on validation images came in the last quarter of fine-tuning in every repeat ({'; '.join(named)}). The learning "
        "rate falls to zero there, so this alone does not show that it was too short; a larger --config.finetune.steps would, in a new "
        "--workdir with --config.pretrain.from=THIS_WORKDIR to keep the pretraining."
    ]


def _told(gains: Mapping[str, Sequence[float]]) -> str:
    rising = {init: float(np.mean(found)) for init, found in gains.items() if len(found) > 1 and min(found) > 0}
    return " and ".join(f"+{gain:.2f} from {arm(init)}" for init, gain in rising.items() if gain >= GAIN)


def _looks(cell: Mapping[str, Any]) -> list[Look]:
    """The looks at which there was a score."""
    found = cell.get("looks") or ()
    return [(float(step), float(score)) for step, score in found if score is not None and math.isfinite(score)]


def _late(looks: Sequence[Look]) -> float:
    """What the best score of the last quarter of the steps is above the best one before; 0 where there is none before, or it is not."""
    early, late = ([score for step, score in looks if (step > LAST * looks[-1][0]) == wanted] for wanted in (False, True))
    return max(0.0, max(late) - max(early)) if early else 0.0
