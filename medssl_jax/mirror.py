"""A run kept at a URL (gs://, s3://, ...): written on this machine, copied there as it goes, and fetched from there by the next machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import jax

from medssl_jax.errors import UserError
from medssl_jax.train.logging import read_json, say, write_json

EVERY = 60.0  # seconds between two copies
TRIES = 5  # of a copy while files come and go
INDEX = "mirror.json"  # at the URL: what belongs to the run; written last, so that a copy cut short is none. Here: what was copied last
TRIAL = "mirror.trial"
UNFINISHED = (".partial", "orbax-checkpoint-tmp")  # in names of what is being written
SHARED = "a run of several processes needs a folder that all of them see, and --workdir={} is none; mount the bucket (docs/machines.md)."

Files = dict[str, list[int]]  # size and time of the last change, by the path from the run's folder


@contextlib.contextmanager
def kept(url: str) -> Iterator[Path]:
    """The folder on this machine for the run at `url`, copied there every minute and at the end, whatever the end is.

    Raises UserError where the URL cannot be read or written or holds other things, and for a run of several processes.
    """
    if jax.process_count() > 1:
        raise UserError(SHARED.format(url))
    mirror = Mirror(url)
    mirror.fetch()
    say(f"The run is kept at {url}; on this machine it lies in {mirror.here}.")
    done = threading.Event()
    copying = threading.Thread(target=mirror.keep_up, args=(done,), daemon=True)
    copying.start()
    try:
        yield mirror.here
    finally:
        done.set()
        copying.join()
        mirror.push()


class Mirror:
    """A folder on this machine and its copy at a URL. Raises UserError for a URL of a kind that cannot be reached."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        name = f"{self.url.rpartition('/')[2]}-{hashlib.sha256(self.url.encode()).hexdigest()[:8]}"
        self.here = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "medssl_jax" / "runs" / name
        with self._told("read"):
            self._there, self._root = fsspec.core.url_to_fs(self.url)

    def fetch(self) -> None:
        """Make the folder what the URL holds, unless this machine wrote that last; an empty URL is a new run."""
        index = self._read()
        self._try_writing()
        self.here.mkdir(parents=True, exist_ok=True)
        if index is None or index["mark"] == self._last()["mark"]:
            return
        for name in index["files"]:
            (self.here / name).parent.mkdir(parents=True, exist_ok=True)
            with self._told("read"):
                self._there.get_file(f"{self._root}/{name}", str(self.here / name))
        for name in self._files().keys() - index["files"].keys():  # of an older state
            (self.here / name).unlink()
        write_json(self.here / INDEX, {"mark": index["mark"], "files": self._files()})

    def push(self) -> None:
        """Copy what has changed since the last time. Raises UserError where the URL cannot be written."""
        before = self._last()["files"]
        for _ in range(TRIES):
            files = self._files()
            if files == before:
                return
            with self._told("written"), contextlib.suppress(FileNotFoundError):  # an old checkpoint went meanwhile: look again
                for name in (name for name, state in files.items() if before.get(name) != state):
                    self._there.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
                    self._there.put_file(str(self.here / name), f"{self._root}/{name}")
                self._finish(files, before)
                return

    def keep_up(self, done: threading.Event) -> None:
        """Copy now and then until `done`; what fails is told, and tried again."""
        while not done.wait(EVERY):
            try:
                self.push()
            except UserError as error:
                say(f"{error} It is tried again.")

    def _finish(self, files: Files, before: Files) -> None:
        """Say what belongs to the run, then remove what no longer does."""
        index = {"mark": uuid.uuid4().hex, "files": files}
        self._there.pipe_file(f"{self._root}/{INDEX}", json.dumps(index).encode())
        write_json(self.here / INDEX, index)
        for name in before.keys() - files.keys():
            with contextlib.suppress(FileNotFoundError):
                self._there.rm_file(f"{self._root}/{name}")

    def _read(self) -> dict[str, Any] | None:
        """The index at the URL, None where nothing is there. Raises UserError where other things are."""
        with self._told("read"):
            self._there.invalidate_cache()
            if self._there.exists(f"{self._root}/{INDEX}"):
                return json.loads(self._there.cat_file(f"{self._root}/{INDEX}"))
            foreign = self._there.find(self._root) if self._there.exists(self._root) else []
        if foreign and not self.here.exists():  # else it is a first copy that this machine did not finish
            raise UserError(f"--workdir={self.url} holds other files and no run (no {INDEX}); choose another.")
        return None

    def _try_writing(self) -> None:
        """Raises UserError where the URL cannot be written: not after hours, when the first copy is due."""
        with self._told("written"):
            self._there.makedirs(self._root, exist_ok=True)
            self._there.pipe_file(f"{self._root}/{TRIAL}", b"")
            self._there.rm_file(f"{self._root}/{TRIAL}")

    def _last(self) -> dict[str, Any]:
        """What this machine has copied last."""
        path = self.here / INDEX
        return read_json(path, dict, "delete it") if path.exists() else {"mark": "", "files": {}}

    def _files(self) -> Files:
        """What belongs to the run on this machine."""
        found = {}
        for path in sorted(self.here.rglob("*")):
            name = path.relative_to(self.here).as_posix()
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and name != INDEX and not any(word in name for word in UNFINISHED):
                    found[name] = [(state := path.stat()).st_size, state.st_mtime_ns]
        return found

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """The errors of all file systems as one sentence."""
        try:
            yield
        except (UserError, FileNotFoundError):
            raise
        except ImportError as error:
            raise UserError(f"--workdir={self.url} needs a package that is not installed: {error}.") from error
        except Exception as error:  # every file system has its own, for names, rights and the network
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(f"--workdir={self.url} cannot be {what} ({reason}); what there is lies in {self.here}.") from error
