"""One table of several runs on the same data, as Markdown: `python -m experiments.table runs/tower runs/simclr [--metric=iou]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medssl_jax.errors import UserError
from medssl_jax.report import main_tables, summarise, to_markdown
from medssl_jax.report.rundir import read_run

Row = dict[str, Any]
KEY = ("dataset", "init", "labels", "label_unit", "subset", "seed", "metric")


def merge(runs: Sequence[Path]) -> list[Row]:
    """The rows of all runs; what several have in common (random weights) stands once.

    Raises UserError for a directory without results, and where two runs have different numbers for the same thing.
    """
    found: dict[tuple, tuple[Row, Path]] = {}
    for run in runs:
        rows = read_run(run).rows
        if not rows:
            raise UserError(f"{run} holds no results (results.json); name run directories that are finished.")
        for row in rows:
            key = tuple(row[name] for name in KEY)
            known, where = found.setdefault(key, (row, run))
            if known["value"] != row["value"]:
                what = f"{row['init']}, {row['labels']} {row['label_unit']}, repeat {row['subset']}"
                raise UserError(f"{where} and {run} differ in {row['metric']} of {what}; compare runs of one machine, config and version.")
    return [row for row, _ in found.values()]


def main(arguments: Sequence[str]) -> int:
    """Print the table of the runs that are named; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--metric", help="a metric of results.json; dice or balanced_accuracy where nothing is given")
    asked = parser.parse_args(arguments)
    try:
        rows = merge(asked.runs)
        tables = [summarise(rows, asked.metric)] if asked.metric else main_tables(rows)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(f"{table.title}\n\n{to_markdown(table)}" for table in tables))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
