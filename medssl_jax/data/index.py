"""The index of a packed set, packed.json: the data set's facts, a line an image, and the shards with their checksums.

While a set is being packed, packing.json tells in its place which shards are finished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssl_jax.data.collection import Item, Opened
from medssl_jax.data.formats import Probe
from medssl_jax.data.shards import Shard
from medssl_jax.errors import UserError

INDEX, UNFINISHED = "packed.json", "packing.json"
FORMAT, VERSION = "medssl_jax packed images", 1
COLUMNS = ("id", "part", "label", "masked", "group")  # of an item, besides what its header says
FACTS = ("name", "classes", "notes", "damaged", "licence", "citation")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be packed and how; `source` is a digest of the data set's facts, of all that is known of its images, and of the state of
    what these are read from."""

    source: str
    compression: str
    shards: int

    @classmethod
    def of(cls, opened: Opened, state: str, compression: str, shards: int) -> Plan:
        """The plan for a data set whose images are in the state (origin.py)."""
        told = json.dumps([_facts(opened), _columns(opened.collection.items), state])
        return cls(hashlib.sha256(told.encode()).hexdigest(), compression, shards)


@dataclasses.dataclass(frozen=True)
class Index:
    """What is read back. `rows[i]` is the number of item i's record, `facts` those of an `Opened`; both are empty in an unfinished pack."""

    plan: Plan
    shards: tuple[Shard, ...]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    items: tuple[Item, ...] = ()
    rows: Sequence[int] = ()


def write_unfinished(folder: Path, plan: Plan, shards: Sequence[Shard]) -> None:
    """What is done so far."""
    _write(folder / UNFINISHED, {"plan": dataclasses.asdict(plan), "shards": [dataclasses.asdict(shard) for shard in shards]})


def write(folder: Path, plan: Plan, shards: Sequence[Shard], opened: Opened) -> None:
    """The index of a finished pack; what was damaged is left out of the items and told."""
    damaged = {int(row): sentence for shard in shards for row, sentence in shard.damaged.items()}
    rows = [row for row in range(len(opened.collection.items)) if row not in damaged]
    if not rows:
        raise UserError(f"none of the {len(damaged)} images can be read; the first: {next(iter(damaged.values()))}")
    notes = (*opened.notes, f"{len(damaged)} unreadable images were left out when the set was packed") if damaged else opened.notes
    opened = dataclasses.replace(opened, notes=notes, damaged=(*opened.damaged, *damaged.values()))
    told = {"plan": dataclasses.asdict(plan), "shards": [dataclasses.asdict(shard) for shard in shards], "facts": _facts(opened)}
    items = _columns([opened.collection.items[row] for row in rows])
    _write(folder / INDEX, {**told, "rows": rows if damaged else None, "items": items})
    (folder / UNFINISHED).unlink(missing_ok=True)


def read(path: Path) -> Index:
    """What `write` or `write_unfinished` wrote. Raises UserError where it is damaged or of another version."""
    found = _json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{path} is damaged, or no index of packed images; pack again into a new folder, or copy it again.")
    if found["version"] != VERSION:
        raise UserError(f"{path} is of version {found['version']} of the packed format, and this program reads {VERSION}; pack again.")
    try:
        plan, shards = Plan(**found["plan"]), tuple(Shard(**shard) for shard in found["shards"])
        if "items" not in found:
            return Index(plan, shards)
        items = _items(found["items"])
        facts = {name: tuple(value) if isinstance(value, list) else value for name, value in found["facts"].items()}
        rows = range(len(items)) if found["rows"] is None else found["rows"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); pack again into a new folder, or copy it again.") from error
    records, left_out = sum(shard.records for shard in shards), sum(len(shard.damaged) for shard in shards)
    if len(rows) != len(items) or records != len(items) + left_out or len(shards) != plan.shards:
        raise UserError(f"{path} tells of {len(items)} images, but of {records} records in {len(shards)} shards; copy it again.")
    return Index(plan, shards, facts, items, rows)


def _facts(opened: Opened) -> dict[str, Any]:
    return {name: getattr(opened, name) for name in FACTS}


def _columns(items: Sequence[Item]) -> dict[str, list[Any]]:
    """A list for each of COLUMNS; the headers, of which many are the same, as a list of all kinds and the number of each item's."""
    kinds = {probe: k for k, probe in enumerate(dict.fromkeys(item.probe for item in items))}
    columns: dict[str, list[Any]] = {name: [getattr(item, name) for item in items] for name in COLUMNS}
    return {**columns, "probe": [kinds[item.probe] for item in items], "probes": [[*probe[:3], probe.dtype.str] for probe in kinds]}


def _items(columns: dict[str, list[Any]]) -> tuple[Item, ...]:
    """Items that share what is equal among them: a million are 150 MB."""
    probes = [Probe(height, width, channels, np.dtype(dtype)) for height, width, channels, dtype in columns["probes"]]
    words = {word: word for name in ("part", "group") for word in columns[name]}
    rows = zip(*(columns[name] for name in ("id", "probe", "part", "label", "masked", "group")), strict=True)
    return tuple(Item(name, probes[k], words[part], label, masked, words[group]) for name, k, part, label, masked, group in rows)


def _write(path: Path, value: dict[str, Any]) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps({"format": FORMAT, "version": VERSION, **value}))
    partial.replace(path)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None
