"""What the arms of the table `mining` pretrain on: single images, compound figures made of them, or what is cut out of these.

A share of a data set's training images, the same in all repeats, makes the figures; the others are the labelled ones: no network has seen
them, nor the test. Every repeat has its own figures, with plots and blots among their panels as in the simulator's default style.
"""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from experiments.grid import Group, Mining, digest
from experiments.semireal import check_run
from medssl_jax.data.dataset import Dataset, Selection, Source, describe
from medssl_jax.data.sources import open_dataset
from medssl_jax.data.splits import split
from medssl_jax.data.stream import sub_seed
from medssl_jax.figures import detect
from medssl_jax.figures.boxes import clip
from medssl_jax.figures.distractors import IMAGE
from medssl_jax.figures.looks import PHOTOGRAPH
from medssl_jax.figures.separate import separate
from medssl_jax.figures.simulate import Figures
from medssl_jax.figures.singles import ByFolder
from medssl_jax.figures.task import PANELS, Task
from medssl_jax.train.logging import say
from medssl_jax.train.loop import Interrupted, StopRequest

SINGLE, WHOLE, TRUTH, DETECTOR, XYCUT = "single", "whole", "truth", "detector", "xycut"
FIGURES = "figures"
LEAST = 32  # px of the shorter side of a panel, as `separate` has it
SEED = 0  # of the division, which is the same in all repeats
TOLD = 200  # figures


def labelled(dataset: Dataset, mining: Mining) -> Dataset:
    """The data set without the training images that figures are made of."""
    names = set(single_images(dataset, mining))
    kept = [i for i in range(len(dataset.pool)) if describe(dataset.pool, i).id not in names]
    return dataclasses.replace(dataset, pool=Selection(dataset.pool, kept))


def single_images(dataset: Dataset, mining: Mining) -> list[str]:
    """The ids of the training images that figures are made of: the same share of every class."""
    infos = [describe(dataset.pool, i) for i in range(len(dataset.pool))]
    parts = split([info.label for info in infos], {"labelled": 1 - mining.share}, SEED)
    return [info.id for info, part in zip(infos, parts, strict=True) if part == "train"]


def mark(group: Group, run: Path | None) -> str:
    """Eight hexadecimal digits of the detector that cuts for the arm, that of a run or the one that ships; "" where none does.

    Raises UserError for a run without a detector, or with one that was trained on the group's data set.
    """
    if group.arm.pool != DETECTOR:
        return ""
    if run is not None:
        check_run(run, (group.data.path,), "the figures")
    return of_run(run)


@functools.lru_cache(maxsize=1)
def of_run(run: Path | None) -> str:
    """The mark of a run's detector, or of the one that ships. Raises UserError for a run without one."""
    return detect.Detector.load(run).mark


def pool(group: Group, dataset: Dataset, config: ConfigDict, workdir: Path, run: Path | None, stop: StopRequest) -> Dataset:
    """What the arm pretrains on: images without labels, as many as `Mining.images` says where there are so many.

    Args:
      group: its arm says of what kind.
      dataset: that of the group, all its training images.
      config: that of the group.
      workdir: where the figures, and what is cut out of them, are kept.
      run: a run of configs/simcfs.py, whose detector cuts; None for the one that ships.
      stop: raises Interrupted between two figures.
    """
    mining = group.data.mining
    assert mining is not None
    names = set(single_images(dataset, mining))
    if group.arm.pool == SINGLE:
        found = _only(_plain(config, resize=config.data.tile), names)
    else:
        home = workdir / f"mined-{group.data.name}-{group.repeat}-{_recipe(group)}"
        draw(home, _only(_plain(config, resize=0), names).pool, mining.figures, group.repeat, stop)
        folder = cut(home, group.arm.pool, run, mark(group, run))
        found = _plain(config, resize=config.data.tile, path=str(folder), splits="")
    order = np.random.default_rng(sub_seed(group.repeat, "mining/images")).permutation(len(found.pool))
    return dataclasses.replace(found, pool=Selection(found.pool, sorted(order[: mining.images].tolist())))


def draw(home: Path, singles: Source, count: int, seed: int, stop: StopRequest) -> None:
    """Leave `count` figures in `home`/figures, each with a single image at least, and these images, cut out by truth, in `home`/truth.

    What is there already stays; another process at the same figures is waited for.
    """
    for folder in (FIGURES, TRUTH):
        (home / folder).mkdir(parents=True, exist_ok=True)
    figures = Figures(ByFolder(singles), seed=seed)
    with (home / "figures.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for done, index in enumerate(itertools.islice(_with_images(figures), count), 1):
            if (home / FIGURES / f"{index:06d}.png").exists():
                continue
            if stop.requested:
                raise Interrupted(f"{done - 1} of {count} figures are drawn", stop)
            _save(home, figures, index)
            if done % TOLD == 0 or done == count:
                say(f"{done} of {count} figures are drawn.")


def cut(home: Path, way: str, run: Path | None, of: str) -> Path:
    """The folder of what is pretrained on: the figures themselves, or what was cut out of them and looks like a photograph."""
    if way in (WHOLE, TRUTH):
        return home / {WHOLE: FIGURES, TRUTH: TRUTH}[way]
    out = home / "-".join(filter(None, (way, of)))
    separate(Task(home / FIGURES, out, way, run if way == DETECTOR else None, min_side=LEAST))
    return out / PANELS[PHOTOGRAPH]


def _with_images(figures: Figures) -> Iterator[int]:
    """The figures that are not of plots, blots, tables, texts and diagrams alone."""
    return (index for index in itertools.count() if IMAGE in figures.plan(index).kinds)


def _save(home: Path, figures: Figures, index: int) -> None:
    """Write the single images of a figure, then the figure: where it is, they are."""
    figure = figures[index]
    image = figure["image"]
    boxes = np.rint(clip(figure["boxes"], (0, 0, image.shape[1], image.shape[0]))).astype(int)
    for number, ((x0, y0, x1, y1), kind) in enumerate(zip(boxes, figure["kinds"], strict=True), 1):
        if kind == IMAGE and min(x1 - x0, y1 - y0) >= LEAST:
            Image.fromarray(image[y0:y1, x0:x1]).save(home / TRUTH / f"{index:06d}_{number}.png")
    partial = home / f"{index:06d}.partial"
    Image.fromarray(image).save(partial, "PNG")
    partial.replace(home / FIGURES / f"{index:06d}.png")


def _recipe(group: Group) -> str:
    """What the figures of a repeat go by, in eight hexadecimal digits."""
    return digest({name: value for name, value in group.mined.items() if name not in ("mining.pool", "mining.images")})


def _plain(config: ConfigDict, **changes: Any) -> Dataset:
    """The data set of the config without labels, some of the options under config.data changed."""
    data = config.data.copy_and_resolve_references()
    data.update({"task": "none", **changes})
    return open_dataset(data)


def _only(dataset: Dataset, names: set[str]) -> Dataset:
    """The training images of these ids."""
    kept = [i for i in range(len(dataset.pool)) if describe(dataset.pool, i).id in names]
    return dataclasses.replace(dataset, pool=Selection(dataset.pool, kept))
