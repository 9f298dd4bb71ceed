"""Small stand-ins for real runs: tiny networks, tiny images, every method."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from medssl_jax import methods
from medssl_jax.figures import detect
from medssl_jax.models import detector
from medssl_jax.train import feed, optimizer
from medssl_jax.train import mesh as meshes
from medssl_jax.train.state import State, init_state
from medssl_jax.train.step import make_step

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("tower", "simclr", "byol", "restoration", "spark", "local_discrimination", "shape_guided")
CHANNELS = 2


def config(name: str, argument: str = "small") -> ConfigDict:
    """The project's own config of that name."""
    spec = importlib.util.spec_from_file_location(f"configs_{name}", ROOT / "configs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def shrink(c: ConfigDict) -> ConfigDict:
    """The same experiment with a network and images that compile in seconds."""
    c.compilation_cache = ""
    c.data.tile, c.views.size = 28, 20
    c.model.update({"name": "unet", "width": 2, "depth": 2, "decoder_width": 2, "projection": (4, 4)})
    c.pretrain.update({"steps": 4, "batch": 8, "log_every": 2, "eval_every": 4, "checkpoint_every": 2})
    if "cells" in c.method:
        c.method.update({"cells": 4, "clusters": 3, "dimensions": 4, "stage_one": 0.25})
    c.finetune.update({"patch": 16, "steps": 2, "batch": 4, "eval_every": 2, "seeds": 1})
    return c


def images(count: int = 16, side: int = 28, channels: int = CHANNELS) -> np.ndarray:
    """uint8 [N, S, S, C] with structure at several scales."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 200, (count, side // 4, side // 4, channels))
    return (coarse.repeat(4, 1).repeat(4, 2) + rng.integers(0, 55, (count, side, side, channels))).astype(np.uint8)


def discs(count: int = 16, side: int = 28) -> np.ndarray:
    """uint8 [N, S, S, 1], 255 within a disc: reference shapes for the methods that are guided by them."""
    rows, columns = np.ogrid[:side, :side]
    places = np.random.default_rng(2).uniform(side / 4, 3 * side / 4, (count, 2, 1, 1))
    return np.where((rows - places[:, 0]) ** 2 + (columns - places[:, 1]) ** 2 < (side / 5) ** 2, 255, 0).astype(np.uint8)[..., None]


def folder(path: Path, count: int = 8, side: int = 64, masks: bool = True, channels: int = 1) -> Path:
    """`count` images of blobs as files, with their masks where wanted."""
    rng = np.random.default_rng(0)
    (path / "images").mkdir(parents=True)
    if masks:
        (path / "masks").mkdir()
    for i in range(count):
        mask = np.zeros((side, side), np.uint8)
        y, x = rng.integers(0, side // 2, 2)
        mask[y : y + side // 2, x : x + side // 2] = 255
        image = np.clip(mask[..., None] // 2 + rng.integers(0, 60, (side, side, channels)), 0, 255).astype(np.uint8)
        Image.fromarray(image.squeeze()).save(path / "images" / f"cell{i}.png")
        if masks:
            Image.fromarray(mask).save(path / "masks" / f"cell{i}.png")
    return path


class Trainer:
    """A method with its optimizer on a mesh of `devices`, ready to step through batches of `images()`."""

    def __init__(self, c: ConfigDict, devices: int = 1, fsdp: bool = False) -> None:
        self.config, self.mesh = c, meshes.make_mesh(jax.devices()[:devices])
        self.method = methods.build(c, CHANNELS, "brightfield")
        update = optimizer.build(c.pretrain.optimizer, c.pretrain.steps)
        shapes = {"image": images(1)}

        def start(key: jax.Array) -> State:
            return init_state(self.method, update, key, shapes)

        self.places = meshes.shardings(jax.eval_shape(start, jax.random.key(0)), self.mesh, fsdp)
        self.start = jax.jit(start, out_shardings=self.places)
        self.step = make_step(self.method, update, self.mesh, self.places, c.pretrain.accumulate)

    def batches(self, start: int = 0):
        """Batch k holds images and slots that k alone decides."""
        data, batch, shapes = images(), self.config.pretrain.batch, discs()

        def local():
            k = start
            while True:
                index = np.random.default_rng(k).permutation(len(data))[:batch]
                yield {"image": data[index], "shape": shapes[index], "slot": np.arange(batch, dtype=np.int32)}
                k += 1

        return feed.from_host(self.mesh, local())

    def run(self, steps: int, state: State | None = None) -> tuple[State, list[dict[str, float]]]:
        """The state after `steps` more steps, and their logs."""
        state = self.start(jax.random.key(3)) if state is None else state
        batches, logs = self.batches(int(state.step)), []
        for _ in range(steps):
            state, log = self.step(state, next(batches))
            logs.append({name: float(value) for name, value in log.items()})
        return state, logs


def figure_sets(home: Path) -> Path:
    """The folders that the tables of compound figures read: two figures of grey panels on white, single images, layouts."""
    rng = np.random.default_rng(0)
    for name in ("compound_figures/images", "panel_layouts"):
        (home / name).mkdir(parents=True)
    for name, boxes in PANELS.items():
        image = np.full((200, 200, 3), 255, np.uint8)
        for x0, y0, x1, y1 in boxes:
            image[y0:y1, x0:x1] = rng.integers(0, 150, (y1 - y0, x1 - x0, 3))
        Image.fromarray(image).save(home / "compound_figures" / "images" / name)
    _table(home / "compound_figures" / "panels.csv", ["image", "x0", "y0", "x1", "y1"], [[n, *box] for n, b in PANELS.items() for box in b])
    _table(home / "compound_figures" / "index.csv", ["image", "n_panels"], [[name, len(boxes)] for name, boxes in PANELS.items()])
    for folder, count in (*SINGLES, *HELD_OUT):
        (home / folder).mkdir(parents=True)
        for i in range(count):
            coarse = rng.integers(30, 200, (3 if folder.startswith("chase") else 8, 8, 3), np.uint8).repeat(10, 0).repeat(10, 1)
            Image.fromarray(coarse).save(home / folder / f"{i}.png")
    layouts = [[f"{r}x{c}", 103 * x, 103 * y, 103 * x + 100, 103 * y + 100] for r, c in LAYOUTS for y in range(r) for x in range(c)]
    _table(home / "panel_layouts" / "imageclef2016_training_boxes.csv", ["figure", "x1", "y1", "x2", "y2"], layouts)
    return home


PANELS = {"one_a.png": [(10, 10, 90, 90), (110, 10, 190, 90)], "two_a.png": [(10, 10, 190, 90), (10, 110, 190, 190)]}
SINGLES = (("pbc_blood_cells/train/a", 2), ("pbc_blood_cells/train/b", 2), ("pbc_blood_cells/test/b", 3), ("chase_db1/images", 4))
TRAINED_ON = ("lc25000_histology", "cxr_montgomery", "dsb2018_nuclei")
HELD_OUT = tuple((f"{name}/{part}", 3) for name in TRAINED_ON for part in ("train/a", "train/b", "test/a"))
LAYOUTS = ((1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4))  # rows, columns of panels with 3 px between them


def untrained_run(folder: Path) -> Path:
    """A run directory with a small detector of 64 px that finds what random weights say."""
    folder.mkdir()
    shapes, _ = jax.eval_shape(detector(4, blocks=1).init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    detect.keep(folder, detect.Detector(weights, 4, 1, 64, 0.4))
    (folder / "config.json").write_text('{"data": {"path": "elsewhere"}}')
    return folder


def _table(path: Path, head: list[str], rows: list[list]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
