"""Commands as from a shell, each in a process of its own; most are forks of one process that has imported everything before."""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu"}
LIMIT = 600  # seconds, for what hangs

SMALL = [
    "--config.compilation_cache=",
    "--config.data.tile=48",
    "--config.views.size=32",
    "--config.model.width=2",
    "--config.model.depth=2",
    "--config.model.decoder_width=2",
    "--config.model.projection=(4, 4)",
    "--config.pretrain.steps=4",
    "--config.pretrain.batch=4",
    "--config.pretrain.log_every=2",
    "--config.pretrain.eval_every=4",
    "--config.pretrain.checkpoint_every=2",
    "--config.finetune.patch=32",
    "--config.finetune.steps=2",
    "--config.finetune.batch=4",
    "--config.finetune.eval_every=2",
    "--config.finetune.seeds=1",
]


def main(*flags: str, config: str = "tower", workdir: Path | str | None = None) -> list[str]:
    """The arguments of a run with a tiny network on tiny images."""
    where = [f"--workdir={workdir}"] if workdir else []
    return ["medssl_jax.main", f"--config=configs/{config}.py", *SMALL, *flags, *where]


def run(*arguments: str) -> subprocess.CompletedProcess:
    """`python -m` with these arguments, at its end, without the seconds of its imports."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        print(json.dumps({"arguments": arguments, "out": str(out), "err": str(err)}), file=_server().stdin, flush=True)
        code = int(_server().stdout.readline())
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    """The same in an interpreter of its own, not waited for, with more variables of the environment."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, env={**ENVIRONMENT, **environment}, **pipes)


def ended(*started: subprocess.Popen) -> list[subprocess.CompletedProcess]:
    """What the processes have said, once all are at their end."""
    try:
        said = [process.communicate(timeout=LIMIT) for process in started]
    finally:
        for process in started:
            process.kill()
    return [subprocess.CompletedProcess(process.args, process.returncode, *texts) for process, texts in zip(started, said)]


def finished(process: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    """The process, which must not have failed."""
    assert process.returncode == 0, process.stderr
    return process


def sentence(result: subprocess.CompletedProcess) -> str:
    """The one sentence of a refusal; fails on a traceback or a zero exit."""
    assert result.returncode != 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def wait_for(path: Path, lines: int, process: subprocess.Popen) -> None:
    """Until the file has that many lines; fails where the process ends before."""
    limit = time.monotonic() + LIMIT
    while time.monotonic() < limit and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= lines:
            return
        time.sleep(0.05)
    raise AssertionError(f"the run never logged {lines} lines: {process.stderr.read() if process.stderr else ''}")


@functools.cache
def _server() -> subprocess.Popen:
    """The process that forks; it ends with its standard input."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, __file__], cwd=ROOT, env=ENVIRONMENT, **pipes)
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    """Fork at each line and answer with the exit code. JAX only imports here: its threads would not survive a fork."""
    import medssl_jax.experiment
    import medssl_jax.figures.detect
    import medssl_jax.figures.render  # noqa: F401

    gc.freeze()  # or each child, at its end, walks through all that was imported
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(**order)
            break
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(arguments: list[str], out: str, err: str) -> None:
    """Run the module as `python -m` would."""
    signal.alarm(LIMIT)
    write = os.O_WRONLY | os.O_CREAT
    for number, (path, mode) in enumerate([(os.devnull, os.O_RDONLY), (out, write), (err, write)]):
        os.dup2(os.open(path, mode), number)
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    _serve()
