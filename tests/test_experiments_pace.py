"""The pace of steps in a row: what is waited for counts once, and readers that start together are waited for alike."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from experiments.pace import by_round, in_a_row, rate, spread, waited, whole


def slow(seconds):
    """Batches that take that long."""
    while True:
        time.sleep(seconds)
        yield 0


def done():
    """A step that has ended as it returns."""


def test_a_step_that_has_ended_waits_for_the_next_batch():
    found = in_a_row(lambda batch: done, slow(0.02), 1, 5, 3)
    assert found["waiting"] > 0.8
    assert found["images_per_s"] <= 5 * 3 / 0.1


def test_a_step_that_goes_on_meanwhile_waits_for_nothing():
    def step(batch):
        ended = threading.Event()
        threading.Timer(0.1, ended.set).start()
        return ended.wait

    assert in_a_row(step, slow(0.01), 0, 3, 1)["waiting"] < 0.5  # the first batch alone is waited for


def test_only_the_steps_asked_for_are_counted():
    began = []
    found = in_a_row(lambda batch: began.append(batch) or done, itertools.count(), 4, 3, 8)
    assert began == list(range(7))
    assert found["images_per_s"] > 0


@pytest.mark.parametrize(("steps", "readers", "expected"), [(20, 16, 32), (20, 4, 20), (1, 2, 2)])
def test_every_reader_reads_as_much(steps, readers, expected):
    assert whole(steps, readers) == expected


def test_rounds_are_told_by_their_median_and_range():
    side = by_round([{"images_per_s": pace, "waiting": share} for pace, share in ((10.4, 0.1), (30.0, 0.5), (20.0, 0.12))])
    assert rate(side) == 20.0
    assert spread(side["images_per_s"]) == "20 (10 to 30)"
    assert spread([1.046], 2) == "1.05"
    assert waited(side) == "12%"
