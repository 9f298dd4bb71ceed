"""The comparison: initial weights x label amounts x repeats, each cell recorded on its own so that a run can stop anywhere."""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from medssl_jax.data.sources import Dataset, Source, Unlabelled
from medssl_jax.data.splits import Amount, Subset, choose, label_seed
from medssl_jax.data.stream import sub_seed
from medssl_jax.data.tiles import TileSource, load_all
from medssl_jax.downstream.classification import Classifier
from medssl_jax.downstream.finetune import FineTuner, Task
from medssl_jax.downstream.predict import batched, segment
from medssl_jax.errors import UserError
from medssl_jax.evaluate import baselines, classification_metrics, knn_accuracy, ridge_accuracy, segmentation_metrics
from medssl_jax.methods.calibrate import Calibration
from medssl_jax.train import agree
from medssl_jax.train import mesh as meshes
from medssl_jax.train.logging import read_json, say, write_json
from medssl_jax.train.loop import Interrupted, StopRequest
from medssl_jax.train.state import State

VALIDATION_OVERLAP = 0.25  # validation looks often; the test is looked at once, with windows half over each other
TEST_OVERLAP = 0.5


@dataclasses.dataclass(frozen=True)
class Cell:
    """One fine-tuning: initial weights, an amount of labels, and the repeat that chooses both the labels and the seed."""

    init: str
    amount: Amount
    subset: int

    @property
    def file(self) -> str:
        """A file name without signs that file systems mind."""
        return re.sub(r"[^a-z0-9.]+", "_", f"{self.init} {self.amount} {self.subset}")


class Comparison:
    """Runs the cells of one task on one data set."""

    def __init__(self, config: ConfigDict, dataset: Dataset, task: Task, parts: Mapping[str, Any], mesh: Mesh, workdir: Path) -> None:
        self.config, self.dataset, self.task, self.mesh = config, dataset, task, mesh
        self.segmenting = dataset.task == "segmentation"
        self.parts, self.folder = parts, workdir / "finetune"
        self.folder.mkdir(exist_ok=True)
        side = config.finetune.patch if self.segmenting else config.data.tile
        target = {"mask": np.zeros((1, side, side), np.int32)} if self.segmenting else {"label": np.zeros(1, np.int32)}
        batch = {"image": np.zeros((1, side, side, dataset.channels), dataset.dtype), **target}
        norms = config.finetune.norms if config.finetune.norms != "auto" else "pool" if self.segmenting else "batch"
        # the probes of a classification need the pool's statistics for all weights alike: pretrained parts bring theirs, random ones none
        self._calibrate = self._calibration() if norms == "pool" or not self.segmenting else None
        calibration = self._calibrate if norms == "pool" else None
        unlabelled = load_all(self._pool())["image"] if config.finetune.unlabelled else None
        self.tuner = FineTuner(task, config.finetune, mesh, batch, calibration, unlabelled)
        self.tuner.check(parts)  # parts that do not fit are told before the first cell, not at theirs
        # a part of a classification, read once: its images are small
        self._whole = functools.cache(lambda part: load_all(TileSource(getattr(dataset, part), config.data.tile, kind="whole")))
        self._predict = jax.jit(self.tuner.task.predict, out_shardings=meshes.replicated(mesh))
        if isinstance(task, Classifier):
            self._features = jax.jit(task.features, out_shardings=meshes.replicated(mesh))

    def _calibration(self) -> Calibration:
        return Calibration(self.task.backbone, self.task.recipe, self._pool(), self.mesh, sub_seed(self.config.seed, "calibrate"))

    def _pool(self) -> TileSource:
        """Unlabelled images, as fine-tuning shows them."""
        size, kind = self.config.data.tile, "whole"
        if self.segmenting:
            size, kind = min(size, self.config.finetune.patch), "grid"
        return TileSource(Unlabelled(self.dataset.pool), size, kind=kind)

    def run(self, cells: list[Cell], stop: StopRequest, done: Callable[[Cell], None] | None = None) -> list[dict[str, Any]]:
        """The records of all cells, running those that have none, and telling `done` of each of these; raises Interrupted between
        cells, and (one process) within one, which then starts over."""
        done_before = agree.from_first(lambda: [(self.folder / f"{cell.file}.json").exists() for cell in cells])
        missing = [cell for cell, there in zip(cells, done_before, strict=True) if not there]
        for number, cell in enumerate(missing, 1):
            if stop.requested or agree.preempted():
                raise Interrupted(f"{len(cells) - len(missing) + number - 1} of {len(cells)} fine-tunings are done", stop)
            self._record(cell, f"fine-tune {number}/{len(missing)}", stop)
            if done:
                done(cell)
        return agree.from_first(lambda: [self.record(cell) for cell in cells])

    def record(self, cell: Cell) -> dict[str, Any]:
        """What is known of a cell that was run. Raises UserError where it cannot be read."""
        remedy = "delete it and start the same command again, which then runs that fine-tuning again"
        path = self.folder / f"{cell.file}.json"
        found = read_json(path, dict, remedy)
        if lacking := [name for name in ("init", "labels", "label_unit", "subset", "metrics", "validation", "n") if name not in found]:
            raise UserError(f"{path} does not tell {', '.join(lacking)} (damaged, or of an older version); {remedy}.")
        return found

    def forget(self, cell: Cell) -> None:
        """Run the cell again, whatever is known of it."""
        (self.folder / f"{cell.file}.json").unlink(missing_ok=True)

    def _record(self, cell: Cell, title: str, stop: StopRequest) -> None:
        began = time.perf_counter()
        subset = labels_of(self.config, self.dataset, cell.amount, cell.subset)
        examples, parts = self._training(subset), {part: self.parts[part] for part in _parts_of(cell.init, self.parts)}
        seed = sub_seed(self.config.seed, f"subset {cell.subset}")
        best = self.tuner.run(
            examples,
            parts,
            seed,
            self._validate if len(self.dataset.val) else None,
            stop,
            f"{title} ({cell.init}, {cell.amount})",
        )
        assert best.weights is not None
        found, shown = self._score("test", *best.weights, TEST_OVERLAP)
        found |= {} if self.segmenting else self._probe(examples, parts, seed)
        say(f"{title}: {cell.init}, {cell.amount}, repeat {cell.subset}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
        if jax.process_index() == 0 and cell.subset == 0:
            np.savez_compressed(self.folder / f"{cell.file}.npz", *shown)
        record = {"init": cell.init, "labels": cell.amount.value, "label_unit": cell.amount.unit, "subset": cell.subset}
        validation, looks = (best.score, best.looks) if len(self.dataset.val) else (None, [])
        record |= {"choice": subset.record(), "metrics": found, "validation": validation, "selected_step": best.step, "looks": looks}
        write_json(self.folder / f"{cell.file}.json", record | {"n": len(self.dataset.test), "seconds": time.perf_counter() - began})

    def _training(self, subset: Subset) -> dict[str, np.ndarray]:
        """The labelled examples as arrays of one shape: patches as they are, images cut into tiles."""
        examples = subset.examples(self.dataset)
        if self.segmenting:
            tiles = load_all(TileSource(examples, self.config.finetune.patch, kind="grid", option="finetune.patch"))
            return {"image": tiles["image"], "mask": tiles["mask"]}
        tiles = load_all(TileSource(examples, self.config.data.tile, kind="whole"))
        return {"image": tiles["image"], "label": tiles["label"].astype(np.int32)}

    def _probe(self, examples: dict[str, np.ndarray], parts: Mapping[str, Any], seed: int) -> dict[str, float]:
        """What the encoder knows before it is fine-tuned: neighbours and ridge regression on its features of the labelled images."""
        assert self._calibrate is not None
        _, params, carried = self.tuner.initial(seed, parts)
        encoder = self._calibrate({"encoder": {"params": params["encoder"], "stats": carried["stats"]["encoder"]}})["encoder"]
        carried = {**carried, "stats": {**carried["stats"], "encoder": encoder["stats"]}}
        features = batched(self._features, params, carried, self.mesh, self._eval_batch())
        test = self._whole("test")
        found = (features(examples["image"]), examples["label"], features(test["image"]), test["label"])
        return {"knn_accuracy": knn_accuracy(*found), "ridge_accuracy": ridge_accuracy(*found)}

    def _validate(self, state: State) -> float:
        found, _ = self._score("val", state.params, state.carried, VALIDATION_OVERLAP)
        return found["dice" if self.segmenting else "balanced_accuracy"]

    def _score(self, part: str, params: Any, carried: Any, overlap: float) -> tuple[dict[str, float], list[np.ndarray]]:
        """Metrics over a whole part (val, test), and the predictions themselves (class maps, or probabilities [N, K])."""
        predict = batched(self._predict, params, carried, self.mesh, self._eval_batch())
        if not self.segmenting:
            tiles = self._whole(part)
            probabilities = predict(tiles["image"])
            return classification_metrics(probabilities, tiles["label"]), [probabilities]
        source: Source = getattr(self.dataset, part)
        truths: list[np.ndarray] = []

        def images() -> Iterator[np.ndarray]:
            """The images in order; their masks are kept on the way, so that each file is read once."""
            for i in range(len(source)):
                example = source[i]
                truths.append(example["mask"])
                yield example["image"]

        maps = list(segment(predict, images(), self.config.views.size, overlap))
        return segmentation_metrics(maps, truths, len(self.dataset.classes)), maps

    def _eval_batch(self) -> int:
        return -(-max(self.config.finetune.batch, 32) // self.mesh.size) * self.mesh.size


def _parts_of(init: str, parts: Mapping[str, Any]) -> tuple[str, ...]:
    """The pretrained parts an init's name asks for: none for random, one for `tower/encoder`, all for `tower`."""
    if init == "random":
        return ()
    return (init.split("/")[1],) if "/" in init else tuple(parts)


def labels_of(config: ConfigDict, dataset: Dataset, amount: Amount, repeat: int) -> Subset:
    """The labels of a repeat: those that `config.data.seed` chooses, whatever is fine-tuned."""
    return choose(dataset, amount, label_seed(config.data.seed, repeat), config.finetune.patch)


def colour(config: ConfigDict, dataset: Dataset, cells: list[Cell]) -> list[dict[str, Any]]:
    """Classification's level to beat: rows of logistic regression on colour histograms, on the cells' choices of labels."""
    if dataset.task != "classification":
        return []
    test = [dataset.test[i] for i in range(len(dataset.test))]
    found = []
    for amount, repeat in dict.fromkeys((cell.amount, cell.subset) for cell in cells):
        examples = labels_of(config, dataset, amount, repeat).examples(dataset)
        metrics = baselines.colour_histogram([examples[i] for i in range(len(examples))], test, len(dataset.classes))
        record = {"init": baselines.COLOUR_HISTOGRAM, "labels": amount.value, "label_unit": amount.unit, "subset": repeat}
        found.append({**record, "metrics": metrics, "n": len(test)})
    return rows(found, {}, config.seed)


def rows(records: list[dict[str, Any]], about: dict[str, str], seed: int) -> list[dict[str, Any]]:
    """Tidy rows, one a metric, of the cells' records; `about` holds experiment, dataset and task."""
    keys = ("init", "labels", "label_unit", "subset")
    return [
        {**about, **{k: r[k] for k in keys}, "seed": seed, "metric": metric, "value": value, "n": r["n"]}
        for r in records
        for metric, value in r["metrics"].items()
    ]
