"""The story of a run: data -> pretrain -> fine-tune -> report."""

from __future__ import annotations

import dataclasses
import platform
import time
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from medssl_jax import pretrain as pretraining
from medssl_jax.data.sources import Dataset, Selection, describe, open_dataset
from medssl_jax.data.splits import Amount, choose, parse_amounts
from medssl_jax.data.tiles import TileSource
from medssl_jax.downstream.classification import Classifier
from medssl_jax.downstream.compare import Cell, Comparison, colour, labels_of, rows
from medssl_jax.downstream.finetune import Task
from medssl_jax.downstream.segmentation import Segmenter
from medssl_jax.errors import UserError
from medssl_jax.evaluate import METRICS_VERSION, PROBE_VERSION, baselines
from medssl_jax.figures import detect
from medssl_jax.figures import train as detectors
from medssl_jax.methods import DETECTOR, NO_METHOD, view_recipe
from medssl_jax.models import build_backbone, linear, pixel_head
from medssl_jax.pretrain import Pretrained
from medssl_jax.report import outlines, write_report
from medssl_jax.train import optimizer
from medssl_jax.train.logging import say, write_json
from medssl_jax.train.loop import StopRequest
from medssl_jax.train.mesh import check_batch, make_mesh
from medssl_jax.unlabelled import segment_all
from medssl_jax.workdir import claim

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "medssl_jax")
DEFAULT_AMOUNTS = {"segmentation": "1 image, 4 images, all", "classification": "1%, 10%, all"}
NAMES = {"pool": "training", "val": "validation", "test": "test"}
GUIDED = "shape_guided"
SAMPLE_AMOUNTS = "1 patch, 4 patches, 16 patches, all"


def run(config: ConfigDict, workdir: Path, command: str) -> None:
    """Run the experiment, or what is left of it, and leave results.json and report.html in `workdir`; for the detector of compound figures,
    the detector."""
    began = time.perf_counter()
    mesh = make_mesh()
    if config.method.name == DETECTOR:
        _detector(config, mesh, workdir, command)
        return
    dataset = open_dataset(config.data)
    for note in dataset.notes:
        say(f"Data: {note}")
    pretraining.check(config, dataset, mesh)
    check(config, dataset, mesh)
    continued = claim(workdir, config)
    with StopRequest() as stop:
        pretrained = pretraining.pretrain(config, dataset, mesh, workdir, stop)
        segmented = config.method.name == GUIDED and "cluster" in pretrained.parts
        unlabelled = segment_all(config, dataset, pretrained, mesh, workdir, stop) if segmented else []
        records = compare(config, dataset, pretrained, mesh, workdir, stop) + unlabelled
    total = round(time.perf_counter() - began, 1)
    seconds = {"since the last start": total} if continued else {"total": total}
    if not continued and pretrained.seconds and not config.pretrain.from_run:
        seconds = {"pretrain": round(pretrained.seconds, 1), **seconds}
    write_json(workdir / "results.json", records)
    write_json(workdir / "summary.json", _summary(config, dataset, pretrained, mesh, command, seconds))
    if jax.process_index() == 0:
        print(write_report(workdir))
    say(f"Report: {workdir / 'report.html'}")


def _detector(config: ConfigDict, mesh: Mesh, workdir: Path, command: str) -> None:
    """Train the detector and leave its scores on simulated validation figures; a finished one is only named."""
    results = workdir / "results.json"
    use = f"python -m medssl_jax.separate --figures=DIR --out=DIR --run={workdir}"
    if (workdir / detect.ABOUT).exists() and results.exists():
        say(f"The run in {workdir} is finished: {use}. Choose another --workdir to run again.")
        return
    began = time.perf_counter()
    pools = detectors.check(config, mesh)
    for note in pools.notes:
        say(f"Data: {note}")
    continued = claim(workdir, config)
    with StopRequest() as stop:
        scores = detectors.run(config, mesh, workdir, stop, pools)
    seconds = {"since the last start" if continued else "total": round(time.perf_counter() - began, 1)}
    write_json(workdir / "summary.json", {"method": config.method.name, "notes": pools.notes, **_how(mesh, command, seconds)})
    write_json(results, detectors.rows(config, scores))
    say(f"On {config.figures.validation} simulated figures: AP@.5 {scores['ap50']:.3f}, AP@.5:.95 {scores['ap']:.3f}. Detector: {use}")


def check(config: ConfigDict, dataset: Dataset, mesh: Mesh) -> None:
    """Raises UserError, before the hours of pretraining, for what the fine-tuning after it would refuse."""
    if not _can_compare(dataset):
        if config.method.name == NO_METHOD:
            raise UserError(f"there is nothing to do without pretraining and without fine-tuning: {_why_not(dataset)}.")
        say(f"There will be no fine-tuning: {_why_not(dataset)}.")
        return
    if dataset.task == "segmentation":
        _check_masks(dataset)
    check_batch(config.finetune.batch, 1, mesh, "finetune.batch")
    if config.finetune.unlabelled and config.data.placement == "host":
        raise UserError(
            "config.finetune.unlabelled keeps the unlabelled images in the accelerator's memory, and config.data.placement='host' keeps "
            "them out; set one of them otherwise."
        )
    if not config.pretrain.from_run:
        _inits(config, config.method.name, dataset.task == "segmentation")
    optimizer.build(config.finetune.optimizer, config.finetune.steps, option="finetune.optimizer")
    for amount in _amounts(config, dataset):
        for repeat in range(config.finetune.seeds):
            subset = labels_of(config, dataset, amount, repeat)
            if dataset.task == "segmentation":
                TileSource(Selection(dataset.pool, subset.indices), config.finetune.patch, kind="grid", option="finetune.patch")


def _check_masks(dataset: Dataset) -> None:
    """Raises UserError where the masks of a part show no foreground, or nothing else."""
    for part in NAMES:
        source = getattr(dataset, part)
        masked = [i for i in range(len(source)) if describe(source, i).masked]
        for every, what in ((0, "empty (every label is 0)"), (1, "full (no label is 0, the background)")):
            alike = ((source[i]["mask"] > 0).mean() == every for i in masked)  # mostly the first one settles it
            if masked and (every == 0 or len(dataset.classes) == 2) and all(alike):
                raise UserError(
                    f"all {len(masked)} masks of the {NAMES[part]} images of {dataset.name} are {what}: nothing to segment; check the "
                    "masks, or pretrain without them with --config.data.task=none."
                )


def _can_compare(dataset: Dataset) -> bool:
    return dataset.task != "none" and len(dataset.test) > 0


def _why_not(dataset: Dataset) -> str:
    if dataset.task == "none":
        return "the images have no labels; masks or class folders would allow it"
    return "there are no labelled test images; label more images, or give some to the test part"


def compare(
    config: ConfigDict, dataset: Dataset, pretrained: Pretrained, mesh: Mesh, workdir: Path, stop: StopRequest
) -> list[dict[str, Any]]:
    """Fine-tune from every initial weight on every amount of labels; tidy rows, the trivial levels among them."""
    if not _can_compare(dataset):
        say(f"No fine-tuning: {_why_not(dataset)}.")
        return []
    amounts, inits = (
        _amounts(config, dataset),
        _inits(config, pretrained.method, "decoder" in pretrained.parts and dataset.task == "segmentation"),
    )
    cells = [Cell(init, amount, s) for amount in amounts for s in range(config.finetune.seeds) for init in inits]
    comparison = Comparison(config, dataset, build_task(config, dataset), pretrained.parts, mesh, workdir)
    about = {"experiment": config.name, "dataset": dataset.name, "task": dataset.task}
    found = rows(comparison.run(cells, stop), about, config.seed)
    if dataset.task == "segmentation" and jax.process_index() == 0:
        _picture(workdir, dataset, cells)
    return found + [{**about, **row, "seed": config.seed} for row in baselines.levels(dataset) + colour(config, dataset, cells)]


def build_task(config: ConfigDict, dataset: Dataset) -> Task:
    """What is fine-tuned: a segmenter or a classifier of the data set's classes."""
    backbone = build_backbone(config.model)
    views = dataclasses.replace(view_recipe(config, dataset.channels, dataset.modality), scale=tuple(config.finetune.scale))
    if dataset.task == "segmentation":
        return Segmenter(backbone, pixel_head(len(dataset.classes)), views)
    return Classifier(backbone, linear(len(dataset.classes)), views)


def _amounts(config: ConfigDict, dataset: Dataset) -> list[Amount]:
    if config.finetune.labels != "auto":
        return parse_amounts(config.finetune.labels)
    usual = parse_amounts(SAMPLE_AMOUNTS if dataset.name == "sample" else DEFAULT_AMOUNTS[dataset.task])
    return [amount for amount in usual if str(amount) == "all" or _exists(dataset, amount, config.finetune.patch)]


def _exists(dataset: Dataset, amount: Amount, patch: int) -> bool:
    """Whether there are so many labels, and more: the amount is not all of them under another name."""
    try:
        chosen = choose(dataset, amount, 0, patch)
    except UserError:
        return False
    return amount.unit == "patch" or len(chosen.indices) < len(choose(dataset, Amount(1.0, "fraction"), 0, patch).indices)


def _inits(config: ConfigDict, method: str, decoder: bool) -> list[str]:
    """random, and where something was pretrained the method, and its encoder alone where it has a decoder that the task uses."""
    pretrained = [method, *([f"{method}/encoder"] if decoder else [])]
    possible = ["random"] + (pretrained if method != NO_METHOD else [])
    if config.finetune.inits == "auto":
        return possible
    chosen = list(dict.fromkeys(name.strip() for name in config.finetune.inits.split(",")))
    for name in chosen:
        if name not in possible:
            raise UserError(f"config.finetune.inits names {name!r}; this run has {', '.join(possible)}.")
    return chosen


def _picture(workdir: Path, dataset: Dataset, cells: list[Cell]) -> None:
    """Test images with truth and prediction outlines, at the largest amount short of all labels, first repeat."""
    amounts = list(dict.fromkeys(c.amount for c in cells))
    amount = next((a for a in reversed(amounts) if str(a) != "all"), amounts[-1])
    shown = [c for c in cells if c.amount == amount and c.subset == 0]
    test = [dataset.test[i] for i in range(min(3, len(dataset.test)))]
    maps = {}
    for cell in shown:
        path = workdir / "finetune" / f"{cell.file}.npz"
        try:
            with np.load(path) as file:
                maps[cell.init] = [file[f"arr_{i}"] for i in range(len(test))]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            what = f"{path} is damaged; delete it and {path.with_suffix('.json').name} beside it, and start the same command again."
            raise UserError(what) from error
    outlines(workdir / "figures" / "predictions.png", [t["image"] for t in test], [t["mask"] for t in test], maps, [t["id"] for t in test])


def _summary(
    config: ConfigDict, dataset: Dataset, pretrained: Pretrained, mesh: Mesh, command: str, seconds: dict[str, float]
) -> dict[str, Any]:
    sizes = {name: len(getattr(dataset, name)) for name in ("pool", "val", "test")}
    about = {k: getattr(dataset, k) for k in ("name", "task", "classes", "channels", "modality", "licence", "citation", "notes")}
    return {
        "dataset": {**about, **sizes, "dtype": str(dataset.dtype)},
        "method": pretrained.method,
        **_how(mesh, command, seconds),
        "warnings": list(pretrained.warnings),
    }


def _how(mesh: Mesh, command: str, seconds: dict[str, float]) -> dict[str, Any]:
    """By what command, how long, on what, with which versions."""
    device = mesh.devices.flat[0]
    return {
        "command": command,
        "seconds": seconds,
        "device": f"{mesh.size} x {device.device_kind} ({platform.machine()})",
        "versions": {name: version(name) for name in PACKAGES} | {"metrics": METRICS_VERSION, "probes": PROBE_VERSION},
    }
