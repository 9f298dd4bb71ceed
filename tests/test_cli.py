"""What the disk refuses is told in a sentence that names the option to change."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from shell import sentence
from test_separate import call

from medssl_jax import cli


@pytest.mark.parametrize(
    ("arguments", "file", "option"),
    [
        (["--figures=/my/pdfs", "--out=/my/pdfs-cut"], "/my/pdfs/a.pdf", "--figures"),
        (["--figures=/my/pdfs", "--out=/my/pdfs-cut"], "/my/pdfs-cut/panels.csv", "--out"),
        (["--figures", "/my/pdfs", "--out", "/my/pdfs/cut/"], "/my/pdfs/cut/panels.csv", "--out"),
        (["--config=configs/simcfs.py", "--config.data.path=/a, /b", "--workdir=runs/x"], "/b/1.png", "--config.data.path"),
        (["--config=configs/tower.py", "--workdir=runs/x"], str(Path("runs/x/config.json").absolute()), "--workdir"),
        (["--config=configs/tower.py", "--workdir=~/x"], str(Path("~/x").expanduser()), "--workdir"),
        (["segmentation", "--records=/r", "--list"], "/elsewhere/a", "folder"),
    ],
)
def test_the_option_is_that_of_the_innermost_folder(monkeypatch, capsys, arguments, file, option):
    monkeypatch.setattr(sys, "argv", ["command", *arguments])

    def refused():
        raise PermissionError(errno.EACCES, "Permission denied", file)

    def broken():
        raise OSError(errno.EIO, "Input/output error", file)

    assert cli.guarded(refused) == cli.guarded(broken) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: no permission for {file}; change its rights, or choose another {option}."
    assert second == f"error: {file}: Input/output error; check {option}."


def test_an_error_without_a_file_is_none_of_the_users(monkeypatch):
    def broken():
        raise OSError("of the inside")

    with pytest.raises(OSError, match="of the inside"):
        cli.guarded(broken)


@pytest.mark.parametrize(("sent", "code", "by"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "the keyboard")])
def test_a_stopped_command_says_so(capsys, sent, code, by):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell ignores it
    before = signal.getsignal(signal.SIGTERM)
    assert cli.execute(lambda: os.kill(os.getpid(), sent), ["command"]) == code
    assert capsys.readouterr().err == f"error: stopped by {by}; start the same command again: it keeps what was finished.\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_command_that_is_stopped_while_it_is_imported():
    result = subprocess.run([sys.executable, "-c", "import medssl_jax.cli; raise KeyboardInterrupt"], capture_output=True, text=True)
    assert result.returncode == -signal.SIGINT
    assert sentence(result).startswith("error: stopped by the keyboard")


def test_a_number_that_is_none():
    said = sentence(call("--figures=x", "--out=y", "--min-side=x"))
    assert said == "error: --min-side=x is not a positive integer: Pixels of the shorter side of a panel that is kept."


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has a folder that nobody can write to")
def test_a_folder_that_nobody_can_write_to(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    said = sentence(call(f"--figures={tmp_path}", "--out=/proc/panels", "--method=xycut"))
    assert said == "error: /proc/panels: No such file or directory; check --out."
