"""A detector of panels trained on simulated figures that are never stored: the story of a run of configs/simcfs.py."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from medssl_jax.config import SHIPPED
from medssl_jax.data.dataset import Source
from medssl_jax.data.stream import example_batches, sub_seed
from medssl_jax.errors import UserError
from medssl_jax.figures import detect
from medssl_jax.figures.layouts import MOST
from medssl_jax.figures.letterbox import Squares
from medssl_jax.figures.pools import Pools, open_pools
from medssl_jax.figures.replay import layouts_of
from medssl_jax.figures.simulate import Figures
from medssl_jax.figures.style import Style
from medssl_jax.figures.validate import Validation
from medssl_jax.methods import DETECTOR, SimCFS
from medssl_jax.methods.simcfs import SIDES
from medssl_jax.models import DETECTOR_STRIDES, detector
from medssl_jax.train import checkpoint, feed, optimizer
from medssl_jax.train import mesh as meshes
from medssl_jax.train.logging import Logger, say
from medssl_jax.train.loop import Plan, StopRequest, train
from medssl_jax.train.state import State, fresh_state, init_state
from medssl_jax.train.step import make_step

PHASE = "detector"  # in metrics.jsonl
LARGEST_EPOCH = 2**20  # figures, before they come again in another order


def run(config: ConfigDict, mesh: Mesh, workdir: Path, stop: StopRequest, pools: Pools) -> dict[str, float]:
    """Train, or continue from the latest checkpoint in `workdir`; leave the detector there and return its scores on simulated validation
    figures. The detector is kept last, so that a run that has one is finished."""
    method = build(config)
    validation = Validation(method, mesh, squares(config, pools.held_out, "validation", config.figures.validation), config.pretrain.batch)
    state = _train(config, method, squares(config, pools.train, "train", epoch(config)), validation, mesh, workdir, stop)
    threshold, scores = validation.scores(state.carried["average"])
    average = jax.jit(lambda tree: tree, out_shardings=meshes.replicated(mesh))(state.carried["average"]["detector"])
    model = config.model
    found = detect.Detector(jax.device_get(average), model.width, model.blocks, config.figures.size, threshold)
    detect.keep(workdir, found)
    return scores


def check(config: ConfigDict, mesh: Mesh) -> Pools:
    """The single images of the config. Raises UserError for what cannot be trained, before anything is written."""
    build(config)
    _earlier(config)
    optimizer.build(config.pretrain.optimizer, config.pretrain.steps)
    meshes.check_batch(config.pretrain.batch, config.pretrain.accumulate, mesh, "pretrain.batch")
    pools = open_pools(config.data)
    for source, use in ((pools.train, "train"), (pools.held_out, "validation")):
        squares(config, source, use, 1)[0]
    _check_most(config)
    return pools


def _check_most(config: ConfigDict) -> None:
    """Raises UserError where a figure could have more panels than there is room for: it would end the training when it comes."""
    style, most = Style(**config.figures.style), config.figures.most
    replayed = layouts_of(style.layouts, *map(int, style.panels)) if style.replayed else ()
    largest = max([MOST, *(len(layout.boxes) for layout in replayed)])
    if most < largest:
        raise UserError(
            f"config.figures.most={most} is less than the {largest} panels of the largest layout; set --config.figures.most={largest}."
        )


def build(config: ConfigDict) -> SimCFS:
    """The method that the config describes. Raises UserError for a size that the detector's levels do not divide, and a side loss that
    does not exist."""
    f, m = config.figures, config.method
    if f.size % DETECTOR_STRIDES[-1]:
        nearest = max(1, round(f.size / DETECTOR_STRIDES[-1])) * DETECTOR_STRIDES[-1]
        raise UserError(f"config.figures.size={f.size} is no multiple of {DETECTOR_STRIDES[-1]}; set --config.figures.size={nearest}.")
    if m.side not in SIDES:
        raise UserError(f"config.method.side={m.side!r} is no side loss; choose one of {', '.join(SIDES)}.")
    network = detector(config.model.width, blocks=config.model.blocks)
    return SimCFS(network, f.size, m.side, m.side_weight, zoom=tuple(f.zoom))


def squares(config: ConfigDict, source: Source, use: str, count: int) -> Squares:
    """Simulated figures of the images of `source`, by a seed of their own for each `use`, ready for batches."""
    figures = Figures(source, Style(**config.figures.style), sub_seed(config.seed, f"figures/{use}"))
    return Squares(figures, config.figures.size, config.figures.most, count)


def epoch(config: ConfigDict) -> int:
    """How many figures a training has: one for every place of every batch, so that none comes twice, up to a million."""
    return min(config.pretrain.steps * config.pretrain.batch, LARGEST_EPOCH)


def _earlier(config: ConfigDict) -> Any:
    """The weights that the training starts from, or None for fresh ones. Raises UserError for a detector of another size."""
    name, model = config.pretrain.from_run, config.model
    if not name:
        return None
    found = detect.Detector.load(None if name == SHIPPED else Path(name).expanduser())
    if (found.width, found.blocks) != (model.width, model.blocks):
        raise UserError(
            f"config.pretrain.from={name} is a detector of another size; set --config.model.width={found.width} "
            f"--config.model.blocks={found.blocks}."
        )
    return found.weights


def _begin(method: SimCFS, update: optax.GradientTransformation, weights: Any, key: jax.Array) -> State:
    """A state of fresh weights, or of given ones."""
    if weights is None:
        return init_state(method, update, key, batch={})
    params = {"detector": weights}
    return fresh_state(update, key, params, {"average": jax.tree.map(jnp.array, params)})


def _train(
    config: ConfigDict, method: SimCFS, figures: Squares, validation: Validation, mesh: Mesh, workdir: Path, stop: StopRequest
) -> State:
    p = config.pretrain
    update = optimizer.build(p.optimizer, p.steps)
    start = functools.partial(_begin, method, update, _earlier(config))
    key = jax.random.key(sub_seed(config.seed, "detector"))
    places = meshes.shardings(jax.eval_shape(start, key), mesh, p.fsdp)
    with checkpoint.Checkpoints(workdir / "checkpoints", p.checkpoint_every, p.keep) as checkpoints:
        state = checkpoints.restore(checkpoint.abstract(jax.eval_shape(start, key), places))
        if state is None:
            state = jax.jit(start, out_shardings=places)(key)
        elif int(state.step):
            say(f"Continuing the training at step {int(state.step)} of {p.steps}.")
        step = make_step(method, update, mesh, places, p.accumulate)
        first = int(state.step)
        plan = Plan("train the detector", p.steps, p.batch, p.log_every, p.eval_every)
        with contextlib.closing(Logger(workdir, PHASE, resume_step=first)) as logger:
            batches = feed_figures(config, figures, mesh, first)
            return train(state, step, batches, plan, logger=logger, checkpoints=checkpoints, evaluate=validation, stop=stop)


def feed_figures(config: ConfigDict, figures: Squares, mesh: Mesh, first: int) -> Iterator[feed.Batch]:
    """Global batches from step `first` on, made by config.data.threads in config.data.workers processes while the steps before them run."""
    d, seed = config.data, sub_seed(config.seed, "figures/order")
    local = example_batches(figures, seed=seed, global_batch=config.pretrain.batch, start_step=first, threads=d.threads, workers=d.workers)
    return feed.from_host(mesh, ({name: b[name] for name in ("image", "boxes", "count", "extent", "slot")} for b in local))


def rows(config: ConfigDict, scores: dict[str, float]) -> list[dict[str, Any]]:
    """The scores on the validation figures as tidy rows of results.json."""
    about = {"experiment": config.name, "dataset": "simulated figures", "task": "figures", "init": DETECTOR}
    labels = {"labels": 0, "label_unit": "image", "subset": 0, "seed": config.seed}
    return [{**about, **labels, "metric": metric, "value": value, "n": config.figures.validation} for metric, value in scores.items()]
