"""What `separate` is asked for, and where it leaves things."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from medssl_jax.errors import UserError
from medssl_jax.figures.files import MANY
from medssl_jax.figures.looks import PHOTOGRAPH, PLOT
from medssl_jax.figures.panels import Part

RECORD, TABLE = "separate.json", "panels.csv"
PANELS = {PHOTOGRAPH: "photographs", PLOT: "plots"}  # so that the photographs alone are a data set
THUMBNAILS, PARTS = "thumbnails", "parts"
LONGEST = 200  # bytes of a file's name; file systems take 255, of which the number and the ending need some


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be cut, how, and which share of the files. Raises UserError for a share that is none, and for a run without a detector."""

    figures: Path
    out: Path
    method: str = "detector"
    run: Path | None = None
    pad: int = 0
    boxes: str = "tight"
    min_side: int = 32
    shard: str = "1/1"

    def __post_init__(self) -> None:
        number, count = self.share
        if not 1 <= number <= count:
            raise UserError(f"--shard={self.shard} is no share of the files; write i/n with i from 1 to n, like --shard=1/4.")
        if self.run is not None and self.method != "detector":
            raise UserError(f"--run={self.run} is a detector's, and --method={self.method} needs none; leave out one of them.")

    @property
    def share(self) -> tuple[int, int]:
        """Which one of how many, from 1; (0, 0) where that cannot be read."""
        number, _, count = self.shard.partition("/")
        return (int(number), int(count)) if number.isdecimal() and count.isdecimal() else (0, 0)

    def record(self, detector: str) -> dict[str, object]:
        """What all shares have in common, as JSON: the options, and which detector it is (`Detector.mark`; "" for none)."""
        own = {"pad": self.pad, "boxes": self.boxes, "min_side": self.min_side, "shards": self.share[1]}
        return {"figures": str(self.figures.resolve()), "method": self.method, "detector": detector, **own}

    def part(self, number: int) -> Part:
        """The lines of a share."""
        return Part(self.out / PARTS, number, self.share[1])


def path_of(folder: Path, about: Mapping[str, Any], ending: str) -> Path:
    """A file of a figure: `a/b.png` becomes a/b_png, with page and number where the file can have several."""
    source = PurePosixPath(about["source"])
    page = f"_p{about['page']}_{about['figure']}" if source.suffix.lower() in MANY else ""
    return folder / source.parent / f"{_short(f'{source.stem}_{source.suffix[1:]}')}{page}{ending}"


def partial_of(path: Path) -> Path:
    """Where a file is until it is whole."""
    return path.with_name(f"{path.name}.partial")


def _short(name: str) -> str:
    """The name, or its beginning with eight digits that tell it from others that begin alike."""
    text = name.encode()
    if len(text) <= LONGEST:
        return name
    return f"{text[: LONGEST - 9].decode(errors='ignore')}~{hashlib.blake2b(text, digest_size=4).hexdigest()}"
