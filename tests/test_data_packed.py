"""A packed set is the set that was packed: the same parts, labels and stream, bit for bit; what is not whole is told in a sentence."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import shell
import tifffile
import tiny
from PIL import Image
from test_data_sources import medmnist, prepared

from medssl_jax import machine
from medssl_jax.config import base
from medssl_jax.data import packed, packing, shards
from medssl_jax.data.collection import Item, Opened
from medssl_jax.data.formats import Probe
from medssl_jax.data.npz import Arrays
from medssl_jax.data.sources import describe, open_dataset, open_stored
from medssl_jax.data.splits import choose, parse_amounts
from medssl_jax.data.stream import example_batches
from medssl_jax.data.tiles import TileSource
from medssl_jax.errors import UserError

PARTS = ("pool", "val", "test")


def options(path="", **changes):
    config = base().data
    config.update({"path": str(path), "tile": 16, **changes})
    return config


def pack(config, out, shard_bytes=4000, **changes):
    return packing.pack(packing.Job(open_stored(config), out, shard_bytes=shard_bytes, threads=2, **changes))


def folder(root, rng, count=12):
    """Images of two channels, of mixed sizes, of 8 and of 16 bit, most with a mask of many labels."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for i in range(count):
        shape, kind = (20 + i, 18 + 2 * i), (np.uint8, np.uint16)[i % 2]
        image = rng.integers(0, np.iinfo(kind).max, (2, *shape)).astype(kind)
        tifffile.imwrite(root / "images" / f"{i:02d}.tif", image, metadata={"axes": "CYX"})
        if i % 4:
            mask = (rng.random(shape) > 0.5) * np.uint32((200, 60_000, 70_000)[i % 3])
            tifffile.imwrite(root / "masks" / f"{i:02d}.tif", mask.astype(np.uint32))
    return root


def classes(root, rng):
    for part, count in (("train", 6), ("test", 3)):
        for name in ("benign", "malignant"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 255, (20, 24 + i, 3), dtype=np.uint8)).save(root / part / name / f"ä{i}.jpg")
    return root


def floats(root, rng):
    root.mkdir()
    for i, kind in enumerate((np.float32, np.float64, bool, np.int32)):
        tifffile.imwrite(root / f"{i}.tif", (rng.random((20, 24)) * 3).astype(kind))
    return root


SETS = {
    "masks": lambda tmp, rng: options(folder(tmp / "set", rng)),
    "split by a table": lambda tmp, rng: options(folder(tmp / "set", rng), splits=str(table(tmp / "splits.csv"))),
    "classes": lambda tmp, rng: options(classes(tmp / "set", rng)),
    "numbers of other types": lambda tmp, rng: options(floats(tmp / "set", rng)),
    "npz": lambda tmp, rng: options(medmnist(tmp / "set.npz")),
    "tfds": lambda tmp, rng: options(prepared(tmp, "mask"), tfds_name="tiny"),
    "sample": lambda tmp, rng: options(),
}


def table(path):
    path.write_text("name,split\n01,train\n02,test\n03,val\n05,test\n")
    return path


def same_examples(one, other):
    assert len(one) == len(other)
    for i in range(len(one)):
        a, b = one[i], other[i]
        assert describe(one, i) == describe(other, i)
        assert set(a) == set(b)
        assert a["image"].dtype == b["image"].dtype
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(one.raw(i), other.raw(i))
        np.testing.assert_array_equal(a.get("mask", 0), b.get("mask", 0))
        assert (a["id"], a.get("label")) == (b["id"], b.get("label"))


@pytest.mark.parametrize("compression", shards.COMPRESSIONS)
@pytest.mark.parametrize("kind", SETS)
def test_a_packed_set_is_the_set(kind, compression, tmp_path, rng):
    config = SETS[kind](tmp_path, rng)
    pack(config, tmp_path / "packed", compression=compression)
    there, here = open_dataset(config), open_dataset(options(tmp_path / "packed", tile=16))
    for name in ("name", "task", "classes", "channels", "dtype", "modality", "notes", "licence", "citation", "damaged"):
        assert getattr(here, name) == getattr(there, name), name
    for part in PARTS:
        same_examples(getattr(there, part), getattr(here, part))


def batches(config, **reading):
    dataset = open_dataset(config)
    stream = example_batches(TileSource(dataset.pool, config.tile), seed=3, global_batch=5, start_step=2, **reading)
    found = list(itertools.islice(stream, 6))
    stream.close()
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_the_stream_is_the_same_bit_for_bit(workers, tmp_path, rng):
    config = options(folder(tmp_path / "set", rng))
    pack(config, tmp_path / "packed")
    there, here = batches(config, threads=2), batches(options(tmp_path / "packed"), threads=2, workers=workers)
    for a, b in zip(there, here, strict=True):
        assert {k: v.tobytes() for k, v in a.items()} == {k: v.tobytes() for k, v in b.items()}


CHANGES = [{"seed": 5}, {"val_fraction": 0.3}, {"task": "none"}, {"resize": 30}, {"window": ()}, {"window": (5.0, 95.0)}]


@pytest.mark.parametrize("changes", CHANGES)
def test_options_of_reading_are_open_after_packing(changes, tmp_path, rng):
    config = options(folder(tmp_path / "set", rng), **changes)
    pack(options(tmp_path / "set"), tmp_path / "packed")
    there, here = open_dataset(config), open_dataset(options(tmp_path / "packed", **changes))
    for part in PARTS:
        same_examples(getattr(there, part), getattr(here, part))


def test_the_labels_of_every_repeat_are_the_same(tmp_path, rng):
    config = options(folder(tmp_path / "set", rng))
    pack(config, tmp_path / "packed")
    there, here = open_dataset(config), open_dataset(options(tmp_path / "packed"))
    for amount, repeat in itertools.product(parse_amounts("1 patch, 2 images, all"), range(3)):
        assert choose(there, amount, repeat, 8).record() == choose(here, amount, repeat, 8).record()


def files(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


class Killed(BaseException):
    """Stands for the end of the process."""


def test_an_interrupted_pack_continues_to_the_same_bytes(tmp_path, rng):
    config = options(folder(tmp_path / "set", rng))
    pack(config, tmp_path / "whole")

    def die(done, total):
        if done == total // 2:
            raise Killed

    job = packing.Job(open_stored(config), tmp_path / "cut", shard_bytes=4000, threads=3)
    with pytest.raises(Killed):
        packing.pack(job, die)
    with pytest.raises(UserError, match=r"was not packed to its end; start the same medssl_jax.pack command again"):
        open_dataset(options(tmp_path / "cut"))
    written = packing.pack(job)
    assert 0 < written < len(list((tmp_path / "whole").glob("*.array_record")))
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert packing.pack(job) == 0


def test_a_command_that_was_killed_continues(tmp_path, rng):
    for i in range(120):
        (tmp_path / "set").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (256, 256), dtype=np.uint8)).save(tmp_path / "set" / f"{i:03d}.png")
    flags = ["--config=configs/tower.py", f"--config.data.path={tmp_path / 'set'}", "--shard_mb=1"]
    process = shell.start("medssl_jax.pack", *flags, f"--out={tmp_path / 'cut'}")
    shell.wait_for(tmp_path / "cut" / "packing.json", 1, process)
    process.kill()
    process.communicate()
    for out in ("cut", "whole"):
        said = shell.finished(shell.run("medssl_jax.pack", *flags, f"--out={tmp_path / out}")).stderr
        assert "120 images in 8 shards, 8.9 MB" in said
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    said = shell.finished(shell.run("medssl_jax.pack", "--verify", f"--out={tmp_path / 'cut'}")).stderr
    assert "is whole: 120 images in 8 shards" in said
    found = shell.run("medssl_jax.inspect_data", "--config=configs/tower.py", f"--config.data.path={tmp_path / 'cut'}", f"--out={tmp_path}")
    assert "set: 120 images, task none" in shell.finished(found).stdout


@pytest.fixture
def packed_set(tmp_path, rng):
    config = options(folder(tmp_path / "set", rng))
    pack(config, tmp_path / "packed")
    return config, tmp_path / "packed"


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_shard_that_is_missing_or_cut_short_is_told_at_once(packed_set):
    _, out = packed_set
    first, second, *_ = sorted(out.glob("*.array_record"))
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"1 of the \d+ shards in .* are missing or cut short \({first.name}\); the same medssl_jax.pack"):
        open_dataset(options(out))
    second.unlink()
    with pytest.raises(UserError, match=r"2 of the \d+ shards"):
        open_dataset(options(out))


def test_a_damaged_record_is_told_when_read_and_by_verify(packed_set):
    _, out = packed_set
    first = min(out.glob("*.array_record"))
    flip(first, first.read_bytes().find(open_dataset(options(out, task="none")).pool.raw(0).tobytes()[:64]) + 9)
    data = open_dataset(options(out, task="none"))
    with pytest.raises(UserError, match=r"images/00.tif cannot be read from .*packed: .*hash mismatch.*; the same medssl_jax.pack command"):
        data.pool[0]
    with pytest.raises(UserError, match=rf"1 of the \d+ shards in .* are missing or damaged \({first.name}\)"):
        packed.verify(out)


def test_the_same_command_repairs(packed_set):
    config, out = packed_set
    before = files(out)
    first, second, *_ = sorted(out.glob("*.array_record"))
    flip(first, 1000)
    second.unlink()
    assert pack(config, out) == 2
    assert files(out) == before
    packed.verify(out)


def test_a_record_of_another_size_is_told(packed_set):
    _, out = packed_set
    index = json.loads((out / "packed.json").read_text())
    index["items"]["probes"][1][0] += 1
    (out / "packed.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"images/01.tif cannot be read from"):
        open_dataset(options(out, task="none")).pool[1]


INDICES = {
    "cut": (lambda text: text[:-20], "packed.json is damaged, or no index of packed images"),
    "another": (lambda text: "[]", "packed.json is damaged, or no index"),
    "version": (
        lambda text: text.replace('"version": 1', '"version": 7'),
        "of version 7 of the packed format, and this program reads 1",
    ),
    "key": (lambda text: text.replace('"rows"', '"roows"'), r"packed.json is damaged \(KeyError: 'rows'\)"),
    "column": (lambda text: text.replace('"label": [null, ', '"label": ['), r"packed.json is damaged \(ValueError"),
}


@pytest.mark.parametrize("kind", INDICES)
def test_an_index_that_is_not_whole(kind, packed_set):
    _, out = packed_set
    change, message = INDICES[kind]
    (out / "packed.json").write_text(change((out / "packed.json").read_text()))
    with pytest.raises(UserError, match=message):
        open_dataset(options(out))


def test_an_index_that_misses_a_shard(packed_set):
    _, out = packed_set
    index = json.loads((out / "packed.json").read_text())
    index["shards"].pop()
    (out / "packed.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"packed.json tells of 12 images, but of \d+ records in \d+ shards"):
        open_dataset(options(out))


def test_a_copy_without_its_index(packed_set):
    _, out = packed_set
    (out / "packed.json").unlink()
    with pytest.raises(UserError, match=r"\(no packed.json\); copy that too from the --out of medssl_jax.pack"):
        open_dataset(options(out))


def test_a_folder_that_is_not_packed(tmp_path):
    with pytest.raises(UserError, match="holds no packed images"):
        open_dataset(options(tmp_path, source="packed"))
    with pytest.raises(UserError, match="brings its own parts"):
        open_dataset(options(tmp_path, source="packed", splits="a.csv"))


def test_another_set_or_other_options_do_not_mix(packed_set, tmp_path, rng):
    config, out = packed_set
    for changes in ({"compression": "zstd"}, {"shard_bytes": 9000}):
        with pytest.raises(UserError, match="holds another data set, or this one with other options"):
            pack(config, out, **changes)
    with pytest.raises(UserError, match="holds another data set"):
        pack(options(classes(tmp_path / "other", rng)), out)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "packing.json.partial").write_text("{")
    assert pack(config, tmp_path / "begun") > 0
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="full holds other files; name a new or an empty folder"):
        pack(config, tmp_path / "full")
    with pytest.raises(UserError, match=r"thesis\.txt is a file"):
        pack(config, tmp_path / "full" / "thesis.txt")


def changed(path):
    """Other bytes of the same number, a second later."""
    later = path.stat().st_mtime_ns + 10**9
    flip(path, path.stat().st_size // 2)
    os.utime(path, ns=(later, later))


CHANGED = {
    "masks": ["images/03.tif", "masks/03.tif"],
    "classes": ["test/benign/ä1.jpg"],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in CHANGED.items() for name in names])
def test_a_pack_of_images_that_were_changed_since_is_refused(kind, name, tmp_path, rng):
    config, out = SETS[kind](tmp_path, rng), tmp_path / "packed"
    pack(config, out)
    before = files(out)
    assert pack(config, out) == 0
    changed(tmp_path / "set" / name)
    with pytest.raises(UserError, match=r"with other options or with images that were changed since; name a new or an empty folder"):
        pack(config, out)
    assert files(out) == before


def test_records_of_tfds_count_by_their_files(tmp_path, rng):
    config = SETS["tfds"](tmp_path, rng)
    pack(config, tmp_path / "packed")
    assert pack(config, tmp_path / "packed") == 0
    os.utime(next(tmp_path.glob("tiny/*/*train*record*")), (1, 1))
    with pytest.raises(UserError, match="images that were changed since"):
        pack(config, tmp_path / "packed")


def test_arrays_count_by_their_values(tmp_path):
    opened = broken(Arrays)
    packing.pack(packing.Job(opened, tmp_path / "packed"))
    opened.collection.images[2][3, 3] += 1
    with pytest.raises(UserError, match="images that were changed since"):
        packing.pack(packing.Job(opened, tmp_path / "packed"))


def test_a_packed_set_that_is_packed_again(packed_set, tmp_path):
    _, out = packed_set
    pack(options(out), tmp_path / "again", compression="zstd")
    changed(min(out.glob("*.array_record")))
    with pytest.raises(UserError, match="images that were changed since"):
        pack(options(out), tmp_path / "again", compression="zstd")


@pytest.mark.parametrize("killed", [True, False])
def test_old_and_new_images_do_not_mix(killed, tmp_path, rng):
    config = options(folder(tmp_path / "set", rng))

    def interfere(done, total):
        if done == total // 2:
            changed(tmp_path / "set" / "images" / "00.tif")
            if killed:
                raise Killed

    message = r"images were changed while they were packed into --out=.*packed; delete it and start again"
    with pytest.raises(Killed) if killed else pytest.raises(UserError, match=message):
        packing.pack(packing.Job(open_stored(config), tmp_path / "packed", shard_bytes=4000, threads=1), interfere)
    with pytest.raises(UserError, match="images that were changed since"):
        pack(config, tmp_path / "packed")
    with pytest.raises(UserError, match="was not packed to its end"):
        open_dataset(options(tmp_path / "packed"))


def test_where_images_and_packs_lie_does_not_count(packed_set, tmp_path):
    _, out = packed_set
    whole = open_dataset(options(out))
    shutil.copytree(tmp_path / "set", tmp_path / "elsewhere" / "set")
    shutil.copytree(out, tmp_path / "elsewhere" / "packed", copy_function=shutil.copy)
    shutil.rmtree(tmp_path / "set")
    same_examples(open_dataset(options(tmp_path / "elsewhere" / "packed")).pool, whole.pool)
    assert pack(options(tmp_path / "elsewhere" / "set"), tmp_path / "elsewhere" / "packed") == 0


def test_damaged_images_stop_or_are_left_out(tmp_path, rng):
    config = options(folder(tmp_path / "set", rng), on_damaged="skip")
    (tmp_path / "set" / "images" / "04.tif").write_bytes(b"")
    pack(config, tmp_path / "packed")
    data = open_dataset(options(tmp_path / "packed"))
    assert any("1 unreadable images were left out: images/04.tif" in note for note in data.notes)
    assert "04.tif cannot be read" in data.damaged[0]
    with pytest.raises(UserError, match=r"04\.tif cannot be read"):
        pack(options(tmp_path / "set"), tmp_path / "stopped")


class Broken(Arrays):
    """Images of which some are found to be unreadable only when they are read, as tiles of slides are."""

    bad = (1, 4)

    def image(self, index):
        if index in self.bad:
            raise UserError(f"image {index} cannot be read.")
        return super().image(index)


def broken(kind=Broken):
    images = tuple(np.full((20, 20, 1), i, np.uint8) for i in range(6))
    return Opened("broken", kind(tuple(Item(str(i), Probe.of(image)) for i, image in enumerate(images)), images))


def test_images_that_fail_late_are_left_out_of_the_index(tmp_path):
    job = packing.Job(broken(), tmp_path / "packed", shard_bytes=800, skip=True)
    packing.pack(job)
    data = open_dataset(options(tmp_path / "packed"))
    assert [data.pool[i]["id"] for i in range(len(data.pool))] == ["0", "2", "3", "5"]
    assert [int(data.pool[i]["image"].max()) for i in range(4)] == [0, 2, 3, 5]
    assert data.damaged == ("image 1 cannot be read.", "image 4 cannot be read.")
    assert "2 unreadable images were left out when the set was packed" in data.notes
    assert packing.pack(job) == 0
    for out in ("packed", "stopped"):
        with pytest.raises(UserError, match="image 1 cannot be read"):
            packing.pack(packing.Job(broken(), tmp_path / out, shard_bytes=800))


def test_a_set_of_which_nothing_can_be_read(tmp_path):
    class Lost(Broken):
        bad = range(6)

    with pytest.raises(UserError, match="none of the 6 images can be read; the first: image 0"):
        packing.pack(packing.Job(broken(Lost), tmp_path / "packed", skip=True))


def test_images_that_change_while_they_are_packed(tmp_path):
    opened = broken(Arrays)
    moved = Arrays(opened.collection.items, tuple(image[:10] for image in opened.collection.images))
    with pytest.raises(UserError, match="0 or its mask has another size or type than at the start"):
        packing.pack(packing.Job(Opened("moved", moved), tmp_path / "packed"))


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    monkeypatch.setattr(packing.shards, "size_of", lambda item: 3 * 10**9)
    with pytest.raises(UserError, match=r"needs \d+\.0 GB, and 0\.1 MB are free; choose another disk, or --compression=zstd"):
        packing.pack(packing.Job(broken(Arrays), tmp_path / "packed"))
    assert not (tmp_path / "packed").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_disk_that_becomes_full(tmp_path):
    (tmp_path / "set").mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "set" / "a.png")
    flags = ("medssl_jax.pack", "--config=configs/tower.py", f"--config.data.path={tmp_path / 'set'}", f"--out={tmp_path / 'packed'}")
    shell.finished(shell.run(*flags))
    (shard,) = (tmp_path / "packed").glob("*.array_record")
    shard.rename(tmp_path / "kept")
    shard.with_name(f"{shard.name}.partial").symlink_to("/dev/full")
    assert "the disk is full" in shell.sentence(shell.run(*flags))
    shard.with_name(f"{shard.name}.partial").unlink()
    shell.finished(shell.run(*flags))
    assert shard.read_bytes() == (tmp_path / "kept").read_bytes()


COMMANDS = {
    "": "--out is missing",
    "--out=OUT": "no config was given",
    "--out=OUT --verify": "holds no packed images",
    "--out=OUT --config=configs/tower.py --config.data.path=SET --threads=0": "threads",
    "--out=SET/packed --config=configs/tower.py --config.data.path=SET": "lies inside the data",
    "--out=SET --config=configs/tower.py --config.data.path=SET": "lies inside the data",
    "--out=OUT --config=configs/tower.py --config.data.path=/nowhere": "does not exist",
    "--out=OUT --config=configs/tower.py --config.data.path=SET --config.data.task=segmentation": "needs masks",
    "--out=OUT --config=configs/tower.py --config.data.path=SET --compression=gzip": "compression",
}


@pytest.mark.parametrize("flags", COMMANDS)
def test_what_the_command_refuses(flags, tmp_path):
    (tmp_path / "set").mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "set" / "a.png")
    flags, message = flags.replace("SET", str(tmp_path / "set")).replace("OUT", str(tmp_path / "out")), COMMANDS[flags]
    assert message in shell.sentence(shell.run("medssl_jax.pack", *flags.split()))
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["a.png"]


def test_shards_divide_in_order_by_size():
    items = [Item(str(i), Probe(10, 10, 1, np.dtype(np.uint16)), masked=i % 2 == 1) for i in range(7)]
    assert [list(rows) for rows in shards.divide(items, 500)] == [[0, 1], [2, 3], [4, 5], [6]]
    assert [list(rows) for rows in shards.divide(items, 1)] == [[i] for i in range(7)]
    assert list(shards.divide([], 1)) == []


def test_items_read_back_share_what_is_equal_among_them(packed_set):
    _, out = packed_set
    items = pickle.loads(pickle.dumps(packed.read_index(out).items))
    assert len({id(item.probe) for item in items}) == len({item.probe for item in items})


def test_a_run_on_a_packed_set_has_the_same_results(tmp_path):
    flags = ["--config.data.placement=host", "--config.finetune.labels=1 patch, all"]
    data = tiny.folder(tmp_path / "set")
    packing.pack(packing.Job(open_stored(options(data)), tmp_path / "packed"))
    found = []
    for name in ("set", "packed"):
        workdir = tmp_path / "runs" / name
        shell.finished(shell.run(*shell.main(*flags, f"--config.data.path={tmp_path / name}", workdir=workdir)))
        pretrained = json.loads((workdir / "pretrained.json").read_text())
        found.append((json.loads((workdir / "results.json").read_text()), pretrained["pool"]))
    assert found[0] == found[1]


def test_two_processes_at_one_folder(tmp_path):
    (tmp_path / "set").mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "set" / "a.png")
    job = packing.Job(open_stored(options(tmp_path / "set")), tmp_path / "out")
    with machine.alone(tmp_path / "out" / packing.LOCK, ""), pytest.raises(UserError, match="another process packs into --out="):
        packing.pack(job)
    assert packing.pack(job) == 1


def test_who_waits_at_the_lock_and_who_comes_later_do_not_both_get_it(tmp_path):
    (tmp_path / "set").mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "set" / "a.png")
    job = packing.Job(open_stored(options(tmp_path / "set")), tmp_path / "out")
    opened = []

    def come(done, total):
        opened.append((tmp_path / "out" / packing.LOCK).open("w"))

    packing.pack(job, come)
    with opened[0] as early:
        fcntl.flock(early, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(UserError, match="another process packs into --out="):
            packing.pack(job)
