"""What the chips of a run tell one another in a pretraining step: `python -m experiments.communication [--size=paper] [--only=simclr]`.

The step is compiled, not run, for 4, 8 and 16 simulated devices, each with as many images as a chip holds, and what they exchange is read
from the compiled program. A straight line through 4 and 8 says what 64 and 256 chips exchange; 16 tests it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import commit
from experiments.cut_tables import NOTHING, markdown
from experiments.hlo import SENT, collectives
from experiments.machine import machine
from experiments.records import RECORDS
from medssl_jax import cli, methods
from medssl_jax.train import mesh as meshes
from medssl_jax.train import optimizer
from medssl_jax.train.logging import read_json, write_json
from medssl_jax.train.state import init_state
from medssl_jax.train.step import make_step

RECORD = "communication.json"
METHODS = ("tower", "simclr", "byol", "local_discrimination")
# Simulated devices: through the first goes the line, the others it must meet. Not 2: each half of a batch is one device's there, and fewer
# permutes bring the halves to their places than with more devices; a line from there rises where nothing does.
FITTED, CHECKED = (4, 8), (16,)
CHIPS = (8, 64, 256)
HOW = {"replicated": False, "FSDP": True}
APART = ("all-reduce", "all-gather")  # columns of the table; the rest is added up
MOST = 32  # images of a chip
CHANNELS, MODALITY, DTYPE = 1, "brightfield", np.uint16  # the built-in sample's
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # after the exchanges are settled, and not run
# TPU v5e: 51.2 TB/s all-reduce bandwidth of a pod of 256 chips, which is half of the 400 GB/s that a chip's links carry both ways;
# 197 TFLOP/s in bfloat16 (https://docs.cloud.google.com/tpu/docs/v5e).
BANDWIDTH, PEAK = 51.2e12 / 256, 197e12

Told = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Compile, record, print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS, help="where results are kept; those of the project where nothing is given")
    parser.add_argument("--size", choices=("small", "paper"), default="small", help="which size of the configs")
    parser.add_argument("--only", choices=METHODS, help="one method; the others keep their records")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("XLA_FLAGS", QUICK)
    jax.config.update("jax_num_cpu_devices", max(FITTED + CHECKED))
    return cli.guarded(lambda: measure(asked.records, asked.size, [asked.only] if asked.only else METHODS))


def measure(records: Path, size: str, names: Sequence[str]) -> int:
    """Record every method of that size as soon as it is compiled; the exit code."""
    record = records / RECORD
    for name in names:
        config = importlib.import_module(f"configs.{name}").get_config(size)
        found = {how: counts(config, fsdp) for how, fsdp in HOW.items()}
        told = read_json(record, dict, "measure again") if record.exists() else {}
        rows = told.get(size, {}) | {name: {"batch": images(config), "code": commit.current(), **found}}
        records.mkdir(parents=True, exist_ok=True)
        write_json(record, {**told, "machine": machine(), size: rows})
    print(table(record, size))
    return 0


def images(config: ConfigDict) -> int:
    """Images that a chip has of a batch: the config's batch, where one chip can hold it."""
    return min(config.pretrain.batch, MOST)


def counts(config: ConfigDict, fsdp: bool) -> dict[str, Told]:
    """By number of devices: the FLOPs of one, the payloads in bytes by kind of exchange, and the bytes that one device sends."""
    return {str(devices): _count(config, devices, fsdp) for devices in sorted({*FITTED, *CHECKED})}


def _count(config: ConfigDict, devices: int, fsdp: bool) -> Told:
    lowered = lower(config, devices, fsdp)
    found = collectives(str(lowered.compile().as_text()))
    payloads: Counter[str] = Counter()
    for one in found:
        payloads[one.kind] += one.payload
    costs = lowered.cost_analysis() or {}
    return {"flops": costs["flops"] / devices, "payloads": dict(payloads), "sent": sum(one.sent for one in found)}


def lower(config: ConfigDict, devices: int, fsdp: bool) -> jax.stages.Lowered:
    """The pretraining step of `config` for so many devices, each with so many `images`; nothing is allocated."""
    mesh = meshes.make_mesh(jax.devices()[:devices])
    method, update = methods.build(config, CHANNELS, MODALITY), optimizer.build(config.pretrain.optimizer, config.pretrain.steps)
    batch, tile = images(config) * devices, config.data.tile
    shapes = {"image": jax.ShapeDtypeStruct((batch, tile, tile, CHANNELS), DTYPE), "slot": jax.ShapeDtypeStruct((batch,), np.int32)}
    state = jax.eval_shape(lambda key, one: init_state(method, update, key, one), jax.random.key(0), shapes)
    places = meshes.shardings(state, mesh, fsdp)
    return make_step(method, update, mesh, places).lower(state, shapes)  # type: ignore[attr-defined]


def predicted(found: dict[str, Told], devices: int) -> dict[str, float]:
    """Bytes that one of so many devices sends in a step, by kind of exchange: each payload follows the line through what is fitted."""
    payloads = [found[str(count)]["payloads"] for count in FITTED]
    kinds = [kind for kind in SENT if any(kind in payload for payload in payloads)]
    return {kind: SENT[kind](devices) * _along([payload.get(kind, 0) for payload in payloads], devices) for kind in kinds}


def predicted_flops(found: dict[str, Told], devices: int) -> float:
    """Floating-point operations of one of so many devices in a step, on the line through what is fitted."""
    return _along([found[str(count)]["flops"] for count in FITTED], devices)


def _along(values: Sequence[float], devices: int) -> float:
    (low, high), (first, second) = FITTED, values
    return first + (second - first) * (devices - low) / (high - low)


def table(record: Path, size: str) -> str:
    """Markdown: megabytes that a chip sends in a step, and milliseconds for it and for the arithmetic on TPU v5e, a line a number of chips;
    below it how far the lines are off where they are checked.
    """
    if not record.exists() or size not in (told := read_json(record, dict, "measure again")):
        return NOTHING
    head = ["method, images a chip", "parameters", "chips", *(f"{kind}, MB" for kind in (*APART, "other"))]
    lines = [[*head, "all sent, MB", "ms for it", "GFLOP a chip", "ms for them"]]
    rows = [(f"{name}, {told[size][name]['batch']}", how, told[size][name][how]) for name in METHODS if name in told[size] for how in HOW]
    for title, how, found in rows:
        names = [(title, how), *[("", "")] * (len(CHIPS) - 1)]  # once for all numbers of chips
        lines += [[*name, str(chips), *_numbers(found, chips)] for name, chips in zip(names, CHIPS, strict=True)]
    off = [_off(found, count) for _, _, found in rows for count in CHECKED]
    return f"{markdown(lines)}\n\nOff at {', '.join(map(str, CHECKED))} devices, bytes or FLOPs of any line: {max(off):.2%} at most."


def _numbers(found: dict[str, Told], chips: int) -> list[str]:
    sent, flops = predicted(found, chips), predicted_flops(found, chips)
    total, apart = sum(sent.values()), [sent.get(kind, 0.0) for kind in APART]
    megabytes = [one / 1e6 for one in (*apart, total - sum(apart), total)]
    return [_few(one) for one in (*megabytes, 1e3 * total / BANDWIDTH, flops / 1e9, 1e3 * flops / PEAK)]


def _off(found: dict[str, Told], count: int) -> float:
    counted = found[str(count)]
    ratios = sum(predicted(found, count).values()) / counted["sent"], predicted_flops(found, count) / counted["flops"]
    return max(abs(ratio - 1) for ratio in ratios)


def _few(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
