"""TIFFs of every layout give the values that were written, by rasterio and by tifffile alike, or a clear error."""

import struct
import tracemalloc
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from rossam_core.errors import RossamError
from rossam_kit.config import ImageOptions
from rossam_kit.datasets import images, tiff
from rossam_kit.datasets.images import ImageConversionWarning, image_size_hw, read_image, resolve_reading

OBJECT, GROUND = [220, 215, 200], [74, 82, 62]
VOLUME = {"volumetric": True, "tile": (16, 16, 16), "photometric": "minisblack"}


@pytest.fixture(params=["rasterio", "tifffile"])
def reader(request, monkeypatch):
    """Both ways to decode pixels."""
    if request.param == "rasterio":
        pytest.importorskip("rasterio")
    else:
        monkeypatch.setattr(tiff, "rasterio_if_installed", lambda: None)
    return request.param


@pytest.fixture
def scene(rng):
    """uint8 64×96×3: noise around the ground's colour, and a bright object."""
    image = (np.array(GROUND) + rng.integers(-12, 13, (64, 96, 3))).astype(np.uint8)
    image[20:36, 30:54] = OBJECT
    return image


def write_gdal(path, pixels, **options):
    """H×W×C by GDAL, with its defaults where `options` say nothing; `mask` is within the file, or beside it."""
    rasterio = pytest.importorskip("rasterio")
    mask, internal = options.pop("mask", None), options.pop("internal", True)
    height, width, count = pixels.shape
    shape = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": pixels.dtype}
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **shape, **options) as file:
            file.write(np.moveaxis(pixels, -1, 0))
            if mask is not None:
                file.write_mask(mask)
    return path


def write(path, pixels, **options):
    """H×W×3 by tifffile, as RGB."""
    is_planar = options.get("planarconfig") == "separate"
    tifffile.imwrite(path, np.moveaxis(pixels, -1, 0) if is_planar else pixels, photometric="rgb", **options)


def read(path, *words, reading=None):
    """The image, whose one warning holds `words`; without words, there is none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = read_image(path, *([reading] if reading else []))
    messages = [str(w.message) for w in caught if w.category is ImageConversionWarning]
    assert len(messages) == (1 if words else 0), messages
    assert all(word in messages[0] for word in words), messages
    assert image.dtype == np.uint8 and image.shape == (*image_size_hw(path), 3)
    return image


def read_window(path, window):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageConversionWarning)
        return read_image(path, window=window)


def scaled(values, high, low=0):
    low, high = float(low), float(high)
    return np.rint((np.clip(values.astype(float), low, high) - low) * 255 / (high - low))


LAYOUTS = {
    "strips": {},
    "one row a strip": {"rowsperstrip": 1},
    "odd strips": {"rowsperstrip": 7},
    "tiles": {"tile": (16, 32)},
    "planar": {"planarconfig": "separate"},
    "planar tiles": {"planarconfig": "separate", "tile": (32, 16)},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "big-endian BigTIFF in planar tiles": {
        "byteorder": ">", "bigtiff": True, "planarconfig": "separate", "tile": (16, 16)
    },
    "LZW": {"compression": "lzw"},
    "LZW planar": {"compression": "lzw", "planarconfig": "separate", "rowsperstrip": 5},
    "deflate, predictor": {"compression": "zlib", "predictor": True},
    "LZW big-endian tiles, predictor": {"compression": "lzw", "predictor": True, "byteorder": ">", "tile": (16, 16)},
    "ZSTD": {"compression": "zstd", "tile": (32, 32)},
    "PackBits": {"compression": "packbits"},
    "LERC": {"compression": "lerc"},
}  # fmt: skip


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
def test_the_layout_makes_no_difference(tmp_path, scene, reader, options, dtype):
    factor = {"uint8": 1, "uint16": 8, "int16": 8, "uint32": 500, "float32": 1 / 255, "float64": 1 / 255}[dtype]
    values = (scene.astype(np.float64) * factor).astype(dtype)
    if dtype.startswith("float") and options.get("compression") == "packbits":
        pytest.skip("PackBits is of bytes")
    write(tmp_path / "a.tif", values, **options)
    high = {"uint8": 255, "uint16": 2047, "int16": 2047, "uint32": 2**17 - 1}.get(dtype, 1)
    image = read(tmp_path / "a.tif", *(["to [0, 255]"] if dtype != "uint8" else []))
    np.testing.assert_array_equal(image, scaled(values, high))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageConversionWarning)
        reading = resolve_reading(ImageOptions(), [tmp_path / "a.tif"], tmp_path / "cache")
        for x0, y0, x1, y1 in ((0, 0, 1, 1), (10, 3, 70, 50), (95, 63, 96, 64), (0, 17, 96, 33)):
            window = read_image(tmp_path / "a.tif", reading, (x0, y0, x1, y1))
            np.testing.assert_array_equal(window, image[y0:y1, x0:x1])


@pytest.mark.parametrize("compression", ["jpegxl", "webp", "jpeg2000"])
def test_compressions_that_gdal_may_lack_are_read_all_the_same(tmp_path, scene, reader, compression):
    options = {"compressionargs": {"lossless": True}} if compression == "webp" else {}
    write(tmp_path / "a.tif", scene, compression=compression, **options)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), scene)


@pytest.mark.parametrize("interleave", ["band", "pixel"])
@pytest.mark.parametrize("compress", ["none", "lzw", "deflate"])
@pytest.mark.parametrize("options", [{}, {"photometric": "RGB"}], ids=["default photometric", "RGB"])
@pytest.mark.parametrize("bands", [3, 4, 8])
def test_16_bit_files_of_gdal_show_three_bands(tmp_path, scene, reader, interleave, compress, options, bands):
    values = np.concatenate([scene, scene // 2, scene // 3], axis=2)[..., :bands].astype(np.uint16) * 8
    if options and bands > 3:
        options = options | {"alpha": "NO"}
    write_gdal(tmp_path / "a.tif", values, interleave=interleave, compress=compress, **options)
    image = read(tmp_path / "a.tif", "11-bit", *([f"bands 1, 2, 3 of {bands}"] if bands > 3 else []))
    np.testing.assert_array_equal(image, scaled(values[..., :3], 2047))
    assert image[28, 40].tolist() == [219, 214, 199]


@pytest.mark.parametrize("options", [{}, {"interleave": "band"}])
def test_near_infrared_of_16_bit_that_is_called_alpha_is_refused(tmp_path, scene, reader, options):
    values = np.concatenate([scene, scene[..., :1]], axis=2).astype(np.uint16) * 8
    path = write_gdal(tmp_path / "rgbn.tif", values, photometric="RGB", alpha="YES", **options)
    with pytest.raises(RossamError, match="band 4 is called alpha, but 100%"):
        read_image(path)


def test_near_infrared_is_not_taken_for_alpha(tmp_path, scene, reader):
    nir = np.full((64, 96, 1), 90, np.uint8)
    path = write_gdal(tmp_path / "rgbn.tif", np.concatenate([scene, nir], axis=2))  # GDAL calls the fourth band alpha
    with pytest.raises(RossamError, match=r"band 4 is called alpha, but 100% (?s:.)*Remedy: .*--bands 1,2,3"):
        read_image(path)
    with pytest.raises(RossamError, match="band 4 is called alpha"):
        read_image(path, window=(0, 0, 20, 20))
    named = resolve_reading(ImageOptions(bands=(1, 2, 3)), [path])
    np.testing.assert_array_equal(read(path, "bands 1, 2, 3 of 4", reading=named), scene)
    infrared = resolve_reading(ImageOptions(bands="4,1,2"), [path])
    assert read(path, "bands 4, 1, 2 of 4", reading=infrared)[28, 40].tolist() == [90, 220, 215]
    single = resolve_reading(ImageOptions(bands=4), [path])
    assert (read(path, "band 4 of 4", reading=single) == 90).all()
    with pytest.raises(RossamError, match=r"rgbn\.tif: has 4 bands, and band 5 is asked for(?s:.)*Remedy: .*--bands"):
        resolve_reading(ImageOptions(bands=(5, 3, 2)), [path])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("depth", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("photometric", "colours", "extras", "alpha"),
    [
        ("rgb", 3, ["unspecified"], None),
        ("rgb", 3, ["unassalpha"], 3),
        ("rgb", 3, ["assocalpha"], 3),
        ("rgb", 3, ["unspecified", "unassalpha"], 4),
        ("minisblack", 1, ["unassalpha"], 1),
        ("minisblack", 1, ["unspecified"], None),
        ("minisblack", 1, ["unspecified", "unspecified", "unassalpha"], 3),
    ],
)
def test_alpha_is_what_extra_samples_call_alpha(
    tmp_path, rng, reader, planar, depth, photometric, colours, extras, alpha
):
    count, full = colours + len(extras), 255 if depth == "uint8" else 65535
    values = rng.integers(0, full + 1, (16, 20, count)).astype(depth)
    values[0, 0] = full
    if alpha is not None:  # mostly opaque or transparent
        values[5:, :, alpha] = full * (values[5:, :, alpha] > full / 4)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric=photometric, planarconfig=planar, extrasamples=extras, tile=(16, 16)
    )
    shown = values[..., [i for i in range(count) if i != alpha]]
    shown = shown[..., :3] if shown.shape[2] >= 3 else shown[..., [0, 0, 0]]
    expected = scaled(shown, full)
    if extras[-1] == "unassalpha":
        expected = np.rint(expected * (values[..., [alpha]] / full))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageConversionWarning)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("interleave", ["band", "pixel"])
@pytest.mark.parametrize(
    ("dtype", "factor", "nodata", "high"),
    [
        ("int16", 1, -9999, 255),
        ("uint16", 8, 65535, 2047),
        ("uint16", 8, 0, 2047),
        ("int32", 8, -2147483648, 2047),
        ("uint8", 1, 255, 255),
        ("float32", 1, -9999, 255),
        ("float32", 1 / 255, np.nan, 1),
        ("float32", 1 / 255, np.inf, 1),
        ("float32", 1 / 255, -3.4e38, 1),
        ("float32", 1, float(np.finfo("float32").min), 255),
        ("float64", 1, -1.7976931348623157e308, 255),
    ],
)
def test_nodata_is_black_and_takes_no_contrast(tmp_path, scene, reader, interleave, dtype, factor, nodata, high):
    values = (scene.astype(np.float64) * factor).astype(dtype)
    values[:, :8] = nodata
    path = write_gdal(tmp_path / "a.tif", values, nodata=nodata, interleave=interleave, photometric="RGB")
    image = read(path, "missing pixels", "8% of pixels")
    assert not image[:, :8].any()
    np.testing.assert_array_equal(image[:, 8:], scaled(values[:, 8:], high))
    stretched = read(path, "missing pixels", reading=resolve_reading(ImageOptions(stretch="percentiles:0,100"), [path]))
    low, top = values[:, 8:].min(), values[:, 8:].max()
    np.testing.assert_array_equal(stretched[:, 8:], scaled(values[:, 8:], top, low))
    assert not stretched[:, :8].any()


def test_a_nodata_value_in_single_bands_of_8_bit_colour_is_a_colour(tmp_path, scene, reader):
    scene[5, 5], scene[6, 6] = (255, 10, 0), (255, 255, 255)
    image = read(write_gdal(tmp_path / "a.tif", scene, nodata=255), "missing pixels")
    assert image[5, 5].tolist() == [255, 10, 0] and image[6, 6].tolist() == [0, 0, 0]


def test_a_missing_sample_of_a_wider_band_is_black_alone(tmp_path, scene, reader):
    values = scene.astype(np.uint16) * 8
    values[5, 5, 0] = 65535
    image = read(write_gdal(tmp_path / "a.tif", values, nodata=65535, photometric="RGB"), "11-bit")
    values[5, 5, 0] = 0
    np.testing.assert_array_equal(image, scaled(values, 2047))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_is_no_part_of_nodata(tmp_path, scene, reader, dtype):
    full = np.iinfo(dtype).max
    values = np.dstack([scene.astype(dtype), np.full((64, 96), full, dtype)])
    values[5, 5], values[6, 6] = (7, 7, 7, full), (7, 7, 7, 0)
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, "7", True)], **options)
    image = read(tmp_path / "a.tif", "missing pixels", "0% of pixels not opaque")
    assert not image[5, 5].any() and not image[6, 6].any()
    np.testing.assert_array_equal(image[20:], scaled(values[20:, :, :3], 255))


def test_a_nodata_value_that_no_sample_can_have_hides_nothing(tmp_path, scene, reader):
    tifffile.imwrite(tmp_path / "a.tif", scene, photometric="rgb", extratags=[(42113, "s", 0, "-9999", True)])
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), scene)
    tifffile.imwrite(tmp_path / "a.tif", scene, photometric="rgb", extratags=[(42113, "s", 0, "", True)])
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), scene)
    for text in ("none", "-9999 0"):
        tifffile.imwrite(tmp_path / "a.tif", scene, photometric="rgb", extratags=[(42113, "s", 0, text, True)])
        with pytest.raises(RossamError, match=rf"GDAL_NODATA is '{text}', which is no number(?s:.)*Remedy: .*a_nodata"):
            read_image(tmp_path / "a.tif")


def test_a_nodata_value_may_be_repeated_for_each_band(tmp_path, scene, reader):
    scene[:, :8] = 7
    tifffile.imwrite(tmp_path / "a.tif", scene, photometric="rgb", extratags=[(42113, "s", 0, "7 7 7", True)])
    assert not read(tmp_path / "a.tif", "missing pixels")[:, :8].any()


def test_nan_is_refused_unless_the_file_says_that_it_means_nothing(tmp_path, scene, reader):
    values = scene.astype(np.float32)
    values[3, 4, 1] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=[(42113, "s", 0, "-9999", True)])
    with pytest.raises(RossamError, match=rf"1 of {values.size} pixel .* besides those(?s:.)*the file's nodata value"):
        read_image(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    with pytest.raises(RossamError, match=rf"1 of {values.size} pixel values are NaN(?s:.)*Remedy: .*a_nodata nan"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("dtype", "value"), [("int16", -9999), ("int16", -32768), ("float32", -9999), ("float32", np.finfo("f4").min)]
)
def test_a_usual_nodata_value_that_the_file_does_not_declare_is_pointed_out(tmp_path, scene, reader, dtype, value):
    values = scene.astype(dtype)
    values[:, :8] = value
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    read(tmp_path / "a.tif", f"where {value:g} means a missing pixel", f"-a_nodata {value:g} FILE")


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("internal", [True, False], ids=["internal", "beside"])
@pytest.mark.parametrize(("dtype", "factor", "high"), [("uint8", 1, 255), ("uint16", 8, 2047)])
def test_pixels_outside_a_mask_are_black(tmp_path, scene, reader, tiled, internal, dtype, factor, high):
    values, mask = scene.astype(dtype) * factor, np.full((64, 96), 255, np.uint8)
    mask[:16, 40:] = 0
    values[:16, 40:] = np.iinfo(dtype).max
    blocks = {"tiled": True, "blockxsize": 32, "blockysize": 16} if tiled else {}
    blocks |= {"internal": internal, "photometric": "RGB", "compress": "deflate"}
    path = write_gdal(tmp_path / "a.tif", values, mask=mask, **blocks)
    assert (tmp_path / "a.tif.msk").exists() != internal
    image = read(path, "missing pixels", "15% of pixels")
    assert "page" not in "".join(tiff.TiffImage(path).notes)
    np.testing.assert_array_equal(image, scaled(values, high) * (mask > 0)[..., None])


@pytest.mark.parametrize("compress", ["none", "ccittfax4", "deflate"])
@pytest.mark.parametrize("photometric", ["MINISBLACK", "MINISWHITE"])
def test_bilevel_files_are_black_and_white(tmp_path, scene, reader, compress, photometric):
    bits = (scene[..., :1] > 150).astype(np.uint8)
    path = write_gdal(tmp_path / "a.tif", bits, nbits=1, compress=compress, photometric=photometric)
    white = bits if photometric == "MINISBLACK" else 1 - bits
    np.testing.assert_array_equal(read(path, "gray"), np.repeat(white * 255, 3, axis=2))


@pytest.mark.parametrize("bits", [2, 4])
def test_fewer_than_8_bits_fill_the_range(tmp_path, scene, reader, bits):
    values = scene[..., :1] >> (8 - bits)
    image = read(write_gdal(tmp_path / "a.tif", values, nbits=bits), "gray")
    np.testing.assert_array_equal(image, np.repeat(scaled(values, 2**bits - 1), 3, axis=2))


def test_a_stated_depth_is_the_full_scale_of_a_dark_image(tmp_path, scene, reader):
    values = scene.astype(np.uint16) * 2  # of 9 bits only
    image = read(write_gdal(tmp_path / "a.tif", values, nbits=12, photometric="RGB"), "12-bit")
    np.testing.assert_array_equal(image, scaled(values, 4095))


@pytest.mark.parametrize(("dtype", "full"), [("uint8", 255), ("uint16", 65535)])
def test_white_is_zero_is_turned_round(tmp_path, scene, reader, dtype, full):
    values = scene[..., 0].astype(dtype) * (full // 255)
    tifffile.imwrite(tmp_path / "a.tif", full - values, photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "a.tif", "gray"), np.repeat(scene[..., :1], 3, axis=2))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_palette_becomes_its_colours(tmp_path, scene, reader, compression):
    picture = Image.fromarray(scene).quantize(200)
    picture.save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), np.array(picture.convert("RGB")))
    blue = resolve_reading(ImageOptions(bands=3), [tmp_path / "a.tif"])
    np.testing.assert_array_equal(
        read(tmp_path / "a.tif", "band 3 of 3", reading=blue)[..., 0], np.array(picture.convert("RGB"))[..., 2]
    )


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_palette_of_gdal_becomes_its_colours(tmp_path, scene, reader, bits):
    rasterio = pytest.importorskip("rasterio")
    indices, colours = scene[..., :1] >> (8 - bits), {i: (255 - i, 3 * i % 256, i) for i in range(2**bits)}
    write_gdal(tmp_path / "a.tif", indices, nbits=bits, photometric="PALETTE")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "a.tif", "r+") as file:
            file.write_colormap(1, colours)
    table = np.array([colours[i] for i in range(2**bits)])
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), table[indices[..., 0]])


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "CMYK", "LAB", "P", "1"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_8_bit_files_of_pillow_are_read_as_by_pillow(tmp_path, scene, reader, mode, compression):
    if compression == "jpeg" and mode in ("P", "1", "LA", "RGBA", "LAB"):
        pytest.skip("JPEG has no such mode")
    picture = Image.fromarray(scene)
    picture = picture.convert("LAB") if mode == "LAB" else picture.convert(mode)
    picture.save(tmp_path / "a.tif", compression=compression)
    with Image.open(tmp_path / "a.tif") as stored, warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageConversionWarning)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.array(stored.convert("RGB")))


def test_a_palette_that_lacks_values_is_told(tmp_path, scene, reader):
    tifffile.imwrite(tmp_path / "a.tif", scene[..., 0], photometric="palette", colormap=np.zeros((3, 256), np.uint16))
    content = bytearray((tmp_path / "a.tif").read_bytes())
    struct.pack_into("<I", content, content.index(struct.pack("<HHI", 320, 3, 768)) + 4, 96)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(RossamError, match="has values that its palette lacks"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 1), ("uint8", 4), ("uint8", 8), ("uint16", 16)])
@pytest.mark.parametrize("photometric", ["MINISBLACK", "MINISWHITE", "PALETTE"])
def test_a_strip_of_the_whole_image_takes_little_more_memory_than_its_values(
    tmp_path, reader, monkeypatch, dtype, bits, photometric
):
    if photometric == "PALETTE" and bits == 16:
        pytest.skip("has no palette")
    options = {"nbits": bits} if bits < 8 else {}
    write_gdal(tmp_path / "a.tif", np.ones((2000, 2000, 1), dtype), photometric=photometric, blockysize=2000, **options)
    monkeypatch.setattr(images, "BLOCK", 2**16)
    tracemalloc.start()
    read_window(tmp_path / "a.tif", None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2000 * 2000 * 10 + 3 * 2**23


def test_of_many_bands_those_shown_alone_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "rasterio_if_installed", lambda: None)
    tifffile.imwrite(tmp_path / "a.tif", np.ones((300, 300, 200), np.uint8), photometric="minisblack", rowsperstrip=1)
    tracemalloc.start()
    read_window(tmp_path / "a.tif", None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300 * 300 * 100


@pytest.mark.parametrize("block", [7, 100, 1000])
def test_parts_of_a_large_strip_are_those_of_the_image(tmp_path, scene, reader, monkeypatch, block):
    alpha, mask = np.full((64, 96, 1), 255, np.uint8), np.full((64, 96), 255, np.uint8)
    alpha[10:20, 5:30], mask[:16, 40:] = 0, 0
    options = {"photometric": "RGB", "alpha": "YES", "blockysize": 64}
    path = write_gdal(tmp_path / "a.tif", np.dstack([scene, alpha]), mask=mask, **options)
    whole = read(path, "alpha", "missing pixels")
    monkeypatch.setattr(images, "BLOCK", block)
    np.testing.assert_array_equal(read(path, "alpha", "missing pixels"), whole)
    np.testing.assert_array_equal(read_window(path, (3, 9, 90, 60)), whole[9:60, 3:90])


@pytest.mark.parametrize("tiled", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_jpeg_in_a_geotiff_does_not_depend_on_rasterio(tmp_path, scene, reader, tiled):
    path = write_gdal(tmp_path / "a.tif", scene, photometric="YCBCR", compress="jpeg", **tiled)
    with Image.open(path) as stored:
        np.testing.assert_array_equal(read(path), np.array(stored.convert("RGB")))


def test_overviews_are_no_pages_and_further_pages_are_told(tmp_path, scene, reader):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(scene, photometric="rgb")
        file.write(scene[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), scene)
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(scene[::4, ::4], photometric="rgb", subfiletype=1)
        file.write(scene, photometric="rgb")
        file.write(scene // 2, photometric="rgb")
    np.testing.assert_array_equal(read(tmp_path / "b.tif", "first of 2 pages"), scene)


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (np.ones((8, 9), np.complex64), {}, "samples are complex64.*Remedy: write amplitude"),
        (np.ones((8, 9), np.float32), {"photometric": "miniswhite"}, "MINISWHITE.*Remedy: save it as MINISBLACK"),
        (np.ones((8, 9, 3), np.uint16), {"photometric": "cielab"}, "not an image of a known format|damaged"),
        (np.ones((16, 32, 32), np.uint8), VOLUME, "expected height and width"),
    ],
)
def test_what_cannot_be_read_right_is_refused(tmp_path, reader, pixels, options, words):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(RossamError, match=rf"(?s)a\.tif: .*({words})"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [LAYOUTS[name] for name in ("strips", "tiles", "LZW planar", "ZSTD")])
def test_a_cut_file_is_an_error(tmp_path, scene, reader, options):
    write(tmp_path / "a.tif", scene.astype(np.uint16) * 8, **options)
    whole = (tmp_path / "a.tif").read_bytes()
    for share in (0.02, 0.3, 0.7, 0.98):
        (tmp_path / "cut.tif").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(RossamError, match=r"(?s)cut\.tif: .*Remedy: copy the file again"):
            read_image(tmp_path / "cut.tif")


def page_of(content):
    """Of a little-endian TIFF: place of its first page's tag count, and of the number of the page after it."""
    start = struct.unpack_from("<I", content, 4)[0]
    return start, start + 2 + 12 * struct.unpack_from("<H", content, start)[0]


def test_a_page_that_names_itself_as_the_next_is_an_error(tmp_path, scene):
    write(tmp_path / "a.tif", scene)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    start, following = page_of(content)
    struct.pack_into("<I", content, following, start)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(RossamError, match=rf"(?s)a\.tif: .*list of pages returns to the one at byte {start}.*Remedy"):
        read_image(tmp_path / "a.tif")


def test_an_image_of_no_samples_is_an_error(tmp_path, scene, reader):
    write(tmp_path / "a.tif", scene)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    start, following = page_of(content)
    entries = {struct.unpack_from("<H", content, at)[0]: at for at in range(start + 2, following, 12)}
    struct.pack_into("<H", content, entries[277] + 8, 0)  # samples per pixel
    struct.pack_into("<IH", content, entries[258] + 4, 1, 8)  # one number of bits
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(RossamError, match=r"(?s)a\.tif: .* 0 samples per pixel.*Remedy"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("tag", [256, 257, 273, 278, 279])  # width, length, offsets, rows per strip, byte counts
@pytest.mark.parametrize("count", [0, 2, 7])
def test_a_tag_of_another_length_is_an_error_or_the_image(tmp_path, scene, reader, tag, count):
    write(tmp_path / "a.tif", scene, rowsperstrip=16)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    start, following = page_of(content)
    (entry,) = [at for at in range(start + 2, following, 12) if struct.unpack_from("<H", content, at)[0] == tag]
    struct.pack_into("<I", content, entry + 4, count)
    (tmp_path / "a.tif").write_bytes(content)
    try:
        assert read(tmp_path / "a.tif").shape == scene.shape
    except RossamError as error:
        assert str(error).startswith(str(tmp_path / "a.tif")) and "Remedy: copy the file again" in str(error)


def test_a_window_reads_the_tiles_it_touches_and_no_others(tmp_path, scene, reader):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, scene, photometric="rgb", tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[0].dataoffsets[-1], file.pages[0].databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
    np.testing.assert_array_equal(read_image(path, window=(5, 7, 80, 48)), scene[7:48, 5:80])
    with pytest.raises(RossamError, match="is damaged"):
        read_image(path)
    for window in ((0, 0, 0, 5), (-1, 0, 5, 5), (90, 60, 97, 64)):
        with pytest.raises(RossamError, match="outside of the image"):
            read_image(path, window=window)


def test_a_scene_above_pillow_s_limit_is_read_in_windows(tmp_path, reader):
    path = tmp_path / "scene.tif"
    tiles = -(-14000 // 512) * -(-14000 // 512)
    part = np.arange(512 * 512 * 3, dtype=np.uint16).reshape(512, 512, 3) % 4096

    def parts():
        yield part
        yield from (None for _ in range(tiles - 2))
        yield part[::-1]

    shape = {"shape": (14000, 14000, 3), "dtype": np.uint16, "photometric": "rgb"}
    tifffile.imwrite(path, parts(), tile=(512, 512), compression="zlib", **shape)
    assert image_size_hw(path) == (14000, 14000)
    reading = resolve_reading(ImageOptions(stretch="0,4095"), [path])
    with pytest.warns(ImageConversionWarning):
        corner = read_image(path, reading, (13900, 13900, 14000, 14000))
        first = read_image(path, reading, (500, 0, 600, 50))
    x = 13900 % 512
    np.testing.assert_array_equal(corner, scaled(part[::-1][x : x + 100, x : x + 100], 4095))
    np.testing.assert_array_equal(first[:, :12], scaled(part[:50, 500:], 4095))
    assert not first[:, 12:].any()


def test_large_images_are_converted_block_by_block(tmp_path, scene, reader, monkeypatch):
    monkeypatch.setattr("rossam_kit.datasets.images.BLOCK", 500)
    for number, options in enumerate((LAYOUTS["odd strips"], LAYOUTS["tiles"])):
        values = scene.astype(np.uint16) * 8
        tifffile.imwrite(tmp_path / f"{number}.tif", values, photometric="rgb", **options)
        np.testing.assert_array_equal(read(tmp_path / f"{number}.tif", "11-bit"), scaled(values, 2047))
