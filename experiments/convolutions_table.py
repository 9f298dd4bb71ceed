"""Markdown of what `experiments.convolutions` recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiments import by_device
from experiments.by_device import Row
from experiments.cut_tables import markdown
from medssl_jax import cpu

RECORD = "convolutions.json"
PASSES = ("forward", "to the input", "to the kernel")
PRODUCT = "as lax's convolution"  # what medssl_jax computes as a product

By = dict[str, Row]  # rows of one shape by their XLA_FLAGS
Value = Callable[[Row], float | None]  # of a row's milliseconds


def table(record: Path) -> str:
    """Of each device: a line a shape, then one of the formulations of the gradient to the kernel. In brackets, what was measured without
    the flag of medssl_jax/cpu.py."""
    return by_device.table(record, lambda rows: passes(_by_shape(rows)), lambda rows: formulations(_by_shape(rows)))


def _by_shape(rows: list[Row]) -> dict[tuple[int, ...], By]:
    found: dict[tuple[int, ...], By] = {}
    for row in rows:
        found.setdefault(tuple(row["shape"]), {})[row["flags"]] = row
    return found


def passes(shapes: dict[tuple[int, ...], By]) -> str:
    """Milliseconds of both frameworks, and how often JAX does all three passes while PyTorch does them once."""
    lines = [["JAX ms / PyTorch ms", *PASSES, "PyTorch / JAX"]]
    for shape, by in shapes.items():
        for name, title in (("jax", shape_name(shape)), ("lax", f"{shape_name(shape)}, {PRODUCT}")):
            if any(name in row["ms"] for row in by.values()):
                lines.append([title, *(_pair(by, name, of) for of in PASSES), _both(by, _ratio(name), 2)])
    return markdown(lines)


def formulations(shapes: dict[tuple[int, ...], By]) -> str:
    """Milliseconds of the gradient to the kernel, as it is and as it was tried."""
    names = list(dict.fromkeys(name for by in shapes.values() for row in by.values() for name in row["ms"]["kernel"]))
    lines = [["to the kernel, JAX ms", "kept", *names]]
    for shape, by in shapes.items():
        tried = [_both(by, _ms("kernel", name)) for name in names]
        lines.append([shape_name(shape), _both(by, _ms("jax", "to the kernel")), *tried])
    return markdown(lines)


def shape_name(shape: tuple[int, ...]) -> str:
    """Pixels, and channels in and out."""
    side, inputs, outputs = shape
    return f"{side} x {side}, {inputs} to {outputs}"


def _pair(by: By, name: str, of: str) -> str:
    """JAX's milliseconds with and without the flag, and PyTorch's, which knows none, of the first of the two runs."""
    theirs = next((row["ms"]["torch"][of] for row in _runs(by) if row), None)
    return f"{_both(by, _ms(name, of))} / {_number(theirs, 1)}"


def _both(by: By, value: Value, digits: int = 1) -> str:
    """The value of the run with the flag, and in brackets that of the run with none."""
    settled, empty = (_number(value(row["ms"]) if row else None, digits) for row in _runs(by))
    return f"{settled} ({empty})"


def _runs(by: By) -> tuple[Row | None, Row | None]:
    return by.get(cpu.WITHOUT_YNNPACK), by.get("")


def _ms(name: str, of: str) -> Value:
    return lambda ms: ms.get(name, {}).get(of)


def _ratio(name: str) -> Value:
    return lambda ms: sum(ms["torch"].values()) / sum(ms[name].values()) if name in ms else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
