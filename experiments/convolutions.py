"""Where a step on a CPU spends its time: the default network's convolutions, in JAX and in PyTorch (`python -m experiments.convolutions`).

Forward, gradient to the input and gradient to the kernel of each 3 x 3 convolution, float32, channels last in both; then other ways to
compute the gradient to the kernel, which were tried and not kept. With `XLA_FLAGS=` before the command JAX runs without the flag of
medssl_jax/cpu.py. PyTorch is optional: `pip install medssl_jax[speed]`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import commit
from experiments.convolutions_table import PASSES, RECORD, table
from experiments.kernel_gradients import FORMULATIONS, KERNEL
from experiments.machine import machine
from experiments.records import RECORDS, command, keep
from experiments.speed import timed
from medssl_jax import cli, cpu
from medssl_jax.errors import UserError
from medssl_jax.models import network
from medssl_jax.train.logging import say

SHAPES = ((64, 16, 16), (64, 32, 16), (32, 32, 32), (16, 64, 64), (8, 128, 128), (2, 512, 512))  # side, channels in, channels out
BATCH = 32
AXES = ("NHWC", "HWIO", "NHWC")

Runs = list[Callable[[], Any]]
Convolve = Callable[..., jax.Array]


def jax_passes(convolve: Convolve, x: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray) -> Runs:
    """Forward, input gradient, kernel gradient: x [B, S, S, I], kernel [3, 3, I, O], cotangent [B, S, S, O]."""

    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=AXES)

    def to_input(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: forward(x, kernel), x)[1](cotangent)[0]

    def to_kernel(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: forward(x, kernel), kernel)[1](cotangent)[0]

    return [waited(forward, x, kernel), waited(to_input, x, kernel, cotangent), waited(to_kernel, x, kernel, cotangent)]


def torch_passes(x: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray) -> Runs:
    """The same in PyTorch."""
    import torch

    def place(array: np.ndarray, order: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(array).permute(order).contiguous(memory_format=torch.channels_last)

    inputs, weight = place(x, (0, 3, 1, 2)).requires_grad_(), place(kernel, (3, 2, 0, 1)).requires_grad_()
    given = place(cotangent, (0, 3, 1, 2))
    out = torch.nn.functional.conv2d(inputs, weight, padding=1)

    def forward() -> Any:
        with torch.no_grad():
            return torch.nn.functional.conv2d(inputs, weight, padding=1)

    backward = [partial(torch.autograd.grad, out, to, given, retain_graph=True) for to in (inputs, weight)]
    return [forward, *backward]


def waited(function: Callable[..., jax.Array], *arguments: np.ndarray) -> Callable[[], Any]:
    """The call, jitted, until it is done."""
    jitted, placed = jax.jit(function), jax.device_put(arguments)
    return lambda: jax.block_until_ready(jitted(*placed))


def measure(side: int, inputs: int, outputs: int, steps: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of every pass by framework, and of the other formulations of the gradient to the kernel; where
    medssl_jax makes a product of the convolution, of lax's own too."""
    rng = np.random.default_rng(0)
    shapes = ((BATCH, side, side, inputs), (KERNEL, KERNEL, inputs, outputs), (BATCH, side, side, outputs))
    x, kernel, cotangent = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    runs = {"jax": jax_passes(network.convolve, x, kernel, cotangent), "torch": torch_passes(x, kernel, cotangent)}
    if side < KERNEL:
        runs["lax"] = jax_passes(jax.lax.conv_general_dilated, x, kernel, cotangent)
    found = {name: dict(zip(PASSES, (_median(run, steps) for run in passes), strict=True)) for name, passes in runs.items()}
    others = {name: _median(waited(formulation, x, cotangent), steps) for name, formulation in FORMULATIONS.items()}
    return {**found, "kernel": others}


def _median(run: Callable[[], Any], steps: int) -> float:
    return float(np.median(timed(run, steps)))


def main(arguments: Sequence[str]) -> int:
    """Time the convolutions, record each once it is done, and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15, help="timed calls of everything")
    parser.add_argument("--record", type=Path, default=RECORDS / RECORD, help="where the numbers are kept, by device, XLA_FLAGS and shape")
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: run(asked, command("experiments.convolutions", list(arguments))))


def run(asked: argparse.Namespace, command: str) -> int:
    """Time and record; 0. Raises UserError for no call at all, and where PyTorch is missing."""
    if asked.steps < 1:
        raise UserError(f"--steps={asked.steps} times nothing; give 1 or more.")
    if not importlib.util.find_spec("torch"):
        raise UserError("PyTorch is not installed; pip install -e '.[speed]' for the comparison.")
    cpu.settle()
    asked.record.parent.mkdir(parents=True, exist_ok=True)
    device, flags = jax.devices()[0].device_kind, os.environ.get("XLA_FLAGS", "")
    how = {"command": command, "steps": asked.steps, "batch": BATCH, "code": commit.current(), "machine": machine()}
    for shape in SHAPES:
        name = f"{'-'.join(map(str, shape))}, XLA_FLAGS={flags}"
        say(f"convolutions: {name}")
        row = {"device": device, "flags": flags, "shape": shape, "ms": measure(*shape, asked.steps)}
        keep(asked.record, f"{device}: {name}", {**row, **how})
    print(table(asked.record))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
