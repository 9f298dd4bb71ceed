"""The training loop: dispatch a step, then look at the numbers of the steps before it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import jax
import numpy as np

from medssl_jax.errors import UserError
from medssl_jax.train import agree
from medssl_jax.train.checkpoint import Checkpoints
from medssl_jax.train.logging import Logger, Progress
from medssl_jax.train.state import State
from medssl_jax.train.step import Batch, Step

STDERR = 2
AHEAD = 4  # steps in the device's queue at most


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train, and how often to look."""

    title: str
    steps: int
    batch: int
    log_every: int
    eval_every: int
    option: str = "pretrain.optimizer"  # where the config has the learning rate


class Interrupted(Exception):
    """The run was asked to stop, has saved what can be (a fine-tuning starts over), and can be continued by the same command.

    `code` is the exit code: 0 where a machine is taken back (SIGTERM, preemption), 130 where a person pressed Ctrl-C, so that the
    next command of a script does not start.
    """

    def __init__(self, reason: str, stop: StopRequest | None = None) -> None:
        super().__init__(reason)
        self.code = 128 + signal.SIGINT if stop and stop.by == signal.SIGINT else 0


class StopRequest:
    """Turns SIGTERM and SIGINT into a request that the loop honours between two steps. A second SIGINT stops at once.

    With several processes the signals stay with `jax.distributed`, which tells all processes of one's SIGTERM and agrees on the step.
    """

    def __init__(self) -> None:
        self.by: int | None = None  # the signal

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.by is not None

    def __enter__(self) -> StopRequest:
        signals = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else ()
        self._before = {s: signal.signal(s, self._note) for s in signals}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, self.by = not self.requested, number
        if first:  # a step or a compilation can take minutes; not by print, amid one of which the signal may have come
            with contextlib.suppress(OSError):  # nobody listens
                os.write(STDERR, b"\nStopping as soon as this step is done; another Ctrl-C stops at once.\n")

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def train(
    state: State,
    step: Step,
    batches: Iterator[Batch],
    plan: Plan,
    *,
    logger: Logger | None = None,
    checkpoints: Checkpoints | None = None,
    evaluate: Callable[[State], dict[str, float]] | None = None,
    stop: StopRequest | None = None,
) -> State:
    """Train from `state.step` to `plan.steps`; `batches` must start at that step.

    Raises UserError where the loss is no longer a number, naming the steps between which that happened and the last good
    checkpoint; Interrupted where `stop` was requested or the cluster takes the machine back, after saving.
    """
    first = int(state.step)
    progress = Progress(plan.title, plan.steps, first, plan.batch)
    pending: list[dict[str, jax.Array]] = []
    try:
        for k in range(first, plan.steps):
            if len(pending) >= AHEAD:  # where the device's queue is full, fetching a batch waits for it, too, which is no waiting for data
                jax.block_until_ready(pending[-AHEAD])
            began = time.perf_counter()
            batch = next(batches)
            progress.waited(time.perf_counter() - began)
            state, logs = step(state, batch)
            done = k + 1
            if k % plan.log_every == 0 and pending:  # the numbers of the steps before; the device is at work on this one meanwhile
                _report(pending, k, plan, progress, logger, checkpoints)
            pending.append(logs)
            looking = evaluate is not None and (done % plan.eval_every == 0 or done == plan.steps)
            leaving = (stop is not None and stop.requested) or (checkpoints is not None and agree.preempted())
            saving = checkpoints is not None and (leaving or checkpoints.due(done))
            if saving or done == plan.steps or (looking and done % plan.log_every == 0):
                _report(pending, done, plan, progress, logger, checkpoints)
            began = time.perf_counter()
            if evaluate and looking:  # before saving: a run continued here has it behind it
                found = evaluate(state)
                if logger:
                    logger.write(done, found)
            if checkpoints is not None and saving:
                checkpoints.save(state)
            if leaving:
                raise Interrupted(_left(plan, done, checkpoints), stop)
            progress.pause(began)
    finally:
        progress.close()
    return state


def _left(plan: Plan, done: int, checkpoints: Checkpoints | None) -> str:
    where = f"{plan.title} was left at step {done} of {plan.steps}"
    return f"{where} and is saved" if checkpoints else f"{where} and will start over; what was finished before it is kept"


def _report(
    pending: list[dict[str, Any]], done: int, plan: Plan, progress: Progress, logger: Logger | None, checkpoints: Checkpoints | None
) -> None:
    """Mean of the pending numbers to the log; forgets them. A gradient that is no number has spoilt the parameters, whatever the loss."""
    rows = jax.device_get(pending)
    pending.clear()
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    if not all(np.isfinite([row["loss"], row["gradient_norm"]]).all() for row in rows):
        raise UserError(_diverged(plan, done - len(rows), done, checkpoints))
    rates = progress.report(done, means["loss"])
    if logger:
        logger.write(done, {**means, **rates})


def _diverged(plan: Plan, start: int, end: int, checkpoints: Checkpoints | None) -> str:
    what = f"{plan.title}: the loss or its gradient became infinite or not a number between steps {start + 1} and {end}"
    remedy = f"lower config.{plan.option}.learning_rate or .clip and start again in a new workdir"
    if checkpoints is None:
        return f"{what}; {remedy}, with --config.pretrain.from=THIS_WORKDIR to keep the pretraining."
    good = f"the last good checkpoint is of step {checkpoints.latest}" if checkpoints.latest else "no checkpoint was written"
    return f"{what} ({good}); {remedy}."
