"""A run kept at a URL (gs://, s3://, ...): written on this machine, copied there as it goes, and fetched from there by the next machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax

from medssl_jax.data import remote
from medssl_jax.errors import UserError
from medssl_jax.machine import alone
from medssl_jax.train import agree
from medssl_jax.train.logging import read_json, say, write_json

EVERY = 60.0  # seconds between two copies
TRIES = 5  # of a copy while files come and go
INDEX = "mirror.json"  # at the URL: what belongs to the run, written last
LOOKED_AT = r"\.(png|npz)$|^tensorboard/"  # in names of what a run does not read again, or its first process alone
UNFINISHED = (".partial", "orbax-checkpoint-tmp")  # in names of what is being written

Files = dict[str, list[int]]  # size and time of the last change, by the path from the run's folder


def kept(url: str) -> contextlib.AbstractContextManager[Path]:
    """The folder on this machine for the run at `url`, copied there every minute and at the end, whatever the end is. Of several processes
    that is the first one's, and the others begin with a folder of their own, fetched from there.

    Raises UserError where the URL cannot be read or written or holds other things, and where another process of this machine has the run.
    """
    return _written(url) if jax.process_index() == 0 else _fetched(url)


@contextlib.contextmanager
def _written(url: str) -> Iterator[Path]:
    mirror = Mirror(url)
    agree.wait_for_all("the processes have met")  # connected, they wait as long as fetching takes; for one another only half a minute
    with alone(mirror.here.with_name(f"{mirror.here.name}.lock"), f"another process has the run at {url}; wait for it, or stop it."):
        mirror.fetch()
        if jax.process_count() > 1:  # the others begin with all that is here
            mirror.push()
        agree.from_first(mirror.mark)
        agree.wait_for_all("the run is fetched")
        say(f"The run is kept at {url}; on this machine it lies in {mirror.here}.")
        with _all_leave(), _copied(mirror):
            yield mirror.here


@contextlib.contextmanager
def _fetched(url: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="medssl_jax-") as folder:
        mirror = Mirror(url, Path(folder) / "run")
        agree.wait_for_all("the processes have met")
        mirror.receive(agree.from_first(mirror.mark))
        agree.wait_for_all("the run is fetched")
        with _all_leave():
            yield mirror.here


@contextlib.contextmanager
def _copied(mirror: Mirror) -> Iterator[None]:
    """Copy every minute, and once more at the end, whatever the end is."""
    done = threading.Event()
    copying = threading.Thread(target=mirror.keep_up, args=(done,), daemon=True)
    copying.start()
    try:
        yield
    except BaseException as end:  # it is what must be told, unless the run was stopped because it is another machine's by now
        done.set()
        copying.join()
        try:
            mirror.push()
        except Exception as error:
            if isinstance(error, Taken) and isinstance(end, SystemExit):
                raise
            say(str(error))
        raise
    done.set()
    copying.join()
    mirror.close()


@contextlib.contextmanager
def _all_leave() -> Iterator[None]:
    """At an end that all processes come to, none leaves before the last copy is made: JAX would end the one that makes it."""
    try:
        yield
    except SystemExit:  # which all have agreed upon
        agree.wait_for_all("the run is copied")
        raise
    agree.wait_for_all("the run is copied")


class Taken(UserError):
    """Another machine has gone on with the run."""


class Mirror:
    """A folder on this machine and its copy at a URL. Raises UserError for a URL of a kind that cannot be reached.

    Files at the URL are replaced one by one, as a run that is killed leaves them too; a new one belongs to the run once the index names it,
    and an old one is removed at the second copy that lacks it, so that there is always a whole checkpoint. What a copy that was cut short
    left in the run's folders there goes with the next whole one, whoever makes it; beside them the user may keep other things.
    """

    def __init__(self, url: str, here: Path | None = None) -> None:
        self.url = url.rstrip("/")
        name = f"{self.url.rpartition('/')[2]}-{hashlib.sha256(self.url.encode()).hexdigest()[:8]}"
        self.here = here or remote.cache("runs") / name
        self._note = self.here.with_name(f"{name}.json")  # its index here, beside it: a run's folder holds a run alone
        self._there, self._root = remote.file_system(url)

    def fetch(self) -> None:
        """Make the folder what the URL holds, unless this machine wrote that last; an empty URL is a new run.

        What was here and is not there is set aside. Raises UserError where the URL holds other things, or cannot be written.
        """
        index, last = self._read(), self._last()
        if index is None and not last["mark"]:
            self.here.mkdir(parents=True, exist_ok=True)
            self._point(last["files"])  # also a trial: not after hours, when the first copy is due
            return
        if index is not None and index["mark"] in (last["mark"], last.get("next")):
            if index["mark"] != last["mark"]:  # killed before it was written here
                write_json(self._note, {**index, "gone": _gone(last, index["files"])})
            return
        partial = self.here.with_name(f"{self.here.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in index["files"] if index else ():
            self._get(name, partial)
        self._set_aside(copied=index is not None and self._files() == last["files"])
        partial.rename(self.here)
        self._point(self._files())

    def mark(self) -> str:
        """Of the last copy that this machine made or fetched."""
        return self._last()["mark"]

    def receive(self, mark: str) -> None:
        """Fetch what the first process of the run copied under that mark, but for what only people look at. Raises UserError where the URL
        cannot be read, or holds something else by now."""
        index = self._read()
        if index is None or index["mark"] != mark:
            raise UserError(f"another machine has gone on with the run at --workdir={self.url}; end one of the two.")
        for name in index["files"]:
            if not re.search(LOOKED_AT, name):
                self._get(name, self.here)

    def push(self) -> None:
        """Copy what has changed since the last time. Raises UserError where the URL cannot be written, or another machine has gone on."""
        last = self._last()
        for _ in range(TRIES):
            files = self._files()
            if files == last["files"]:
                return
            index = self._ours(last)
            changed = [name for name, state in files.items() if last["files"].get(name) != state or index is None]
            if all(self._put(name) for name in changed):  # else an old checkpoint went meanwhile: look again
                self._ours(last)  # copying may have taken long
                self._point(files)
                self._tidy(kept=last["files"].keys() - files.keys())
                return
        raise UserError(f"the files in {self.here} change too fast to be copied to --workdir={self.url}.")

    def close(self) -> None:
        """The last copy, of a run that is over: what its index does not name goes at once. Raises UserError as `push` does."""
        self.push()
        self._tidy()

    def keep_up(self, done: threading.Event) -> None:
        """Copy now and then until `done`; what fails is said, and tried again. A run that another machine has taken is stopped."""
        while not done.wait(EVERY):
            try:
                self.push()
            except Taken:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except Exception as error:
                say(str(error))

    def _get(self, name: str, folder: Path) -> None:
        """Fetch a file into the folder."""
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with self._told(f"lacks {name}, which its {INDEX} names, or cannot be read"):
            self._there.get_file(f"{self._root}/{name}", str(folder / name))

    def _put(self, name: str) -> bool:
        """Copy a file; False where it is not here any more."""
        with self._told("cannot be written"):
            self._there.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
            try:
                self._there.put_file(str(self.here / name), f"{self._root}/{name}")
            except FileNotFoundError:
                if (self.here / name).exists():
                    raise
                return False
        return True

    def _point(self, files: Files) -> None:
        """Say what belongs to the run: here what is coming, there, and here again, so that a kill in between is understood."""
        last, mark = self._last(), uuid.uuid4().hex
        write_json(self._note, {**last, "next": mark})
        with self._told("cannot be written"):
            self._there.makedirs(self._root, exist_ok=True)
            self._there.pipe_file(f"{self._root}/{INDEX}", json.dumps({"mark": mark, "files": files}).encode())
        write_json(self._note, {"mark": mark, "files": files, "gone": _gone(last, files)})

    def _tidy(self, kept: Collection[str] = ()) -> None:
        """Remove what is gone, and what in the run's folders there is not the index's, but for what is `kept` until the next copy.

        The list is older than the index that is read after it: a machine that goes on replaces that one before it copies anything, so that
        what it brings is not removed. What a kill leaves is still gone, or still in the folders, at the next copy.
        """
        there = self._listed()
        index, last = self._read(), self._last()
        if index is None or index["mark"] != last["mark"]:
            return
        gone = set(last.get("gone", []))
        folders = {name.partition("/")[0] for name in gone | index["files"].keys() if "/" in name}
        for name in sorted(there - index["files"].keys() - set(kept)):
            if name in gone or name.partition("/")[0] in folders:
                with self._told("cannot be written"), contextlib.suppress(FileNotFoundError):
                    self._there.rm_file(f"{self._root}/{name}")
        if gone != set(kept):
            write_json(self._note, {**last, "gone": sorted(kept)})

    def _listed(self) -> set[str]:
        """The files at the URL, by their path from it."""
        with self._told("cannot be read"), contextlib.suppress(FileNotFoundError):
            self._there.invalidate_cache()
            below = f"{self._root}/"
            return {path.removeprefix(below) for path in self._there.find(self._root) if path.startswith(below)}
        return set()

    def _ours(self, last: dict[str, Any]) -> dict[str, Any] | None:
        """The index at the URL, which this machine wrote last. Raises UserError where another one did."""
        if (index := self._read()) is not None and index["mark"] not in (last["mark"], last.get("next")):
            raise Taken(f"another machine has gone on with the run at --workdir={self.url}; what is here stays in {self.here}.")
        return index

    def _read(self) -> dict[str, Any] | None:
        """The index at the URL, None where nothing is there. Raises UserError where other things are."""
        with self._told("cannot be read"):
            self._there.invalidate_cache()
            if self._there.exists(f"{self._root}/{INDEX}"):
                return self._index(self._there.cat_file(f"{self._root}/{INDEX}"))
            foreign = self._there.find(self._root) if self._there.exists(self._root) else []
        if foreign == [self._root]:
            raise UserError(f"--workdir={self.url} is a file; choose a folder, new or empty.")
        if foreign:
            raise UserError(f"--workdir={self.url} holds other files and no run (no {INDEX}); choose another.")
        return None

    def _index(self, text: bytes) -> dict[str, Any]:
        try:
            found = json.loads(text)
            if isinstance(found["mark"], str) and found["mark"] and all(map(_inside, found["files"].keys())):
                return found
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise UserError(f"{self.url}/{INDEX} is damaged; take it from a backup, or choose another --workdir.")

    def _last(self) -> dict[str, Any]:
        """What this machine has copied last: the mark of that copy, of one that was begun, the files, and what is gone."""
        known = self.here.exists() and self._note.exists()
        return read_json(self._note, dict, "delete it") if known else {"mark": "", "files": {}}

    def _set_aside(self, copied: bool) -> None:
        """Remove what is here where it was copied, else leave it to the user: another machine has gone on, or the URL was emptied."""
        self._note.unlink(missing_ok=True)
        if copied or not self.here.exists():
            shutil.rmtree(self.here, ignore_errors=True)
            return
        aside = self.here.with_name(f"{self.here.name}-{uuid.uuid4().hex[:8]}")
        self.here.rename(aside)
        say(f"What this machine had of the run is not what {self.url} holds; it is kept in {aside}.")

    def _files(self) -> Files:
        """What belongs to the run on this machine."""
        found: Files = {}
        for folder, _, names in os.walk(self.here):  # passes over what vanishes
            for path in (Path(folder, name) for name in names):
                name = path.relative_to(self.here).as_posix()
                if not any(word in name for word in UNFINISHED):
                    with contextlib.suppress(FileNotFoundError):
                        found[name] = [(state := path.stat()).st_size, state.st_mtime_ns]
        return dict(sorted(found.items()))

    def _told(self, what: str) -> contextlib.AbstractContextManager[None]:
        return remote.told(f"--workdir={self.url}", what, f"; what there is lies in {self.here}" if self.here.exists() else "")


def _inside(name: str) -> bool:
    """Whether it is the path of something in the run's folder."""
    return not name.startswith("/") and ".." not in name.split("/")


def _gone(last: dict[str, Any], files: Files) -> list[str]:
    """What was copied and belongs to the run no more."""
    return sorted((last["files"].keys() | set(last.get("gone", []))) - files.keys())
