"""SparK: nothing of a hidden cell reaches the encoder, the loss against NumPy, and what cannot be hidden."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from medssl_jax import config, losses, methods, models
from medssl_jax.errors import UserError

SIDE, CELLS = 64, 2


def hidden_and_visible(maps, hidden):
    """The values of a map [B, H, W, C] inside and outside the hidden cells."""
    factor = maps.shape[1] // hidden.shape[1]
    where = hidden.repeat(factor, 1).repeat(factor, 2)
    return maps[where], maps[~where]


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("name", ["unet", "resnet18", "resnet50"])
def test_nothing_hidden_reaches_the_encoder(name, norm, rng):
    """Other pixels in the hidden cells change neither a map nor a statistic, and hidden places hold 0 at every level but the image's."""
    c = config.base().model
    c.update({"name": name, "width": 4, "depth": 3, "decoder_width": 2, "norm": norm})
    encoder = models.build_backbone(c).encoder
    first = rng.random((2, SIDE, SIDE, 1), np.float32)
    hidden = np.array([[[True, False], [False, False]], [[False, True], [True, False]]])
    where = hidden.repeat(SIDE // CELLS, 1).repeat(SIDE // CELLS, 2)[..., None]
    second = np.where(where, rng.random(first.shape, np.float32), first)
    params, stats = encoder.init(jax.random.key(0), first)
    run = jax.jit(lambda x: encoder.apply(params, stats, x, train=True, visible=jnp.asarray(~hidden)))
    (maps, kept), (others, kept_too) = run(first), run(second)
    for a, b in zip(jax.tree.leaves((maps, kept)), jax.tree.leaves((others, kept_too)), strict=True):
        np.testing.assert_array_equal(a, b)
    for found in maps:
        inside, outside = hidden_and_visible(np.asarray(found), hidden)
        assert not inside.any()
        assert outside.any()


def test_statistics_are_those_of_what_is_visible(rng):
    """The first norm's mean and variance over the visible pixels, in NumPy; its moving average starts from 0 and 1."""
    c = config.base().model
    c.update({"width": 3, "depth": 2})
    encoder = models.build_backbone(c).encoder
    x = rng.random((2, 8, 8, 1), np.float32)
    hidden = rng.random((2, 4, 4)) < 0.5
    params, stats = encoder.init(jax.random.key(0), x)
    _, new = encoder.apply(params, stats, x, train=True, visible=jnp.asarray(~hidden))
    shown = np.where(hidden.repeat(2, 1).repeat(2, 2)[..., None], 0, 2 * x - 1)
    kernel = np.asarray(params["level0"]["conv1"]["kernel"])
    padded = np.pad(shown, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = sum(padded[:, i : i + 8, j : j + 8] @ kernel[i, j] for i in range(3) for j in range(3))
    _, visible = hidden_and_visible(out, hidden)
    np.testing.assert_allclose(new["level0"]["bn1"]["mean"], 0.1 * visible.mean(0), atol=1e-6)
    np.testing.assert_allclose(new["level0"]["bn1"]["var"], 0.9 + 0.1 * visible.var(0), atol=1e-6)


def test_loss_against_numpy(rng):
    restored, clean = rng.random((2, 3, 8, 12, 2), np.float32)
    hidden = rng.random((3, 2, 3)) < 0.5
    distances = []
    for b, y, x in np.argwhere(hidden):
        window = b, slice(4 * y, 4 * y + 4), slice(4 * x, 4 * x + 4)
        target = (clean[window] - clean[window].mean()) / np.sqrt(clean[window].var() + 1e-6)
        distances.append(((restored[window] - target) ** 2).mean())
    assert losses.hidden_cells(restored, clean, hidden) == pytest.approx(np.mean(distances), rel=1e-5)
    assert losses.hidden_cells(restored, clean, np.zeros_like(hidden)) == 0


def test_the_views_hide_the_share_that_is_asked_for():
    c = tiny.shrink(tiny.config("spark"))
    method = methods.build(c, tiny.CHANNELS, "brightfield")
    views = method.views(jax.random.split(jax.random.key(0), 5), {"image": tiny.images(5)})
    assert views["hidden"].shape == (5, 10, 10)
    assert (views["hidden"].sum((1, 2)) == 60).all()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("size", 21, r"views\.size=21 does not hold whole cells of 2 px.*multiple of 2"), ("share", 0.001, "hides 0 of 100 cells")],
)
def test_what_cannot_be_hidden(key, value, said):
    c = tiny.shrink(tiny.config("spark"))
    if key == "size":
        c.views.size = value
    else:
        c.method.zero_fraction = value
    with pytest.raises(UserError, match=said):
        methods.build(c, tiny.CHANNELS, "brightfield")
