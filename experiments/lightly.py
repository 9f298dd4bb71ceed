"""Pairs a second of whole runs out of image files, beside lightly: `python -m experiments.lightly [--budget full]`.

Both read the same PNG files and take turns: medssl_jax as `experiments.throughput` times it on "PNG files", in as many threads as there
are cores, with the views made on the device; lightly (`experiments.lightly_side`) in as many processes, which make the views too. lightly
decodes a whole file for every image and crops all of it; medssl_jax decodes a whole file for a tile, and keeps the last few files.
Augmentations, heads and optimizers are each package's own. lightly is optional: `pip install medssl_jax[speed]`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax

from experiments import by_device
from experiments.by_device import Row, case_name
from experiments.cut_tables import markdown
from experiments.machine import share_accelerator
from experiments.pace import Pace, by_round, spread, waited
from experiments.records import command, keep
from experiments.throughput import Bench, Case, add_options, conditions, stored
from medssl_jax import cli, cpu
from medssl_jax.errors import UserError
from medssl_jax.machine import cores
from medssl_jax.train.logging import say

RECORD = "lightly.json"
NEEDED = ("torch", "torchvision", "lightly")
METHODS = ("simclr", "byol")
SIDES = ("augmented", "files", "lightly")  # the first two are ours
CASES = {
    "small": tuple(Case(method, "resnet18", 64, 16, "float32") for method in METHODS),
    "full": tuple(Case(method, "resnet50", 224, 128, "bfloat16") for method in METHODS),
}


def main(arguments: Sequence[str]) -> int:
    """Time the cases, record each once it is done, and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=METHODS, choices=METHODS, help="methods; both where nothing is given")
    add_options(parser, RECORD)
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: run(asked, command("experiments.lightly", list(arguments))))


def run(asked: argparse.Namespace, command: str) -> int:
    """Time and record what is asked for; 0. Raises UserError for no step or round at all, and where lightly is missing."""
    how = conditions(asked, command)
    if missing := [name for name in NEEDED if not importlib.util.find_spec(name)]:
        raise UserError(f"{missing[0]} is not installed; install it with pip install -e '.[speed]'.")
    cpu.settle()
    share_accelerator()
    device = jax.devices()[0].device_kind
    for case in CASES[asked.budget]:
        if case.method in asked.only:
            say(f"lightly: {case.name}")
            found = compare(case, how["config"], how["steps"], how["rounds"])
            keep(asked.record, f"{device}: {case.name}", {"case": dataclasses.asdict(case), **found, **how, "device": device})
    print(table(asked.record))
    return 0


def compare(case: Case, size: str, steps: int, rounds: int) -> dict[str, Any]:
    """What both reach, by round. lightly has a process of its own, from which its DataLoader can fork without JAX's threads."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, spawn) as pool:
        bench = Bench(case.config(size), Path(folder))
        files = stored(Path(folder), bench.config.data.tile)
        turns: dict[str, list[Pace]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for ours in ("augmented", "files"):
                turns[ours].append(bench.turn(ours, steps))
            turns["lightly"].append(pool.submit(_lightly, dataclasses.asdict(case), files, steps, _device()).result())
    return {side: by_round(found) for side, found in turns.items()}


def _lightly(case: dict[str, Any], folder: Path, steps: int, device: str) -> Pace:
    from experiments import lightly_side

    return lightly_side.measured(case, folder, steps, cores(), device)


def _device() -> str:
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def table(record: Path) -> str:
    """Markdown: a line a case and device."""
    return by_device.table(record, paces)


def paces(rows: list[Row]) -> str:
    """Pairs a second of both, how long either waited for data, and how many times lightly's rate ours is."""
    head = ["pairs/s of: method, network, px, batch, type", "medssl_jax", "waiting", "without reading"]
    return markdown([[*head, "lightly", "waiting", "threads, processes", "medssl_jax / lightly"], *map(_line, rows)])


def _line(row: Row) -> list[str]:
    ours, alone, theirs = (row[side] for side in ("files", "augmented", "lightly"))
    rates = [spread(ours["images_per_s"]), waited(ours), spread(alone["images_per_s"]), spread(theirs["images_per_s"]), waited(theirs)]
    ratios = [one / other for one, other in zip(ours["images_per_s"], theirs["images_per_s"], strict=True)]
    return [case_name(row), *rates, str(row["readers"]), spread(ratios, 2)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
