"""Whole slides are read tile by tile: the right pixels, from the right level, of tissue alone, in little memory."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import shell
import slides
import tifffile

from medssl_jax.config import base
from medssl_jax.data import packing
from medssl_jax.data.slide import open_slide
from medssl_jax.data.sources import describe, open_dataset, open_stored
from medssl_jax.data.stream import example_batches
from medssl_jax.data.tiles import TileSource
from medssl_jax.data.tissue import shares, thumbnail, tissue
from medssl_jax.errors import UserError


def options(path, **changes):
    config = base().data
    config.update({"path": str(path), "source": "slides", "tile": 64, **changes})
    return config


def ids(source):
    return [describe(source, i).id for i in range(len(source))]


DIALECTS = {
    "jpeg": ((), {"compression": "jpeg", "photometric": "rgb"}),
    "zlib": ((), {}),
    "jpeg2000": ((), {"compression": "jpeg2000"}),
    "planes apart": ((2, 0, 1), {"planarconfig": "separate", "photometric": "rgb"}),
    "ome, a page a channel": ((2, 0, 1), {"ome": True, "photometric": "minisblack", "metadata": {"axes": "CYX"}}),
    "strips": ((), {"tile": None, "rowsperstrip": 16}),
    "big-endian 16 bit": ((), {"byteorder": ">", "kind": np.uint16}),
    "with alpha": ((), {"alpha": True, "photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "0 is white": ((), {"photometric": "miniswhite", "channels": 1}),
}


@pytest.mark.parametrize("kind", DIALECTS)
def test_every_window_is_that_of_the_whole_image(kind, tmp_path, rng):
    order, known = DIALECTS[kind]
    known = dict(known)
    image = slides.tissue_on_glass(200, known.pop("channels", 3)).astype(known.pop("kind", np.uint8))
    stored = np.concatenate([image, image[..., :1]], 2) if known.pop("alpha", False) else image
    path = tmp_path / ("a.ome.tif" if known.pop("ome", False) else "a.tif")
    with tifffile.TiffWriter(path, byteorder=known.pop("byteorder", None)) as file:
        file.write(np.transpose(stored, order) if order else stored.squeeze(), **{"tile": (64, 64), **known})
    slide = open_slide(path)
    level = slide.levels[0]
    level.check()
    expected = tifffile.imread(path)
    expected = np.moveaxis(expected, 0, -1) if order else expected.reshape(200, 200, -1)[..., : level.channels]
    expected = 255 - expected if kind == "0 is white" else expected
    assert (level.height, level.width, level.channels) == image.shape
    for y, x, height, width in [(0, 0, 200, 200), (0, 0, 64, 64), (3, 60, 70, 140), (199, 199, 1, 1), (128, 0, 72, 64)]:
        found = level.window(y, x, height, width)
        np.testing.assert_array_equal(found, expected[y : y + height, x : x + width])
        assert found.dtype == level.dtype == expected.dtype


def test_tiles_that_the_file_leaves_out_are_zero(tmp_path):
    def only_first():
        yield np.full((64, 64), 7, np.uint8)
        yield from itertools.repeat(None, 3)

    tifffile.imwrite(tmp_path / "a.tif", only_first(), shape=(128, 128), dtype=np.uint8, tile=(64, 64))
    np.testing.assert_array_equal(
        open_slide(tmp_path / "a.tif").levels[0].window(60, 60, 8, 8)[:, :, 0], np.pad(np.full((4, 4), 7), (0, 4))
    )


def test_levels_and_microns(tmp_path):
    image = slides.tissue_on_glass(256)
    slide = open_slide(slides.write(tmp_path / "a.tif", image))
    assert [(level.height, level.downsample) for level in slide.levels] == [(256, 1), (128, 2), (64, 4)]
    assert slide.microns == 0.5
    np.testing.assert_array_equal(slide.levels[1].window(10, 20, 30, 40), image[::2, ::2][10:40, 20:60])
    slide = open_slide(slides.svs(tmp_path / "b.svs", image, 0.2525))
    assert ([level.downsample for level in slide.levels], slide.microns) == ([1, 4], 0.2525)
    for unit, microns in (("nm", 0.3), ("µm", 300), ("parsec", None), (None, 300)):
        told = {"axes": "YXS", "PhysicalSizeX": 300.0, **({"PhysicalSizeXUnit": unit} if unit else {})}
        path = slides.write(tmp_path / "c.ome.tif", image, 2, metadata=told, photometric="rgb")
        if unit == "parsec":
            told["PhysicalSizeXUnit"] = "pc"
            path = slides.write(tmp_path / "c.ome.tif", image, 2, metadata=told, photometric="rgb")
        assert open_slide(path).microns == microns
    for changes in ({"resolutionunit": "INCH"}, {"resolution": (28, 28)}, {"resolutionunit": "NONE"}):
        assert open_slide(slides.write(tmp_path / "d.tif", image, **changes)).microns is None


def test_tiles_of_tissue_at_the_places_of_the_largest_level(tmp_path):
    image = slides.tissue_on_glass(512)
    slides.write(tmp_path / "a.tif", image)
    data = open_dataset(options(tmp_path))
    assert ids(data.pool) == [f"a.tif ({y}, {x})" for y in range(0, 256, 64) for x in range(0, 256, 64)]
    np.testing.assert_array_equal(data.pool[5]["image"], image[64:128, 64:128])
    assert "16 tiles of 64 px at level 0 are read from 1 slides" in data.notes
    assert len(open_dataset(options(tmp_path, slide_tissue=0.0)).pool) == 64
    data = open_dataset(options(tmp_path, slide_level=1))
    assert ids(data.pool) == ["a.tif (0, 0)", "a.tif (0, 128)", "a.tif (128, 0)", "a.tif (128, 128)"]
    np.testing.assert_array_equal(data.pool[3]["image"], image[::2, ::2][64:128, 64:128])


def test_tiles_by_microns_per_pixel(tmp_path):
    image = np.repeat(np.repeat(slides.tissue_on_glass(64), 8, 0), 8, 1)
    slides.write(tmp_path / "a.tif", image)
    data = open_dataset(options(tmp_path, slide_mpp=1.0))  # the second level as it is
    np.testing.assert_array_equal(data.pool[0]["image"], image[::2, ::2][:64, :64])
    data = open_dataset(options(tmp_path, slide_mpp=1.5))  # 96 px of the second level, scaled
    assert ids(data.pool) == ["a.tif (0, 0)", "a.tif (0, 192)", "a.tif (192, 0)"]  # the fourth shows a ninth of tissue
    assert data.pool[0]["image"].shape == (64, 64, 3)
    assert abs(data.pool[0]["image"].mean() - image[:192, :192].mean()) < 2
    assert "at 1.5 microns per pixel" in data.notes[0]
    assert len(open_dataset(options(tmp_path, slide_mpp=0.48)).pool) == 16  # scanners differ a little


def test_slides_in_classes_and_parts_are_never_divided(tmp_path):
    for name, count in (("benign", 5), ("malignant", 5)):
        for i in range(count):
            slides.write(tmp_path / name / f"{i}.tif", slides.tissue_on_glass(256, seed=i))
    data = open_dataset(options(tmp_path))
    assert (data.task, data.classes) == ("classification", ("benign", "malignant"))
    parts = [{name.split(" ")[0] for name in ids(part)} for part in (data.pool, data.val, data.test)]
    assert sum(map(len, parts)) == 10
    assert len(set.union(*parts)) == 10
    assert [len(part) for part in parts] == [6, 2, 2]
    assert [len(data.pool), len(data.test)] == [24, 8]
    (tmp_path / "splits.csv").write_text("name,split\nbenign/0,test\nmalignant/0.tif,val\nmalignant/1.tif,test\n")
    data = open_dataset(options(tmp_path, splits=str(tmp_path / "splits.csv")))
    assert {name.split(" ")[0] for name in ids(data.test)} == {"benign/0.tif", "malignant/1.tif"}


def test_slides_to_a_pack_to_a_stream(tmp_path):
    for i in range(3):
        slides.svs(tmp_path / "slides" / f"{i}.svs", slides.tissue_on_glass(512, seed=i))
    config = options(tmp_path / "slides")
    packing.pack(packing.Job(open_stored(config), tmp_path / "packed", shard_bytes=10**5))
    streams = []
    for data in (open_dataset(config), open_dataset(options(tmp_path / "packed", source="auto"))):
        stream = example_batches(TileSource(data.pool, 48, kind="grid"), seed=1, global_batch=7, threads=3)
        streams.append([{k: v.tobytes() for k, v in batch.items()} for batch in itertools.islice(stream, 5)])
        stream.close()
    assert streams[0] == streams[1]


def test_many_slides_read_by_many_threads(tmp_path):
    for i in range(24):
        slides.write(tmp_path / f"{i:02d}.tif", np.full((128, 128, 3), (i, 100, 200), np.uint8), 1)
    pool = open_dataset(options(tmp_path)).pool
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(pool)), 5))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: int(pool[int(i)]["image"][0, 0, 0]), order))
    assert found == (order // 4).tolist()


def test_the_command_that_looks_at_data_reads_slides(tmp_path):
    slides.write(tmp_path / "slides" / "a.tif", slides.tissue_on_glass(512))
    flags = [f"--config.data.path={tmp_path / 'slides'}", "--config.data.source=slides", f"--out={tmp_path / 'out'}"]
    said = shell.finished(shell.run("medssl_jax.inspect_data", "--config=configs/tower.py", *flags)).stdout
    assert "sizes       96 x 96 (" in said
    assert (tmp_path / "out" / "contact_sheet.png").exists()


def test_tissue_is_coloured_or_bright():
    image = slides.tissue_on_glass(64)
    truth = np.zeros((64, 64), bool)
    truth[:32, :32] = True
    np.testing.assert_array_equal(tissue(image), truth)
    pen = image.copy()
    pen[40:50, 40:50] = 15  # black ink
    np.testing.assert_array_equal(tissue(pen), truth)
    assert tissue(image[:32, :32]).all()  # no glass to compare with
    assert not tissue(image[32:, 32:]).any()  # nothing but glass
    fluorescence = np.where(truth, 30_000, 300).astype(np.uint16)[..., None].repeat(2, 2)
    np.testing.assert_array_equal(tissue(fluorescence), truth)


def test_the_share_of_a_square_is_that_of_its_thumbnail():
    mask = np.zeros((10, 20), bool)
    mask[:5, :10] = True
    corners = np.array([[0, 0], [40, 90], [50, 100], [99, 199]])
    np.testing.assert_allclose(shares(mask, corners, 20, (100, 200)), [1, 0.25, 0, 0])
    np.testing.assert_allclose(shares(mask, np.array([[0, 0], [99, 199]]), 1, (100, 200)), [1, 0])


def test_the_thumbnail_is_of_the_smallest_level_that_is_large_enough(tmp_path):
    image = np.broadcast_to(np.arange(4104, dtype=np.uint16)[:, None], (4104, 300))
    slide = open_slide(slides.write(tmp_path / "a.tif", image, 3))
    np.testing.assert_array_equal(thumbnail(slide)[:, :, 0], image[::2, ::2][::2, ::2])  # of 2052 px, every second
    slide = open_slide(slides.write(tmp_path / "b.tif", image, 1))
    np.testing.assert_array_equal(thumbnail(slide)[:, :, 0], image[::3, ::3])


REFUSED = {
    "no slide": (lambda p: (p / "a.png").write_bytes(b"x"), {}, "there is no slide in"),
    "level": (lambda p: slides.write(p / "a.tif", slides.tissue_on_glass(256)), {"slide_level": 3}, r"a.tif has no level 3, only 0 to 2"),
    "too fine": (lambda p: slides.write(p / "a.tif", slides.tissue_on_glass(256)), {"slide_mpp": 0.25}, r"0\.5 microns per pixel, coarser"),
    "no microns": (
        lambda p: slides.write(p / "a.tif", slides.tissue_on_glass(256), resolution=None),
        {"slide_mpp": 0.5},
        "does not tell its microns per pixel",
    ),
    "glass": (lambda p: slides.write(p / "a.tif", slides.tissue_on_glass(256)[128:, 128:], 1), {}, "no tile of 64 px in the 1 slides"),
    "small": (lambda p: slides.write(p / "a.tif", slides.tissue_on_glass(60), 1), {}, "no tile of 64 px in the 1 slides"),
    "floats": (lambda p: slides.write(p / "a.tif", np.zeros((128, 128), np.float32), 1), {}, "has float32 values; slides of 8 or 16 bit"),
    "stack": (lambda p: slides.write(p / "a.tif", np.zeros((5, 128, 128), np.uint8), 1, metadata={"axes": "ZYX"}), {}, "holds 5 slices"),
    "cut": (lambda p: cut(slides.write(p / "a.tif", slides.tissue_on_glass(256))), {}, r"a\.tif cannot be read as an image"),
    "task": (lambda p: slides.write(p / "a.tif", slides.tissue_on_glass(256)), {"task": "segmentation"}, "needs masks"),
}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind, tmp_path):
    make, changes, message = REFUSED[kind]
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        open_dataset(options(tmp_path, **changes))


def test_a_slide_in_one_piece_is_refused(tmp_path):
    side = 16_500
    rows = (np.zeros((side, side), np.uint8) for _ in range(1))
    tifffile.imwrite(tmp_path / "a.tif", rows, shape=(side, side), dtype=np.uint8, rowsperstrip=side, compression="zlib")
    with pytest.raises(UserError, match="is not stored in tiles but in pieces of 16500 x 16500 px; save it in tiles"):
        open_dataset(options(tmp_path))


def test_damaged_slides_and_damaged_tiles(tmp_path):
    for i in range(3):
        slides.write(tmp_path / f"{i}.tif", slides.tissue_on_glass(256, seed=i))
    cut(tmp_path / "1.tif")
    config = options(tmp_path, on_damaged="skip", slide_tissue=0.0)
    content = bytearray((tmp_path / "2.tif").read_bytes())
    with open_slide(tmp_path / "2.tif").file as file:
        start = file.series[0].keyframe.dataoffsets[0]
    content[start : start + 50] = bytes(50)
    (tmp_path / "2.tif").write_bytes(content)
    data = open_dataset(config)
    assert any("1 unreadable images were left out: 1.tif" in note for note in data.notes)
    with pytest.raises(UserError, match=r"2\.tif cannot be read as an image"):
        data.pool[ids(data.pool).index("2.tif (0, 0)")]
    packing.pack(packing.Job(open_stored(config), tmp_path / "packed", skip=True))
    packed = open_dataset(options(tmp_path / "packed", source="auto"))
    assert len(packed.pool) == len(data.pool) - 1
    assert "2.tif (0, 0)" not in ids(packed.pool)


def test_a_slide_among_images_is_told(tmp_path):
    first = np.zeros((1024, 1024), np.uint8)
    tiles = itertools.chain([first], itertools.repeat(None, (40_000 // 1024 + 1) ** 2 - 1))
    tifffile.imwrite(tmp_path / "a.tif", tiles, shape=(40_000, 40_000), dtype=np.uint8, tile=(1024, 1024))
    with pytest.raises(UserError, match=r"40000 x 40000 px, too large to be read at once; .*--config.data.source=slides"):
        open_dataset(options(tmp_path, source="folder"))


HUGE = """
import resource, sys
import numpy as np
from medssl_jax.config import base
from medssl_jax.data.sources import open_dataset
data = base().data
data.update({"path": sys.argv[1], "source": "slides", "tile": 256})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pool = open_dataset(data).pool
for i in np.random.default_rng(0).permutation(len(pool))[:200]:
    pool[int(i)]
print(len(pool), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_stays_flat_on_a_slide_of_20000_px(tmp_path):
    side, tile = 20_480, 1024
    tissue_tile = np.broadcast_to(np.array([150, 60, 160], np.uint8), (tile, tile, 3))
    glass_tile = np.full_like(tissue_tile, 240)
    count = side // tile
    tiles = (tissue_tile if (n // count + n % count) % 2 else glass_tile for n in range(count**2))
    known = {"tile": (tile, tile), "compression": "zstd", "photometric": "rgb"}
    tifffile.imwrite(tmp_path / "a.tif", tiles, shape=(side, side, 3), dtype=np.uint8, bigtiff=True, **known)
    root = Path(__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", HUGE, str(tmp_path)], check=True, capture_output=True, text=True, cwd=root)
    tiles_found, megabytes = map(int, ended.stdout.split())
    assert tiles_found == side**2 // 256**2 // 2
    assert megabytes < 500  # of 1258 that the slide has
