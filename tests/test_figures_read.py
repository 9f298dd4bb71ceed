"""Figures of every kind of file, and one sentence for each that cannot be read."""

from __future__ import annotations

import errno
import importlib.util
import itertools
import os

import numpy as np
import pytest
import tifffile
from PIL import Image
from pypdf import PdfWriter
from pypdf.generic import ArrayObject, ByteStringObject, DictionaryObject, NameObject, NumberObject, StreamObject

from medssl_jax.errors import UserError
from medssl_jax.figures import pixels
from medssl_jax.figures.files import find, name_of
from medssl_jax.figures.read import SMALLEST, figures_of


def figures(path, smallest=SMALLEST):
    """All figures of a folder or of one file."""
    for file in find(path).files:
        yield from figures_of(file, name_of(file, path), smallest)


def embedded(image):
    """An array uint8|uint16 [H, W] or [H, W, 3] as a PDF's image object, compressed without loss."""
    stream = StreamObject()
    stream.set_data(image.astype(image.dtype.newbyteorder(">")).tobytes())
    stream = stream.flate_encode()
    about = {"/Type": "/XObject", "/Subtype": "/Image", "/ColorSpace": "/DeviceRGB" if image.ndim == 3 else "/DeviceGray"}
    stream.update({NameObject(key): NameObject(value) for key, value in about.items()})
    numbers = {"/Width": image.shape[1], "/Height": image.shape[0], "/BitsPerComponent": 8 * image.itemsize}
    stream.update({NameObject(key): NumberObject(value) for key, value in numbers.items()})
    return stream


AES = {
    "AES-128": {"/V": NumberObject(4), "/R": NumberObject(4)},
    "AES-256": {"/V": NumberObject(5), "/R": NumberObject(6), "/O": ByteStringObject(bytes(48)), "/U": ByteStringObject(bytes(48))},
}
CRYPTOGRAPHY = importlib.util.find_spec("cryptography") is not None


def write_pdf(path, pages, encrypt=None, algorithm="RC4-128"):
    """A PDF whose pages hold these images; one and the same array is stored once.

    Without the package that AES needs, only what the file says of itself is AES.
    """
    writer, stored = PdfWriter(), {}
    for images in pages:
        page = writer.add_blank_page(300, 300)
        objects = DictionaryObject()
        for number, image in enumerate(images):
            if id(image) not in stored:
                stored[id(image)] = writer._add_object(embedded(image))
            objects[NameObject(f"/Im{number}")] = stored[id(image)]
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/XObject"): objects})
    if encrypt is not None:
        writer.encrypt(encrypt, "the owner's", algorithm=algorithm if CRYPTOGRAPHY else "RC4-128")
    if algorithm in AES and not CRYPTOGRAPHY:
        method = NameObject("/AESV2" if algorithm == "AES-128" else "/AESV3")
        filters = DictionaryObject({NameObject("/StdCF"): DictionaryObject({NameObject("/CFM"): method})})
        about = {**AES[algorithm], "/CF": filters, "/StmF": NameObject("/StdCF"), "/StrF": NameObject("/StdCF")}
        writer._encrypt_entry.update({NameObject(key): value for key, value in about.items()})
    writer.write(path)


@pytest.fixture
def picture(rng):
    return rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def only(path):
    (figure,) = figures(path)
    return figure


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif", "a.tiff", "a.webp"])
def test_lossless_files(tmp_path, picture, name):
    Image.fromarray(picture).save(tmp_path / name, lossless=True)
    figure = only(tmp_path / name)
    assert figure[:3] == (name, 1, 1)
    assert (figure.scale, figure.error) == (1, "")
    assert figure.image.dtype == np.uint8
    np.testing.assert_array_equal(figure.image, picture)


def test_transparent_pixels_are_white(tmp_path, picture):
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:, :20] = 0
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(tmp_path / "a.png")
    Image.fromarray(picture).quantize(8).save(tmp_path / "p.png", transparency=0)
    image = only(tmp_path / "a.png").image
    assert (image[:, :20] == 255).all()
    np.testing.assert_array_equal(image[:, 20:], picture[:, 20:])
    paletted, indices = only(tmp_path / "p.png").image, np.asarray(Image.open(tmp_path / "p.png"))
    assert (paletted[indices == 0] == 255).all()
    assert not (paletted[indices != 0] == 255).all()


def test_inks_are_converted(tmp_path):
    Image.fromarray(np.full((40, 60, 4), (0, 255, 255, 0), np.uint8), "CMYK").save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(only(tmp_path / "a.jpg").image, np.full((40, 60, 3), (255, 0, 0)), atol=6)


@pytest.mark.parametrize(("bits", "name"), [(12, "a.png"), (16, "a.png"), (12, "a.tif"), (16, "a.tif")])
def test_deep_images_use_the_bits_there_are(tmp_path, rng, bits, name):
    values = rng.integers(0, 2**bits, (40, 60), dtype=np.uint16)
    values[0, 0] = 2**bits - 1
    Image.fromarray(values).save(tmp_path / name)
    expected = np.rint(values / (2**bits - 1) * 255)
    np.testing.assert_allclose(only(tmp_path / name).image, np.repeat(expected[..., None], 3, 2), atol=1)


def test_deep_colours_and_fractions(tmp_path, rng):
    colours = rng.integers(0, 2**16, (40, 60, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "c.tif", colours, photometric="rgb")
    fractions = rng.random((40, 60)).astype(np.float32)
    fractions[3, 3] = np.nan
    tifffile.imwrite(tmp_path / "f.tif", fractions)
    np.testing.assert_allclose(only(tmp_path / "c.tif").image, colours / 257, atol=1)
    image = only(tmp_path / "f.tif").image
    assert (image[3, 3] == 0).all()
    np.testing.assert_allclose(image[..., 0], np.nan_to_num(fractions) * 255, atol=1)


def test_pages_of_a_tiff_are_figures_but_not_their_small_copies(tmp_path, picture):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(picture, photometric="rgb")
        file.write(picture[::2, ::2], photometric="rgb", subfiletype=1)
        file.write(picture[:30], photometric="rgb")
    found = list(figures(tmp_path / "a.tif"))
    assert [(figure.page, figure.image.shape[:2]) for figure in found] == [(1, (40, 60)), (3, (30, 60))]


def test_a_tiff_of_small_copies_alone_is_read_whole(tmp_path, picture):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for image in (picture, picture[::2, ::2]):
            file.write(image, photometric="rgb", subfiletype=1)
    first, second = figures(tmp_path / "a.tif")
    np.testing.assert_array_equal(first.image, picture)
    np.testing.assert_array_equal(second.image, picture[::2, ::2])
    assert (first.page, second.page) == (1, 2)


def test_an_animated_png_is_one_figure(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png", save_all=True, append_images=[Image.fromarray(255 - picture)])
    np.testing.assert_array_equal(only(tmp_path / "a.png").image, picture)


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_of_an_animation_the_first_picture_is_read(tmp_path, name):
    first, second = (Image.new("RGB", (60, 40), colour) for colour in ("white", "black"))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    assert only(tmp_path / name).image.min() > 250


def test_values_with_signs_are_shown_between_their_percentiles(tmp_path):
    units = np.tile(np.arange(-1000, 1000, dtype=np.int16), (40, 1))
    tifffile.imwrite(tmp_path / "a.tif", units)
    np.testing.assert_allclose(only(tmp_path / "a.tif").image[..., 1], (units + 1000.0) / 1999 * 255, atol=2)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_figure_is_turned_as_the_camera_was(tmp_path, name):
    lying = np.zeros((40, 60, 3), np.uint8)
    lying[:, :20] = 250
    picture = Image.fromarray(lying)
    picture.getexif()[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(tmp_path / name, exif=picture.getexif())
    figure = only(tmp_path / name)
    np.testing.assert_allclose(figure.image, np.rot90(lying, -1), atol=12)
    assert figure.size == (40, 60)


def test_more_channels_than_colours(tmp_path, rng):
    tifffile.imwrite(
        tmp_path / "a.tif", rng.integers(0, 255, (5, 40, 60), dtype=np.uint16), planarconfig="separate", photometric="minisblack"
    )
    assert "a.tif has 5 channels, and a figure has 1 or 3" in only(tmp_path / "a.tif").error


def test_a_stack_that_pillow_does_not_know(tmp_path, rng):
    values = rng.random((4, 40, 60, 3)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", metadata={"axes": "ZYXS"})
    figure = only(tmp_path / "a.tif")
    assert figure.image is None
    assert figure.error == "a.tif holds 4 slices, and one file is read as one image; save each of them as a file of its own."


@pytest.mark.parametrize(("name", "factor"), [("a.png", 3), ("a.jpg", 4), ("deep.png", 3)])
def test_a_huge_image_is_read_at_a_fraction(tmp_path, monkeypatch, name, factor):
    """Limits are lowered, so that 400 x 300 px are as 20,000 x 15,000 are."""
    monkeypatch.setattr(pixels, "READ_WHOLE", 400 * 300 // 8)
    monkeypatch.setattr(pixels, "BAND", 7)
    y, x = np.mgrid[:300, :400]
    smooth = ((y + x) * 255 / 700).astype(np.uint8)
    values = smooth.astype(np.uint16) * 257 if name.startswith("deep") else np.repeat(smooth[..., None], 3, 2)
    Image.fromarray(values).save(tmp_path / name)
    figure = only(tmp_path / name)
    assert figure.scale == factor
    height, width = -(-300 // factor), -(-400 // factor)
    assert figure.image.shape == (height, width, 3)
    np.testing.assert_array_equal(figure.stored(np.array([1, 2, width, height])), [factor, 2 * factor, 400, 300])
    np.testing.assert_allclose(figure.image[..., 0], smooth[::factor, ::factor], atol=6)


def test_pillows_limit_is_raised_and_ours_told(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (60, 40)).save(tmp_path / "a.png")
    assert only(tmp_path / "a.png").error == ""
    monkeypatch.setattr(pixels, "LARGEST", 2000)
    assert "a.png has 60 x 40 pixels, and figures are read up to" in only(tmp_path / "a.png").error


def test_damage_is_told_and_does_not_stop(tmp_path, picture):
    for name in ("a.png", "z.png", "cut.png"):
        Image.fromarray(picture).save(tmp_path / name)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("this is no image")
    (tmp_path / "text.tif").write_text("this is no image")
    (tmp_path / "text.pdf").write_text("this is no PDF")
    found = {figure.source: figure for figure in figures(tmp_path)}
    assert list(found) == ["a.png", "cut.png", "empty.jpg", "text.pdf", "text.png", "text.tif", "z.png"]
    assert found["a.png"].image is not None
    assert found["z.png"].image is not None
    for name, said in [("cut.png", "cannot be read"), ("empty.jpg", "is empty (0 bytes)"), ("text.pdf", ""), ("text.png", "is no image")]:
        assert found[name].image is None
        assert found[name].error.startswith(f"{name} ")
        assert said in found[name].error
        assert found[name].error.endswith(".")


def test_folders_are_read_recursively_and_hidden_files_left_out(tmp_path, picture):
    for name in ("b/c/2.png", "b/1.jpg", "a.png", ".hidden/x.png", ".y.png", "__MACOSX/z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no figure")
    assert [figure.source for figure in figures(tmp_path)] == ["a.png", "b/1.jpg", "b/c/2.png"]


def test_folders_behind_links_are_read_once(tmp_path, picture):
    home = tmp_path / "in"
    for path in (home / "z" / "1.png", tmp_path / "elsewhere" / "2.png"):
        path.parent.mkdir(parents=True)
        Image.fromarray(picture).save(path)
    for link, target in [("a", home / "z"), ("b", tmp_path / "elsewhere"), ("z/loop", home), ("z/up", home / "z")]:
        (home / link).symlink_to(target)
    assert [figure.source for figure in figures(home)] == ["b/2.png", "z/1.png"]


def test_what_is_no_figure_is_counted_and_closed_folders_are_named(tmp_path, picture, monkeypatch):
    for name in ("a.png", "b.xyz", "c/d.xyz", "notes", "shut/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / name, "PNG")
    listed = os.scandir

    def refusing(path):
        if str(path) in shut:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    shut = [str(tmp_path / "shut")]
    monkeypatch.setattr(os, "scandir", refusing)
    found = find(tmp_path)
    assert [path.name for path in found.files] == ["a.png"]
    assert found.left_out == "ignored: 2 .xyz, 1 without ending; no permission for the folders shut"
    shut.append(str(tmp_path))
    with pytest.raises(PermissionError):
        find(tmp_path)


def test_a_file_without_permission(tmp_path, picture, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a.png"))

    Image.fromarray(picture).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", refused)
    assert only(tmp_path / "a.png").error == "a.png may not be read (permission denied); change its rights."


def test_figures_are_read_when_they_are_asked_for(tmp_path, picture):
    for number in range(3):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    stream = figures(tmp_path)
    next(stream)
    (tmp_path / "1.png").unlink()
    assert next(stream).error == "1.png is not there any more, or is a link to nothing; get it again, or remove it."
    assert next(stream).error == ""


def test_images_of_a_pdf_once_each_and_no_logos(tmp_path, picture):
    logo = np.ascontiguousarray(picture[:12, :12])
    other = np.ascontiguousarray(picture[:, :50])
    write_pdf(tmp_path / "a.pdf", [[logo, picture], [], [picture, other]])
    found = list(figures(tmp_path / "a.pdf"))
    assert [figure[:3] for figure in found] == [("a.pdf", 1, 1), ("a.pdf", 3, 1)]
    np.testing.assert_array_equal(found[0].image, picture)
    np.testing.assert_array_equal(found[1].image, other)
    assert len(list(figures(tmp_path / "a.pdf", smallest=10))) == 3


def test_a_jpeg_in_a_pdf(tmp_path):
    smooth = np.stack([np.tile(np.linspace(0, 250, 60), (40, 1)), np.full((40, 60), 90), np.full((40, 60), 200)], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.pdf")
    np.testing.assert_allclose(only(tmp_path / "a.pdf").image, smooth, atol=12)


def test_one_damaged_image_of_a_pdf(tmp_path, picture):
    """The stream of the second image is cut short."""
    writer = PdfWriter()
    page = writer.add_blank_page(300, 300)
    broken = embedded(picture)
    broken._data = broken._data[:50]
    objects = {"/Im0": embedded(picture), "/Im1": broken, "/Im2": embedded(255 - picture)}
    stored = DictionaryObject({NameObject(name): writer._add_object(stream) for name, stream in objects.items()})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/XObject"): stored})
    writer.write(tmp_path / "a.pdf")
    first, second, third = figures(tmp_path / "a.pdf")
    np.testing.assert_array_equal(first.image, picture)
    assert second.image is None
    assert second.error.startswith("a.pdf, page 1, image 2, cannot be read")
    np.testing.assert_array_equal(third.image, 255 - picture)


def test_sixteen_bits_in_a_pdf(tmp_path, rng):
    gray, colours = (rng.integers(0, 2**16, shape, dtype=np.uint16) for shape in ((40, 60), (40, 60, 3)))
    write_pdf(tmp_path / "a.pdf", [[gray, colours]])
    first, second = figures(tmp_path / "a.pdf")
    np.testing.assert_array_equal(first.image, np.repeat(gray[..., None] >> 8, 3, 2))
    np.testing.assert_array_equal(second.image, colours >> 8)


def test_lab_in_a_pdf_is_told(tmp_path, picture):
    writer = PdfWriter()
    stored = embedded(picture)
    stored[NameObject("/ColorSpace")] = ArrayObject([NameObject("/Lab"), DictionaryObject()])
    objects = DictionaryObject({NameObject("/Im0"): writer._add_object(stored)})
    writer.add_blank_page(300, 300)[NameObject("/Resources")] = DictionaryObject({NameObject("/XObject"): objects})
    writer.write(tmp_path / "a.pdf")
    assert only(tmp_path / "a.pdf").error == "a.pdf, page 1, image 1, has its colours in Lab, which cannot be read; save the page as PNG."


def test_an_image_beyond_pypdfs_own_limit(tmp_path):
    large = np.zeros((5200, 5000, 3), np.uint8)
    write_pdf(tmp_path / "a.pdf", [[large]])
    assert only(tmp_path / "a.pdf").image.shape == large.shape


@pytest.mark.parametrize(
    ("pages", "encrypt", "said"),
    [
        ([[]], None, "holds no embedded image of 32 px or more; save the pages with figures as PNG"),
        ([["picture"]], "secret", "is encrypted and needs a password"),
        ([["picture"]], "", ""),
    ],
)
def test_pdfs_without_images_or_without_the_key(tmp_path, picture, pages, encrypt, said):
    write_pdf(tmp_path / "a.pdf", [[picture] * len(page) for page in pages], encrypt)
    figure = only(tmp_path / "a.pdf")
    assert (figure.image is None) == bool(said)
    assert said in figure.error


@pytest.mark.parametrize("algorithm", list(AES))
def test_a_pdf_encrypted_with_aes(tmp_path, picture, algorithm):
    """Read where there is what reads it, else told once, however many pages there are."""
    write_pdf(tmp_path / "a.pdf", [[picture], [picture], []], "", algorithm)
    figure = only(tmp_path / "a.pdf")
    if CRYPTOGRAPHY:
        np.testing.assert_array_equal(figure.image, picture)
    else:
        remedy = "install what reads it (pip install 'pypdf[crypto]'), or save a copy without encryption."
        assert figure.error == f"a.pdf is encrypted with AES; {remedy}"


def test_no_figures_at_all(tmp_path):
    (tmp_path / "notes.txt").write_text("no figure")
    for path, said in [
        (tmp_path, "there is no figure in"),
        (tmp_path / "notes.txt", "is not a figure"),
        (tmp_path / "x", "does not exist"),
    ]:
        with pytest.raises(UserError, match=said):
            find(path)


def test_a_folder_of_the_image_sets(datasets):
    found = list(itertools.islice(figures(datasets / "compound_figures"), 3))
    assert all(figure.source.startswith("images/") and figure.image.shape[2] == 3 for figure in found)
