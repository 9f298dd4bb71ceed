"""Every config: valid, locked, small and paper; every arm of the paper's ablation is reached by options."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny

from medssl_jax import methods
from medssl_jax.config import LAYOUT, validate
from medssl_jax.errors import UserError


@pytest.mark.parametrize("size", ["small", "paper"])
@pytest.mark.parametrize("name", tiny.METHODS)
def test_configs_are_valid_and_their_method_can_be_built(name, size):
    c = tiny.config(name, size)
    validate(c)
    with pytest.raises(AttributeError):
        c.lock().pretrain.stepz = 3
    method = methods.build(c, 3, "brightfield")
    batch = {name: np.zeros((4, c.data.tile, c.data.tile, depth), np.uint8) for name, depth in (("image", 3), ("shape", 1))}
    keys = jax.random.split(jax.random.key(0), 4)

    def whole(key):
        params, carried = method.init(key, batch)
        return method.loss(params, carried, method.views(keys, batch), jax.numpy.int32(0))[0], method.transferable(params, carried)

    loss, parts = jax.eval_shape(whole, jax.random.key(0))
    assert loss.shape == ()
    pixels = {"encoder", "decoder", "embed", "cluster"}
    expected = {"local_discrimination": pixels, "shape_guided": pixels, "simclr": {"encoder"}, "byol": {"encoder"}}
    assert set(parts) == expected.get(name, {"encoder", "decoder"})


def test_an_unknown_size():
    with pytest.raises(UserError, match="small or paper"):
        tiny.config("tower", "huge")


@pytest.mark.parametrize("name", tiny.METHODS)
def test_docstrings_name_a_command(name):
    text = (tiny.ROOT / "configs" / f"{name}.py").read_text()
    assert f"python -m medssl_jax.main --config=configs/{name}.py" in text


def test_layout_options_exist():
    c = tiny.config("tower")
    for key in LAYOUT:
        value = c
        for part in key.split("."):
            value = value[part]


ARMS = {
    "Con NL+M": {"restoration_weight": 0.0, "mask": "block"},
    "Gen NL+M": {"contrastive_weight": 0.0, "mask": "block"},
    "Gen NL": {"contrastive_weight": 0.0, "mask": "none"},
    "Gen M": {"contrastive_weight": 0.0, "curve": "none", "mask": "block"},
}


@pytest.mark.parametrize("arm", ARMS)
def test_arms_of_the_ablation(arm):
    """The loss is the sum of the terms that the arm keeps, and a decoder that nothing trained is not transferred."""
    c = tiny.shrink(tiny.config("tower"))
    for key, value in ARMS[arm].items():
        (c.method if key in c.method else c.method.proxy)[key] = value
    state, (log,) = tiny.Trainer(c).run(1)
    terms = c.method.restoration_weight * log["restoration"] + c.method.contrastive_weight * log["contrastive"]
    terms += c.method.decorrelation * log.get("correlation", 0.0)
    assert log["loss"] == pytest.approx(terms, rel=1e-5)
    assert log["hidden"] == pytest.approx(0 if c.method.proxy.mask == "none" else 0.5, abs=0.05)
    parts = methods.build(c, tiny.CHANNELS, "brightfield").transferable(state.params, state.carried)
    assert ("decoder" in parts) == (arm != "Con NL+M")
