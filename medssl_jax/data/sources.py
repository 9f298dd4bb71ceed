"""`open_dataset`: a folder, whole slides, arrays (.npz), TFDS, a packed set or the built-in sample -> one `Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from medssl_jax.data import folder, npz, packed, records, remote, sample, slides
from medssl_jax.data.collection import Item, Opened, Prepared
from medssl_jax.data.dataset import Dataset, Example, Info, Selection, Source, Unlabelled, describe
from medssl_jax.data.parts import assign
from medssl_jax.data.prepare import Preparation, target_dtype
from medssl_jax.errors import UserError

__all__ = ["Dataset", "Example", "Info", "Selection", "Source", "Unlabelled", "describe", "open_dataset"]

MOST_CLASSES = 100  # in a mask; beyond it the values are gray levels or instances
USUAL_CHANNELS = 4
MODALITY = "brightfield"  # recipes that suit any image; what is really histology, fundus or X-ray a user says in config.views.modality


def open_dataset(config: ConfigDict) -> Dataset:
    """The data set of `config` (the options under `config.data`); its `seed` draws the parts that the data do not bring.

    Raises UserError for a path that is missing or holds no images, for damaged files, mixed channel counts, masks or classes that do
    not fit, and a task that the data have no labels for.
    """
    return settle(open_stored(config), config)


def open_stored(config: ConfigDict) -> Opened:
    """The stored images that `config` names and what is known of them, before any is read. Raises UserError as `open_dataset` does."""
    kind = _kind(config)
    if kind not in _OPENERS:
        raise UserError(f"config.data.source={kind!r} is unknown; choose one of auto, {', '.join(_OPENERS)}.")
    if config.splits and kind not in ("folder", "slides"):
        raise UserError(f"config.data.splits={config.splits!r} is for folders of images; {kind} brings its own parts: leave it out.")
    return _OPENERS[kind](config)


def settle(opened: Opened, config: ConfigDict) -> Dataset:
    """Stored images with the colours, type, size, labels and parts that `config` gives them. Raises UserError where they do not fit."""
    items = opened.collection.items
    task = _task(config.task, opened)
    classes = _classes(config, task, opened)
    color, recolored = _color(config.color, items)
    dtype = target_dtype([item.probe.dtype for item in items])
    preparation = Preparation(color, dtype, tuple(config.window), config.resize or (config.tile if task == "classification" else 0))
    parts, drawn = assign(items, task, config)
    if not parts["train"]:
        raise UserError(f"{opened.name} has no training image: all {len(items)} are for validation or test; check the split.")
    source = Prepared(opened.collection, preparation, task, len(classes) if task == "segmentation" and config.mask == "classes" else 0)
    return Dataset(
        name=opened.name,
        pool=Selection(source, tuple(parts["train"])),
        val=Selection(source, tuple(parts["val"])),
        test=Selection(source, tuple(parts["test"])),
        task=task,
        classes=classes,
        channels=preparation.channels(items[0].probe.channels),
        dtype=dtype,
        modality=MODALITY,
        notes=(*opened.notes, *recolored, *_depths(items, dtype), *_many_channels(items), *drawn),
        licence=opened.licence,
        citation=opened.citation,
        damaged=opened.damaged,
    )


def _kind(config: ConfigDict) -> str:
    if config.source != "auto":
        return config.source
    if not config.path:
        return "sample"
    path = remote.local(config.path)
    if path.suffix == ".npz":
        return "npz"
    if packed.is_packed(path):
        return "packed"
    return "tfds" if config.tfds_name or (path / "dataset_info.json").exists() else "folder"


def _open_sample(config: ConfigDict) -> Opened:
    return Opened("sample", sample.open_sample(), licence=sample.LICENCE, citation=sample.CITATION)


def _open_folder(config: ConfigDict) -> Opened:
    return folder.open_folder(config, _path(config))


def _open_npz(config: ConfigDict) -> Opened:
    path = _path(config)
    arrays, classes = npz.open_npz(path, labels=config.task != "none")
    return Opened(path.stem, arrays, classes)


def _open_tfds(config: ConfigDict) -> Opened:
    path = _path(config)
    found, classes, citation = records.open_tfds(config.tfds_name, path)
    return Opened(config.tfds_name or path.parent.name, found, classes, citation=citation)


def _open_packed(config: ConfigDict) -> Opened:
    return packed.open_packed(_path(config))


def _open_slides(config: ConfigDict) -> Opened:
    return slides.open_slides(config, _path(config))


def _path(config: ConfigDict) -> Path:
    if not config.path:
        raise UserError(f"config.data.source={config.source!r} needs a path; set --config.data.path= to where the images are.")
    path = remote.local(config.path)
    if not path.exists():
        raise UserError(f"config.data.path={config.path!r} does not exist; give the folder or file that holds the images.")
    return path


_OPENERS: dict[str, Callable[[ConfigDict], Opened]] = {
    "sample": _open_sample,
    "folder": _open_folder,
    "npz": _open_npz,
    "tfds": _open_tfds,
    "packed": _open_packed,
    "slides": _open_slides,
}


def _task(wanted: str, opened: Opened) -> str:
    """The task that was asked for, or that the labels allow. Raises UserError where there are no such labels."""
    items = opened.collection.items
    has = {task: any(item.labelled(task) for item in items) for task in ("segmentation", "classification")}
    if wanted == "auto":
        return next((task for task, there in has.items() if there), "none")
    if not has.get(wanted, True):
        needed = "masks (a folder masks/ beside images/)" if wanted == "segmentation" else "classes (one folder a class)"
        raise UserError(f"config.data.task={wanted!r} needs {needed}, and {opened.name} has none; --config.data.task=none pretrains only.")
    return wanted


def _color(wanted: str, items: Sequence[Item]) -> tuple[str, list[str]]:
    """What `Preparation.color` has to be so that all images have the same channels. Raises UserError where none makes them so."""
    examples: dict[int, str] = {}
    for item in items:
        examples.setdefault(item.probe.channels, item.id)
    if len(examples) == 1 if wanted == "auto" else set(examples) <= {1, 3}:
        return wanted, []
    if set(examples) == {1, 3}:
        gray = sum(item.probe.channels == 1 for item in items)
        remedy = "--config.data.color=gray makes all gray"
        return "rgb", [f"{gray} gray images are read as RGB because {len(items) - gray} others are RGB; {remedy}"]
    if len(examples) == 1:
        ((count, name),) = examples.items()
        raise UserError(f"config.data.color={wanted!r} cannot convert images of {count} channels ({name}); use --config.data.color=auto.")
    (few, one), (many, other) = sorted(examples.items())[0], sorted(examples.items())[-1]
    raise UserError(
        f"the images have different numbers of channels ({one}: {few}, {other}: {many}); "
        "keep them in separate folders, or where they are gray and RGB set --config.data.color=gray or rgb."
    )


def _depths(items: Sequence[Item], dtype: np.dtype) -> list[str]:
    low = sum(target_dtype([item.probe.dtype]) != dtype for item in items)
    return [f"{low} 8-bit images are read as 16-bit because {len(items) - low} others have more"] if low else []


def _many_channels(items: Sequence[Item]) -> list[str]:
    """A stack of planes without metadata looks like an image of many channels."""
    item = max(items, key=lambda item: item.probe.channels)
    return [f"{item.id} is read as one image of {item.probe.channels} channels"] if item.probe.channels > USUAL_CHANNELS else []


def _classes(config: ConfigDict, task: str, opened: Opened) -> tuple[str, ...]:
    if task == "classification":
        return opened.classes
    if task == "none":
        return ()
    if config.mask == "foreground":
        return ("background", "foreground")
    masked = [i for i, item in enumerate(opened.collection.items) if item.masked]
    highest = max(folder.parallel(lambda i: int(opened.collection.mask(i).max()), masked))
    if highest > MOST_CLASSES:
        raise UserError(
            f"config.data.mask='classes' would make {highest + 1} classes of {opened.name}, whose masks go up to {highest}; number the "
            "classes from 1, or use --config.data.mask=foreground for masks of 0 and 255 and for instance labels."
        )
    return ("background", *(f"class {k}" for k in range(1, max(highest, 1) + 1)))
