"""Pairs a second of every pretraining method's step, and what bounds it: `python -m experiments.throughput [--only tower] [--budget full]`.

An image gives one pair: two views, or a crop and what was made of it. Each case is timed five times: the step on views that are there
already, with its augmentation on a batch that stays on the device, and as a run does it, on batches of images that are all on the device,
in a packed set, or in PNG files. Where all agree the network bounds the speed; where the last ones fall behind, reading does. SimCFS has
no such step: it learns from simulated figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from experiments import commit
from experiments.grid import CONFIGS, set_option
from experiments.machine import machine
from experiments.pace import WARM_UP, Pace, by_round, in_a_row, whole
from experiments.records import RECORDS, command, keep
from experiments.throughput_table import MADE, READ, RECORD, table
from medssl_jax import cli, cpu, methods
from medssl_jax.config import base, validate
from medssl_jax.data import packing
from medssl_jax.data.references import reference_masks, reference_tiles
from medssl_jax.data.sources import Unlabelled, open_dataset, open_stored
from medssl_jax.data.stream import index_batches
from medssl_jax.data.tiles import TileSource
from medssl_jax.errors import UserError
from medssl_jax.machine import cores
from medssl_jax.pretrain import feed_tiles
from medssl_jax.train import feed, optimizer
from medssl_jax.train import mesh as meshes
from medssl_jax.train.logging import say
from medssl_jax.train.state import State, init_state
from medssl_jax.train.step import example_keys, make_step

CHANNELS, MODALITY = 3, "fluorescence"  # of the made-up images
FILES = 64  # images that batches are read from
REFERENCES = 8  # masks that Shape-guided draws its shapes from; their number does not change a step
BUDGETS = ("small", "full")
SIZES = {"small": "small", "full": "paper"}  # of the configs, by budget
VARIANTS = (*MADE, *READ)

Program = Callable[[State, Any], tuple[State, Any]]


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed: a method and network by their names in the config, pixels of the crops, images of a batch, and what is computed in."""

    method: str
    network: str
    size: int
    batch: int
    dtype: str

    @property
    def name(self) -> str:
        """Its own among all."""
        return "-".join(map(str, dataclasses.astuple(self)))

    def config(self, size: str = "small") -> ConfigDict:
        """The method's config of that size (`small` or `paper`) for this case, its data yet to be named.

        Heads, optimizer and clipping are the config's own, and so is the share of a tile that a crop takes.
        """
        config = runpy.run_path(str(CONFIGS / f"{self.method}.py"))["get_config"](size)
        tile = self.size * config.data.tile // config.views.size
        sizes = {"model.name": self.network, "model.width": 16 if self.network == "unet" else 64, "model.dtype": self.dtype}
        read = {"data.tile": tile, "data.placement": "host", "views.size": self.size, "views.modality": MODALITY}
        for key, value in {**sizes, **read, "pretrain.batch": self.batch}.items():
            set_option(config, key, value)
        validate(config)
        return config


_EVERY = ("tower", "simclr", "byol", "restoration", "spark", "local_discrimination", "shape_guided")
CASES = {
    "small": (
        *(Case(method, "unet", 64, 16, "float32") for method in _EVERY),
        *(Case(method, "resnet18", 64, 16, "float32") for method in ("tower", "simclr")),
    ),
    "full": (
        *(Case(method, "resnet50", 224, batch, "bfloat16") for method in ("simclr", "byol", "tower") for batch in (128, 512)),
        *(Case(method, "resnet18", 224, 256, "bfloat16") for method in ("simclr", "tower")),
        *(Case(method, "unet", 224, 64, "bfloat16") for method in _EVERY),
        Case("simclr", "resnet50", 224, 128, "float32"),
    ),
}


class Given:
    """A method whose views are part of the batch, under `views`; all else is the method's own."""

    def __init__(self, method: methods.Pretraining) -> None:
        self._method = method

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def views(self, keys: jax.Array, batch: Any) -> Any:
        """Those that were made before."""
        return batch["views"]


class Bench:
    """The compiled step of a config, and the inputs that it is timed on, which are kept in `folder`; `counted` is what the compiler counts.

    Inputs that are read take as many threads as there are cores.
    """

    def __init__(self, config: ConfigDict, folder: Path) -> None:
        self.config, self.folder, self.mesh = config, folder, meshes.make_mesh(jax.devices()[:1])
        self.config.data.threads = cores()
        self.warm_up = WARM_UP + cores()
        method, update = methods.build(config, CHANNELS, MODALITY), optimizer.build(config.pretrain.optimizer, config.pretrain.steps)
        self._shapes = self._references() if isinstance(method, methods.ShapeGuided) else None
        batch = next(self._with_shapes(itertools.repeat(self._batch())))
        shapes = meshes.to_devices(self.mesh, {"image": images(1, config.data.tile)})
        start = jax.jit(lambda key: init_state(method, update, key, shapes), out_shardings=meshes.replicated(self.mesh))
        self.state = start(jax.random.key(0))
        look = jax.jit(lambda s, b: method.views(example_keys(s.key, s.step, b["slot"]), b), out_shardings=meshes.along_batch(self.mesh))
        self._stay = {"given": {"views": look(self.state, batch), "slot": batch["slot"]}, "augmented": batch}
        places = jax.tree.map(lambda x: x.sharding, self.state)
        self._given, _ = compiled(make_step(Given(method), update, self.mesh, places), self.state, self._stay["given"])
        self._whole, self.counted = compiled(make_step(method, update, self.mesh, places), self.state, batch)

    def turn(self, variant: str, steps: int) -> Pace:
        """Images a second of steps in a row, and the share of time without a batch."""
        program = self._given if variant == "given" else self._whole
        return in_a_row(lambda batch: self._start(program, batch), self.batches(variant), self.warm_up, steps, self.config.pretrain.batch)

    def alone(self, steps: int) -> list[float]:
        """Milliseconds of each of so many whole steps, every one of which is waited for."""
        found = []
        for _ in range(WARM_UP + steps):
            began = time.perf_counter()
            self._start(self._whole, self._stay["augmented"])()
            found.append(1e3 * (time.perf_counter() - began))
        return found[WARM_UP:]

    def batches(self, variant: str) -> Iterator[Any]:
        """The input of a variant, without end; what is read is read by the run's own pipeline."""
        if variant in MADE:
            return itertools.repeat(self._stay[variant])
        config = self.config.copy_and_resolve_references()
        config.data.path = str(stored(self.folder, config.data.tile, packed=variant == "packed"))
        config.data.placement = "device" if variant == "resident" else "host"
        tiles = TileSource(Unlabelled(open_dataset(config.data).pool), config.data.tile)
        return self._with_shapes(feed_tiles(config, tiles, self.mesh, 0))

    def _start(self, program: Program, batch: Any) -> Callable[[], Any]:
        self.state, logs = program(self.state, batch)
        return lambda: jax.block_until_ready(logs)

    def _batch(self) -> dict[str, jax.Array]:
        count = self.config.pretrain.batch
        made = {"image": images(count, self.config.data.tile), "slot": np.arange(count, dtype=np.int32)}
        return meshes.to_devices(self.mesh, made)

    def _references(self) -> np.ndarray:
        config = self.config.copy_and_resolve_references()
        config.data.path, config.method.references = str(stored(self.folder, config.data.tile)), REFERENCES
        return reference_tiles(reference_masks(config.method, open_dataset(config.data).pool, config.seed), config.data.tile)

    def _with_shapes(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Each batch with as many reference shapes, where the method takes them."""
        if self._shapes is None:
            return batches
        order = index_batches(len(self._shapes), seed=0, global_batch=self.config.pretrain.batch)
        drawn = feed.from_device(self.mesh, {"shape": self._shapes}, order)
        return ({**batch, "shape": shapes["shape"]} for batch, shapes in zip(batches, drawn))


def measure(bench: Bench, steps: int, rounds: int) -> dict[str, Any]:
    """What the variants reach, which take turns, by round; milliseconds of a whole step; and what the compiler counts."""
    turns: dict[str, list[Pace]] = {variant: [] for variant in VARIANTS}
    alone: list[float] = []
    for _ in range(rounds):
        for variant in VARIANTS:
            turns[variant].append(bench.turn(variant, steps))
        alone += bench.alone(steps)
    ms = {"ms": float(np.median(alone)), "p95_ms": float(np.percentile(alone, 95))}
    return {**bench.counted, **{variant: by_round(found) for variant, found in turns.items()}, **ms}


def images(count: int, side: int) -> np.ndarray:
    """Random blocks of 8 px, uint8 [N, S, S, C]."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, side // 8 + 1, side // 8 + 1, CHANNELS), np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)[:, :side, :side]


def compiled(step: Any, *arguments: Any) -> tuple[Program, dict[str, Any]]:
    """The step for these arguments, the seconds that took, and what the compiler counts: bytes held at once, and FLOPs (None: unknown)."""
    began = time.perf_counter()
    program = step.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    memory, cost = program.memory_analysis(), program.cost_analysis() or {}
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return program, {"compile_s": round(seconds, 1), "bytes": int(held), "flops": cost.get("flops")}


def stored(folder: Path, tile: int, packed: bool = False) -> Path:
    """Where in `folder` the images lie, as PNG files of four by four tiles or packed from these; written where they are not there yet."""
    files, out = (folder / f"{kind}-{tile}" for kind in ("files", "packed"))
    if not files.exists():
        files.mkdir(parents=True)
        for i, image in enumerate(images(FILES, 4 * tile)):
            Image.fromarray(image).save(files / f"{i}.png")
    if packed and not out.exists():
        data = base().data
        data.path = str(files)
        packing.pack(packing.Job(open_stored(data), out))
    return out if packed else files


def add_options(parser: argparse.ArgumentParser, record: str) -> None:
    """What can be said about any measurement of whole runs."""
    parser.add_argument("--budget", choices=BUDGETS, default="small", help="small: two CPU cores; full: an accelerator, papers' recipes")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of a turn, rounded up to a multiple of the cores, which read")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each takes")
    parser.add_argument("--record", type=Path, default=RECORDS / record, help="where the numbers are kept")


def conditions(asked: argparse.Namespace, command: str) -> dict[str, Any]:
    """What all rows of a run share, `steps` rounded up and the machine as it is before anything is timed.

    Raises UserError for no step or no round at all.
    """
    for option in ("steps", "rounds"):
        if (count := getattr(asked, option)) < 1:
            raise UserError(f"--{option}={count} times nothing; give 1 or more.")
    asked.record.parent.mkdir(parents=True, exist_ok=True)
    how = {"config": SIZES[asked.budget], "steps": whole(asked.steps, cores()), "rounds": asked.rounds, "readers": cores()}
    return {**how, "machine": machine(), "command": command, "code": commit.current()}


def main(arguments: Sequence[str]) -> int:
    """Time the cases, record each once it is done, and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD", help="methods; all where nothing is given")
    add_options(parser, RECORD)
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: run(asked, command("experiments.throughput", list(arguments))))


def run(asked: argparse.Namespace, command: str) -> int:
    """Time and record what is asked for; 0. Raises UserError for a method that is not timed, and for no step or round at all."""
    known = {case.method for case in CASES[asked.budget]}
    if unknown := [name for name in asked.only if name not in known]:
        raise UserError(f"{unknown[0]!r} is not timed here; --only takes {', '.join(sorted(known))}.")
    how = conditions(asked, command)
    cpu.settle()
    device = jax.devices()[0].device_kind
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES[asked.budget]:
            if not asked.only or case.method in asked.only:
                say(f"throughput: {case.name}")
                found = measure(Bench(case.config(how["config"]), Path(folder)), how["steps"], how["rounds"])
                keep(asked.record, f"{device}: {case.name}", {"case": dataclasses.asdict(case), **found, **how, "device": device})
    print(table(asked.record))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
