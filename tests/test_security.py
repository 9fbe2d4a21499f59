"""Nothing that comes with data runs code, leaves its folder, fills the memory, or is reached from another machine."""

import ast
import csv
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from rossam_core import masks
from rossam_core.boxes import check_boxes
from rossam_core.errors import RossamError
from rossam_core.files import read_json
from rossam_core.records import Frame, ImageReading, ObjectAnnotation
from rossam_kit.config import load_profile
from rossam_kit.convert import editors, exports
from rossam_kit.convert.convert import ConversionConfig, convert
from rossam_kit.convert.imports import READERS, corrected
from rossam_kit.convert.mask_records import Conversion
from rossam_kit.csv_text import guarded, plain
from rossam_kit.datasets import images, tiff, unpack
from rossam_kit.datasets.coco import flat_numbers, read_coco, segmentation_fault
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.sat_mtb import read_xlsx
from rossam_kit.options import read_settings
from rossam_kit.parallel import run_tasks
from rossam_kit.report import runner
from rossam_kit.report.objects import ObjectView
from rossam_kit.report.pictures import mask_comparison
from rossam_kit.report.plots import score_by_group

from .conversion.tiny_tracks import SIZE_HW, Notched, make_frames
from .fake_datasets import write_xlsx

ROOT = Path(__file__).parents[1]
FORMULA = '=HYPERLINK("http://x", "y")'
EVIL = (
    "<script>alert(1)</script>",
    FORMULA,
    "+1+cmd|' /C calc'!A0",
    "@SUM(1)",
    "-2+3+a",
    "'=1",
    "$x^$",
    "../../x",
    "a\tb",
)


# --- code that data could reach ---------------------------------------------------------------------------------------


def calls(text: str):
    """Dotted name and keywords of every call in Python source."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def sources():
    for package in ("rossam_core", "rossam_kit", "tools", "docs", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            if cell["cell_type"] == "code":
                yield path.name, "".join(cell["source"])


FORBIDDEN = ("pickle.load", "pickle.loads", "Unpickler", "joblib.load", "joblib.Memory", "pd.read_pickle", "read_hdf")
FORBIDDEN += ("eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "extractall", "marshal.loads")
REQUIRED = {"torch.load": ("weights_only", "True"), "np.load": ("allow_pickle", "False")}
FROM_A_PIPE = {("rossam_kit/parallel.py", "cloudpickle.loads")}


def test_no_code_unpickles_a_file_or_starts_a_shell():
    for place, text in sources():
        for name, words in calls(text):
            assert name not in FORBIDDEN and not name.endswith(".extractall"), (place, name)
            assert "shell" not in words, (place, name)
            assert not name.endswith("pickle.loads") or (place, name) in FROM_A_PIPE, (place, name)
            if name in REQUIRED:
                key, value = REQUIRED[name]
                assert words.get(key) == value, (place, name, words)


# --- names in tables, pages and figures -------------------------------------------------------------------------------


@given(st.text() | st.text("'=+-@\t\r0123456789.e ", max_size=8))
def test_a_text_is_no_formula_in_a_csv_file_and_comes_back(text):
    written = guarded(text)
    assert plain(written) == text
    assert not written.startswith(("=", "@"))
    if written.startswith(("+", "-", "\t", "\r")):
        assert set(written) <= set("+-0123456789.,%() \t\n\r\v\feinfato")


def named_frames(folder):
    """The tiny frames, whose objects have the names of `EVIL` as classes."""
    frames = make_frames(folder)
    classes = iter(EVIL * 2)
    renamed = [
        f.with_objects([ObjectAnnotation(o.object_id, next(classes, "car"), o.box_xyxy) for o in f.objects])
        for f in frames
    ]
    return FrameSet("tiny", renamed)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    return convert(Notched(), named_frames(folder / "data"), folder / "out", ConversionConfig(jitter=0))


def test_no_csv_file_of_a_conversion_holds_a_formula_and_the_program_reads_the_names_back(named):
    for _, write in (*exports.EXPORTS.values(), *editors.EXPORTS.values()):
        write(named, named.folder / "made" / write.__name__)
    files = list(named.folder.rglob("*.csv"))
    assert len(files) > 5
    for path in files:
        for row in csv.reader(path.read_text(encoding="utf-8").splitlines()):
            assert not any(cell.startswith(("=", "@", "\t", "+1", "-2")) for cell in row), (path, row)
    assert list(Conversion(named.folder).table["category"])[: len(EVIL)] == list(EVIL)


@pytest.mark.parametrize("format", [f for f in READERS if f != "review"])
def test_names_come_back_from_every_format(named, format):
    writers = exports.EXPORTS | editors.EXPORTS
    writers[format][1](named, named.folder / writers[format][0])
    frames, outcomes = corrected(named, format)
    assert outcomes["unchanged"] == frames.object_count == len(named.table)
    assert {item.category for frame in frames for item in frame.objects} >= {name.lower() for name in EVIL}


def test_class_names_are_no_formulas_of_figures():
    image, mask = np.zeros((20, 20, 3), np.uint8), np.ones((20, 20), bool)
    scores = {"sam": 1.0}
    view = ObjectView(
        key="$a_$", category="$x^$", area=400, image=image, box_xyxy=(1, 1, 9, 9), target=mask, masks={"sam": mask},
        iou=scores, biou=scores,
    )  # fmt: skip
    mask_comparison([view])._repr_png_()
    rows = pd.DataFrame({"method": "sam", "video": ["a", "b"], "category": "$x^$", "iou": [0.1, 0.2]})
    score_by_group(rows)._repr_png_()


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/secret.png", "a/../../secret.png", "..\\secret.png", "a\0b.png"]
)
def test_no_file_name_leaves_the_image_folder(tmp_path, name):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    entry = {"id": 1, "file_name": name, "width": 8, "height": 8}
    (tmp_path / "a.json").write_text(json.dumps({"images": [entry], "annotations": [], "categories": []}))
    with pytest.raises(RossamError, match=r"outside the image folder|no such image"):
        read_coco(tmp_path / "a.json", tmp_path / "images", name="x")


@pytest.mark.parametrize("name", ["../../../up.png", "/tmp/abs.png", "..\\..\\up.png", "a/../../../up.png"])
def test_no_export_writes_outside_of_its_folder(tmp_path, name):
    made = make_frames(tmp_path / "deep" / "data", 1, 1)
    first = made[0]
    frame = Frame(first.dataset, f"../{name}", 1, first.image_path, SIZE_HW, first.objects, source={"file_name": name})
    done = convert(Notched(), FrameSet("tiny", [frame]), tmp_path / "deep" / "out", ConversionConfig(jitter=0))
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(done.folder)}
    for number, (_, write) in enumerate((*exports.EXPORTS.values(), *editors.EXPORTS.values())):
        write(done, done.folder / f"made {number}" / "x")
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(done.folder)} == before
    assert not Path("/tmp/abs.json").exists() and not Path("/tmp/abs.png").exists()


def test_a_writer_replaces_a_link_and_leaves_what_it_points_at(tmp_path):
    (tmp_path / "precious").write_text("old")
    (tmp_path / "out.csv").symlink_to(tmp_path / "precious")
    exports.write_text(tmp_path / "out.csv", "new")
    assert (tmp_path / "precious").read_text() == "old" and not (tmp_path / "out.csv").is_symlink()


VRT = '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
VRT += "<SourceFilename>{}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"


@pytest.mark.parametrize(
    "source",
    ["/vsicurl/http://127.0.0.1/a.tif", "/vsis3/a/b.tif", "http://x/a.tif", "&#47;vsicurl/a", "&lt;GDAL_WMS&gt;"],
)
def test_a_virtual_raster_does_not_reach_the_network(tmp_path, source):
    pytest.importorskip("rasterio")
    (tmp_path / "a.vrt").write_text(VRT.format(source))
    with pytest.raises(RossamError, match="never read from a network"):
        images.read_image(tmp_path / "a.vrt")


def test_a_virtual_raster_is_not_taken_for_an_image(tmp_path):
    pytest.importorskip("rasterio")
    (tmp_path / "a.png").write_text(VRT.format("/secret.tif"))
    with pytest.raises(RossamError, match="under another name"):
        images.read_image(tmp_path / "a.png")


@pytest.mark.parametrize("read", [images.read_image, ImageReading().read, images.image_size_hw])
def test_no_image_starts_a_program(tmp_path, monkeypatch, read):
    program, started = tmp_path / "bin/gs", tmp_path / "started"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(RossamError, match=r"not an image of a known format|cannot identify image file"):
        read(tmp_path / "a.png")
    assert not started.exists()


# --- bombs ------------------------------------------------------------------------------------------------------------


def test_a_workbook_is_not_unpacked_beyond_its_limit(tmp_path):
    write_xlsx(tmp_path / "a.xlsx", {"seg": [["a"]]})
    with zipfile.ZipFile(tmp_path / "a.xlsx", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/bomb.xml", b" " * 100_000_001)
    with pytest.raises(RossamError, match="the limit is 100,000,000"):
        read_xlsx(tmp_path / "a.xlsx")


def test_an_archive_may_not_hold_more_files_than_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MIN_LIMIT", 10_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(600):
            archive.writestr(f"{number}", b"")
    monkeypatch.setattr(unpack, "MAX_RATIO", 1)
    with pytest.raises(RossamError, match="unpacks to more than"):
        unpack.unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_small_tiff_that_states_a_huge_size_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), rowsperstrip=16)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = {name: file.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength", "RowsPerStrip")}
    for offset in tags.values():
        struct.pack_into("<H", content, offset, 65_000)
    path.write_bytes(content)
    with pytest.raises(RossamError, match=r"the limit is|truncated|damaged"):
        images.read_image(path)


def test_no_more_pixels_are_decoded_at_once_than_the_limit(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb", tile=(16, 16))
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    assert images.read_image(tmp_path / "a.tif", window=(0, 0, 20, 20)).shape == (20, 20, 3)
    with pytest.raises(RossamError, match="the limit is 1,000"):
        images.read_image(tmp_path / "a.tif")
    monkeypatch.setattr(tiff, "MAX_BLOCK", 100)
    with pytest.raises(RossamError, match="the limit is 100"):
        images.read_image(tmp_path / "a.tif", window=(0, 0, 20, 20))


def test_an_image_of_too_many_pixels_is_refused_by_its_header(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    struct.pack_into(">II", content, 16, 60_000, 60_000)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(RossamError, match="too large to decode at once"):
        images.read_image(path)


@pytest.mark.parametrize(
    "text", ['{"a": ' + "9" * 5000 + "}", "[" * 100_000, '{"a": 1e9999999}', "\ufeff", '"\\ud800"']
)
def test_json_of_extreme_numbers_and_depths_is_read_or_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    try:
        read_json(tmp_path / "a.json")
    except RossamError as error:
        assert "a.json" in str(error)


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_whole_numbers_of_hundreds_of_digits_are_no_coordinates(value):
    assert flat_numbers([value, 1, 2, 3]) is None and "polygon 1" in segmentation_fault([[value] * 6], (8, 8))
    with pytest.raises(RossamError, match="not an array of numbers"):
        check_boxes([[value, 1, 2, 3]], (8, 8), "boxes")


@pytest.mark.parametrize("text", ["a: 2020-13-45", "[" * 5000, "a: \x00", "a: [", "{[1]: 2}", "12"])
def test_settings_of_any_text_are_read_or_refused(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(RossamError, match=r"a\.yaml"):
        load_profile(str(tmp_path / "a.yaml"))
    try:
        read_settings([f"title={text}"])
    except RossamError as error:
        assert "--set title" in str(error)


LAUGHS = "".join(f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 10))


def test_entities_of_xml_do_not_fill_the_memory(named):
    folder = named.folder / "cvat"
    editors.write_cvat(named, folder)
    path = folder / "annotations.xml"
    path.write_text(f'<!DOCTYPE a [<!ENTITY x0 "ha">{LAUGHS}]><annotations>&x9;</annotations>')
    with pytest.raises(RossamError, match="cannot be read"):
        corrected(named, "cvat")


@pytest.mark.parametrize("rle", ["1, 99999999999", "9" * 30, "-5, 7", "a"])
def test_a_mask_of_an_editor_is_no_larger_than_its_image(named, rle):
    folder = named.folder / "cvat"
    editors.write_cvat(named, folder)
    path = folder / "annotations.xml"
    size = 'left="0" top="0" width="99999" height="1000000"'
    name = Conversion(named.folder).shard(0)[0].image_path
    file = exports.Names(named).file_of[Conversion(named.folder).shard(0)[0].key]
    assert name.exists()
    path.write_text(f'<annotations><image name="{file}"><mask label="x" rle="{rle}" {size}/></image></annotations>')
    with pytest.raises(RossamError, match="damaged"):
        corrected(named, "cvat")


def test_a_brush_mask_states_the_size_of_its_image():
    bits = f"{4_000_000_000:032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in editors.LENGTH_BITS)
    rle = np.packbits(np.frombuffer((bits + "1" * 64).encode(), np.uint8) - ord("0")).tolist()
    with pytest.raises(RossamError, match="not of the image's size"):
        editors.brush_mask(rle, (8, 8))


def test_a_run_length_encoding_fills_its_frame_and_no_more():
    for counts in ([10**12], [64, 10**12], [2**63 - 1, 2**63 - 1, 66], "o" * 2000):
        with pytest.raises(ValueError, match="mask"):
            masks.decode({"size": [8, 8], "counts": counts}, (8, 8))


# --- what listens -----------------------------------------------------------------------------------------------------


def addresses_of(process: psutil.Process) -> set[str]:
    """Addresses on which a process and those below it accept connections."""
    found = set()
    for each in (process, *process.children(recursive=True)):
        found |= {c.laddr.ip for c in each.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


def listening(_: int) -> set[str]:
    return addresses_of(psutil.Process())


def is_local(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")


def test_workers_listen_on_this_machine_only():
    for found in run_tasks(listening, [(0,), (1,)], workers=2):
        assert all(map(is_local, found)), found
    assert all(map(is_local, addresses_of(psutil.Process())))


RAY = """
import psutil
from rossam_kit.parallel import run_tasks
from tests.test_security import addresses_of, is_local
results = run_tasks(is_local, [("::1",), ("127.0.0.1",)], workers=2, engine="ray")
assert next(results)
found = addresses_of(psutil.Process())
assert found and all(map(is_local, found)), found
assert list(results) == [True]
"""


def test_a_ray_of_our_own_listens_on_this_machine_only():
    pytest.importorskip("ray")
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}  # at Ray's 15 they wait for all else
    done = subprocess.run([sys.executable, "-c", RAY], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kernels_listen_on_sockets_or_on_this_machine_only(tmp_path):
    own = "c.laddr.ip for c in psutil.Process().net_connections('inet') if c.status == 'LISTEN'"
    cells = [
        nbformat.v4.new_code_cell("profile = 'demo'", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(f"import psutil\nprint([{own}])"),
    ]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks/00_a.ipynb")
    (outcome,) = runner.run(["00_a"], {"profile": "demo"}, tmp_path / "report", tmp_path / "notebooks")
    assert outcome.status == "done"
    done = nbformat.read(next((tmp_path / "report").rglob("00_a.ipynb")), 4)
    text = done.cells[-1].outputs[0]["text"]
    assert all(map(is_local, ast.literal_eval(text))), text
