"""Many records stream in memory that does not grow; the tables say what was recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shell
import tiny

from experiments import packed_disk, packed_speed, render, stress
from medssl_jax.data import packing
from medssl_jax.data.collection import Opened


def test_memory_stays_flat_over_many_steps(tmp_path):
    record = tmp_path / "stress.json"
    flags = ("--records=4000", "--side=16", "--batch=64", "--passes=12", f"--record={record}")
    said = shell.finished(shell.run("experiments.stress", *flags)).stdout
    told = json.loads(record.read_text())
    marks = told["marks"]
    assert [mark["images"] for mark in marks] == [4800 // 64 * 64 * k for k in range(11)]
    settled = [mark["resident"] for mark in marks[2:]]
    assert max(settled) - settled[0] < 4  # MiB, over 38400 images, which would be 9.4 if their batches were kept
    assert told["packed"]["images"] == 4000
    assert stress.table(record) in said
    assert render.PARTS["stress"](tmp_path, "small") == stress.table(record)


def test_an_image_that_arrives_changed_stops_the_run(tmp_path, monkeypatch):
    write = packing.pack

    def pack(job, progress=None):
        job.opened.collection.image = lambda index: np.zeros((16, 16, 1), np.uint8)
        return write(job, progress)

    monkeypatch.setattr(packing, "pack", pack)
    assert stress.main(["--records=64", "--side=16", "--batch=8", f"--record={tmp_path / 'a.json'}"]) != 0
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        ("stress", ["--records=5"], "--records=5 is less than --batch=256"),
        ("stress", ["--records=600", "--side=0"], "--side=0 is not a positive number"),
        ("packed_speed", ["--data=/nowhere"], "--data=/nowhere holds none of dsb2018_nuclei"),
    ],
)
def test_what_is_refused(module, flags, message):
    assert message in shell.sentence(shell.run(f"experiments.{module}", *flags))


def test_files_beside_packed_sets(tmp_path, capsys):
    tiny.folder(tmp_path / "data" / "dsb2018_nuclei")
    record = tmp_path / "packed_speed.json"
    assert packed_speed.main([f"--data={tmp_path / 'data'}", f"--scratch={tmp_path}", "--threads=2", f"--record={record}"]) == 0
    told = json.loads(record.read_text())
    rows = told["rows"]
    assert [(row["way"], row["images"], row["values"]) for row in rows] == [(way, 8, 8 * 64 * 64) for way in ("files", "none", "zstd")]
    assert rows[2]["bytes"] < rows[1]["bytes"]
    assert packed_speed.table(tmp_path / "packed_speed.json") in capsys.readouterr().out
    assert "| dsb2018_nuclei |" in render.PARTS["packed-speed"](tmp_path, "small")
    assert [(row["way"], row["images"]) for row in told["disk"]] == [("none", 8), ("zstd", 8)]
    assert all(row["seconds"].keys() == packed_disk.KINDS.keys() for row in told["disk"])
    assert "| dsb2018_nuclei, packed, zstd (" in render.PARTS["packed-speed"](tmp_path, "small")
    del told["disk"]  # as in an older record
    record.write_text(json.dumps(told))
    assert "zstd (" not in packed_speed.table(record)


def test_the_disk_is_read_and_not_the_cache(tmp_path):
    """Every byte once, in each of the orders; the system tells what came from the disk, where it is one."""
    packing.pack(packing.Job(Opened("noise", stress.Noise(60, 64)), tmp_path / "packed", shard_bytes=100_000))
    size = sum(path.stat().st_size for path in (tmp_path / "packed").glob("*.array_record"))
    probe = tmp_path / "probe"
    probe.write_bytes(bytes(2**20))
    found = packed_disk.measure(tmp_path / "packed", threads=2)
    assert (found["images"], found["bytes"]) == (60, size)
    if not forgets(probe):
        pytest.skip("this file system keeps what it is asked to forget")
    assert found["fetched"] >= size


def forgets(path):
    with path.open("rb") as file:
        packed_disk._forget([file.fileno()])
        before = packed_disk._taken()
        file.read()
        return before is not None and packed_disk._taken() > before


def test_nothing_is_recorded_yet(tmp_path):
    for name in ("stress", "packed-speed"):
        assert render.PARTS[name](tmp_path, "small") == "Nothing is recorded yet."
