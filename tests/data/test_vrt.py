"""Virtual rasters: made of image files on this machine alone, and another image as soon as one of these changes."""

import re
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from rossam_core.errors import RossamError
from rossam_core.files import sha256_of
from rossam_core.records import Frame, fingerprint
from rossam_kit.config import ImageOptions
from rossam_kit.datasets import image_sources
from rossam_kit.datasets.images import ImageConversionWarning, read_image, resolve_reading

rasterio = pytest.importorskip("rasterio")
SERVICE = "<GDAL_WMS><Service name='TMS'><ServerUrl>{}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service><DataWindow>"
SERVICE += "<UpperLeftX>0</UpperLeftX><UpperLeftY>8</UpperLeftY><LowerRightX>8</LowerRightX>"
SERVICE += "<LowerRightY>0</LowerRightY><SizeX>8</SizeX><SizeY>8</SizeY><TileLevel>0</TileLevel></DataWindow>"
SERVICE += "<BlockSizeX>8</BlockSizeX><BlockSizeY>8</BlockSizeY><BandsCount>1</BandsCount></GDAL_WMS>"


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        for kind in (ImageConversionWarning, rasterio.errors.NotGeoreferencedWarning):
            warnings.simplefilter("ignore", kind)
        yield


def write_tiff(path, value, dtype="uint16", mask=None):
    """8×8 of one value, with a mask beside it where one is given."""
    shape = {"driver": "GTiff", "height": 8, "width": 8, "count": 1, "dtype": dtype}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "w", **shape) as target:
        target.write(np.full((1, 8, 8), value, dtype))
        if mask is not None:
            target.write_mask(mask)
    return path


def write_vrt(path, *sources, names='<SourceFilename relativeToVRT="1">{}</SourceFilename>'):
    """A band of each source: a name, or a name and the type of the band."""
    parts = ['<VRTDataset rasterXSize="8" rasterYSize="8">']
    for number, source in enumerate(sources, start=1):
        name, kind = source if isinstance(source, tuple) else (source, "UInt16")
        parts.append(f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource>{names.format(name)}')
        parts.append("<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>")
    path.write_text("".join([*parts, "</VRTDataset>"]))
    return path


@pytest.mark.parametrize("bands", [None, 2, (1, 2, 2)])
def test_bands_of_different_types_are_refused(tmp_path, bands):
    write_tiff(tmp_path / "quality.tif", 1, "uint8")
    write_tiff(tmp_path / "red.tif", 300)
    vrt = write_vrt(tmp_path / "a.vrt", ("quality.tif", "Byte"), "red.tif")
    with pytest.raises(RossamError, match=r"bands differ in type \(uint8, uint16\)(?s:.)*Remedy: .*bands of one type"):
        read_image(vrt, resolve_reading(ImageOptions(bands=bands, stretch="0,1000"), []))
    write_vrt(tmp_path / "a.vrt", "quality.tif", "red.tif")
    assert read_image(vrt, resolve_reading(ImageOptions(bands=2, stretch="0,300"), [vrt])).min() == 255


def state(path, cache):
    """What is remembered of an image: its limits, its hash, and that of frames."""
    reading = resolve_reading(ImageOptions(stretch="percentiles:0,100"), [path], cache)
    frame = Frame("made", "a", 1, path, (8, 8), reading=resolve_reading(ImageOptions(stretch="0,9"), []))
    return reading.limits["uint16"], frame.image_hash(), fingerprint([frame])


def test_an_image_changes_with_the_files_that_its_virtual_raster_is_made_of(tmp_path):
    write_tiff(tmp_path / "real.tif", 300)
    write_vrt(tmp_path / "inner.vrt", "real.tif")
    outer = write_vrt(tmp_path / "outer.vrt", "inner.vrt")
    limits, *hashes = state(outer, tmp_path / "cache")
    assert limits == (300, 300) and read_image(outer).max() > 0
    assert tuple(hashes) == state(outer, tmp_path / "cache")[1:]
    write_tiff(tmp_path / "real.tif", 500)
    again, *others = state(outer, tmp_path / "cache")
    assert again == (500, 500) and not set(hashes) & set(others)


def test_an_image_changes_with_the_mask_beside_it(tmp_path):
    values, mask = np.arange(64).reshape(8, 8), np.zeros((8, 8), np.uint8)
    path = write_tiff(tmp_path / "a.tif", values)
    limits, *hashes = state(path, tmp_path / "cache")
    assert limits == (0, 63) and hashes[0] == sha256_of(path)
    mask[:4] = 255
    write_tiff(tmp_path / "b.tif", values, mask=mask)
    (tmp_path / "b.tif.msk").rename(tmp_path / "a.tif.msk")
    again, *others = state(path, tmp_path / "cache")
    assert again == (0, 31) and not set(hashes) & set(others)


@pytest.fixture
def server(monkeypatch):
    """The address of a web server on this machine, and the paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def write_remote(folder, kind, address):
    """A virtual raster that leads to a server in some way."""
    (folder / "service.xml").write_text(SERVICE.format(address))
    write_vrt(folder / "inner.vrt", f"/vsicurl/{address}/a.tif", names="<SourceFilename>{}</SourceFilename>")
    if kind == "attribute":
        named = write_vrt(folder / "a.vrt", f"/vsicurl/{address}/a.tif", names="{}").read_text()
        named = re.sub(r"<SimpleSource>(.*?)<", r'<SimpleSource SourceFilename="\1"><', named)
        (folder / "a.vrt").write_text(named)
        return folder / "a.vrt"
    if kind == "lower case":
        names = "<sourcefilename>{}</sourcefilename>"
        return write_vrt(folder / "a.vrt", f"/vsicurl/{address}/a.tif", names=names)
    return write_vrt(folder / "a.vrt", {"virtual raster": "inner.vrt", "service": "service.xml"}[kind])


KINDS = ["virtual raster", "service", "lower case", "attribute"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_source_at_any_depth_leads_to_a_server(tmp_path, server, kind):
    address, asked = server
    with pytest.raises(RossamError, match=r"never read from a network|is no TIFF, PNG, JPEG or JPEG 2000"):
        read_image(write_remote(tmp_path, kind, address))
    assert asked == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_search_for_sources_overlooks_reaches_no_server_either(tmp_path, server, monkeypatch, kind):
    address, asked = server
    monkeypatch.setattr(image_sources, "source_files", lambda path: [])
    with pytest.raises(RossamError, match="cannot be"):
        read_image(write_remote(tmp_path, kind, address))
    assert asked == []


def test_virtual_rasters_in_each_other_have_an_end(tmp_path):
    write_tiff(tmp_path / "0.tif", 300)
    write_vrt(tmp_path / "1.vrt", "0.tif")
    for number in range(2, 10):
        write_vrt(tmp_path / f"{number}.vrt", f"{number - 1}.vrt")
    assert (read_image(tmp_path / "8.vrt") == read_image(tmp_path / "0.tif")).all()
    with pytest.raises(RossamError, match="more than 8 deep"):
        read_image(tmp_path / "9.vrt")
    write_vrt(tmp_path / "1.vrt", "1.vrt")
    with pytest.raises(RossamError, match=r"1\.vrt: cannot be"):
        read_image(tmp_path / "1.vrt")


def test_a_link_to_a_virtual_raster_is_read_like_it(tmp_path):
    (tmp_path / "set").mkdir()
    write_tiff(tmp_path / "set/0.tif", 300)
    (tmp_path / "a.vrt").symlink_to(write_vrt(tmp_path / "set/1.vrt", "0.tif"))
    assert (read_image(tmp_path / "a.vrt") == read_image(tmp_path / "set/0.tif")).all()


@pytest.mark.parametrize("name", ["/vsizip/a.zip/a.tif", "/vsitar/a.tar/a.tif"])
def test_sources_in_an_archive_are_refused(tmp_path, name):
    vrt = write_vrt(tmp_path / "a.vrt", name, names="<SourceFilename>{}</SourceFilename>")
    with pytest.raises(RossamError, match=r"is in an archive(?s:.)*Remedy: unpack the archive"):
        read_image(vrt)
