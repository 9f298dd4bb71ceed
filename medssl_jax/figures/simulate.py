"""Compound figures made of single images: their boxes come for free. Figure i is a pure function of (seed, i)."""

from __future__ import annotations

from typing import Any

import numpy as np

from medssl_jax.data.dataset import Source
from medssl_jax.errors import UserError
from medssl_jax.figures.axes import Rng
from medssl_jax.figures.degrade import degrade
from medssl_jax.figures.partition import partition
from medssl_jax.figures.plan import Plan, make_plan
from medssl_jax.figures.render import render
from medssl_jax.figures.replay import layouts_of
from medssl_jax.figures.singles import Singles
from medssl_jax.figures.style import Style

__all__ = ["Figures", "Style"]

ENDLESS = 2**31 - 1  # figures where no number is given


class Figures:
    """Random access to simulated figures.

    `figures[i] -> {"image": uint8 [H, W, 3], "boxes": float32 [N, 4], "cells": float32 [N, 4], "kinds": list of N str, "id": str}`.
    Boxes are pixel corners (x0, y0, x1, y1), x1 and y1 exclusive; they may have fractions after degradation. `boxes` are tight: what
    was pasted, or the content of a drawn panel with its axis labels. `cells` are the same panels as parts of a recursive cut of the
    whole figure (section 2.2). `kinds` says image for a single image, else plot, blot, table, text or diagram.

    Args:
      source: the single images; a label gives the class for the intra-class mode (see `Singles.choose`).
      style: probabilities and ranges.
      seed: figure i depends on it and on i alone.
      count: the number of figures, for those who ask for a length.

    Raises:
      UserError: an empty source, a table of layouts that cannot be used, a count below 1.
    """

    def __init__(self, source: Source, style: Style | None = None, seed: int = 0, count: int = ENDLESS) -> None:
        if count < 1:
            raise UserError(f"{count} figures cannot be made; ask for one at least.")
        self.style, self.seed, self._count = style or Style(), seed, count
        self.singles = Singles(source)
        if self.style.replayed:
            layouts_of(self.style.layouts, *map(int, self.style.panels))  # what is wrong with a table is told before the first figure

    def __len__(self) -> int:
        return self._count

    def plan(self, index: int) -> Plan:
        """What is decided of figure `index` before it is drawn."""
        return make_plan(self._rng(index), self.singles, self.style)

    def name(self, index: int) -> str:
        """The id of figure `index`."""
        return f"figure_{self.seed}_{index:06d}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = self._rng(index)
        plan = make_plan(rng, self.singles, self.style)
        canvas, boxes = render(plan, rng, self.singles, self.style)
        if self.style.degrade:
            canvas, boxes = degrade(canvas, boxes, rng, self.style.rescale, self.style.quality)
        tight = boxes.astype(np.float32)
        cells = partition(tight, (0, 0, canvas.width, canvas.height))
        return {
            "image": np.array(canvas),
            "boxes": tight,
            "cells": cells,
            "kinds": list(plan.kinds),
            "id": self.name(index),
        }

    def _rng(self, index: int) -> Rng:
        if not 0 <= index < self._count:
            raise IndexError(f"there is no figure {index} of {self._count}")
        return np.random.default_rng((self.seed, int(index)))
