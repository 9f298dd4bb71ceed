"""What is in a data set: every image read once, counted, measured and compared with the others."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from medssl_jax.data.dataset import Dataset, Selection
from medssl_jax.data.folder import parallel
from medssl_jax.data.layout import listed, tally
from medssl_jax.errors import UserError

PARTS = ("pool", "val", "test")


@dataclasses.dataclass(frozen=True)
class Seen:
    """One image as it is stored: shape [H, W, C], dtype, darkest and brightest value, a digest of its pixels, and its labels."""

    id: str
    part: str
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    digest: bytes
    coverage: float | None
    label: int | None


@dataclasses.dataclass(frozen=True)
class Survey:
    """All images that could be read, and one sentence for each that could not."""

    dataset: Dataset
    seen: tuple[Seen, ...]
    damaged: tuple[str, ...]

    def duplicates(self) -> list[list[Seen]]:
        """Groups of images with the same pixels."""
        groups: dict[bytes, list[Seen]] = {}
        for image in self.seen:
            groups.setdefault(image.digest, []).append(image)
        return [group for group in groups.values() if len(group) > 1]

    def leaks(self) -> list[list[Seen]]:
        """Groups of images with the same pixels in more than one part."""
        return [group for group in self.duplicates() if len({image.part for image in group}) > 1]


def survey(dataset: Dataset) -> Survey:
    """Reads every image of the data set once, in threads; those that cannot be read are named, not raised."""
    where = [(part, i) for part in PARTS for i in range(len(getattr(dataset, part)))]
    looked = parallel(lambda at: _look(dataset, *at), where)
    seen = tuple(s for s in looked if isinstance(s, Seen))
    return Survey(dataset, seen, (*dataset.damaged, *(s for s in looked if isinstance(s, str))))


def _look(dataset: Dataset, part: str, index: int) -> Seen | str:
    source: Selection = getattr(dataset, part)
    try:
        raw, example = source.raw(index), source[index]
    except UserError as error:
        return str(error)
    digest = hashlib.sha256(repr((raw.shape, raw.dtype.str)).encode() + np.ascontiguousarray(raw).tobytes()).digest()
    coverage = float((example["mask"] > 0).mean()) if "mask" in example else None
    extremes = float(raw.min()), float(raw.max())
    return Seen(example["id"], part, raw.shape, str(raw.dtype), *extremes, digest, coverage, example.get("label"))


def lines(found: Survey) -> list[str]:
    """The survey as text, one fact a line, what needs attention last."""
    data, seen = found.dataset, found.seen
    facts = {
        "data set": f"{data.name}: {len(seen)} images, task {data.task}",
        "read as": f"{data.channels} channels, {data.dtype}",
        "parts": ", ".join(f"{part} {len(getattr(data, part))}" for part in PARTS),
        "sizes": _most(tally(f"{s.shape[0]} x {s.shape[1]}" for s in seen)),
        "channels": tally(s.shape[2] for s in seen),
        "dtypes": tally(s.dtype for s in seen),
        "values": _values(seen),
    }
    labels = {"segmentation": ("masks", _coverage), "classification": ("classes", lambda group: _class_counts(group, data))}
    text = list(facts.items())
    if data.task in labels:
        title, describe = labels[data.task]
        text += [(title, line) for line in _per_part(seen, describe)]
    text += [("note", note) for note in data.notes] + [("ATTENTION", warning) for warning in warnings(found)]
    return [f"{title:<12}{line}" for title, line in text]


def warnings(found: Survey) -> list[str]:
    """Unreadable files (every one), images that are there more than once, across parts first, empty masks and flat images."""
    leaks = found.leaks()
    within = [group for group in found.duplicates() if group not in leaks]
    text = list(found.damaged)
    if leaks:
        names = listed(" = ".join(f"{s.id} ({s.part})" for s in group) for group in leaks)
        text.append(f"{len(leaks)} images are in more than one part (leakage: what is tested was seen before): {names}")
    if within:
        extra = sum(len(group) - 1 for group in within)
        text.append(f"{extra} images are exact copies of others in their part: {listed(' = '.join(s.id for s in g) for g in within)}")
    empty, full = ([s for s in found.seen if s.coverage == share] for share in (0, 1))
    flat = [s for s in found.seen if s.low == s.high]
    for what, chosen in (
        ("masks are empty", empty),
        ("masks mark every pixel", full),
        ("images have one value only", flat),
    ):
        if chosen:
            text.append(f"{len(chosen)} {what}: {listed(s.id for s in chosen)}")
    return text


def _values(seen: tuple[Seen, ...]) -> str:
    """Darkest and brightest value of all images of each dtype."""
    ranges = []
    for dtype in sorted({s.dtype for s in seen}):
        group = [s for s in seen if s.dtype == dtype]
        brightest = f"the brightest pixel of an image from {min(s.high for s in group):g} to {max(s.high for s in group):g}"
        ranges.append(f"{dtype} from {min(s.low for s in group):g} to {max(s.high for s in group):g}, {brightest}")
    return "; ".join(ranges)


def _per_part(seen: tuple[Seen, ...], describe: Callable[[list[Seen]], str]) -> list[str]:
    groups = {part: [s for s in seen if s.part == part] for part in PARTS}
    return [f"{part}: {describe(group)}" for part, group in groups.items() if group]


def _coverage(group: list[Seen]) -> str:
    shares = [s.coverage for s in group if s.coverage is not None]
    if not shares:
        return "none"
    spread = f"{min(shares):.1%} to {max(shares):.1%}"
    return f"{len(shares)} of {len(group)} images, foreground {np.mean(shares):.1%} of the pixels on average ({spread})"


def _class_counts(group: list[Seen], data: Dataset) -> str:
    counts: dict[Any, int] = {name: sum(s.label == k for s in group) for k, name in enumerate(data.classes)}
    unlabelled = sum(s.label is None for s in group)
    return ", ".join(f"{name} {count}" for name, count in {**counts, **({"without": unlabelled} if unlabelled else {})}.items())


def _most(text: str, shown: int = 8) -> str:
    parts = text.split(", ")
    return ", ".join(parts[:shown]) + (f" and {len(parts) - shown} other sizes" if len(parts) > shown else "")
