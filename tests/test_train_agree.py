"""What several processes agree upon; with real ones in test_processes.py."""

from __future__ import annotations

import itertools

import jax
import pytest

from medssl_jax.train import agree


class Notice:
    """JAX's protocol: a notice names the step after the last that any process asked for, and only that one is reached."""

    def __init__(self):
        self.last, self.named = 0, None

    def come(self):
        self.named = self.last + 1

    def reached(self, step):
        self.last = step
        return step == self.named


@pytest.mark.parametrize("asked_before", [0, 3])
def test_a_notice_is_heard_at_the_next_question(asked_before, monkeypatch):
    """Also one that comes before the first, while a continued run still reads its images."""
    notice = Notice()
    monkeypatch.setattr(agree.multihost_utils, "reached_preemption_sync_point", notice.reached)
    monkeypatch.setattr(agree, "_asked", itertools.count(1))
    assert not any(agree.preempted() for _ in range(asked_before))
    notice.come()
    assert agree.preempted()
    assert not agree.preempted()


def test_one_process_agrees_with_itself():
    assert jax.process_count() == 1
    assert agree.from_first(lambda: [1, {"a": None}]) == [1, {"a": None}]
    assert agree.all_agree(True)
    assert not agree.all_agree(False)
    agree.wait_for_all("nobody")
