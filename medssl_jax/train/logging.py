"""Where the numbers of a run go: metrics.jsonl, TensorBoard, and the terminal."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm

from medssl_jax.errors import UserError

T = TypeVar("T")


class Logger:
    """Writes scalars of one phase of a run. Only the first process writes; the others' calls do nothing."""

    def __init__(self, workdir: Path, phase: str, *, resume_step: int = 0) -> None:
        self.phase, self.path = phase, workdir / "metrics.jsonl"
        self.first = jax.process_index() == 0
        if not self.first:
            return
        _forget_after(self.path, phase, resume_step)
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """One line of metrics.jsonl and the same scalars as TensorBoard events."""
        if not self.first:
            return
        line = {"phase": self.phase, "step": step, **scalars}
        with self.path.open("a") as file:
            file.write(json.dumps(_plain(line), allow_nan=False) + "\n")
        for name, value in scalars.items():
            self._events.add_scalar(f"{self.phase}/{name}", value, step)

    def close(self) -> None:
        """Flush what is still in memory."""
        if self.first:
            self._events.close()


def _forget_after(path: Path, phase: str, step: int) -> None:
    """Drop lines of steps that will be run again, so that every step stands once; a line cut short by a kill goes too."""
    if not path.exists():
        return
    kept, lines = [], path.read_text().splitlines()
    for text in lines:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if line["phase"] != phase or line["step"] <= step:
            kept.append(text)
    if kept != lines:  # beside it first: a full disk must not cost the lines that are there
        partial = path.with_suffix(".partial")
        partial.write_text("".join(text + "\n" for text in kept))
        partial.replace(path)


def say(message: str) -> None:
    """A line for the person at the terminal, from the first process only; it does not break a progress bar."""
    if jax.process_index() == 0:
        tqdm.write(message, file=sys.stderr)
        sys.stderr.flush()


class Progress:
    """A bar on a terminal and plain lines elsewhere, with images a second, the share of time waiting for data, and the time left."""

    def __init__(self, title: str, steps: int, start: int, batch: int) -> None:
        self.title, self.steps, self.batch = title, steps, batch
        self.mark, self.mark_step, self.waiting = time.perf_counter(), start, 0.0
        quiet = jax.process_index() != 0 or not sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, desc=title, unit="step", disable=quiet, dynamic_ncols=True)

    def waited(self, seconds: float) -> None:
        """Time spent waiting for the next batch."""
        self.waiting += seconds

    def pause(self, since: float) -> None:
        """Leave out the time since `since` (an evaluation, a checkpoint)."""
        self.mark += time.perf_counter() - since

    def report(self, step: int, loss: float) -> dict[str, float]:
        """Rates since the last report; shown, and returned for the log."""
        seconds = max(time.perf_counter() - self.mark, 1e-9)
        done = step - self.mark_step
        rates = {"images_per_second": done * self.batch / seconds, "data_wait": min(self.waiting / seconds, 1.0)}
        left = (self.steps - step) * seconds / max(done, 1)
        self._show(step, loss, rates, left)
        self.mark, self.mark_step, self.waiting = time.perf_counter(), step, 0.0
        return rates

    def _show(self, step: int, loss: float, rates: dict[str, float], left: float) -> None:
        if self._bar.disable:
            speed = f"{rates['images_per_second']:.0f} img/s, {rates['data_wait']:.0%} waiting for data"
            say(f"{self.title}: step {step}/{self.steps}, loss {loss:.4f}, {speed}, {math.ceil(left)} s left")
            return
        self._bar.set_postfix(loss=f"{loss:.3f}", img_s=f"{rates['images_per_second']:.0f}", wait=f"{rates['data_wait']:.0%}")
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file whole or not at all, what is not a finite number as null; only the first process writes. None: on one line."""
    if jax.process_index() == 0:
        partial = path.with_suffix(path.suffix + ".partial")
        partial.write_text(json.dumps(_plain(value), indent=indent, allow_nan=False) + "\n")
        partial.replace(path)


def read_json(path: Path, kind: type[T], remedy: str) -> T:
    """What `write_json` wrote, an object of that kind. Raises UserError, with the remedy, where the file is damaged."""
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, kind):
        raise UserError(f"{path} is damaged; {remedy}.")
    return found


def _plain(value: Any) -> Any:
    """JSON has no word for NaN and infinity."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
