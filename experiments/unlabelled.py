"""Vessels and lungs without a label: `python -m experiments.unlabelled --data=DATASETS [--only chase_db1 guided] [--seeds=3]`.

Each run pretrains with configs/shape_guided.py, marks all images, and trains the same network on all labels beside it, as a ceiling. Runs
that have a record are passed over.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import commit
from experiments.grid import CONFIGS, set_option
from experiments.records import RECORDS
from medssl_jax import cli, cpu, experiment
from medssl_jax.config import flat, validate
from medssl_jax.evaluate import METRICS_VERSION, baselines
from medssl_jax.report.words import arm as arm_title
from medssl_jax.train.logging import read_json, say, write_json
from medssl_jax.train.loop import Interrupted

FOLDER = "unlabelled"
DARK = {"method.tone": "dark"}  # one thing that is told beside the shape, as a ridge filter and a threshold are told it
VESSELS = {
    "data.resize": 384,
    "data.tile": 96,
    "views.modality": "fundus",
    "model.norm": "group",
    "method.shapes": "vessels",
    "method.poses": "all",
}
LUNGS = {"data.resize": 64, "data.tile": 64, "views.modality": "xray", "method.shapes": "lungs"}
LONGER = {"method.fit": 5.0, "method.fit_sigma": 6.0, "pretrain.steps": 4000}  # chosen on validation images, as fit 1 for the lungs
SETS: dict[str, Mapping[str, Any]] = {
    "chase_db1": {**VESSELS, **DARK, **LONGER},
    "cxr_montgomery": {**LUNGS, **DARK, "method.fit": 1.0},
}
ARMS: dict[str, Mapping[str, Any]] = {
    "guided": {},
    "no fit": {"method.fit": 0.0},
    "linear discriminator": {"method.discriminator_slope": 1.0},
}
COMMON = {"finetune.steps": 900, "finetune.eval_every": 100, "finetune.seeds": 1, "finetune.labels": "all", "finetune.inits": "random"}
CEILING = "random"


def main(arguments: Sequence[str]) -> int:
    """Run what has no record, and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the data sets, each in a folder of its name")
    parser.add_argument("--only", nargs="+", default=[], choices=[*SETS, *ARMS], metavar="NAME", help="data sets, arms or both")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, with the seeds 0, 1, ...")
    parser.add_argument("--workdir", type=Path, default=Path("runs/unlabelled"), help="where the runs are kept")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where results are kept; those of the project where nothing is given")
    return cli.guarded(lambda: start(parser.parse_args(arguments)))


def start(asked: argparse.Namespace) -> int:
    """The exit code; raises UserError for what a run refuses."""
    cpu.settle()
    for dataset, arm, seed in _wanted(asked.only, asked.seeds):
        record, workdir = asked.records / FOLDER / f"{dataset}-{_file(arm)}-{seed}.json", asked.workdir / f"{dataset}-{_file(arm)}-{seed}"
        if record.exists():
            continue
        config = resolved(dataset, arm, seed, asked.data)
        if config.compilation_cache:
            jax.config.update("jax_compilation_cache_dir", str(Path(config.compilation_cache).expanduser()))
        say(f"{dataset}, {arm}, seed {seed}.")
        try:
            experiment.run(config, workdir, f"python -m experiments.unlabelled --only {dataset} '{arm}'")
        except Interrupted as reason:
            say(f"Interrupted: {reason}. The same command continues.")
            return reason.code
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, _kept(config, workdir, arm))
    print(table(asked.records))
    return 0


def resolved(dataset: str, arm: str, seed: int, data: Path) -> ConfigDict:
    """The config of a run."""
    config = runpy.run_path(str(CONFIGS / "shape_guided.py"))["get_config"]("small")
    for key, value in {**COMMON, **SETS[dataset], **ARMS[arm]}.items():
        set_option(config, key, value)
    config.seed, config.data.path = seed, str(data / dataset)
    validate(config)
    return config


def table(records: Path) -> str:
    """Markdown: Dice on test images, mean ± standard deviation over seeds, a line a way to segment."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for path in sorted((records / FOLDER).glob("*.json")):
        told = read_json(path, dict, "delete it and measure again")
        for init, dice in told["dice"].items():
            own = init.startswith("shape_guided")
            found.setdefault((told["dataset"], told["arm"] if own else "", init), []).append(dice)
    lines = [["data set", "arm", "segmented by", "Dice"], ["---", "---", "---", "---:"]]
    for (dataset, arm, init), values in sorted(found.items()):
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        name = "the same network taught with all labels" if init == CEILING else arm_title(init)
        lines.append([dataset, arm or "-", name, f"{np.mean(values):.3f}{spread} ({len(values)})"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if found else "Nothing is recorded yet."


def _wanted(only: Sequence[str], seeds: int) -> Iterator[tuple[str, str, int]]:
    """Data set, arm and seed of each run; the first seed of all before the second."""
    sets, arms = ([name for name in names if name in only] or list(names) for names in (SETS, ARMS))
    return ((dataset, arm, seed) for seed in range(seeds) for arm in arms for dataset in sets)


def _file(arm: str) -> str:
    return arm.replace(" ", "_")


def _kept(config: ConfigDict, workdir: Path, arm: str) -> dict[str, Any]:
    """What is recorded of a run: its options, its scores, the version of the code and of the metrics."""
    rows = json.loads((workdir / "results.json").read_text())
    wanted = [row for row in rows if row["metric"] == "dice" and row["init"] != baselines.ALL_FOREGROUND]
    options = {key: value for key, value in flat(config).items() if key != "data.path"}
    about = {"dataset": wanted[0]["dataset"], "arm": arm, "seed": config.seed, "code": commit.current(), "metrics": METRICS_VERSION}
    seconds = json.loads((workdir / "summary.json").read_text())["seconds"]
    return {**about, "dice": {row["init"]: row["value"] for row in wanted}, "seconds": seconds, "config": options}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
