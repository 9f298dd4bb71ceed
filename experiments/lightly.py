"""Images a second of whole runs out of image files, beside lightly: `python -m experiments.lightly [--budget full]`.

Both read the same PNG files, one after the other: medssl_jax as `experiments.throughput` times it "read from files", cropping and changing
the images on the device; lightly (`experiments.lightly_side`) in as many processes as there are cores. Both decode a whole file for an
image. Augmentations, heads and optimizers are each package's own. lightly is optional: `pip install medssl_jax[speed]`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import multiprocessing
import shlex
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax

from experiments import commit
from experiments.cut_tables import NOTHING, markdown
from experiments.machine import machine, share_accelerator
from experiments.records import RECORDS, keep
from experiments.throughput import BUDGETS, Case, measure, write_files
from medssl_jax import cli, cpu
from medssl_jax.errors import UserError
from medssl_jax.machine import cores
from medssl_jax.train.logging import read_json, say

RECORD = "lightly.json"
NEEDED = ("torch", "torchvision", "lightly")
METHODS = ("simclr", "byol")
CASES = {
    "small": tuple(Case(method, "resnet18", 64, 16, "float32") for method in METHODS),
    "full": tuple(Case(method, "resnet50", 224, 128, "bfloat16") for method in METHODS),
}


def main(arguments: Sequence[str]) -> int:
    """Time the cases, record each once it is done, and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=METHODS, choices=METHODS, help="methods; both where nothing is given")
    parser.add_argument("--budget", choices=BUDGETS, default="small", help="small: two CPU cores; full: an accelerator")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of every case")
    parser.add_argument("--record", type=Path, default=RECORDS / RECORD, help="where the numbers are kept")
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: run(asked, shlex.join(["python", "-m", "experiments.lightly", *arguments])))


def run(asked: argparse.Namespace, command: str) -> int:
    """Time and record what is asked for; 0. Raises UserError for no step at all, and where lightly is missing."""
    if asked.steps < 1:
        raise UserError(f"--steps={asked.steps} times nothing; give 1 or more.")
    if missing := [name for name in NEEDED if not importlib.util.find_spec(name)]:
        raise UserError(f"{missing[0]} is not installed; install it with pip install -e '.[speed]'.")
    cpu.settle()
    share_accelerator()
    asked.record.parent.mkdir(parents=True, exist_ok=True)
    for case in CASES[asked.budget]:
        if case.method in asked.only:
            say(f"lightly: {case.name}")
            row = {**compare(case, asked.steps), "device": jax.devices()[0].device_kind, "machine": machine()}
            keep(asked.record, f"{row['device']}: {case.name}", {**row, "command": command, "code": commit.current()})
    print(table(asked.record))
    return 0


def compare(case: Case, steps: int) -> dict[str, Any]:
    """The rates of both. lightly has a process of its own, from which its DataLoader can fork without JAX's threads."""
    ours = measure(case, steps)
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), case.config().data.tile)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            theirs = pool.submit(_lightly, dataclasses.asdict(case), Path(folder), steps, _device()).result()
    return {"case": dataclasses.asdict(case), "medssl_jax": ours["end_to_end"], "augmented": ours["augmented"], "lightly": theirs}


def _lightly(case: dict[str, Any], folder: Path, steps: int, device: str) -> dict[str, float]:
    from experiments import lightly_side

    return lightly_side.measured(case, folder, steps, cores(), device)


def _device() -> str:
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def table(record: Path) -> str:
    """Markdown: a line a case and device."""
    if not record.exists():
        return NOTHING
    rows = read_json(record, dict, "measure again").values()
    parts = []
    for device in dict.fromkeys(row["device"] for row in rows):
        head = ["method, network, px, batch, type", "medssl_jax, images/s", "waiting", "without reading, images/s"]
        lines = [[*head, "lightly, images/s", "waiting", "processes", "medssl_jax / lightly"]]
        lines += [_line(row) for row in rows if row["device"] == device]
        parts += [f"**{device}**", markdown(lines)]
    return "\n\n".join(parts)


def _line(row: dict[str, Any]) -> list[str]:
    ours, theirs = row["medssl_jax"], row["lightly"]
    rates = [f"{ours['images_per_s']:.0f}", f"{ours['waiting']:.0%}", f"{row['augmented']['images_per_s']:.0f}"]
    others = [f"{theirs['images_per_s']:.0f}", f"{theirs['waiting']:.0%}", str(theirs["workers"])]
    return [", ".join(map(str, row["case"].values())), *rates, *others, f"{ours['images_per_s'] / theirs['images_per_s']:.2f}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
