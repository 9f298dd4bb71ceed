"""The command from outside: the whole story on a small scale, finished and changed workdirs, and one sentence for every mistake."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from medssl_jax import workdir as workdirs
from medssl_jax.config import base

SMALL = [
    "--config.compilation_cache=",
    "--config.data.tile=48",
    "--config.views.size=32",
    "--config.model.width=2",
    "--config.model.depth=2",
    "--config.model.decoder_width=2",
    "--config.model.projection=(4, 4)",
    "--config.pretrain.steps=4",
    "--config.pretrain.batch=4",
    "--config.pretrain.log_every=2",
    "--config.pretrain.eval_every=4",
    "--config.pretrain.checkpoint_every=2",
    "--config.finetune.patch=32",
    "--config.finetune.steps=2",
    "--config.finetune.batch=4",
    "--config.finetune.eval_every=2",
    "--config.finetune.seeds=1",
]
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu"}


def command(*flags: str, workdir: Path | None = None) -> list[str]:
    where = [f"--workdir={workdir}"] if workdir else []
    return [sys.executable, "-m", "medssl_jax.main", "--config=configs/tower.py", *SMALL, *flags, *where]


def run(*flags: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(*flags, **options), cwd=tiny.ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def folder(path: Path, count: int = 8, side: int = 64, masks: bool = True, channels: int = 1) -> Path:
    """Images of blobs with their masks."""
    rng = np.random.default_rng(0)
    (path / "images").mkdir(parents=True)
    if masks:
        (path / "masks").mkdir()
    for i in range(count):
        mask = np.zeros((side, side), np.uint8)
        y, x = rng.integers(0, side // 2, 2)
        mask[y : y + side // 2, x : x + side // 2] = 255
        image = np.clip(mask[..., None] // 2 + rng.integers(0, 60, (side, side, channels)), 0, 255).astype(np.uint8)
        Image.fromarray(image.squeeze()).save(path / "images" / f"cell{i}.png")
        if masks:
            Image.fromarray(mask).save(path / "masks" / f"cell{i}.png")
    return path


def sentence(result: subprocess.CompletedProcess) -> str:
    """The one sentence of a refusal; fails on a traceback or a zero exit."""
    assert result.returncode != 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run on the built-in sample from end to end."""
    workdir = tmp_path_factory.mktemp("run") / "tower"
    result = run("--config.finetune.labels=1 patch, all", workdir=workdir)
    assert result.returncode == 0, result.stderr
    assert "TOWER, encoder only" in result.stdout
    return workdir


def test_the_run_leaves_its_record(finished):
    rows = json.loads((finished / "results.json").read_text())
    assert set(rows[0]) == {"experiment", "dataset", "task", "init", "labels", "label_unit", "subset", "seed", "metric", "value", "n"}
    dice = {(r["init"], r["labels"], r["label_unit"]) for r in rows if r["metric"] == "dice"}
    assert {(i, *a) for i in ("random", "tower", "tower/encoder") for a in ((1, "patch"), (1, "fraction"))} <= dice
    foreground = next(r["value"] for r in rows if r["init"] == "all foreground" and r["metric"] == "dice")
    assert foreground == pytest.approx(0.690, abs=0.001)  # the mean over test frames 2, 5 and 8
    assert {r["n"] for r in rows} == {3}
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64") >= 4
    assert "http://" not in page.split("<details")[0].replace("http://www.w3.org", "")
    assert list((finished / "tensorboard").iterdir())


def test_a_finished_run_says_so(finished):
    before = (finished / "results.json").stat().st_mtime_ns
    result = run("--config.finetune.labels=1 patch, all", "--config.data.threads=1", workdir=finished)
    assert result.returncode == 0
    assert "finished" in result.stderr
    assert (finished / "results.json").stat().st_mtime_ns == before


def test_a_workdir_of_another_config(finished):
    said = sentence(run("--config.finetune.labels=1 patch, all", "--config.seed=5", workdir=finished))
    assert "config.seed is 0 there and 5 here" in said


def test_fine_tuning_from_an_earlier_run(finished, tmp_path):
    flags = [f"--config.pretrain.from={finished}", "--config.finetune.labels=1 patch"]
    result = run(*flags, workdir=tmp_path / "again")
    assert result.returncode == 0, result.stderr
    value = {}
    for workdir in (finished, tmp_path / "again"):
        rows = json.loads((workdir / "results.json").read_text())
        value[workdir] = [r["value"] for r in rows if (r["init"], r["label_unit"], r["metric"]) == ("tower", "patch", "dice")]
    assert value[finished] == value[tmp_path / "again"]


def test_images_that_were_pretrained_on_do_not_test(finished, tmp_path):
    """Another config.data.seed draws other test images from a folder without a split."""
    data = folder(tmp_path / "data", count=12)
    flags = [f"--config.data.path={data}", "--config.finetune.labels=1 image", "--config.finetune.inits=tower"]
    first = run(*flags, workdir=tmp_path / "first")
    assert first.returncode == 0, first.stderr
    again = [*flags, f"--config.pretrain.from={tmp_path / 'first'}"]
    assert run(*again, workdir=tmp_path / "same").returncode == 0
    for path in [*(data / "images").iterdir(), *(data / "masks").iterdir()]:
        path.rename(path.with_name(f"renamed_{path.name}"))
    said = sentence(run(*again, "--config.data.seed=1", workdir=tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    assert re.search(r"\d of the 2 test images \(images/renamed_cell\d+\.png is the first\) were pretrained on in .*first", said)


def test_a_network_that_does_not_fit(finished, tmp_path):
    said = sentence(run(f"--config.pretrain.from={finished}", "--config.model.width=4", workdir=tmp_path / "wide"))
    assert "does not fit this network" in said
    said = sentence(run(f"--config.pretrain.from={finished}", "--config.model.width=5", workdir=tmp_path / "wide"))
    assert "does not fit this network" in said  # and not that the workdir holds another run: it had not begun


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk(finished, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    shutil.copy(finished / "config.json", workdir)
    (workdir / "pretrained.json.partial").symlink_to("/dev/full")  # what is written first of a file
    said = sentence(run("--config.finetune.labels=1 patch, all", workdir=workdir))
    assert "the disk is full" in said
    assert "start the same command again" in said


DAMAGED = {
    "config.json": ("[1]", "config.json is damaged; put back the one of this run, or choose another --workdir"),
    "pretrained.json": ("{", "pretrained.json is damaged; pretrain again in another --workdir"),
    "pretrained.json ": ('{"method": "tower"}', "pretrained.json does not tell its 'pool'"),
    "finetune/tower_1_patch_0.json ": ("{}", "tower_1_patch_0.json does not tell init, labels"),
    "finetune/tower_1_patch_0.json": ("{", "tower_1_patch_0.json is damaged; delete it and start the same command again"),
    "finetune/tower_1_patch_0.npz": ("x", "tower_1_patch_0.npz is damaged; delete it and tower_1_patch_0.json beside it"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_of_a_run_is_named(name, finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    (workdir / "report.html").unlink()
    (workdir / name.strip()).write_text(DAMAGED[name][0])
    assert DAMAGED[name][1] in sentence(run("--config.finetune.labels=1 patch, all", workdir=workdir))


@pytest.mark.parametrize("cut", [True, False])
def test_damaged_weights_are_named(cut, finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    for path in (workdir / "pretrained" / "d").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:50] if cut else bytes(255 - byte for byte in content))
    said = sentence(run(f"--config.pretrain.from={workdir}", workdir=tmp_path / "again"))
    assert "does not hold readable weights" in said
    assert "another --workdir" in said
    assert not (tmp_path / "again").exists()


def test_results_that_were_damaged_are_written_again(finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    (workdir / "results.json").write_text('[{"a":')
    result = run("--config.finetune.labels=1 patch, all", workdir=workdir)
    assert result.returncode == 0, result.stderr
    assert "results.json could not be read" in result.stderr
    assert "TOWER" in result.stdout
    again, before = (json.loads((folder / "results.json").read_text()) for folder in (workdir, finished))
    assert again == before


REFUSED = ("pretrain.batch=7", "data.tile=4096", "pretrain.from=/nowhere", "pretrain.optimizer.name=adan")


@pytest.mark.parametrize("option", REFUSED)
def test_a_refused_start_does_not_occupy_the_workdir(option, tmp_path):
    sentence(run(f"--config.{option}", "--config.pretrain.accumulate=2", workdir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_what_a_full_disk_cut_short_does_not_occupy_the_workdir(tmp_path):
    c = base()
    (tmp_path / "config.json.partial").write_text("{")
    workdirs.examine(tmp_path, c)
    assert not workdirs.claim(tmp_path, c)
    assert not workdirs.claim(tmp_path, c)  # nothing has begun
    (tmp_path / "metrics.jsonl").write_text("{}")
    assert workdirs.claim(tmp_path, c)


def test_killed_runs_continue_to_the_same_numbers(tmp_path):
    data = folder(tmp_path / "data")
    flags = [
        f"--config.data.path={data}",
        "--config.pretrain.steps=40",
        "--config.finetune.labels=1 patch, 1 image",
        "--config.pretrain.eval_every=40",
    ]
    whole = run(*flags, workdir=tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    for number, sent in enumerate((signal.SIGTERM, signal.SIGKILL)):
        process = subprocess.Popen(
            command(*flags, workdir=tmp_path / "cut"), cwd=tiny.ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        )
        wait_for(tmp_path / "cut" / "metrics.jsonl", lines=2 + 3 * number, process=process)
        process.send_signal(sent)
        process.communicate(timeout=120)
        assert process.returncode == (0 if sent == signal.SIGTERM else -signal.SIGKILL)
    result = run(*flags, "--config.data.threads=2", workdir=tmp_path / "cut")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "cut" / "results.json").read_text() == (tmp_path / "whole" / "results.json").read_text()


def wait_for(path: Path, lines: int, process: subprocess.Popen) -> None:
    limit = time.monotonic() + 200
    while time.monotonic() < limit and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= lines:
            return
        time.sleep(0.05)
    pytest.fail(f"the run never logged {lines} lines: {process.stderr.read() if process.stderr else ''}")


def test_unlabelled_folder_is_pretrained_only(tmp_path):
    data = folder(tmp_path / "data", masks=False)
    result = run(f"--config.data.path={data}", workdir=tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert "There will be no fine-tuning: the images have no labels" in result.stderr
    assert (tmp_path / "run" / "report.html").exists()


def _empty(path: Path) -> Path:
    path.mkdir()
    return path


def _without_partner(path: Path) -> Path:
    folder(path)
    (path / "masks" / "cell0.png").rename(path / "masks" / "other.png")
    return path


def _damaged(path: Path) -> Path:
    folder(path)
    (path / "images" / "cell3.png").write_bytes((path / "images" / "cell3.png").read_bytes()[:60])
    return path


def _zero_bytes(path: Path) -> Path:
    folder(path)
    (path / "images" / "cell3.png").write_bytes(b"")
    return path


def _mixed(path: Path) -> Path:
    import tifffile

    folder(path, masks=False)
    tifffile.imwrite(path / "images" / "two.tif", np.zeros((2, 64, 64), np.uint8), metadata={"axes": "CYX"})
    return path


BAD_DATA = {
    "missing": (lambda p: p, "does not exist"),
    "empty": (_empty, "there is no image in"),
    "mask without image": (_without_partner, "other"),
    "damaged": (_damaged, "cell3.png"),
    "zero bytes": (_zero_bytes, "cell3.png"),
    "mixed channels": (_mixed, "two.tif"),
    "small images": (lambda p: folder(p, side=40), "tile"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data(kind, tmp_path):
    make, expected = BAD_DATA[kind]
    said = sentence(run(f"--config.data.path={make(tmp_path / 'data')}", workdir=tmp_path / "run"))
    assert expected in said


def test_without_pretraining_and_with_unlabelled_images(tmp_path):
    """The control alone: random weights, helped by a mean teacher; the page tells that nothing was pretrained."""
    data, workdir = folder(tmp_path / "data"), tmp_path / "run"
    call = [flag.replace("tower.py", "supervised.py") for flag in command(f"--config.data.path={data}", workdir=workdir)]
    flags = ["--config.finetune.labels=1 image", "--config.finetune.unlabelled=True"]
    result = subprocess.run([*call, *flags], cwd=tiny.ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert {row["init"] for row in json.loads((workdir / "results.json").read_text())} == {"random", "all foreground", "otsu"}
    assert "was not pretrained" in (workdir / "report.html").read_text()
    assert not (workdir / "pretrained.json").exists()


def test_without_pretraining_and_without_labels_there_is_nothing_to_do(tmp_path):
    data = folder(tmp_path / "data", masks=False)
    call = [flag.replace("tower.py", "supervised.py") for flag in command(f"--config.data.path={data}", workdir=tmp_path / "run")]
    said = sentence(subprocess.run(call, cwd=tiny.ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300))
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
    assert BAD_OPTIONS[flag] in sentence(run(flag, workdir=tmp_path / "run"))


def test_a_failed_start_does_not_occupy_the_workdir(tmp_path):
    sentence(run(f"--config.data.path={tmp_path / 'typo'}", workdir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("mine")
    assert "is a file; choose a folder" in sentence(run(workdir=tmp_path / "run"))


BAD_COMMANDS = {
    "--config=configs/nothing.py": "no config file 'configs/nothing.py'",
    "--config=pyproject.toml": "not a config file",
    "--config=configs/tower.py:big": "small or paper, not 'big'",
    "--config.pretrain.steps=3": "no config was given",
    "--config=configs/tower.py --process_count=2": "no process to join; add --coordinator=HOST:PORT",
    "--config configs/tower.py --config.pretrain.stepz=3": "did you mean --config.pretrain.steps",
    "--config=configs/spark.py --config.method.name=tower": "under config.method, which tower needs; use --config=configs/tower.py",
    "--config=configs/tower.py --data.path=images": "did you mean --config.data.path?",
    "--config=configs/tower.py --wrkdir=runs/mine": "did you mean --workdir?",
}


@pytest.mark.parametrize("flags", BAD_COMMANDS)
def test_bad_commands(flags):
    call = [sys.executable, "-m", "medssl_jax.main", *flags.split()]
    result = subprocess.run(call, cwd=tiny.ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert BAD_COMMANDS[flags] in sentence(result)


def test_batch_that_devices_cannot_divide(tmp_path):
    environment = {**ENVIRONMENT, "JAX_NUM_CPU_DEVICES": "3"}
    result = subprocess.run(command(workdir=tmp_path / "r"), cwd=tiny.ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert "cannot be divided over 3 device(s)" in sentence(result)
