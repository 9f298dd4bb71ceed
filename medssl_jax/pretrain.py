"""One pretraining: tiles in, a network worth transferring out, watched on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from medssl_jax import gallery, methods
from medssl_jax.config import SHIPPED
from medssl_jax.data.prepare import CHANNELS
from medssl_jax.data.references import reference_masks, reference_tiles
from medssl_jax.data.sources import Dataset, Selection, Source, Unlabelled, describe
from medssl_jax.data.stream import example_batches, index_batches, sub_seed
from medssl_jax.data.tiles import TileSource, load_all
from medssl_jax.errors import UserError
from medssl_jax.methods.calibrate import Calibration
from medssl_jax.monitor import Monitor, Sample
from medssl_jax.train import checkpoint, feed, optimizer
from medssl_jax.train import mesh as meshes
from medssl_jax.train.logging import Logger, read_json, say, write_json
from medssl_jax.train.loop import Plan, StopRequest, train
from medssl_jax.train.state import State, init_state
from medssl_jax.train.step import make_step

READERS = 8  # images read at a time for their fingerprints
MANY = 200  # images: where reading takes long enough to say so


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What fine-tuning starts from: `parts` {"encoder": {"params", "stats"}, "decoder"?: the same}, and where it came from; `pool`
    are the fingerprints of the images it learned from."""

    method: str
    parts: Mapping[str, Any]
    pool: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


def tile_kind(dataset: Dataset) -> str:
    """Classification sees whole images; everything else sees tiles at the images' own resolution."""
    return "whole" if dataset.task == "classification" else "grid"


def load(run: Path, mesh: Mesh) -> Pretrained:
    """The network that a finished pretraining left in the run directory `run`. Raises UserError where there is none."""
    found = _about(run)
    checkpoint.check_inventory(run / "pretrained", found["files"])
    parts = jax.device_get(checkpoint.load_tree(run / "pretrained", meshes.replicated(mesh)))
    return Pretrained(found["method"], parts, tuple(found["pool"]), tuple(found["warnings"]), found["seconds"])


def _about(run: Path) -> dict[str, Any]:
    path = run / "pretrained.json"
    if not path.exists() and (str(run) == SHIPPED or (run / "detector.json").exists()):
        raise UserError(
            f"{run} is a detector of compound figures, which cannot be fine-tuned; point --config.pretrain.from at a finished run of "
            "another method, as of configs/simclr.py."
        )
    if not path.exists():
        raise UserError(f"{run} holds no finished pretraining (no pretrained.json); point --config.pretrain.from at a run directory.")
    remedy = "pretrain again in another --workdir"
    found = read_json(path, dict, remedy)
    kinds: dict[str, Any] = {"method": str, "pool": list, "warnings": list, "seconds": (int, float), "files": dict}
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            raise UserError(f"{path} does not tell its {name!r} as this version writes it (damaged, or of an older version); {remedy}.")
    return found


def fingerprints(source: Source) -> list[str]:
    """One short word an image, made of its stored pixels: a copy in another folder, or under another name, has the same."""
    stored = Selection(source, range(len(source)))

    def word(index: int) -> str:
        """Of the image at that index: of its shape, its type and its pixels."""
        image = np.ascontiguousarray(stored.raw(index))
        return hashlib.sha256(f"{image.shape} {image.dtype} ".encode() + image.tobytes()).hexdigest()[:16]

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(word, range(len(stored))))


def _check_unseen(dataset: Dataset, pool: Sequence[str], run: Path) -> None:
    """Raises UserError where the network learned from images that would test it now."""
    learned = set(pool)
    seen = [i for i, word in enumerate(fingerprints(dataset.test)) if word in learned]
    if seen:
        raise UserError(
            f"{len(seen)} of the {len(dataset.test)} test images ({describe(dataset.test, seen[0]).id} is the first) were pretrained "
            f"on in {run}; use its config.data.seed and split, so that the test stays unseen."
        )


def _check_channels(dataset: Dataset, learned: int, run: Path) -> None:
    """Raises UserError where the network learned from images of another number of channels."""
    if dataset.channels != learned:
        color = next((name for name, count in CHANNELS.items() if count == learned and dataset.channels in CHANNELS.values()), None)
        remedy = f"set --config.data.color={color}" if color else "pretrain on images of as many channels"
        raise UserError(
            f"the network in {run} sees {learned} channels, and the images of {dataset.name} have {dataset.channels}; {remedy}."
        )


def check(config: ConfigDict, dataset: Dataset, mesh: Mesh) -> None:
    """Raises UserError for what `pretrain` would refuse, before anything is written."""
    if config.pretrain.from_run:
        run = Path(config.pretrain.from_run).expanduser()
        about = _about(run)
        checkpoint.check_inventory(run / "pretrained", about["files"])
        _check_channels(dataset, about.get("channels", dataset.channels), run)
        _check_unseen(dataset, about["pool"], run)
        return
    if config.method.name == methods.NO_METHOD:
        return
    method = methods.build(config, dataset.channels, dataset.modality)
    if isinstance(method, methods.ShapeGuided):
        reference_tiles(reference_masks(config.method, dataset.pool, config.seed, few=True), config.data.tile)
        TileSource(Unlabelled(dataset.pool), config.finetune.patch, option="finetune.patch")  # of the refinement after it
    tiles = TileSource(Unlabelled(dataset.pool), config.data.tile, kind=tile_kind(dataset))
    if isinstance(method, methods.LocalDiscrimination) and len(tiles) < config.pretrain.batch:
        raise UserError(
            f"there are {len(tiles)} tiles of config.data.tile={config.data.tile} px, fewer than config.pretrain.batch="
            f"{config.pretrain.batch}: a place would be told apart from itself; set a smaller batch, or give more images."
        )
    meshes.check_batch(config.pretrain.batch, config.pretrain.accumulate, mesh, "pretrain.batch")
    optimizer.build(config.pretrain.optimizer, config.pretrain.steps)


def pretrain(config: ConfigDict, dataset: Dataset, mesh: Mesh, workdir: Path, stop: StopRequest) -> Pretrained:
    """Pretrain on the pool, continuing from the latest checkpoint in `workdir`; a finished pretraining is only loaded, and with the method
    `none` there is none."""
    if config.pretrain.from_run:
        run = Path(config.pretrain.from_run).expanduser()
        found = load(run, mesh)
        return dataclasses.replace(found, warnings=tuple(f"In the run {run.name}: {warning}" for warning in found.warnings))
    if config.method.name == methods.NO_METHOD:
        return Pretrained(methods.NO_METHOD, {})
    if (workdir / "pretrained.json").exists():
        return load(workdir, mesh)
    began = time.perf_counter()
    method = methods.build(config, dataset.channels, dataset.modality)
    tiles = TileSource(Unlabelled(dataset.pool), config.data.tile, kind=tile_kind(dataset))
    state, warning = _run(config, method, dataset, tiles, mesh, workdir, stop)
    parts = jax.jit(method.transferable, out_shardings=meshes.replicated(mesh))(state.params, state.carried)
    recipe = methods.view_recipe(config, dataset.channels, dataset.modality)
    parts = jax.device_get(Calibration(method.backbone, recipe, tiles, mesh, sub_seed(config.seed, "calibrate"))(parts))
    checkpoint.save_tree(workdir / "pretrained", parts)
    gallery.draw(workdir / "figures", method, state, tiles)
    pool, warnings = tuple(fingerprints(dataset.pool)), (warning,) if warning else ()
    found = Pretrained(config.method.name, parts, pool, warnings, time.perf_counter() - began)
    about = {"method": found.method, "channels": dataset.channels, "warnings": warnings, "seconds": found.seconds, "pool": pool}
    write_json(workdir / "pretrained.json", {**about, "files": checkpoint.inventory(workdir / "pretrained")})
    return found


def _run(
    config: ConfigDict, method: methods.Pretraining, dataset: Dataset, tiles: TileSource, mesh: Mesh, workdir: Path, stop: StopRequest
) -> tuple[State, str | None]:
    p = config.pretrain
    update = optimizer.build(p.optimizer, p.steps)
    references = None
    if isinstance(method, methods.ShapeGuided):
        references = reference_tiles(reference_masks(config.method, dataset.pool, config.seed), config.data.tile)
    shapes = {"image": np.zeros((1, config.data.tile, config.data.tile, dataset.channels), dataset.dtype)}
    start = jax.tree_util.Partial(init_state, method, update)
    key = jax.random.key(sub_seed(config.seed, "pretrain"))
    places = meshes.shardings(jax.eval_shape(start, key, shapes), mesh, p.fsdp)
    with checkpoint.Checkpoints(workdir / "checkpoints", p.checkpoint_every, p.keep) as checkpoints:
        state = checkpoints.restore(checkpoint.abstract(jax.eval_shape(start, key, shapes), places))
        if state is None:
            state = jax.jit(start, out_shardings=places)(key, shapes)
            if isinstance(method, methods.ShapeGuided):
                rates = optimizer.with_rates(state.opt_state, method.rates)
                state = state.replace(opt_state=jax.device_put(rates, places.opt_state))
        elif int(state.step):
            say(f"Continuing the pretraining at step {int(state.step)} of {p.steps}.")
        step = make_step(method, update, mesh, places, p.accumulate)
        first = int(state.step)
        monitor = _monitor(config, method, dataset, mesh)
        plan = Plan(f"pretrain {config.method.name}", p.steps, p.batch, p.log_every, p.eval_every)
        batches = feed_tiles(config, tiles, mesh, first)
        if references is not None:
            batches = _with_references(batches, references, config, mesh, first)
        with contextlib.closing(Logger(workdir, "pretrain", resume_step=first)) as logger:
            state = train(state, step, batches, plan, logger=logger, checkpoints=checkpoints, evaluate=monitor, stop=stop)
        if first >= p.steps:  # nothing was left to train, and so nothing looked at the end
            monitor(state)
    return state, monitor.warning


def _with_references(
    batches: Iterator[feed.Batch], references: np.ndarray, config: ConfigDict, mesh: Mesh, first: int
) -> Iterator[feed.Batch]:
    """Each batch with as many reference shapes, in an order of their own."""
    seed = sub_seed(config.seed, "pretrain/references")
    order = index_batches(len(references), seed=seed, global_batch=config.pretrain.batch, start_step=first)
    drawn = feed.from_device(mesh, {"shape": references}, order)
    return ({**batch, "shape": shapes["shape"]} for batch, shapes in zip(batches, drawn))


def feed_tiles(config: ConfigDict, tiles: TileSource, mesh: Mesh, first: int) -> Iterator[feed.Batch]:
    """Global batches from step `first` on, in the same order for both placements."""
    seed, batch = sub_seed(config.seed, "pretrain/order"), config.pretrain.batch
    if config.data.placement == "device":
        examples = {"image": load_all(tiles, _reading)["image"]}
        return feed.from_device(mesh, examples, index_batches(len(tiles), seed=seed, global_batch=batch, start_step=first))
    d = config.data
    local = example_batches(tiles, seed=seed, global_batch=batch, start_step=first, threads=d.threads, workers=d.workers)
    return feed.from_host(mesh, ({"image": b["image"], "slot": b["slot"]} for b in local))


def _reading(done: int, total: int) -> None:
    """A line now and then while many images are read."""
    if total >= MANY and (done % MANY == 0 or done == total):
        say(f"Read {done} of {total} images.")


def _monitor(config: ConfigDict, method: methods.Pretraining, dataset: Dataset, mesh: Mesh) -> Monitor:
    seed = sub_seed(config.seed, "monitor")
    bank, queries = (
        Sample.draw(TileSource(source, config.data.tile, kind=tile_kind(dataset)), seed) if len(source) else None
        for source in (dataset.pool, dataset.val)
    )
    assert bank is not None
    return Monitor(method, mesh, bank, queries, config.pretrain.batch)
