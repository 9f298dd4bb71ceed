"""One table of several runs on the same data, as Markdown: `python -m experiments.table runs/tower runs/simclr [--metric=iou]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medssl_jax.config import LAYOUT, flat
from medssl_jax.errors import UserError
from medssl_jax.report import main_tables, summarise, to_markdown
from medssl_jax.report.page import MAIN_METRICS
from medssl_jax.report.rundir import read_run
from medssl_jax.train.logging import read_json

Row = dict[str, Any]
# what may differ between runs in one table: which cells were run
CELLS = {"finetune.inits", "finetune.labels", "finetune.seeds"}
SHARED = ("data", "views", "model", "finetune")  # what runs in one table have in common
CELL = ("init", "labels", "label_unit", "subset")
KEY = ("dataset", "init", "labels", "label_unit", "subset", "seed", "metric")


def result_rows(run: Path) -> list[Row]:
    """The rows of results.json."""
    return read_run(run).rows


def validation_rows(run: Path) -> list[Row]:
    """The same rows with the scores by which each fine-tuning's weights were chosen, from its record; there are no levels of these."""
    summary = read_run(run).summary.get("dataset", {})
    of_test = [row for row in result_rows(run) if row["metric"] in MAIN_METRICS]
    scores = {}
    for path in (run / "finetune").glob("*.json"):
        record = read_json(path, dict, "start the command of that run again without it")
        scores[tuple(record[name] for name in CELL)] = record["validation"]
    found = [
        {**row, "metric": "validation", "n": summary.get("val", 0), "value": scores.get(tuple(row.get(name) for name in CELL))}
        for row in of_test
    ]
    return [row for row in found if row["value"] is not None]


def merge(runs: Sequence[Path], rows_of: Callable[[Path], list[Row]] = result_rows) -> list[Row]:
    """The rows of all runs, as `rows_of` a run reads them; what several have in common (random weights) stands once.

    Raises UserError for a directory without results, and where two runs have other options in what a table compares, or different
    numbers for the same thing.
    """
    found: dict[tuple, tuple[Row, Path]] = {}
    options = {run: _options(read_run(run).config) for run in runs}
    for run in runs:
        _check_alike(runs[0], options[runs[0]], run, options[run])
        rows = rows_of(run)
        if not rows:
            raise UserError(f"{run} holds no results (results.json) of this kind; name run directories that are finished.")
        for row in rows:
            key = tuple(row[name] for name in KEY)
            known, where = found.setdefault(key, (row, run))
            if known["value"] != row["value"]:
                what = f"{row['init']}, {row['labels']} {row['label_unit']}, repeat {row['subset']}"
                raise UserError(f"{where} and {run} differ in {row['metric']} of {what}; compare runs of one machine, config and version.")
    return [row for row, _ in found.values()]


def _options(config: dict[str, Any]) -> dict[str, Any]:
    """The options that runs in one table share, by their dotted keys; which cells were run may differ."""
    return {key: value for key, value in flat(config).items() if key.partition(".")[0] in SHARED and key not in LAYOUT | CELLS}


def _check_alike(first: Path, ours: dict[str, Any], other: Path, theirs: dict[str, Any]) -> None:
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise UserError(
                f"config.{key} is {ours.get(key)!r} in {first} and {theirs.get(key)!r} in {other}; compare runs of the same options."
            )


def main(arguments: Sequence[str]) -> int:
    """Print the table of the runs that are named; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--validation", action="store_true", help="the scores on validation that chose the weights, not the test's")
    parser.add_argument("--metric", help="a metric of results.json; dice or balanced_accuracy where nothing is given")
    asked = parser.parse_args(arguments)
    try:
        rows = merge(asked.runs, validation_rows if asked.validation else result_rows)
        tables = [summarise(rows, asked.metric)] if asked.metric else main_tables(rows)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(f"{table.title}\n\n{to_markdown(table)}" for table in tables))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
