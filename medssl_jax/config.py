"""Every option of the program with its default; a file in `configs/` starts from `base()` and changes what it is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from medssl_jax.errors import UserError

# Options that change where and how fast a run happens, not what it computes: a run may be continued with others.
LAYOUT = {
    "compilation_cache",
    "data.placement",
    "data.threads",
    "data.workers",
    "pretrain.fsdp",
    "pretrain.log_every",
    "pretrain.checkpoint_every",
    "pretrain.keep",
}

SHIPPED = "shipped"  # in place of a run directory: the detector of compound figures that comes with the package


def base(size: str = "small") -> ConfigDict:
    """The options all experiments share: `small` for two CPU cores, `paper` for the published recipes on an accelerator."""
    if size not in ("small", "paper"):
        raise UserError(f"a config comes as small or paper, not {size!r}; write --config=configs/tower.py:paper.")
    c = ConfigDict()
    c.name = "base"  # the experiment's name in results.json, and the default workdir runs/<name>
    c.seed = 0  # of weights, order and augmentation; what counts as test and as labelled goes by data.seed
    c.compilation_cache = "~/.cache/medssl_jax"  # compiled programs are kept here between runs; "" turns it off
    c.data = _data()
    c.views = _views()
    c.model = _model()
    c.method = ConfigDict({"name": "tower"})
    c.pretrain = _pretrain()
    c.finetune = _finetune()
    if size == "paper":
        _enlarge(c)
    return c


def proxy(**changes: Any) -> ConfigDict:
    """The corruptions of `augment.Proxy`, all off but those named."""
    p = ConfigDict()
    p.curve = "none"  # none | fixed (TOWER's six Bezier maps) | random (Models Genesis)
    p.curve_probability = 1.0
    p.inversion_probability = 0.5  # of the curves, how many turn bright into dark
    p.shuffle_probability = 0.0  # local pixel shuffling
    p.mask = "none"  # none | block | stripe | ray (fundus)
    p.zero_fraction = 0.5  # share of the cells (rows, rays) that the mask sets to zero
    p.mask_cells = 0  # cells along a side of the block mask; 0: by the crop's size
    p.paint_probability = 0.0  # in-painting or out-painting with noise
    p.inpaint_share = 0.2  # of the paintings
    p.warp_probability = 0.0  # free-form deformation
    p.update(changes)
    return p


def figures(**changes: Any) -> ConfigDict:
    """How simulated compound figures reach the detector; what they look like is `figures.style` (medssl_jax/figures/style.py)."""
    f = ConfigDict()
    f.size = 320  # side in pixels of the squares that figures are scaled into, a multiple of 64
    f.most = 48  # panels of a figure
    f.zoom = (0.75, 1.1)  # of a training view; each axis up to a tenth more or less
    f.validation = 128  # figures, of images held out
    f.update(changes)
    return f


def _data() -> ConfigDict:
    d = ConfigDict()
    # auto | sample | folder | npz | tfds | packed (by medssl_jax.pack) | slides (a folder of whole slides, read by tiles)
    # auto: the sample where no path is given, else by what the path is; slides must be named.
    d.source = "auto"
    d.path = ""  # a folder, an .npz file, or a TFDS directory; also by a URL (gs://, s3://, https://), which is copied to this machine once
    d.tfds_name = ""  # the TFDS builder, e.g. "patch_camelyon"
    d.splits = ""  # a CSV with the columns name (or file) and split (train | val | test); "" looks for train/ val/ test/ folders
    d.task = "auto"  # auto | segmentation | classification | none
    d.mask = "foreground"  # foreground: any non-zero label is 1 | classes: the label is the class
    d.color = "auto"  # auto (gray beside RGB becomes RGB) | gray | rgb
    d.window = (0.5, 99.5)  # percentiles of each 16-bit or float image that become 0 and 1; () keeps the values as they are
    d.resize = 0  # pixels of the shorter side that every image is scaled to on reading; 0: as it is (classification: data.tile)
    d.tile = 96  # side in pixels of the squares that images are cut into for training
    d.slide_level = 0  # slides: the copy that tiles of data.tile px are cut from; 0 is the largest
    d.slide_mpp = 0.0  # slides: microns per pixel of the tiles, scaled from the next finer level; 0: by slide_level
    d.slide_tissue = 0.25  # slides: share of a tile that must be tissue (medssl_jax/data/tissue.py says how it is told); 0 keeps all
    d.seed = 0  # of the split, where the data bring none, and of the choices of labels
    d.val_fraction = 0.15  # of the labelled images, where the data bring no split of their own
    d.test_fraction = 0.2
    d.on_damaged = "stop"  # stop | skip: what an unreadable image does
    d.placement = "device"  # device: all tiles in the accelerator's memory | host: read as they are needed
    d.threads = 4  # reading threads (placement=host)
    d.workers = 0  # reading processes (placement=host)
    return d


def _views() -> ConfigDict:
    v = ConfigDict()
    v.modality = "auto"  # auto | brightfield | fluorescence | histology | fundus | xray: the recipe of augmentations
    v.size = 64  # side in pixels of the crops that the network sees
    return v


def _model() -> ConfigDict:
    m = ConfigDict()
    m.name = "unet"  # unet | vgg16 | resnet18 | resnet34 | resnet50: the encoder of the U-Net
    m.width = 16  # channels of the first level; torchvision's ResNets have 64
    m.depth = 4  # levels of the plain U-Net
    # batch: by the statistics of a batch, or of the unlabelled images (finetune.norms) | group: every crop by its own, which was measured
    # to be better on vessels; there is nothing then for finetune.norms to choose.
    m.norm = "batch"
    m.decoder_width = 16  # channels of the decoder's finest level
    m.projection = (128, 64)  # hidden and output width of the projection head
    m.dtype = "float32"  # float32 | bfloat16: what the network computes in; parameters are always float32
    m.remat = False  # recompute activations in the backward pass: less memory, more time
    return m


def _optimizer(name: str, learning_rate: float, warmup: float) -> ConfigDict:
    o = ConfigDict()
    o.name = name  # adamw | sgd | lars (decay, trust ratio, rate, momentum) | lars_byol (momentum before the rate)
    o.learning_rate = learning_rate  # the peak; never scaled behind your back
    o.warmup = warmup  # fraction of the steps with a rising rate, before the cosine
    o.weight_decay = 1e-4  # not on biases and norms
    o.momentum = 0.9  # sgd, lars
    o.b2 = 0.999  # adamw: memory of the squared gradients
    o.clip = 1.0  # largest norm of the gradient; 0: no clipping
    return o


def _pretrain() -> ConfigDict:
    p = ConfigDict()
    # (On the command line also --config.pretrain.from.) A run directory to take the pretrained network from, instead of pretraining; a
    # detector goes on from it, or from "shipped" (SHIPPED).
    p.from_run = ""
    p.steps = 400
    p.batch = 32  # images a step, over all devices
    p.accumulate = 1  # micro-batches a step; negatives, batch statistics and correlations are those of a micro-batch
    p.optimizer = _optimizer("adamw", 2e-3, 0.1)
    p.fsdp = False  # shard parameters and optimizer state over the devices
    p.log_every = 20
    p.eval_every = 200  # probes and the collapse panel
    p.checkpoint_every = 200
    p.keep = 2  # checkpoints kept
    return p


def _enlarge(c: ConfigDict) -> None:
    """The size of the papers' experiments: ResNet-50 U-Net at 224 px, Adam without decay (TOWER's released defaults)."""
    c.data.tile, c.views.size = 256, 224
    c.model.update({"name": "resnet50", "width": 64, "projection": (2048, 128)})
    c.pretrain.update({"steps": 20_000, "log_every": 50, "eval_every": 1000, "checkpoint_every": 1000})
    c.pretrain.optimizer.update({"learning_rate": 1e-3, "warmup": 0.0, "weight_decay": 0.0, "b2": 0.99, "clip": 0.0})
    # long enough for norms to learn from the labelled batches, as the papers' do; held ones would not suit random weights that move far
    c.finetune.update({"patch": 256, "steps": 5000, "batch": 32, "eval_every": 250, "labels": "1%, 10%, all", "norms": "batch"})


def _finetune() -> ConfigDict:
    f = ConfigDict()
    f.labels = "auto"  # amounts to compare, e.g. "1 patch, 4 patches, 2 images, 10%, all"
    f.seeds = 3  # repeats of every amount; each has its own choice of labels
    f.inits = "auto"  # e.g. "random, tower, tower/encoder"
    f.scale = (0.7, 1.0)  # share of the area of a patch or tile in a training crop
    f.patch = 64  # side in pixels of a labelled patch
    f.steps = 100
    f.epochs = 2.0  # passes over the labelled patches or images, where these are more steps
    f.batch = 8
    f.optimizer = _optimizer("adamw", 1e-3, 0.1)
    f.transferred_rate = 1.0  # learning rate of pretrained parts, as a multiple of the rate of fresh ones
    # auto | pool: norms hold the statistics of the unlabelled images | batch: they take those of the labelled batches.
    # auto: pool for segmentation, where a patch or two have none worth taking, and batch for classification.
    f.norms = "auto"
    f.unlabelled = False  # learn from the unlabelled images too, by a mean teacher
    f.consistency_weight = 1.0  # of the teacher's and the student's agreement
    f.teacher_decay = 0.99
    f.head_warmup = 0.0  # fraction of the steps in which the head alone is trained
    f.eval_every = 25  # steps between the validations that select the weights
    return f


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values of a config, or of one read from JSON."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, (dict, ConfigDict)) else {f"{prefix}{name}": value}
    return found


def validate(config: ConfigDict) -> None:
    """Raises UserError for a value out of range, naming the key, the value and what is allowed."""
    for key, (allowed, holds) in _RULES.items():
        value = _at(config, key)
        if value is not None and not holds(value):
            raise UserError(f"config.{key}={value!r} is out of range; it must be {allowed}.")
    if config.views.size > config.data.tile:
        raise UserError(
            f"config.views.size={config.views.size} is a crop larger than the tiles it is cut from (config.data.tile={config.data.tile}); "
            f"set --config.data.tile={config.views.size} or more."
        )


def _at(config: Any, key: str) -> Any:
    """The value at a dotted key, None where a config has no such key (the options of another method)."""
    for name in key.split("."):
        if name not in config:
            return None
        config = config[name]
    return config


Rule = tuple[str, Callable[[Any], bool]]


def _one_of(*names: str) -> Rule:
    return f"one of {', '.join(names)}", lambda value: value in names


def _at_least(low: float) -> Rule:
    return f"at least {low}", lambda value: value >= low


def _between(low: float, high: float) -> Rule:
    return f"from {low} to {high}", lambda value: low <= value <= high


def _are_numbers(values: Any, count: int) -> bool:
    return len(values) == count and all(isinstance(v, (int, float)) for v in values)


_POSITIVE: Rule = ("above 0", lambda value: value > 0)
_RULES: dict[str, Rule] = {
    "seed": ("from 0 to 2**31 - 1", lambda value: 0 <= value < 2**31),
    "data.seed": ("from 0 to 2**31 - 1", lambda value: 0 <= value < 2**31),
    "data.source": _one_of("auto", "sample", "folder", "npz", "tfds", "packed", "slides"),
    "data.task": _one_of("auto", "segmentation", "classification", "none"),
    "data.mask": _one_of("foreground", "classes"),
    "data.color": _one_of("auto", "gray", "rgb"),
    "data.window": (
        "() or two rising percentiles, like (0.5, 99.5)",
        lambda v: v == () or (_are_numbers(v, 2) and 0 <= v[0] < v[1] <= 100),
    ),
    "data.resize": _at_least(0),
    "data.tile": _at_least(16),
    "data.slide_level": _at_least(0),
    "data.slide_mpp": _at_least(0),
    "data.slide_tissue": _between(0, 1),
    "data.val_fraction": ("from 0 to 0.9", lambda v: 0 <= v <= 0.9),
    "data.test_fraction": ("from 0 to 0.9", lambda v: 0 <= v <= 0.9),
    "data.on_damaged": _one_of("stop", "skip"),
    "data.placement": _one_of("device", "host"),
    "data.threads": _at_least(0),
    "data.workers": _at_least(0),
    "views.size": _at_least(16),
    "views.modality": _one_of("auto", "brightfield", "fluorescence", "histology", "fundus", "xray"),
    "model.width": _between(1, 2048),
    "model.depth": _between(2, 6),
    "model.norm": _one_of("batch", "group"),
    "model.decoder_width": _between(1, 2048),
    "model.projection": ("two widths from 1 to 16384", lambda v: _are_numbers(v, 2) and min(v) >= 1 and max(v) <= 16384),
    "model.dtype": _one_of("float32", "bfloat16"),
    "method.temperature": _POSITIVE,
    "method.clusters": _between(2, 1024),
    "method.dimensions": _between(2, 1024),
    "method.cells": _between(1, 64),
    "method.stage_one": _between(0, 1),
    "method.region_temperature": _POSITIVE,
    "method.same_place": _at_least(-1),
    **{f"method.weights.{name}": _at_least(0) for name in ("patches", "mixup", "regions", "entropy", "balance", "floor", "agreement")},
    "method.adversary": _at_least(0),
    "method.fit": _at_least(0),
    "method.fit_sigma": _POSITIVE,
    "method.tone": _one_of("any", "dark", "bright"),
    "method.poses": _one_of("one", "mirrored", "all"),
    "method.discriminator_rate": _between(0, 1),
    "method.discriminator_slope": _between(0, 1),
    "method.references": _at_least(1),
    "method.field": _one_of("auto", "bright", "all"),
    "method.zero_fraction": ("above 0 and below 1", lambda v: 0 < v < 1),
    "method.decay": _between(0, 1),
    "method.side_weight": _at_least(0),
    "model.blocks": _between(1, 16),
    "figures.size": _between(64, 4096),
    "figures.most": _between(1, 1000),
    "figures.zoom": ("two rising factors from 0.1 to 4", lambda v: _are_numbers(v, 2) and 0.1 <= v[0] <= v[1] <= 4),
    "figures.validation": _at_least(1),
    "method.restoration": _one_of("l1", "l2"),
    "method.contrastive_weight": _at_least(0),
    "method.decorrelation": _at_least(0),
    "method.partner": _one_of("clean", "crop"),
    "method.restoration_weight": _at_least(0),
    "pretrain.steps": _between(1, 2**31 - 2),
    "pretrain.batch": _at_least(2),
    "pretrain.accumulate": _at_least(1),
    "pretrain.log_every": _at_least(1),
    "pretrain.eval_every": _at_least(1),
    "pretrain.checkpoint_every": _at_least(1),
    "pretrain.keep": _at_least(1),
    "finetune.seeds": _at_least(1),
    "finetune.patch": _at_least(16),
    "finetune.scale": ("two rising shares above 0, at most 1", lambda v: _are_numbers(v, 2) and 0 < v[0] <= v[1] <= 1),
    "finetune.steps": _between(1, 2**31 - 2),
    "finetune.epochs": _at_least(0),
    "finetune.batch": _at_least(1),
    "finetune.transferred_rate": _between(0, 1),
    "finetune.norms": _one_of("auto", "pool", "batch"),
    "finetune.consistency_weight": _at_least(0),
    "finetune.teacher_decay": _between(0, 1),
    "finetune.head_warmup": _between(0, 1),
    "finetune.eval_every": _at_least(1),
    **{
        f"{phase}.optimizer.{key}": rule
        for phase in ("pretrain", "finetune")
        for key, rule in {
            "name": _one_of("adamw", "sgd", "lars", "lars_byol"),
            "learning_rate": _POSITIVE,
            "warmup": _between(0, 1),
            "weight_decay": _at_least(0),
            "momentum": ("at least 0 and below 1", lambda v: 0 <= v < 1),
            "b2": ("at least 0 and below 1", lambda v: 0 <= v < 1),
            "clip": _at_least(0),
        }.items()
    },
}
