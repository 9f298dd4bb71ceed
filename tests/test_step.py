"""The one step: the same numbers on any number of devices, with micro-batches, with sharded parameters."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest
import tiny

from medssl_jax.errors import UserError
from medssl_jax.train import mesh as meshes
from medssl_jax.train import optimizer
from medssl_jax.train.step import example_keys

STEPS = 3


def largest_difference(a, b) -> float:
    leaves = zip(jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b)), strict=True)
    return max(float(np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)), initial=0)) for x, y in leaves)


@pytest.mark.parametrize("name", tiny.METHODS)
def test_one_and_four_devices_agree(name):
    c = tiny.shrink(tiny.config(name))
    c.pretrain.optimizer.name = "sgd"  # Adam would blow rounding up where a gradient is nearly zero
    (one, logs_one), (four, logs_four) = (tiny.Trainer(c, n).run(STEPS) for n in (1, 4))
    assert largest_difference(one.params, four.params) < 2e-5
    assert largest_difference(one.carried, four.carried) < 2e-5
    for a, b in zip(logs_one, logs_four, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


@pytest.mark.parametrize("name", tiny.METHODS)
def test_every_method_learns_and_moves_every_parameter(name):
    c = tiny.shrink(tiny.config(name))
    c.pretrain.optimizer.update({"name": "sgd", "weight_decay": 0.0, "warmup": 0.0})  # nothing but the gradient moves a parameter
    trainer = tiny.Trainer(c)
    before = jax.device_get(trainer.start(jax.random.key(3)).params)
    state, logs = trainer.run(STEPS)
    assert all(np.isfinite(log["loss"]) and log["gradient_norm"] > 0 for log in logs)
    moved = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - b).max()) > 0, jax.device_get(state.params), before)
    kernels = [m for path, m in jax.tree_util.tree_leaves_with_path(moved) if "kernel" in jax.tree_util.keystr(path)]
    assert all(kernels)


def test_sharded_parameters_give_the_same_run(monkeypatch):
    monkeypatch.setattr(meshes, "FSDP_MIN_SIZE", 16)
    c = tiny.shrink(tiny.config("tower"))
    c.model.width = c.model.decoder_width = 4
    c.pretrain.optimizer.name = "sgd"
    plain, sharded = (tiny.Trainer(c, 4, fsdp) for fsdp in (False, True))
    specs = {str(place.spec) for place in jax.tree.leaves(sharded.places.params)}
    assert any("data" in spec for spec in specs)
    assert largest_difference(plain.run(STEPS)[0].params, sharded.run(STEPS)[0].params) < 2e-5


def test_micro_batches_add_up_to_the_whole_gradient():
    """Restoration with group norm and without its penalty has no term across images, so two halves must give the gradient of the whole."""
    c = tiny.shrink(tiny.config("restoration"))
    c.method.decorrelation = 0.0
    c.model.norm, c.pretrain.optimizer.name = "group", "sgd"
    whole, _ = tiny.Trainer(c).run(STEPS)
    c.pretrain.accumulate = 2
    halves, _ = tiny.Trainer(c).run(STEPS)
    assert largest_difference(whole.params, halves.params) < 1e-6


def test_a_micro_batch_holds_two_images_or_more():
    with pytest.raises(UserError, match="leaves one image to each of 4 micro-batches"):
        meshes.check_batch(4, 4, meshes.make_mesh(jax.devices()[:1]), "pretrain.batch")


def test_keys_depend_on_seed_step_and_slot_alone():
    slots = np.arange(6, dtype=np.int32)
    keys = jax.random.key_data(example_keys(jax.random.key(1), 5, slots))
    alone = jax.random.key_data(example_keys(jax.random.key(1), 5, slots[4:5]))
    other = jax.random.key_data(example_keys(jax.random.key(1), 6, slots))
    np.testing.assert_array_equal(keys[4:5], alone)
    assert len(np.unique(np.concatenate([keys, other]), axis=0)) == 12


def test_byol_teacher_follows_by_the_schedule():
    """tau = 1 - (1 - 0.99) (cos(pi k / K) + 1) / 2 at step k, the published cosine."""
    c = tiny.shrink(tiny.config("byol"))
    trainer = tiny.Trainer(c)
    state = trainer.start(jax.random.key(3))
    teacher = jax.device_get(state.carried["teacher"]["params"]["encoder"])
    for k in range(2):
        state, _ = trainer.run(1, state)
        tau = 1 - (1 - c.method.decay) * (np.cos(np.pi * k / c.pretrain.steps) + 1) / 2
        online = jax.device_get(state.params["encoder"])
        teacher = jax.tree.map(lambda t, o, tau=tau: tau * t + (1 - tau) * o, teacher, online)
    assert largest_difference(teacher, state.carried["teacher"]["params"]["encoder"]) < 1e-6


def test_batch_that_devices_cannot_divide():
    with pytest.raises(UserError, match=r"pretrain\.batch=10 cannot be divided over 4 device.*=8 or"):
        meshes.check_batch(10, 1, meshes.make_mesh(), "pretrain.batch")


def rule(name: str, rate: float, **changes):
    o = tiny.config("tower").pretrain.optimizer
    o.update({"name": name, "learning_rate": rate, "clip": 0.0, **changes})
    return o


def test_lars_orders_differ_as_published():
    """SimCLR: v = m v + lr * trust * g. BYOL: v = m v + trust * g, moved by lr * v. NumPy over two steps with a rising rate."""
    steps, m, decay = 4, 0.9, 0.01
    w0, g = np.array([[3.0, 4.0]]), np.array([[0.6, 0.8]])
    for name, rate_inside in (("lars", True), ("lars_byol", False)):
        o = rule(name, 1.0, warmup=0.5, weight_decay=decay, momentum=m)
        rates = [float(optimizer.schedule(o, steps)(k)) for k in range(steps)]
        w, v = w0.copy(), np.zeros_like(w0)
        for rate in rates:
            full = g + decay * w
            local = 0.001 * np.linalg.norm(w) / np.linalg.norm(full) * full
            v = m * v + (rate * local if rate_inside else local)
            w = w - (v if rate_inside else rate * v)
        update = optimizer.build(o, steps)
        params = {"a": {"kernel": jax.numpy.asarray(w0, jax.numpy.float32)}}
        state = update.init(params)
        for _ in range(steps):
            change, state = update.update({"a": {"kernel": jax.numpy.asarray(g, jax.numpy.float32)}}, state, params)
            params = optax.apply_updates(params, change)
        np.testing.assert_allclose(params["a"]["kernel"], w, rtol=1e-6)


@pytest.mark.parametrize("most", [0.5, 1e3])
def test_the_clip_is_optaxs(most, rng):
    grads = {"a": {"kernel": rng.standard_normal((5, 3), np.float32), "bias": rng.standard_normal(4, np.float32)}}
    update = optimizer.build(rule("sgd", 1.0, clip=most, warmup=0.0, weight_decay=0.0, momentum=0.0), 10)
    expected = optax.clip_by_global_norm(most)
    (found, _), (theirs, _) = (rule.update(grads, rule.init(grads), grads) for rule in (update, expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(-a, b, rtol=1e-5), found, theirs)
    grads["a"]["bias"][0] = np.nan
    assert np.isnan(update.update(grads, update.init(grads), grads)[0]["a"]["kernel"]).all()


def test_the_clip_keeps_no_copy_of_the_gradients():
    update = optimizer.build(rule("adamw", 1e-3, clip=1.0), 10)
    params = {"encoder": {"kernel": jax.ShapeDtypeStruct((1024, 512), np.float32)}}

    def moved(params, state, grads):
        change, state = update.update(grads, state, params)
        return optax.apply_updates(params, change), state

    program = jax.jit(moved, donate_argnums=(0, 1)).lower(params, jax.eval_shape(update.init, params), params).compile()
    assert program.memory_analysis().temp_size_in_bytes < 1024 * 512 * 4 / 4


def test_biases_and_norms_are_not_decayed():
    update = optimizer.build(rule("adamw", 0.01, weight_decay=0.5, warmup=0.0), 10)
    params = {"a": {"kernel": jax.numpy.ones((2, 2)), "bias": jax.numpy.ones(2)}}
    still = jax.tree.map(jax.numpy.zeros_like, params)
    change, _ = update.update(still, update.init(params), params)
    assert float(np.abs(change["a"]["bias"]).max()) == 0
    assert float(np.abs(change["a"]["kernel"]).min()) > 0


def test_head_warmup_holds_the_body():
    update = optimizer.build(rule("sgd", 0.1, warmup=0.0), 10, head_warmup=0.2)
    params = {part: {"kernel": jax.numpy.ones((2, 2))} for part in ("encoder", "head")}
    state, moved = update.init(params), []
    for _ in range(3):
        change, state = update.update(params, state, params)
        moved.append([float(np.abs(change[part]["kernel"]).max()) > 0 for part in ("encoder", "head")])
    assert moved == [[False, True], [False, True], [True, True]]


def test_rates_and_names_that_cannot_be_meant():
    with pytest.raises(UserError, match="rate for lars or sgd"):
        optimizer.build(rule("adamw", 4.8), 10)
    with pytest.raises(UserError, match="choose one of adamw"):
        optimizer.build(rule("adam", 0.001), 10)
