"""The command from outside: the whole story on a small scale, finished, changed, damaged and killed runs."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import shell
import tiny
from shell import sentence

from medssl_jax import workdir as workdirs
from medssl_jax.config import base


def run(*flags: str, **options) -> subprocess.CompletedProcess:
    return shell.run(*shell.main(*flags, **options))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run on the built-in sample from end to end."""
    workdir = tmp_path_factory.mktemp("run") / "tower"
    (result,) = shell.ended(shell.start(*shell.main("--config.finetune.labels=1 patch, all", workdir=workdir)))
    assert "TOWER, encoder only" in shell.finished(result).stdout
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


def test_a_workdir_of_an_older_version(finished, tmp_path):
    """Whose config has not all of today's options."""
    older = shutil.copytree(finished, tmp_path / "older")
    config = json.loads((older / "config.json").read_text())
    del config["method"]["decorrelation"]
    (older / "config.json").write_text(json.dumps(config))
    said = sentence(run("--config.finetune.labels=1 patch, all", workdir=older))
    assert "config.method.decorrelation is not an option there and 0.3 here" in said


def test_fine_tuning_from_an_earlier_run(finished, tmp_path):
    flags = [f"--config.pretrain.from={finished}", "--config.finetune.labels=1 patch", "--config.finetune.inits=tower"]
    shell.finished(run(*flags, workdir=tmp_path / "again"))
    value = {}
    for workdir in (finished, tmp_path / "again"):
        rows = json.loads((workdir / "results.json").read_text())
        value[workdir] = [r["value"] for r in rows if (r["init"], r["label_unit"], r["metric"]) == ("tower", "patch", "dice")]
    assert value[finished] == value[tmp_path / "again"]


def test_images_that_were_pretrained_on_do_not_test(tmp_path):
    """Another config.data.seed draws other test images from a folder without a split."""
    data = tiny.folder(tmp_path / "data", count=12)
    flags = [f"--config.data.path={data}", "--config.finetune.labels=1 image", "--config.finetune.inits=tower"]
    shell.finished(run(*flags, workdir=tmp_path / "first"))
    again = [*flags, f"--config.pretrain.from={tmp_path / 'first'}"]
    shell.finished(run(*again, workdir=tmp_path / "same"))
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
    result = shell.finished(run("--config.finetune.labels=1 patch, all", workdir=workdir))
    assert "results.json could not be read" in result.stderr
    assert "TOWER" in result.stdout
    again, before = (json.loads((folder / "results.json").read_text()) for folder in (workdir, finished))
    assert again == before


def test_what_a_full_disk_cut_short_does_not_occupy_the_workdir(tmp_path):
    c = base()
    (tmp_path / "config.json.partial").write_text("{")
    workdirs.examine(tmp_path, c)
    assert not workdirs.claim(tmp_path, c)
    assert not workdirs.claim(tmp_path, c)  # nothing has begun
    (tmp_path / "metrics.jsonl").write_text("{}")
    assert workdirs.claim(tmp_path, c)


def test_killed_runs_continue_to_the_same_numbers(tmp_path):
    data = tiny.folder(tmp_path / "data")
    flags = [
        f"--config.data.path={data}",
        "--config.pretrain.steps=40",
        "--config.finetune.labels=1 patch, 1 image",
        "--config.pretrain.eval_every=40",
    ]
    shell.finished(run(*flags, workdir=tmp_path / "whole"))
    for number, sent in enumerate((signal.SIGTERM, signal.SIGKILL)):
        process = shell.start(*shell.main(*flags, "--stopped_code=75", workdir=tmp_path / "cut"))
        shell.wait_for(tmp_path / "cut" / "metrics.jsonl", lines=2 + 3 * number, process=process)
        process.send_signal(sent)
        (left,) = shell.ended(process)
        assert left.returncode == (75 if sent == signal.SIGTERM else -signal.SIGKILL)
    shell.finished(run(*flags, "--config.data.threads=2", workdir=tmp_path / "cut"))
    assert (tmp_path / "cut" / "results.json").read_text() == (tmp_path / "whole" / "results.json").read_text()


def test_a_second_run_compiles_nothing_that_the_first_has(tmp_path):
    data, cache = tiny.folder(tmp_path / "data", masks=False), tmp_path / "cache"
    least = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    found = []
    for name in ("first", "second"):
        flags = [f"--config.data.path={data}", f"--config.compilation_cache={cache}"]
        (ended,) = shell.ended(shell.start(*shell.main(*flags, workdir=tmp_path / name), **least))
        shell.finished(ended)
        found.append({path.name for path in cache.iterdir() if not path.name.endswith("-atime")})
    assert found[0]
    assert found[1] == found[0]


def test_unlabelled_folder_is_pretrained_only(tmp_path):
    data = tiny.folder(tmp_path / "data", masks=False)
    result = shell.finished(run(f"--config.data.path={data}", workdir=tmp_path / "run"))
    assert "There will be no fine-tuning: the images have no labels" in result.stderr
    assert (tmp_path / "run" / "report.html").exists()


def test_without_pretraining_and_with_unlabelled_images(tmp_path):
    """The control alone: random weights, helped by a mean teacher; the page tells that nothing was pretrained."""
    data, workdir = tiny.folder(tmp_path / "data"), tmp_path / "run"
    flags = [f"--config.data.path={data}", "--config.finetune.labels=1 image", "--config.finetune.unlabelled=True"]
    shell.finished(run(*flags, config="supervised", workdir=workdir))
    assert {row["init"] for row in json.loads((workdir / "results.json").read_text())} == {"random", "all foreground", "otsu"}
    assert "was not pretrained" in (workdir / "report.html").read_text()
    assert not (workdir / "pretrained.json").exists()
