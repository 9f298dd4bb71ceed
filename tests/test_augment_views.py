"""Recipes: what suits a modality, and what a view keeps."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medssl_jax.augment import RECIPES, Recipe, recipe, source_coordinates
from medssl_jax.errors import UserError

KEYS = jax.random.split(jax.random.key(0), 32)
RGB = {"histology", "fundus"}


def picture(channels, side=40):
    return jax.random.uniform(jax.random.key(1), (32, side, side, channels))


@pytest.mark.parametrize("modality", RECIPES)
def test_every_modality_gives_views_in_range_that_depend_on_their_key(modality):
    channels = 3 if modality in RGB else 2
    view = jax.jit(recipe(modality, 24, channels))
    out, boxes, pose = view(KEYS, picture(channels))
    assert out.shape == (32, 24, 24, channels)
    assert boxes.shape == (32, 4)
    assert 0 <= out.min() <= out.max() <= 1
    allowed = {"fundus": (0, 4), "xray": (0,)}.get(modality, range(8))
    assert set(np.asarray(pose)) <= set(allowed)
    assert len(set(np.asarray(pose))) == len(allowed)
    backwards, _, _ = view(KEYS[::-1], picture(channels)[::-1])
    np.testing.assert_allclose(backwards[::-1], out, atol=1e-5)


def test_masks_and_coordinates_stay_on_the_image():
    y, x = np.mgrid[:40, :40]
    images = jnp.tile(jnp.float32(np.stack([y, x], -1) / 40)[None], (32, 1, 1, 1))
    masks = jnp.tile(jnp.asarray(y * 40 + x, jnp.int32)[None], (32, 1, 1))
    out, labels, boxes, pose = jax.jit(recipe("brightfield", 40, 2).geometric)(KEYS, images, masks)
    where = np.asarray(source_coordinates(boxes, pose, 40))
    inside = (where > 1).all(-1) & (where < 39).all(-1)
    np.testing.assert_allclose((np.asarray(out) * 40 + 0.5)[inside], where[inside], atol=1e-3)
    assert np.array_equal(labels, np.floor(where[..., 0]) * 40 + np.floor(where[..., 1]))
    assert len(set(np.asarray(pose))) == 8


def test_a_rotated_mask_follows_its_image():
    blob = jnp.zeros((32, 40, 40, 3)).at[:, 8:20, 14:34].set(1.0)
    turn = jax.jit(dataclasses.replace(recipe("fundus", 40, 3), rotation=40.0).geometric)
    out, labels, _, _ = turn(KEYS, blob, blob[..., 0].astype(jnp.int32))
    agree = (np.asarray(out)[..., 0] > 0.5) == (np.asarray(labels) == 1)
    assert agree.mean() > 0.99
    level = jax.jit(dataclasses.replace(recipe("fundus", 40, 3), rotation=0.0).geometric)(KEYS, blob, blob[..., 0].astype(jnp.int32))[1]
    assert (np.asarray(level) != np.asarray(labels)).mean() > 0.02
    assert turn(KEYS, blob)[1] is None


def test_strengths_of_zero_leave_the_image():
    plain = Recipe(size=40, scale=(1.0, 1.0), ratio=(1.0, 1.0), quarter_turns=False, horizontal=False, vertical=False)
    np.testing.assert_allclose(plain(KEYS, picture(1))[0], picture(1), atol=1e-6)


@pytest.mark.parametrize(
    ("field", "strength"),
    [
        ("brightness", 0.2),
        ("contrast", 0.4),
        ("gamma", 0.3),
        ("gain", 0.3),
        ("stain", 0.2),
        ("saturation", 0.4),
        ("hue", 0.1),
        ("grayscale", 0.8),
        ("noise", 0.1),
        ("blur_probability", 0.8),
    ],
)
def test_every_field_of_light_does_something(field, strength):
    changed = dataclasses.replace(Recipe(), **{field: strength}).photometric(KEYS, picture(3, 16)) - picture(3, 16)
    share = (abs(changed).max((1, 2, 3)) > 1e-4).mean()
    assert 0.3 < share < 0.99


def test_weaker_views_are_other_values():
    strong = dataclasses.replace(recipe("brightfield", 16, 1), blur_probability=0.0, noise=0.0, contrast=0.0, gamma=0.0)
    weak = dataclasses.replace(strong, brightness=0.01)
    images = picture(1, 16)
    assert abs(weak.photometric(KEYS, images) - images).max() <= 0.0101
    assert abs(strong.photometric(KEYS, images) - images).max() > 0.1


def test_colour_needs_rgb_unless_it_is_off():
    with pytest.raises(UserError, match=r"'histology' changes colour \(saturation, hue, stain\).* 1 channel"):
        recipe("histology", 32, 1)
    with pytest.raises(UserError, match="saturation needs RGB images"):
        RECIPES["fundus"].photometric(KEYS, picture(1, 16))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"contrast": -0.1}, "recipe.contrast=-0.1 is negative"),
        ({"jitter_probability": 1.5}, "recipe.jitter_probability=1.5 is not a probability"),
        ({"blur": (2.0, 1.0)}, "recipe.blur"),
    ],
)
def test_bad_fields_are_told(changes, told):
    with pytest.raises(UserError, match=told):
        dataclasses.replace(RECIPES["xray"], **changes)


def test_bad_modalities_and_sizes_are_told():
    with pytest.raises(UserError, match=r"modality 'mri' has no recipe.* brightfield, fluorescence, histology, fundus, xray"):
        recipe("mri", 32, 1)
    with pytest.raises(UserError, match=r"recipe\.size=0"):
        recipe("xray", 0, 1)
