"""Single images left whole: folders of figures hold them too, and scores of compound figures do not show what is cut through there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import commit, semireal
from experiments.cut_tables import NOTHING, markdown
from experiments.cutters import CONTROL, DETECTOR, GROUP, Cutter, cut_out
from medssl_jax.config import base
from medssl_jax.data.dataset import Source, Unlabelled
from medssl_jax.data.sources import open_dataset
from medssl_jax.data.stream import sub_seed
from medssl_jax.figures.rgb import to_rgb
from medssl_jax.train.logging import read_json, say, write_json

RECORD = "figures_single.json"
UNSEEN = semireal.SINGLES  # no detector is trained on them
HELD_OUT = ("lc25000_histology", "cxr_montgomery", "dsb2018_nuclei")  # test images of what the package's detector was trained on
NEEDED = (*UNSEEN, *HELD_OUT)  # below the folder of the data sets
MOST = 200  # images of a set
SEED = 0


def measure(data: Path, ways: Mapping[str, Cutter], record: Path) -> int:
    """How many images of each set are left whole, by each way to cut, into `record`; 0. Raises UserError for what cannot be read."""
    found = {}
    for name in NEEDED:
        images = list(_images(data / name, name in UNSEEN))
        found[name] = {"images": len(images), **{way: _whole(images, ways[way]) for way in (DETECTOR, CONTROL)}}
        say(f"single: of {len(images)} images of {name} {found[name][DETECTOR]} are left whole by the detector.")
    about = {"seed": SEED, "code": commit.current(), "detector": ways[DETECTOR].mark}
    write_json(record, {**about, "sets": found})
    print(table(record))
    return 0


def table(record: Path) -> str:
    """Markdown: the share of images left whole, a line a set."""
    if not record.exists():
        return NOTHING
    sets = read_json(record, dict, "measure again")["sets"]
    lines = [["single images left whole", "images", DETECTOR, CONTROL]]
    for name, row in sets.items():
        title = f"{name}{'' if name in UNSEEN else ', held out'}"
        lines.append([title, str(row["images"]), *(f"{row[way] / row['images']:.3f}" for way in (DETECTOR, CONTROL))])
    return markdown(lines)


def _images(path: Path, every: bool) -> Iterator[np.ndarray]:
    """Some images uint8 [H, W, 3] of a set: of all its parts, or of its test images."""
    source = semireal.every_image(path) if every else _test_images(path)
    order = np.random.default_rng(sub_seed(SEED, f"single/{path.name}")).permutation(len(source))[:MOST]
    return (to_rgb(Unlabelled(source)[int(index)]["image"]) for index in order)


def _test_images(path: Path) -> Source:
    options: Any = base().data
    options.update({"path": str(path), "tile": semireal.SIDE})
    return open_dataset(options).test


def _whole(images: list[np.ndarray], way: Cutter) -> int:
    """How many of the images are not cut."""
    groups = (images[start : start + GROUP] for start in range(0, len(images), GROUP))
    found = itertools.chain.from_iterable(way.find(group) for group in groups)
    return sum(int(cut_out(one, way.sure).sum()) < 2 for one in found)
