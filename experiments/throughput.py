"""Images a second of every method's train step, and what bounds it: `python -m experiments.throughput [--only tower] [--budget full]`.

Each case is timed three times: the step on views that are there already, with its augmentation on a batch that stays on the device, and as
a run does it, batches read from image files. Where the three agree the network bounds the speed; where the last falls behind, reading does.
"""

from __future__ import annotations

import argparse
import dataclasses
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
from experiments.cut_tables import NOTHING, markdown
from experiments.grid import CONFIGS, set_option
from experiments.machine import machine
from experiments.records import RECORDS, keep
from medssl_jax import cli, cpu, methods
from medssl_jax.config import validate
from medssl_jax.data.sources import Unlabelled, open_dataset
from medssl_jax.data.tiles import TileSource
from medssl_jax.errors import UserError
from medssl_jax.pretrain import feed_tiles
from medssl_jax.train import mesh as meshes
from medssl_jax.train import optimizer
from medssl_jax.train.logging import read_json, say
from medssl_jax.train.state import State, init_state
from medssl_jax.train.step import example_keys, make_step

RECORD = "throughput.json"
CHANNELS, MODALITY = 3, "fluorescence"  # of the made-up images
PEAKS = {("NVIDIA H200", "bfloat16"): 989e12}  # FLOP/s without sparsity, as published
WARM_UP = 3  # steps that are not timed
FILES = 64  # images that batches are read from
BUDGETS = ("small", "full")
VARIANTS = {"synthetic": "views given", "augmented": "with augmentation", "end_to_end": "read from files"}

Step = Callable[[State, Any], tuple[State, Any]]


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

    def config(self) -> ConfigDict:
        """The method's config with these sizes, its data yet to be named."""
        config = runpy.run_path(str(CONFIGS / f"{self.method}.py"))["get_config"]("small")
        sizes = {"model.name": self.network, "model.width": 16 if self.network == "unet" else 64, "model.dtype": self.dtype}
        read = {"data.tile": self.size * 5 // 4, "data.placement": "host", "views.size": self.size, "views.modality": MODALITY}
        for key, value in {**sizes, **read, "pretrain.batch": self.batch}.items():
            set_option(config, key, value)
        validate(config)
        return config


_EVERY = ("tower", "simclr", "byol", "restoration", "spark", "local_discrimination")
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


def measure(case: Case, steps: int) -> dict[str, Any]:
    """Its row: milliseconds, images a second, compile time, memory and FLOPs of a step, and the share of time that reading made it wait."""
    config, mesh = case.config(), meshes.make_mesh(jax.devices()[:1])
    method, update = methods.build(config, CHANNELS, MODALITY), optimizer.build(config.pretrain.optimizer, config.pretrain.steps)
    batch = meshes.to_devices(mesh, {"image": images(case.batch, config.data.tile), "slot": np.arange(case.batch, dtype=np.int32)})
    start = jax.jit(lambda key: init_state(method, update, key, batch), out_shardings=meshes.replicated(mesh))
    states = [start(jax.random.key(0)) for _ in range(2)]  # donated, each to its own step
    places = jax.tree.map(lambda x: x.sharding, states[0])
    look = jax.jit(lambda s: method.views(example_keys(s.key, s.step, batch["slot"]), batch), out_shardings=meshes.along_batch(mesh))
    ready = {"views": look(states[0]), "slot": batch["slot"]}
    given, _ = compiled(make_step(Given(method), update, mesh, places), states[0], ready)
    full, found = compiled(make_step(method, update, mesh, places), states[1], batch)
    found["synthetic"], _ = _timed(given, states[0], iter(lambda: ready, None), steps, case.batch)
    found["augmented"], state = _timed(full, states[1], iter(lambda: batch, None), steps, case.batch)
    with tempfile.TemporaryDirectory() as folder:
        found["end_to_end"], _ = _timed(full, state, read_files(config, Path(folder), mesh), steps, case.batch)
    return {"case": dataclasses.asdict(case), **found}


def images(count: int, side: int) -> np.ndarray:
    """Random blocks of 8 px, uint8 [N, S, S, C]."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, side // 8 + 1, side // 8 + 1, CHANNELS), np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)[:, :side, :side]


def compiled(step: Any, *arguments: Any) -> tuple[Step, dict[str, Any]]:
    """The step for these arguments, the seconds that took, and what the compiler counts: bytes held at once, and FLOPs (None: unknown)."""
    began = time.perf_counter()
    program = step.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    memory, cost = program.memory_analysis(), program.cost_analysis() or {}
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return program, {"compile_s": round(seconds, 1), "bytes": int(held), "flops": cost.get("flops")}


def _timed(step: Step, state: State, batches: Iterator[Any], steps: int, images: int) -> tuple[dict[str, float], State]:
    """Milliseconds of a step that is waited for, images a second of steps in a row, and the share of time without a batch."""
    for _ in range(WARM_UP):
        state, logs = step(state, next(batches))
    jax.block_until_ready(logs)
    alone, waited = [], 0.0
    for _ in range(steps):
        batch, began = next(batches), time.perf_counter()
        state, logs = step(state, batch)
        jax.block_until_ready((state.params, logs))
        alone.append(1e3 * (time.perf_counter() - began))
    began = time.perf_counter()
    for _ in range(steps):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        state, logs = step(state, batch)
    jax.block_until_ready((state.params, logs))
    seconds = time.perf_counter() - began
    ms = {"ms": float(np.median(alone)), "p95_ms": float(np.percentile(alone, 95))}
    return {**ms, "images_per_s": steps * images / seconds, "waiting": waited / seconds}, state


def read_files(config: ConfigDict, folder: Path, mesh: jax.sharding.Mesh) -> Iterator[Any]:
    """Batches of tiles of image files, by the run's own pipeline."""
    write_files(folder, config.data.tile)
    config.data.path = str(folder)
    tiles = TileSource(Unlabelled(open_dataset(config.data).pool), config.data.tile)
    return feed_tiles(config, tiles, mesh, 0)


def write_files(folder: Path, tile: int) -> None:
    """The image files, PNG, each of four by four tiles."""
    for i, image in enumerate(images(FILES, 4 * tile)):
        Image.fromarray(image).save(folder / f"{i}.png")


def main(arguments: Sequence[str]) -> int:
    """Time the cases, record each once it is done, and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD", help="methods; all where nothing is given")
    parser.add_argument("--budget", choices=BUDGETS, default="small", help="small: two CPU cores; full: an accelerator")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of every case and variant")
    parser.add_argument("--record", type=Path, default=RECORDS / RECORD, help="where the numbers are kept")
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: run(asked))


def run(asked: argparse.Namespace) -> int:
    """Time and record what is asked for; 0. Raises UserError for a method that is not timed, and for no step at all."""
    cpu.settle()
    known = {case.method for case in CASES[asked.budget]}
    if unknown := [name for name in asked.only if name not in known]:
        raise UserError(f"{unknown[0]!r} is not timed here; --only takes {', '.join(sorted(known))}.")
    if asked.steps < 1:
        raise UserError(f"--steps={asked.steps} times nothing; give 1 or more.")
    asked.record.parent.mkdir(parents=True, exist_ok=True)
    device = jax.devices()[0].device_kind
    for case in CASES[asked.budget]:
        if not asked.only or case.method in asked.only:
            say(f"throughput: {case.name}")
            row = {**measure(case, asked.steps), "device": device, "machine": machine(), "code": commit.current()}
            keep(asked.record, f"{device}: {case.name}", row)
    print(table(asked.record))
    return 0


def table(record: Path) -> str:
    """Markdown: a line a case and device."""
    if not record.exists():
        return NOTHING
    rows = read_json(record, dict, "measure again").values()
    head = ["method, network, px, batch, type", *(f"images/s, {title}" for title in VARIANTS.values()), "waiting"]
    parts = []
    for device in dict.fromkeys(row["device"] for row in rows):
        lines = [[*head, "ms a step (p95)", "GFLOP", "TFLOP/s", "of the peak", "GiB", "compiled in s"]]
        lines += [_line(row) for row in rows if row["device"] == device]
        parts += [f"**{device}**", markdown(lines)]
    return "\n\n".join(parts)


def _line(row: dict[str, Any]) -> list[str]:
    case, whole, rates = row["case"], row["augmented"], [f"{row[name]['images_per_s']:.0f}" for name in VARIANTS]
    per_s = row["flops"] and row["flops"] * whole["images_per_s"] / case["batch"]
    peak = PEAKS.get((row["device"], case["dtype"]))
    counted = [f"{row['flops'] / 1e9:.1f}", f"{per_s / 1e12:.2f}"] if per_s else ["-", "-"]
    share = f"{per_s / peak:.1%}" if per_s and peak else "-"
    first = [
        ", ".join(map(str, case.values())),
        *rates,
        f"{row['end_to_end']['waiting']:.0%}",
        f"{whole['ms']:.1f} ({whole['p95_ms']:.1f})",
    ]
    return [*first, *counted, share, f"{row['bytes'] / 2**30:.2f}", f"{row['compile_s']:.0f}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
