"""Data by a URL: folders, arrays and splits are those of the same files here, copied once, anew where they changed."""

from __future__ import annotations

import fsspec
import numpy as np
import pytest
import tiny

from medssl_jax.data import remote
from medssl_jax.data.sources import open_dataset
from medssl_jax.errors import UserError


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A file system that is no folder, empty, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.store.clear()
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
    assert list(remote.cache("data").iterdir()) == []


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
