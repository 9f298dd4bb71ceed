"""Photographs and plots, drawn here and as they are in the image sets; blank pages."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from medssl_jax.data.formats import decode
from medssl_jax.figures.looks import is_blank, looks


def chart(kind, rng, quality=None):
    """A plot as matplotlib draws it, as a PNG or as a JPEG."""
    figure = Figure(figsize=(3, 2.4), dpi=110)
    axes = figure.subplots()
    if kind == "line":
        axes.plot(rng.normal(size=40).cumsum())
    elif kind == "bar":
        axes.bar(range(5), rng.random(5), color=mpl.color_sequences["tab10"][:5])
    elif kind == "scatter":
        axes.scatter(*rng.normal(size=(2, 200)), s=6)
    else:
        axes.axis("off")
        for row in range(8):
            axes.text(0, row / 8, "cells were incubated for two hours", fontsize=8)
    axes.set_xlabel("time (s)")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    picture = Image.open(file).convert("RGB")
    if quality:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        picture = Image.open(file)
    return np.asarray(picture)


def blobs(rng, ground, side=240):
    """Soft spots with noise, on a ground."""
    y, x = np.ogrid[:side, :side]
    image = np.full((side, side), float(ground))
    for row, column in rng.integers(0, side, (25, 2)):
        image += (180 - ground) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 200)
    image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255)
    return np.repeat(image[:, :, None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("kind", ["line", "bar", "scatter", "text"])
@pytest.mark.parametrize("quality", [None, 60])
def test_plots(kind, quality, rng):
    assert looks(chart(kind, rng, quality)) == "plot"


@pytest.mark.parametrize("ground", [5, 120, 250])
def test_soft_spots_are_a_photograph(ground, rng):
    assert looks(blobs(rng, ground)) == "photograph"


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (3, 2), (2000, 9)])
def test_any_size(shape):
    assert looks(np.full((*shape, 3), 90, np.uint8)) == "photograph"


@pytest.mark.parametrize("folder", ["cxr_montgomery/images", "chase_db1/images", "pbc_blood_cells/val", "dsb2018_nuclei/images"])
def test_single_images_are_photographs(datasets, folder):
    paths = sorted(path for path in (datasets / folder).rglob("*") if path.suffix in (".png", ".jpg"))[:25]
    found = [looks(np.ascontiguousarray(np.broadcast_to(image := decode(path), (*image.shape[:2], 3)))) for path in paths]
    assert found.count("photograph") >= 24


def test_blank_pages(rng):
    page = np.full((500, 400, 3), 252, np.uint8)
    assert is_blank(page)
    assert is_blank(np.clip(page + rng.normal(0, 5, page.shape), 0, 255).astype(np.uint8))
    page[100:102, 50:55] = 0  # dust
    assert is_blank(page)
    page[200:260, 100:104] = 0
    assert not is_blank(page)
    assert is_blank(np.zeros((9, 9, 3), np.uint8))
    assert not is_blank(blobs(rng, 5))


def test_dim_fluorescence_is_not_blank(rng):
    dim = (blobs(rng, 5).astype(float) / 6).astype(np.uint8)
    assert dim.max() - np.median(dim) < 42
    assert not is_blank(dim)
