"""The tables of compound figures that need no training: `python -m experiments.run figures --data=DATASETS [--run=RUN]`.

Real figures, semi-real ones, single images, and ImageCLEF's accuracy of what looks at no image; the detector is RUN's or the package's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from experiments import figures, semireal, single, trivial
from experiments.cutters import Cutter, cutters
from experiments.shares import LEFT_OUT
from medssl_jax.errors import UserError
from medssl_jax.train.logging import say

REAL = "compound_figures"
Ways = Mapping[str, Cutter]


class Part(NamedTuple):
    """What it needs below the folder of the data sets, where it is recorded below that of the records, and how it is measured."""

    needed: tuple[str, ...]
    record: str
    measure: Callable[[argparse.Namespace, Ways, Path], int]


PARTS = {
    "real": Part((REAL,), figures.RECORD, lambda asked, ways, record: _real(asked, ways, record)),
    "semi-real": Part(semireal.NEEDED, semireal.RECORD, lambda asked, ways, record: _semireal(asked, ways, record)),
    "single": Part(single.NEEDED, single.RECORD, lambda asked, ways, record: _single(asked, ways, record)),
    "trivial": Part(trivial.NEEDED, trivial.RECORD, lambda asked, _, record: trivial.measure(asked.data, record)),
}


def start(asked: argparse.Namespace) -> int:
    """Measure and record the parts that are asked for; 1 where one could not be measured, else 0. Raises UserError for a part or a
    detector that does not exist."""
    wanted = [name for name in PARTS if name in asked.only] if asked.only else list(PARTS)
    if unknown := [name for name in asked.only if name not in PARTS]:
        raise UserError(f"the table figures has no {unknown[0]!r}; --only takes {', '.join(PARTS)}.")
    if asked.shard != "1/1":
        raise UserError(f"the table figures is measured by one process; leave out --shard={asked.shard}.")
    if asked.list:
        print("\n".join(f"{name}: {'recorded' if (asked.records / PARTS[name].record).exists() else 'missing'}" for name in wanted))
        return 0
    ways = cutters(asked.run)
    asked.records.mkdir(parents=True, exist_ok=True)
    done = [_measured(name, asked, ways) for name in wanted]
    return 0 if all(done) else LEFT_OUT


def _measured(name: str, asked: argparse.Namespace, ways: Ways) -> bool:
    """Measure a part; False, with the reason told, where that cannot be done."""
    part = PARTS[name]
    missing = [asked.data / path for path in part.needed if not (asked.data / path).exists()]
    if missing:
        say(f"{name}: passed over, {missing[0]} does not exist; name the folder of the data sets with --data.")
        return False
    try:
        part.measure(asked, ways, asked.records / part.record)
    except UserError as error:
        say(f"{name}: passed over, {error}")
        return False
    return True


def _real(asked: argparse.Namespace, ways: Ways, record: Path) -> int:
    if asked.run is not None:
        semireal.check_run(asked.run, (REAL,), "the real figures")
    return figures.measure(asked.data / REAL, ways, record)


def _single(asked: argparse.Namespace, ways: Ways, record: Path) -> int:
    if asked.run is not None:
        semireal.check_run(asked.run, single.UNSEEN, "the single images")
    return single.measure(asked.data, ways, record)


def _semireal(asked: argparse.Namespace, ways: Ways, record: Path) -> int:
    if asked.run is not None:
        semireal.check_run(asked.run)
    return semireal.measure(asked.data, ways, record, asked.per_bucket)
