"""The recorded results: a file a group (data set, arm, repeat), whose first line is the config that its cells share; then a line a cell."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

from medssl_jax.errors import UserError
from medssl_jax.train.logging import read_json, write_json

RECORDS = Path(__file__).resolve().parent / "records"
KEY = ("init", "label_unit", "labels", "subset")

Record = dict[str, Any]
Key = tuple[str, str, float, int]


@dataclasses.dataclass(frozen=True)
class Book:
    """The records of one group with one config; what an earlier config left in its file is nobody's."""

    path: Path
    options: dict[str, Any]  # dotted keys of the config that decide the numbers
    mark: str  # their fingerprint

    def read(self) -> list[Record]:
        """The records of this config. Raises UserError for a file that holds something else."""
        if not self.path.exists():
            return []
        lines = [_parse(line, self.path, number) for number, line in enumerate(self.path.read_text().splitlines(), 1)]
        if not lines or lines[0].get("mark") != self.mark:
            return []
        for number, line in enumerate(lines[1:], 2):
            if not all(name in line for name in (*KEY, "metrics")):
                raise _damaged(self.path, number)
        return lines[1:]

    def keys(self) -> set[Key]:
        """The places of the cells that have a record."""
        return {key(record) for record in self.read()}

    def add(self, *new: Record) -> None:
        """Keep more records, in place of those of the same cells, in the order of their keys."""
        kept = {key(record): record for record in (*self.read(), *new)}
        lines = [{"mark": self.mark, "config": self.options}, *(kept[place] for place in sorted(kept))]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(line, sort_keys=True, default=list) + "\n" for line in lines))
        partial.replace(self.path)


def key(record: Record) -> Key:
    """The place of a cell in its group."""
    return tuple(record[name] for name in KEY)  # type: ignore[return-value]


def keep(path: Path, name: str, row: Record) -> None:
    """Write a row under its name into a JSON file of rows, where the others stay. Raises UserError for a file that holds something else."""
    told = read_json(path, dict, "measure again in another --record") if path.exists() else {}
    write_json(path, {**told, name: row})


def _parse(line: str, path: Path, number: int) -> Record:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise _damaged(path, number) from error
    if not isinstance(found, dict):
        raise _damaged(path, number)
    return found


def _damaged(path: Path, number: int) -> UserError:
    return UserError(f"line {number} of {path} is no record; delete the line, and run its table again.")


def command(module: str, arguments: list[str]) -> str:
    """What measures the same again: the command, without where its record went."""
    record = ("--record", "-record")
    before = ["", *arguments]
    kept = [now for last, now in zip(before, arguments) if last not in record and now.partition("=")[0] not in record]
    return shlex.join(["python", "-m", module, *kept])
