"""Markdown of what `experiments.speed` recorded."""

from __future__ import annotations

from pathlib import Path

from experiments import by_device
from experiments.by_device import Row, case_name
from experiments.cut_tables import markdown

RECORD = "speed.json"
SIDES = {"jax": "JAX", "eager": "PyTorch eager", "compiled": "PyTorch compiled"}


def table(record: Path) -> str:
    """Of each device: a line a case and stage, then what each case took to compile and to hold."""
    return by_device.table(record, times, costs)


def times(rows: list[Row]) -> str:
    """Milliseconds and images a second of the sides, and how often JAX does a stage while the faster side of PyTorch does it once."""
    head = ["method, network, px, channels, batch, type: stage"]
    lines = [[*head, *(f"{name}{what}" for name in SIDES.values() for what in (" ms (p95)", ", images/s")), "faster PyTorch / JAX"]]
    for row in rows:
        for stage in row["sides"]["jax"]["stages"]:
            cells = [f"{case_name(row)}: {stage}"]
            for side in SIDES:
                cells += _timed(row["sides"].get(side, {}).get("stages", {}).get(stage))
            lines.append([*cells, _ratio(row["ratios"].get(stage))])
    return markdown(lines)


def costs(rows: list[Row]) -> str:
    """Seconds to compile, the memory of a full step, and how PyTorch's memory layouts compare."""
    head = ["full step", "parameters", "JAX compiled in s", "PyTorch compiled in s", *(f"{name}, GiB" for name in SIDES.values())]
    lines = [[*head, "PyTorch's layouts, ms"]]
    for row in rows:
        sides = row["sides"]
        seconds = [_seconds(sides.get(side, {}).get("compile_s")) for side in ("jax", "compiled")]
        held = [_gib(sides.get(side, {}).get("bytes")) for side in SIDES]
        layouts = ", ".join(f"{name} {ms:.1f}" for name, ms in row["layout_ms"].items()) or "-"
        lines.append([case_name(row), f"{row['parameters']:,}", *seconds, *held, layouts])
    return markdown(lines)


def _timed(found: Row | None) -> list[str]:
    return [f"{found['ms']:.1f} ({found['p95_ms']:.1f})", f"{found['images_per_s']:.0f}"] if found else ["-", "-"]


def _ratio(found: Row | None) -> str:
    return f"{found['ratio']:.2f} ({found['range'][0]:.2f} to {found['range'][1]:.2f})" if found else "-"


def _seconds(found: float | None) -> str:
    return "-" if found is None else f"{found:.0f}"


def _gib(found: int | None) -> str:
    return "-" if found is None else f"{found / 2**30:.2f}"
