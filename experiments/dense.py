"""Time and memory of Local Discrimination's loss at 448 px, beside PyTorch: `python -m experiments.dense [--pairs=1] [--rounds=5]`.

The loss and its gradient to the maps of 5 images a pair (two views of two images, and a mixture), vectors of 32 and 16 clusters for every
pixel; both frameworks take turns, each in a process of its own, so that memory is its own too.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medssl_jax import cli
from medssl_jax.errors import UserError

SIDE, CELLS, DIMENSIONS, CLUSTERS = 448, 8, 32, 16
SAME_LOSS = 1e-3  # relative
WEIGHTS = {"patches": 1.0, "mixup": 1.0, "regions": 10.0, "entropy": 0.1}  # the released ones

Measured = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1, help="pairs of images in a batch; the paper has 4")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each framework takes")
    parser.add_argument("--side", type=int, default=SIDE, help="of the maps, in pixels")
    return cli.guarded(lambda: compare(parser.parse_args(arguments)))


def compare(asked: argparse.Namespace) -> int:
    """The table in Markdown; raises UserError where PyTorch is missing."""
    if not importlib.util.find_spec("torch"):
        raise UserError("PyTorch is not installed; install it with pip install -e '.[speed]'.")
    found: dict[str, list[Measured]] = {"JAX": [], "PyTorch": []}
    context = multiprocessing.get_context("spawn")
    for _ in range(asked.rounds):
        for name, side in (("JAX", _jax), ("PyTorch", _torch)):
            with context.Pool(1) as pool:
                found[name].append(pool.apply(measured, (side, asked.pairs, asked.side)))
    losses = [turns[0]["loss"] for turns in found.values()]
    assert abs(losses[0] / losses[1] - 1) < SAME_LOSS, f"the two frameworks compute different losses: {losses}"
    print(f"{5 * asked.pairs} images of {asked.side} px; maps {found['JAX'][0]['maps']:.2f} GiB, and as much for their gradient")
    print("| | ms, median of the turns | least | most | memory beyond the maps, GiB |\n| --- | ---: | ---: | ---: | ---: |")
    for name, turns in found.items():
        times = [1000 * turn["seconds"] for turn in turns]
        more = np.median([turn["memory"] for turn in turns])
        print(f"| {name} | {np.median(times):.0f} | {min(times):.0f} | {max(times):.0f} | {more:.2f} |")
    return 0


def maps(pairs: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors [5B, S, S, D], shares [5B, S, S, K] and shares of the mixtures [B], the same for the same arguments."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5 * pairs, side, side, DIMENSIONS), np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    shares = rng.random((5 * pairs, side, side, CLUSTERS), np.float32)
    return vectors, shares / shares.sum(-1, keepdims=True), rng.uniform(0.2, 0.8, pairs).astype(np.float32)


def measured(side: Callable[..., Any], pairs: int, pixels: int) -> Measured:
    """One turn: the fastest of three calls after one that compiles, and how much more memory the process took at most."""
    vectors, clusters, mix = maps(pairs, pixels)
    step = side(vectors, clusters, mix)
    before = _peak()
    loss = step()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    held = (vectors.nbytes + clusters.nbytes) / 2**30
    return {"loss": loss, "seconds": min(seconds), "memory": _peak() - before - held, "maps": held}  # less the gradient


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _jax(vectors: np.ndarray, clusters: np.ndarray, mix: np.ndarray) -> Callable[[], float]:
    import jax
    import jax.numpy as jnp

    from medssl_jax import losses
    from medssl_jax.augment import meet

    b = len(mix)

    def loss(v: jax.Array, p: jax.Array) -> jax.Array:
        whole = jnp.tile(jnp.float32([[0, 0, v.shape[1], v.shape[1]]]), (len(v), 1))
        cells = losses.unit(meet.pool_cells(v, whole, CELLS))
        share = mix[:, None, None, None]
        target = jax.lax.stop_gradient(share * cells[:b] + (1 - share) * cells[b : 2 * b])

        def rows(*parts: jax.Array) -> jax.Array:
            return jnp.concatenate([part.reshape(-1, DIMENSIONS) for part in parts])

        terms = {
            "patches": losses.patch_discrimination(rows(cells[: 4 * b]), 0.1),
            "mixup": losses.patch_discrimination(rows(cells[4 * b :], target), 0.1),
            "regions": losses.region_discrimination(losses.region_vectors(v[: 4 * b], p[: 4 * b]), 0.2),
            "entropy": losses.cluster_entropy(p[: 4 * b]),
        }
        return jnp.asarray(sum(WEIGHTS[name] * term for name, term in terms.items()))

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    v, p = jnp.asarray(vectors), jnp.asarray(clusters)
    return lambda: float(jax.block_until_ready(step(v, p))[0])


def _torch(vectors: np.ndarray, clusters: np.ndarray, mix: np.ndarray) -> Callable[[], float]:
    import torch
    from torch.nn.functional import adaptive_avg_pool2d, log_softmax, normalize

    b = len(mix)
    v, p = (torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).requires_grad_() for x in (vectors, clusters))
    share = torch.from_numpy(mix)[:, None, None, None]

    def discriminate(u: torch.Tensor) -> torch.Tensor:
        n = len(u)
        similarity = (u @ u.detach().T / 0.1).masked_fill(torch.eye(n, dtype=torch.bool), -torch.inf)
        log_p = log_softmax(similarity, dim=1)
        positive = torch.roll(torch.eye(n, dtype=torch.bool), n // 2, dims=1)
        others = torch.log1p(-log_p.exp().clamp(max=1 - 1e-7)).masked_fill(positive | torch.eye(n, dtype=torch.bool), 0)
        return -(log_p[positive].sum() + others.sum()) / n

    def rows(x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).reshape(-1, DIMENSIONS)

    def bits(x: torch.Tensor) -> torch.Tensor:
        return -x * torch.log2(x.clamp(min=1e-30))

    def step() -> float:
        v.grad = p.grad = None
        cells = normalize(adaptive_avg_pool2d(v, CELLS), dim=1)
        target = (share * cells[:b] + (1 - share) * cells[b : 2 * b]).detach()
        z = normalize(torch.einsum("bkhw,bdhw->bkd", p[: 4 * b], v[: 4 * b]), dim=2)
        similarity = torch.einsum("bkd,jd->bkj", z, normalize(z.mean(0), dim=1)) / 0.2
        terms = {
            "patches": discriminate(rows(cells[: 4 * b])),
            "mixup": discriminate(torch.cat([rows(cells[4 * b :]), rows(normalize(target, dim=1))])),
            "regions": -log_softmax(similarity, dim=2).diagonal(dim1=1, dim2=2).mean(),
            "entropy": (bits(p[: 4 * b]) + bits(1 - p[: 4 * b])).mean(),
        }
        loss = torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()
        loss.backward()
        return float(loss.detach())

    return step


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
