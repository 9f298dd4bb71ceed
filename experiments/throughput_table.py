"""Markdown of what `experiments.throughput` recorded."""

from __future__ import annotations

from pathlib import Path

from experiments import by_device
from experiments.by_device import Row, case_name
from experiments.cut_tables import markdown
from experiments.pace import rate, spread, waited

RECORD = "throughput.json"
PEAKS = {("NVIDIA H200", "bfloat16"): 989e12}  # FLOP/s without sparsity, as published
MADE = {"given": "views given", "augmented": "with augmentation"}  # on a batch that stays on the device
READ = {"resident": "all images on the device", "packed": "packed set", "files": "PNG files"}


def table(record: Path) -> str:
    """Of each device: what every case reaches out of every input, then what its step costs."""
    return by_device.table(record, paces, costs)


def paces(rows: list[Row]) -> str:
    """Pairs a second, the median over the rounds with its range, and how long a step waited for each input."""
    lines = [["pairs/s of: method, network, px, batch, type", *MADE.values()]]
    lines[0] += [title for name in READ.values() for title in (name, "waiting")]
    for row in rows:
        read = [cell for name in READ for cell in (spread(row[name]["images_per_s"]), waited(row[name]))]
        lines.append([case_name(row), *(spread(row[name]["images_per_s"]) for name in MADE), *read])
    return markdown(lines)


def costs(rows: list[Row]) -> str:
    """Of the step with its augmentation: milliseconds, arithmetic, memory, and what it took to compile."""
    lines = [["step with augmentation", "ms (p95)", "GFLOP", "TFLOP/s", "of the peak", "GiB", "compiled in s"]]
    for row in rows:
        held = [f"{row['bytes'] / 2**30:.2f}", f"{row['compile_s']:.0f}"]
        lines.append([case_name(row), f"{row['ms']:.1f} ({row['p95_ms']:.1f})", *_arithmetic(row), *held])
    return markdown(lines)


def _arithmetic(row: Row) -> list[str]:
    """GFLOP of a step, TFLOP/s, and its share of the device's peak; dashes for what is not known."""
    if not row["flops"]:
        return ["-", "-", "-"]
    per_s = row["flops"] * rate(row["augmented"]) / row["case"]["batch"]
    peak = PEAKS.get((row["device"], row["case"]["dtype"]))
    return [f"{row['flops'] / 1e9:.1f}", f"{per_s / 1e12:.2f}", f"{per_s / peak:.1%}" if peak else "-"]
