"""Images a second out of files and out of packed sets: `python -m experiments.packed_speed --data=DATASETS`.

Every image of a data set is read once, in a random order, by one thread; what the processor spends on it counts, so that other work on the
machine does not. Files and shards are in the system's cache. What comes from the disk is measured apart (packed_disk.py), by the clock:
leave the machine to it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import commit, packed_disk
from experiments.cut_tables import NOTHING, markdown
from experiments.machine import machine
from experiments.records import RECORDS, command
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
WAYS = {"files": "files", "none": "packed", "zstd": "packed, zstd"}
MOST = 500  # images of a set
MB = 10**6


def main(arguments: Sequence[str]) -> int:
    """Measure, record and print the tables; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--scratch", type=Path, help="a folder on the disk to measure, for the packed sets (default: the system's)")
    parser.add_argument("--threads", type=int, default=4, help="that read from the disk")
    parser.add_argument("--record", type=Path, default=RECORDS / RECORD, help="the .json file to write the result to")
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: run(asked, command("experiments.packed_speed", list(arguments))))


def run(asked: argparse.Namespace, command: str) -> int:
    """The sets that are there, one after the other. Raises UserError where none is."""
    measured = [measure(asked.data / name, asked) for name in SETS if (asked.data / name).is_dir()]
    if not measured:
        raise UserError(f"--data={asked.data} holds none of {', '.join(SETS)}; name the folder of the data sets.")
    rows, disk = ([row for pair in measured for row in pair[k]] for k in (0, 1))
    write_json(asked.record, {"command": command, "code": commit.current(), "machine": machine(), "rows": rows, "disk": disk})
    print(table(asked.record))
    return 0


def measure(folder: Path, asked: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row of the files and one of each way to pack them, and a row of the disk for each of these ways."""
    files, disk = _opened(folder), []
    chosen = np.random.default_rng(0).permutation(len(files.collection.items))[:MOST]
    rows = [_row(folder.name, "files", files, chosen, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))]
    for compression in COMPRESSIONS:
        with tempfile.TemporaryDirectory(dir=asked.scratch) as out:
            packed = Path(out) / "packed"
            packing.pack(packing.Job(files, packed, compression))
            rows.append(_row(folder.name, compression, _opened(packed), chosen, sum(path.stat().st_size for path in packed.iterdir())))
            disk.append({"set": folder.name, "way": compression, **packed_disk.measure(packed, asked.threads)})
    return rows, disk


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
    """Markdown: a line a data set, and below it, where the disk was measured, a line for each way to pack one."""
    if not record.exists():
        return NOTHING
    told = read_json(record, dict, "measure again")
    lines = [["", *(f"{title}: images/s (MB/s)" for title in WAYS.values()), *(f"{title}: MB" for title in WAYS.values())]]
    for name in dict.fromkeys(row["set"] for row in told["rows"]):
        of_set = {row["way"]: row for row in told["rows"] if row["set"] == name}
        speeds = [f"{r['images'] / r['seconds']:.0f} ({r['values'] / r['seconds'] / MB:.0f})" for r in (of_set[way] for way in WAYS)]
        lines.append([name, *speeds, *(f"{of_set[way]['bytes'] / MB:.0f}" for way in WAYS)])
    return "\n\n".join([markdown(lines), *([_disk(told)] if told.get("disk") else [])])


def _disk(told: dict[str, Any]) -> str:
    """Markdown, with what the machine was doing beside it."""
    lines = [["from the disk", "images/s", *(f"{title}: MB/s" for title in packed_disk.KINDS.values()), "not from the cache"]]
    for row in told["disk"]:
        speeds = [f"{row['bytes'] / row['seconds'][kind] / MB:.0f}" for kind in packed_disk.KINDS]
        fetched = "-" if row["fetched"] is None else f"{row['fetched'] / row['bytes']:.0%}"
        name = f"{row['set']}, {WAYS[row['way']]} ({row['bytes'] / MB:.0f} MB)"
        lines.append([name, f"{row['images'] / row['seconds']['stream']:.0f}", *speeds, fetched])
    cores, load, threads = told["machine"]["cores"], told["machine"]["load"], told["disk"][0]["threads"]
    return f"{markdown(lines)}\n\n{threads} threads; {cores} cores with a load of {load:g}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
