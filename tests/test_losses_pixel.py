"""Local Discrimination's losses: the reference's check values, NumPy's reading of the formulas, and the collapse that only balance sees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medssl_jax import losses


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def patches(count, rng, exact=False):
    half = rng.normal(size=(count // 2, 32))
    return unit(np.concatenate([half, half]) if exact else rng.normal(size=(count, 32))).astype(np.float32)


@pytest.mark.parametrize(("count", "expected"), [(4, 1.9095), (8, 2.8708), (512, 7.2354), (1024, 7.9300)])
def test_patches_that_are_all_equal(count, expected):
    equal = np.ones((count, 32), np.float32)
    assert losses.patch_discrimination(equal, 0.1) == pytest.approx(expected, abs=2e-4)
    by_hand = np.log(count - 1) - (count - 2) * np.log(1 - 1 / (count - 1))
    assert losses.patch_discrimination(equal, 0.1) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(("count", "low", "high"), [(1024, 9.2, 9.5), (512, 8.4, 9.0)])
def test_random_patches(count, low, high, rng):
    assert low < losses.patch_discrimination(patches(count, rng), 0.1) < high


@pytest.mark.parametrize(("count", "expected"), [(1024, 0.36), (512, 0.19)])
def test_exact_positives(count, expected, rng):
    assert losses.patch_discrimination(patches(count, rng, exact=True), 0.1) == pytest.approx(expected, abs=0.01)


def test_two_orthogonal_pairs():
    e = np.eye(4, dtype=np.float32)[[0, 1, 0, 1]]
    assert losses.patch_discrimination(e, 0.1) == pytest.approx(1.816e-4, rel=1e-3)


def reading(first, second, temperature, out):
    """L_PD pair by pair."""
    n, total = len(first), 0.0
    for i in range(n):
        positive = (i + n // 2) % n
        left = [k for k in range(n) if k != i and not (out[i, k] and k != positive)]
        e = {k: np.exp(first[i] @ second[k] / temperature) for k in left}
        p = {k: e[k] / sum(e.values()) for k in left}
        total += np.log(p[positive]) + sum(np.log(1 - p[k]) for k in left if k != positive)
    return -total / n


@pytest.mark.parametrize("some_ignored", [False, True])
def test_patch_discrimination_against_numpy(some_ignored, rng):
    x = rng.normal(size=(10, 5)).astype(np.float32)
    out = rng.random((10, 10)) < 0.3 if some_ignored else np.zeros((10, 10), bool)
    expected = reading(*[unit(x.astype(np.float64))] * 2, 0.3, out)
    assert losses.patch_discrimination(x, 0.3, jnp.asarray(out)) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_flows_through_the_first_factor_alone(rng):
    """Equal to the numerical gradient with the second factor frozen, and not to that of the whole."""
    x = rng.normal(size=(6, 4))
    frozen, none = unit(x), np.zeros((6, 6), bool)
    found = np.asarray(jax.grad(lambda v: losses.patch_discrimination(v, 0.5))(jnp.float32(x)))
    first, whole = np.zeros_like(x), np.zeros_like(x)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = 1e-5
        first[place] = (reading(unit(x + step), frozen, 0.5, none) - reading(unit(x - step), frozen, 0.5, none)) / 2e-5
        whole[place] = (reading(*[unit(x + step)] * 2, 0.5, none) - reading(*[unit(x - step)] * 2, 0.5, none)) / 2e-5
    np.testing.assert_allclose(found, first, atol=2e-4)
    assert np.abs(found - whole).max() > 0.05


@pytest.mark.parametrize("clusters", [8, 16])
def test_region_discrimination_at_chance_and_at_its_floor(clusters):
    same = np.broadcast_to(np.eye(32, dtype=np.float32)[0], (3, clusters, 32))
    assert losses.region_discrimination(same, 0.2) == pytest.approx(np.log(clusters), rel=1e-5)
    orthonormal = np.broadcast_to(np.eye(clusters, 32, dtype=np.float32), (3, clusters, 32))
    simplex = unit(np.eye(clusters) - 1 / clusters)
    assert losses.region_discrimination(orthonormal, 0.2) == pytest.approx({8: 0.0461, 16: 0.0963}[clusters], abs=1e-4)
    broadcast = np.broadcast_to(simplex, (3, clusters, clusters)).astype(np.float32)
    assert losses.region_discrimination(broadcast, 0.2) == pytest.approx({8: 0.0228, 16: 0.0699}[clusters], abs=1e-4)


def test_regions_against_numpy(rng):
    v, p = rng.normal(size=(3, 4, 5, 6)).astype(np.float32), rng.random((3, 4, 5, 2)).astype(np.float32)
    z = np.zeros((3, 2, 6))
    for n, k in np.ndindex(3, 2):
        z[n, k] = sum(p[n, y, x, k] * v[n, y, x] for y, x in np.ndindex(4, 5)) / 20
    z = unit(z)
    np.testing.assert_allclose(losses.region_vectors(v, p), z, atol=1e-5)
    np.testing.assert_allclose(losses.region_vectors(v, 1e-4 * p), z, atol=1e-5)  # the scale of p cancels
    m = unit(z.mean(0))
    logits = z @ m.T / 0.2
    expected = -np.mean([logits[n, k, k] - np.log(np.exp(logits[n, k]).sum()) for n, k in np.ndindex(3, 2)])
    assert losses.region_discrimination(z.astype(np.float32), 0.2) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("clusters", "bits"), [(16, 0.3373), (8, 0.5436)])
def test_entropy_of_uniform_and_of_certain_clusters(clusters, bits):
    assert losses.cluster_entropy(jnp.full((2, 3, 3, clusters), 1 / clusters)) == pytest.approx(bits, abs=1e-4)
    assert losses.cluster_entropy(jax.nn.one_hot(jnp.arange(9).reshape(1, 3, 3) % clusters, clusters)) == 0


def test_only_the_balance_sees_that_one_cluster_holds_everything():
    """The reference's collapse: all but a trace of every pixel in cluster 0, with clean directions."""
    count, side = 16, 16
    place = np.arange(side * side).reshape(1, side, side) % count
    vectors = np.eye(count, dtype=np.float32)[np.repeat(place, 4, 0)]
    balanced = vectors.copy()
    collapsed = 1e-6 * vectors / (vectors.sum(-1, keepdims=True))
    collapsed[..., 0] = 1 - collapsed[..., 1:].sum(-1)
    found = {}
    for name, p in (("balanced", balanced), ("collapsed", collapsed.astype(np.float32))):
        mass = losses.cluster_mass(p)
        z = losses.region_vectors(vectors, p)
        found[name] = [losses.region_discrimination(z, 0.2), losses.cluster_entropy(p), losses.cluster_balance(mass)]
        found[name].append(losses.effective_clusters(mass))
    assert found["balanced"] == pytest.approx([0.0963, 0, 0, 16], abs=1e-3)
    assert float(found["collapsed"][0]) < 0.3  # hardly worse than balanced, far from ln 16
    assert float(found["collapsed"][1]) < 1e-4
    assert float(found["collapsed"][2]) == pytest.approx(np.log(16), abs=1e-3)
    assert float(found["collapsed"][3]) == pytest.approx(1, abs=1e-3)


def test_balance_floor_and_agreement_by_hand(rng):
    q = np.float32([0.7, 0.2, 0.1, 0.0])
    assert losses.cluster_balance(q) == pytest.approx(np.log(4) + 0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1), rel=1e-5)
    assert losses.cluster_floor(q) == pytest.approx(1 / 16)
    assert losses.effective_clusters(jnp.full(8, 1 / 8)) == pytest.approx(8, rel=1e-5)
    a, b = (rng.dirichlet(np.ones(3), 5).astype(np.float32) for _ in range(2))
    expected = -np.mean([(a * np.log(b)).sum(1), (b * np.log(a)).sum(1)])
    assert losses.cluster_agreement(a, b) == pytest.approx(expected, rel=1e-5)
    gradient = jax.grad(lambda x: losses.cluster_agreement(x, jnp.asarray(b)))(jnp.asarray(a))
    np.testing.assert_allclose(gradient, -b / a / 10, rtol=1e-4)  # nothing through the target


def test_gradients_are_finite_at_the_edges():
    zero = jnp.zeros((4, 8))
    one_hot = jax.nn.one_hot(jnp.zeros((1, 2, 2), int), 4)
    for gradient in (
        jax.grad(lambda v: losses.patch_discrimination(v, 0.1))(zero),
        jax.grad(lambda v: losses.patch_discrimination(v, 0.1))(jnp.eye(2, 8)[jnp.array([0, 1, 0, 1])]),
        jax.grad(losses.cluster_entropy)(one_hot),
        jax.grad(lambda p: losses.cluster_balance(losses.cluster_mass(p)))(one_hot),
        jax.grad(lambda p: losses.region_vectors(jnp.ones((1, 2, 2, 3)), p).sum())(one_hot),
    ):
        assert np.isfinite(gradient).all()


def test_local_fit_against_numpy(rng):
    """Every pixel and phase by its own sums over the neighbourhood."""
    images, share, seen = rng.random((2, 7, 6, 3)), rng.random((2, 7, 6, 1)), rng.integers(0, 2, (2, 7, 6, 1)).astype(float)
    rows, columns = np.mgrid[:7, :6]
    left, contrast = np.zeros((2, 7, 6)), np.zeros((2, 7, 6))

    def near(y, x):
        weight = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 1.5**2))[..., None]
        return weight / weight.sum()

    for b, y, x in np.ndindex(2, 7, 6):
        for phase in (share[b], 1 - share[b]):
            mean = (near(y, x) * seen[b] * phase * images[b]).sum((0, 1)) / ((near(y, x) * seen[b] * phase).sum() + 1e-3)
            left[b, y, x] += phase[y, x, 0] * ((images[b, y, x] - mean) ** 2).sum()
        around = (near(y, x) * seen[b] * images[b]).sum((0, 1)) / ((near(y, x) * seen[b]).sum() + 1e-3)
        contrast[b, y, x] = ((images[b, y, x] - around) ** 2).sum()

    def mean_of(values, b, y, x):
        weight = (near(y, x) * seen[b])[..., 0]
        return (weight * values[b]).sum() / (weight.sum() + 1e-3)

    ratios = [(mean_of(left, b, y, x) + 1e-3) / (mean_of(contrast, b, y, x) + 1e-3) for b, y, x in np.ndindex(2, 7, 6) if seen[b, y, x, 0]]
    assert losses.local_fit(images, share, seen, 1.5) == pytest.approx(np.mean(ratios), rel=1e-3)


def test_local_fit_of_the_true_phases_and_of_none(rng):
    mask = rng.integers(0, 2, (1, 8, 8, 1)).astype(float)
    seen = np.ones_like(mask)
    assert losses.local_fit(0.2 + 0.6 * mask, mask, seen, 2.0) == pytest.approx(0, abs=0.03)
    assert losses.local_fit(0.2 + 0.15 * mask, mask, seen, 2.0) < 0.3
    assert losses.local_fit(rng.random((1, 8, 8, 1)), np.full((1, 8, 8, 1), 0.3), seen, 2.0) == pytest.approx(1, abs=0.02)


def test_local_fit_of_one_tone(rng):
    """What is told to be dark explains an image as before where it is dark, and nothing where it is bright."""
    mask = rng.integers(0, 2, (1, 8, 8, 1)).astype(float)
    image, seen = 0.2 + 0.6 * mask, np.ones_like(mask)
    for tone, share in (("bright", mask), ("dark", 1 - mask)):
        assert losses.local_fit(image, share, seen, 2.0, tone) == pytest.approx(float(losses.local_fit(image, share, seen, 2.0)), abs=0.01)
        assert losses.local_fit(image, 1 - share, seen, 2.0, tone) > 0.9
