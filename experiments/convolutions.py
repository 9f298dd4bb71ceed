"""Where a step on a CPU spends its time: the default network's convolutions, in JAX and in PyTorch (`python -m experiments.convolutions`).

Forward, gradient to the input and gradient to the kernel of each 3 x 3 convolution, float32, channels last in both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.speed import timed
from medssl_jax import cli, cpu
from medssl_jax.errors import UserError
from medssl_jax.models import network

SHAPES = ((64, 16, 16), (64, 32, 16), (32, 32, 32), (16, 64, 64), (8, 128, 128), (2, 512, 512))  # side, channels in, channels out
BATCH, STEPS = 32, 15


def jax_passes(x: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray) -> list[Callable[[], Any]]:
    """Forward, input gradient, kernel gradient: x [B, S, S, I], kernel [3, 3, I, O], cotangent [B, S, S, O]."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return network.convolve(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    to_input = jax.jit(lambda x, k, g: jax.vjp(lambda x: convolve(x, k), x)[1](g)[0])
    to_kernel = jax.jit(lambda x, k, g: jax.vjp(lambda k: convolve(x, k), k)[1](g)[0])
    x, kernel, cotangent = jax.device_put((x, kernel, cotangent))
    calls = [(jax.jit(convolve), (x, kernel)), (to_input, (x, kernel, cotangent)), (to_kernel, (x, kernel, cotangent))]
    return [partial(lambda f, a: jax.block_until_ready(f(*a)), f, arguments) for f, arguments in calls]


def torch_passes(x: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray) -> list[Callable[[], Any]]:
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


def row(side: int, inputs: int, outputs: int) -> str:
    """A line of the table: median milliseconds."""
    rng = np.random.default_rng(0)
    shapes = ((BATCH, side, side, inputs), (3, 3, inputs, outputs), (BATCH, side, side, outputs))
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    ours, theirs = ([float(np.median(timed(run, STEPS))) for run in passes(*arrays)] for passes in (jax_passes, torch_passes))
    cells = [f"{mine:.1f} / {other:.1f}" for mine, other in zip(ours, theirs, strict=True)]
    return f"| {side} x {side}, {inputs} to {outputs} | {' | '.join(cells)} | {sum(theirs) / sum(ours):.2f} |"


def main() -> None:
    """Print the table."""
    cpu.settle()
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UserError("PyTorch is not installed; pip install -e '.[speed]' for the comparison.") from error
    print("| JAX ms / PyTorch ms | forward | to the input | to the kernel | PyTorch / JAX |\n|---|--:|--:|--:|--:|")
    for shape in SHAPES:
        print(row(*shape), flush=True)


if __name__ == "__main__":
    sys.exit(cli.execute(main, sys.argv))
