"""Batch k is a pure function of (seed, k): no thread, process, host or restart changes it."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from medssl_jax.data.stream import example_batches, index_batches, sub_seed
from medssl_jax.data.tiles import TileSource, load_all
from medssl_jax.errors import UserError

LENGTH, BATCH, STEPS = 22, 8, 7


class Images:
    """22 images of one tile; the one called `bad` cannot be read."""

    def __init__(self, bad=None):
        self.bad = bad

    def __len__(self):
        return LENGTH

    def info(self, index):
        from medssl_jax.data.dataset import Info

        return Info(str(index), 16, 16, 1, masked=True)

    def __getitem__(self, index):
        if index == self.bad:
            raise UserError(f"{index}.png cannot be read")
        image = np.random.default_rng(index).integers(0, 65536, (16, 16, 1), dtype=np.uint16)
        return {"image": image, "mask": (image[:, :, 0] > 9).astype(np.int32), "id": str(index)}


def take(stream, count=STEPS):
    found = list(itertools.islice(stream, count))
    if hasattr(stream, "close"):
        stream.close()
    return found


@pytest.fixture(scope="module")
def tiles():
    return TileSource(Images(), 16)


@pytest.fixture(scope="module")
def reference():
    return take(index_batches(LENGTH, seed=5, global_batch=BATCH))


def test_every_epoch_is_another_exact_permutation(reference):
    order = np.concatenate([b["index"] for b in take(index_batches(LENGTH, seed=5, global_batch=BATCH), 11)])
    epochs = order.reshape(4, LENGTH)
    for epoch in epochs:
        assert sorted(epoch) == list(range(LENGTH))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    for batch in reference:
        assert batch["index"].dtype == batch["slot"].dtype == np.int32
        np.testing.assert_array_equal(batch["slot"], np.arange(BATCH))


def test_neighbouring_seeds_share_no_permutation():
    epochs = [
        tuple(np.concatenate([b["index"] for b in take(index_batches(LENGTH, seed=s, global_batch=LENGTH), 3)]).reshape(3, -1)[e])
        for s in range(6)
        for e in range(3)
    ]
    assert len(set(epochs)) == len(epochs)
    assert sub_seed(7, "a") != sub_seed(7, "b")
    assert sub_seed(7, "a") == int(np.random.SeedSequence([7, ord("a")]).generate_state(1)[0])


@pytest.mark.parametrize("start", [0, 1, 5, 10**6])
def test_a_stream_continues_at_any_step(start):
    later = take(index_batches(LENGTH, seed=5, global_batch=BATCH, start_step=start), 2)
    flat = np.arange(start * BATCH, (start + 2) * BATCH)
    first = flat[0] // LENGTH * LENGTH  # the epoch in which it starts, from its first index on
    epochs = np.concatenate(
        [b["index"] for b in take(index_batches(LENGTH, seed=5, global_batch=1, start_step=int(first)), int(flat[-1] - first) + 1)]
    )
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in later]), epochs[flat - first])


@pytest.mark.parametrize("hosts", [2, 4])
def test_shares_of_the_hosts_are_the_global_batch(reference, tiles, hosts):
    for stream in (
        lambda host: index_batches(LENGTH, seed=5, global_batch=BATCH, host=host, hosts=hosts),
        lambda host: example_batches(tiles, seed=5, global_batch=BATCH, host=host, hosts=hosts, threads=2),
    ):
        shares = [take(stream(host)) for host in range(hosts)]
        for step, batch in enumerate(reference):
            for key in ("index", "slot"):
                np.testing.assert_array_equal(np.concatenate([share[step][key] for share in shares]), batch[key])


@pytest.mark.parametrize(("threads", "workers"), [(0, 0), (4, 0), (0, 2), (4, 2)])
def test_tiles_read_by_threads_and_processes_are_those_in_memory(reference, tiles, threads, workers):
    resident = load_all(tiles)
    start = 2
    found = take(example_batches(tiles, seed=5, global_batch=BATCH, start_step=start, threads=threads, workers=workers), STEPS - start)
    for batch, expected in zip(found, reference[start:], strict=True):
        assert set(batch) == {"image", "mask", "index", "slot"}
        np.testing.assert_array_equal(batch["index"], expected["index"])
        np.testing.assert_array_equal(batch["slot"], expected["slot"])
        assert batch["image"].dtype == np.uint16
        for key in ("image", "mask"):
            np.testing.assert_array_equal(batch[key], resident[key][expected["index"]])


def test_a_batch_larger_than_the_data_repeats_them():
    for batch in take(index_batches(3, seed=0, global_batch=8), 3):
        assert max(Counter(batch["index"].tolist()).values()) <= 4
        assert set(batch["index"].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_stops_the_stream_and_is_named(workers):
    with pytest.raises(Exception, match=r"13\.png cannot be read") as caught:
        take(example_batches(TileSource(Images(bad=13), 16), seed=5, global_batch=LENGTH, workers=workers), 1)
    assert isinstance(caught.value, UserError)
