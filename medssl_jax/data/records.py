"""TFDS data sets through `tfds.data_source` on ArrayRecord files that are already there; TensorFlow is never imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssl_jax.data import formats
from medssl_jax.data.collection import Item
from medssl_jax.data.formats import Probe
from medssl_jax.errors import UserError

PARTS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of several splits one after the other: `where[i]` is (split, position)."""

    items: tuple[Item, ...]
    sources: dict[str, Sequence[dict[str, Any]]]
    where: tuple[tuple[str, int], ...]

    def image(self, index: int) -> np.ndarray:
        """[H, W, C]."""
        return _array(self._record(index)["image"])

    def mask(self, index: int) -> np.ndarray:
        """int32 [H, W]."""
        return _array(self._record(index)["segmentation_mask"], palette=False)[:, :, 0].astype(np.int32)

    def _record(self, index: int) -> dict[str, Any]:
        split, position = self.where[index]
        return self.sources[split][position]


def open_tfds(name: str, data_dir: Path) -> tuple[Records, tuple[str, ...], str]:
    """The data set's records, the names of its classes and its citation; `name` may be empty where `data_dir` is the set's own folder.

    Raises UserError where nothing is prepared there, the files are not ArrayRecord, or there is no feature called image.
    """
    builder = _builder(name, data_dir)
    features = builder.info.features
    if "image" not in features:
        raise UserError(f"the TFDS set {builder.name} has no feature called image but {', '.join(features)}.")
    sources = {split: builder.as_data_source(split=split, decoders=_undecoded(features)) for split in builder.info.splits if split in PARTS}
    if "train" not in sources:
        raise UserError(f"the TFDS set {builder.name} has no split called train but {', '.join(builder.info.splits)}.")
    where = tuple((split, i) for split, source in sources.items() for i in range(len(source)))
    given = len({PARTS[split] for split in sources}) > 1
    items = tuple(_item(sources[split][i], split, i, given) for split, i in where)
    classes = tuple(features["label"].names) if "label" in features and hasattr(features["label"], "names") else ()
    return Records(items, sources, where), classes, builder.info.citation


def _builder(name: str, data_dir: Path) -> Any:
    """A builder that only reads. tfds is imported here because few runs need it."""
    import tensorflow_datasets as tfds

    folder = data_dir / name if name else data_dir
    versions = sorted(path.parent for path in folder.glob("**/dataset_info.json"))
    if not versions:
        raise UserError(
            f"no prepared TFDS set was found in {folder}; config.data.path is the data_dir it was prepared in (as array_record), "
            "config.data.tfds_name its name."
        )
    try:
        builder = tfds.builder_from_directory(versions[-1])
    except Exception as error:
        raise UserError(f"the TFDS set in {versions[-1]} cannot be opened: {' '.join(str(error).split())[:300]}.") from error
    kind = builder.info.file_format
    if kind is None or kind.value != "array_record":
        raise UserError(f"the TFDS set in {versions[-1]} is stored as {kind and kind.value}; prepare it with file_format='array_record'.")
    return builder


def _undecoded(features: Any) -> dict[str, Any]:
    """Images stay bytes: their headers are enough for the index, and `formats` decodes all depths."""
    import tensorflow_datasets as tfds

    return {key: tfds.decode.SkipDecoding() for key, feature in features.items() if isinstance(feature, tfds.features.Image)}


def _item(record: dict[str, Any], split: str, position: int, given: bool) -> Item:
    label = int(record.get("label", -1))  # TFDS marks unknown labels by -1
    part = PARTS[split] if given else None
    return Item(f"{split}/{position}", _probe(record["image"]), part, None if label < 0 else label, "segmentation_mask" in record)


def _probe(image: bytes | np.ndarray) -> Probe:
    if isinstance(image, bytes):
        return formats.probe_bytes(image)
    return Probe.of(_array(image))


def _array(image: bytes | np.ndarray, palette: bool = True) -> np.ndarray:
    if isinstance(image, bytes):
        return formats.decode_bytes(image, palette)
    return image if image.ndim == 3 else image[:, :, None]
