"""Data named by a URL (gs://, s3://, https://, ...): copied once to this machine, because every image is read more than once."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
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


@functools.cache
def _copied(url: str) -> Path:
    try:
        files, root = fsspec.core.url_to_fs(url)
        found = files.find(root, detail=True)
    except ImportError as error:
        raise UserError(f"{url} needs a package that is not installed: {error}.") from error
    except FileNotFoundError:
        found = {}
    except Exception as error:  # every file system has its own, for names, rights and the network
        raise UserError(f"{url} cannot be read ({_first_line(error)}).") from error
    if not found:
        raise UserError(f"there is nothing at {url}; give the folder or file that holds the images.")
    place = _cache() / _mark(url, found) / PurePosixPath(root).name
    if not place.exists():
        _copy(files, root, place, url)
    return place


def _copy(files: Any, root: str, place: Path, url: str) -> None:
    """All or nothing; where another process was faster, its copy stays."""
    place.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent.parent, ignore_cleanup_errors=True) as partial:
        inside = Path(partial, "copy")
        inside.mkdir()
        try:
            with TqdmCallback(tqdm_kwargs={"desc": f"copying {url}", "unit": "file"}) as shown:
                files.get(root.rstrip("/"), str(inside / place.name), recursive=True, callback=shown)
        except Exception as error:
            raise UserError(f"{url} could not be copied to {place.parent.parent} ({_first_line(error)}).") from error
        try:
            inside.rename(place.parent)
        except OSError:
            if not place.exists():
                raise


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _mark(url: str, found: dict[str, dict[str, Any]]) -> str:
    """A short word of the URL and the state of every file: what changes there is copied anew."""
    state = [(name, *(str(found[name].get(key)) for key in VERSION_KEYS)) for name in sorted(found)]
    return hashlib.sha256(repr((url, state)).encode()).hexdigest()[:16]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "medssl_jax" / "data"
