"""Images of every kind become uint8 H×W×3 RGB in stored order, or a clear error."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from rossam_core.data.images import ImageConversionWarning, image_size_hw, read_image, to_rgb8
from rossam_core.errors import RossamError


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def read_with_warning(path, *words):
    with pytest.warns(ImageConversionWarning) as caught:
        image = read_image(path)
    assert len(caught) == 1
    assert all(word in str(caught[0].message) for word in (str(path), *words))
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert image_size_hw(path) == image.shape[:2]
    return image


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
def test_8_bit_rgb_is_read_unchanged_and_without_a_warning(tmp_path, rgb, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rgb).save(path, lossless=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(path)
    np.testing.assert_array_equal(image, rgb)
    assert image.flags.writeable and image.flags.c_contiguous
    assert image_size_hw(path) == (5, 7)


def test_gray_becomes_three_equal_channels(tmp_path, rgb):
    Image.fromarray(rgb[..., 0]).save(tmp_path / "a.png")
    image = read_with_warning(tmp_path / "a.png", "gray")
    np.testing.assert_array_equal(image, rgb[..., [0, 0, 0]])


@pytest.mark.parametrize(("largest", "bits"), [(255, 8), (256, 10), (1023, 10), (2000, 11), (4095, 12), (40000, 16)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_gray_is_divided_by_the_bit_depth_it_uses(tmp_path, suffix, largest, bits):
    values = np.linspace(0, largest, 35).astype(np.uint16).reshape(5, 7)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), values)
    image = read_with_warning(tmp_path / f"a.{suffix}", *([f"{bits}-bit"] if bits > 8 else []))
    np.testing.assert_array_equal(image[..., 1], np.rint(values * 255.0 / (2**bits - 1)))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_colour_keeps_channel_order_and_low_bytes(tmp_path, suffix):
    values = np.arange(5 * 7 * 3, dtype=np.uint16).reshape(5, 7, 3) * 38  # below 4096: the high byte alone is nearly 0
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), values[..., ::-1])
    image = read_with_warning(tmp_path / f"a.{suffix}", "12-bit")
    np.testing.assert_array_equal(image, np.rint(values * 255.0 / 4095))


def test_rgba_is_composited_over_black(tmp_path, rgb):
    rgba = np.dstack([rgb, np.full((5, 7), 255, np.uint8)])
    rgba[0, :, 3], rgba[1, :, 3] = 0, 51
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = read_with_warning(tmp_path / "a.png", "alpha composited over black", "40%")
    assert not image[0].any()
    np.testing.assert_array_equal(image[1], np.rint(rgb[1] * 0.2))
    np.testing.assert_array_equal(image[2:], rgb[2:])


def test_palette_bilevel_and_cmyk_are_converted(tmp_path):
    paletted = Image.new("P", (3, 2), 1)
    paletted.putpalette([0, 0, 0, 10, 20, 30])
    paletted.save(tmp_path / "p.png")
    assert (read_with_warning(tmp_path / "p.png", "palette") == [10, 20, 30]).all()
    Image.new("1", (3, 2), 1).save(tmp_path / "one.png")
    assert (read_with_warning(tmp_path / "one.png", "false and true") == 255).all()
    Image.new("CMYK", (3, 2), (0, 0, 0, 0)).save(tmp_path / "c.tif")
    assert (read_with_warning(tmp_path / "c.tif", "CMYK") == 255).all()


def test_transparent_palette_entry_is_black(tmp_path):
    paletted = Image.new("P", (3, 2), 1)
    paletted.putpalette([0, 0, 0, 10, 20, 30])
    paletted.save(tmp_path / "p.png", transparency=1)
    assert not read_with_warning(tmp_path / "p.png", "palette", "alpha").any()


@pytest.mark.parametrize(
    ("values", "expected", "word"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255], "times 255"),
        ([0.0, 99.6, 255.0], [0, 100, 255], "rounded"),
        ([-100.0, 0.0, 100.0], [0, 128, 255], "[-100, 100]"),
        ([0.0, 500.0, 1000.0], [0, 128, 255], "[0, 1000]"),
        ([-3.0, -3.0, -3.0], [0, 0, 0], "[-3, -3]"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_float_tiff_is_scaled_by_its_range(tmp_path, values, expected, word, channels):
    array = np.repeat(np.array(values, np.float32)[None, :, None], channels, axis=2)
    cv2.imwrite(str(tmp_path / "f.tif"), array)
    image = read_with_warning(tmp_path / "f.tif", word)
    np.testing.assert_array_equal(image, np.repeat(np.array(expected)[None, :, None], 3, axis=2))


def test_float_colour_tiff_keeps_rgb_order(tmp_path):
    cv2.imwrite(str(tmp_path / "f.tif"), np.full((2, 3, 3), [30, 20, 10.0], np.float32))
    assert (read_with_warning(tmp_path / "f.tif") == [10, 20, 30]).all()


def test_nan_in_a_float_tiff_is_an_error(tmp_path):
    cv2.imwrite(str(tmp_path / "f.tif"), np.array([[0, np.nan]], np.float32))
    with pytest.raises(RossamError, match=r"f\.tif: 1 of 2 pixel values are NaN"):
        read_image(tmp_path / "f.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation_neither_turns_the_image_nor_its_size(tmp_path, suffix):
    picture = Image.fromarray(np.tile(np.arange(0, 240, 30, dtype=np.uint8)[None, :, None], (12, 2, 3)))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / f"plain.{suffix}")
    picture.save(tmp_path / f"turned.{suffix}", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / f"turned.{suffix}"), read_image(tmp_path / f"plain.{suffix}"))
    assert image_size_hw(tmp_path / f"turned.{suffix}") == (12, 16)


def test_a_turned_tiff_is_refused(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "t.tif", tiffinfo={0x0112: 6})
    for read in (read_image, image_size_hw):
        with pytest.raises(RossamError, match="orientation tag is 6"):
            read(tmp_path / "t.tif")


def test_only_the_first_page_is_read_and_the_warning_says_so(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "t.tif", save_all=True, append_images=[Image.fromarray(rgb * 0)])
    np.testing.assert_array_equal(read_with_warning(tmp_path / "t.tif", "first of 2 pages"), rgb)


def png_of_no_width() -> bytes:
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 0, 4, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.png", None, "no such image file"),
        ("empty.png", b"", r"is empty \(0 bytes\)"),
        ("text.png", b"not an image at all", "not an image of a known format"),
        ("flat.png", png_of_no_width(), "no pixels|cannot be opened|known format"),
        ("junk.tif", b"II*\0" + b"\xff" * 40, "cannot be"),
    ],
)
def test_unusable_files_name_themselves_and_a_remedy(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for read in (read_image, image_size_hw):
        with pytest.raises(RossamError, match=rf"(?s){name}: .*({words}).*Remedy: "):
            read(tmp_path / name)


def test_a_folder_is_not_an_image(tmp_path):
    with pytest.raises(RossamError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_a_file_cut_at_any_place_is_an_error(tmp_path, rng, suffix):
    stream = io.BytesIO()
    pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, {"tif": "TIFF", "jpg": "JPEG"}.get(suffix, suffix))
    whole = stream.getvalue()
    for share in (0.05, 0.3, 0.6, 0.9):
        (tmp_path / f"cut.{suffix}").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(RossamError, match=f"cut.{suffix}"):
            read_image(tmp_path / f"cut.{suffix}")


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "float.tif"])
def test_a_cut_file_of_deep_colour_is_an_error(tmp_path, rng, name):
    pixels = rng.integers(0, 60000, (24, 24, 3)).astype(np.float32 if name.startswith("float") else np.uint16)
    cv2.imwrite(str(tmp_path / name), pixels)
    whole = (tmp_path / name).read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(RossamError, match=name):
            read_image(tmp_path / name)


def test_arrays_follow_the_same_rules_as_files(rgb):
    assert to_rgb8(rgb, "image") is rgb
    with pytest.warns(ImageConversionWarning, match="image: .*gray"):
        np.testing.assert_array_equal(to_rgb8(rgb[..., 0], "image"), rgb[..., [0, 0, 0]])
    with pytest.warns(ImageConversionWarning, match="alpha"):
        opaque = np.dstack([rgb, np.full((5, 7), 255, np.uint8)])
        np.testing.assert_array_equal(to_rgb8(opaque, "image"), rgb)
    with pytest.warns(ImageConversionWarning, match="times 255"):
        np.testing.assert_array_equal(to_rgb8(rgb / 255, "image"), rgb)
    np.testing.assert_array_equal(to_rgb8(rgb.astype(np.int64), "image"), rgb)
    with pytest.warns(ImageConversionWarning, match="16-bit"):
        np.testing.assert_array_equal(to_rgb8(rgb.astype(np.uint16) * 257, "image"), rgb)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"shape \(3, 8, 9\).*(?s:.)*moveaxis"),
        (np.zeros((1, 8, 9, 3), np.uint8), r"shape \(1, 8, 9, 3\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.full((2, 2, 3), np.nan), "12 of 12 pixel values are NaN"),
        (np.array([[np.inf, 0.0]]), "NaN or infinite"),
        ("frame.png", r"read_image\(path\)"),
        (np.zeros((2, 2), complex), "dtype complex128"),
        (None, "dtype object"),
    ],
)
def test_unusable_arrays_are_errors_that_name_the_image(array, words):
    with pytest.raises(RossamError, match=rf"(?s)image 3: .*{words}"):
        to_rgb8(array, "image 3")
