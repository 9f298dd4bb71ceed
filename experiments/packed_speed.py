"""Images a second out of files and out of packed sets: `python -m experiments.packed_speed --data=DATASETS`.

Every image of a data set is read once, in a random order, by one thread; what the processor spends on it counts, so that other work on the
machine does not. Files and shards are in the system's cache.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import commit
from experiments.cut_tables import NOTHING, markdown
from experiments.machine import machine
from experiments.records import RECORDS
from medssl_jax import cli
from medssl_jax.config import base
from medssl_jax.data import packing
from medssl_jax.data.collection import Opened
from medssl_jax.data.shards import COMPRESSIONS
from medssl_jax.data.sources import open_stored
from medssl_jax.errors import UserError
from medssl_jax.train.logging import read_json, write_json

RECORD = "packed_speed.json"
SETS = ("dsb2018_nuclei", "cxr_montgomery", "pbc_blood_cells", "lc25000_histology")
MOST = 500  # images of a set
MB = 10**6


def main(arguments: Sequence[str]) -> int:
    """Measure, record and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--record", type=Path, default=RECORDS / RECORD, help="the .json file to write the result to")
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: run(asked, shlex.join(["python", "-m", "experiments.packed_speed", *arguments])))


def run(asked: argparse.Namespace, command: str) -> int:
    """The sets that are there, one after the other. Raises UserError where none is."""
    rows = [row for name in SETS if (asked.data / name).is_dir() for row in measure(asked.data / name)]
    if not rows:
        raise UserError(f"--data={asked.data} holds none of {', '.join(SETS)}; name the folder of the data sets.")
    write_json(asked.record, {"command": command, "code": commit.current(), "machine": machine(), "rows": rows})
    print(table(asked.record))
    return 0


def measure(folder: Path) -> list[dict[str, Any]]:
    """A row of the files, and one of each way to pack them."""
    files = _opened(folder)
    chosen = np.random.default_rng(0).permutation(len(files.collection.items))[:MOST]
    rows = [_row(folder.name, "files", files, chosen, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))]
    for compression in COMPRESSIONS:
        with tempfile.TemporaryDirectory() as out:
            packed = Path(out) / "packed"
            packing.pack(packing.Job(files, packed, compression))
            rows.append(_row(folder.name, compression, _opened(packed), chosen, sum(path.stat().st_size for path in packed.iterdir())))
    return rows


def _opened(path: Path) -> Opened:
    data = base().data
    data.path = str(path)
    return open_stored(data)


def _row(name: str, way: str, opened: Opened, chosen: np.ndarray, size: int) -> dict[str, Any]:
    """Seconds of the processor for the chosen images, and bytes on the disk of all."""
    for _ in range(2):  # the first round brings the files into the cache
        began = time.process_time()
        values = sum(opened.collection.image(int(index)).nbytes for index in chosen)
        seconds = time.process_time() - began
    return {"set": name, "way": way, "images": len(chosen), "values": values, "seconds": seconds, "bytes": size}


def table(record: Path) -> str:
    """Markdown, a line a data set."""
    if not record.exists():
        return NOTHING
    rows = read_json(record, dict, "measure again")["rows"]
    ways = {"files": "files", "none": "packed", "zstd": "packed, zstd"}
    lines = [["", *(f"{title}: images/s (MB/s)" for title in ways.values()), *(f"{title}: MB" for title in ways.values())]]
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = {row["way"]: row for row in rows if row["set"] == name}
        speeds = [f"{r['images'] / r['seconds']:.0f} ({r['values'] / r['seconds'] / MB:.0f})" for r in (of_set[way] for way in ways)]
        lines.append([name, *speeds, *(f"{of_set[way]['bytes'] / MB:.0f}" for way in ways)])
    return markdown(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
