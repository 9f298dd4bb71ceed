"""The detector's losses: the reference's check values, NumPy's reading of the formulas, and what each place learns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medssl_jax import losses
from medssl_jax.models import detector_places

P, G = np.float32([0, 0, 12, 10]), np.float32([1, 1, 10, 10])


def boxes(rng, *shape, size=100.0):
    corner = rng.uniform(0, size, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(1, size, (*shape, 2))], -1).astype(np.float32)


def test_side_loss_of_the_reference():
    """s = 4 px and s_n = (1 + 2) / 9 + (1 + 0) / 9; only the edges outside have a gradient."""
    np.testing.assert_allclose(losses.overshoot(P, G), [1, 1, 2, 0])
    assert losses.overshoot(P, G).sum() == 4
    assert losses.side_loss(P, G) == pytest.approx(4 / 9)
    np.testing.assert_allclose(
        jax.grad(lambda p: losses.side_loss(p, jnp.asarray(G)))(jnp.asarray(P)), [-1 / 9, -1 / 9, 1 / 9, 0], rtol=1e-6
    )


def test_side_loss_of_a_box_inside(rng):
    g = boxes(rng, 50)
    shares = rng.uniform(0.05, 0.45, (50, 4)).astype(np.float32) * [1, 1, -1, -1]
    inside = g + shares * np.concatenate([g[:, 2:] - g[:, :2]] * 2, 1)
    np.testing.assert_array_equal(losses.side_loss(jnp.float32(inside), g), np.zeros(50))
    gradient = jax.grad(lambda p: losses.side_loss(p, jnp.asarray(g)).sum())(jnp.float32(inside))
    np.testing.assert_array_equal(gradient, np.zeros((50, 4)))


def test_side_losses_against_numpy(rng):
    p, g = boxes(rng, 40), boxes(rng, 40)
    for k in range(40):
        out = np.array([g[k, 0] - p[k, 0], g[k, 1] - p[k, 1], p[k, 2] - g[k, 2], p[k, 3] - g[k, 3]])
        width, height = g[k, 2] - g[k, 0], g[k, 3] - g[k, 1]
        sides = np.array([width, height, width, height])
        assert losses.side_loss(p[k], g[k]) == pytest.approx((np.maximum(out, 0) / sides).sum(), rel=1e-4)
        assert losses.symmetric_side_loss(p[k], g[k]) == pytest.approx((np.abs(out) / sides).sum() / 2, rel=1e-4)


def test_the_side_loss_knows_no_scale_and_takes_corners_alone(rng):
    """Scaled, moved, or with y before x it is the same; centre-size boxes would give other numbers, and so cannot slip in unseen."""
    p, g = boxes(rng, 60), boxes(rng, 60)
    found = np.asarray(losses.side_loss(p, g))
    np.testing.assert_allclose(losses.side_loss(7 * p + 3, 7 * g + 3), found, rtol=1e-3, atol=1e-4)
    swapped = np.asarray(losses.side_loss(p[:, [1, 0, 3, 2]], g[:, [1, 0, 3, 2]]))
    np.testing.assert_allclose(swapped, found, rtol=1e-5)  # both sides alike: x and y are treated alike
    centred = [np.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1) for b in (p, g)]
    assert (np.abs(np.asarray(losses.side_loss(*centred)) - found) > 1e-3).mean() > 0.8
    with pytest.raises(AssertionError, match="four corners, not 2"):
        losses.side_loss(p[:, :2], g[:, :2])
    with pytest.raises(AssertionError, match="against boxes"):
        losses.box_overlap(p, g[:5])


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.0])
def test_the_share_of_edges_that_overshoot(weight, rng):
    """|e| + w max(0, e), descended by gradients, settles where 1 / (2 + w) of the edges lie outside."""
    g = np.tile(np.float32([40, 40, 60, 60]), (500, 1))
    noise = rng.normal(0, 3, (500, 4)).astype(np.float32)

    def loss(shift):
        p = g + noise + shift * jnp.float32([-1, -1, 1, 1])[None]
        return (jnp.abs(p - g) + weight * losses.overshoot(p, g)).mean()

    descend = jax.jit(jax.grad(loss))
    shift = jnp.float32(0)
    for k in range(300):
        shift = shift - 20 / (k + 10) * descend(shift)
    outside = np.asarray(losses.overshoot(g + noise + np.float32([-1, -1, 1, 1]) * float(shift), g)) > 0
    assert outside.mean() == pytest.approx(1 / (2 + weight), abs=0.02)


def test_overlaps_against_numpy(rng):
    p, g = boxes(rng, 60), boxes(rng, 60)
    p[0], p[1] = g[0], g[1] + 500
    iou, giou = losses.box_overlap(p, g)
    for k in range(60):
        shared = max(0, min(p[k, 2], g[k, 2]) - max(p[k, 0], g[k, 0])) * max(0, min(p[k, 3], g[k, 3]) - max(p[k, 1], g[k, 1]))
        union = sum((b[k, 2] - b[k, 0]) * (b[k, 3] - b[k, 1]) for b in (p, g)) - shared
        hull = (max(p[k, 2], g[k, 2]) - min(p[k, 0], g[k, 0])) * (max(p[k, 3], g[k, 3]) - min(p[k, 1], g[k, 1]))
        assert iou[k] == pytest.approx(shared / union, abs=1e-5)
        assert giou[k] == pytest.approx(shared / union - (hull - union) / hull, abs=1e-5)
    assert giou[0] == pytest.approx(1)
    assert iou[1] == 0
    assert giou[1] < -0.5


def test_focal_against_numpy(rng):
    x, t = rng.normal(0, 4, 50), rng.integers(0, 2, 50)
    p = 1 / (1 + np.exp(-x))
    p_t, alpha = np.where(t == 1, p, 1 - p), np.where(t == 1, 0.3, 0.7)
    np.testing.assert_allclose(losses.focal(x, t, 0.3, 1.5), -alpha * (1 - p_t) ** 1.5 * np.log(p_t), rtol=1e-4, atol=1e-6)
    certain = jnp.array([-100.0, 100.0])
    assert np.isfinite(jax.grad(lambda z: losses.focal(z, jnp.array([1.0, 0.0])).sum())(certain)).all()
    soft = rng.random(50)
    np.testing.assert_allclose(losses.binary_cross_entropy(x, soft), -soft * np.log(p) - (1 - soft) * np.log(1 - p), rtol=1e-4)


def test_corners_and_distances_are_inverse(rng):
    places, b = rng.uniform(0, 100, (30, 2)).astype(np.float32), boxes(rng, 30)
    np.testing.assert_allclose(losses.corners(places, losses.edge_distances(places, b)), b, atol=1e-4)
    np.testing.assert_allclose(losses.corners(np.float32([10, 20]), np.float32([1, 2, 3, 4])), [9, 18, 13, 24])


def test_masked_mean():
    values, none = jnp.array([1.0, jnp.nan, 3.0]), jnp.zeros(3, bool)
    assert losses.masked_mean(values, jnp.array([True, False, True])) == 2
    assert losses.masked_mean(values, none) == 0


def reading(found, places, strides):
    """What each place learns, box by box and place by place."""
    learned = np.full(len(places), -1)

    def candidates(k, only=None):
        x0, y0, x1, y1 = found[k]
        out = []
        for a, ((x, y), stride) in enumerate(zip(places, strides)):
            edges = np.array([x - x0, y - y0, x1 - x, y1 - y])
            off = max(abs((x0 + x1) / 2 - x), abs((y0 + y1) / 2 - y))
            low, high = (0 if stride == 8 else 2 * stride), (np.inf if stride == 64 else 4 * stride)
            fits = stride == only if only else low < edges.max() <= high
            if edges.min() > 0 and off < 1.5 * stride and fits:
                out.append(a)
        return out

    size = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
    for k in np.argsort(-size, kind="stable"):
        for a in candidates(k) or candidates(k, only=8):
            learned[a] = k
    return learned


@pytest.mark.parametrize("seed", range(4))
def test_assignment_against_a_slow_reading(seed):
    rng = np.random.default_rng(seed)
    places, strides = detector_places(256)
    found = boxes(rng, 2, 7, size=120.0)
    found[0, 0] = [0, 20, 256, 31]  # so flat that its level has no place in it
    found[0, 1] = [3, 41, 7, 44]  # between the places of all levels
    valid = np.arange(7)[None] < np.array([[7], [3]])
    positive, target = losses.assign(found, valid, places, strides)
    for b, count in enumerate((7, 3)):
        expected = reading(found[b, :count], places, strides)
        np.testing.assert_array_equal(positive[b], expected >= 0)
        np.testing.assert_array_equal(np.asarray(target[b])[expected >= 0], found[b][expected[expected >= 0]])
    assert (np.asarray(target[0])[np.asarray(positive[0])] == found[0, 0]).all(1).any()
    assert not (np.asarray(target[0])[np.asarray(positive[0])] == found[0, 1]).all(1).any()


def test_no_box_and_padding_teach_nothing(rng):
    places, strides = detector_places(64)
    positive, _ = losses.assign(boxes(rng, 1, 5), np.zeros((1, 5), bool), places, strides)
    assert not positive.any()
