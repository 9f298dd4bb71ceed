"""Data named by a URL (gs://, s3://, https://, ...): copied once to this machine, because every image is read more than once."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
from fsspec.callbacks import TqdmCallback
from tqdm import tqdm

from medssl_jax.errors import UserError

EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3"}  # of pyproject.toml, with what these URLs need
VERSION_KEYS = ("size", "etag", "ETag", "md5Hash", "mtime", "LastModified", "created")  # by which file systems tell a changed file


def local(path: str) -> Path:
    """The path on this machine: the path itself, or for a URL a copy of its file or folder, made where none is of its present state.

    Raises UserError for a URL that leads to nothing, or of a kind that cannot be read.
    """
    return _copied(path) if "://" in path else Path(path).expanduser()


@contextlib.contextmanager
def told(url: str, what: str, rest: str = "") -> Iterator[None]:
    """The errors of all file systems as one UserError: `url` needs a package, or `what` ("cannot be read"), why, and the `rest`."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        kind = url.removeprefix("--workdir=").partition("://")[0]
        remedy = f"; pip install '.[{EXTRAS[kind]}]' has it" if kind in EXTRAS else ""
        raise UserError(f"{url} needs a package that is not installed: {str(error).rstrip('.')}{remedy}.") from error
    except Exception as error:  # every file system has its own, for names, rights and the network
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{url} {what} ({reason}){rest}.") from error


def file_system(url: str) -> tuple[Any, str]:
    """What reads the URL (fsspec), and the path there. Raises UserError for one that names no place, and where it cannot be had."""
    kind, _, place = url.partition("://")
    if not place.strip("/"):
        raise UserError(f"{url} names no folder; write {kind}://" + ("/FOLDER." if kind == "file" else "BUCKET/FOLDER."))
    if kind == "file" and not place.startswith("/"):
        raise UserError(f"{url} lacks a slash: the URL of a folder of this machine is file:///FOLDER.")
    with told(url, "cannot be read"):
        return fsspec.core.url_to_fs(url)


def cache(name: str) -> Path:
    """The folder of this machine for copies of that kind."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "medssl_jax" / name


@functools.cache
def _copied(url: str) -> Path:
    found = {}
    with told(url, "cannot be read"), contextlib.suppress(FileNotFoundError):
        files, root = file_system(url)
        found = files.find(root, detail=True)
    if not found:
        raise UserError(f"there is nothing at {url}; give the folder or file that holds the images.")
    place = cache("data") / _mark(url, found) / PurePosixPath(root).name
    if not place.exists():
        _copy(files, root, place, url)
    return place


def _copy(files: Any, root: str, place: Path, url: str) -> None:
    """All or nothing, by one process while others wait for it."""
    lock, partial = place.parent.with_suffix(".lock"), place.parent.with_suffix(".partial")
    lock.parent.mkdir(parents=True, exist_ok=True)
    _sweep(lock.parent)
    with _turn(lock, url):
        if place.exists():
            return
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            _download(files, root, partial / place.name, url)
            partial.rename(place.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _download(files: Any, root: str, place: Path, url: str) -> None:
    """Copy. What is copied gets a time of change made of the state at the URL, after which the folder is named: by it two machines' copies
    of one state are the same images (origin.py), and those of two states are not."""
    shown = TqdmCallback(tqdm_kwargs={"desc": f"copying {url}", "unit": "file"})
    with told(url, f"could not be copied to {place.parent.parent}"), shown:
        files.get(root.rstrip("/"), str(place), recursive=True, callback=shown)
    changed = int(place.parent.stem[:7], 16)  # seconds, until 1978
    for path in place.rglob("*") if place.is_dir() else [place]:
        os.utime(path, (changed, changed))


@contextlib.contextmanager
def _turn(lock: Path, url: str) -> Iterator[None]:
    """Hold the lock, after those who came before. The file stays: where it is removed, two may each hold one."""
    with lock.open("w") as file:
        try:
            if not _locked(file):
                tqdm.write(f"Another process copies {url}; waiting for it.", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"{lock} cannot be locked ({error.strerror}); set XDG_CACHE_HOME to a folder on a disk of this machine."
            ) from error
        yield


def _locked(file: IO[str]) -> bool:
    """Take the lock, unless another has it."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _sweep(folder: Path) -> None:
    """Remove what copies that were killed have left: nobody holds their lock."""
    for partial in folder.glob("*.partial"):
        with partial.with_suffix(".lock").open("w") as file:
            if _locked(file):
                shutil.rmtree(partial, ignore_errors=True)


def _mark(url: str, found: dict[str, dict[str, Any]]) -> str:
    """A short word of the URL and the state of every file: what changes there is copied anew."""
    state = [(name, *(str(found[name].get(key)) for key in VERSION_KEYS)) for name in sorted(found)]
    return hashlib.sha256(repr((url, state)).encode()).hexdigest()[:16]
