"""A run at a URL: what is there is what was here, the next machine goes on from it, and what cannot be kept is told at once."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
import signal
import threading
from pathlib import Path

import pytest
import shell
import tiny

from medssl_jax import mirror
from medssl_jax.errors import UserError


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Turns this into another machine, whose disk holds nothing yet."""

    def become(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    become("first")
    return become


def begun(url):
    found = mirror.Mirror(url)
    found.fetch()
    return found


def pushed(url, **files):
    """A run with these files, copied."""
    run = begun(url)
    write(run, **files)
    run.push()
    return run


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in Path(folder).rglob("*") if path.is_file()}


def write(run, **files):
    for name, text in files.items():
        path = run.here / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_next_machine_has_what_the_first_one_copied(machine, tmp_path):
    url = f"file://{tmp_path}/bucket/run"
    run = pushed(url, config="{}", checkpoints__1__params="one", metrics="a")
    write(run, checkpoints__2__params="two", metrics="a b")
    (run.here / "checkpoints" / "1" / "params").unlink()
    run.push()
    write(run, metrics="a b c")
    run.push()
    there = tree(tmp_path / "bucket" / "run")
    index = json.loads(there.pop(mirror.INDEX))
    assert there == {"config": "{}", "checkpoints/2/params": "two", "metrics": "a b c"}
    assert set(index["files"]) == set(there)
    machine("second")
    later = begun(url)
    assert {name: text for name, text in tree(later.here).items() if name != mirror.INDEX} == there
    before = (tmp_path / "bucket" / "run" / mirror.INDEX).read_text()
    later.push()
    assert (tmp_path / "bucket" / "run" / mirror.INDEX).read_text() == before  # nothing has changed


def test_what_is_newer_here_stays_and_what_another_machine_wrote_is_taken(machine, tmp_path, capsys):
    url = f"file://{tmp_path}/bucket/run"
    run = pushed(url, metrics="copied")
    write(run, metrics="newer", left="killed before it was copied")
    assert tree(begun(url).here)["metrics"] == "newer"
    machine("second")
    other = begun(url)
    assert contents(other.here) == {"metrics": "copied"}
    write(other, metrics="of the second")
    other.push()
    machine("first")
    with pytest.raises(UserError, match="another machine has gone on with the run at --workdir=file"):
        run.push()
    again = begun(url)
    assert contents(again.here) == {"metrics": "of the second"}
    aside = Path(re.search("it is kept in (.*)\\.", capsys.readouterr().err)[1])
    assert contents(aside) == {"metrics": "newer", "left": "killed before it was copied"}


def contents(folder):
    return {name: text for name, text in tree(folder).items() if name != mirror.INDEX}


def test_a_url_that_was_emptied_is_a_new_run_and_nothing_is_lost(machine, tmp_path, capsys):
    url = f"file://{tmp_path}/bucket/run"
    run = pushed(url, metrics="old")
    shutil.rmtree(tmp_path / "bucket" / "run")
    run.push()  # nothing has changed here
    again = begun(url)
    assert contents(again.here) == {}
    assert contents(Path(re.search("it is kept in (.*)\\.", capsys.readouterr().err)[1])) == {"metrics": "old"}
    write(again, metrics="new")
    again.push()
    assert contents(tmp_path / "bucket" / "run") == {"metrics": "new"}


def test_a_checkpoint_stays_until_the_copy_after_the_next(machine, tmp_path):
    """A walk through a folder that changes may see neither the old one nor the new one."""
    run = pushed(f"file://{tmp_path}/bucket/run", checkpoints__1__params="one")
    (run.here / "checkpoints" / "1" / "params").unlink()
    write(run, metrics="a")
    run.push()
    assert contents(tmp_path / "bucket" / "run") == {"checkpoints/1/params": "one", "metrics": "a"}
    write(run, checkpoints__2__params="two")
    run.push()
    assert contents(tmp_path / "bucket" / "run") == {"checkpoints/2/params": "two", "metrics": "a"}


def cut_short(run, monkeypatch, *last):
    """A copy of which the files named `last` do not arrive."""
    put = run._there.put_file

    def failing(here, there):
        if here.endswith(last):
            raise OSError("the network is down")
        put(here, there)

    with monkeypatch.context() as patched:
        patched.setattr(run._there, "put_file", failing)
        with pytest.raises(UserError, match="the network is down"):
            run.push()


@pytest.mark.parametrize("name", ["first", "second"])
def test_what_a_copy_cut_short_left_goes_with_the_next(name, machine, tmp_path, monkeypatch):
    """A checkpoint that arrived before the index named it, and of which the next copy knows nothing, here or on another machine."""
    url = f"file://{tmp_path}/bucket/run"
    run = pushed(url, checkpoints__1__params="one", config="{}")
    write(run, checkpoints__2__params="two", z="")
    cut_short(run, monkeypatch, "/z")
    shutil.rmtree(run.here / "checkpoints" / "2")
    assert "checkpoints/2/params" in contents(tmp_path / "bucket" / "run")
    machine(name)
    write(begun(url), checkpoints__3__params="three", z="")
    begun(url).push()
    expected = {"checkpoints/1/params": "one", "checkpoints/3/params": "three", "config": "{}", "z": ""}
    assert contents(tmp_path / "bucket" / "run") == expected


def test_a_run_that_is_over_leaves_what_its_index_names(machine, tmp_path):
    url = f"file://{tmp_path}/bucket/run"
    with mirror.kept(url) as here:
        run = pushed(url, checkpoints__1__params="one", config="{}")
        shutil.rmtree(here / "checkpoints" / "1")
        write(run, checkpoints__2__params="two")
    assert contents(tmp_path / "bucket" / "run") == {"checkpoints/2/params": "two", "config": "{}"}
    machine("second")
    with mirror.kept(url) as here:
        assert contents(here) == {"checkpoints/2/params": "two", "config": "{}"}
        (tmp_path / "bucket" / "run" / "checkpoints" / "9").write_text("left by a copy of the first")
    assert contents(tmp_path / "bucket" / "run") == {"checkpoints/2/params": "two", "config": "{}"}


def test_other_things_beside_the_folders_of_a_run_stay(machine, tmp_path):
    run = pushed(f"file://{tmp_path}/bucket/run", checkpoints__1__params="one")
    mine = {"thesis.tex": "mine", "ablation/mirror.json": "{}", "ablation/checkpoints/7": "of another run"}
    for name, text in mine.items():
        path = tmp_path / "bucket" / "run" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    write(run, checkpoints__2__params="two")
    run.close()
    assert tree(tmp_path / "bucket" / "run").items() >= mine.items()


def test_another_machine_that_goes_on_meanwhile_loses_nothing(machine, tmp_path, monkeypatch):
    """It begins to copy while the first one copies, or when the first has written its index and looks for what to remove."""
    url = f"file://{tmp_path}/bucket/run"
    run = pushed(url, checkpoints__1__params="one")

    def other(then, *arguments):
        machine("second")
        newer = begun(url)
        write(newer, checkpoints__3__params="three")
        newer._put("checkpoints/3/params")
        return then(*arguments)

    for hook, refused in (("_listed", False), ("_put", True)):
        machine("first")
        then = getattr(run, hook)
        write(run, checkpoints__2__params=hook)
        with monkeypatch.context() as patched:
            patched.setattr(run, hook, functools.partial(other, then))
            with pytest.raises(UserError, match="another machine has gone on") if refused else contextlib.nullcontext():
                run.push()
        assert_whole(tmp_path / "bucket" / "run")
        assert contents(tmp_path / "bucket" / "run")["checkpoints/3/params"] == "three"
        shutil.rmtree(tmp_path / "second")
        machine("first")
        run = begun(url)


def assert_whole(folder):
    index = json.loads((folder / mirror.INDEX).read_text())
    assert index["files"].keys() <= contents(folder).keys()


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_killed_while_it_removes(after, machine, tmp_path, monkeypatch):
    """Whatever it had removed by then, what the index names is there, and the next copy removes the rest."""
    url = f"file://{tmp_path}/bucket/run"
    run = pushed(url, **{f"checkpoints__{i}__params": str(i) for i in range(3)})
    for i in range(3):
        shutil.rmtree(run.here / "checkpoints" / str(i))
    write(run, checkpoints__7__params="seven")
    run.push()
    write(run, metrics="a")
    remove, removed = run._there.rm_file, []

    def killed(path):
        if len(removed) == after:
            raise KeyboardInterrupt
        removed.append(remove(path))

    with monkeypatch.context() as patched:
        patched.setattr(run._there, "rm_file", killed)
        with pytest.raises(KeyboardInterrupt) if after < 3 else contextlib.nullcontext():
            run.push()
    assert_whole(tmp_path / "bucket" / "run")
    assert len(contents(tmp_path / "bucket" / "run")) == 5 - after
    again = begun(url)
    write(again, metrics="b")
    again.push()
    assert contents(tmp_path / "bucket" / "run") == {"checkpoints/7/params": "seven", "metrics": "b"}


def test_a_copy_cut_short_adds_nothing_to_the_run(machine, tmp_path, monkeypatch):
    url = f"file://{tmp_path}/bucket/run"
    run = pushed(url, a="1")
    write(run, b__params="2", c="2")
    put = run._there.put_file

    def failing(here, there):
        if here.endswith("/c"):
            raise OSError("the network is down")
        put(here, there)

    with monkeypatch.context() as patched:
        patched.setattr(run._there, "put_file", failing)
        with pytest.raises(UserError, match=r"cannot be written \(the network is down\); what there is lies in .*run-"):
            run.push()
        patched.setattr(run._there, "put_file", lambda here, there: (_ for _ in ()).throw(FileNotFoundError("no such bucket")))
        with pytest.raises(UserError, match="no such bucket"):
            run.push()
    machine("second")
    assert contents(begun(url).here) == {"a": "1"}


@pytest.mark.parametrize("step", [1, 2])
def test_killed_while_the_index_is_written(machine, tmp_path, monkeypatch, step):
    """Before it is at the URL, or before it is here: the same machine goes on with what it has."""
    url = f"file://{tmp_path}/bucket/run"
    run = pushed(url, a="1")
    write(run, a="2")
    calls, whole = [], mirror.write_json

    def killed(path, value):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        whole(path, value)

    with monkeypatch.context() as patched:
        if step == 2:
            patched.setattr(mirror, "write_json", killed)
        else:
            patched.setattr(run._there, "pipe_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run.push()
    write(run, a="3")
    again = begun(url)
    assert contents(again.here) == {"a": "3"}
    again.push()
    assert contents(tmp_path / "bucket" / "run") == {"a": "3"}


def test_files_that_come_and_go(machine, tmp_path, monkeypatch):
    """What is being written is left out; what goes while it is copied is looked for again."""
    run = begun(f"file://{tmp_path}/bucket/run")
    write(run, a="1", z="1", **{"5.orbax-checkpoint-tmp-1__x": "1", "b.partial": "1"})
    put = run._there.put_file

    def vanishing(here, there):
        (run.here / "z").unlink(missing_ok=True)
        put(here, there)

    monkeypatch.setattr(run._there, "put_file", vanishing)
    run.push()
    assert set(json.loads((tmp_path / "bucket" / "run" / mirror.INDEX).read_text())["files"]) == {"a"}


def test_other_files_are_left_alone(machine, tmp_path):
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"bucket holds other files and no run \(no mirror\.json\); choose another"):
        begun(f"file://{tmp_path}/bucket")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--workdir=file://.*/file is a file; choose a folder"):
        begun(f"file://{tmp_path}/file")
    with pytest.raises(UserError, match=r"--workdir=file://.*/file/run cannot be written"):
        begun(f"file://{tmp_path}/file/run")


def test_what_ended_a_run_is_told_and_not_what_became_of_its_copy(machine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mirror.Mirror, "push", lambda self: (_ for _ in ()).throw(UserError("it cannot be copied.")))
    with pytest.raises(UserError, match="the loss is no number"), mirror.kept(f"file://{tmp_path}/bucket/run"):
        raise UserError("the loss is no number.")
    assert "it cannot be copied." in capsys.readouterr().err
    with pytest.raises(UserError, match="it cannot be copied"), mirror.kept(f"file://{tmp_path}/bucket/run"):
        pass


def test_another_process_begins_with_what_the_first_one_copied(machine, tmp_path):
    url = f"file://{tmp_path}/bucket/run"
    run = pushed(url, config="{}", checkpoints__1__params="one", figures__a="shown", tensorboard__events="shown")
    (run.here / "figures" / "a").rename(run.here / "figures" / "a.png")
    run.push()
    other = mirror.Mirror(url, tmp_path / "other")
    other.receive(run.mark())
    assert tree(tmp_path / "other") == {"config": "{}", "checkpoints/1/params": "one"}


def test_a_process_begins_with_no_other_run(machine, tmp_path):
    url = f"file://{tmp_path}/bucket/run"
    mark = pushed(url, metrics="first").mark()
    machine("second")
    pushed(url, metrics="second")
    with pytest.raises(UserError, match=r"another machine has gone on with the run at --workdir=file://.*; end one of the two"):
        mirror.Mirror(url, tmp_path / "other").receive(mark)
    assert not (tmp_path / "other").exists()


def test_a_run_that_another_machine_takes_is_stopped(machine, tmp_path, monkeypatch, capsys):
    url, stopped = f"file://{tmp_path}/bucket/run", threading.Event()
    monkeypatch.setattr(mirror, "EVERY", 0.05)
    monkeypatch.setattr(mirror.os, "kill", lambda process, number: stopped.set() if number == signal.SIGTERM else None)

    def run():
        with mirror.kept(url) as here:
            machine("second")
            begun(url)
            (here / "metrics").write_text("nobody's")
            assert stopped.wait(30)
            raise SystemExit(0)  # as a training does that was stopped

    with pytest.raises(UserError, match="another machine has gone on with the run at --workdir=file://"):
        run()
    assert not (tmp_path / "bucket" / "run" / "metrics").exists()


def test_one_process_of_a_machine_has_the_run(machine, tmp_path):
    url = f"file://{tmp_path}/bucket/run"
    with mirror.kept(url), pytest.raises(UserError, match="another process has the run at file://"), mirror.kept(url):
        pass


def test_a_run_is_continued_by_another_machine(machine, tmp_path):
    """The first is taken back (SIGTERM) once there is a checkpoint; the run ends on the second, and on the third it is finished."""
    url, data = f"file://{tmp_path}/bucket/tower", tiny.folder(tmp_path / "data")
    flags = ["--config.data.task=none", f"--config.data.path={data}", "--config.pretrain.steps=300"]
    first = shell.start(*shell.main(*flags, workdir=url), XDG_CACHE_HOME=str(tmp_path / "first"))
    shell.wait_for(mirror.Mirror(url).here / "metrics.jsonl", lines=2, process=first)
    first.send_signal(signal.SIGTERM)
    said = stderr(first)
    assert f"The run is kept at {url}; on this machine it lies in" in said
    left = re.search(r"was left at step (\d+) of 300 and is saved", said)[1]
    assert (tmp_path / "bucket" / "tower" / "checkpoints" / left).is_dir()
    second = stderr(shell.start(*shell.main(*flags, workdir=url), XDG_CACHE_HOME=str(tmp_path / "second")))
    assert f"Continuing the pretraining at step {left} of 300" in second
    assert (tmp_path / "bucket" / "tower" / "report.html").exists()
    third = stderr(shell.start(*shell.main(*flags, workdir=url), XDG_CACHE_HOME=str(tmp_path / "third")))
    assert "is finished; its table is below" in third


def stderr(process):
    (ended,) = shell.ended(process)
    return shell.finished(ended).stderr


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"mark": "a"}', '{"mark": 7, "files": 3}', '{"mark": "a", "files": []}', '{"mark": "a", "files": {"../b": [1, 2]}}'],
)
def test_a_damaged_index_is_named(text, machine, tmp_path):
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / mirror.INDEX).write_text(text)
    with pytest.raises(UserError, match=r"bucket/mirror\.json is damaged; take it from a backup"):
        begun(f"file://{tmp_path}/bucket")
