"""Compound figures a second: `python -m experiments.run figures-speed --data=DATASETS [--run=RUN]`.

Made by the simulator of images that it has read, and cut by `separate` as its command does (read, cut, written as panels and thumbnails),
without the start and the compilation. All cores that the process may use take part.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from experiments import commit, semireal
from experiments.cut_tables import NOTHING, markdown
from experiments.cutters import CONTROL, DETECTOR, cutters
from experiments.machine import machine
from experiments.shares import LEFT_OUT
from medssl_jax.errors import UserError
from medssl_jax.figures import separate
from medssl_jax.figures.files import find, name_of
from medssl_jax.figures.simulate import Figures, Style
from medssl_jax.machine import cores
from medssl_jax.train.logging import read_json, say, write_json

RECORD = "figures_speed.json"
FIGURES = "compound_figures/images"
NEEDED = (FIGURES, *semireal.SINGLES)  # below the folder of the data sets
SIMULATED = 200
ROUNDS = 5


def start(asked: argparse.Namespace) -> int:
    """Measure, record and print the table; the exit code. Raises UserError for an option that means nothing here, and for a run without a
    detector."""
    if asked.only or asked.shard != "1/1":
        raise UserError("the table figures-speed is measured at once, by one process; leave out --only and --shard.")
    record = asked.records / RECORD
    if asked.list:
        print(f"figures-speed: {'recorded' if record.exists() else 'missing'}")
        return 0
    missing = [asked.data / name for name in NEEDED if not (asked.data / name).exists()]
    if missing:
        say(f"figures-speed: passed over, {missing[0]} does not exist; name the folder of the data sets with --data.")
        return LEFT_OUT
    rows = {"simulated": simulated(asked.data), **{f"separate, {name}": row for name, row in separated(asked.data, asked.run).items()}}
    asked.records.mkdir(parents=True, exist_ok=True)
    write_json(
        record,
        {"code": commit.current(), "machine": machine(), "cores": cores(), "detector": cutters(asked.run)[DETECTOR].mark, "rows": rows},
    )
    print(table(record))
    return 0


def simulated(data: Path) -> dict[str, Any]:
    """The simulator with its default style, after a first round in which it reads the images."""
    figures = Figures(semireal.singles(data), Style())

    def once() -> None:
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(figures.__getitem__, range(SIMULATED)))

    return _row(once, SIMULATED)


def separated(data: Path, run: Path | None) -> dict[str, dict[str, Any]]:
    """`separate` on the real figures, by way of cutting; the detector's, where there is one."""
    folder = data / FIGURES
    files = {name_of(file, folder): file for file in find(folder).files}
    known, found = cutters(run), {}
    for name in [name for name in (CONTROL, DETECTOR) if name in known]:
        with tempfile.TemporaryDirectory() as out:
            task = separate.Task(folder, Path(out), name, run if name == DETECTOR else None)
            found[name] = _row(functools.partial(_cut_all, task, files, separate.finder(task)), len(files))
    return found


def _cut_all(task: separate.Task, files: dict[str, Path], find: separate.Find) -> None:
    for _ in separate.cut(task, files, find):
        pass


def table(record: Path) -> str:
    """Markdown: figures a second, the median of the rounds with its range."""
    if not record.exists():
        return NOTHING
    told = read_json(record, dict, "measure again")
    cores = f"{told['cores']} core{'s' if told['cores'] > 1 else ''}"
    lines = [[cores, "figures", "figures/s", "slowest and fastest of the rounds"]]
    for name, row in told["rows"].items():
        low, middle, high = (f"{row['figures'] / seconds:.1f}" for seconds in (row["slowest"], row["median"], row["fastest"]))
        lines.append([name, str(row["figures"]), middle, f"{low} to {high}"])
    return markdown(lines)


def _row(once: Callable[[], Any], figures: int) -> dict[str, Any]:
    """Seconds of the rounds after the first."""
    once()
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - began)
    return {"figures": figures, "median": float(np.median(seconds)), "fastest": min(seconds), "slowest": max(seconds)}
