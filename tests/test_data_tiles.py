"""Images of mixed sizes become tiles of one shape that show every pixel."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from medssl_jax.data.tiles import TileSource, load_all
from medssl_jax.errors import UserError


class Counted(list):
    """A source that counts how often it is read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)

    def info(self, index):
        from medssl_jax.data.dataset import Info

        example = super().__getitem__(index)
        return Info(example["id"], *example["image"].shape, masked="mask" in example)


def example(height, width, number=0, **more):
    """An image whose pixels are their own positions."""
    y, x = np.mgrid[:height, :width]
    return {"image": np.stack([y, x, np.full_like(y, number)], -1).astype(np.uint8), "id": f"image {number}", **more}


def test_every_pixel_is_in_a_tile_and_tiles_are_what_they_were_cut_from():
    source = [example(40, 70, 0), example(32, 33, 1), example(100, 32, 2)]
    tiles = TileSource(source, 32)
    assert len(tiles) == 2 * 3 + 1 * 2 + 4 * 1
    seen = [np.zeros(e["image"].shape[:2], bool) for e in source]
    for k in range(len(tiles)):
        tile = tiles[k]
        (y, x), number = tile["image"][0, 0, :2], tile["image"][0, 0, 2]
        assert tile["index"] == k
        np.testing.assert_array_equal(tile["image"], source[number]["image"][y : y + 32, x : x + 32])
        seen[number][y : y + 32, x : x + 32] = True
    assert all(s.all() for s in seen)


def test_overlap_is_spread_evenly():
    starts = sorted({int(t["image"][0, 0, 1]) for t in map(TileSource([example(32, 100)], 32).__getitem__, range(4))})
    assert starts == [0, 23, 45, 68]


def test_masks_and_labels_are_cut_with_their_images():
    y, x = np.mgrid[:40, :50]
    tiles = TileSource([example(40, 50, mask=(y * 50 + x).astype(np.int32))], 32)
    assert tiles.keys == ("image", "mask", "index")
    for k in range(len(tiles)):
        image, mask = tiles[k]["image"].astype(int), tiles[k]["mask"]
        np.testing.assert_array_equal(mask, image[:, :, 0] * 50 + image[:, :, 1])


def test_whole_is_the_central_square():
    tiles = TileSource([example(32, 48, 0, label=3), example(50, 32, 1, label=1)], 32, kind="whole")
    assert len(tiles) == 2
    assert tuple(tiles[0]["image"][0, 0, :2]) == (0, 8)
    assert tuple(tiles[1]["image"][0, 0, :2]) == (9, 0)
    np.testing.assert_array_equal(load_all(tiles)["label"], [3, 1])


def test_a_tile_larger_than_an_image_is_refused_with_a_size_that_fits():
    source = [example(100, 100), example(80, 64, 7)]
    with pytest.raises(
        UserError, match=r"a tile of 96 px is larger than image 7 \(80 x 64 px\); set --config\.data\.tile=64 --config\.views\.size=64 or"
    ):
        TileSource(source, 96)
    with pytest.raises(UserError, match=r"--config\.finetune\.patch=64"):
        TileSource(source, 96, option="finetune.patch")


def test_all_tiles_at_once_are_the_same_tiles_and_each_image_is_read_once():
    source = Counted([example(40 + i, 50, i, mask=np.full((40 + i, 50), i, np.int32)) for i in range(20)])
    told = []
    arrays = load_all(TileSource(source, 32), lambda done, total: told.append((done, total)))
    assert source.reads == 20
    assert told[-1] == (20, 20)
    tiles = TileSource(source, 32)
    assert set(arrays) == {"image", "mask"}
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, np.stack([tiles[k][key] for k in range(len(tiles))]))


def test_masks_are_left_out_where_only_some_images_have_one():
    source = [example(32, 32, 0, mask=np.zeros((32, 32), np.int32)), example(32, 32, 1)]
    assert set(load_all(TileSource(source, 32))) == {"image"}
    assert "mask" in TileSource(source, 32)[0]
    with pytest.raises(UserError, match="training part of the data set is empty"):
        load_all(TileSource([], 32))


def test_tiles_in_order_decode_each_image_once_and_travel_to_other_processes():
    source = Counted([example(64, 64, i) for i in range(3)])
    tiles = TileSource(source, 32)
    values = [tiles[k]["image"] for k in range(len(tiles))]
    assert source.reads == 3
    copy = pickle.loads(pickle.dumps(tiles))
    np.testing.assert_array_equal(np.stack([copy[k]["image"] for k in range(12)]), np.stack(values))
    with pytest.raises(IndexError):
        tiles[12]
