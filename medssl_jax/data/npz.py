"""Arrays in MedMNIST's layout: `{train,val,test}_images` [N, H, W(, C)] and `{train,val,test}_labels` [N, 1] in one .npz file."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medssl_jax.data.collection import Item
from medssl_jax.data.formats import Probe
from medssl_jax.errors import UserError

PARTS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Images held in memory, with masks where there are any."""

    items: tuple[Item, ...]
    images: tuple[np.ndarray, ...]
    masks: tuple[np.ndarray, ...] = ()

    def image(self, index: int) -> np.ndarray:
        """[H, W, C]."""
        return self.images[index]

    def mask(self, index: int) -> np.ndarray:
        """int32 [H, W]."""
        return self.masks[index].astype(np.int32)


def open_npz(path: Path, labels: bool = True) -> tuple[Arrays, tuple[str, ...]]:
    """The images of all parts, and the names of the classes (none where the file has no labels, or `labels` is False).

    Raises UserError for a damaged file, missing keys, volumes, and labels that are not one class an image.
    """
    arrays = _load(path)
    items: list[Item] = []
    images: list[np.ndarray] = []
    labelled = labels and any(f"{part}_labels" in arrays for part in PARTS)
    for part in PARTS:
        if f"{part}_images" in arrays:
            stack = _images(path, part, arrays)
            known = _labels(path, part, arrays, len(stack)) if labelled else [None] * len(stack)
            items += [Item(f"{part}/{i}", Probe.of(x), part, label) for i, (x, label) in enumerate(zip(stack, known))]
            images += list(stack)
    classes = sorted({item.label for item in items if item.label is not None})
    if untaught := sorted(set(classes) - {item.label for item in items if item.part == "train"}):
        raise UserError(
            f"the label {untaught[0]} of {path} is in no training image, so that it cannot be learned; add some or leave it out."
        )
    return Arrays(tuple(items), tuple(images)), tuple(str(c) for c in range(classes[-1] + 1)) if classes else ()


def _load(path: Path) -> Mapping[str, np.ndarray]:
    if path.is_dir():
        raise UserError(f"{path} is a folder, not an .npz file; leave out config.data.source, or name the file.")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not an archive of named arrays, or not whole; save one with numpy.savez, or copy it again.")
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files if key.split("_")[0] in PARTS}
            found = file.files
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path} holds Python objects, not numbers; make each array of one shape and type and save it again."
            ) from error
        raise UserError(f"{path} cannot be read as an .npz file: {' '.join(str(error).split())}.") from error
    if "train_images" not in arrays:
        raise UserError(
            f"{path} has no train_images but {', '.join(found) or 'nothing'}; MedMNIST's keys are {{train,val,test}}_{{images,labels}}."
        )
    return arrays


def _images(path: Path, part: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    stack = arrays[f"{part}_images"]
    if not len(stack):
        raise UserError(f"{part}_images in {path} holds no image; leave the part out.")
    if stack.ndim == 3:
        return stack[..., None]
    if stack.ndim != 4 or stack.shape[1] == stack.shape[2] == stack.shape[3]:
        raise UserError(f"{part}_images in {path} has the shape {stack.shape}; images are [N, H, W] or [N, H, W, C], volumes are not read.")
    return stack


def _labels(path: Path, part: str, arrays: Mapping[str, np.ndarray], count: int) -> list[int]:
    labels = arrays.get(f"{part}_labels")
    if labels is None:
        raise UserError(f"{path} has {part}_images but no {part}_labels; --config.data.task=none reads the images alone.")
    if labels.shape[:1] != (count,):
        raise UserError(f"{part}_labels in {path} holds {labels.size} labels for {count} images; give every image one.")
    if labels.size != count:
        remedy = "only one class an image is read; --config.data.task=none reads the images alone"
        raise UserError(f"{part}_labels in {path} has the shape {labels.shape} for {count} images; {remedy}.")
    if labels.dtype.kind not in "iub" or labels.min(initial=0) < 0:
        what = f"{labels.dtype} labels" if labels.dtype.kind not in "iub" else f"the label {labels.min()}"
        raise UserError(f"{part}_labels in {path} holds {what}; a class is a whole number from 0.")
    return [int(label) for label in labels.reshape(-1)]
