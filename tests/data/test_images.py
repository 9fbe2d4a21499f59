"""Images of every kind become uint8 H×W×3 RGB in stored order, or a clear error."""

import io
import json
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from rossam_core.errors import RossamError
from rossam_kit.config import DataConfig, ImageOptions
from rossam_kit.datasets import image_sources, images
from rossam_kit.datasets.coco import read_coco, read_coco_index, write_coco_index
from rossam_kit.datasets.images import (
    DatasetReading,
    ImageConversionWarning,
    image_size_hw,
    read_image,
    resolve_reading,
)
from rossam_kit.datasets.loading import load_frames


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


DEPTHS = [(255, 8), (256, 10), (1023, 10), (2000, 11), (4095, 12), (40000, 16)]


@pytest.mark.parametrize(("largest", "bits"), DEPTHS)
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
        ([0.0, 0.5, 1.0], [0, 128, 255], "[0, 1]"),
        ([0.0, 99.6, 255.0], [0, 100, 255], "[0, 255]"),
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


def test_16_bit_gray_with_a_transparent_value_hides_it(tmp_path):
    values = np.array([[0, 1000, 4095], [7, 7, 2000]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=7)
    image = read_with_warning(tmp_path / "a.png", "12-bit", "missing pixels")
    np.testing.assert_array_equal(image[..., 0], np.rint(np.where(values == 7, 0, values) * 255.0 / 4095))


def test_16_bit_colour_with_alpha_is_composited(tmp_path, rng):
    values = rng.integers(0, 65536, (5, 7, 4)).astype(np.uint16)
    values[0, 0] = 65535
    cv2.imwrite(str(tmp_path / "a.png"), values[..., [2, 1, 0, 3]])
    expected = np.rint(np.rint(values[..., :3] * 255.0 / 65535) * (values[..., 3:] / 65535))
    np.testing.assert_array_equal(read_with_warning(tmp_path / "a.png", "16-bit", "alpha"), expected)


@pytest.mark.parametrize("largest", [4095, 65535])
def test_a_portable_pixmap_of_deep_colour_keeps_its_low_bytes(tmp_path, rng, largest):
    values = rng.integers(0, 1024, (5, 7, 3)).astype(np.uint16)
    values[0, 0, 0] = 1023
    (tmp_path / "a.ppm").write_bytes(f"P6 7 5 {largest}\n".encode() + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_with_warning(tmp_path / "a.ppm", "10-bit"), np.rint(values * 255.0 / 1023))


def test_jpeg_2000_of_deep_colour_is_read_by_rasterio_or_refused(tmp_path, rng, monkeypatch):
    rasterio = pytest.importorskip("rasterio")
    values = rng.integers(0, 1024, (64, 48, 3)).astype(np.uint16)
    values[0, 0, 0] = 1023
    shape = {"driver": "JP2OpenJPEG", "height": 64, "width": 48, "count": 3, "dtype": "uint16"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "a.jp2", "w", QUALITY="100", REVERSIBLE="YES", **shape) as file:
            file.write(np.moveaxis(values, -1, 0))
    np.testing.assert_array_equal(read_with_warning(tmp_path / "a.jp2", "10-bit"), np.rint(values * 255.0 / 1023))
    monkeypatch.setattr(image_sources, "rasterio_if_installed", lambda: None)
    with pytest.raises(RossamError, match=r"is JPEG 2000 of more than 8 bits, which rasterio reads(?s:.)*pip install"):
        read_image(tmp_path / "a.jp2")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_bands_of_any_file_may_be_named(tmp_path, rgb, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rgb).save(path)
    turned = resolve_reading(ImageOptions(bands=(3, 1, 1)), [path])
    with pytest.warns(ImageConversionWarning, match="bands 3, 1, 1 of 3"):
        np.testing.assert_array_equal(read_image(path, turned), read_image(path)[..., [2, 0, 0]])
    with pytest.raises(RossamError, match="has 3 bands, and band 4 is asked for"):
        resolve_reading(ImageOptions(bands=4), [path])


def test_windows_of_any_file_are_parts_of_it(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", window=(2, 1, 6, 4)), rgb[1:4, 2:6])


def test_only_a_tiff_may_be_above_pillow_s_limit(tmp_path, rgb, monkeypatch):
    for name in ("a.png", "a.tif"):
        Image.fromarray(rgb).save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), rgb)
    with pytest.raises(RossamError, match=r"a\.png: is too large(?s:.)*Remedy: save it as a tiled GeoTIFF"):
        read_image(tmp_path / "a.png")


# --- one stretch for a dataset ----------------------------------------------------------------------------------------


@pytest.fixture(params=["png", "tif"])
def video(tmp_path, rng, request):
    """A COCO folder with a video of three 12-bit frames, the second of a quarter of the light."""
    (tmp_path / "set/images").mkdir(parents=True)
    values = rng.integers(0, 4000, (3, 5, 7)).astype(np.uint16)
    values[1] //= 4
    values[0, 0, 0] = 4095
    entries = []
    for number, frame in enumerate(values, start=1):
        name = f"{number}.{request.param}"
        cv2.imwrite(str(tmp_path / "set/images" / name), frame)
        entries.append({"id": number, "file_name": name, "video_id": 1})
    content = {"images": entries, "annotations": [], "categories": [], "videos": [{"id": 1, "name": "v"}]}
    (tmp_path / "set/test.json").write_text(json.dumps(content))
    return tmp_path / "set", values


def pixels_of(frames):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageConversionWarning)
        return np.stack([frame.image()[..., 0] for frame in frames])


def scaled(values, low, high):
    return np.rint((values.clip(low, high) - low) * 255.0 / (high - low))


def test_all_frames_of_a_video_have_one_gain(video, tmp_path):
    folder, values = video
    frames = read_coco(folder / "test.json", folder / "images", name="v")
    np.testing.assert_array_equal(pixels_of(frames), scaled(values, 0, 4095))
    write_coco_index(frames, tmp_path / "index.json")
    again = read_coco_index(tmp_path / "index.json")
    np.testing.assert_array_equal(pixels_of(again), pixels_of(frames))
    assert again.fingerprint() == frames.fingerprint()
    assert pixels_of([frames[1].with_objects([])]).tolist() == pixels_of([frames[1]]).tolist()


@pytest.mark.parametrize(
    ("stretch", "limits"),
    [("full", None), ("100,900", (100, 900)), ("percentiles", (2, 98)), ("percentiles:10,50", (10, 50))],
)
def test_the_stretch_of_a_profile_is_that_of_all_frames(video, tmp_path, stretch, limits):
    folder, values = video
    data = DataConfig(source="coco", root=folder, stretch=stretch, bands=1)
    if limits is None:
        limits = (0, 4095)
    elif stretch.startswith("percentiles"):
        limits = np.percentile(values, limits)
    frames = load_frames(data, "test", tmp_path / "cache")
    np.testing.assert_array_equal(pixels_of(frames), scaled(values, *limits))


def test_all_splits_of_a_dataset_have_one_stretch(video, tmp_path):
    folder, values = video
    content = json.loads((folder / "test.json").read_text())
    for split, chosen in (("train", slice(0, 1)), ("test", slice(1, 3))):
        (folder / f"{split}.json").write_text(json.dumps(content | {"images": content["images"][chosen]}))
    values[2] //= 8
    cv2.imwrite(str(next((folder / "images").glob("3.*"))), values[2])
    for split, chosen in (("train", slice(0, 1)), ("test", slice(1, 3))):
        frames = load_frames(DataConfig(source="coco", root=folder), split, tmp_path / "cache")
        np.testing.assert_array_equal(pixels_of(frames), scaled(values[chosen], 0, 4095))


def test_limits_that_are_known_are_kept_and_those_of_other_dtypes_resolved(video, tmp_path):
    folder, values = video
    data, known = DataConfig(source="coco", root=folder), {"uint16": (0.0, 8191.0), "float32": (0.0, 1.0)}
    frames = load_frames(data, "test", tmp_path / "cache", DatasetReading(bands=(1,), limits=known))
    assert frames[0].reading == DatasetReading(bands=(1,), limits={"uint16": (0, 8191)})
    np.testing.assert_array_equal(pixels_of(frames), scaled(values, 0, 8191))
    other = load_frames(data, "test", tmp_path / "cache", DatasetReading(limits={"float32": (0, 1)}))
    assert other[0].reading.limits == {"uint16": (0, 4095)}


def test_the_fingerprint_moves_with_bands_and_stretch(video, tmp_path):
    folder, _ = video
    settings = [{}, {"stretch": "0,4095"}, {"stretch": "percentiles"}, {"stretch": "0,4000"}, {"bands": 1}]
    prints = [
        load_frames(DataConfig(source="coco", root=folder, **options), "test", tmp_path / "cache").fingerprint()
        for options in settings
    ]
    assert len(set(prints)) == len(settings)


def test_a_stretch_is_determined_once_and_anew_for_other_files(video, tmp_path, monkeypatch):
    folder, values = video
    paths = sorted((folder / "images").iterdir())
    options = ImageOptions(stretch="percentiles:0,100")
    first = resolve_reading(options, paths, tmp_path / "cache")
    assert first.limits == {"uint16": (values.min(), 4095)}
    with monkeypatch.context() as patch:
        patch.setattr(images, "_add_values", None)
        assert resolve_reading(options, paths, tmp_path / "cache") == first
    cv2.imwrite(str(paths[0]), np.full((5, 7), 5000, np.uint16))
    assert resolve_reading(options, paths, tmp_path / "cache").limits["uint16"][1] == 5000


def test_a_depth_that_one_file_states_holds_the_values_of_all(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    paths = [tmp_path / "stated.tif", tmp_path / "plain.tif"]
    shape = {"driver": "GTiff", "height": 4, "width": 4, "count": 1, "dtype": "uint16"}
    for path, value, options in zip(paths, (3000, 30000), ({"nbits": 12}, {}), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path, "w", **shape, **options) as target:
                target.write(np.full((1, 4, 4), value, np.uint16))
    assert resolve_reading(ImageOptions(), paths[:1], tmp_path / "cache").limits == {"uint16": (0, 4095)}
    assert resolve_reading(ImageOptions(), paths, tmp_path / "cache").limits == {"uint16": (0, 65535)}


@pytest.mark.parametrize("suffix", ["gif", "webp", "ppm", "jp2", "mpo", "dib"])
def test_further_formats_are_read(tmp_path, rgb, suffix):
    more = {"save_all": True, "append_images": [Image.fromarray(rgb)]} if suffix == "mpo" else {}
    Image.fromarray(rgb).save(tmp_path / f"a.{suffix}", **more)
    with Image.open(tmp_path / f"a.{suffix}") as stored, warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageConversionWarning)
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), np.array(stored.convert("RGB")))


def test_8_bit_images_are_not_decoded_for_their_stretch(tmp_path, rgb, monkeypatch):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "_add_values", None)
    assert resolve_reading(ImageOptions(), [tmp_path / "a.png"]).limits == {}


def test_8_bit_images_may_be_stretched_too(tmp_path, rgb):
    dark = rgb // 4
    Image.fromarray(dark).save(tmp_path / "a.png")
    reading = resolve_reading(ImageOptions(stretch="percentiles:0,100"), [tmp_path / "a.png"], tmp_path)
    with pytest.warns(ImageConversionWarning, match="uint8 values"):
        np.testing.assert_array_equal(
            read_image(tmp_path / "a.png", reading), scaled(dark.astype(float), dark.min(), dark.max())
        )


def test_floats_of_a_dataset_share_their_range(tmp_path):
    for name, values in (("a", [0.0, 0.5, 1.0]), ("b", [0.0, 200.0, 400.0])):
        cv2.imwrite(str(tmp_path / f"{name}.tif"), np.array([values], np.float32))
    reading = resolve_reading(ImageOptions(), sorted(tmp_path.glob("*.tif")), tmp_path)
    with pytest.warns(ImageConversionWarning, match=r"\[0, 400\]"):
        assert read_image(tmp_path / "a.tif", reading)[0, :, 0].tolist() == [0, 0, 1]
        assert read_image(tmp_path / "b.tif", reading)[0, :, 0].tolist() == [0, 128, 255]


def test_a_damaged_image_does_not_keep_the_others_from_their_stretch(video):
    folder, _ = video
    paths = sorted((folder / "images").iterdir())
    paths[2].write_bytes(paths[2].read_bytes()[:60])
    assert resolve_reading(ImageOptions(), paths, folder).limits == {"uint16": (0, 4095)}
    with pytest.raises(RossamError, match=paths[2].name):
        read_image(paths[2])
