"""Run what a table lacks: `python -m experiments.run segmentation --data=DATASETS [--only tower] [--budget=full] [--shard=1/4]`.

Cells that have a record of the same config are passed over; the others share one pretraining a group (data set, arm, repeat). It may be
stopped, or killed, at any point: the same command goes on. With --shard=i/n, n processes or machines take a share of the pretrainings each.
The tables of compound figures are no fine-tunings, and measured by `compound`, `figures_ablation` and `figures_speed`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import jax
from ml_collections import ConfigDict

from experiments import commit, compound, figures_ablation, figures_speed, mining, semireal
from experiments.grid import BUDGETS, REPEATS, TABLES, Group, digest, groups
from experiments.held import held
from experiments.records import RECORDS, Record, key
from experiments.shares import LEFT_OUT, alone, share
from medssl_jax import cli, cpu, experiment
from medssl_jax import pretrain as pretraining
from medssl_jax.data.sources import Dataset, open_dataset
from medssl_jax.downstream.compare import Cell, Comparison, colour
from medssl_jax.errors import UserError
from medssl_jax.evaluate import baselines
from medssl_jax.machine import cores
from medssl_jax.train.logging import say
from medssl_jax.train.loop import Interrupted, StopRequest
from medssl_jax.train.mesh import make_mesh

CONTROL = "random"  # the arm in whose turn the levels are measured
LISTED = 20  # chosen images that a record names
OTHERS: dict[str, Callable[[argparse.Namespace], int]] = {  # tables that are no fine-tunings
    "figures": compound.start,
    "figures-ablation": figures_ablation.start,
    "figures-speed": figures_speed.start,
}
WITH_A_DETECTOR = ("figures", "figures-speed", "mining")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where data sets, records and pretrained networks lie."""

    data: Path
    records: Path
    workdir: Path
    detector: Path | None = None  # a run of configs/simcfs.py that cuts figures; None for the detector that ships


def main(arguments: Sequence[str]) -> int:
    """Run the groups that are asked for; the exit code: 0 where nothing is missing any more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=[*TABLES, *OTHERS], help="which table of experiments/README.md")
    parser.add_argument("--data", type=Path, default=Path(), help="the folder that holds the data sets, each in a folder of its name")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="data sets, arms or parts; all where nothing is given")
    parser.add_argument("--budget", choices=list(BUDGETS), default="small", help="small: two CPU cores; full: an accelerator")
    parser.add_argument("--shard", default="1/1", help="i/n: the i-th of n shares of the work, from 1")
    parser.add_argument("--workdir", type=Path, default=Path("runs/tables"), help="where pretrained networks and checkpoints are kept")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where results are kept; those of the project where nothing is given")
    parser.add_argument("--list", action="store_true", help="print what is missing, and run nothing")
    parser.add_argument("--run", type=Path, help="of figures, figures-speed and mining: a run of configs/simcfs.py, whose detector is used")
    parser.add_argument("--per-bucket", type=int, default=semireal.PER_BUCKET, help="of figures: semi-real figures of each of 18 buckets")
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: dispatch(asked))


def dispatch(asked: argparse.Namespace) -> int:
    """Hand the arguments to the table's own command; the exit code. Raises UserError for an option that means nothing to it."""
    if asked.run is not None and asked.table not in WITH_A_DETECTOR:
        raise UserError(f"--run={asked.run} means nothing to the table {asked.table}, which trains its own networks; leave it out.")
    if asked.per_bucket != semireal.PER_BUCKET and asked.table != "figures":
        raise UserError(f"--per-bucket={asked.per_bucket} means nothing to the table {asked.table}; leave it out.")
    if asked.table not in OTHERS:
        return start(asked)
    if asked.budget != "small":
        raise UserError(f"--budget={asked.budget} means nothing to the table {asked.table}; leave it out.")
    return OTHERS[asked.table](asked)


def start(asked: argparse.Namespace) -> int:
    """Run or list what the arguments ask for of a table of fine-tunings; the exit code."""
    cpu.settle()
    wanted = chosen(asked.table, asked.budget, asked.only, asked.shard)
    if asked.list:
        print(
            "\n".join(f"{title(group)}: {len(missing(group, asked.records))} of {len(group.cells())} cells are missing" for group in wanted)
        )
        return 0
    place = Place(asked.data, asked.records, asked.workdir / asked.budget, asked.run)
    for folder in (place.records, place.workdir):
        folder.mkdir(parents=True, exist_ok=True)
    left = 0
    try:
        with StopRequest() as stop:
            for group in wanted:
                left += not run(group, place, stop)
    except Interrupted as reason:
        say(f"Interrupted: {reason}. The same command continues.")
        return reason.code
    if left:
        say(f"{left} of {len(wanted)} groups could not be run; the reasons stand above.")
    return LEFT_OUT if left else 0


def chosen(table: str, budget: str, only: Sequence[str], shard: str) -> list[Group]:
    """The groups of this process, whole pretrainings at a time. Raises UserError for a name that the table does not have, for a shard
    that is none, and where nothing is left.
    """
    every = list(groups(table, budget))
    parts = [{getattr(group, part).name for group in every} for part in ("data", "arm")]
    unknown = [name for name in only if name not in parts[0] | parts[1]]
    if unknown:
        raise UserError(f"the table {table} has no {unknown[0]!r}; --only takes {', '.join(sorted(parts[0] | parts[1]))}.")
    index, count = share(shard)
    turn = {key: number for number, key in enumerate(dict.fromkeys(group.pretraining for group in every))}
    data, arms = ([name for name in only if name in names] for names in parts)
    mine = [group for group in every if turn[group.pretraining] % count == index - 1]
    wanted = [g for g in mine if (not data or g.data.name in data) and (not arms or g.arm.name in arms)]
    if not wanted:
        raise UserError(f"the table {table} has no group of {', '.join(only) or 'that kind'} in the share {shard}; ask for another.")
    return wanted


def title(group: Group) -> str:
    """Which group, for a person."""
    return f"{group.data.name}, {group.arm.name}, repeat {group.repeat}"


def missing(group: Group, records: Path, detector: str = "") -> list[Cell]:
    """The cells of a group that have no record, or one of another detector where its mark is given."""
    known = {key(record) for record in group.book(records).read() if not detector or record["pool"]["detector"] == detector}
    return [cell for cell in group.cells() if group.key(cell) not in known]


def run(group: Group, place: Place, stop: StopRequest) -> bool:
    """Run and record what a group lacks; False, with the reason told, where that cannot be done."""
    cells = missing(group, place.records, mining.mark(group, place.detector))
    config = group.config(place.data)
    levelled = group.arm.name != CONTROL or group.levels(place.records).read()
    if not cells and levelled:
        return True
    if config.data.path and not Path(config.data.path).exists():
        say(f"{title(group)}: passed over, {config.data.path} does not exist; name the folder of the data sets with --data.")
        return False
    say(f"{title(group)}: {len(cells)} cells to run.")
    try:
        with alone(place.workdir / f"{'-'.join(map(str, group.pretraining))}.lock"):
            dataset = labelled(group, config)
            if not levelled:
                levels(group, dataset, config, place.records)
            if cells:
                compare(group, dataset, config, cells, place, stop)
    except UserError as error:
        say(f"{title(group)}: passed over, {error}")
        return False
    return True


def compare(group: Group, dataset: Dataset, config: ConfigDict, cells: list[Cell], place: Place, stop: StopRequest) -> None:
    """Pretrain, or take the pretraining that is below the working directory, and fine-tune; each cell is recorded once it is done."""
    mesh, book = make_mesh(), group.book(place.records)
    if config.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compilation_cache).expanduser()))
    detector = mining.mark(group, place.detector)
    seen = mining.pool(group, opened(config.data.to_json()), config, place.workdir, place.detector, stop) if group.arm.pool else dataset
    pretraining.check(config, seen, mesh)
    experiment.check(config, dataset, mesh)
    names = tuple(filter(None, (*map(str, group.pretraining), detector)))
    source, home = (place.workdir / "-".join(parts) for parts in (names, (*names, "cells", book.mark)))
    for folder in (source, home):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    pretrained = pretraining.pretrain(config, seen, mesh, source, stop)
    comparison = Comparison(config, dataset, experiment.build_task(config, dataset), pretrained.parts, mesh, home)
    about = {
        "data": dataset_digest(config.data.to_json()),
        "device": jax.devices()[0].device_kind,
        "cores": cores(),
        "versions": versions(),
    }
    about["pretraining"] = {
        "seconds": round(pretrained.seconds, 1),
        "warnings": list(pretrained.warnings),
        "code": commit.of(source / "code.json"),
    }
    if group.arm.pool:
        about["pool"] = {"images": len(seen.pool), "detector": detector}

    def record(cell: Cell) -> None:
        book.add({**_kept(comparison.record(cell)), **about, "init": group.name(cell.init)})

    for cell in cells:  # what an earlier process left without recording it may be of another version
        comparison.forget(cell)
    comparison.run(cells, stop, record)


def _kept(record: Record) -> Record:
    """A fine-tuning's record as it is kept: without long lists of the images that were chosen, which can be computed again."""
    choice = {name: value for name, value in record["choice"].items() if not isinstance(value, list) or len(value) <= LISTED}
    return {**record, "choice": choice, "seconds": round(record["seconds"], 1)}


def levels(group: Group, dataset: Dataset, config: ConfigDict, records: Path) -> None:
    """Record what needs no network, or no learning at all, on a group's data set, at all amounts and repeats."""
    found: dict[tuple, Record] = {}
    cells = [dataclasses.replace(cell, subset=repeat) for cell in group.cells() for repeat in range(REPEATS)]
    for row in [*baselines.levels(dataset), *colour(config, dataset, cells)]:
        spot = {name: row[name] for name in ("init", "labels", "label_unit", "subset", "n")}
        found.setdefault(tuple(spot.values()), {**spot, "metrics": {}})["metrics"][row["metric"]] = row["value"]
    about = {"data": dataset_digest(config.data.to_json()), "versions": versions()}
    group.levels(records).add(*({**record, **about} for record in found.values()))


def labelled(group: Group, config: ConfigDict) -> Dataset:
    """The data set that the group's networks are fine-tuned and tested on."""
    dataset = opened(config.data.to_json())
    return mining.labelled(dataset, group.data.mining) if group.data.mining else dataset


@functools.lru_cache(maxsize=1)
def opened(options: str) -> Dataset:
    """The data set of the options under config.data (JSON), every image read once and kept in memory."""
    return held(open_dataset(ConfigDict(cli.from_json(options))))


@functools.lru_cache(maxsize=16)
def dataset_digest(options: str) -> str:
    """What tells one state of a data set from another: the fingerprints of all its images."""
    dataset = opened(options)
    return digest([word for part in (dataset.pool, dataset.val, dataset.test) for word in pretraining.fingerprints(part)])


def versions() -> dict[str, str]:
    """Of the packages, and of this code."""
    return {**{name: version(name) for name in ("medssl_jax", "jax", "flax", "optax")}, "code": commit.current()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
