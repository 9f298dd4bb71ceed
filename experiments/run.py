"""Run what a table lacks: `python -m experiments.run segmentation --data=DATASETS [--only=tower] [--budget=full] [--shard=1/4]`.

Cells that have a record of the same config are passed over; the others share one pretraining a group (data set, arm, repeat). It may be
stopped, or killed, at any point: the same command goes on. With --shard=i/n, n processes or machines take every n-th group each.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.grid import BUDGETS, REPEATS, TABLES, Group, fingerprint, groups
from experiments.records import RECORDS, Book, Record
from medssl_jax import experiment
from medssl_jax import pretrain as pretraining
from medssl_jax.data.sources import Dataset, open_dataset
from medssl_jax.downstream.compare import Cell, Comparison, colour
from medssl_jax.errors import UserError
from medssl_jax.evaluate import METRICS_VERSION, PROBE_VERSION, baselines
from medssl_jax.memory import keep_pages
from medssl_jax.train.logging import say
from medssl_jax.train.loop import Interrupted, StopRequest
from medssl_jax.train.mesh import make_mesh

CONTROL = "random"  # the arm in whose turn the levels are measured
LEVELS = "levels"  # the arm of what needs no network
LISTED = 20  # chosen images that a record names


def main(arguments: Sequence[str]) -> int:
    """Run the groups that are asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--data", type=Path, default=Path(), help="the folder that holds the data sets, each in a folder of its name")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="data sets and arms; all where nothing is given")
    parser.add_argument("--budget", choices=list(BUDGETS), default="small")
    parser.add_argument("--shard", default="1/1", help="i/n: the i-th of n equal shares of the groups, from 1")
    parser.add_argument("--workdir", type=Path, default=Path("runs/tables"), help="where pretrained networks and checkpoints are kept")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--list", action="store_true", help="say what is missing, and run nothing")
    asked = parser.parse_args(arguments)
    keep_pages()
    try:
        with StopRequest() as stop:
            for group in chosen(asked.table, asked.budget, asked.only, asked.shard):
                run(group, asked.data, asked.workdir, asked.records, stop, listing=asked.list)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as reason:
        say(f"Interrupted: {reason}. The same command continues.")
        return reason.code
    return 0


def chosen(table: str, budget: str, only: Sequence[str], shard: str) -> list[Group]:
    """The groups of this process. Raises UserError for a name that the table does not have, and for a shard that is none."""
    every = list(groups(table, budget))
    names = {name for group in every for name in (group.data.name, group.arm.name)}
    unknown = [name for name in only if name not in names]
    if unknown:
        raise UserError(f"the table {table} has no {unknown[0]!r}; --only takes {', '.join(sorted(names))}.")
    data, arms = ({name for name in only if any(name == getattr(g, part).name for g in every)} for part in ("data", "arm"))
    wanted = [g for g in every if (not data or g.data.name in data) and (not arms or g.arm.name in arms)]
    try:
        index, count = (int(part) for part in shard.split("/"))
    except ValueError:
        index = count = 0
    if not 1 <= index <= count:
        raise UserError(f"--shard={shard} is not a share; write --shard=2/4 for the second of four.")
    return wanted[index - 1 :: count]


def run(group: Group, data: Path, workdir: Path, records: Path, stop: StopRequest, listing: bool = False) -> None:
    """Run and record the cells of a group that have no record; says so where its data set is not there."""
    config = group.config(data)
    book, mark = Book(group.data.name, group.arm.name, group.budget, records), fingerprint(config)
    known = book.known(mark)
    missing = [cell for cell in group.cells() if group.key(cell) not in known]
    title = f"{group.data.name}, {group.arm.name}, repeat {group.repeat}"
    if not missing or listing:
        say(f"{title}: {len(missing)} of {len(group.cells())} cells are missing.")
        return
    if config.data.path and not Path(config.data.path).exists():
        say(f"{title}: passed over, {config.data.path} does not exist; name the folder of the data sets with --data.")
        return
    say(f"{title}: {len(missing)} cells to run.")
    if group.arm.name == CONTROL:
        levels(group, data, records)
    compare(group, config, workdir / group.budget / group.data.name, missing, book, stop)


def compare(group: Group, config: ConfigDict, home: Path, cells: list[Cell], book: Book, stop: StopRequest) -> None:
    """Pretrain, or take the pretraining that is below `home`, and fine-tune; each cell is recorded as soon as it is done."""
    mesh, dataset = make_mesh(), held(config.data.to_json())
    if config.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compilation_cache).expanduser()))
    pretraining.check(config, dataset, mesh)
    folders = [home / f"{step}-{config.method.name}-{group.repeat}-{mark}" for step, mark in marks(config).items()]
    for folder in folders:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    pretrained = pretraining.pretrain(config, dataset, mesh, folders[0], stop)
    comparison = Comparison(config, dataset, experiment.build_task(config, dataset), pretrained.parts, mesh, folders[1])
    about = {**_about(group), "config": fingerprint(config), "device": jax.devices()[0].device_kind, "versions": _versions()}
    about["pretraining"] = {"seconds": round(pretrained.seconds, 1), "warnings": list(pretrained.warnings)}
    for cell in cells:
        (record,) = comparison.run([cell], stop)
        book.write([{**about, **_kept(record), "init": group.name(cell.init)}], json.loads(config.to_json()))


def marks(config: ConfigDict) -> dict[str, str]:
    """The fingerprints of what a group leaves in its working directory: a pretraining may serve several arms."""
    return {"pretrain": fingerprint(config, pretraining=True), "cells": fingerprint(config)}


@functools.lru_cache(maxsize=1)
def held(options: str) -> Dataset:
    """The data set of the options under config.data (JSON), every image read once and kept in memory."""
    dataset = open_dataset(ConfigDict(json.loads(options, object_hook=_tuples)))
    pool, val, test = ([source[i] for i in range(len(source))] for source in (dataset.pool, dataset.val, dataset.test))
    return dataclasses.replace(dataset, pool=pool, val=val, test=test)


def _tuples(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()}


def _kept(record: Record) -> Record:
    """A fine-tuning's record as it is kept: long lists of the images that were chosen, which can be computed again, as their number."""
    choice = {name: value for name, value in record["choice"].items() if not isinstance(value, list) or len(value) <= LISTED}
    return {**record, "choice": choice, "seconds": round(record["seconds"], 1)}


def levels(group: Group, data: Path, records: Path) -> None:
    """Record what needs no network, or no learning at all, on a group's data set."""
    config = group.config(data)
    book, mark = Book(group.data.name, LEVELS, group.budget, records), fingerprint(config)
    if book.known(mark):
        return
    dataset, found = held(config.data.to_json()), dict[tuple, Record]()
    cells = [dataclasses.replace(cell, subset=repeat) for cell in group.cells() for repeat in range(REPEATS)]
    for row in [*baselines.levels(dataset), *colour(config, dataset, cells)]:
        place = {name: row[name] for name in ("init", "labels", "label_unit", "subset", "n")}
        found.setdefault(tuple(place.values()), {**place, "metrics": {}})["metrics"][row["metric"]] = row["value"]
    about = {"dataset": group.data.name, "arm": LEVELS, "seed": 0, "budget": group.budget, "config": mark, "versions": _versions()}
    book.write([{**about, **record} for record in found.values()], json.loads(config.to_json()))


def _about(group: Group) -> dict[str, Any]:
    return {"dataset": group.data.name, "arm": group.arm.name, "seed": group.repeat, "budget": group.budget}


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("medssl_jax", "jax", "flax", "optax")}
    return {**packages, "code": _commit(), "metrics": METRICS_VERSION, "probes": PROBE_VERSION}


@functools.cache
def _commit() -> str:
    """The commit of this checkout, with `-dirty` where files were changed; "" where there is none."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return told.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
