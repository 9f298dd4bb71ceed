"""Fine-tuning: what is transferred, what moves, which weights are kept, and that initial weights are compared in pairs."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from medssl_jax.augment import Recipe, recipe
from medssl_jax.data.tiles import TileSource
from medssl_jax.downstream.finetune import FineTuner
from medssl_jax.downstream.segmentation import Segmenter
from medssl_jax.errors import UserError
from medssl_jax.methods.calibrate import Calibration
from medssl_jax.models import build_backbone, pixel_head
from medssl_jax.train.mesh import make_mesh

SEED = 7


def examples() -> dict[str, np.ndarray]:
    images = tiny.images(6, 28, 1)
    return {"image": images, "mask": (images[..., 0] > 120).astype(np.int32)}


def tuner(**options) -> FineTuner:
    c = tiny.shrink(tiny.config("tower"))
    c.finetune.update({"steps": 4, "eval_every": 1, **options})
    views = dataclasses.replace(recipe("brightfield", c.views.size, 1), scale=(0.7, 1.0))
    task = Segmenter(build_backbone(c.model), pixel_head(2), views)
    return FineTuner(task, c.finetune, make_mesh(jax.devices()[:1]), examples())


def fresh_parts(tuner: FineTuner, seed: int) -> dict:
    """Encoder and decoder as a fine-tuning of that seed would start them."""
    _, params, carried = tuner.initial(seed, {})
    return jax.device_get({name: {"params": params[name], "stats": carried["stats"][name]} for name in ("encoder", "decoder")})


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_initial_weights_are_the_only_difference():
    """Parts that equal the fresh ones end, bit for bit, where a run from random weights ends: same head, order and augmentation."""
    t = tuner()
    random = t.run(examples(), {}, SEED, None)
    transferred = t.run(examples(), fresh_parts(t, SEED), SEED, None)
    other = t.run(examples(), fresh_parts(t, SEED + 1), SEED, None)
    assert same(random.weights, transferred.weights)
    assert not same(random.weights, other.weights)


def test_many_labels_are_seen_at_least_so_many_times():
    t = tuner(steps=4, epochs=2.5, batch=4)
    assert [t.steps(n) for n in (1, 6, 7, 8, 40)] == [4, 4, 5, 5, 25]
    assert t.run(examples() | {name: np.concatenate([x, x]) for name, x in examples().items()}, {}, SEED, None).step == 8


def test_a_rate_of_zero_holds_what_was_transferred():
    t = tuner(transferred_rate=0.0)
    given = fresh_parts(t, SEED + 1)
    params, _ = t.run(examples(), given, SEED, None).weights
    _, before, _ = t.initial(SEED, given)
    assert same(params["encoder"], given["encoder"]["params"])
    assert not same(params["head"], before["head"])


def test_calibrated_norms_hold_what_the_pool_gives_whatever_the_weights():
    t = tuner()
    backbone, views = t.task.backbone, t.task.recipe
    pool = [{"image": image, "id": str(i)} for i, image in enumerate(tiny.images(6, 28, 1))]
    calibration = Calibration(backbone, views, TileSource(pool, 28), make_mesh(jax.devices()[:1]), seed=3)
    held = FineTuner(t.task, t.config, t.mesh, examples(), calibration)
    for given in ({}, fresh_parts(t, SEED + 1)):
        _, params, carried = held.initial(SEED, given)
        for name in ("encoder", "decoder"):
            assert not same(carried["stats"][name], t.initial(SEED, given)[2]["stats"][name])
        trained, after = held.run(examples(), given, SEED, None).weights
        assert same(after["stats"], carried["stats"])
        assert not same(trained["encoder"], params["encoder"])
    _, moved = t.run(examples(), {}, SEED, None).weights
    assert not same(moved["stats"], t.initial(SEED, {})[2]["stats"])


def test_calibration_measures_mean_and_variance():
    """The first norm of the encoder sees one convolution of the crops: NumPy's mean and variance of its channels over the batches."""
    t = tuner()
    parts = fresh_parts(t, SEED)
    pool = [{"image": image, "id": str(i)} for i, image in enumerate(tiny.images(6, 28, 1))]
    plain = Recipe(
        size=28, scale=(1.0, 1.0), ratio=(1.0, 1.0), quarter_turns=False, horizontal=False, vertical=False, jitter_probability=0.0
    )
    found = Calibration(t.task.backbone, plain, TileSource(pool, 28), make_mesh(jax.devices()[:2]), seed=3)(parts)
    x = np.stack([e["image"] for e in pool]).astype(np.float64) / 255 * 2 - 1
    kernel = parts["encoder"]["params"]["level0"]["conv1"]["kernel"].astype(np.float64)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = sum(padded[:, i : i + 28, j : j + 28] @ kernel[i, j] for i in range(3) for j in range(3))
    stats = found["encoder"]["stats"]["level0"]["bn1"]
    np.testing.assert_allclose(stats["mean"], out.mean((0, 1, 2)), rtol=0.02, atol=0.02)  # 256 draws of six tiles, not each as often
    np.testing.assert_allclose(stats["var"], out.var((0, 1, 2)), rtol=0.05)
    assert same(found["encoder"]["params"], parts["encoder"]["params"])


def test_calibration_sees_the_same_images_on_any_number_of_devices():
    t = tuner()
    parts, pool = fresh_parts(t, SEED), TileSource([{"image": image, "id": str(i)} for i, image in enumerate(tiny.images(6, 28, 1))], 28)
    one, three = (Calibration(t.task.backbone, t.task.recipe, pool, make_mesh(jax.devices()[:n]), seed=3)(parts) for n in (1, 3))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(three), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_weights_of_the_highest_validation_are_kept():
    scores, seen = [0.5, 0.9, 0.9, 0.1], []

    def validate(state):
        seen.append(jax.device_get(state.params))
        return scores[len(seen) - 1]

    best = tuner().run(examples(), {}, SEED, validate)
    assert (best.step, best.score) == (2, 0.9)
    assert same(best.weights[0], seen[1])
    assert not same(seen[1], seen[3])


def test_without_validation_the_last_weights_are_kept():
    assert tuner().run(examples(), {}, SEED, None).step == 4


def test_parts_of_another_network_are_named():
    t = tuner()
    given = fresh_parts(t, SEED)
    given["encoder"]["params"]["level0"]["conv1"]["kernel"] = np.zeros((3, 3, 2, 2), np.float32)
    with pytest.raises(UserError, match=r"pretrained encoder does not fit .*: \['level0'\]\['conv1'\]\['kernel'\] is \(3, 3, 2, 2\)"):
        t.check(given)
    t.check(fresh_parts(t, SEED))
