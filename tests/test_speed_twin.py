"""PyTorch's twin, which the speed is compared with, does the same work: parameters, losses, gradients, augmentations."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from medssl_jax import methods
from medssl_jax.augment import RECIPES, crop_and_resize, dihedral, sample_boxes
from medssl_jax.augment.curves import FIXED, tone_curve
from medssl_jax.augment.intensity import blur
from medssl_jax.errors import UserError
from medssl_jax.train import optimizer

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from experiments import torch_side, torch_twin, torch_views  # noqa: E402  they need it

VIEWS = {"tower": ("clean", "corrupted", "partner"), "simclr": ("first", "second"), "byol": ("first", "second")}
RESNETS = ("resnet18", "resnet34", "resnet50")


def small(name, network="unet", dtype="float32"):
    """A network of that name that takes seconds; torchvision's are 64 wide."""
    if network in RESNETS:
        pytest.importorskip("torchvision", reason="torchvision is not installed")
    c = tiny.shrink(tiny.config(name))
    c.pretrain.optimizer.warmup = 0.0
    c.model.update({"name": network, "width": 64 if network in RESNETS else 2, "projection": (16, 8), "dtype": dtype})
    return c


class Given:
    """A method with parameters and views that NumPy drew: of JAX, only the loss is compiled."""

    def __init__(self, c, channels=1):
        rng = np.random.default_rng(0)
        self.config, self.channels = c, channels
        self.method = methods.build(c, channels, "brightfield")
        side, count = c.views.size, c.pretrain.batch
        self.image = rng.integers(0, 2**16, (count, c.data.tile, c.data.tile, channels), np.uint16)
        params, self.carried = jax.eval_shape(self.method.init, jax.random.key(0), {"image": self.image})
        self.params = jax.tree.map(lambda x: self._drawn(rng, x), params)
        self.carried = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.carried)
        if "teacher" in self.carried:
            self.carried["teacher"]["params"] = {part: self.params[part] for part in ("encoder", "projector")}
        names = VIEWS[c.method.name]
        names = names[:2] if c.method.get("partner") == "clean" else names
        self.views = {name: rng.random((count, side, side, channels), np.float32) for name in names}
        self.hidden = {"hidden": np.zeros((count, side, side), bool)}

    @staticmethod
    def _drawn(rng, x):
        size = math.sqrt(2 / np.prod(x.shape[:-1])) if len(x.shape) > 1 else 0.1
        return (size * rng.standard_normal(x.shape) + (len(x.shape) == 1)).astype(np.float32)

    def loss(self, params):
        return self.method.loss(params, self.carried, {**self.views, **self.hidden}, jnp.int32(0))[0]

    def side(self, name="channels_last"):
        recipe = methods.view_recipe(self.config, self.channels, "brightfield")
        return torch_side.TorchSide(self.config, recipe, self.image, list(self.views.values()), self.params, name)


@pytest.mark.parametrize(
    ("name", "network", "layout"), [*((name, "unet", "channels_last") for name in VIEWS), ("tower", "resnet18", "NCHW")]
)
def test_the_twin_has_the_same_parameters_loss_and_gradient(name, network, layout):
    given = Given(small(name, network))
    side = given.side(layout)
    loss, grads = jax.jit(jax.value_and_grad(given.loss))(given.params)
    assert side.parameters() == sum(x.size for x in jax.tree.leaves(given.params))
    assert side.loss() == pytest.approx(float(loss), rel=1e-5)
    side.runs()["forward+backward"]()
    theirs = torch_twin.flat(jax.device_get(grads))
    largest = max(np.abs(value).max() for value in theirs.values())
    for parameter, value in side.twin.learned().items():
        expected = theirs[parameter].reshape(value.shape)
        np.testing.assert_allclose(value.grad.numpy(), expected, atol=2e-3 * np.abs(expected).max() + 3e-5 * largest, err_msg=parameter)
    before = [p.detach().clone() for p in side.twin.parameters()]
    side.runs()["full step"]()
    assert not any(torch.equal(a, b) for a, b in zip(before, side.twin.parameters()))


@pytest.mark.parametrize("partner", ["clean", "crop"])
@pytest.mark.parametrize("decorrelation", [0.0, 2.0])
def test_partners_and_the_penalty_of_tower(partner, decorrelation):
    """Each counts: another partner or weight is another loss, of both."""
    c = small("tower")
    c.method.update({"partner": partner, "decorrelation": decorrelation})
    given = Given(c)
    loss = given.side().loss()
    assert loss == pytest.approx(float(jax.jit(given.loss)(given.params)), rel=1e-5)
    given.method = dataclasses.replace(given.method, decorrelation=decorrelation + 1.0)
    assert loss != pytest.approx(float(jax.jit(given.loss)(given.params)), rel=1e-3)


def test_bottlenecks_and_rgb_have_the_same_loss():
    c = small("simclr", "resnet50")
    c.pretrain.batch, c.data.tile, c.views.size = 4, 32, 32
    given = Given(c, channels=3)
    assert given.side().loss() == pytest.approx(float(jax.jit(given.loss)(given.params)), rel=1e-4)


@pytest.mark.parametrize("network", RESNETS)
def test_parameters_stand_one_to_one(network):
    given = Given(small("tower", network), channels=2)
    twin = given.side("NCHW").twin
    theirs = torch_twin.flat(given.params)
    assert twin.learned().keys() == theirs.keys()
    assert all(value.squeeze().shape == theirs[name].squeeze().shape for name, value in twin.learned().items())


@pytest.mark.parametrize("name", VIEWS)
def test_bfloat16_is_what_encoder_and_decoder_compute_in(name):
    given = Given(small(name, dtype="bfloat16"))
    side = given.side()
    exact = Given(small(name)).side().loss()
    ours, theirs = float(jax.jit(given.loss)(given.params)), side.loss()
    assert theirs == pytest.approx(ours, rel=2e-2)
    assert theirs != exact
    side.runs()["full step"]()
    assert all(value.dtype == value.grad.dtype == torch.float32 for value in side.twin.learned().values())


def test_the_teacher_follows_as_byols():
    given = Given(small("byol"))
    twin = given.side().twin
    with torch.no_grad():
        for value in twin.learned().values():
            value += 1.0
    moved = given.method.after_update(jax.tree.map(lambda x: x + 1.0, given.params), given.carried, jnp.int32(1))
    twin.after_update(1)
    theirs = torch_twin.flat(moved["teacher"]["params"])
    for name, value in twin.teacher.named_parameters():
        np.testing.assert_allclose(value.numpy(), theirs[name].reshape(value.shape), rtol=1e-5, atol=1e-6)


def test_the_optimizer_alone_moves_as_jaxs():
    given = Given(small("byol"))
    side, rng = given.side(), np.random.default_rng(1)
    grads = jax.tree.map(lambda x: rng.standard_normal(x.shape, dtype=np.float32), given.params)
    for name, value in torch_twin.flat(grads).items():
        parameter = side.twin.learned()[name]
        parameter.grad = torch.empty_like(parameter).copy_(torch.tensor(value.copy()).reshape(parameter.shape))  # in its memory layout
    update = optimizer.build(given.config.pretrain.optimizer, given.config.pretrain.steps)
    moved, _ = jax.jit(update.update)(grads, update.init(given.params), given.params)
    side.runs()["optimizer"]()
    for name, value in torch_twin.flat(optax.apply_updates(given.params, moved)).items():
        np.testing.assert_allclose(side.twin.learned()[name].detach().numpy().squeeze(), value.squeeze(), atol=1e-6, err_msg=name)
    assert int(side.step) == 1


def test_the_optimizer_alone_has_gradients():
    side = Given(small("simclr")).side()
    before = [p.detach().clone() for p in side.twin.parameters()]
    side.runs()["optimizer"]()
    assert not any(torch.equal(a, b) for a, b in zip(before, side.twin.parameters()))


def test_compiled_is_the_same_step(monkeypatch):
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # no pool of processes for a few kernels
    given = Given(small("simclr"))
    eager, compiled = given.side(), given.side("compiled channels_last")
    eager.runs()["forward+backward"]()
    try:
        compiled.runs()["forward+backward"]()
    except RuntimeError as error:
        pytest.skip(f"torch.compile has no compiler: {error}")
    largest = max(float(value.grad.abs().max()) for value in eager.twin.learned().values())
    for name, value in eager.twin.learned().items():
        other, atol = compiled.twin.learned()[name].grad, 2e-3 * float(value.grad.abs().max()) + 3e-5 * largest
        np.testing.assert_allclose(other, value.grad, atol=atol, err_msg=name)


def test_augmentations_are_the_same_formulas(rng):
    x = rng.random((6, 24, 24, 1)).astype(np.float32)
    channels_first = torch.tensor(x).permute(0, 3, 1, 2)
    boxes = np.asarray(sample_boxes(jax.random.split(jax.random.key(0), 6), 24, 24, (0.3, 1.0), (0.75, 1.33)))
    pose, decreasing = np.arange(6, dtype=np.int32) + 1, np.arange(6) % 2 == 0
    inner, sigma = FIXED[np.arange(6) % 3], np.linspace(0.1, 1.5, 6, dtype=np.float32)
    pairs = [
        (crop_and_resize(x, boxes, 16), torch_views.crop_and_resize(channels_first, torch.tensor(boxes), 16), 1e-5),
        (dihedral(x, pose), torch_views.dihedral(channels_first, torch.tensor(pose)), 0),
        (blur(x, sigma), torch_views.blur(channels_first, torch.tensor(sigma)[:, None, None, None]), 1e-5),
        (tone_curve(x, inner, decreasing), torch_views.tone_curve(channels_first, torch.tensor(inner), torch.tensor(decreasing)), 2e-3),
    ]
    for ours, theirs, tolerance in pairs:
        np.testing.assert_allclose(theirs.permute(0, 2, 3, 1).numpy(), ours, atol=tolerance)
    kept = torch_views.block_mask(torch.ones(3, 1, 16, 16), 0.5, 4)
    assert kept.mean((1, 2, 3)).tolist() == [0.5] * 3


@pytest.mark.parametrize(("name", "proxy"), [("tower", ("fixed", "block")), ("tower", ("random", "none")), ("byol", ())])
def test_all_is_made_on_the_device_of_the_images(name, proxy):
    c = small(name)
    if proxy:
        c.method.proxy.curve, c.method.proxy.mask = proxy
    twin = torch_twin.build(c, dataclasses.replace(RECIPES["fluorescence"], size=20), 3).to("meta")
    views = twin.views(torch.zeros(8, 3, 28, 28, dtype=torch.uint8, device="meta"))  # an operation with a tensor from elsewhere fails
    assert {view.device.type for view in views} == {"meta"}
    assert views[1].shape == (8, 3, 20, 20)
    assert twin(*views).device.type == "meta"


@pytest.mark.parametrize("modality", ["brightfield", "fluorescence"])
def test_views_are_drawn_within_what_the_recipe_says(modality):
    recipe = dataclasses.replace(RECIPES[modality], size=20)
    x = torch.rand(16, 3, 32, 32)
    boxes = torch_views.sample_boxes(x, recipe)
    assert (boxes >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 32.001).all()
    assert (boxes[:, 2] * boxes[:, 3] >= recipe.scale[0] * 32**2 - 0.1).all()
    views = torch_views.photometric(torch_views.geometric(x, recipe), recipe)
    assert views.shape == (16, 3, 20, 20)
    assert 0 <= views.min() < views.max() <= 1


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("method.name", "spark", "no 'spark'; it does config.method.name=tower or simclr or byol"),
        ("method.restoration", "l2", "no 'l2'"),
        ("model.name", "vgg16", "no 'vgg16'"),
        ("model.norm", "group", "no 'group'"),
        ("pretrain.optimizer.name", "lars", "no 'lars'"),
        ("pretrain.accumulate", 2, "no 2; it does config.pretrain.accumulate=1"),
        ("model.name", "resnet18", "set --config.model.width=64"),
        ("method.proxy.mask", "ray", "has TOWER's proxy only"),
    ],
)
def test_configs_without_a_twin_are_named(key, value, said):
    c = tiny.config("tower")
    c.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=said):
        torch_twin.check(c)


def test_recipes_without_a_twin_are_named():
    with pytest.raises(UserError, match="modality=brightfield or fluorescence"):
        torch_views.check_recipe(RECIPES["xray"])
