"""TOWER and restoration beyond the paper: another crop as the partner, and channels that are kept from repeating each other."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from medssl_jax import losses, methods
from medssl_jax.train.step import example_keys

LIGHTS = ("brightness", "contrast", "gamma", "gain", "stain", "saturation", "hue", "blur_probability", "noise")


def tower(**options):
    """The method of a tiny config with the options changed."""
    c = tiny.shrink(tiny.config("tower"))
    c.method.update(options)
    return methods.build(c, tiny.CHANNELS, "brightfield")


def views(method, batch=6):
    keys = example_keys(jax.random.key(0), 0, np.arange(batch))
    return {name: np.asarray(view) for name, view in method.views(keys, {"image": tiny.images(batch)}).items()}


def test_the_partner_of_the_paper_is_the_clean_crop():
    method = tower(partner="clean")
    assert set(views(method)) == {"clean", "corrupted", "hidden"}


def test_another_crop_as_the_partner():
    """What is restored is the corrupted crop's own clean one; the partner is cropped, and lit, on its own."""
    method = tower(partner="crop")
    method = dataclasses.replace(method, proxy=dataclasses.replace(method.proxy, mask="none", curve="none"))
    lit = views(method)
    dark = views(dataclasses.replace(method, recipe=dataclasses.replace(method.recipe, **dict.fromkeys(LIGHTS, 0.0))))
    np.testing.assert_array_equal(dark["corrupted"], dark["clean"])
    np.testing.assert_array_equal(lit["clean"], dark["clean"])
    assert all(np.abs(dark["partner"][image] - dark["clean"][image]).max() > 0.05 for image in range(6))
    assert np.abs(lit["corrupted"] - lit["clean"]).max() > 0.05
    for image in range(6):
        assert np.abs(lit["partner"][image] - lit["corrupted"][image]).max() > 0.05


def test_the_partner_is_what_the_corruption_attracts():
    method, batch = tower(partner="crop"), {"image": tiny.images(6)}
    params, carried = method.init(jax.random.key(0), batch)
    seen = views(method)

    def logs(**changed):
        return method.loss(params, carried, {**seen, **changed}, 0)[1][1]

    first, other, unclean = logs(), logs(partner=1 - seen["partner"]), logs(clean=1 - seen["clean"])
    assert other["contrastive"] != pytest.approx(float(first["contrastive"]), rel=1e-4)
    assert other["restoration"] == first["restoration"]
    assert unclean["contrastive"] == first["contrastive"]
    assert unclean["restoration"] != pytest.approx(float(first["restoration"]), rel=1e-4)


@pytest.mark.parametrize("name", ["tower", "restoration", "spark"])
def test_the_penalty_is_part_of_the_loss(name):
    c = tiny.shrink(tiny.config(name))
    c.method.decorrelation = 3.0
    _, (log,) = tiny.Trainer(c).run(1)
    terms = c.method.get("restoration_weight", 1.0) * log["restoration"] + 3.0 * log["correlation"]
    terms += log.get("contrastive", 0.0)
    assert log["loss"] == pytest.approx(terms, rel=1e-5)
    c.method.decorrelation = 0.0
    _, (plain,) = tiny.Trainer(c).run(1)
    assert "correlation" not in plain
    assert plain["restoration"] == pytest.approx(log["restoration"], rel=1e-5)


def test_where_nothing_is_restored_nothing_is_penalised():
    c = tiny.shrink(tiny.config("tower"))
    c.method.update({"decorrelation": 1.0, "restoration_weight": 0.0})
    _, (log,) = tiny.Trainer(c).run(1)
    assert "correlation" not in log


@pytest.mark.parametrize(("network", "levels"), [("unet", 3), ("vgg16", 5), ("resnet18", 5)])
def test_the_input_itself_is_not_penalised(network, levels):
    """It is the finest map of torchvision's networks; of one channel here."""
    c = tiny.shrink(tiny.config("tower"))
    c.model.update({"name": network, "width": 2, "depth": 3})
    c.method.decorrelation = 1.0
    method = methods.build(c, 1, "brightfield")
    batch = {"image": tiny.images()[..., :1]}
    params, carried = method.init(jax.random.key(0), batch)
    seen = method.views(example_keys(jax.random.key(0), 0, np.arange(len(batch["image"]))), batch)
    maps, _ = method.backbone.encoder.apply(params["encoder"], carried["stats"]["encoder"], seen["corrupted"], train=True)
    assert len(method.backbone.learned(maps)) == levels
    assert all(m.shape[-1] > 1 for m in method.backbone.learned(maps))
    loss, (_, logs) = method.loss(params, carried, seen, 0)
    assert np.isfinite(loss)
    decoded, _ = method.backbone.decoder.apply(params["decoder"], carried["stats"]["decoder"], maps, train=True)
    assert float(logs["correlation"]) == pytest.approx(float(losses.correlation((*maps[-levels:], decoded))), rel=1e-3)


def decoded_correlation(weight):
    """How much the decoded channels repeat each other after some steps of restoring gray images."""
    c = tiny.shrink(tiny.config("restoration"))
    c.model.update({"width": 4, "decoder_width": 6})
    c.pretrain.steps = 60
    c.pretrain.optimizer.learning_rate = 1e-2
    c.method.decorrelation = weight
    trainer = tiny.Trainer(c)
    state, _ = trainer.run(c.pretrain.steps)
    backbone, stats = trainer.method.backbone, state.carried["stats"]
    images = tiny.images().astype(np.float32) / 255
    maps, _ = backbone.encoder.apply(state.params["encoder"], stats["encoder"], images, train=True)
    decoded, _ = backbone.decoder.apply(state.params["decoder"], stats["decoder"], maps, train=True)
    return float(losses.correlation((decoded,)))


def test_a_decoder_that_restores_repeats_itself_unless_penalised():
    free, kept = decoded_correlation(0.0), decoded_correlation(1.0)
    assert kept < 0.5 * free
