"""Local Discrimination: its views meet, its loss is the scheduled sum of its terms, and options do what they say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from medssl_jax import losses, methods, models, pretrain
from medssl_jax.augment import geometry
from medssl_jax.data.sources import open_dataset
from medssl_jax.errors import UserError
from medssl_jax.train.mesh import make_mesh

BATCH, CELLS, SIZE = 4, 4, 20


def built(**options):
    c = tiny.shrink(tiny.config("local_discrimination"))
    c.pretrain.steps = 10
    c.method.update(options)
    return methods.build(c, tiny.CHANNELS, "brightfield")


def started(**options):
    """The method with its parameters and the views of one batch."""
    method = built(**options)
    batch = {"image": tiny.images(BATCH)}
    params, carried = method.init(jax.random.key(0), batch)
    return method, params, carried, method.views(jax.random.split(jax.random.key(1), BATCH), batch)


def test_maps_are_unit_vectors_and_shares():
    method, params, carried, views = started()
    vectors, shares, _ = method.maps(params, carried["stats"], views["first"])
    assert vectors.shape == (BATCH, SIZE, SIZE, 4)
    assert shares.shape == (BATCH, SIZE, SIZE, 3)
    np.testing.assert_allclose(jnp.linalg.norm(vectors, axis=-1), 1, atol=1e-3)  # the few that were short stay a little shorter
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)


def test_one_crop_in_two_poses_is_the_papers_grid():
    """With the same crop the cells are plain average pooling of the maps turned upright."""
    method, params, carried, views = started(same_crop=True)
    np.testing.assert_array_equal(views["first_crop"], views["second_crop"])
    assert len(np.unique(np.asarray(views["second_pose"]))) > 1
    for name in ("first", "second"):
        vectors, _, _ = method.maps(params, carried["stats"], views[name])
        upright = np.asarray(geometry.dihedral(vectors, geometry.inverse_pose(views[f"{name}_pose"])))
        pooled = upright.reshape(BATCH, CELLS, SIZE // CELLS, CELLS, SIZE // CELLS, -1).mean((2, 4))
        np.testing.assert_allclose(method._cells(views, name, vectors, CELLS), pooled, atol=1e-4)


def test_two_crops_meet_where_they_show_the_same():
    """Maps that are the tile's coordinates at every pixel give the same cells in both views."""
    method, _, _, views = started()
    cells = []
    for name in ("first", "second"):
        coordinates = geometry.source_coordinates(views[f"{name}_crop"], views[f"{name}_pose"], SIZE)
        cells.append(method._cells(views, name, coordinates, CELLS))
    assert not np.array_equal(views["first_crop"], views["second_crop"])
    np.testing.assert_allclose(cells[0], cells[1], atol=28 / SIZE / 2)


def terms_of(logs):
    return {name: float(logs[name]) for name in ("patches", "mixup", "regions", "entropy", "balance", "floor", "agreement")}


def test_the_two_stages_are_a_schedule_of_weights():
    weights = {"patches": 1.0, "mixup": 2.0, "regions": 10.0, "entropy": 0.1, "balance": 3.0, "floor": 4.0, "agreement": 5.0}
    method, params, carried, views = started(weights=weights, stage_one=0.5)
    for step, late in ((0, 0), (4, 0), (5, 1), (9, 1)):
        loss, (_, logs) = method.loss(params, carried, views, jnp.int32(step))
        terms = terms_of(logs)
        expected = sum(weights[n] * terms[n] * (1 if n in ("patches", "mixup") else late) for n in terms)
        assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_terms_against_the_losses():
    """Each term from its parts by hand, over one pass of all views and mixtures."""
    method, params, carried, views = started(same_crop=True)
    _, (_, logs) = method.loss(params, carried, views, jnp.int32(0))
    share = views["share"][::2, None, None, None]
    mixed = share * views["first"][::2] + (1 - share) * views["first"][1::2]  # neighbours
    vectors, shares, _ = method.maps(params, carried["stats"], jnp.concatenate([views["first"], views["second"], mixed]))

    def pooled(x):
        return np.asarray(losses.unit(jnp.asarray(np.asarray(x).reshape(-1, CELLS, SIZE // CELLS, CELLS, SIZE // CELLS, 4).mean((2, 4)))))

    one, two, three = (pooled(vectors[cut]) for cut in (slice(0, 4, 2), slice(1, 4, 2), slice(8, 10)))
    target = np.asarray(share) * one + (1 - np.asarray(share)) * two
    rows = np.concatenate([three.reshape(-1, 4), target.reshape(-1, 4)])
    assert logs["mixup"] == pytest.approx(float(losses.patch_discrimination(rows, 0.1)), rel=1e-3)
    assert logs["entropy"] == pytest.approx(float(losses.cluster_entropy(shares[:8])), rel=1e-4)
    mass = np.asarray(shares[:8]).mean((0, 1, 2))
    assert logs["balance"] == pytest.approx(np.sum(mass * np.log(3 * mass)), abs=1e-5)
    assert logs["largest_cluster"] == pytest.approx(mass.max(), rel=1e-4)
    assert 1 <= logs["clusters"] <= 3


def test_same_places_of_other_images_are_left_out():
    method, _, _, views = started(same_crop=True, same_place=0)
    views = {**views, "shared": jnp.tile(jnp.float32([[0, 0, 28, 28]]), (BATCH, 1))}
    out = np.asarray(method._same_place(views))
    assert out.shape == (2 * BATCH * CELLS**2,) * 2
    cell, image = (np.tile(x, 2) for x in (np.tile(np.arange(CELLS**2), BATCH), np.repeat(np.arange(BATCH), CELLS**2)))
    np.testing.assert_array_equal(out, (cell[:, None] == cell[None]) & (image[:, None] != image[None]))
    wider = np.asarray(started(same_place=1)[0]._same_place(views))
    assert wider[: CELLS**2, CELLS**2 : 2 * CELLS**2].sum() == 100  # of 16 cells: 4 have 4 neighbours with themselves, 8 have 6, 4 have 9
    assert built(same_place=-1)._same_place(views) is None


def test_cells_that_do_not_divide_the_crop():
    with pytest.raises(UserError, match=r"views\.size=20 cannot be cut into config\.method\.cells=3"):
        built(cells=3)


def test_images_that_cannot_be_mixed_two_by_two():
    c = tiny.shrink(tiny.config("local_discrimination"))
    for batch, accumulate in ((7, 1), (6, 2)):
        c.pretrain.update({"batch": batch, "accumulate": accumulate})
        with pytest.raises(UserError, match=rf"two by two, and config\.pretrain\.batch={batch} in .*\.accumulate={accumulate} part"):
            methods.build(c, tiny.CHANNELS, "brightfield")


def test_more_clusters_than_the_vectors_hold():
    assert built(clusters=5, dimensions=4).steps == 10
    with pytest.raises(UserError, match=r"method\.clusters=6 are more than vectors of config\.method\.dimensions=4 can hold"):
        built(clusters=6, dimensions=4)


def test_fewer_tiles_than_a_batch(tmp_path):
    for number, image in enumerate(tiny.images(3, channels=3)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    c = tiny.shrink(tiny.config("local_discrimination"))
    c.data.path = str(tmp_path)
    dataset, mesh = open_dataset(c.data), make_mesh(jax.devices()[:1])
    with pytest.raises(UserError, match=r"there are 3 tiles of config\.data\.tile=28 px, fewer than config\.pretrain\.batch=8"):
        pretrain.check(c, dataset, mesh)
    c.pretrain.batch = 2
    pretrain.check(c, dataset, mesh)


def test_the_quarter_width_vgg_is_the_published_one():
    """922,896 and 510,384 parameters there; here without the biases of the convolutions that a norm follows."""
    c = tiny.config("local_discrimination", "paper")
    method = methods.build(c, 3, "brightfield")
    batch = {"image": np.zeros((1, 448, 448, 3), np.uint8)}
    params, _ = jax.eval_shape(method.init, jax.random.key(0), batch)
    count = {name: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(part)) for name, part in params.items()}
    assert count["encoder"] == 922_896 - 1056
    assert count["decoder"] + count["embed"] + count["cluster"] == 510_384 - 384
    backbone = models.build_backbone(c.model)
    maps, _ = jax.eval_shape(
        lambda x: backbone.encoder.apply(*backbone.encoder.init(jax.random.key(0), x), x, train=False), jnp.zeros((1, 448, 448, 3))
    )
    assert [m.shape[1:] for m in maps] == [(448, 448, 16), (224, 224, 32), (112, 112, 64), (56, 56, 128), (28, 28, 128)]
