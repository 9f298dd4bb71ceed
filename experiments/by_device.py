"""Markdown of records that were measured on several devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.cut_tables import NOTHING
from medssl_jax.train.logging import read_json

Row = dict[str, Any]


def table(record: Path, *parts: Callable[[list[Row]], str]) -> str:
    """Of each device its name, then every part of its rows. Raises UserError for a record that is none."""
    if not record.exists():
        return NOTHING
    rows: list[Row] = list(read_json(record, dict, "measure again").values())
    shown = []
    for device in dict.fromkeys(row["device"] for row in rows):
        of_device = [row for row in rows if row["device"] == device]
        shown += [f"**{device}**", *(part(of_device) for part in parts)]
    return "\n\n".join(shown)


def case_name(row: Row) -> str:
    """The values of a row's case."""
    return ", ".join(map(str, row["case"].values()))
