"""What is watched while pretraining: the state is only looked at, probes appear with labels, a collapse is said."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny

from medssl_jax.data.tiles import TileSource
from medssl_jax.monitor import Monitor, Sample, _cells


@pytest.fixture(scope="module")
def trainer():
    return tiny.Trainer(tiny.shrink(tiny.config("simclr")))


def samples(targets=None) -> tuple[Sample, Sample]:
    """Bright and dark images in turns, and what the probes should find: which they are, as a label or as a mask."""
    images, dark = tiny.images(32), np.arange(32) % 2
    images[dark == 1] //= 5
    given = {None: None, "labels": dark, "masks": np.broadcast_to(dark[:, None, None], (32, 28, 28))}[targets]
    known = np.arange(0 if given is None else 16)
    bank, queries = (Sample(images[half], known, np.array([]) if given is None else given[half]) for half in (slice(0, 16), slice(16, 32)))
    return bank, queries


def watch(trainer, targets=None) -> Monitor:
    return Monitor(trainer.method, trainer.mesh, *samples(targets), batch=8)


def test_the_state_is_only_looked_at(trainer):
    state = trainer.start(jax.random.key(0))
    before = jax.device_get(state.params)
    monitor = watch(trainer)
    first, second = monitor(state), monitor(state)
    assert first == second
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.params), strict=True))
    assert {"collapse/backbone_std_sqrt_d", "collapse/projector_mean_cosine"} <= first.keys()
    assert not any(name.startswith("probe/") for name in first)


@pytest.mark.parametrize("targets", ["labels", "masks"])
def test_probes_where_labels_exist(trainer, targets):
    found = watch(trainer, targets)(trainer.start(jax.random.key(0)))
    assert 0.7 < found["probe/knn"] <= 1
    assert 0.7 < found["probe/ridge"] <= 1


def test_a_collapse_is_said_with_what_to_do(trainer, capsys):
    state = trainer.start(jax.random.key(0))
    dead = jax.tree.map(jax.numpy.zeros_like, state.params["encoder"])
    monitor = watch(trainer)
    monitor(state.replace(params={**state.params, "encoder": dead}))
    assert monitor.warning is not None
    assert monitor.warning in capsys.readouterr().err
    assert "config." in monitor.warning
    first = monitor.warning
    monitor(state)
    assert monitor.warning != first  # it says what is wrong now


def test_the_panel_reads_all_tiles_and_the_probes_the_labelled_ones(trainer):
    images = tiny.images(12)
    source = [{"image": image, "id": str(i), **({"mask": image[..., 0] > 99} if i == 5 else {})} for i, image in enumerate(images)]
    drawn = Sample.draw(TileSource(source, 28, kind="grid"), seed=0)
    assert len(drawn.images) == 12
    assert drawn.labelled.tolist() == [5]
    np.testing.assert_array_equal(drawn.targets, [images[5, ..., 0] > 99])
    found = Monitor(trainer.method, trainer.mesh, drawn, drawn, batch=4)(trainer.start(jax.random.key(0)))
    assert found["collapse/backbone_n"] == 12
    assert found["probe/knn"] > 0.5
    assert len(Sample.draw(TileSource(source[:5], 28, kind="grid"), seed=0).labelled) == 0


@pytest.mark.parametrize("depth", [4, 8])
def test_a_decoder_that_repeats_itself_is_said(depth, capsys):
    """A decoder whose kernels have the same weights for every channel."""
    c = tiny.shrink(tiny.config("tower"))
    c.model.decoder_width = depth
    trainer = tiny.Trainer(c)
    state = trainer.start(jax.random.key(0))
    monitor = watch(trainer)
    healthy = monitor(state)["collapse/decoded_directions"]
    assert healthy > 2
    assert monitor.warning is None
    copied = jax.tree.map(lambda x: jax.numpy.broadcast_to(x[..., :1], x.shape), state.params["decoder"])
    assert monitor(state.replace(params={**state.params, "decoder": copied}))["collapse/decoded_directions"] == pytest.approx(1, abs=1e-3)
    assert f"uses 1.0 of {depth} directions" in monitor.warning
    assert "raise config.method.decorrelation" in monitor.warning
    assert monitor.warning in capsys.readouterr().err


def test_a_decoder_that_is_not_transferred_is_not_looked_at():
    c = tiny.shrink(tiny.config("tower"))
    c.method.restoration_weight = 0.0
    trainer = tiny.Trainer(c)
    assert "collapse/decoded_directions" not in watch(trainer)(trainer.start(jax.random.key(0)))


def test_all_that_is_wrong_is_kept():
    """A dead encoder leaves nothing to decode either."""
    trainer = tiny.Trainer(tiny.shrink(tiny.config("tower")))
    state = trainer.start(jax.random.key(0))
    dead = jax.tree.map(jax.numpy.zeros_like, state.params)
    monitor = watch(trainer)
    monitor(state.replace(params=dead))
    assert "The decoder's channels" in monitor.warning
    assert "The features are collapsing" in monitor.warning


def test_features_that_are_no_numbers_are_left_to_the_loop(trainer):
    state = trainer.start(jax.random.key(0))
    spoilt = jax.tree.map(lambda x: x * jax.numpy.nan, state.params["encoder"])
    assert watch(trainer, "labels")(state.replace(params={**state.params, "encoder": spoilt})) == {}


def test_one_tile_has_no_panel(trainer):
    alone = Sample(tiny.images(1), np.arange(0), np.array([]))
    assert Monitor(trainer.method, trainer.mesh, alone, None, batch=4)(trainer.start(jax.random.key(0))) == {}


def test_probes_look_all_over_the_maps():
    """A map whose left half is another class than its right: cells from one column alone could not tell."""
    columns = np.broadcast_to(np.arange(12.0)[None, None, :, None], (512, 12, 12, 1))
    masks = np.broadcast_to(np.repeat(np.arange(12) >= 6, 2)[None, None], (512, 24, 24)).astype(int)
    vectors, classes = _cells(columns, masks)
    assert len(vectors) == len(classes) == 2048
    np.testing.assert_array_equal(classes, vectors[:, 0] >= 6)
    assert set(vectors[:, 0]) == set(range(12))


def test_clusters_that_collapse_are_said_in_the_second_stage(capsys):
    """A bias that gives every pixel to the first cluster: only balance could undo it, and the warning says so."""
    trainer = tiny.Trainer(tiny.shrink(tiny.config("local_discrimination")))
    state = trainer.start(jax.random.key(0))
    head = state.params["cluster"]
    bias = jax.numpy.array([20.0, -20.0, -20.0])
    taken = {**state.params, "cluster": {**head, "conv2": {**head["conv2"], "bias": bias}}}
    monitor = watch(trainer)
    healthy = monitor(state)
    assert healthy["collapse/clusters"] > 1.5
    assert monitor(state.replace(params=taken))["collapse/clusters"] < 1.1
    assert "balance" not in capsys.readouterr().err  # in the first stage nothing teaches the clusters
    found = monitor(state.replace(params=taken, step=jax.numpy.int32(3)))
    assert found["collapse/largest_cluster"] > 0.99
    assert "raise config.method.weights.balance" in monitor.warning
    assert monitor.warning in capsys.readouterr().err
