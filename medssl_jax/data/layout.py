"""What the names of folders and files say: images and masks, classes, and the parts train, val and test."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from medssl_jax.data.formats import SUFFIXES
from medssl_jax.errors import UserError

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
IMAGES = ("images", "image", "imgs", "img")  # folders, in any case
MASKS = ("masks", "mask", "labels", "label", "annotations", "groundtruth", "ground_truth", "gt")
INDEX = "index.csv"
MASK_ENDINGS = ("_masks", "_mask", "_labels", "_label", "_segmentation", "_seg", "_gt")
NAME_COLUMNS, SPLIT_COLUMNS = ("name", "file", "image"), ("split", "repo_split")
SHOWN = 3  # names in a message


@dataclasses.dataclass(frozen=True)
class Found:
    """An image file, with the mask beside it, the name of its class folder, and the part it was given to."""

    image: Path
    mask: Path | None = None
    folder: str | None = None
    part: str | None = None


def find(root: Path, task: str) -> list[Found]:
    """All images of a data folder, sorted by path.

    Where `root` has train/, val/ or test/ only those are read, and where such a folder (or `root`) has images/ and masks/ (or another of
    IMAGES and MASKS) only these. Elsewhere `cell_mask.png` beside `cell.png` is its mask. Hidden files are no data. `task` none looks for
    neither masks nor classes.

    Raises UserError where there is no image, or a mask belongs to none.
    """
    if not root.is_dir():
        what = "is a file, not a folder of images" if root.is_file() else "does not exist"
        raise UserError(f"config.data.path={str(root)!r} {what}; give the folder that holds the images.")
    parts = {path: PARTS[path.name.lower()] for path in sorted(root.iterdir()) if path.is_dir() and path.name.lower() in PARTS}
    found = [image for path in parts or [root] for image in _find_part(path, parts.get(path), task)]
    if not found:
        if archives := sorted(root.glob("*.npz")):
            raise UserError(f"there is no image in {root}, but {archives[0].name}; read it with --config.data.path={archives[0]}.")
        kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise UserError(f"there is no image in {root} (looked for {kinds}); check config.data.path.")
    return found


def _find_part(base: Path, part: str | None, task: str) -> list[Found]:
    inside = images_folder(base)
    images = files(inside)
    masks = _masks(base, images)
    images = [path for path in images if path not in set(masks.values())]
    masks = masks if task != "none" else {}
    if not masks:
        return [Found(path, None, _folder(path, base), part) for path in images]
    pairs = _match(base, images, masks)
    return [Found(path, pairs.get(path), None, part) for path in images]


def files(base: Path) -> list[Path]:
    """All files below `base` with the ending of an image format, hidden ones left out, sorted."""
    kept = []
    for folder, below, names in os.walk(base):
        below[:] = [name for name in below if not name.startswith((".", "__MACOSX"))]
        kept += [Path(folder, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES]
    return sorted(kept)


def _folder(path: Path, base: Path) -> str | None:
    """The first folder between `base` (or its images/) and the file: the class, where folders are classes."""
    inside = path.relative_to(images_folder(base)).parts
    return inside[0] if len(inside) > 1 else None


def images_folder(base: Path) -> Path:
    """The folder images/ in `base` (or another of IMAGES), or `base` itself."""
    return _subfolder(base, IMAGES) or base


def _subfolder(base: Path, names: Sequence[str]) -> Path | None:
    """The folder in `base` with the first of the names, in any case."""
    there = {path.name.lower(): path for path in sorted(base.iterdir()) if path.is_dir()}
    return next((there[name] for name in names if name in there), None)


def _masks(base: Path, images: Sequence[Path]) -> dict[str, Path]:
    """Masks by their path without ending inside masks/, or inside `base` where they lie beside their images."""
    if folder := _subfolder(base, MASKS):
        return {_stem(path, folder): path for path in files(folder)}
    stems = {_stem(path, images_folder(base)): path for path in images}
    return {stem: path for stem, path in stems.items() if any(name in stems for name in _owners(stem)[1:])}


def _owners(stem: str) -> list[str]:
    """The images that a mask of that name may belong to."""
    return [stem, *(stem.removesuffix(ending) for ending in MASK_ENDINGS if stem.endswith(ending))]


def _stem(path: Path, base: Path) -> str:
    return path.relative_to(base).with_suffix("").as_posix()


def _match(base: Path, images: Sequence[Path], masks: dict[str, Path]) -> dict[Path, Path]:
    """Image -> mask, by the same name or the name and an ending such as _mask. Raises UserError for masks that belong to no image."""
    folder = images_folder(base)
    by_stem: dict[str, Path] = {}
    for path in images:
        other = by_stem.setdefault(_stem(path, folder), path)
        if other != path:
            raise UserError(f"{other} and {path} have the same name, so their mask is not clear; rename one of them.")
    pairs: dict[Path, Path] = {}
    lost = []
    for stem, mask in masks.items():
        image = next((by_stem[name] for name in _owners(stem) if name in by_stem), None)
        if image is None:
            lost.append(mask)
        elif image in pairs:
            raise UserError(f"{pairs[image]} and {mask} are both masks of {image}; keep one of them.")
        else:
            pairs[image] = mask
    if lost:
        raise UserError(
            f"{len(lost)} of {len(masks)} masks in {lost[0].parent} belong to no image ({listed(p.name for p in lost)}); "
            "a mask has its image's name, or that and _mask (cell1.png or cell1_mask.png for cell1.tif)."
        )
    return pairs


def classes(found: Sequence[Found], task: str) -> tuple[str, ...]:
    """The class names that folders give, sorted; () where folders are no classes.

    Folders are classes where every image is in one, there are two or more of them, and they hold two images or more on average.
    Raises UserError where the task is classification and they are not, or where a class has no training image.
    """
    names = sorted({f.folder for f in found if f.folder is not None})
    clear = all(f.folder is not None for f in found) and 2 <= len(names) <= len(found) / 2
    if task in ("none", "segmentation") or any(f.mask for f in found) or not clear:
        if task == "classification":
            raise UserError(
                f"no classes were found around {found[0].image}; classification needs one folder a class, at least two of them."
            )
        return ()
    trained = {f.folder for f in found if f.part in (None, "train")}
    untrained = [name for name in names if name not in trained]
    if untrained:
        raise UserError(f"the class {untrained[0]!r} of {found[0].image.parents[1]} has no training image; add some or remove the folder.")
    return tuple(names)


def unread_classes(found: Sequence[Found], task: str) -> list[str]:
    """A note where images lie in folders that are not read as classes, and why."""
    names = sorted({f.folder for f in found if f.folder is not None})
    if not names or task != "auto" or any(f.mask for f in found) or classes(found, task):
        return []
    outside = [f.image.name for f in found if f.folder is None]
    few = "there is only one" if len(names) == 1 else "they hold fewer than two images on average"
    why = f"{listed(outside)} lies outside of them" if outside else few
    return [f"the folders {listed(names)} are not read as classes, because {why}"]


def read_splits(path: Path, root: Path, found: Sequence[Found]) -> tuple[list[Found], int]:
    """`found` with the parts that a CSV gives, and the number of images that it does not name (they go to training).

    The columns are name (or file, image: a path, a file name, or one without its ending) and split (train, val or test).
    Raises UserError for a missing file, missing columns, unknown parts, and names of no image or of several.
    """
    by_name = _names(root, found)
    given: dict[Path, str] = {}
    for name, split in _rows(path):
        if split.lower() not in PARTS:
            raise UserError(f"{path} puts {name} into the split {split!r}; known are train, val and test.")
        images = by_name.get(name, ())
        if len(images) != 1:
            what = f"several images ({listed(str(p.relative_to(root)) for p in images)})" if images else "no image"
            raise UserError(f"{path} names {name!r}, which is {what} in {root}; write the path from there.")
        part = PARTS[split.lower()]
        if given.setdefault(images[0], part) != part:
            raise UserError(f"{path} puts {name} into both {given[images[0]]} and {part}; name every image once.")
    return [dataclasses.replace(f, part=given.get(f.image, "train")) for f in found], sum(f.image not in given for f in found)


def find_index(root: Path) -> Path | None:
    """The index.csv of a data folder, where it says of every image which part it belongs to."""
    path = root / INDEX
    if not path.is_file():
        return None
    header = next(iter(_table(path)), [])
    return path if _column(header, NAME_COLUMNS) and _column(header, SPLIT_COLUMNS) else None


def _rows(path: Path) -> list[tuple[str, str]]:
    if path.is_dir():
        raise UserError(f"config.data.splits={str(path)!r} is a folder; name a CSV with the columns name and split.")
    if not path.is_file():
        raise UserError(f"config.data.splits={str(path)!r} does not exist; it is a CSV with the columns name and split.")
    header, *rows = _table(path) or [[]]
    name, split = _column(header, NAME_COLUMNS), _column(header, SPLIT_COLUMNS)
    if name is None or split is None:
        raise UserError(f"{path} has the columns {', '.join(header) or '(none)'}; needed are name (or file, image) and split, with commas.")
    if not rows:
        raise UserError(f"{path} names no image; give every image a line (name,split), or remove the file.")
    columns = header.index(name), header.index(split)
    for number, row in enumerate(rows, 2):
        if row and len(row) <= max(columns):
            raise UserError(f"line {number} of {path} ({','.join(row)}) is cut short; every line needs a {name} and a {split}.")
    return [(row[columns[0]].strip(), row[columns[1]].strip()) for row in rows if row]


def _table(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.reader(file))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8; save it as 'CSV UTF-8'.") from error


def _column(header: Iterable[str], names: Sequence[str]) -> str | None:
    present = list(header)
    return next((name for name in names if name in present), None)


def _names(root: Path, found: Sequence[Found]) -> dict[str, list[Path]]:
    """Every way to name an image in a table -> the images of that name."""
    names: dict[str, list[Path]] = {}
    for f in found:
        inside = f.image.relative_to(root)
        forms = {inside.as_posix(), inside.with_suffix("").as_posix(), inside.name, inside.stem}
        forms |= {form.partition("/")[2] for form in forms if form.partition("/")[0].lower() in IMAGES}
        for form in forms:
            names.setdefault(form, []).append(f.image)
    return names


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def tally(values: Iterable[object]) -> str:
    """Distinct values with their counts, most frequent first: `a (3), b (1)`."""
    return ", ".join(f"{value} ({count})" for value, count in Counter(values).most_common())
