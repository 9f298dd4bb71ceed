"""Data named by a URL (gs://, s3://, https://, ...): copied once to this machine, because every image is read more than once."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.callbacks import TqdmCallback

from medssl_jax.errors import UserError

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
        raise UserError(f"{url} needs a package that is not installed: {error}.") from error
    except Exception as error:  # every file system has its own, for names, rights and the network
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{url} {what} ({reason}){rest}.") from error


def cache(name: str) -> Path:
    """The folder of this machine for copies of that kind."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "medssl_jax" / name


@functools.cache
def _copied(url: str) -> Path:
    found = {}
    with told(url, "cannot be read"), contextlib.suppress(FileNotFoundError):
        files, root = fsspec.core.url_to_fs(url)
        found = files.find(root, detail=True)
    if not found:
        raise UserError(f"there is nothing at {url}; give the folder or file that holds the images.")
    place = cache("data") / _mark(url, found) / PurePosixPath(root).name
    if not place.exists():
        _copy(files, root, place, url)
    return place


def _copy(files: Any, root: str, place: Path, url: str) -> None:
    """All or nothing; where another process was faster, its copy stays."""
    place.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent.parent, ignore_cleanup_errors=True) as partial:
        inside = Path(partial, "copy")
        inside.mkdir()
        shown = TqdmCallback(tqdm_kwargs={"desc": f"copying {url}", "unit": "file"})
        with told(url, f"could not be copied to {place.parent.parent}"), shown:
            files.get(root.rstrip("/"), str(inside / place.name), recursive=True, callback=shown)
        try:
            inside.rename(place.parent)
        except OSError:
            if not place.exists():
                raise


def _mark(url: str, found: dict[str, dict[str, Any]]) -> str:
    """A short word of the URL and the state of every file: what changes there is copied anew."""
    state = [(name, *(str(found[name].get(key)) for key in VERSION_KEYS)) for name in sorted(found)]
    return hashlib.sha256(repr((url, state)).encode()).hexdigest()[:16]
