"""What a shape-guided pretraining is for: masks of all images without a label, and their scores where the truth is known."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image

from medssl_jax import methods
from medssl_jax.data.references import reference_masks
from medssl_jax.data.sources import Dataset, Selection, Source, Unlabelled, describe
from medssl_jax.data.stream import sub_seed
from medssl_jax.data.tiles import TileSource, load_all
from medssl_jax.downstream.finetune import FineTuner
from medssl_jax.downstream.predict import batched, blend
from medssl_jax.downstream.refine import Refiner, SoftLabelled
from medssl_jax.downstream.unlabelled import SCALE, Guided, eight_bits, field_of_view, guided_maps, in_poses, level
from medssl_jax.evaluate import baselines, segmentation_metrics
from medssl_jax.methods.calibrate import Calibration
from medssl_jax.models import build_backbone, pixel_head
from medssl_jax.pretrain import Pretrained
from medssl_jax.report import guided, outlines
from medssl_jax.train import agree
from medssl_jax.train import mesh as meshes
from medssl_jax.train.logging import read_json, say, write_json
from medssl_jax.train.loop import StopRequest

CLUSTER, LIKENESS, REFINED = "cluster", "likeness", "refined"
PARTS = ("pool", "val", "test")
BATCH = 32  # windows at a time
PICTURED = 3  # images of a picture
POSES = {"one": (0,), "mirrored": (0, 4), "all": tuple(range(8))}  # of `augment.dihedral`, that an image is marked in
HALF = 0.5  # a pixel is like the structure above it

Segment = Callable[[Source], Iterator[np.ndarray]]  # images of any sizes -> class maps int32 [H, W], in order


class Prior(NamedTuple):
    """The share of an image that the references take, and the level above which the guided cluster's maps take as much."""

    share: float
    level: float


def segment_all(
    config: ConfigDict, dataset: Dataset, pretrained: Pretrained, mesh: Mesh, workdir: Path, stop: StopRequest
) -> list[dict[str, Any]]:
    """Masks of every image as PNG in `workdir`/segmentations, by the refined network; rows of the scores of all routes on the test images
    that have a mask. What is there already is not made again.
    """
    folder = workdir / "segmentations"
    record = folder / "scores.json"
    if not record.exists():
        folder.mkdir(exist_ok=True)
        pool = Unlabelled(dataset.pool)
        shares = [eight_bits(maps.cluster, inside) for maps, inside in _guided(config, dataset, pretrained, mesh, pool)]
        share = float(np.mean([mask.mean() for mask in reference_masks(config.method, dataset.pool, config.seed)]))
        prior = Prior(share, level(shares, share))
        say(f"The references take {prior.share:.1%} of an image; so does what the guided cluster's map has above {prior.level:.2f}.")
        predict = _refined(config, dataset, SoftLabelled(pool, shares, prior.level), prior.share, mesh, stop)
        found = _scores(config, dataset, pretrained, mesh, predict, prior, workdir / "figures")
        _picture(workdir / "figures" / "shapes.png", config, dataset, pretrained, mesh, predict)
        _write(folder, dataset, predict)
        write_json(record, found)
    found = agree.from_first(lambda: read_json(record, dict, "delete it and start the same command again"))
    about = {"labels": 0, "label_unit": "image", "subset": 0, "seed": config.seed}
    return [
        {"experiment": config.name, "dataset": dataset.name, "task": "segmentation", "init": init, **about}
        | {"metric": metric, "value": value, "n": scores["n"]}
        for init, scores in found.items()
        for metric, value in scores["metrics"].items()
    ]


def _refined(config: ConfigDict, dataset: Dataset, labelled: SoftLabelled, share: float, mesh: Mesh, stop: StopRequest) -> Segment:
    """A fresh network that learned from the soft labels of the pool, with the fine-tuning's options; it marks what its maps have above
    the level that leaves a share of the pool."""
    f = config.finetune
    tiles = load_all(TileSource(labelled, f.patch, option="finetune.patch"))
    recipe = dataclasses.replace(methods.view_recipe(config, dataset.channels, dataset.modality), scale=tuple(f.scale))
    task = Refiner(build_backbone(config.model), pixel_head(2), recipe)
    seen = TileSource(labelled.source, min(config.data.tile, f.patch))
    calibration = Calibration(task.backbone, recipe, seen, mesh, sub_seed(config.seed, "calibrate"))
    examples = {name: tiles[name] for name in ("image", "mask")}
    tuner = FineTuner(task, f, mesh, {name: array[:1] for name, array in examples.items()}, calibration)
    best = tuner.run(examples, {}, sub_seed(config.seed, "refine"), None, stop, "refine")
    assert best.weights is not None
    predict = jax.jit(in_poses(tuner.task.predict, POSES[config.method.poses]), out_shardings=meshes.replicated(mesh))
    network = batched(predict, *best.weights, mesh, -(-BATCH // mesh.size) * mesh.size)

    def maps(source: Source) -> Iterator[np.ndarray]:
        """The foreground's share of every pixel, in eight bits."""
        for sums in blend(network, (source[i]["image"] for i in range(len(source))), config.views.size):
            yield eight_bits(sums[..., 1] / sums.sum(-1), np.ones(sums.shape[:2], bool))

    least = SCALE * level(maps(labelled.source), share)
    return lambda source: (np.where(found > least, 1, 0) for found in maps(source))


def _guided(
    config: ConfigDict, dataset: Dataset, pretrained: Pretrained, mesh: Mesh, source: Source
) -> Iterator[tuple[Guided, np.ndarray]]:
    """Both maps of the images of a source, with where the field of view is."""
    method = methods.build(config, dataset.channels, dataset.modality)
    assert isinstance(method, methods.ShapeGuided)
    images, again = itertools.tee(source[i]["image"] for i in range(len(source)))
    for image, maps in zip(images, guided_maps(method, pretrained.parts, mesh, again, POSES[config.method.poses]), strict=True):
        yield maps, field_of_view(image) if method.bright else np.ones(image.shape[:2], bool)


def _scores(
    config: ConfigDict, dataset: Dataset, pretrained: Pretrained, mesh: Mesh, predict: Segment, prior: Prior, figures: Path
) -> dict[str, dict[str, Any]]:
    """Of every route, on the test images with a mask of one kind of foreground; {} where there are none. A classical
    filter is told the references' share too."""
    masked = [i for i in range(len(dataset.test)) if describe(dataset.test, i).masked]
    if not masked or len(dataset.classes) != 2:
        say("The masks found without labels are not scored: no test image has a mask of one kind of foreground.")
        return {}
    test = Selection(dataset.test, masked)
    guided = list(_guided(config, dataset, pretrained, mesh, test))
    maps = {
        CLUSTER: [(maps.cluster > prior.level) & inside for maps, inside in guided],
        LIKENESS: [(maps.likeness > HALF) & inside for maps, inside in guided],
        REFINED: list(predict(test)),
    }
    examples = [test[i] for i in range(len(test))]
    truths = [example["mask"] for example in examples]
    named = {f"{config.method.name}/{route}": masks for route, masks in maps.items()}
    images, titles = ([example[key] for example in examples[:PICTURED]] for key in ("image", "id"))
    if jax.process_index() == 0:
        outlines(figures / "segmentations.png", images, truths[:PICTURED], named, titles)
    found = {init: segmentation_metrics([mask.astype(np.int32) for mask in masks], truths) for init, masks in named.items()}
    if methods.chosen_modality(config, dataset.modality) == "fundus":  # what was used for vessels before networks
        found[baselines.FRANGI] = baselines.ridges(examples, [inside for _, inside in guided], prior.share)
    return {init: {"n": len(test), "metrics": metrics} for init, metrics in found.items()}


def _picture(path: Path, config: ConfigDict, dataset: Dataset, pretrained: Pretrained, mesh: Mesh, predict: Segment) -> None:
    """Some images of the pool, their guided maps and masks, and reference shapes."""
    source = Selection(Unlabelled(dataset.pool), range(min(PICTURED, len(dataset.pool))))
    maps = [maps.cluster for maps, _ in _guided(config, dataset, pretrained, mesh, source)]
    shapes = reference_masks(config.method, dataset.pool, config.seed)
    shown = [shapes[i % len(shapes)] for i in range(len(source))]
    masks = list(predict(source))
    if jax.process_index() == 0:
        guided(path, [source[i]["image"] for i in range(len(source))], maps, masks, shown)


def _write(folder: Path, dataset: Dataset, predict: Segment) -> None:
    """A mask a file, 0 or 255, named as its image is."""
    for part in PARTS:
        source = Unlabelled(getattr(dataset, part))
        for index, mask in enumerate(predict(source)):
            path = folder / f"{Path(describe(source, index).id).with_suffix('')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:  # all compute, one writes
                Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(path)
