"""What the disk refuses is told in a sentence that names the option to change."""

from __future__ import annotations

import errno
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


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has a folder that nobody can write to")
def test_a_folder_that_nobody_can_write_to(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    said = sentence(call(f"--figures={tmp_path}", "--out=/proc/panels", "--method=xycut"))
    assert said == "error: /proc/panels: No such file or directory; check --out."
