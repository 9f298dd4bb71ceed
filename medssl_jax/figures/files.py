"""Which files below a folder are figures, by what names, and what else lies there."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from medssl_jax.errors import UserError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
PDF = ".pdf"
MANY = (PDF, ".tif", ".tiff")  # kinds that hold any number of figures
SHOWN = 5  # of what was left out, in a message


class Found(NamedTuple):
    """The figures below a folder, sorted; the real paths of the folders that were read, how many other files there are of each ending,
    and the folders that may not be read."""

    files: list[Path]
    folders: frozenset[Path] = frozenset()
    others: Mapping[str, int] = MappingProxyType({})
    closed: tuple[str, ...] = ()

    @property
    def left_out(self) -> str:
        """What was left out, in words, or ""."""
        kinds = [f"{count} {ending}" for ending, count in sorted(self.others.items(), key=lambda pair: (-pair[1], pair[0]))]
        said = [("ignored: ", kinds), ("no permission for the folders ", self.closed)]
        return "; ".join(f"{what}{', '.join(those[:SHOWN])}{' and others' * (len(those) > SHOWN)}" for what, those in said if those)


def find(path: Path) -> Found:
    """The images and PDFs below a folder, also behind links, hidden ones left out; or the one file.

    Raises UserError where there is none, PermissionError for a folder that may not be read itself.
    """
    kinds = ", ".join(suffix[1:] for suffix in (*IMAGES, PDF))
    if path.is_file():
        if not is_figure(path):
            raise UserError(f"{path} is not a figure; give a file of one of the kinds {kinds}, or a folder.")
        return Found([path])
    if not path.is_dir():
        raise UserError(f"{path} does not exist; give a folder of figures, or one PDF or image.")
    folders: set[Path] = set()
    closed: list[str] = []
    files = list(_files(path, folders, closed))
    figures = sorted(filter(is_figure, files))
    others = Counter(plain(file.suffix) or "without ending" for file in files if not is_figure(file))
    found = Found(figures, frozenset(folders), others, tuple(sorted(closed)))
    if not figures:
        rest = f"; {found.left_out}" if found.left_out else ""
        raise UserError(f"there is no figure in {path} (looked for {kinds}{rest}); give the folder that holds them.")
    return found


def is_figure(path: Path) -> bool:
    """Whether a file's name says that it is an image or a PDF."""
    return path.suffix.lower() in (*IMAGES, PDF)


def name_of(file: Path, root: Path) -> str:
    """The source of a file's figures: its path from the folder `root`, or its name where it is `root` itself."""
    return plain(file.name if file == root else file.relative_to(root).as_posix())


def named(files: Sequence[Path], root: Path) -> dict[str, Path]:
    """The files by their names as sources; where two come out alike (`plain`), the later ones with eight digits of their own."""
    found: dict[str, Path] = {}
    for file in files:
        name = name_of(file, root)
        if name in found:
            own = hashlib.blake2b(os.fsencode(file), digest_size=4).hexdigest()
            name = f"{name.removesuffix(file.suffix)}~{own}{file.suffix}"
        found[name] = file
    return found


def plain(text: str) -> str:
    r"""A file name as a text that can be written: bytes that are not UTF-8 as \xe9, and carriage returns, which end lines, as \r."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\r", r"\r")


def _files(root: Path, folders: set[Path], closed: list[str]) -> Iterator[Path]:
    """All files below a folder; those behind links to folders come last, so that a folder keeps its own name where both lead to it."""

    def denied(error: OSError) -> None:
        """A folder that cannot be listed: below the root it is left out."""
        if Path(error.filename) == root:
            raise error
        closed.append(plain(Path(error.filename).relative_to(root).as_posix()))

    waiting = deque([root])
    while waiting:
        for folder, below, names in os.walk(waiting.popleft(), onerror=denied):
            here = Path(folder)
            if (real := here.resolve()) in folders:  # also ends loops
                below.clear()
                continue
            folders.add(real)
            below[:] = [name for name in below if not name.startswith((".", "__MACOSX"))]
            waiting += [here / name for name in below if (here / name).is_symlink()]
            yield from (here / name for name in names if not name.startswith("."))
