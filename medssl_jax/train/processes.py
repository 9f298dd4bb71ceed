"""The processes of a run: how they find one another, and what one does when another is gone."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax

from medssl_jax.errors import UserError

SILENCE = 100  # seconds without a sign of life after which a process counts as lost; JAX's own default
GRACE = 20.0  # seconds in which processes that fail alike say goodbye to one another
CUT_OFF = (
    "error: this process cannot go on, most likely because another process of the run has ended: see what the others said, and start the "
    "same command again in all of them, which continues from the last checkpoint."
)
NOT_MET = (
    "error: the other processes of the run were not met{}; start all of them, within five minutes, and name process 0's machine and a free "
    "port of it to all."
)
LAST_WORD = "import sys; sys.stdin.read() or sys.exit(sys.argv[1])"  # a farewell on standard input, or it ends without one


def initialise_distributed(coordinator: str = "", count: int = 0, index: int = -1, silence: int = SILENCE) -> None:
    """Join the other processes of the run: those named by the arguments, or by JAX_COORDINATOR_ADDRESS, JAX_PROCESS_COUNT and
    JAX_PROCESS_INDEX, or those that the environment knows of (a TPU pod, Slurm, Open MPI). One process alone joins nothing. One
    that is not heard of for `silence` seconds is given up, and the others end.

    Raises UserError where a coordinator is named without count and index, or these without a coordinator, where one of them cannot be, and
    where JAX does not find the other processes of a job that has several.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    if coordinator:
        host, _, port = coordinator.rpartition(":")
        if not (host and re.fullmatch(r"\d+", port) and 0 < int(port) < 2**16):
            raise UserError(f"the coordinator {coordinator!r} is not HOST:PORT; name process 0's machine and a free port of it.")
        count = count or _number("JAX_PROCESS_COUNT", 0)
        index = index if index >= 0 else _number("JAX_PROCESS_INDEX", -1)
        if not 0 <= index < count:
            raise UserError(
                f"a coordinator is named but not which process this is (index {index} of {count}); give every process "
                "--process_count=N and its own --process_index from 0 to N - 1."
            )
        _join(silence, coordinator_address=coordinator, num_processes=count, process_id=index)
    elif _launched_together() or _tpu_hosts():
        _join(silence)
    elif (count or _number("JAX_PROCESS_COUNT", 0)) > 1 or index >= 0:
        raise UserError(
            "--process_count or --process_index (or JAX_PROCESS_COUNT) is given but no process to join; add --coordinator=HOST:PORT of "
            "process 0 (or JAX_COORDINATOR_ADDRESS)."
        )


def _join(silence: int, **named: Any) -> None:
    at = f" at {named['coordinator_address']}" if named else ""
    print(f"Waiting for the other processes of the run{at}.", file=sys.stderr, flush=True)  # `say` would start JAX
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # Python's own handlers would wait, too
    try:
        with _last_word(NOT_MET.format(at)):
            jax.distributed.initialize(**named, heartbeat_timeout_seconds=silence)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # SIGTERM is JAX's by now
    except (ValueError, RuntimeError) as error:
        what = str(error).splitlines()[0][:200]
        raise UserError(
            f"this process should run with others, and JAX does not find them ({what}); a Slurm script needs srun before python, "
            "and elsewhere all name process 0: --coordinator=HOST:PORT --process_count=N --process_index=I."
        ) from error


def _launched_together() -> bool:
    """Whether Slurm or Open MPI say that this process has others."""
    tasks = max(_number(name, 1) for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    return tasks > 1 and any(name in os.environ for name in ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK"))


def _tpu_hosts() -> bool:
    """Whether this is a host of a TPU slice that may have others: JAX then asks the environment (GKE) or the metadata server (TPU VM)."""
    if "tpu" not in str(jax.config.jax_platforms):  # type: ignore[attr-defined]  # JAX writes it there where it finds TPU chips
        return False
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    several = "TPU_SKIP_MDS_QUERY" not in os.environ if hosts is None else "," in hosts
    return several or _number("MEGASCALE_NUM_SLICES", 1) > 1


def _number(variable: str, otherwise: int) -> int:
    """What the environment says, which must be a whole number."""
    found = os.environ.get(variable) or str(otherwise)
    if not re.fullmatch(r"-?\d+", found.strip()):
        raise UserError(f"the environment variable {variable}={found!r} is no whole number; correct or unset it.")
    return int(found)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around all that the processes of a run do with one another: none is left waiting for one that is gone, and each says so.

    Where a connection breaks JAX raises; where a process is only silent (always so on TPUs), JAX aborts the others in the midst of a
    computation. The last word is therefore said by a small process beside this one.
    """
    if not jax.distributed.is_initialized():
        yield
        return
    with _last_word(CUT_OFF):
        try:
            yield
            jax.distributed.shutdown()  # waits for the others
        except SystemExit:  # which all have agreed upon
            raise
        except BaseException as error:
            if _broken(error):
                _cut_off(error)
            _leave_soon()
            raise


@contextlib.contextmanager
def _last_word(sentence: str) -> Iterator[None]:
    """Have a small process beside this one say it, should this one be aborted meanwhile."""
    beside = subprocess.Popen([sys.executable, "-c", LAST_WORD, sentence], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        beside.communicate(b"farewell")


def _broken(error: BaseException) -> bool:
    """Whether it is a lost connection; on CPUs it can come as a plain ValueError."""
    lost = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error)
    return lost or (isinstance(error, ValueError) and "Gloo" in str(error))


def _cut_off(error: BaseException) -> None:
    """End at once: at a regular end JAX and Orbax wait for the other processes."""
    sys.stdout.flush()
    print(str(error).splitlines()[0], file=sys.stderr, flush=True)
    os._exit(1)


def _leave_soon() -> None:
    """Do not wait long for processes that have not failed and will never come to the end where all meet."""
    timer = threading.Timer(GRACE, os._exit, [1])
    timer.daemon = True
    timer.start()
