"""What tells a collection's images from others of the same names and sizes, without decoding them: the state of what they are read from."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path

from medssl_jax.data import shards
from medssl_jax.data.collection import Collection
from medssl_jax.data.folder import Folder, parallel
from medssl_jax.data.npz import Arrays
from medssl_jax.data.packed import Packed
from medssl_jax.data.records import Records
from medssl_jax.data.slides import Slides


def state(collection: Collection) -> str:
    """A digest of the size and the last change of every file, in order, or of the values that are held in memory.

    Where the files lie does not count. Of a kind of collection that is not the package's nothing is known.
    """
    if isinstance(collection, Arrays):
        return _digest(array.tobytes() for array in (*collection.images, *collection.masks))
    return _digest(parallel(_stamp, _files(collection)))


def _files(collection: Collection) -> list[Path]:
    """What it reads."""
    if isinstance(collection, Folder):
        return [path for found in collection.found for path in (found.image, found.mask) if path]
    if isinstance(collection, Slides):
        return [cut.path for cut in collection.cuts]
    if isinstance(collection, Packed):
        return sorted(collection.folder.glob(shards.FILES))
    if isinstance(collection, Records):
        places = dict.fromkeys(Path(source.dataset_info.data_dir) for source in collection.sources.values())  # type: ignore[attr-defined]
        return sorted(path for place in places for path in place.iterdir())
    return []


def _stamp(path: Path) -> bytes:
    """Empty where the file is gone."""
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        return f"{found.st_size} {found.st_mtime_ns}\n".encode()
    return b"\n"


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
