"""What the detector of compound figures is made of: `python -m experiments.run figures-ablation --data=DATASETS [--only ARM]`.

Small trainings with three seeds: every side loss with and without intra-class figures and stretched images, and a control of the side loss.
They are scored on the semi-real figures and on simulated ones of images held out, the same for all. What has a record of the present
options is passed over; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments import commit, semireal
from experiments.cut_tables import EVERY
from experiments.cutters import DETECTOR, TIGHT, Cuts, Sample, cut, learned, summary
from experiments.grid import CONFIGS, REPEATS, digest, options, set_option
from experiments.shares import LEFT_OUT, alone, share
from medssl_jax import cpu, experiment
from medssl_jax.config import validate
from medssl_jax.data.stream import sub_seed
from medssl_jax.errors import UserError
from medssl_jax.figures.detect import Detector
from medssl_jax.figures.pools import open_pools
from medssl_jax.figures.simulate import Figures, Style
from medssl_jax.figures.validate import best_threshold
from medssl_jax.train.logging import read_json, say, write_json
from medssl_jax.train.loop import Interrupted

FOLDER = "figures_ablation"
TRAINED_ON = ("lc25000_histology", "cxr_montgomery", "dsb2018_nuclei", "organamnist/organamnist.npz")
SIMULATED = 128  # figures
CHOSEN_ON = 96  # other figures of the same images, which the threshold of every arm is chosen on: each on its own style would be another
PAIRED = ("imageclef", "iou", "over", "under")  # kept of every figure
DIGITS = 4
COMMON = {
    "figures.size": 192,
    "figures.validation": 64,
    "figures.style.counts": Style().counts,
    "model.width": 24,
    "model.blocks": 1,
    "pretrain.steps": 800,
    "pretrain.eval_every": 800,
    "pretrain.checkpoint_every": 200,
}
DEFAULT, SYMMETRIC = "default", "symmetric"
SIDES: dict[str, Mapping[str, Any]] = {
    "": {},  # scale-free
    "no-side": {"method.side": "none"},
    "original": {"method.side": "original", "method.side_weight": 0.05},
}
INTRA: dict[str, Mapping[str, Any]] = {"": {}, "no-intra": {"figures.style.intra_class": 0.0}}
ASPECT: dict[str, Mapping[str, Any]] = {"": {}, "stretched": {"figures.style.keep_aspect": False}}
FACTORS = (SIDES, INTRA, ASPECT)


def arm_of(*levels: str) -> str:
    """The arm with these levels of the factors, "" for the default's."""
    return "+".join(filter(None, levels)) or DEFAULT


ARMS: dict[str, Mapping[str, Any]] = {
    **{
        arm_of(*levels): {key: value for factor, level in zip(FACTORS, levels) for key, value in factor[level].items()}
        for levels in itertools.product(*FACTORS)
    },
    SYMMETRIC: {"method.side": "symmetric"},
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One training."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its record and its run."""
        return f"{self.arm}-{self.seed}"

    def config(self, data: Path) -> ConfigDict:
        """Its resolved options."""
        config = runpy.run_path(str(CONFIGS / "simcfs.py"))["get_config"]("small")
        for key, value in {**COMMON, **ARMS[self.arm]}.items():
            set_option(config, key, value)
        config.seed = self.seed
        config.data.path = ",".join(str(data / name) for name in TRAINED_ON)
        validate(config)
        return config

    @property
    def training(self) -> dict[str, Any]:
        """The options of its training."""
        return options(self.config(Path()))

    def about(self) -> dict[str, Any]:
        """The options that decide its numbers, and their fingerprint."""
        told = {**self.training, "per_bucket": semireal.PER_BUCKET, "simulated": SIMULATED, "chosen_on": CHOSEN_ON}
        return {"arm": self.arm, "seed": self.seed, "mark": digest(told), "config": told}

    def read(self, records: Path) -> dict[str, Any] | None:
        """Its record, None where there is none of the present options. Raises UserError for one that is damaged."""
        path = records / FOLDER / f"{self.name}.json"
        found = read_json(path, dict, "delete it and measure again") if path.exists() else {}
        return found if found.get("mark") == self.about()["mark"] else None


JOBS = tuple(Job(arm, seed) for seed, arm in itertools.product(range(REPEATS), ARMS))


def start(asked: argparse.Namespace) -> int:
    """Run the trainings of this share that have no record; the exit code. Raises UserError for an arm or a share that does not exist."""
    cpu.settle()
    wanted = chosen(asked.only, asked.shard)
    if asked.list:
        print("\n".join(f"{job.name}: {'missing' if job.read(asked.records) is None else 'recorded'}" for job in wanted))
        return 0
    missing = [asked.data / name for name in (*TRAINED_ON, *semireal.NEEDED) if not (asked.data / name).exists()]
    if missing:
        say(f"figures-ablation: passed over, {missing[0]} does not exist; name the folder of the data sets with --data.")
        return LEFT_OUT
    try:
        done = [_done(job, asked) for job in wanted]
    except Interrupted as reason:
        say(f"Interrupted: {reason}. The same command continues.")
        return reason.code
    return 0 if all(done) else LEFT_OUT


def chosen(only: list[str], shard: str) -> list[Job]:
    """The trainings of this process. Raises UserError for an arm or a share that does not exist."""
    if unknown := [name for name in only if name not in ARMS]:
        raise UserError(f"the table figures-ablation has no {unknown[0]!r}; --only takes {', '.join(ARMS)}.")
    index, count = share(shard)
    return [job for job in JOBS[index - 1 :: count] if not only or job.arm in only]


def _done(job: Job, asked: argparse.Namespace) -> bool:
    """Train, score and record, unless that is done; False, with the reason told, where it cannot be."""
    if job.read(asked.records) is not None:
        return True
    workdir = asked.workdir / FOLDER / f"{job.name}-{digest(job.training)}"
    workdir.parent.mkdir(parents=True, exist_ok=True)
    say(f"figures-ablation: {job.name}.")
    try:
        with alone(workdir.with_suffix(".lock")):
            config, code = job.config(asked.data), commit.of(workdir.with_suffix(".json"))
            if config.compilation_cache:
                jax.config.update("jax_compilation_cache_dir", str(Path(config.compilation_cache).expanduser()))
            experiment.run(config, workdir, f"python -m experiments.run figures-ablation --only {job.arm}")
            record = {**job.about(), "trained_by": code, **_measured(workdir, asked.data)}
        (asked.records / FOLDER).mkdir(parents=True, exist_ok=True)
        write_json(asked.records / FOLDER / f"{job.name}.json", record, indent=None)
    except UserError as error:
        say(f"figures-ablation: {job.name} passed over, {error}")
        return False
    return True


def _measured(workdir: Path, data: Path) -> dict[str, Any]:
    """The scores of a finished training, and how it was made."""
    found = learned(Detector.load(workdir))
    figures = _simulated("threshold", data, CHOSEN_ON)
    sure = best_threshold({f.name: f.boxes for f in figures}, dict(zip([f.name for f in figures], found.find([f.image for f in figures]))))
    ways = {DETECTOR: found._replace(sure=sure)}
    how = read_json(workdir / "summary.json", dict, "delete the run")
    about = {"code": commit.current(), "threshold": sure, **{name: how[name] for name in ("seconds", "device", "versions")}}
    groups = {"semi-real": semireal.groups(semireal.PER_BUCKET), "simulated": {EVERY: [str(i) for i in range(SIMULATED)]}}
    cuts = {name: cut(_samples(name, data), ways) for name in groups}
    return {**about, "sets": {name: {**summary(cuts[name], groups[name]), "by_figure": _by_figure(cuts[name])} for name in groups}}


def _by_figure(cuts: Cuts) -> dict[str, list[float]]:
    """Scores of tight boxes, figure by figure in one order for all; NaN, which JSON keeps as null, where no box matches a panel."""
    rows = cuts.per_figure(TIGHT, DETECTOR).values()
    return {name: [round(row[name], DIGITS) for row in rows] for name in PAIRED}


def _samples(name: str, data: Path) -> list[Sample]:
    return _semireal(data) if name == "semi-real" else _simulated("test", data, SIMULATED)


@functools.lru_cache(maxsize=1)
def _semireal(data: Path) -> list[Sample]:
    return list(semireal.samples(data, semireal.PER_BUCKET))


@functools.lru_cache(maxsize=2)
def _simulated(use: str, data: Path, count: int) -> list[Sample]:
    """Figures of images that were held out, in the default style, made once for all trainings of a process."""
    found = Figures(open_pools(Job(DEFAULT, 0).config(data).data).held_out, Style(), sub_seed(0, f"figures-ablation/{use}"))
    return [Sample(str(i), found[i]["image"], found[i]["boxes"]) for i in range(count)]
