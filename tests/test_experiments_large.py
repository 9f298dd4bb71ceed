"""Many records stream in memory that does not grow; the tables say what was recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shell
import tiny

from experiments import packed_speed, render, stress
from medssl_jax.data import packing


def test_memory_stays_flat_over_many_steps(tmp_path):
    record = tmp_path / "stress.json"
    flags = ("--records=4000", "--side=16", "--batch=64", "--passes=12", f"--record={record}")
    said = shell.finished(shell.run("experiments.stress", *flags)).stdout
    told = json.loads(record.read_text())
    marks = told["marks"]
    assert [mark["images"] for mark in marks] == [4800 // 64 * 64 * k for k in range(11)]
    settled = [mark["resident"] for mark in marks[2:]]
    assert max(settled) - settled[0] < 16  # MiB, over 38400 images; a leak of an image would be 10, of a batch's arrays far more
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
        ("packed_speed", ["--data=/nowhere"], "--data=/nowhere holds none of dsb2018_nuclei"),
    ],
)
def test_what_is_refused(module, flags, message):
    assert message in shell.sentence(shell.run(f"experiments.{module}", *flags))


def test_files_beside_packed_sets(tmp_path, capsys):
    tiny.folder(tmp_path / "data" / "dsb2018_nuclei")
    assert packed_speed.main([f"--data={tmp_path / 'data'}", f"--record={tmp_path / 'packed_speed.json'}"]) == 0
    rows = json.loads((tmp_path / "packed_speed.json").read_text())["rows"]
    assert [(row["way"], row["images"], row["values"]) for row in rows] == [(way, 8, 8 * 64 * 64) for way in ("files", "none", "zstd")]
    assert rows[2]["bytes"] < rows[1]["bytes"]
    assert packed_speed.table(tmp_path / "packed_speed.json") in capsys.readouterr().out
    assert "| dsb2018_nuclei |" in render.PARTS["packed-speed"](tmp_path, "small")


def test_nothing_is_recorded_yet(tmp_path):
    for name in ("stress", "packed-speed"):
        assert render.PARTS[name](tmp_path, "small") == "Nothing is recorded yet."
