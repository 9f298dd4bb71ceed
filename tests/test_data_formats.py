"""Files of every supported kind become the arrays that were stored in them, and damaged ones a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from medssl_jax.data import formats, prepare
from medssl_jax.errors import UserError


def stored(rng, *shape, dtype=np.uint8):
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def write(path, array, **options):
    """PNG, JPEG and BMP by Pillow, TIFF by tifffile."""
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array, **options)
    else:
        Image.fromarray(array).save(path, **options)
    return path


def read(path, color="auto", window=(0.1, 99.9)):
    """The image as the device gets it."""
    stored = formats.decode(path)
    return prepare.Preparation(color, prepare.target_dtype([stored.dtype]), window, 0).image(stored, str(path))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "A.PNG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_8_bit_images_come_back_as_stored(tmp_path, rng, name, channels):
    image = stored(rng, 12, 17, channels)
    path = write(tmp_path / name.lower(), image[:, :, 0] if channels == 1 else image).rename(tmp_path / name)
    np.testing.assert_array_equal(read(path), image)
    assert formats.probe(path) == (12, 17, channels, np.uint8)


def test_jpeg_is_read_in_colour_and_gray(tmp_path):
    flat = np.full((16, 24, 3), (200, 50, 90), np.uint8)
    path = write(tmp_path / "a.jpg", flat, quality=95)
    assert np.abs(read(path).astype(int) - flat).max() <= 4
    assert formats.probe(path) == (16, 24, 3, np.uint8)
    gray = read(path, color="gray")
    assert gray.shape == (16, 24, 1)
    assert abs(float(gray.mean()) - (0.299 * 200 + 0.587 * 50 + 0.114 * 90)) < 2


@pytest.mark.parametrize(
    ("array", "channels", "options"),
    [
        ((9, 8, 4), 3, {"photometric": "rgb"}),  # the fourth is alpha
        ((9, 8, 5), 5, {"photometric": "minisblack", "planarconfig": "contig"}),
        ((5, 9, 8), 5, {"photometric": "minisblack", "metadata": {"axes": "CYX"}, "ome": True}),
        ((5, 9, 8), 5, {"photometric": "minisblack"}),  # pages without a name are channels
        ((2, 9, 8), 2, {"imagej": True, "metadata": {"axes": "CYX"}}),
        ((3, 9, 8), 3, {"photometric": "rgb", "planarconfig": "separate"}),
        ((30, 28, 5), 5, {}),  # channels last, which tifffile writes without saying so
    ],
)
def test_tiff_channels_are_found_wherever_they_are(tmp_path, rng, array, channels, options):
    values = stored(rng, *array, dtype=np.uint16)
    path = write(tmp_path / "a.ome.tif" if options.get("ome") else tmp_path / "a.tif", values, **options)
    expected = values if values.shape[0] in (9, 30) else np.moveaxis(values, 0, -1)
    np.testing.assert_array_equal(formats.decode(path), expected[:, :, :channels])
    assert formats.probe(path) == (*expected.shape[:2], channels, np.uint16)


def test_16_bit_png_keeps_its_depth_in_gray_and_colour(tmp_path, rng):
    import imagecodecs

    gray, color = stored(rng, 7, 9, dtype=np.uint16), stored(rng, 7, 9, 3, dtype=np.uint16)
    write(tmp_path / "gray.png", gray)
    (tmp_path / "color.png").write_bytes(imagecodecs.png_encode(color))
    np.testing.assert_array_equal(formats.decode(tmp_path / "gray.png")[:, :, 0], gray)
    np.testing.assert_array_equal(formats.decode(tmp_path / "color.png"), color)
    assert formats.probe(tmp_path / "gray.png") == (7, 9, 1, np.uint16)
    assert formats.probe(tmp_path / "color.png") == (7, 9, 3, np.uint16)


def test_alpha_is_dropped_and_palettes_are_resolved_for_images_only(tmp_path, rng):
    rgba = stored(rng, 6, 5, 4)
    np.testing.assert_array_equal(read(write(tmp_path / "rgba.png", rgba)), rgba[:, :, :3])
    indices = rng.integers(0, 3, (6, 5), dtype=np.uint8)
    colours = np.array([[0, 0, 0], [10, 20, 30], [200, 100, 50]], np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette(colours.ravel().tolist())
    picture.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read(tmp_path / "palette.png"), colours[indices])
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "palette.png"), indices)


def test_percentile_window_maps_each_channel_to_the_whole_range(tmp_path, rng):
    image = (rng.normal(size=(40, 50, 2)) * np.array([5.0, 900.0]) + np.array([-3.0, 7000.0])).astype(np.float32)
    path = write(tmp_path / "a.tif", image, photometric="minisblack", planarconfig="contig")
    found = read(path, window=(1.0, 99.0))
    assert found.dtype == np.uint16
    for c in range(2):
        ordered = np.sort(image[:, :, c].astype(np.float64).ravel())
        low, high = (np.interp(q / 100 * (ordered.size - 1), np.arange(ordered.size), ordered) for q in (1, 99))
        expected = np.clip((image[:, :, c] - low) / (high - low), 0, 1) * 65535
        assert np.abs(found[:, :, c] - expected).max() <= 0.51
        assert found[:, :, c].min() == 0
        assert found[:, :, c].max() == 65535


def test_window_of_a_flat_image_is_dark_and_no_window_keeps_values(tmp_path):
    flat = np.full((4, 4), 700, np.uint16)
    path = write(tmp_path / "flat.tif", flat)
    assert read(path).max() == 0
    np.testing.assert_array_equal(read(path, window=())[:, :, 0], flat)
    with pytest.raises(UserError, match="outside 0 to 1"):
        read(write(tmp_path / "float.tif", flat.astype(np.float32)), window=())
    with pytest.raises(UserError, match=r"nan\.tif holds values that are not finite"):
        read(write(tmp_path / "nan.tif", np.full((4, 4), np.nan, np.float32)))


def test_instance_masks_keep_their_labels_and_jpeg_masks_are_cut_at_half(tmp_path, rng):
    labels = stored(rng, 8, 8, dtype=np.uint16)
    np.testing.assert_array_equal(formats.read_mask(write(tmp_path / "m.png", labels)), labels)
    np.testing.assert_array_equal(formats.read_mask(write(tmp_path / "m.tif", labels)), labels)
    half = np.zeros((16, 16), np.uint8)
    half[:, 8:] = 255
    np.testing.assert_array_equal(formats.read_mask(write(tmp_path / "m.jpg", half, quality=60)), half > 0)
    with pytest.raises(UserError, match="3 different channels"):
        formats.read_mask(write(tmp_path / "rgb.png", stored(rng, 8, 8, 3)))
    with pytest.raises(UserError, match="fractions"):
        formats.read_mask(write(tmp_path / "f.tif", np.full((4, 4), 0.5, np.float32)))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
@pytest.mark.parametrize("kept", [0, 20, 0.6])
def test_damaged_files_are_found_by_the_probe_and_named(tmp_path, rng, name, kept):
    path = write(tmp_path / name, stored(rng, 64, 64))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    for look in (formats.probe, read):
        with pytest.raises(UserError, match=f"{name} cannot be read as an image"):
            look(path)


def test_what_is_no_image_and_what_is_a_stack(tmp_path, rng):
    (tmp_path / "text.png").write_text("not an image at all, but a text of some length\n" * 9)
    with pytest.raises(UserError, match=r"text\.png cannot be read"):
        formats.probe(tmp_path / "text.png")
    write(tmp_path / "time.tif", stored(rng, 7, 9, 8), imagej=True, metadata={"axes": "TYX"})
    for look in (formats.probe, read):
        with pytest.raises(UserError, match="holds 7 time points"):
            look(tmp_path / "time.tif")
    with pytest.raises(UserError, match="there is no file"):
        read(tmp_path / "missing.png")


def test_microscope_formats_name_the_plugin_that_reads_them(tmp_path):
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE" + bytes(100))
    with pytest.raises(UserError, match="pip install bioio-czi"):
        read(tmp_path / "a.czi")


def test_bioio_reads_the_same_values_as_tifffile(tmp_path, rng):
    values = stored(rng, 2, 9, 8, dtype=np.uint16)
    path = write(tmp_path / "a.ome.tiff", values, photometric="minisblack", ome=True, metadata={"axes": "CYX"})
    np.testing.assert_array_equal(formats._bioio(path), formats.decode(path))


def test_scaling_keeps_the_aspect_ratio_the_mean_and_the_labels(rng):
    preparation = prepare.Preparation("auto", np.dtype(np.uint16), (0.0, 100.0), 16)
    image = np.repeat(np.repeat(stored(rng, 16, 24, 2, dtype=np.uint16), 4, 0), 4, 1)
    small = preparation.image(image, "a")
    assert small.shape == (16, 24, 2)
    windowed = prepare.percentile_window(image, (0.0, 100.0))
    assert abs(small.mean() - windowed.mean()) < 0.02 * 65535
    labels = rng.integers(0, 5, (16, 24)).astype(np.int32)
    np.testing.assert_array_equal(preparation.mask(np.kron(labels, np.ones((4, 4), np.int32))), labels)
    assert preparation.shape(100, 333) == (16, 53)


def test_gray_and_rgb_are_exchanged_and_others_refused(rng):
    rgb = stored(rng, 3, 4, 3)
    gray = prepare.recolor(rgb, "gray", "a")
    np.testing.assert_array_equal(gray[:, :, 0], np.rint(rgb @ np.array([0.299, 0.587, 0.114])))
    np.testing.assert_array_equal(prepare.recolor(gray, "rgb", "a"), np.concatenate([gray] * 3, axis=2))
    with pytest.raises(UserError, match="a has 5 channels"):
        prepare.recolor(stored(rng, 3, 4, 5), "gray", "a")
