"""What the tables compare: data sets x arms x repeats x amounts of labels."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.records import Book, Key
from medssl_jax.config import LAYOUT, flat, validate
from medssl_jax.data.splits import Amount, parse_amounts
from medssl_jax.downstream.compare import Cell
from medssl_jax.errors import UserError
from medssl_jax.evaluate import METRICS_VERSION, PROBE_VERSION
from medssl_jax.figures.style import Style

LEVELS = "levels"  # the records of what needs no network
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
BUDGETS = {"small": "two CPU cores", "full": "an accelerator"}
# Each with a seed of its own (of pretraining, fresh weights, order and augmentation) and a choice of labels of its own, so that the
# paired differences are independent: with every seed on every choice, intervals and tests are too narrow (experiments/README.md).
REPEATS = 3
NOT_OF_A_CELL = LAYOUT | {
    "seed",
    "data.path",
    "data.slide_level",
    "data.slide_mpp",
    "data.slide_tissue",
    "finetune.labels",
    "finetune.inits",
    "finetune.seeds",
}  # where it lies, how slides are read (none of the sets is of slides), and which cells were run

Options = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Mining:
    """Simulated compound figures are made of a `share` of the training images (the others are the labelled ones): `figures` of them a
    repeat, out of which every arm pretrains on `images` of its kind."""

    share: float = 0.8
    figures: int = 800
    images: int = 800


@dataclasses.dataclass(frozen=True)
class DataSet:
    """`path` below the folder of data sets ("": the built-in sample), amounts of labels, options of each budget, and where the arms do not
    pretrain on its own images, the figures that are made of these."""

    name: str
    path: str
    amounts: str
    small: Options
    full: Options = dataclasses.field(default_factory=dict)
    segmentation: bool = True
    mining: Mining | None = None


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to start a fine-tuning: a file of configs/ with options, and which `inits` of its runs are compared.

    `only` names the amounts of labels that the arm is run at (empty: all of the data set's); `pool` what it pretrains on of what was mined
    (`experiments.mining`; empty: the training images).
    """

    name: str
    title: str
    config: str
    inits: tuple[str, ...]
    options: Options = dataclasses.field(default_factory=dict)
    only: tuple[str, ...] = ()
    pool: str = ""


@dataclasses.dataclass(frozen=True)
class Group:
    """The cells that share one pretraining: a data set, an arm and a repeat."""

    data: DataSet
    arm: Arm
    repeat: int
    budget: str

    def config(self, folder: Path) -> ConfigDict:
        """The resolved config, its data below `folder`."""
        size = "paper" if self.budget == "full" else "small"
        config = runpy.run_path(str(CONFIGS / f"{self.arm.config}.py"))["get_config"](size)
        for key, value in {**_COMMON[self.budget], **getattr(self.data, self.budget), **self.arm.options}.items():
            set_option(config, key, value)
        config.seed = self.repeat
        config.data.path = str(folder / self.data.path) if self.data.path else ""
        config.finetune.labels = ", ".join(map(str, self.amounts))
        config.finetune.inits = ", ".join(self.inits)
        validate(config)
        return config

    @property
    def amounts(self) -> list[Amount]:
        """Of labels, from few to all."""
        amounts = parse_amounts(self.data.amounts)
        return [a for a in amounts if not self.arm.only or str(a) in self.arm.only]

    def name(self, init: str) -> str:
        """What a fine-tuning from `init` is called in the tables: the arm, or its encoder alone."""
        _, _, part = init.partition("/")
        return f"{self.arm.name}/{part}" if part else self.arm.name

    def key(self, cell: Cell) -> Key:
        """The cell's place among the records of its group."""
        return self.name(cell.init), cell.amount.unit, cell.amount.value, cell.subset

    def book(self, records: Path) -> Book:
        """Where the group's cells are recorded, below the folder of all records."""
        wanted = {**options(self.config(Path())), **self.mined}
        return Book(records / self.budget / self.data.name / f"{self.arm.name}-{self.repeat}.jsonl", wanted, digest(wanted))

    def levels(self, records: Path) -> Book:
        """Where what needs no network is recorded, for all amounts and repeats of the group's data set."""
        wanted = {**options(self.config(Path())), **self.mined, "amounts": self.data.amounts, "repeats": REPEATS}
        return Book(records / self.budget / self.data.name / f"{LEVELS}.jsonl", wanted, digest(wanted))

    @property
    def pretraining(self) -> tuple[str, int, str]:
        """What groups have in common that start from one pretraining: the data set, the repeat and the options."""
        return self.data.name, self.repeat, digest({**pretraining_options(self.config(Path())), **self.mined})

    @property
    def mined(self) -> Options:
        """What the arm's images were mined from and how, as options; none where the data set's own are used."""
        if self.data.mining is None:
            return {}
        recipe = {**dataclasses.asdict(self.data.mining), "pool": self.arm.pool, "style": digest(dataclasses.asdict(Style()))}
        return {f"mining.{name}": value for name, value in recipe.items()}

    @property
    def inits(self) -> list[str]:
        """What is compared: a classification leaves the decoder aside, and an encoder alone is the whole arm."""
        return [init for init in self.arm.inits if self.data.segmentation or "/" not in init]

    def cells(self) -> list[Cell]:
        """One fine-tuning each."""
        return [Cell(init, amount, self.repeat) for amount, init in itertools.product(self.amounts, self.inits)]


def options(config: ConfigDict) -> dict[str, Any]:
    """The options that decide a cell's numbers beside its place in the grid, and the versions of what is measured."""
    kept = {key: value for key, value in sorted(flat(config).items()) if key not in NOT_OF_A_CELL}
    return {**kept, "metrics": METRICS_VERSION, "probes": PROBE_VERSION}


def pretraining_options(config: ConfigDict) -> dict[str, Any]:
    """Those of `options` that a pretraining goes by."""
    return {key: value for key, value in options(config).items() if "." in key and not key.startswith("finetune.")}


def digest(tree: Any) -> str:
    """Eight hexadecimal digits of a tree of plain values."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=list).encode()).hexdigest()[:8]


def groups(table: str, budget: str) -> Iterator[Group]:
    """The groups of a table, the first repeat of all data sets and arms first; of arms that are one in this budget (TOWER and TOWER as
    published in `full`) the first. Raises UserError for a table that is none."""
    if table not in TABLES:
        raise UserError(f"there is no table {table!r}; choose one of {', '.join(TABLES)}.")
    for repeat, (name, arms) in itertools.product(range(REPEATS), TABLES[table].items()):
        found: dict[tuple, Group] = {}
        for group in (Group(DATA[name], ARMS[arm], repeat, budget) for arm in arms):
            found.setdefault((digest(options(group.config(Path()))), *group.inits, *group.amounts, group.arm.pool), group)
        yield from found.values()


def set_option(config: ConfigDict, key: str, value: Any) -> None:
    """The option at a dotted key, changed. Raises KeyError where there is none: an arm must not silently be another."""
    *path, last = key.split(".")
    for name in path:
        config = config[name]
    if last not in config:
        raise KeyError(f"there is no option {key} to change")
    config[last] = value


_HISTOLOGY = {"data.tile": 64, "views.modality": "histology", "finetune.batch": 16}
_LONGER = {"finetune.steps": 900, "finetune.eval_every": 100}  # better than 300 by 0.07 to 0.11 on blood cells (experiments/README.md)
_FRACTIONS = "1%, 2%, 5%, 10%, all"

_COMMON: dict[str, Options] = {"small": {"finetune.steps": 300, "finetune.eval_every": 50}, "full": {}}

_DATA = (
    DataSet("sample", "", "1 patch, 4 patches, 16 patches, all", {}, {"data.tile": 192, "views.size": 160, "finetune.patch": 64}),
    DataSet(
        "dsb2018_nuclei",
        "dsb2018_nuclei",
        "1%, 5%, 10%, 25%, all",
        # looks at the validation images, of which it has many, take as long as the steps between them
        {"data.resize": 128, "data.color": "gray", "views.modality": "fluorescence", "finetune.epochs": 1.0, "finetune.eval_every": 100},
        {"data.color": "gray", "views.modality": "fluorescence"},
    ),
    DataSet(
        "chase_db1",
        "chase_db1",
        "1 image, 2 images, 5 images, all",
        # better there than batch norm held at the pool's statistics, from all starts tried; in `full` those are of the labelled batches
        {"data.resize": 384, "views.modality": "fundus", "model.norm": "group"},
        {"views.modality": "fundus"},
    ),
    DataSet(
        "cxr_montgomery",
        "cxr_montgomery",
        "1 image, 5 images, 10%, 25%, all",
        {"data.resize": 64, "data.tile": 64, "views.modality": "xray"},
        {"views.modality": "xray"},
    ),
    *(
        DataSet(name, name, _FRACTIONS, {**_HISTOLOGY, **_LONGER}, {"data.tile": 224, "views.modality": "histology"}, False)
        for name in ("lc25000_histology", "pbc_blood_cells")
    ),
    DataSet(
        "pbc_mined",
        "pbc_blood_cells",
        "8 images, 40 images, all",
        _HISTOLOGY,
        {"data.tile": 224, "views.modality": "histology"},
        False,
        Mining(),
    ),
    DataSet(
        "organamnist",
        "organamnist/organamnist.npz",
        _FRACTIONS,
        {"data.tile": 28, "views.size": 24, "finetune.batch": 32, "finetune.epochs": 1.0, **_LONGER, "finetune.eval_every": 300},
        {"data.resize": 64, "data.tile": 64, "views.size": 64},
        False,
    ),
)
DATA = {data.name: data for data in _DATA}

_PAIR = {"method.partner": "clean"}  # the crop and its own corruption, as published
_CURVE = {"method.proxy.mask": "none"}  # the curves are the budget's own: random ones, and in full the paper's
_MASK = {"method.proxy.curve": "none", "method.proxy.mask": "block"}
_BOTH_TASKS = {"method.proxy.mask": "block"}
_NO_CONTRAST = {"method.contrastive_weight": 0.0, **_PAIR}
_CONTRAST = {"method.restoration_weight": 0.0, **_PAIR, **_BOTH_TASKS}
_PUBLISHED = {**_PAIR, "method.decorrelation": 0.0, "method.proxy.curve": "fixed", "method.proxy.mask": "block"}
_GENESIS = {
    "method.proxy.curve": "random",
    "method.proxy.curve_probability": 0.9,
    "method.proxy.inversion_probability": 0.5,
    "method.proxy.mask": "none",
    "method.proxy.shuffle_probability": 0.5,
    "method.proxy.paint_probability": 0.9,
}
_BOTH = ("tower", "tower/encoder")
_LOCAL = ("local_discrimination", "local_discrimination/encoder")
_FROZEN = {"finetune.transferred_rate": 0.0}
_NO_CLUSTERS = {f"method.weights.{term}": 0.0 for term in ("regions", "entropy", "balance")}
_FEW = ("1 patch", "4 patches", "1%", "10%", "1 image", "5 images")  # where unlabelled images are used too, and held networks compared

_ARMS = (
    Arm("random", "random weights", "supervised", ("random",)),
    Arm("simclr", "SimCLR", "simclr", ("simclr",)),
    Arm("byol", "BYOL", "byol", ("byol",)),
    Arm("spark", "SparK", "spark", ("spark", "spark/encoder")),
    Arm("genesis", "Models Genesis", "restoration", ("restoration",)),
    Arm("gen-nl", "restoration of tone curves", "tower", ("tower",), {**_NO_CONTRAST, **_CURVE}),
    Arm("gen-m", "restoration of masks", "tower", ("tower",), {**_NO_CONTRAST, **_MASK}),
    Arm("gen-nlm", "restoration of both", "tower", _BOTH, {**_NO_CONTRAST, **_BOTH_TASKS}),
    Arm("con-nlm", "InfoNCE on the proxy views, no restoration", "tower", ("tower",), _CONTRAST),
    Arm("tower", "TOWER", "tower", _BOTH),
    Arm("random+unlabelled", "random weights, mean teacher", "supervised", ("random",), {"finetune.unlabelled": True}, _FEW),
    Arm("tower+unlabelled", "TOWER, mean teacher", "tower", ("tower",), {"finetune.unlabelled": True}, _FEW),
    Arm("tower-contrast", "TOWER without restoration", "tower", ("tower",), {"method.restoration_weight": 0.0}),
    Arm("tower-restored", "TOWER without contrast", "tower", _BOTH, {"method.contrastive_weight": 0.0}),
    Arm("tower-w10", "TOWER, restoration weight 10", "tower", _BOTH, {"method.restoration_weight": 10.0}),
    Arm("tower-m", "TOWER, masks in place of tone curves", "tower", _BOTH, _MASK),
    Arm("tower-nlm", "TOWER, tone curves and masks", "tower", _BOTH, _BOTH_TASKS),
    Arm("tower-genesis", "TOWER, Models Genesis' corruptions", "tower", _BOTH, _GENESIS),
    Arm("tower-pair", "TOWER, the crop and its own corruption", "tower", _BOTH, _PAIR),
    Arm("tower-repeating", "TOWER, channels free to repeat each other", "tower", _BOTH, {"method.decorrelation": 0.0}),
    Arm("tower-published", "TOWER as published", "tower", _BOTH, {**_PUBLISHED, "method.proxy.inversion_probability": 0.5}),
    Arm("local", "Local Discrimination", "local_discrimination", _LOCAL),
    Arm("frozen-simclr", "SimCLR, held", "simclr", ("simclr",), _FROZEN, _FEW),
    Arm("frozen-tower", "TOWER, held", "tower", ("tower",), _FROZEN, _FEW),
    Arm("frozen-local", "Local Discrimination, held", "local_discrimination", _LOCAL, _FROZEN, _FEW),
    Arm("local-patches", "patch discrimination alone", "local_discrimination", _LOCAL[:1], {**_NO_CLUSTERS, "method.weights.mixup": 0.0}),
    Arm("local-mixup", "patches and mixup", "local_discrimination", _LOCAL[:1], _NO_CLUSTERS),
    Arm("local-regions", "patches, mixup and regions, as published", "local_discrimination", _LOCAL[:1], {"method.weights.balance": 0.0}),
    Arm("local-agreement", "agreement across views as well", "local_discrimination", _LOCAL[:1], {"method.weights.agreement": 1.0}),
    Arm("local-place", "same places of other images no negatives", "local_discrimination", _LOCAL[:1], {"method.same_place": 1}),
    Arm("mined-single", "the single images", "simclr", ("simclr",), pool="single"),
    Arm("mined-truth", "figures cut by truth", "simclr", ("simclr",), pool="truth"),
    Arm("mined-detector", "figures cut by the detector", "simclr", ("simclr",), pool="detector"),
    Arm("mined-xycut", "figures cut along blank lines", "simclr", ("simclr",), pool="xycut"),
    Arm("mined-whole", "figures not cut", "simclr", ("simclr",), pool="whole"),
)
ARMS = {arm.name: arm for arm in _ARMS}

_ABLATED = ("random", "con-nlm", "gen-nlm", *(name for name in ARMS if name == "tower" or name.startswith("tower-")))
_EVERY = tuple(name for name in ARMS if not name.startswith(("tower-", "local", "frozen-", "mined-")))
_UNLABELLED = tuple(name for name in ARMS if name.endswith("+unlabelled"))
_MAIN = ("random", "simclr", "byol", "spark", "genesis", "tower")
_PLACES = ("random", "simclr", "tower", "local", "frozen-simclr", "frozen-tower", "frozen-local")
_MINED = tuple(name for name in ARMS if name.startswith("mined-"))
_LOCAL_ABLATED = tuple(name for name in ARMS if name.startswith("local-"))

# Every arm on the sample; on the other sets those that a user chooses from.
TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "segmentation": {"sample": _EVERY, "cxr_montgomery": _MAIN, "dsb2018_nuclei": _MAIN, "chase_db1": _MAIN},
    "classification": {"pbc_blood_cells": (*_MAIN, *_UNLABELLED), "lc25000_histology": _MAIN, "organamnist": _MAIN},
    "ablation": {"sample": _ABLATED},
    "mining": {"pbc_mined": ("random", *_MINED)},
    "local": {
        "sample": (*_PLACES, *_LOCAL_ABLATED),
        "chase_db1": _PLACES,
        "cxr_montgomery": _PLACES,
        "dsb2018_nuclei": _PLACES,
    },
}
