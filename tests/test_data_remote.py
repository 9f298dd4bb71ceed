"""Data by a URL: folders, arrays and splits are those of the same files here, copied once, anew where they changed."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
import shell
import tiny

from medssl_jax.data import packing, remote
from medssl_jax.data.sources import open_dataset, open_stored
from medssl_jax.errors import UserError
from medssl_jax.machine import alone


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A file system that is no folder, empty, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    remote._copied.cache_clear()
    yield files
    files.store.clear()
    remote._copied.cache_clear()


def config(path: str, **changes):
    c = tiny.config("tower").data
    c.path = path
    c.update(changes)
    return c


def same_pools(ours, theirs) -> bool:
    pairs = zip((ours.pool[i] for i in range(len(ours.pool))), (theirs.pool[i] for i in range(len(theirs.pool))), strict=True)
    return all(a["id"] == b["id"] and np.array_equal(a["image"], b["image"]) for a, b in pairs)


def test_a_folder(bucket, tmp_path):
    here = tiny.folder(tmp_path / "cells")
    bucket.put(str(here), "/bucket/cells", recursive=True)
    ours, theirs = open_dataset(config("memory://bucket/cells")), open_dataset(config(str(here)))
    assert ours.name == theirs.name == "cells"
    assert ours.task == theirs.task == "segmentation"
    assert same_pools(ours, theirs)


def test_arrays(bucket, tmp_path):
    here = tmp_path / "set.npz"
    images = {f"{part}_images": tiny.images(4, channels=3) for part in ("train", "val", "test")}
    np.savez(here, **images, **{f"{part}_labels": np.array([[0], [1], [0], [1]]) for part in ("train", "val", "test")})
    bucket.put(str(here), "/bucket/set.npz")
    assert same_pools(open_dataset(config("memory://bucket/set.npz")), open_dataset(config(str(here))))


def test_splits(bucket, tmp_path):
    here = tiny.folder(tmp_path / "cells")
    bucket.pipe("/bucket/splits.csv", b"name,split\ncell0,test\ncell1,val\n")
    dataset = open_dataset(config(str(here), splits="memory://bucket/splits.csv"))
    assert (len(dataset.pool), len(dataset.val), len(dataset.test)) == (6, 1, 1)


def test_copied_once_and_anew_when_changed(bucket):
    bucket.pipe("/bucket/set/a.txt", b"one")
    first = remote.local("memory://bucket/set")
    (first / "a.txt").write_text("the copy")
    remote._copied.cache_clear()  # as another process
    assert remote.local("memory://bucket/set") == first
    assert (first / "a.txt").read_text() == "the copy"
    bucket.pipe("/bucket/set/a.txt", b"another")
    remote._copied.cache_clear()
    second = remote.local("memory://bucket/set")
    assert second != first
    assert (second / "a.txt").read_bytes() == b"another"


def test_a_copy_that_fails_leaves_nothing(bucket, monkeypatch):
    bucket.pipe("/bucket/set/a.txt", b"one")

    def broken(*arguments, **options):
        raise OSError("the connection was lost")

    monkeypatch.setattr(type(bucket), "get", broken)
    with pytest.raises(UserError, match=r"memory://bucket/set could not be copied to .* \(the connection was lost\)"):
        remote.local("memory://bucket/set")
    assert left() == []


def left():
    """What lies in the cache besides locks, which are empty."""
    return sorted(path.name for path in remote.cache("data").iterdir() if path.suffix != ".lock")


def test_one_copies_and_the_others_wait(bucket, monkeypatch):
    bucket.pipe("/bucket/set/a.txt", b"one")
    get, calls = type(bucket).get, []

    def slow(self, *arguments, **options):
        calls.append(arguments)
        time.sleep(0.2)
        get(self, *arguments, **options)

    monkeypatch.setattr(type(bucket), "get", slow)
    with ThreadPoolExecutor(4) as tasks:  # of functools.cache each computes its own, as processes do
        found = set(tasks.map(remote.local, ["memory://bucket/set"] * 4))
    (place,) = found
    assert (place / "a.txt").read_bytes() == b"one"
    assert len(calls) == 1
    assert left() == [place.parent.name]


KILLED = """
import os, sys
from pathlib import Path
from fsspec.implementations.local import LocalFileSystem
from medssl_jax.data import remote

def killed(self, there, here, **options):
    Path(here).mkdir()
    Path(here, "half").write_text("")
    os._exit(9)

LocalFileSystem.get = killed
remote.local(sys.argv[1])
"""


def test_what_a_killed_copy_left_goes_with_the_next(tmp_path, bucket):
    for name in ("same", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
        killed = subprocess.run([sys.executable, "-c", KILLED, f"file://{tmp_path / name}"], cwd=shell.ROOT, timeout=shell.LIMIT)
        assert killed.returncode == 9
    assert [name.partition(".")[2] for name in left()] == ["partial"]  # of the second, which found that of the first
    place = remote.local(f"file://{tmp_path / 'other'}")
    assert [path.name for path in place.iterdir()] == ["a.txt"]
    assert left() == [place.parent.name]


def test_what_another_process_is_copying_stays(bucket):
    bucket.pipe("/bucket/set/a.txt", b"one")
    data = remote.cache("data")
    data.mkdir(parents=True)
    (data / "0123.partial").mkdir()
    with alone(data / "0123.lock", ""):
        place = remote.local("memory://bucket/set")
    assert left() == sorted(["0123.partial", place.parent.name])


def test_a_pack_of_a_url_goes_on_on_another_machine(bucket, tmp_path, monkeypatch):
    bucket.put(str(tiny.folder(tmp_path / "cells")), "/bucket/cells", recursive=True)
    job = functools.partial(packing.Job, out=tmp_path / "packed")
    assert packing.pack(job(open_stored(config("memory://bucket/cells")))) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    remote._copied.cache_clear()
    assert packing.pack(job(open_stored(config("memory://bucket/cells")))) == 0
    image = min(path for path in bucket.find("/bucket/cells") if path.endswith((".png", ".tif")))
    bucket.pipe(image, bucket.cat(image))  # another of the same size, as far as the state tells
    remote._copied.cache_clear()
    with pytest.raises(UserError, match="images that were changed since"):
        packing.pack(job(open_stored(config("memory://bucket/cells"))))


def test_nothing_there(bucket):
    with pytest.raises(UserError, match="there is nothing at memory://bucket/typo; give the folder"):
        open_dataset(config("memory://bucket/typo"))


def test_a_kind_of_url_that_nobody_knows(bucket):
    with pytest.raises(UserError, match=r"cloud://bucket/set cannot be read \(Protocol not known: cloud"):
        open_dataset(config("cloud://bucket/set"))


def test_a_package_that_is_missing(bucket, monkeypatch):
    def missing(url):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UserError, match="gs://bucket/set needs a package that is not installed: Please install gcsfs"):
        open_dataset(config("gs://bucket/set"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file://", r"file:// names no folder; write file:///FOLDER"),
        ("gs:///", r"gs:/// names no folder; write gs://BUCKET/FOLDER"),
        ("file://tmp/set", r"file://tmp/set lacks a slash"),
    ],
)
def test_urls_that_name_no_place(url, message):
    with pytest.raises(UserError, match=message):
        open_dataset(config(url))
