"""Milliseconds that a train step takes, beside the same step in PyTorch: `python -m experiments.speed` (see README.md).

Both run in one process and take turns, so that both see the same machine. PyTorch is optional: `pip install medssl_jax[speed]`.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from configs import simclr, tower
from experiments.machine import machine
from medssl_jax import cli, methods
from medssl_jax.config import validate
from medssl_jax.errors import UserError
from medssl_jax.memory import keep_pages
from medssl_jax.train import mesh as meshes
from medssl_jax.train import optimizer
from medssl_jax.train.state import init_state
from medssl_jax.train.step import example_keys, make_step

STEPS = flags.DEFINE_integer("steps", 20, "Timed steps of every stage in a round.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns that each framework takes.", lower_bound=1)
OUT = flags.DEFINE_string("record", None, "A .json file to write the result to.")

STAGES = ("augmentation", "forward", "forward+backward", "full step")
CHANNELS, MODALITY, DTYPE = 1, "brightfield", np.uint16  # the built-in sample's
VIEWS = {"tower": ("clean", "corrupted"), "simclr": ("first", "second")}  # in the order that the twin's loss takes them
WARM_UP = 3  # steps that are not timed
SAME_LOSS = 1e-3  # relative difference of the two frameworks' losses of the same parameters and views

Runs = dict[str, Callable[[], Any]]


class JaxSide:
    """The project's own step and its stages, compiled for `config`."""

    def __init__(self, config: ConfigDict) -> None:
        mesh = meshes.make_mesh(jax.devices()[:1])
        method, update = methods.build(config, CHANNELS, MODALITY), optimizer.build(config.pretrain.optimizer, config.pretrain.steps)
        slots = np.arange(config.pretrain.batch, dtype=np.int32)
        self.compile_s: dict[str, float] = {}
        self.batch = meshes.to_devices(mesh, {"image": images(config), "slot": slots})
        start = jax.jit(lambda key: init_state(method, update, key, self.batch), out_shardings=meshes.replicated(mesh))
        self.state, self.donated = start(jax.random.key(0)), start(jax.random.key(0))
        places = jax.tree.map(lambda x: x.sharding, self.state)
        look = jax.jit(lambda state, batch: method.views(example_keys(state.key, state.step, batch["slot"]), batch))
        self.augment = self._compile("augmentation", look, self.state, self.batch)
        self.views = self.augment(self.state, self.batch)
        self.inputs = (self.state.params, self.state.carried, self.views, self.state.step)
        self.forward = self._compile("forward", jax.jit(method.loss), *self.inputs)
        self.backward = self._compile("forward+backward", jax.jit(jax.value_and_grad(method.loss, has_aux=True)), *self.inputs)
        self.step = self._compile("full step", make_step(method, update, mesh, places), self.donated, self.batch)

    def runs(self) -> Runs:
        """The stages, each blocking until it is done."""
        calls: Runs = {
            "augmentation": lambda: self.augment(self.state, self.batch),
            "forward": lambda: self.forward(*self.inputs),
            "forward+backward": lambda: self.backward(*self.inputs),
            "full step": self._full,
        }
        return {stage: partial(_blocking, call) for stage, call in calls.items()}

    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(x.size for x in jax.tree.leaves(self.state.params))

    def _full(self) -> Any:
        self.donated, logs = self.step(self.donated, self.batch)
        return self.donated.params, logs

    def _compile(self, stage: str, function: Any, *arguments: Any) -> Callable:
        began = time.perf_counter()
        compiled = function.lower(*arguments).compile()
        self.compile_s[stage] = round(time.perf_counter() - began, 2)
        return compiled


def _blocking(call: Callable[[], Any]) -> None:
    jax.block_until_ready(call())


def images(config: ConfigDict) -> np.ndarray:
    """A batch of random blocks of 4 px, uint16 [B, T, T, 1]."""
    side = config.data.tile
    coarse = np.random.default_rng(0).random((config.pretrain.batch, side // 4 + 1, side // 4 + 1, CHANNELS))
    return (coarse.repeat(4, 1).repeat(4, 2)[:, :side, :side] * np.iinfo(DTYPE).max).astype(DTYPE)


def torch_sides(config: ConfigDict, ours: JaxSide) -> dict[str, Runs]:
    """The twin's stages, by memory layout; {} with a sentence where PyTorch is missing or JAX is not on the CPU.

    Raises UserError for a config without a twin, and where the twin does not do the same work.
    """
    if not importlib.util.find_spec("torch"):
        print("PyTorch is not installed, so JAX is timed alone; pip install torch for the comparison.")
        return {}
    if jax.default_backend() != "cpu":
        print(f"JAX runs on {jax.default_backend()} and the PyTorch twin on the CPU, so JAX is timed alone.")
        return {}
    from experiments.torch_twin import LAYOUTS, TorchSide, check, load

    check(config)
    recipe, names = methods.view_recipe(config, CHANNELS, MODALITY), VIEWS[config.method.name]
    found = {}
    for layout in LAYOUTS:
        side = TorchSide(config, recipe, np.asarray(ours.batch["image"]), [np.asarray(ours.views[name]) for name in names], layout)
        load(side.twin, jax.device_get(ours.state.params))
        same_work(ours.parameters(), side.parameters(), float(ours.forward(*ours.inputs)[0]), side.loss())
        found[layout] = side.runs()
    return found


def same_work(parameters: int, twins: int, loss: float, twins_loss: float) -> None:
    """Raises UserError where the twin has another number of parameters, or another loss of the same parameters and views."""
    if parameters != twins:
        raise UserError(f"the twin has {twins} parameters and the JAX network {parameters}; make the two networks the same.")
    if abs(loss - twins_loss) > SAME_LOSS * abs(loss):
        raise UserError(f"the twin's loss is {twins_loss:.5f} where JAX has {loss:.5f} of the same views; make the two losses the same.")


def timed(run: Callable[[], Any], steps: int) -> list[float]:
    """Milliseconds of each of `steps` calls, after a warm-up."""
    for _ in range(WARM_UP):
        run()
    found = []
    for _ in range(steps):
        began = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - began))
    return found


def take_turns(sides: dict[str, Runs], steps: int, rounds: int) -> dict[str, dict[str, np.ndarray]]:
    """Milliseconds [rounds, steps] by side and stage; in each round the sides follow one another stage by stage."""
    found: dict[str, dict[str, list[list[float]]]] = {name: {stage: [] for stage in STAGES} for name in sides}
    for _ in range(rounds):
        for stage in STAGES:
            for name, runs in sides.items():
                found[name][stage].append(timed(runs[stage], steps))
    return {name: {stage: np.array(ms) for stage, ms in stages.items()} for name, stages in found.items()}


def measure(config: ConfigDict, steps: int, rounds: int) -> dict[str, Any]:
    """One method's rows, compile times and PyTorch's layouts."""
    validate(config)
    ours = JaxSide(config)
    others = torch_sides(config, ours)
    ms = take_turns({"jax": ours.runs(), **others}, steps, rounds)
    layouts = {name: round(float(np.median(ms[name]["full step"])), 1) for name in others}
    fastest = ms[min(layouts, key=layouts.__getitem__)] if layouts else None
    rows = [row(config, stage, ms["jax"][stage], fastest[stage] if fastest else None) for stage in STAGES]
    return {"rows": rows, "compile_s": ours.compile_s, "torch_layout_ms": layouts, "parameters": ours.parameters()}


def row(config: ConfigDict, stage: str, ours: np.ndarray, theirs: np.ndarray | None) -> dict[str, Any]:
    """A line of the table: milliseconds of a step, images a second, and torch / jax with its range over the rounds."""
    found = {"method": config.method.name, "batch": config.pretrain.batch, "size": config.views.size, "stage": stage}
    for name, ms in (("jax", ours), ("torch", theirs)):
        if ms is not None:
            found |= {f"{name}_ms": _round(np.median(ms)), f"{name}_p95_ms": _round(np.percentile(ms, 95))}
            found[f"{name}_images_per_s"] = round(1e3 * config.pretrain.batch / float(np.median(ms)))
    if theirs is not None:
        each = np.median(theirs, axis=1) / np.median(ours, axis=1)
        found["ratio"] = round(float(np.median(theirs) / np.median(ours)), 2)
        found["ratio_range"] = [round(float(each.min()), 2), round(float(each.max()), 2)]
    return found


def _round(ms: Any) -> float:
    return round(float(ms), 1)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown; a dash where PyTorch was not measured."""
    lines = ["| method | stage | JAX ms (p95) | images/s | PyTorch ms (p95) | images/s | PyTorch / JAX |", "|---|---|--:|--:|--:|--:|--:|"]
    for r in rows:
        cells = [r["method"], r["stage"]]
        for name in ("jax", "torch"):
            known = f"{name}_ms" in r
            cells += [f"{r[f'{name}_ms']} ({r[f'{name}_p95_ms']})", str(r[f"{name}_images_per_s"])] if known else ["-", "-"]
        low, high = r.get("ratio_range", (None, None))
        cells.append(f"{r['ratio']:.2f} ({low:.2f} to {high:.2f})" if "ratio" in r else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the config that is named, or TOWER's and SimCLR's own, and print the table."""
    keep_pages()
    configs = [cli.CONFIG.value] if cli.CONFIG.value else [tower.get_config(), simclr.get_config()]
    command = shlex.join(["python", "-m", "experiments.speed", *sys.argv[1:]])
    result: dict[str, Any] = {"command": command, "steps": STEPS.value, "rounds": ROUNDS.value, "machine": machine()}
    found = {config.method.name: measure(config, STEPS.value, ROUNDS.value) for config in configs}
    rows = [line for one in found.values() for line in one.pop("rows")]
    print(table(rows))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps({**result, "rows": rows, "methods": found}, indent=1) + "\n")
    for name, one in found.items():
        print(f"{name}: {one['parameters']} parameters, compiled in {one['compile_s']} s; PyTorch's layouts: {one['torch_layout_ms']} ms.")


if __name__ == "__main__":
    sys.exit(cli.execute(main, sys.argv))
