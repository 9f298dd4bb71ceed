"""The recorded results: one line of JSON a cell, in a file a data set and arm, beside the config that the cells share."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medssl_jax.errors import UserError
from medssl_jax.train.logging import write_json

RECORDS = Path(__file__).resolve().parent / "records"
KEY = ("init", "label_unit", "labels", "subset", "seed")

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Book:
    """The records of one data set and arm at one budget."""

    dataset: str
    arm: str
    budget: str
    root: Path = RECORDS

    @property
    def path(self) -> Path:
        """Of the lines."""
        return self.root / self.budget / self.dataset / f"{self.arm}.jsonl"

    def read(self) -> list[Record]:
        """All records. Raises UserError for a line that is none."""
        if not self.path.exists():
            return []
        return [_parse(line, self.path, number) for number, line in enumerate(self.path.read_text().splitlines(), 1)]

    def write(self, new: Iterable[Record], config: dict[str, Any]) -> None:
        """Add records, in place of those of the same cells, in the order of their keys; the config stands beside them."""
        kept = {key(record): record for record in (*self.read(), *new)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path.with_suffix(".config.json"), config)
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(kept[place], sort_keys=True) + "\n" for place in sorted(kept)))
        partial.replace(self.path)

    def known(self, fingerprint: str) -> set[tuple[Any, ...]]:
        """The keys of the records of this config."""
        return {key(record) for record in self.read() if record["config"] == fingerprint}


def key(record: Record) -> tuple[Any, ...]:
    """The place of a cell in the grid of its data set and arm."""
    return tuple(record[name] for name in KEY)


def _parse(line: str, path: Path, number: int) -> Record:
    try:
        record = json.loads(line)
        key(record)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"line {number} of {path} is no record; delete it, and run its table again.") from error
    return record
