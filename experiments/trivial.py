"""What ImageCLEF's accuracy gives to candidates that look at no image: grids, and the truth made smaller or larger.

On the boxes of the 2016 training figures, without their images. Grids are in whole pixels on the extent of a figure's boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments import commit
from experiments.cut_tables import NOTHING, markdown
from medssl_jax.figures.boxes import extent
from medssl_jax.figures.clef import read_panels
from medssl_jax.figures.score import imageclef_accuracy
from medssl_jax.train.logging import read_json, say, write_json

RECORD = "figures_imageclef.json"
BOXES = "panel_layouts/imageclef2016_training_boxes.csv"
NEEDED = (BOXES,)  # below the folder of the data sets
GRIDS = ((1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (2, 3), (3, 2))  # rows, columns
FACTORS = (0.1, 1.2, 1.25)

Candidates = Callable[[np.ndarray], np.ndarray]


def measure(data: Path, record: Path) -> int:
    """The accuracy of all candidates into `record`; 0. Raises UserError for boxes that cannot be read."""
    truths = read_panels(data / BOXES)
    say(f"ImageCLEF: {len(truths)} figures, {len(candidates())} kinds of candidates.")
    scores = {name: imageclef_accuracy(truths, {n: make(boxes) for n, boxes in truths.items()}) for name, make in candidates().items()}
    sizes = {"figures": len(truths), "panels": sum(map(len, truths.values()))}
    write_json(record, {"boxes": BOXES, "code": commit.current(), **sizes, "imageclef": scores})
    print(table(record))
    return 0


def table(record: Path) -> str:
    """Markdown: a line a kind of candidates."""
    if not record.exists():
        return NOTHING
    told = read_json(record, dict, "measure again")
    return markdown([["candidates", "ImageCLEF"], *([name, f"{value:.1f}"] for name, value in told["imageclef"].items())])


def candidates() -> dict[str, Candidates]:
    """From the true boxes of a figure, by what the table calls them."""
    grids = {f"{rows} x {columns} for every figure": _grid(rows, columns) for rows, columns in GRIDS}
    return grids | {f"the truth, every side times {factor:g}": _scaled(factor) for factor in FACTORS}


def _grid(rows: int, columns: int) -> Candidates:
    def make(boxes: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = extent(boxes)
        x, y = np.rint(np.linspace(x0, x1, columns + 1)), np.rint(np.linspace(y0, y1, rows + 1))
        return np.array([[x[j], y[i], x[j + 1], y[i + 1]] for i in range(rows) for j in range(columns)], np.float32)

    return make


def _scaled(factor: float) -> Candidates:
    def make(boxes: np.ndarray) -> np.ndarray:
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
        return np.concatenate([centre - half, centre + half], axis=1)

    return make
