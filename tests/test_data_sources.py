"""Folders, arrays, records and the sample become one kind of data set; what does not fit becomes a sentence."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from medssl_jax.config import base
from medssl_jax.data.sources import describe, open_dataset
from medssl_jax.errors import UserError


def opened(path="", **changes):
    config = base().data
    config.update({"path": str(path), **changes})
    return open_dataset(config)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def gray(value, shape=(20, 24)):
    return np.full(shape, value, np.uint8)


def segmentation(root, count=10, unlabelled=0):
    for i in range(count + unlabelled):
        save(root / "images" / f"{i:02d}.png", gray(i))
    for i in range(count):
        labels = np.zeros((20, 24), np.uint16)
        labels[:5, :6], labels[10:, :] = 1, 700 + i
        save(root / "masks" / f"{i:02d}_mask.png", labels)
    return root


def values(source):
    return [int(source[i]["image"][0, 0, 0]) for i in range(len(source))]


def test_a_plain_folder_is_a_pool_without_labels(tmp_path):
    for i, name in enumerate(["a.png", "deep/er/b.png", "deep/c.tif", ".hidden.png", "__MACOSX/d.png"]):
        (save if name.endswith("png") else lambda p, a: tifffile.imwrite(p, a))(tmp_path / name, gray(i))
    (tmp_path / "notes.txt").write_text("no image")
    data = opened(tmp_path)
    assert (data.task, data.classes, data.channels, data.dtype) == ("none", (), 1, np.uint8)
    assert [len(data.pool), len(data.val), len(data.test)] == [3, 0, 0]
    assert [data.pool[i]["id"] for i in range(3)] == ["a.png", "deep/c.tif", "deep/er/b.png"]
    assert values(data.pool) == [0, 2, 1]
    assert set(data.pool[0]) == {"image", "id"}


def test_masks_become_foreground_and_unmasked_images_serve_pretraining(tmp_path):
    data = opened(segmentation(tmp_path, 10, unlabelled=3))
    assert (data.task, data.classes) == ("segmentation", ("background", "foreground"))
    assert [len(data.pool), len(data.val), len(data.test)] == [9, 2, 2]
    assert sorted(values(data.pool) + values(data.val) + values(data.test)) == list(range(13))
    example = data.test[0]
    assert example["mask"].dtype == np.int32
    assert example["mask"].sum() == 5 * 6 + 10 * 24
    assert sum("mask" in data.pool[i] for i in range(9)) == 6
    assert any("3 of 9 training images have no mask" in note for note in data.notes)


def test_masks_as_classes_and_task_none(tmp_path):
    for i in range(3):
        save(tmp_path / "images" / f"{i}.png", gray(i))
        save(tmp_path / "masks" / f"{i}.png", gray(i))
    data = opened(tmp_path, mask="classes")
    assert data.classes == ("background", "class 1", "class 2")
    found = {int(s[i]["mask"][0, 0]) for s in (data.pool, data.val, data.test) for i in range(len(s))}
    assert found == {0, 1, 2}
    data = opened(tmp_path, task="none")
    assert (data.task, len(data.pool), len(data.test)) == ("none", 3, 0)
    assert "mask" not in data.pool[0]


def test_class_folders_in_the_parts_they_are_in(tmp_path):
    for part, count in (("train", 4), ("valid", 2), ("test", 2)):
        for k, name in enumerate(["benign", "malignant"]):
            for i in range(count):
                save(tmp_path / part / name / f"{i}.jpg", gray(40 * k, (30, 40)))
    save(tmp_path / "preview.png", gray(9))
    data = opened(tmp_path, tile=16)
    assert (data.task, data.classes) == ("classification", ("benign", "malignant"))
    assert [len(data.pool), len(data.val), len(data.test)] == [8, 4, 4]
    for source in (data.pool, data.val, data.test):
        for i in range(len(source)):
            assert abs(int(source[i]["image"].mean()) - 40 * source[i]["label"]) < 4
    assert data.pool[0]["image"].shape == (16, 21, 1)  # the shorter side is scaled to the tile


def test_class_folders_without_parts_are_split_by_class(tmp_path):
    for name, count in (("a", 20), ("b", 10)):
        for i in range(count):
            save(tmp_path / name / f"{i}.png", gray(i))
    data = opened(tmp_path)
    labels = {part: [source[i]["label"] for i in range(len(source))] for part, source in (("val", data.val), ("test", data.test))}
    assert sorted(labels["test"]) == [0] * 4 + [1] * 2
    assert len(labels["val"]) == 4
    assert labels["val"].count(0) in (2, 3)
    same, other = opened(tmp_path), opened(tmp_path, seed=1)
    ids = [[d.test[i]["id"] for i in range(len(d.test))] for d in (data, same, other)]
    assert ids[0] == ids[1] != ids[2]


def test_folders_of_single_images_are_no_classes(tmp_path):
    for i in range(4):
        save(tmp_path / f"case{i}" / "image.png", gray(i))
    data = opened(tmp_path)
    assert data.task == "none"
    assert any("are not read as classes, because they hold fewer than two images" in note for note in data.notes)


def test_a_loose_image_beside_class_folders_is_named(tmp_path):
    for name in "ab":
        for i in range(3):
            save(tmp_path / name / f"{i}.png", gray(i))
    save(tmp_path / "loose.png", gray(9))
    data = opened(tmp_path)
    assert data.task == "none"
    assert "the folders a, b are not read as classes, because loose.png lies outside of them" in data.notes


@pytest.mark.parametrize(("images", "masks"), [("Images", "Labels"), ("img", "gt"), ("images", "annotations"), ("", "Masks")])
def test_other_names_of_the_two_folders(tmp_path, images, masks):
    for i in range(6):
        save(tmp_path / images / f"{i}.png", gray(i))
        save(tmp_path / masks / f"{i}.png", gray(i % 2))
    data = opened(tmp_path)
    assert data.task == "segmentation"
    assert len(data.pool) + len(data.val) + len(data.test) == 6


def test_masks_that_number_no_classes(tmp_path):
    with pytest.raises(UserError, match=r"would make 710 classes of set.*mask=foreground"):
        opened(segmentation(tmp_path / "set"), mask="classes")


def test_many_channels_are_told(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((7, 32, 40), np.uint8), photometric="minisblack")
    assert "stack.tif is read as one image of 7 channels" in opened(tmp_path).notes


def test_masks_beside_their_images(tmp_path):
    for i in range(6):
        save(tmp_path / f"cell{i}.png", gray(i))
        save(tmp_path / f"cell{i}_mask.png", gray(i % 2))
    save(tmp_path / "lonely_mask.png", gray(7))  # belongs to no image here: an image itself
    data = opened(tmp_path)
    assert data.task == "segmentation"
    assert len(data.pool) + len(data.val) + len(data.test) == 7
    assert len(opened(tmp_path, task="none").pool) == 7


def test_a_table_gives_the_parts(tmp_path):
    root = segmentation(tmp_path / "set", 6)
    rows = ["name,split", "00,train", "01,test", "02.png,test", "images/03.png,val", "04,Training"]
    (tmp_path / "splits.csv").write_text("\n".join(rows))
    data = opened(root, splits=str(tmp_path / "splits.csv"))
    assert [values(data.pool), values(data.val), values(data.test)] == [[0, 4, 5], [3], [1, 2]]
    assert any("1 images that splits.csv does not name" in note for note in data.notes)


def test_an_index_beside_the_images_is_used_and_completed(tmp_path):
    root = segmentation(tmp_path, 10)
    (root / "masks_2nd_observer").mkdir()
    save(root / "preview.png", gray(99))
    (root / "index.csv").write_text("name,repo_split\n" + "\n".join(f"{i:02d},{'test' if i < 3 else 'train'}" for i in range(10)))
    data = opened(root)
    assert values(data.test) == [0, 1, 2]
    assert [len(data.pool), len(data.val)] == [6, 1]
    assert any("index.csv" in note for note in data.notes)
    assert any("no labelled val images" in note for note in data.notes)


def test_unlabelled_test_images_never_train(tmp_path):
    for part in ("train", "test"):
        segmentation(tmp_path / part, 4, unlabelled=2)
    data = opened(tmp_path)
    assert all(data.pool[i]["id"].startswith("train") for i in range(len(data.pool)))
    assert len(data.test) == 4
    assert any("2 images of the given val and test parts have no labels" in note for note in data.notes)


def test_gray_beside_rgb_and_8_bit_beside_16(tmp_path, rng):
    color = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    save(tmp_path / "c" / "gray.png", gray(7))
    save(tmp_path / "c" / "rgb.png", color)
    data = opened(tmp_path / "c")
    assert data.channels == 3
    assert "1 gray images are read as RGB because 1 others are RGB" in data.notes[0]
    np.testing.assert_array_equal(data.pool[0]["image"], np.full((20, 24, 3), 7))
    assert opened(tmp_path / "c", color="gray").pool[1]["image"].shape == (20, 20, 1)
    save(tmp_path / "d" / "8.png", gray(7))
    save(tmp_path / "d" / "16.png", rng.integers(0, 4000, (20, 20), dtype=np.uint16))
    data = opened(tmp_path / "d")
    assert data.dtype == np.uint16
    assert data.pool[0]["image"].max() == 65535
    np.testing.assert_array_equal(np.unique(data.pool[1]["image"]), [7 * 257])


def test_other_mixtures_of_channels_name_two_files(tmp_path):
    tifffile.imwrite(tmp_path / "one.tif", gray(1))
    tifffile.imwrite(tmp_path / "two.tif", np.zeros((2, 20, 24), np.uint8), photometric="minisblack")
    with pytest.raises(UserError, match=r"one\.tif: 1, two\.tif: 2.*separate folders"):
        opened(tmp_path)


def test_damaged_files_stop_or_are_skipped_and_named(tmp_path):
    for i in range(4):
        save(tmp_path / f"{i}.png", gray(i))
    (tmp_path / "1.png").write_bytes(b"")
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[:-30])
    with pytest.raises(UserError, match=r"1\.png cannot be read as an image: it is empty.*2 such files"):
        opened(tmp_path)
    data = opened(tmp_path, on_damaged="skip")
    assert values(data.pool) == [0, 3]
    assert any("2 unreadable images were left out: 1.png, 2.png" in note for note in data.notes)
    assert len(data.damaged) == 2
    for i in (0, 3):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 4 images"):
        opened(tmp_path, on_damaged="skip")


def test_masks_that_do_not_fit_their_images(tmp_path):
    root = segmentation(tmp_path / "lost", 3)
    save(root / "masks" / "other.png", gray(1))
    with pytest.raises(UserError, match=r"1 of 4 masks in .* belong to no image \(other\.png\)"):
        opened(root)
    root = segmentation(tmp_path / "size", 3)
    save(root / "masks" / "01_mask.png", gray(1, (10, 24)))
    with pytest.raises(UserError, match=r"01_mask\.png is 10 x 24 px, its image 20 x 24 px"):
        opened(root)
    root = segmentation(tmp_path / "two", 3)
    save(root / "masks" / "01.png", gray(1))
    with pytest.raises(UserError, match="are both masks of"):
        opened(root)


def test_missing_empty_and_wrong_places(tmp_path):
    with pytest.raises(UserError, match="nowhere' does not exist"):
        opened(tmp_path / "nowhere")
    with pytest.raises(UserError, match="there is no image in"):
        opened(tmp_path)
    with pytest.raises(UserError, match="is a file, not a folder"):
        opened(save(tmp_path / "a.png", gray(1)))
    with pytest.raises(UserError, match="'zarr' is unknown; choose one of auto, sample, folder, npz, tfds"):
        opened(tmp_path, source="zarr")
    with pytest.raises(UserError, match="needs masks"):
        opened(tmp_path, task="segmentation")
    with pytest.raises(UserError, match="no classes were found"):
        opened(tmp_path, task="classification")


def test_tables_that_do_not_fit(tmp_path):
    root = segmentation(tmp_path / "set", 3)
    table = tmp_path / "t.csv"
    for text, message in (
        ("name,split\n99,train", "names '99', which is no image"),
        ("name,split\n00,holdout", "the split 'holdout'"),
        ("file,part\n00,train", "has the columns file, part"),
        ("name;split\n00;train", "needed are .* with commas"),
        ("name,split\n00,train\n00,test", "puts 00 into both train and test"),
        ("name,split\n00,train\n01", r"line 3 of .* \(01\) is cut short"),
        ("", r"has the columns \(none\)"),
        ("name,split\n", "names no image"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=message):
            opened(root, splits=str(table))
    table.write_bytes("name,split\nZellgröße,train".encode("latin-1"))
    with pytest.raises(UserError, match="not in UTF-8"):
        opened(root, splits=str(table))
    with pytest.raises(UserError, match="is a folder; name a CSV"):
        opened(root, splits=str(tmp_path))
    with pytest.raises(UserError, match="does not exist; it is a CSV"):
        opened(root, splits=str(tmp_path / "none.csv"))


def test_a_class_without_training_images(tmp_path):
    for part, names in (("train", "ab"), ("test", "abc")):
        for name in names:
            for i in range(3):
                save(tmp_path / part / name / f"{i}.png", gray(i))
    with pytest.raises(UserError, match=r"the class 'c' .* has no training image"):
        opened(tmp_path)


def medmnist(path, **changes):
    arrays = {f"{p}_images": np.full((n, 28, 28), n, np.uint8) for p, n in (("train", 9), ("val", 4), ("test", 5))}
    arrays |= {f"{p}_labels": np.arange(n)[:, None] % 3 for p, n in (("train", 9), ("val", 4), ("test", 5))}
    np.savez(path, **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
    return path


def test_arrays_in_medmnist_layout(tmp_path):
    data = opened(medmnist(tmp_path / "tiny.npz"), tile=28)
    assert (data.name, data.task, data.classes, data.channels) == ("tiny", "classification", ("0", "1", "2"), 1)
    assert [len(data.pool), len(data.val), len(data.test)] == [9, 4, 5]
    assert [data.test[i]["label"] for i in range(5)] == [0, 1, 2, 0, 1]
    np.testing.assert_array_equal(data.test[0]["image"], np.full((28, 28, 1), 5))
    assert opened(tmp_path / "tiny.npz", tile=64).pool[0]["image"].shape == (64, 64, 1)
    assert opened(tmp_path / "tiny.npz", task="none").task == "none"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": None}, "has no train_images but"),
        ({"val_labels": None}, "has val_images but no val_labels"),
        ({"train_labels": np.zeros((9, 14), int)}, r"train_labels in .* has the shape \(9, 14\) for 9 images"),
        ({"train_images": np.zeros((9, 8, 8, 8), np.uint8)}, "volumes are not read"),
        ({"test_images": np.zeros((0, 8, 8), np.uint8), "test_labels": np.zeros(0, int)}, "test_images .* holds no image"),
        ({"train_labels": np.linspace(0, 1, 9)}, "holds float64 labels; a class is a whole number"),
        ({"train_labels": np.array(["cat"] * 9)}, "holds <U3 labels"),
        ({"train_labels": np.arange(9) - 1}, "holds the label -1"),
    ],
)
def test_arrays_that_are_not_medmnist(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        opened(medmnist(tmp_path / "bad.npz", **changes))


@pytest.mark.parametrize("kind", ["sample", "masks", "classes", "npz"])
def test_no_image_is_in_two_parts(kind, tmp_path):
    if kind == "classes":
        for i in range(20):
            save(tmp_path / "set" / "ab"[i % 2] / f"{i}.png", np.full((20, 20), i, np.uint8))
    path = {"sample": lambda: "", "masks": lambda: segmentation(tmp_path / "set", 12), "npz": lambda: medmnist(tmp_path / "set.npz")}
    data = opened(path.get(kind, lambda: tmp_path / "set")(), tile=16)
    parts = [[describe(part, i).id for i in range(len(part))] for part in (data.pool, data.val, data.test)]
    every = [name for part in parts for name in part]
    assert all(parts)
    assert len(every) == len(set(every))


def test_a_damaged_npz(tmp_path):
    path = medmnist(tmp_path / "cut.npz")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"cut\.npz is not an archive of named arrays, or not whole"):
        opened(path)
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="is not an archive"):
        opened(tmp_path / "one.npz")
    with pytest.raises(UserError, match="is a folder, not an "):
        opened(tmp_path, source="npz")
    whole = medmnist(tmp_path / "whole.npz")
    with pytest.raises(UserError, match=r"config\.data\.splits='s\.csv' is for folders of images; npz brings its own parts"):
        opened(whole, splits="s.csv")
    arrays = dict(np.load(whole))
    np.savez(tmp_path / "few.npz", **{**arrays, "train_labels": arrays["train_labels"][:3]})
    with pytest.raises(UserError, match=r"train_labels in .* holds 3 labels for \d+ images; give every image one"):
        opened(tmp_path / "few.npz")
    np.savez(tmp_path / "new.npz", **{**arrays, "test_labels": arrays["test_labels"] + 7})
    with pytest.raises(UserError, match=r"the label \d+ of .*new\.npz is in no training image"):
        opened(tmp_path / "new.npz")
    np.savez(tmp_path / "objects.npz", train_images=np.array([{}], object))
    with pytest.raises(UserError, match="holds Python objects, not numbers"):
        opened(tmp_path / "objects.npz")


def test_a_folder_that_holds_an_npz_alone(tmp_path):
    medmnist(tmp_path / "set.npz")
    with pytest.raises(UserError, match=r"but set\.npz; read it with --config\.data\.path=.*set\.npz"):
        opened(tmp_path)


BUILDER = """
import io, sys
import numpy as np, tensorflow_datasets as tfds
from PIL import Image

def png(value, shape):
    file = io.BytesIO()
    Image.fromarray(np.full(shape, value, np.uint8)).save(file, "PNG")
    file.seek(0)
    return file

class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), dtype=np.uint8)
        mask = tfds.features.Image(shape=(None, None, 1), dtype=np.uint8)
        label = tfds.features.ClassLabel(names=["a", "b"])
        kind = {"segmentation_mask": mask} if sys.argv[2] == "mask" else {"label": label}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image": image, **kind}), citation="cite me")

    def _split_generators(self, manager):
        return {"train": self._generate_examples(8), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            kind = {"segmentation_mask": png(i % 2 * 255, (20, 24))} if sys.argv[2] == "mask" else {"label": i % 2}
            yield i, {"image": png(i, (20, 24, 3)), **kind}

Tiny(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
"""


def prepared(folder, kind):
    """A TFDS set, written by a process of its own: a builder class registers itself globally."""
    subprocess.run([sys.executable, "-c", BUILDER, str(folder), kind], check=True, capture_output=True, cwd=folder)
    return folder


def test_tfds_records_are_read_without_tensorflow(tmp_path):
    data = opened(prepared(tmp_path, "label"), tfds_name="tiny", tile=20)
    assert (data.name, data.task, data.classes, data.channels, data.citation) == ("tiny", "classification", ("a", "b"), 3, "cite me")
    assert [len(data.pool), len(data.val), len(data.test)] == [7, 1, 4]
    found = sorted((int(e["image"][0, 0, 0]), e["label"]) for e in (data.test[i] for i in range(4)))
    assert found == [(0, 0), (1, 1), (2, 0), (3, 1)]
    assert "tensorflow" not in sys.modules
    assert opened(tmp_path / "tiny" / "1.0.0", tile=20).task == "classification"


def test_tfds_masks_and_missing_sets(tmp_path):
    data = opened(prepared(tmp_path, "mask"), source="tfds", tfds_name="tiny")
    assert data.task == "segmentation"
    for i in range(4):
        example = data.test[i]
        assert example["mask"].shape == (20, 24)
        assert (example["mask"] == example["image"][0, 0, 0] % 2).all()
    with pytest.raises(UserError, match="no prepared TFDS set was found"):
        opened(tmp_path, tfds_name="other")
    with pytest.raises(UserError, match="does not exist"):
        opened(tmp_path / "nowhere", tfds_name="tiny")


def test_the_sample_is_what_its_description_says():
    data = opened()
    assert (data.name, data.task, data.channels, data.dtype, data.licence) == ("sample", "segmentation", 1, np.uint16, "BSD-3-Clause")
    frames = [[s[i]["id"] for i in range(len(s))] for s in (data.pool, data.val, data.test)]
    assert frames == [[f"frame {i}" for i in (0, 1, 3, 6, 7, 9)], ["frame 4"], [f"frame {i}" for i in (2, 5, 8)]]
    every = [s[i] for s in (data.pool, data.val, data.test) for i in range(len(s))]
    shares = np.array([e["mask"].mean() for e in every])
    assert abs((2 * shares / (1 + shares)).mean() - 0.647) < 0.001  # Dice of foreground everywhere
    for example in every:
        assert example["image"].shape == (210, 576, 1)
        assert (example["image"].min(), example["image"].max()) == (0, 65535)


def test_the_sample_is_found_without_importing_its_package():
    code = "import sys; from medssl_jax.data.sample import open_sample; open_sample(); sys.exit('ndev_sampledata' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1]).returncode == 0


@pytest.mark.parametrize(
    ("name", "task", "sizes", "channels"),
    [
        ("dsb2018_nuclei", "segmentation", (431, 100, 133), 3),
        ("cxr_montgomery", "segmentation", (94, 16, 28), 1),
        ("chase_db1", "segmentation", (17, 3, 8), 3),
        ("pbc_blood_cells", "classification", (2000, 360, 640), 3),
        ("lc25000_histology", "classification", (1703, 239, 481), 3),
        ("organamnist/organamnist.npz", "classification", (34561, 6491, 17778), 1),
        ("compound_figures", "none", (37, 0, 0), 3),
    ],
)
def test_real_sets_simply_work(datasets, name, task, sizes, channels):
    data = opened(datasets / name)
    assert (data.task, data.channels) == (task, channels)
    assert (len(data.pool), len(data.val), len(data.test)) == sizes
    example = data.pool[len(data.pool) // 2]
    assert example["image"].ndim == 3
    assert example["image"].shape[2] == channels
    if task == "segmentation":
        assert example["mask"].shape == example["image"].shape[:2]
        assert set(np.unique(example["mask"])) <= {0, 1}


def test_bytes_of_an_image_are_decoded_like_the_file(tmp_path, rng):
    from medssl_jax.data import formats

    path = save(tmp_path / "a.png", rng.integers(0, 256, (9, 8, 3), dtype=np.uint8))
    np.testing.assert_array_equal(formats.decode_bytes(path.read_bytes()), formats.decode(path))
    assert formats.probe_bytes(io.BytesIO(path.read_bytes()).read()) == formats.probe(path)
