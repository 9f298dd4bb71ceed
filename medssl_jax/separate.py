"""The command that cuts compound figures into single images.

python -m medssl_jax.separate --figures=DIR_OR_PDF --out=DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from medssl_jax import cli
from medssl_jax.config import SHIPPED
from medssl_jax.errors import UserError
from medssl_jax.figures.separate import Task, separate

FIGURES = flags.DEFINE_string(
    "figures", None, "A folder of figures (PNG, JPEG, TIFF, GIF, WebP, BMP, PDF), or one of them.", allow_override=True
)
OUT = flags.DEFINE_string("out", None, "Where photographs/, plots/, panels.csv and index.html are left.", allow_override=True)
METHOD = flags.DEFINE_enum(
    "method", "detector", ["detector", "xycut"], "The detector of --run or of the package, or the cut along blank lines."
)
RUN = flags.DEFINE_string(
    "run", None, "A run of configs/simcfs.py, whose detector is used in place of the package's (shipped).", allow_override=True
)
PAD = flags.DEFINE_integer("pad", 0, "Pixels that are added around every panel.", lower_bound=0)
BOXES = flags.DEFINE_enum(
    "boxes", "tight", ["tight", "labelled", "partition"], "The panels alone, with their letters and labels, or a cut of the whole figure."
)
SHARD = flags.DEFINE_string("shard", "1/1", "i/n: cut every n-th file, beginning with the i-th; the last of n such processes joins them.")
MIN_SIDE = flags.DEFINE_integer("min-side", 32, "Pixels of the shorter side of a panel that is kept.", lower_bound=1)


def main() -> None:
    """Cut what --figures names into panels; leave them in --out with a table, and pages to look through."""
    figures, out = (Path(cli.required(flag)).expanduser() for flag in (FIGURES, OUT))
    separate(Task(figures, out, METHOD.value, _run(), PAD.value, BOXES.value, MIN_SIDE.value, SHARD.value))


def _run() -> Path | None:
    """The run of --run, None for the package's detector. Raises UserError for an empty one."""
    if RUN.value in (None, SHIPPED):
        return None
    if not RUN.value.strip():
        raise UserError("--run is empty; name a finished run of configs/simcfs.py, or leave it out for the package's detector.")
    return Path(RUN.value).expanduser()


if __name__ == "__main__":
    sys.exit(cli.execute(main, sys.argv))
