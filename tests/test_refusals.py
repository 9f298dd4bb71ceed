"""What the command refuses: one sentence for every mistake, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shell
import tiny
from shell import sentence


def refused(*flags: str, workdir: Path, config: str = "tower") -> str:
    """The sentence of a run that does not begin."""
    return sentence(shell.run(*shell.main(*flags, workdir=workdir, config=config)))


REFUSED = ("pretrain.batch=7", "data.tile=4096", "pretrain.from=/nowhere", "pretrain.optimizer.name=adan")


@pytest.mark.parametrize("option", REFUSED)
def test_a_refused_start_does_not_occupy_the_workdir(option, tmp_path):
    refused(f"--config.{option}", "--config.pretrain.accumulate=2", workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _empty(path: Path) -> Path:
    path.mkdir()
    return path


def _without_partner(path: Path) -> Path:
    tiny.folder(path)
    (path / "masks" / "cell0.png").rename(path / "masks" / "other.png")
    return path


def _damaged(path: Path) -> Path:
    tiny.folder(path)
    (path / "images" / "cell3.png").write_bytes((path / "images" / "cell3.png").read_bytes()[:60])
    return path


def _zero_bytes(path: Path) -> Path:
    tiny.folder(path)
    (path / "images" / "cell3.png").write_bytes(b"")
    return path


def _mixed(path: Path) -> Path:
    import tifffile

    tiny.folder(path, masks=False)
    tifffile.imwrite(path / "images" / "two.tif", np.zeros((2, 64, 64), np.uint8), metadata={"axes": "CYX"})
    return path


BAD_DATA = {
    "missing": (lambda p: p, "does not exist"),
    "empty": (_empty, "there is no image in"),
    "mask without image": (_without_partner, "other"),
    "damaged": (_damaged, "cell3.png"),
    "zero bytes": (_zero_bytes, "cell3.png"),
    "mixed channels": (_mixed, "two.tif"),
    "small images": (lambda p: tiny.folder(p, side=40), "tile"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data(kind, tmp_path):
    make, expected = BAD_DATA[kind]
    assert expected in refused(f"--config.data.path={make(tmp_path / 'data')}", workdir=tmp_path / "run")


def test_without_pretraining_and_without_labels_there_is_nothing_to_do(tmp_path):
    data = tiny.folder(tmp_path / "data", masks=False)
    said = refused(f"--config.data.path={data}", workdir=tmp_path / "run", config="supervised")
    assert "nothing to do without pretraining and without fine-tuning" in said
    assert not (tmp_path / "run").exists()


BAD_OPTIONS = {
    "--config.pretrain.stepz=3": "did you mean --config.pretrain.steps",
    "--config.method.temperature=-1.0": "config.method.temperature=-1.0 is out of range",
    "--config.method.proxy.zero_fraction=1.5": "zero_fraction",
    "--config.pretrain.steps=many": "steps=many cannot be read as a value of that option (int); its default is 400",
    "--config.data.window=(1,2": "its default is (0.5, 99.5)",
    "--config.data.window=": "() or two rising percentiles",
    "--config.data.source=npz": "needs a path; set --config.data.path",
    "--config.model.width=100000": "must be from 1 to 2048",
    "--config.views.size=64": "crop larger than the tiles",
    "--config.finetune.labels=three": "three",
    "--config.finetune.labels=99 images": "99",
    "--config.finetune.inits=simclr": "this run has random, tower",
    "--config.model.name=resnet51": "resnet50",
    "--config.method.name=towr": "tower",
    "--config.pretrain.from=nowhere": "no finished pretraining",
    "surplus": "'surplus' is not an option",
}


@pytest.mark.parametrize("flag", BAD_OPTIONS)
def test_bad_options(flag, tmp_path):
    assert BAD_OPTIONS[flag] in refused(flag, workdir=tmp_path / "run")


def test_a_failed_start_does_not_occupy_the_workdir(tmp_path):
    refused(f"--config.data.path={tmp_path / 'typo'}", workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("mine")
    assert "is a file; choose a folder" in refused(workdir=tmp_path / "run")


BAD_COMMANDS = {
    "--config=configs/nothing.py": "no config file 'configs/nothing.py'",
    "--config=pyproject.toml": "not a config file",
    "--config=configs/tower.py:big": "small or paper, not 'big'",
    "--config.pretrain.steps=3": "no config was given",
    "--config=configs/tower.py --process_count=2": "no process to join; add --coordinator=HOST:PORT",
    "--config configs/tower.py --config.pretrain.stepz=3": "did you mean --config.pretrain.steps",
    "--config=configs/spark.py --config.method.name=tower": "under config.method, which tower needs; use --config=configs/tower.py",
    "--config=configs/tower.py --data.path=images": "did you mean --config.data.path?",
    "--config=configs/tower.py --workdir=nowhere://bucket/run": "cannot be read (Protocol not known: nowhere",
    "--config=configs/tower.py --wrkdir=runs/mine": "did you mean --workdir?",
    "--config=configs/tower.py --coordinator=localhost --process_count=2 --process_index=0": "'localhost' is not HOST:PORT",
}


@pytest.mark.parametrize("flags", BAD_COMMANDS)
def test_bad_commands(flags):
    assert BAD_COMMANDS[flags] in sentence(shell.run("medssl_jax.main", *flags.split()))


def test_out_is_no_url():
    flags = ["--config=configs/tower.py", "--config.data.path=/nowhere", "--out=gs://bucket/packed"]
    assert "--out=gs://bucket/packed is a URL" in sentence(shell.run("medssl_jax.pack", *flags))


@pytest.mark.parametrize(("platform", "device"), [("tpu", "accel*"), ("cuda", "nvidia*")])
def test_a_platform_that_is_not_here(tmp_path, platform, device):
    if any(Path("/dev").glob(device)):
        pytest.skip(f"this machine has a device for {platform}")
    (result,) = shell.ended(shell.start(*shell.main(workdir=tmp_path / "run"), JAX_PLATFORMS=platform))
    assert "install what that platform needs" in sentence(result)


def test_batch_that_devices_cannot_divide(tmp_path):
    (result,) = shell.ended(shell.start(*shell.main(workdir=tmp_path / "run"), JAX_NUM_CPU_DEVICES="3"))
    assert "cannot be divided over 3 device(s)" in sentence(result)
