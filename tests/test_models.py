"""Networks: names and shapes against torchvision's, values against NumPy, any image size, any number of devices."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from medssl_jax import config, models
from medssl_jax.errors import UserError
from medssl_jax.models.group_norm import EPSILON, GroupNorm
from medssl_jax.models.network import convolve, max_pool, upsample


def settings(**changes):
    c = config.base().model
    c.update({"width": 2, "depth": 2, "decoder_width": 3} | changes)
    return c


def start(backbone, x):
    """Parameters and statistics of encoder and decoder."""
    params, stats = backbone.encoder.init(jax.random.key(0), x)
    maps, _ = backbone.encoder.apply(params, stats, x, train=False)
    return (params, stats), backbone.decoder.init(jax.random.key(1), maps)


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(network, train, params, stats, x):
    return network.apply(params, stats, x, train=train)


def flat(tree):
    return {tuple(part.key for part in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(jax.random.key(7), (8, 12, 12, 2))


@pytest.fixture(scope="module")
def unet(x):
    """The plain U-Net with its variables."""
    backbone = models.build_backbone(settings())
    return backbone, *jax.jit(lambda x: start(backbone, x))(x)


def torchvision_keys(counts, convolutions):
    """The state_dict of torchvision's ResNet, less the classifier and the counters of batches, by its rule."""
    norm = ("weight", "bias", "running_mean", "running_var")
    keys = ["conv1.weight", *(f"bn1.{k}" for k in norm)]
    for stage, count in enumerate(counts, 1):
        for block in range(count):
            at = f"layer{stage}.{block}"
            for i in range(1, convolutions + 1):
                keys += [f"{at}.conv{i}.weight", *(f"{at}.bn{i}.{k}" for k in norm)]
            if block == 0 and (stage > 1 or convolutions == 3):
                keys += [f"{at}.downsample.0.weight", *(f"{at}.downsample.1.{k}" for k in norm)]
    return keys


RESNETS = {"resnet18": ((2, 2, 2, 2), 2, 11_176_512), "resnet34": ((3, 4, 6, 3), 2, 21_284_672), "resnet50": ((3, 4, 6, 3), 3, 23_508_032)}


@pytest.mark.parametrize("name", RESNETS)
def test_resnet_is_torchvisions_in_names_shapes_and_size(name):
    counts, convolutions, size = RESNETS[name]
    encoder = models.build_backbone(settings(name=name, width=64)).encoder
    params, stats = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    theirs = {models.torchvision_name(path): leaf.shape for tree in (params, stats) for path, leaf in flat(tree).items()}
    assert sorted(theirs) == sorted(torchvision_keys(counts, convolutions))
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == size
    oihw = {key: (shape[3], shape[2], *shape[:2]) for key, shape in theirs.items() if len(shape) == 4}
    assert oihw["conv1.weight"] == (64, 3, 7, 7)
    expected = {2: ((128, 64, 3, 3), (128, 64, 1, 1)), 3: ((128, 256, 1, 1), (512, 256, 1, 1))}[convolutions]
    assert (oihw["layer2.0.conv1.weight"], oihw["layer2.0.downsample.0.weight"]) == expected


def test_resnet_strides_its_middle_convolution():
    """torchvision's bottleneck has the stride in the 3 x 3 convolution: the first 1 x 1 still sees every pixel."""
    encoder = models.build_backbone(settings(name="resnet50", width=1)).encoder
    jaxpr = str(jax.make_jaxpr(lambda key, x: encoder.init(key, x))(jax.random.key(0), jnp.zeros((1, 64, 64, 1))))
    # stage 2 at width 1: its 1 x 1 makes [1, 16, 16, 2] from the 16 x 16 map, its 3 x 3 halves that
    assert "f32[1,16,16,2] = conv_general_dilated" in jaxpr
    assert "f32[1,8,8,2] = conv_general_dilated" in jaxpr


def test_kaiming_initialisation():
    encoder = models.build_backbone(settings(width=32)).encoder
    params, stats = jax.jit(encoder.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    kernel = np.asarray(params["level1"]["conv2"]["kernel"])  # 3 x 3 x 64 x 64: fan out 9 * 64
    assert kernel.std() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert np.abs(kernel).max() > 2.5 * kernel.std()  # not truncated
    assert all((leaf == 1).all() for path, leaf in flat(params).items() if path[-1] == "scale")
    assert all((leaf == (path[-1] == "var")).all() for path, leaf in flat(stats).items())


def numpy_conv(x, kernel):
    """Correlation with zero padding, written as sums over the kernel."""
    size = kernel.shape[0]
    padded = np.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i in range(size):
        for j in range(size):
            out += padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
    return out


def test_first_level_and_its_statistics_against_numpy(unet, x):
    backbone, (params, stats), _ = unet
    maps, new = run(backbone.encoder, True, params, stats, x)
    y = (np.asarray(x, np.float64) - 0.5) / 0.5
    for i in (1, 2):
        y = numpy_conv(y, np.asarray(params["level0"][f"conv{i}"]["kernel"], np.float64))
        mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
        y = np.maximum((y - mean) / np.sqrt(var + 1e-5), 0)
        got = new["level0"][f"bn{i}"]
        np.testing.assert_allclose(got["mean"], 0.1 * mean, atol=1e-6)
        np.testing.assert_allclose(got["var"], 0.9 + 0.1 * var, rtol=1e-5)
    np.testing.assert_allclose(maps[0], y, atol=1e-5)


def test_without_training_the_statistics_are_used_and_kept(unet, x):
    backbone, (params, stats), _ = unet
    maps, same = run(backbone.encoder, False, params, stats, x)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), stats, same))
    alone, _ = run(backbone.encoder, False, params, stats, x.at[1:].set(0))
    np.testing.assert_allclose(maps[-1][:1], alone[-1][:1], atol=1e-6)  # an image's result does not depend on its neighbours


def test_four_devices_give_the_batch_norm_of_one(unet, x):
    backbone, encoder, decoder = unet
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    @jax.jit
    def statistics(x):
        maps, first = backbone.encoder.apply(*encoder, x, train=True)
        out, second = backbone.decoder.apply(*decoder, maps, train=True)
        return out, first, second

    sharded = statistics(jax.device_put(x, NamedSharding(mesh, P("data"))))
    for one, four in zip(jax.tree.leaves(statistics(x)), jax.tree.leaves(sharded)):
        np.testing.assert_allclose(one, four, atol=1e-4)  # a sum of squares in another order


def test_group_norm_has_no_statistics_and_sees_one_image_at_a_time(x):
    encoder = models.build_backbone(settings(norm="group")).encoder
    params, stats = jax.jit(encoder.init)(jax.random.key(0), x)
    assert stats == {}
    maps, _ = run(encoder, True, params, stats, x)
    alone, _ = run(encoder, True, params, stats, x.at[3:].set(0))
    np.testing.assert_allclose(maps[-1][2], alone[-1][2], atol=1e-5)


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 6), (7, 7)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_group_norm_is_that_of_flax(masked, dtype, channels, groups, rng):
    x = jnp.asarray(rng.normal(3, 2, (4, 6, 8, channels)), dtype)
    mask = jnp.asarray(rng.random((4, 6, 8, 1)) < 0.6) if masked else None
    ours, theirs = GroupNorm(groups, dtype), nn.GroupNorm(groups, epsilon=EPSILON, dtype=dtype)
    params = jax.tree.map(lambda p: p + jnp.asarray(rng.normal(0, 0.3, p.shape), p.dtype), ours.init(jax.random.key(0), x))
    wide = None if mask is None else jnp.broadcast_to(mask, x.shape)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, theirs.init(jax.random.key(0), x))
    found, expected = jax.jit(ours.apply)(params, x, mask), theirs.apply(params, x, mask=wide)
    assert found.dtype == expected.dtype == dtype
    close = {"atol": 1e-5} if dtype == jnp.float32 else {"atol": 1e-2, "rtol": 1e-2}  # eight bits of a bfloat16
    np.testing.assert_allclose(found.astype(float), expected.astype(float), **close)

    def loss(norm, weights, values, **options):
        return jnp.sin(norm.apply(weights, values, **options).astype(jnp.float32)).sum()

    if dtype == jnp.float32:
        of_ours, of_theirs = (
            jax.grad(lambda w, v, norm=norm, hidden=hidden: loss(norm, w, v, mask=hidden), argnums=(0, 1))(params, x)
            for norm, hidden in ((ours, mask), (theirs, wide))
        )
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), of_ours, of_theirs)


@pytest.mark.parametrize("value", [1.0, 123.4])  # the rounded variance of the second, where it is seen, is below zero
@pytest.mark.parametrize("hidden", [False, True])
def test_group_norm_of_what_is_hidden_or_flat_is_a_number(value, hidden):
    x, seen = jnp.full((2, 16, 16, 8), value), jnp.zeros((2, 16, 16, 1), bool) if hidden else None
    norm = GroupNorm(8)
    params = norm.init(jax.random.key(0), x)
    assert np.isfinite(norm.apply(params, x, seen)).all()
    assert np.isfinite(jax.grad(lambda v: norm.apply(params, v, seen).sum())(x)).all()


def test_group_norm_refuses_groups_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="12 channels do not divide into 8 groups"):
        GroupNorm(8).init(jax.random.key(0), jnp.ones((1, 2, 2, 12)))


def test_remat_recomputes_and_changes_nothing(unet, x):
    backbone, encoder, decoder = unet
    saving = models.build_backbone(settings(remat=True))

    def loss(b, params):
        maps, _ = b.encoder.apply(params[0], encoder[1], x, train=True)
        return b.decoder.apply(params[1], decoder[1], maps, train=True)[0].var()

    params = encoder[0], decoder[0]
    gradient = jax.jit(jax.grad(lambda p: loss(saving, p)))
    assert "remat" in str(gradient.trace(params).jaxpr)
    for a, b in zip(jax.tree.leaves(jax.jit(jax.grad(lambda p: loss(backbone, p)))(params)), jax.tree.leaves(gradient(params))):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32(unet, x):
    _, (params, stats), _ = unet
    encoder = models.build_backbone(settings(dtype="bfloat16")).encoder
    fresh = jax.eval_shape(encoder.init, jax.random.key(0), x)
    maps, new = run(encoder, True, params, stats, x)
    assert {leaf.dtype for leaf in jax.tree.leaves((fresh, new))} == {jnp.dtype("float32")}
    assert {m.dtype for m in maps} == {jnp.dtype("bfloat16")}
    exact, _ = run(unet[0].encoder, True, params, stats, x)
    assert np.abs(np.asarray(maps[-1], np.float32) - exact[-1]).mean() < 0.03
    assert models.pool(maps).dtype == jnp.float32


@pytest.mark.parametrize("name", ["unet", "resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("side", [(28, 28), (64, 64), (27, 33)])
def test_any_image_size_is_decoded_at_its_own_resolution(name, side):
    backbone = models.build_backbone(settings(name=name))
    x = jax.ShapeDtypeStruct((2, *side, 3), jnp.float32)
    (params, stats), (decoder_params, decoder_stats) = jax.eval_shape(lambda x: start(backbone, x), x)
    maps, _ = jax.eval_shape(lambda *a: backbone.encoder.apply(*a, train=True), params, stats, x)
    rounded = (lambda n, s: n // s) if name == "unet" else (lambda n, s: -(-n // s))
    assert [m.shape[1:3] for m in maps] == [tuple(rounded(n, s) for n in side) for s in backbone.strides]
    assert maps[-1].shape[-1] == backbone.feature_dim
    out, _ = jax.eval_shape(lambda *a: backbone.decoder.apply(*a, train=True), decoder_params, decoder_stats, maps)
    assert out.shape == (2, *side, settings(name=name).decoder_width)


def test_resnet_passes_the_normalised_image_to_the_decoder():
    backbone = models.build_backbone(settings(name="resnet18"))
    x = jnp.linspace(0, 1, 32 * 32).reshape(1, 32, 32, 1)
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), jax.eval_shape(backbone.encoder.init, jax.random.key(0), x))
    finest = jax.jit(lambda x: backbone.encoder.apply(*variables, x, train=False)[0][0])
    np.testing.assert_allclose(finest(x), (x - 0.5) / 0.5, atol=1e-6)


@pytest.mark.parametrize("side", [8, 7])
@pytest.mark.parametrize("size", [2, 3])
def test_max_pool_is_the_largest_of_each_window(side, size):
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, side, side, 3)))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf) if size == 3 else x
    count = (padded.shape[1] - size) // 2 + 1
    expected = [[padded[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size].max((1, 2)) for j in range(count)] for i in range(count)]
    np.testing.assert_array_equal(max_pool(jnp.asarray(x), size), np.asarray(expected).transpose(2, 0, 1, 3))


@pytest.mark.parametrize(("rows", "columns"), [(8, 6), (7, 5), (4, 3)])
def test_upsample_takes_the_nearest_pixel(rows, columns):
    x = np.arange(4 * 3 * 2.0).reshape(1, 4, 3, 2)
    nearest = np.ix_([int((i + 0.5) * 4 / rows) for i in range(rows)], [int((j + 0.5) * 3 / columns) for j in range(columns)])
    np.testing.assert_array_equal(upsample(jnp.asarray(x), jnp.zeros((1, rows, columns, 9))), x[0][nearest][None])


@pytest.mark.parametrize("norm", [False, True])
def test_projector_against_numpy(norm, rng):
    x = rng.normal(size=(6, 5)).astype(np.float32)
    network = models.projector(4, 3, norm=norm)
    params, stats = network.init(jax.random.key(0), x)
    out, new = network.apply(params, stats, x, train=True)
    h = x @ params["fc1"]["kernel"] + np.asarray(params["fc1"]["bias"])[None]
    if norm:
        np.testing.assert_allclose(new["bn1"]["mean"], 0.1 * h.mean(0), atol=1e-6)
        h = (h - h.mean(0, keepdims=True)) / np.sqrt(h.var(0, keepdims=True) + 1e-5)
    np.testing.assert_allclose(out, np.maximum(h, 0) @ params["fc2"]["kernel"], atol=1e-4)
    assert (stats == {}) == (not norm)


def test_pool_and_pixel_head(rng):
    maps = [jnp.zeros((2, 4, 4, 1)), jnp.asarray(rng.normal(size=(2, 2, 2, 5)))]
    np.testing.assert_allclose(models.pool(maps), np.asarray(maps[1]).reshape(2, 4, 5).mean(1), atol=1e-6)
    head = models.pixel_head(3)
    params, stats = head.init(jax.random.key(0), maps[1])
    out, _ = head.apply(params, stats, maps[1], train=True)
    weights = params["fc"]
    np.testing.assert_allclose(out[1, 0, 1], maps[1][1, 0, 1] @ weights["kernel"] + weights["bias"], atol=1e-5)


def test_networks_of_one_config_are_one_static_argument():
    assert models.build_backbone(settings()) == models.build_backbone(settings())
    assert hash(models.build_backbone(settings())) == hash(models.build_backbone(settings()))
    assert models.build_backbone(settings()) != models.build_backbone(settings(width=4))


def test_unknown_network_names_the_nearest():
    with pytest.raises(UserError, match=r"resnet51.*'resnet50'"):
        models.build_backbone(settings(name="resnet51"))


def test_images_too_small_for_the_depth():
    encoder = models.build_backbone(settings(depth=6)).encoder
    with pytest.raises(UserError, match=r"depth=6.*16 x 16.*32"):
        encoder.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))


@pytest.mark.parametrize(("side", "size", "stride"), [((2, 2), 3, 1), ((2, 5), 3, 2), ((1, 1), 3, 1), ((3, 6), 7, 2)])
def test_maps_smaller_than_the_kernel_are_convolved_alike(side, size, stride, rng):
    """Values and both gradients are XLA's own, which takes its time for them."""
    x, kernel = rng.standard_normal((2, *side, 3), np.float32), rng.standard_normal((size, size, 3, 4), np.float32)
    padding = [(size // 2, size // 2)] * 2

    def own(x, kernel):
        return convolve(x, kernel, (stride, stride), padding)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    weights = rng.standard_normal(plain(x, kernel).shape, np.float32)
    for ours, theirs in zip(
        *[(f(x, kernel), *jax.grad(lambda *a, f=f: jnp.sum(f(*a) * weights), (0, 1))(x, kernel)) for f in (own, plain)]
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
