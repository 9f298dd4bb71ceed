"""Losses against NumPy, at their limits, in low precision, and on four devices."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from medssl_jax import losses


@functools.partial(jax.jit, static_argnums=2)
def info_nce(z1, z2, temperature=0.1):
    return losses.info_nce(z1, z2, temperature)[0]


def numpy_info_nce(z1, z2, temperature):
    """TOWER 2.1, row by row."""
    z = np.concatenate([z1, z2]).astype(np.float64)
    n = len(z1)
    terms = []
    for a in range(2 * n):
        cosine = [z[a] @ z[b] / (np.linalg.norm(z[a]) * np.linalg.norm(z[b])) / temperature for b in range(2 * n)]
        others = sum(np.exp(cosine[b]) for b in range(2 * n) if b != a)
        terms.append(-np.log(np.exp(cosine[(a + n) % (2 * n)]) / others))
    return np.mean(terms)


# --- InfoNCE ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_info_nce_against_numpy(temperature, rng):
    z1, z2 = rng.normal(size=(2, 7, 5)).astype(np.float32)
    np.testing.assert_allclose(info_nce(z1, z2, temperature), numpy_info_nce(z1, z2, temperature), rtol=1e-5)


@pytest.mark.parametrize(("count", "value"), [(128, 5.5413), (2, 1.0986)])
def test_equal_embeddings_give_the_log_of_the_others(count, value):
    z = np.ones((count, 4))
    assert info_nce(z, z) == pytest.approx(np.log(2 * count - 1), abs=1e-5)
    assert info_nce(z, z) == pytest.approx(value, abs=1e-4)


def test_exact_pairs_orthogonal_to_the_rest():
    z = np.eye(128)
    loss, logs = jax.jit(losses.info_nce)(z, 3 * z, 0.1)  # lengths do not count
    assert loss == pytest.approx(0.011466, abs=1e-6)
    assert logs["contrastive_accuracy"] == 1


def test_contrastive_accuracy_counts_the_nearest():
    z = np.eye(4)
    assert jax.jit(losses.info_nce)(z, z[np.array([0, 1, 3, 2])], 0.1)[1]["contrastive_accuracy"] == 0.5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_low_temperature_stays_finite(dtype, rng):
    z1, z2 = jnp.asarray(rng.normal(size=(2, 16, 8)), dtype)
    value, gradient = jax.value_and_grad(info_nce)(z1, z2, 0.01)
    assert value.dtype == jnp.float32
    exact = info_nce(z1.astype(jnp.float32), z2.astype(jnp.float32), 0.01)
    assert value == pytest.approx(float(exact), rel=1e-6)  # bfloat16 embeddings are computed with in float32
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


def test_gradient_is_finite_at_zero_and_right_elsewhere(rng):
    gradient = jax.jit(jax.grad(info_nce))
    z1, z2 = rng.normal(size=(2, 5, 3))
    assert np.isfinite(gradient(np.zeros_like(z1), z2)).all()
    direction, step = rng.normal(size=z1.shape), 1e-5
    slope = (numpy_info_nce(z1 + step * direction, z2, 0.1) - numpy_info_nce(z1 - step * direction, z2, 0.1)) / (2 * step)
    assert float((gradient(z1, z2) * direction).sum()) == pytest.approx(slope, rel=1e-3)


def test_four_devices_see_the_negatives_of_all(rng):
    z1, z2 = rng.normal(size=(2, 16, 5)).astype(np.float32)
    along = NamedSharding(jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,)), P("data"))
    sharded = [jax.device_put(z, along) for z in (z1, z2)]
    value, gradient = jax.jit(jax.value_and_grad(info_nce), in_shardings=(along, along))(*sharded)
    np.testing.assert_allclose(value, numpy_info_nce(z1, z2, 0.1), rtol=1e-5)
    np.testing.assert_allclose(gradient, jax.grad(info_nce)(z1, z2), atol=1e-5)


# --- BYOL ------------------------------------------------------------------------------------------------------------


def test_byol_against_numpy(rng):
    p, t = rng.normal(size=(2, 6, 4)).astype(np.float32)
    unit_p, unit_t = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (p, t))
    expected = ((unit_p - unit_t) ** 2).sum(1).mean()
    assert losses.byol(jnp.asarray(p), jnp.asarray(t)) == pytest.approx(expected, rel=1e-5)
    assert losses.byol(jnp.asarray(p), jnp.asarray(2 * p)) == pytest.approx(0, abs=1e-6)
    assert losses.byol(jnp.asarray(p), jnp.asarray(-p)) == pytest.approx(4, abs=1e-5)


def test_byol_gradient_is_finite_at_zero():
    assert np.isfinite(jax.grad(losses.byol)(jnp.zeros((3, 4)), jnp.ones((3, 4)))).all()


# --- restoration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_restoration_against_numpy(dtype, rng):
    a, b = jnp.asarray(rng.uniform(size=(2, 3, 4, 4, 2)), dtype)
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    assert losses.l1(a, b) == pytest.approx(np.abs(difference).mean(), rel=1e-5)
    assert losses.l2(a, b) == pytest.approx((difference**2).mean(), rel=1e-5)
    assert losses.l1(a, a) == losses.l2(a, a) == 0


# --- labels ----------------------------------------------------------------------------------------------------------


def probabilities(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
def test_cross_entropy_and_dice_against_numpy(classes, rng):
    logits = rng.normal(size=(3, 5, 6, classes)).astype(np.float32)
    labels = rng.integers(0, classes, (3, 5, 6))
    p = probabilities(logits)
    at_label = [-np.log(p[i][labels[i] == k][:, k]) for i in range(3) for k in range(classes)]
    assert losses.cross_entropy(logits, labels) == pytest.approx(np.concatenate(at_label).mean(), rel=1e-5)
    dice = []
    for i in range(3):
        for k in range(1, classes):
            truth, guess = labels[i] == k, p[i, ..., k]
            dice.append((2 * guess[truth].sum() + 1) / (guess.sum() + truth.sum() + 1))
    assert losses.dice_loss(logits, labels) == pytest.approx(1 - np.mean(dice), rel=1e-5)


def test_dice_of_perfect_wrong_and_absent():
    labels = np.zeros((1, 10, 10), int)
    labels[:, :5] = 1
    sure = 50 * jax.nn.one_hot(labels, 2)
    assert losses.dice_loss(sure, labels) == pytest.approx(0, abs=1e-6)
    assert losses.dice_loss(-sure, labels) == pytest.approx(1 - 1 / 101)
    nothing = np.zeros_like(labels)
    assert losses.dice_loss(50 * jax.nn.one_hot(nothing, 2), nothing) == pytest.approx(0, abs=1e-6)


def test_label_losses_are_finite_at_extreme_bfloat16_logits():
    logits = jnp.full((1, 2, 2, 2), 1e4, jnp.bfloat16).at[..., 0].set(-1e4)
    labels = jnp.zeros((1, 2, 2), int)
    for loss in (losses.cross_entropy, losses.dice_loss):
        value, gradient = jax.jit(jax.value_and_grad(loss))(logits, labels)
        assert value.dtype == jnp.float32
        assert np.isfinite(value)
        assert np.isfinite(np.asarray(gradient, np.float32)).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_correlation_against_numpy(dtype, rng):
    """The squared entries beside the diagonal of NumPy's correlation matrix, a map at a time."""
    fine, coarse = (jnp.asarray(rng.normal(size=shape), dtype) for shape in ((2, 5, 4, 3), (2, 2, 2, 6)))
    fine = fine.at[..., 1].set(3 * fine[..., 0] + 0.5 * fine[..., 1] + 7)
    expected = []
    for features in (fine, coarse):
        matrix = np.corrcoef(np.asarray(features, np.float64).reshape(-1, features.shape[-1]).T)
        expected.append(np.mean(matrix[~np.eye(len(matrix), dtype=bool)] ** 2))
    assert float(losses.correlation((fine, coarse))) == pytest.approx(np.mean(expected), rel=1e-3)


def test_correlation_of_copies_of_nothing_of_one_and_of_orthogonal_channels(rng):
    """1 for copies at any scale and sign, 0 for orthogonal channels and for constant ones, whose gradient is finite."""
    channel = rng.normal(size=(2, 4, 4, 1)).astype(np.float32)
    assert float(losses.correlation((jnp.asarray(channel * [1, -20, 5] + [0, 9, 1]),))) == pytest.approx(1, abs=1e-2)
    waves = np.array([[1, 1, -1, -1], [1, -1, 1, -1]], np.float32).T.reshape(1, 2, 2, 2)
    assert float(losses.correlation((jnp.asarray(waves),))) == pytest.approx(0, abs=1e-6)
    assert float(losses.correlation((jnp.asarray(channel),))) == pytest.approx(0, abs=1e-6)
    flat = jnp.ones((1, 4, 4, 3))
    assert float(losses.correlation((flat,))) == 0
    assert np.isfinite(jax.grad(lambda x: losses.correlation((x,)))(flat)).all()


def test_unit_with_a_floor_keeps_what_is_short_short(rng):
    """Long vectors have length 1 all the same; the gradient of short ones stays below 1 / floor."""
    long = rng.normal(size=(5, 3)) * 10
    np.testing.assert_allclose(losses.unit(long, 1e-2), long / np.linalg.norm(long, axis=1, keepdims=True), atol=1e-5)
    short = jnp.float32([[1e-6, 0, 0]])
    assert float(jnp.linalg.norm(losses.unit(short, 1e-2))) == pytest.approx(1e-4, rel=1e-3)
    assert float(jnp.abs(jax.jacobian(lambda x: losses.unit(x, 1e-2))(short)).max()) <= 100
    assert float(jnp.abs(jax.jacobian(losses.unit)(short)).max()) > 1e5
