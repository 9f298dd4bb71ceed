"""Milliseconds that a train step takes, beside the same step in PyTorch: `python -m experiments.speed [--budget=full]` (see README.md).

All run in one process and take turns, so that all see the same machine: JAX, and PyTorch eager and by torch.compile, both in two memory
layouts. On a GPU PyTorch runs there too, and JAX takes its memory as it needs it, unless XLA_PYTHON_CLIENT_PREALLOCATE says otherwise.
PyTorch is optional: `pip install medssl_jax[speed]`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from configs import byol, simclr, tower
from experiments import commit
from experiments.jax_side import MODALITY, JaxSide
from experiments.machine import machine, share_accelerator
from experiments.records import RECORDS, command, keep
from experiments.speed_table import RECORD, table
from experiments.throughput import BUDGETS, Case
from medssl_jax import cli, cpu, methods
from medssl_jax.config import validate
from medssl_jax.errors import UserError
from medssl_jax.train.logging import say

STEPS = flags.DEFINE_integer("steps", 20, "Timed steps of every stage in a round.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns that each framework takes.", lower_bound=1)
BUDGET = flags.DEFINE_enum("budget", "small", BUDGETS, "small: two CPU cores, images of one channel; full: an accelerator, RGB.")
OUT = flags.DEFINE_string("record", str(RECORDS / RECORD), "The .json file where the numbers are kept, by device and case.")

STAGES = ("augmentation", "forward", "forward+backward", "optimizer", "full step")
CHANNELS = {"small": 1, "full": 3}  # one is the built-in sample's
# in the order of the twin's loss; TOWER has a partner where that is another crop
VIEWS = {"tower": ("clean", "corrupted", "partner"), "simclr": ("first", "second"), "byol": ("first", "second")}
CASES = {
    "small": tuple(Case(method, "resnet18", 64, 16, "float32") for method in VIEWS),  # after the default configs
    "full": (
        *(Case(method, "resnet50", 224, 128, dtype) for dtype in ("bfloat16", "float32") for method in VIEWS),
        *(Case(method, "resnet18", 224, 256, "bfloat16") for method in VIEWS),
        *(Case(method, "unet", 224, 64, "bfloat16") for method in VIEWS),
    ),
}
WARM_UP = 3  # steps that are not timed
SAME_LOSS = {"float32": 1e-3, "TF32": 1e-2, "bfloat16": 5e-2}  # relative difference of two losses of the same parameters and views

Runs = dict[str, Callable[[], Any]]
Side = dict[str, Any]


def torch_device() -> str | None:
    """Where PyTorch can run beside JAX: cpu or cuda; None, with a sentence, where it cannot."""
    if not importlib.util.find_spec("torch"):
        print("PyTorch is not installed, so JAX is timed alone; pip install torch for the comparison.")
        return None
    if jax.default_backend() == "cpu":
        return "cpu"
    import torch

    if jax.default_backend() == "gpu" and torch.cuda.is_available():
        return "cuda"
    print(f"JAX runs on {jax.default_backend()} and PyTorch cannot, so JAX is timed alone.")
    return None


def torch_sides(config: ConfigDict, ours: JaxSide) -> tuple[dict[str, Runs], dict[str, Side]]:
    """PyTorch's stages, by memory layout and compiled, and what each took to compile and to hold; none where it cannot run.

    Raises UserError for a config without a twin, and where the twin does not do the same work.
    """
    if (device := torch_device()) is None:
        return {}, {}
    if config.model.name != "unet" and not importlib.util.find_spec("torchvision"):
        print(f"torchvision, whose {config.model.name} the twin has, is not installed, so JAX is timed alone; pip install torchvision.")
        return {}, {}
    import torch

    from experiments.torch_side import COMPILED, LAYOUTS, TorchSide

    torch.compiler.reset()  # of the cases before, after a few of which torch.compile would leave a function eager
    image, params = np.asarray(ours.batch["image"]), jax.device_get(ours.state.params)
    recipe = methods.view_recipe(config, image.shape[-1], MODALITY)
    given = [np.asarray(ours.views[name]) for name in VIEWS.get(config.method.name, ()) if name in ours.views]
    runs: dict[str, Runs] = {}
    told: dict[str, Side] = {}
    for name in LAYOUTS:
        side = TorchSide(config, recipe, image, given, params, name, device)
        tolerance = SAME_LOSS[precision(config.model.dtype, device)]
        if (found := started(name, side, ours, tolerance, may_fail=name in COMPILED)) is not None:
            runs[name], told[name] = side.runs(), found
    for name in COMPILED.keys() & told.keys():  # the second takes over what was compiled for the first
        told[name]["compile_s"] = max(told[other]["compile_s"] for other in COMPILED.keys() & told.keys())
    return runs, told


def started(name: str, side: Any, ours: JaxSide, tolerance: float, may_fail: bool) -> Side | None:
    """What a side took to compile and to hold, once it is known to do the same work; None, with a sentence, where it fails and may."""
    try:
        same_work(ours.parameters(), side.parameters(), ours.loss(), side.loss(), tolerance)
        seconds = side.first_calls()
    except RuntimeError as error:  # torch's own, by what is missing: a C++ compiler, Python's headers, Triton
        if not may_fail:
            raise
        print(f"torch.compile cannot compile here, and {name!r} is left out: {str(error).strip().splitlines()[0]}")
        return None
    return {"compile_s": round(seconds["augmentation"] + seconds["forward+backward"], 1), "bytes": side.bytes()}


def precision(dtype: str, device: str) -> str:
    """What convolutions of that type are computed in."""
    return "TF32" if (dtype, device) == ("float32", "cuda") else dtype


def same_work(parameters: int, twins: int, loss: float, twins_loss: float, tolerance: float) -> None:
    """Raises UserError where the twin has another number of parameters, or another loss of the same parameters and views."""
    if parameters != twins:
        raise UserError(f"the twin has {twins} parameters and the JAX network {parameters}; make the two networks the same.")
    if not abs(loss - twins_loss) <= tolerance * abs(loss):
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


def measure(config: ConfigDict, channels: int, steps: int, rounds: int) -> dict[str, Any]:
    """The record of a config: its case, and of every side its stages, its seconds to compile and its bytes. Raises as `torch_sides`."""
    validate(config)
    ours = JaxSide(config, channels)
    theirs, told = torch_sides(config, ours)
    ms = take_turns({"jax": ours.runs(), **theirs}, steps, rounds)
    told["jax"] = {"compile_s": ours.compile_s["full step"], "bytes": ours.bytes}
    layouts = {name: float(np.median(ms[name]["full step"])) for name in theirs}
    names = {"jax": "jax", **fastest(layouts)}
    sides = {side: {**told[name], "stages": summary(ms[name], config.pretrain.batch)} for side, name in names.items()}
    found = ratios(ms["jax"], {side: ms[name] for side, name in names.items() if side != "jax"})
    return {"case": case_of(config, channels), "parameters": ours.parameters(), "sides": sides, "layout_ms": layouts, "ratios": found}


def fastest(layouts: dict[str, float]) -> dict[str, str]:
    """The name of the fastest eager side and of the fastest compiled one, of those that there are, by milliseconds of a full step."""
    found: dict[str, str] = {}
    for name in sorted(layouts, key=layouts.__getitem__):
        found.setdefault("compiled" if name.startswith("compiled") else "eager", name)
    return found


def case_of(config: ConfigDict, channels: int) -> dict[str, Any]:
    """What is timed, in the words of the table."""
    m = config.model
    of_images = {"size": config.views.size, "channels": channels, "batch": config.pretrain.batch}
    return {"method": config.method.name, "network": m.name, **of_images, "dtype": m.dtype}


def summary(stages: dict[str, np.ndarray], batch: int) -> dict[str, Side]:
    """Median and 95th percentile of a stage's milliseconds, and images a second."""
    found = {}
    for stage, ms in stages.items():
        middle = float(np.median(ms))
        found[stage] = {"ms": middle, "p95_ms": float(np.percentile(ms, 95)), "images_per_s": 1e3 * batch / middle}
    return found


def ratios(ours: dict[str, np.ndarray], theirs: dict[str, dict[str, np.ndarray]]) -> dict[str, Side]:
    """By stage, the time of the fastest of `theirs` over that of ours, with its range over the rounds; {} where there is none."""
    found = {}
    for stage in STAGES if theirs else ():
        side = min(theirs, key=lambda name: float(np.median(theirs[name][stage])))
        each = np.median(theirs[side][stage], axis=1) / np.median(ours[stage], axis=1)
        found[stage] = {"side": side, "ratio": float(np.median(each)), "range": [float(each.min()), float(each.max())]}
    return found


def chosen() -> list[ConfigDict]:
    """The config that is named, or those of the budget."""
    if cli.CONFIG.value:
        return [cli.CONFIG.value]
    defaults = [tower.get_config(), simclr.get_config(), byol.get_config()] if BUDGET.value == "small" else []
    return [*defaults, *(case.config() for case in CASES[BUDGET.value])]


def main() -> None:
    """Measure the config that is named, or those of the budget, record each once it is done, and print the table."""
    cpu.settle()
    share_accelerator()
    os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    with tempfile.TemporaryDirectory() as folder:  # what it takes to compile is to be seen: kernels of an earlier run would be taken over
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        _record()


def _record() -> None:
    record = Path(OUT.value)
    record.parent.mkdir(parents=True, exist_ok=True)
    channels, device = CHANNELS[BUDGET.value], jax.devices()[0].device_kind
    how = {"command": command("experiments.speed", sys.argv[1:]), "steps": STEPS.value, "rounds": ROUNDS.value, "code": commit.current()}
    for config in chosen():
        name = "-".join(map(str, case_of(config, channels).values()))
        say(f"speed: {name}")
        row = {**measure(config, channels, STEPS.value, ROUNDS.value), **how, "device": device, "machine": machine()}
        keep(record, f"{device}: {name}", row)
    print(table(record))


if __name__ == "__main__":
    sys.exit(cli.execute(main, sys.argv))
