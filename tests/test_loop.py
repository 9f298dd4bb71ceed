"""The loop: resumed equals uninterrupted bit for bit, SIGTERM saves, NaN stops, checkpoints cut short are passed over."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from medssl_jax.errors import UserError
from medssl_jax.train import checkpoint
from medssl_jax.train.checkpoint import Checkpoints
from medssl_jax.train.logging import Logger
from medssl_jax.train.loop import AHEAD, Interrupted, Plan, StopRequest, train

STEPS = 6


@pytest.fixture(scope="module", params=["tower", "byol"])
def trainer(request):
    c = tiny.shrink(tiny.config(request.param))
    c.pretrain.steps = STEPS
    return tiny.Trainer(c)


def plan(steps=STEPS) -> Plan:
    return Plan("test", steps, batch=8, log_every=2, eval_every=100)


def run(trainer, path, steps=STEPS, places=None, **options):
    """What the command does: restore or start, then train; closes the checkpoints."""
    checkpoints = Checkpoints(path / "checkpoints", every=2, keep=2)
    abstract = jax.eval_shape(trainer.start, jax.random.key(3))
    state = checkpoints.restore(checkpoint.abstract(abstract, places or trainer.places))
    state = trainer.start(jax.random.key(3)) if state is None else state
    logger = Logger(path, "pretrain", resume_step=int(state.step))
    try:
        return train(state, trainer.step, trainer.batches(int(state.step)), plan(steps), logger=logger, checkpoints=checkpoints, **options)
    finally:
        logger.close()
        checkpoints.close()


def same_bits(a, b) -> bool:
    def raw(state):
        return [
            np.asarray(x)
            for x in jax.tree.leaves((state.step, jax.random.key_data(state.key), state.params, state.carried, state.opt_state))
        ]

    return all(x.tobytes() == y.tobytes() for x, y in zip(raw(a), raw(b), strict=True))


def steps_logged(path) -> list[int]:
    return [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_resumed_is_uninterrupted_bit_for_bit(trainer, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    run(trainer, parts, steps=4)
    assert same_bits(run(trainer, parts), run(trainer, whole))
    assert steps_logged(parts) == steps_logged(whole) == [2, 4, 6]


def test_sigterm_saves_where_it_stands(trainer, tmp_path):
    def local():
        for k, batch in enumerate(trainer.batches()):
            if k == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    checkpoints = Checkpoints(tmp_path, every=100, keep=2)
    with StopRequest() as stop, pytest.raises(Interrupted, match="step 3 of 6"):
        train(trainer.start(jax.random.key(3)), trainer.step, local(), plan(), checkpoints=checkpoints, stop=stop)
    checkpoints.close()
    assert Checkpoints(tmp_path, every=100, keep=2).latest == 3


def test_a_signal_is_answered_at_once(capfd):
    """What is under way may take minutes; a second signal needs no second answer, and a second Ctrl-C does not wait."""
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        assert capfd.readouterr().err.strip() == "Stopping as soon as this step is done; another Ctrl-C stops at once."
        os.kill(os.getpid(), signal.SIGTERM)
        assert capfd.readouterr().err == ""
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_keyboard_stops_with_its_own_exit_code(trainer, tmp_path):
    def local():
        for batch in trainer.batches():
            os.kill(os.getpid(), signal.SIGINT)
            yield batch

    with StopRequest() as stop, pytest.raises(Interrupted, match="step 1 of 6") as caught:
        train(trainer.start(jax.random.key(3)), trainer.step, local(), plan(), stop=stop)
    assert caught.value.code == 130


def test_a_checkpoint_cut_short_is_passed_over(trainer, tmp_path, capsys):
    run(trainer, tmp_path)
    for file in (tmp_path / "checkpoints" / "6").rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = run(trainer, tmp_path)
    said = capsys.readouterr().err
    assert "checkpoint of step 6" in said
    assert "going back to the one before it" in said
    assert int(again.step) == STEPS
    assert (tmp_path / "checkpoints-damaged" / "6").is_dir()
    assert Checkpoints(tmp_path / "checkpoints", every=2, keep=2).latest == STEPS


def cut(content):
    return content[: len(content) // 2]


def flipped(content):
    """Every fortieth byte of the middle half has another bit; its ends hold what TensorStore checks itself."""
    content = bytearray(content)
    for place in range(len(content) // 4, 3 * len(content) // 4, 40):
        content[place] ^= 64
    return content


@pytest.mark.parametrize("damage", [cut, flipped])
def test_a_damaged_checkpoint_is_passed_over(damage, trainer, tmp_path, capsys):
    """Cut short it cannot be read; with flipped bits it mostly can."""
    whole = run(trainer, tmp_path)
    for file in (tmp_path / "checkpoints" / "6" / "params").rglob("d/*"):
        file.write_bytes(damage(file.read_bytes()))
    again = run(trainer, tmp_path)
    assert "The checkpoint of step 6 cannot be read" in capsys.readouterr().err
    assert same_bits(again, whole)


def test_checkpoints_that_do_not_fit_are_left_alone(trainer, tmp_path):
    run(trainer, tmp_path, steps=4)
    c = trainer.config.copy_and_resolve_references()
    c.model.width = 3
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read .* left as they are"):
        run(tiny.Trainer(c), tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()} == {"2", "4"}
    assert int(run(trainer, tmp_path).step) == STEPS


def test_restores_on_another_number_of_devices(tmp_path):
    c = tiny.shrink(tiny.config("tower"))
    c.pretrain.steps = STEPS
    four, one = tiny.Trainer(c, devices=4), tiny.Trainer(c, devices=1)
    run(four, tmp_path, steps=4)
    state = run(one, tmp_path)
    assert int(state.step) == STEPS
    assert jax.tree.leaves(state.params)[0].sharding.mesh.size == 1


def test_a_loss_that_is_no_number_stops_the_run(trainer, tmp_path):
    def poisoned(state, batch):
        state, logs = trainer.step(state, batch)
        bad = jnp.where(state.step >= 3, jnp.nan, logs["loss"])
        return state, {**logs, "loss": bad}

    checkpoints = Checkpoints(tmp_path, every=2, keep=2)
    with pytest.raises(UserError, match=r"between steps 3 and 4 \(the last good checkpoint is of step 2") as caught:
        train(trainer.start(jax.random.key(3)), poisoned, trainer.batches(), plan(), checkpoints=checkpoints)
    checkpoints.close()
    assert "lower config.pretrain.optimizer.learning_rate" in str(caught.value)


def test_a_fine_tuning_that_diverges_is_named_and_the_pretraining_kept(trainer):
    def poisoned(state, batch):
        state, logs = trainer.step(state, batch)
        return state, {**logs, "loss": jnp.nan}

    named = dataclasses.replace(plan(), title="fine-tune 3/36 (random, 1 patch)", option="finetune.optimizer")
    with pytest.raises(UserError, match=r"^fine-tune 3/36 \(random, 1 patch\): the loss .* config\.finetune\.optimizer") as caught:
        train(trainer.start(jax.random.key(3)), poisoned, trainer.batches(), named)
    assert "--config.pretrain.from=" in str(caught.value)


class Reading:
    """A number that the device has yet to compute."""

    ready = False

    def block_until_ready(self):
        time.sleep(0.01)
        self.ready = True
        return self

    def __array__(self, dtype=None, copy=None):
        return np.ones((), dtype)


def test_the_device_is_a_few_steps_behind_when_a_batch_is_fetched(tmp_path):
    """A longer queue would be waited for in there, and be taken for waiting for data, which this is not."""
    readings, behind = [], []

    def batches():
        while True:
            behind.append(sum(not reading.ready for reading in readings))
            yield {}

    def step(state, batch):
        readings.append(Reading())
        return state, {"loss": readings[-1], "gradient_norm": jnp.ones(())}

    logger = Logger(tmp_path, "pretrain", resume_step=0)
    train(SimpleNamespace(step=0), step, batches(), dataclasses.replace(plan(20), log_every=20), logger=logger)
    logger.close()
    assert len(behind) == 20
    assert max(behind) == AHEAD - 1
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["data_wait"] < 0.5  # of the time it was the device that was waited for


def test_no_permission_is_no_damage(trainer, tmp_path, monkeypatch):
    run(trainer, tmp_path, steps=4)
    checkpoints = Checkpoints(tmp_path / "checkpoints", every=2, keep=2)

    def refused(step, abstract):
        raise PermissionError(13, "Permission denied", "params")

    monkeypatch.setattr(checkpoints, "_restore", refused)
    with pytest.raises(PermissionError):
        checkpoints.restore(None)
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]
    assert not (tmp_path / "checkpoints-damaged").exists()


def test_a_gradient_that_is_no_number_stops_the_run_before_it_is_saved(trainer, tmp_path):
    def poisoned(state, batch):
        state, logs = trainer.step(state, batch)
        return state, {**logs, "gradient_norm": jnp.where(state.step >= 3, jnp.nan, logs["gradient_norm"])}

    checkpoints = Checkpoints(tmp_path, every=2, keep=2)
    with pytest.raises(UserError, match=r"the loss or its gradient became .*the last good checkpoint is of step 2"):
        train(trainer.start(jax.random.key(3)), poisoned, trainer.batches(), plan(), checkpoints=checkpoints)
    checkpoints.close()


def test_a_stop_at_an_evaluation_does_not_lose_it(trainer, tmp_path):
    """Evaluations after 2, 4 and 6 steps, with a stop after 2 and after 4."""
    looked = []
    for leave_after in (2, 4, None):
        stop = StopRequest()

        def evaluate(state, leave_after=leave_after, stop=stop):
            looked.append(int(state.step))
            stop.by = signal.SIGTERM if looked[-1] == leave_after else None
            return {}

        checkpoints = Checkpoints(tmp_path, every=2, keep=2)
        state = checkpoints.restore(checkpoint.abstract(jax.eval_shape(trainer.start, jax.random.key(3)), trainer.places))
        state = trainer.start(jax.random.key(3)) if state is None else state
        every_two = dataclasses.replace(plan(), eval_every=2)
        options = {"checkpoints": checkpoints, "evaluate": evaluate, "stop": stop}
        try:
            train(state, trainer.step, trainer.batches(int(state.step)), every_two, **options)
        except Interrupted:
            assert leave_after
        checkpoints.close()
    assert looked == [2, 4, 6]


def test_log_forgets_steps_that_run_again_and_lines_cut_short(tmp_path):
    lines = [{"phase": "pretrain", "step": s, "loss": 1.0} for s in (2, 4, 6)] + [{"phase": "finetune", "step": 9}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"phase": "pre')
    logger = Logger(tmp_path, "pretrain", resume_step=4)
    logger.write(6, {"loss": 2.0})
    logger.close()
    assert steps_logged(tmp_path) == [2, 4, 9, 6]
