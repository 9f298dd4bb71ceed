"""Reads a run directory: whatever of it is there, and what could not be read."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl_jax.errors import UserError

ROW = {"dataset", "init", "labels", "label_unit", "subset", "seed", "metric", "value", "n"}


@dataclass(frozen=True)
class Run:
    """The files of a run directory; missing ones are empty, damaged ones are named in `problems`."""

    workdir: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    cells: list[dict[str, Any]]  # what is known of each fine-tuning
    problems: list[str]

    def option(self, path: str, default: Any = None) -> Any:
        """A config value by its dotted path, e.g. 'pretrain.optimizer.learning_rate'."""
        found: Any = self.config
        for name in path.split("."):
            if not isinstance(found, dict) or name not in found:
                return default
            found = found[name]
        return found

    def series(self, phase: str, key: str) -> tuple[list[float], list[float]]:
        """Steps and finite values of one scalar of one phase, in order of steps."""
        lines = [line for line in self.metrics if line.get("phase") == phase and _finite(line.get(key)) and _finite(line.get("step"))]
        lines.sort(key=lambda line: line["step"])
        return [float(line["step"]) for line in lines], [float(line[key]) for line in lines]

    def keys(self, phase: str) -> list[str]:
        """Names of the finite scalars of one phase, in order of appearance."""
        lines = (line for line in self.metrics if line.get("phase") == phase)
        return list(dict.fromkeys(key for line in lines for key, value in line.items() if key != "step" and _finite(value)))


def read_run(workdir: Path | str) -> Run:
    """Read config.json, summary.json, results.json, metrics.jsonl and the records of fine-tuning.

    Raises:
      UserError: `workdir` is no directory.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise UserError(f"there is no run directory {workdir}: give the --workdir of a run")
    problems: list[str] = []
    return Run(
        workdir=workdir,
        config=_json(workdir / "config.json", {}, problems),
        summary=_json(workdir / "summary.json", {}, problems),
        rows=_json(workdir / "results.json", [], problems),
        metrics=_lines(workdir / "metrics.jsonl", problems),
        cells=[_json(path, {}, problems) for path in sorted((workdir / "finetune").glob("*.json"))],
        problems=problems,
    )


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _json(path: Path, empty: Any, problems: list[str]) -> Any:
    if not path.exists():
        return empty
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        problems.append(f"{path.name} could not be read ({error}), so what it holds is missing here.")
        return empty
    whole = not isinstance(found, list) or all(isinstance(row, dict) and row.keys() >= ROW for row in found)
    if isinstance(found, type(empty)) and whole:
        return found
    problems.append(f"{path.name} holds something else than a run writes, so it was left out.")
    return empty


def _lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    found, bad = [], 0
    for text in path.read_text().splitlines():
        try:
            found.append(dict(json.loads(text)))
        except (ValueError, TypeError):
            bad += 1
    if bad:
        problems.append(f"{path.name}: {bad} line(s) cut short or damaged were left out.")
    return found
