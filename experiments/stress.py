"""Many records: packed, then streamed to the device, with the memory watched: `python -m experiments.stress --records=1000000`.

The records are noise that their number decides, so that what arrives can be compared with what was written.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import commit
from experiments.cut_tables import NOTHING, markdown
from experiments.machine import machine
from experiments.records import RECORDS, command
from medssl_jax import cli
from medssl_jax.config import base
from medssl_jax.data import packing
from medssl_jax.data.collection import Item, Opened
from medssl_jax.data.formats import Probe
from medssl_jax.data.sources import open_dataset
from medssl_jax.data.stream import example_batches
from medssl_jax.data.tiles import TileSource
from medssl_jax.errors import UserError
from medssl_jax.train import feed
from medssl_jax.train import mesh as meshes
from medssl_jax.train.logging import read_json, say, write_json

RECORD = "stress.json"
MARKS = 10  # times that the memory is looked at
STATM = Path("/proc/self/statm")
MIB = 2**20


class Noise:
    """A collection of `count` images uint8 [S, S, 1], made as they are asked for."""

    def __init__(self, count: int, side: int) -> None:
        probe = Probe(side, side, 1, np.dtype(np.uint8))
        self.items, self.side = tuple(Item(f"{i:07d}", probe) for i in range(count)), side

    def image(self, index: int) -> np.ndarray:
        """The image of that number."""
        return np.random.default_rng(index).integers(0, 256, (self.side, self.side, 1), np.uint8)

    def mask(self, index: int) -> np.ndarray:
        """There is none."""
        raise NotImplementedError


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and record it where a file is named; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="how many images are packed")
    parser.add_argument("--side", type=int, default=48, help="pixels of a side of an image")
    parser.add_argument("--batch", type=int, default=256, help="images of a batch")
    parser.add_argument("--passes", type=int, default=1, help="how often all images are streamed")
    parser.add_argument("--threads", type=int, default=2, help="that read")
    parser.add_argument("--record", type=Path, default=RECORDS / RECORD, help="the .json file to write the result to")
    asked = parser.parse_args(arguments)
    return cli.guarded(lambda: run(asked, command("experiments.stress", list(arguments))))


def run(asked: argparse.Namespace, command: str) -> int:
    """Pack into a temporary folder, stream, record. Raises UserError for fewer images than a batch, or where one arrives changed."""
    for name in ("side", "batch", "passes", "threads"):
        if getattr(asked, name) < 1:
            raise UserError(f"--{name}={getattr(asked, name)} is not a positive number; give 1 or more.")
    if asked.records < asked.batch:
        raise UserError(f"--records={asked.records} is less than --batch={asked.batch}; give more records.")
    asked.record.parent.mkdir(parents=True, exist_ok=True)  # not after all the work
    with tempfile.TemporaryDirectory() as folder:
        packed = pack(asked, Path(folder) / "packed")
        streamed = stream(asked, Path(folder) / "packed")
    told = {"command": command, "code": commit.current(), "machine": machine(), "packed": packed, **streamed}
    write_json(asked.record, told)
    print(table(asked.record))
    return 0


def pack(asked: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Seconds, bytes and the resident memory after packing, in MiB."""
    opened = Opened("noise", Noise(asked.records, asked.side))
    before, began = resident(), time.perf_counter()
    packing.pack(packing.Job(opened, out, threads=asked.threads))
    seconds, size = time.perf_counter() - began, sum(path.stat().st_size for path in out.iterdir())
    say(f"Packed {asked.records} images in {seconds:.0f} s.")
    return {"images": asked.records, "seconds": seconds, "bytes": size, "resident_before": before, "resident": resident()}


def stream(asked: argparse.Namespace, packed: Path) -> dict[str, Any]:
    """Open the packed set and feed all its images to the device as a pretraining with placement=host does, looking ten times."""
    data = base().data
    data.update({"path": str(packed), "tile": asked.side, "task": "none"})
    began = time.perf_counter()
    tiles = TileSource(open_dataset(data).pool, asked.side)
    opening, truth = time.perf_counter() - began, Noise(0, asked.side)
    local = example_batches(tiles, seed=0, global_batch=asked.batch, threads=asked.threads)
    batches = feed.from_host(meshes.make_mesh(jax.devices()[:1]), local)
    each, marks = max(1, asked.records * asked.passes // asked.batch // MARKS), [{"images": 0.0, "resident": resident()}]
    for mark in range(1, MARKS + 1):
        began = time.perf_counter()
        for batch in itertools.islice(batches, each):
            if not np.array_equal(batch["image"][0], truth.image(int(batch["index"][0]))):
                raise UserError("an image arrived that is not the one that was written.")
        rate = each * asked.batch / (time.perf_counter() - began)
        marks.append({"images": mark * each * asked.batch, "resident": resident(), "images_per_second": rate})
        say(f"Streamed {mark * each * asked.batch} images, {rate:.0f} a second, {marks[-1]['resident']:.0f} MiB resident.")
    local.close()  # type: ignore[attr-defined]  # a generator, whose threads end with it
    return {"opening": opening, "batch": asked.batch, "side": asked.side, "threads": asked.threads, "marks": marks}


def resident() -> float:
    """MiB of memory that the process holds now (where the system does not tell: the most that it held)."""
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * resource.getpagesize() / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB  # bytes on macOS


def table(record: Path) -> str:
    """Markdown: images a second and memory, as the stream went on."""
    if not record.exists():
        return NOTHING
    told = read_json(record, dict, "measure again")
    packed, side = told["packed"], told["side"]
    lines = [["images streamed", "images/s", "MiB resident"]]
    for mark in told["marks"]:
        rate = f"{mark['images_per_second']:.0f}" if "images_per_second" in mark else "-"
        lines.append([f"{mark['images']:,.0f}", rate, f"{mark['resident']:.0f}"])
    speed = packed["images"] / packed["seconds"]
    note = (
        f"{packed['images']:,} images of {side} x {side} px, packed at {speed:.0f} a second into {packed['bytes'] / 1e9:.2f} GB, opened in "
        f"{told['opening']:.0f} s, streamed in batches of {told['batch']} by {told['threads']} threads; {told['machine']['cores']} "
        f"cores with a load of {told['machine']['load']:g}."
    )
    return f"{markdown(lines)}\n\n{note}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
