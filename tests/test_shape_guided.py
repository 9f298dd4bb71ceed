"""Shape-guided clusters: two players in one loss, each holding the other; references from a simulator or a folder."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict
from PIL import Image

from medssl_jax import experiment, losses, methods, models, report
from medssl_jax.data.references import reference_masks, reference_tiles
from medssl_jax.data.sources import open_dataset
from medssl_jax.downstream import refine, unlabelled
from medssl_jax.errors import UserError
from medssl_jax.train import mesh as meshes

BATCH, SIZE = 4, 20
LATE = jnp.int32(3)


@pytest.fixture(scope="module")
def started():
    c = tiny.shrink(tiny.config("shape_guided"))
    method = methods.build(c, tiny.CHANNELS, "brightfield")
    batch = {"image": tiny.images(BATCH), "shape": tiny.discs(BATCH)}
    params, carried = method.init(jax.random.key(0), batch)
    return method, params, carried, method.views(jax.random.split(jax.random.key(1), BATCH), batch)


def test_references_are_cropped_as_the_images_are(started):
    _, _, _, views = started
    assert views["shapes"].shape == (BATCH, 2, SIZE, SIZE, 1)
    assert 0 <= float(views["shapes"].min()) < 0.01
    assert float(views["shapes"].max()) > 0.99
    assert not np.array_equal(views["shapes"][:, 0], views["shapes"][:, 1])


def test_both_players_are_seen_through_the_field_of_view():
    """Of a fundus camera: nothing of a reference and nothing drawn outside of what is not black, and the fit leaves it out."""
    c = tiny.shrink(tiny.config("shape_guided"))
    c.method.field = "bright"
    method = methods.build(c, tiny.CHANNELS, "brightfield")
    images = tiny.images(BATCH)
    images[:, : images.shape[1] // 2] = 0
    batch = {"image": images, "shape": np.full_like(tiny.discs(BATCH), 255)}
    params, carried = method.init(jax.random.key(0), batch)
    views = method.views(jax.random.split(jax.random.key(1), BATCH), batch)
    inside = np.asarray(views["inside"])
    assert 0.05 < inside.mean() < 0.95
    lightest = np.asarray(views["clean"]).max(-1)
    for b, v, y, x in np.ndindex(lightest.shape):  # dark within 4 px, the rim, is outside too
        around = lightest[b, v, max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5]
        assert inside[b, v, y, x, 0] == (around.min() > 20 / 255)
    np.testing.assert_allclose(views["shapes"], inside, atol=1e-6)
    _, (_, logs) = method.loss(params, carried, views, LATE)
    _, clusters, _ = method.learn(params, carried, views, LATE)
    drawn = clusters[..., 0] * inside.reshape(-1, *inside.shape[2:])[..., 0]
    assert logs["guided_share"] == pytest.approx(float(drawn.mean()), rel=1e-4)


def test_the_loss_is_local_discriminations_and_two_cross_entropies(started):
    method, params, carried, views = started
    loss, (_, logs) = method.loss(params, carried, views, LATE)
    local, clusters, _ = method.learn(params, carried, views, LATE)

    def judge(maps):
        return np.asarray(method.discriminator.apply(params["discriminator"], {}, maps, train=True)[0], np.float64)

    real, drawn = judge(views["shapes"].reshape(-1, SIZE, SIZE, 1)), judge(clusters[..., :1])
    fooled = np.log1p(np.exp(-drawn)).mean()
    told = (np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(drawn)).mean()) / 2
    assert logs["fooled"] == pytest.approx(fooled, rel=1e-4)
    assert logs["told"] == pytest.approx(told, rel=1e-4)
    assert logs["discriminator_accuracy"] == pytest.approx(((real > 0).sum() + (drawn < 0).sum()) / (len(real) + len(drawn)))
    clean = views["clean"].reshape(-1, *views["clean"].shape[2:])
    unfit = losses.local_fit(clean, clusters[..., :1], jnp.ones_like(clean[..., :1]), 8.0)
    assert logs["unfit"] == pytest.approx(float(unfit), rel=1e-4)
    assert float(loss) == pytest.approx(float(local) + fooled + told + 0.3 * float(logs["unfit"]), rel=1e-4)
    early, _ = method.loss(params, carried, views, jnp.int32(0))
    assert float(early) == pytest.approx(float(method.learn(params, carried, views, jnp.int32(0))[0]), rel=1e-5)


def test_each_player_holds_the_other(started):
    """The discriminator's gradient is that of L_D alone, the network's does not see L_D."""
    method, params, carried, views = started
    total = jax.grad(lambda p: method.loss(p, carried, views, LATE)[0])(params)
    _, clusters, _ = method.learn(params, carried, views, LATE)
    maps = jnp.concatenate([views["shapes"].reshape(-1, SIZE, SIZE, 1), clusters[..., :1]])

    def told(critic):
        scores = method.discriminator.apply(critic, {}, maps, train=True)[0]
        return (jnp.log1p(jnp.exp(-scores[: 2 * BATCH])).mean() + jnp.log1p(jnp.exp(scores[2 * BATCH :])).mean()) / 2

    for ours, expected in zip(jax.tree.leaves(total["discriminator"]), jax.tree.leaves(jax.grad(told)(params["discriminator"]))):
        np.testing.assert_allclose(ours, expected, atol=1e-5)

    def network(p):
        loss, clusters, _ = method.learn(p, carried, views, LATE)
        scores = method.discriminator.apply(params["discriminator"], {}, clusters[..., :1], train=True)[0]
        clean = views["clean"].reshape(-1, *views["clean"].shape[2:])
        unfit = losses.local_fit(clean, clusters[..., :1], jnp.ones_like(clean[..., :1]), 8.0)
        return loss + jnp.log1p(jnp.exp(-scores)).mean() + 0.3 * unfit

    for ours, expected in zip(jax.tree.leaves(total["cluster"]), jax.tree.leaves(jax.grad(network)(params)["cluster"])):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_the_discriminator_moves_at_its_own_rate(started):
    method, *_ = started
    assert method.rates == {"discriminator": 0.1}


def test_the_discriminator_is_the_released_one():
    """52,129 parameters; smaller maps than the released 448 px come out as one number too."""
    network = models.discriminator()
    params, _ = jax.eval_shape(lambda key: network.init(key, jnp.zeros((1, 448, 448, 1))), jax.random.key(0))
    assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params)) == 52_129

    def judged(x):
        return network.apply(network.init(jax.random.key(0), x)[0], {}, x, train=True)[0]

    for side in (448, 64, 20):
        assert jax.eval_shape(judged, jnp.zeros((3, side, side, 1))).shape == (3,)


class Pool:
    """Images of one size."""

    def __init__(self, side):
        self.side = side

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"image": np.zeros((self.side, self.side + 8, 1), np.uint8), "id": str(index)}


def tiles_of(kind, side, tile, count=3, seed=0):
    return reference_tiles(reference_masks(ConfigDict({"shapes": kind, "references": count}), Pool(side), seed), tile)


def test_references_of_a_simulator():
    tiles = tiles_of("vessels", 96, 64)
    assert tiles.shape == (12, 64, 64, 1)
    assert set(np.unique(tiles)) == {0, 255}
    np.testing.assert_array_equal(tiles, tiles_of("vessels", 96, 64))
    assert not np.array_equal(tiles, tiles_of("vessels", 96, 64, seed=1))


@pytest.fixture
def folder(tmp_path):
    def write(*masks):
        for number, mask in enumerate(masks):
            Image.fromarray(np.asarray(mask, np.uint8)).save(tmp_path / f"{number}.png")
        return str(tmp_path)

    return write


def test_references_of_a_folder_are_scaled_to_the_images(folder):
    """Masks of other sizes are brought to the images' scale; any value above 0 is the shape."""
    half = np.zeros((80, 80))
    half[:, :40] = 7
    tiles = tiles_of(folder(half, half.T[:40]), 40, 40)
    assert tiles.shape == (3, 40, 40, 1)
    np.testing.assert_array_equal(tiles[0, 0, :, 0], [255] * 20 + [0] * 20)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([], "holds no masks; put PNG"),
        ([np.zeros((40, 40))] * 2, r"all 2 masks in .* are empty \(every pixel is 0\)"),
        ([np.ones((40, 40))], r"all 1 masks in .* are full"),
    ],
)
def test_references_that_show_no_shape(folder, masks, message):
    with pytest.raises(UserError, match=message):
        tiles_of(folder(*masks), 40, 40)


def test_references_that_are_nothing():
    with pytest.raises(UserError, match=r"shapes='bones' is neither a folder nor one of the simulated shapes; .* lungs"):
        tiles_of("bones", 40, 40)


def test_references_smaller_than_a_tile(folder):
    with pytest.raises(UserError, match=r"a tile of 48 px is larger than reference mask 0 \(40 x 40 px\)"):
        tiles_of(folder(np.eye(40)), 40, 48)


def test_guided_maps_of_a_whole_image(started):
    """In an image of one crop's size the middle is what the network says there; the likeness is a softmax over the clusters' vectors."""
    method, params, carried, _ = started
    parts = method.transferable(params, carried)
    image = tiny.images(1, 40)[0]
    found = next(unlabelled.guided_maps(method, parts, meshes.make_mesh(jax.devices()[:1]), [image]))
    assert found.cluster.shape == found.likeness.shape == (40, 40)
    assert 0 <= found.cluster.min() <= found.cluster.max() <= 1
    vectors, clusters = np.random.default_rng(0).normal(size=(6, 5, 3)), np.random.default_rng(1).dirichlet(np.ones(2), (6, 5))
    ours = unlabelled._guided(clusters, vectors, 0.2)
    v = np.asarray(losses.unit(jnp.asarray(vectors)))
    z = np.asarray(losses.region_vectors(jnp.asarray(v)[None], jnp.asarray(clusters)[None])[0])
    np.testing.assert_allclose(ours.likeness, jax.nn.softmax(v @ z.T / 0.2, axis=-1)[..., 0], atol=1e-4)
    np.testing.assert_array_equal(ours.cluster, clusters[..., 0])


def test_soft_labels_are_sure_at_both_ends():
    share, inside = np.array([[0.0, 0.25, 0.5], [0.9, 1.0, 0.9]]), np.array([[True, True, True], [True, True, False]])
    kept = unlabelled.eight_bits(share, inside)
    label, confidence = np.moveaxis(refine.soft_label(kept, 0.5) / 255, -1, 0)
    np.testing.assert_allclose(label, [[0, 0.25, 0.5], [0.9, 1, 0]], atol=1 / 255)
    np.testing.assert_allclose(confidence, [[1, 0.5, 0], [0.8, 1, 1]], atol=2 / 255)
    label, confidence = np.moveaxis(refine.soft_label(kept, 0.25) / 255, -1, 0)
    np.testing.assert_allclose(label, [[0, 0.5, 0.75], [27 / 28, 1, 0]], atol=2 / 255)  # odds times 3
    np.testing.assert_allclose(confidence, [[1, 0, 0.5], [26 / 28, 1, 1]], atol=3 / 255)


def test_the_level_leaves_a_share_of_all_pixels_above():
    maps = [np.random.default_rng(k).integers(0, 256, (40, 50)).astype(np.uint8) for k in range(3)]
    for share in (0.1, 0.5, 0.8):
        found = unlabelled.level(maps, share)
        assert np.mean([m / 255 > found for m in maps]) == pytest.approx(share, abs=0.01)
    for same in (0, 255):
        assert 0 < unlabelled.level([np.full((4, 4), same, np.uint8)], 0.1) < 1


@pytest.mark.parametrize("pose", range(4))
def test_guided_maps_turn_with_the_image(started, pose):
    """Seen in every pose, a turned image has the turned map."""
    method, params, carried, _ = started
    parts, image = method.transferable(params, carried), tiny.images(1, 40)[0]
    turned = np.ascontiguousarray(np.rot90(image[:, ::-1], pose))
    one, other = unlabelled.guided_maps(method, parts, meshes.make_mesh(jax.devices()[:1]), [image, turned], range(8))
    np.testing.assert_allclose(other.cluster, np.rot90(one.cluster[:, ::-1], pose), atol=1e-5)


def test_field_of_view():
    """What is above 20 of 255 in one channel, and more than 4 px from what is not."""
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, :14, 1], image[:, 14:, 1] = 21, 20
    expected = np.arange(30) < 10
    np.testing.assert_array_equal(unlabelled.field_of_view(image), np.tile(expected, (20, 1)))
    np.testing.assert_array_equal(unlabelled.field_of_view(image.astype(np.uint16) * 257), np.tile(expected, (20, 1)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run on images of discs, with masks for the scores."""
    home = tmp_path_factory.mktemp("guided")
    for name in ("images", "masks"):
        (home / "data" / name).mkdir(parents=True)
    for number, disc in enumerate(tiny.discs(10, 40)[..., 0]):
        noise = np.random.default_rng(number).integers(0, 60, disc.shape)
        Image.fromarray((disc // 2 + noise).astype(np.uint8)).save(home / "data" / "images" / f"{number}.png")
        Image.fromarray(disc).save(home / "data" / "masks" / f"{number}.png")
    c = tiny.shrink(tiny.config("shape_guided"))
    c.data.path, c.method.shapes, c.method.references = str(home / "data"), str(home / "data" / "masks"), 4
    c.finetune.labels = "2 images"
    experiment.run(c, home / "run", "the command")
    return c, home / "run"


def test_a_run_leaves_a_mask_for_every_image(finished):
    _, run = finished
    masks = sorted((run / "segmentations").rglob("*.png"))
    assert [path.stem for path in masks] == [str(n) for n in range(10)]
    for path in masks:
        mask = np.asarray(Image.open(path))
        assert mask.shape == (40, 40)
        assert set(np.unique(mask)) <= {0, 255}
    assert (run / "figures" / "shapes.png").exists()
    assert (run / "figures" / "segmentations.png").exists()


def test_scores_without_labels_stand_beside_those_with(finished):
    c, run = finished
    rows = json.loads((run / "results.json").read_text())
    found = {row["init"]: row["value"] for row in rows if row["metric"] == "dice" and row["labels"] == 0}
    routes = {f"shape_guided/{route}" for route in ("cluster", "likeness", "refined")}
    assert routes <= set(found)
    truth = {path.stem: np.asarray(Image.open(path)) > 0 for path in (run.parent / "data" / "masks").iterdir()}
    dataset = open_dataset(c.data)
    tested = [Path(dataset.test[i]["id"]).stem for i in range(len(dataset.test))]
    ours = {stem: np.asarray(Image.open(run / "segmentations" / "images" / f"{stem}.png")) > 0 for stem in tested}
    expected = np.mean([2 * (truth[s] & ours[s]).sum() / max((truth[s].sum() + ours[s].sum()), 1) for s in tested])
    assert found["shape_guided/refined"] == pytest.approx(expected)
    table = report.summarise(rows, "dice")
    assert routes <= set(table.levels)
    assert routes.isdisjoint(table.inits)
    assert "without labels: the guided cluster" in report.to_text(table)


def test_masks_that_are_there_are_not_made_again(finished):
    c, run = finished
    before = (run / "segmentations" / "scores.json").stat().st_mtime_ns
    (run / "report.html").unlink()
    experiment.run(c, run, "the command")
    assert (run / "segmentations" / "scores.json").stat().st_mtime_ns == before
    assert (run / "report.html").exists()
