"""Boxes of GIS files on a raster, and masks back in its coordinates, opened with rasterio and pyogrio."""

import json
import sys
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
from tiny_tracks import Notched
from typer.main import get_command

from rossam_core.errors import RossamError
from rossam_kit import cli
from rossam_kit.config import DataConfig
from rossam_kit.convert import convert as conversion_module
from rossam_kit.convert import geo, geo_exports
from rossam_kit.convert.exporting import export
from rossam_kit.datasets.images import DatasetReading
from rossam_kit.experiments.baselines import BoxBaseline

rasterio = pytest.importorskip("rasterio")
pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")
from affine import Affine  # noqa: E402
from rasterio.warp import transform_geom  # noqa: E402

SIZE_HW = (400, 600)
BOXES = np.array([[20.0, 30, 60, 50], [200.3, 100.2, 230.7, 140.6], [500, 350, 580, 390]])
UTM = Affine(10, 0, 400_000, 0, -10, 5_000_000)
DEGREES = Affine(1e-4, 0, 13.5, 0, -1e-4, 45.2)
TURNED = UTM @ Affine.rotation(25)
GRIDS = {"utm": ("EPSG:32633", UTM), "degrees": ("EPSG:4326", DEGREES), "turned": ("EPSG:32633", TURNED)}


def write_raster(path, crs="EPSG:32633", transform=UTM, bands=3, dtype="uint8", **options):
    rng = np.random.default_rng(3)
    values = rng.integers(1, 255, (bands, *SIZE_HW)).astype(dtype)
    height, width = SIZE_HW
    shape = {"height": height, "width": width, "count": bands, "dtype": dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **shape, **options) as target:
            target.write(values)
    return path


def polygon(box, transform):
    x0, y0, x1, y1 = box
    ring = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    return {"type": "Polygon", "coordinates": [[transform @ corner for corner in ring]]}


def write_geojson(path, geometries, crs=None, **columns):
    features = [
        {"type": "Feature", "geometry": geometry, "properties": {name: values[i] for name, values in columns.items()}}
        for i, geometry in enumerate(geometries)
    ]
    content = {"type": "FeatureCollection", "features": features}
    if crs:
        content["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(content))
    return path


def boxes_file(path, crs, transform, boxes_crs, boxes=BOXES):
    """The boxes, given in pixels, as a file in another CRS; the suffix is the format."""
    shapes = [transform_geom(crs, boxes_crs, polygon(box, transform)) for box in boxes]
    if path.suffix == ".geojson":
        return write_geojson(path, shapes, crs=boxes_crs, **{"class": ["Ship", "ship", "Car"]})
    geometry = shapely.to_wkb([shapely.geometry.shape(shape) for shape in shapes])
    names = np.array(["Ship", "ship", "Car"], dtype=object)
    pyogrio.raw.write(path, geometry, [names], ["class"], crs=boxes_crs, geometry_type="Polygon")
    return path


def run(raster, boxes, out, predictor=None, formats=("gpkg", "geojson", "label-map"), **options):
    frames = geo.read_scene(raster, boxes, **options)
    geo_exports.check(frames, formats)
    conversion = conversion_module.convert(predictor or BoxBaseline(), frames, out)
    for name in formats:
        place, write = geo_exports.EXPORTS[name]
        write(conversion, out / place)
    return conversion


def read_masks(path):
    """CRS as text, attributes, shapely geometries."""
    meta, _, geometry, fields = pyogrio.raw.read(path)
    table = pd.DataFrame(dict(zip(meta["fields"], fields, strict=True)))
    return meta["crs"], table, shapely.from_wkb(geometry)


def in_pixels(geometry, transform):
    """Extent of a geometry in columns and rows."""
    points = np.array([~transform @ (x, y) for x, y in shapely.get_coordinates(geometry)])
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


@pytest.mark.parametrize(
    ("grid", "suffix"),
    [("utm", ".geojson"), ("utm", ".shp"), ("degrees", ".gpkg"), ("turned", ".geojson"), ("turned", ".gpkg")],
)
def test_masks_lie_on_their_boxes_to_half_a_pixel_whatever_crs_and_transform(tmp_path, grid, suffix):
    crs, transform = GRIDS[grid]
    raster = write_raster(tmp_path / "scene.tif", crs, transform)
    boxes = boxes_file(tmp_path / f"boxes{suffix}", crs, transform, "EPSG:3857")
    run(raster, boxes, tmp_path / "out")
    for name in ("masks.gpkg", "masks.geojson"):
        read_crs, table, shapes = read_masks(tmp_path / "out" / name)
        assert rasterio.crs.CRS.from_user_input(read_crs) == rasterio.crs.CRS.from_user_input(crs)
        assert table["class"].tolist() == ["Ship", "Ship", "Car"] and table["track"].tolist() == [1, 2, 3]
        assert {"status", "looks", "review_score", "jitter_stability", "class_id"} <= set(table.columns)
        for shape, box in zip(shapes, BOXES, strict=True):
            assert np.abs(in_pixels(shape, transform) - box).max() <= 0.5
            expected = shapely.geometry.shape(polygon(np.rint(box), transform))
            assert shape.symmetric_difference(expected).area < 1e-6 * expected.area
    with rasterio.open(tmp_path / "out/masks.tif") as labels, rasterio.open(raster) as source:
        assert (labels.crs, labels.transform, labels.shape) == (source.crs, source.transform, source.shape)
        values = labels.read(1)
    for label, box in enumerate(np.rint(BOXES).astype(int), start=1):
        rows, columns = np.nonzero(values == label)
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box.tolist()
    assert np.count_nonzero(values) == np.prod(np.rint(BOXES)[:, 2:] - np.rint(BOXES)[:, :2], axis=1).sum()


def test_tiles_give_the_masks_of_the_whole_scene(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    corners = rng.uniform(0, (560, 360), (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(9, 40, (40, 2))], axis=1)
    raster = write_raster(tmp_path / "scene.tif")
    shapes = [polygon(box, UTM) for box in boxes]
    file = write_geojson(tmp_path / "boxes.geojson", shapes, crs="EPSG:32633")
    whole = run(raster, file, tmp_path / "whole", Notched())
    assert len(list(whole)) == 1
    monkeypatch.setattr(geo, "CELL", 128)
    monkeypatch.setattr(geo, "MARGIN", 20)
    monkeypatch.setattr(geo_exports, "LABEL_BLOCK", 100)
    tiled = run(raster, file, tmp_path / "tiled", BoxBaseline())
    monkeypatch.undo()
    assert len(list(tiled)) > 6 and sum(len(frame.objects) for frame in tiled) == 40
    _, table, found = read_masks(tmp_path / "tiled/masks.gpkg")
    by_track = {track: in_pixels(shape, UTM) for track, shape in zip(table["track"], found, strict=True)}
    for track, box in enumerate(boxes, start=1):
        assert np.abs(by_track[track] - np.minimum(box, (600, 400, 600, 400))).max() <= 0.5
    for frame in tiled:  # a tile's image is that part of the scene, and holds every box with a margin
        x0, y0, x1, y1 = frame.reading.window
        with rasterio.open(raster) as source:
            part = np.moveaxis(source.read(window=((y0, y1), (x0, x1))), 0, -1)
        assert np.array_equal(frame.frame().image(), part)
    labels = pd.read_csv(tmp_path / "tiled/labels.csv")
    with rasterio.open(tmp_path / "tiled/masks.tif") as source:
        seen = np.bincount(source.read(1).ravel(), minlength=41)[1:]
    assert (labels["pixels"] - labels["hidden"]).tolist() == seen.tolist() and labels["hidden"].sum() > 0


def test_polygons_with_holes_are_valid_and_cover_the_mask_exactly(tmp_path):
    raster = write_raster(tmp_path / "scene.tif")
    file = boxes_file(tmp_path / "boxes.geojson", "EPSG:32633", UTM, "EPSG:32633")
    run(raster, file, tmp_path / "out", Notched())
    _, table, shapes = read_masks(tmp_path / "out/masks.gpkg")
    assert shapely.is_valid(shapes).all() and all(len(shape.geoms[0].interiors) == 1 for shape in shapes)
    assert np.allclose(shapely.area(shapes), table["pixels"] * 100)


def write_vrt(path, source, bands, data_type, nodata):
    """A virtual raster of all bands of `source`, in EPSG:32633."""
    height, width = SIZE_HW
    parts = [f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:32633</SRS>']
    parts.append("<GeoTransform>400000,10,0,5000000,0,-10</GeoTransform>")
    for band in range(1, bands + 1):
        parts.append(f'<VRTRasterBand dataType="{data_type}" band="{band}"><NoDataValue>{nodata}</NoDataValue>')
        parts.append(f'<SimpleSource><SourceFilename relativeToVRT="1">{source.name}</SourceFilename>')
        parts.append(f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>")
    path.write_text("".join([*parts, "</VRTDataset>"]))
    return path


@pytest.mark.parametrize(("dtype", "data_type"), [("uint16", "UInt16"), ("uint8", "Byte")])
def test_a_vrt_is_read_like_the_file_it_is_made_of(tmp_path, dtype, data_type):
    raster = write_raster(tmp_path / "scene.tif", bands=4, dtype=dtype, nodata=7)
    vrt = write_vrt(tmp_path / "scene.vrt", raster, 4, data_type, 7)
    file = boxes_file(tmp_path / "boxes.geojson", "EPSG:32633", UTM, "EPSG:4326")
    options = DataConfig(bands=(4, 3, 2), stretch="percentiles")
    of_tif, of_vrt = (geo.read_scene(path, file, options)[0] for path in (raster, vrt))
    assert np.array_equal(of_tif.image(), of_vrt.image()) and of_vrt.image().std() > 20
    run(vrt, file, tmp_path / "out", data=options)
    _, _, shapes = read_masks(tmp_path / "out/masks.gpkg")
    assert np.abs(in_pixels(shapes[0], UTM) - BOXES[0]).max() <= 0.5
    raster.unlink()
    with pytest.raises(RossamError, match=r"scene\.vrt: cannot be read"):
        of_vrt.image()


def test_tiles_are_read_by_the_limits_of_another_reading(tmp_path):
    raster = write_raster(tmp_path / "scene.tif", dtype="uint16")
    file = boxes_file(tmp_path / "boxes.geojson", "EPSG:32633", UTM, "EPSG:4326")
    shown = DatasetReading(bands=(3, 2, 1), limits={"uint16": (0, 300)})
    tile = geo.read_scene(raster, file, shown=shown)[0]
    assert (tile.reading.bands, tile.reading.limits) == (shown.bands, shown.limits)


def test_a_vrt_whose_source_changes_is_another_input(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    vrt = write_vrt(tmp_path / "scene.vrt", raster, 3, "Byte", 0)
    file = boxes_file(tmp_path / "boxes.geojson", "EPSG:32633", UTM, "EPSG:4326")
    run(vrt, file, tmp_path / "out")
    write_raster(raster, compress="deflate")
    with pytest.raises(RossamError, match=r"data\.fingerprint: scene\.vrt changed"):
        run(vrt, file, tmp_path / "out")


def test_a_scene_with_another_mask_beside_it_is_another_input(tmp_path):
    raster = write_raster(tmp_path / "scene.tif")
    file = boxes_file(tmp_path / "boxes.geojson", "EPSG:32633", UTM, "EPSG:4326")
    run(raster, file, tmp_path / "out")
    write_raster(tmp_path / "mask.tif", bands=1).rename(tmp_path / "scene.tif.msk")
    with pytest.raises(RossamError, match=r"data\.fingerprint: scene\.tif changed"):
        run(raster, file, tmp_path / "out")


def test_a_scene_of_files_in_an_archive_is_refused(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    vrt = write_vrt(tmp_path / "scene.vrt", raster, 3, "Byte", 0)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(raster, "a.tif")
    vrt.write_text(vrt.read_text().replace('relativeToVRT="1">a.tif', f">/vsizip/{tmp_path}/a.zip/a.tif"))
    file = boxes_file(tmp_path / "boxes.geojson", "EPSG:32633", UTM, "EPSG:4326")
    with pytest.raises(RossamError, match=r"is in an archive(?s:.)*Remedy: unpack the archive and build it anew"):
        run(vrt, file, tmp_path / "out")


def call(*arguments):
    return get_command(cli.app).main(["convert", *map(str, arguments)], standalone_mode=False)


def test_the_command_converts_a_scene_and_says_in_which_coordinates(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path / "cache"))
    raster = write_raster(tmp_path / "scene.tif", bands=4, dtype="uint16")
    file, out = boxes_file(tmp_path / "boxes.gpkg", "EPSG:32633", UTM, "EPSG:4326"), tmp_path / "out"
    arguments = ["--data", raster, "--annotations", file, "--out", out, "--method", "box", "--workers", 1]
    formats = ["--format", "gpkg", "--format", "geojson", "--format", "label-map"]
    assert call(*arguments, *formats, "--bands", "4,3,2", "--stretch", "0,300") == 0
    report = capsys.readouterr().out
    assert "scene.tif: 600×400 pixels, masks in EPSG:32633; boxes in EPSG:4326; 1 tile\n" in report
    assert "bands: 4, 3, 2" in report and "3 boxes in the input = 3 converted + 0 left out" in report
    assert {"masks.gpkg", "masks.geojson", "masks.tif", "labels.csv", "review.html"} <= {p.name for p in out.iterdir()}
    with pytest.raises(RossamError, match="--keep-crowd: is about COCO files"):
        call(*arguments, "--keep-crowd")
    with pytest.raises(RossamError, match=r"name both: --data scene\.tif --annotations"):
        call("--data", raster, "--out", tmp_path / "new", "--method", "box")
    with pytest.raises(RossamError, match="--pixels: is about boxes of a GeoJSON"):
        call("--out", tmp_path / "new", "--method", "box", "--pixels")


@pytest.mark.parametrize("name", geo_exports.EXPORTS)
def test_an_edited_export_of_a_scene_is_not_overwritten(name, tmp_path):
    raster = write_raster(tmp_path / "scene.tif")
    file = boxes_file(tmp_path / "boxes.gpkg", "EPSG:32633", UTM, "EPSG:4326")
    done = run(raster, file, tmp_path / "out", formats=())
    for _ in range(2):
        written = export(done, geo_exports.EXPORTS)
    path = dict(written)[name]
    path.write_bytes(edited := path.read_bytes() + b" ")
    with pytest.raises(RossamError, match=rf"{path.name}: was changed since it was exported(?s:.)*--format {name} out"):
        export(done, [name])
    assert path.read_bytes() == edited and {"drops.csv", "labels.csv"} <= {p.name for p in done.folder.iterdir()}


def test_a_raster_without_crs_is_worked_on_in_pixels_and_says_so(tmp_path):
    raster = write_raster(tmp_path / "scene.tif", crs=None, transform=Affine.identity())
    file = write_geojson(tmp_path / "boxes.geojson", [polygon(box, Affine.identity()) for box in BOXES])
    frames = geo.read_scene(raster, file)
    assert "no CRS or no transform, so masks in pixels; boxes in pixels" in geo.describe(frames)
    run(raster, file, tmp_path / "out")
    for name in ("masks.gpkg", "masks.geojson"):
        _, _, shapes = read_masks(tmp_path / "out" / name)
        found = [in_pixels(shape, Affine.identity()) for shape in shapes]
        assert np.abs(np.array(found) - BOXES).max() <= 0.5
    in_utm = boxes_file(tmp_path / "utm.gpkg", "EPSG:32633", UTM, "EPSG:32633")
    with pytest.raises(RossamError, match=r"boxes are in EPSG:32633, and scene.tif has no CRS(?s:.)*--pixels"):
        geo.read_scene(raster, in_utm)


def test_boxes_in_pixels_of_a_raster_with_crs(tmp_path):
    raster = write_raster(tmp_path / "scene.tif")
    shapes = [polygon(box, Affine.identity()) for box in BOXES]
    no_degrees = write_geojson(tmp_path / "boxes.geojson", shapes)
    assert geo.read_scene(raster, no_degrees)[0].attributes["boxes_in"] == "pixels"
    like_degrees = write_geojson(tmp_path / "corner.geojson", shapes[:1])
    with pytest.raises(RossamError, match=r"none of its boxes overlaps scene\.tif(?s:.)*EPSG:4326(?s:.)*--pixels"):
        geo.read_scene(raster, like_degrees)
    tile = geo.read_scene(raster, like_degrees, pixels=True)[0]
    assert tile.boxes_xyxy.tolist() == BOXES[:1].tolist()
    content = {"images": [{"id": 4, "file_name": "scene.tif"}], "categories": [{"id": 1, "name": "ship"}]}
    content["annotations"] = [{"id": 8, "image_id": 4, "category_id": 1, "bbox": [20, 30, 40, 20]}]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    run(raster, tmp_path / "coco.json", tmp_path / "out")
    _, table, found = read_masks(tmp_path / "out/masks.gpkg")
    assert in_pixels(found[0], UTM).tolist() == [20, 30, 60, 50]
    assert table["annotation_id"].tolist() == ["8"] and table["class"].tolist() == ["ship"]


def test_boxes_that_do_not_overlap_are_refused_with_both_extents(tmp_path):
    raster = write_raster(tmp_path / "scene.tif")
    elsewhere = boxes_file(tmp_path / "boxes.gpkg", "EPSG:32633", UTM @ Affine.translation(9000, 0), "EPSG:4326")
    expected = r"x 490200 to 495800, y 4996100 to 4999700, the raster from x 400000 to 406000, y 4996000 to 5000000"
    with pytest.raises(RossamError, match=expected):
        geo.read_scene(raster, elsewhere)


def test_what_is_no_polygon_in_the_raster_is_left_out_with_its_reason(tmp_path):
    raster = write_raster(tmp_path / "scene.tif")
    apart = [polygon(box, UTM)["coordinates"] for box in BOXES[:2]]
    geometries = [
        polygon(BOXES[0], UTM),
        None,
        {"type": "Polygon", "coordinates": []},
        {"type": "MultiPolygon", "coordinates": apart},
        {"type": "MultiPolygon", "coordinates": apart[1:]},
        {"type": "Point", "coordinates": [400_100, 4_999_900]},
        polygon((580, 390, 640, 420), UTM),
        polygon((700, 500, 720, 520), UTM),
        polygon((50, 50, 50, 60), UTM),
    ]
    names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
    file = write_geojson(tmp_path / "boxes.geojson", geometries, crs="EPSG:32633", kind=names, track_id=list(range(9)))
    frames = geo.read_scene(raster, file, class_field="kind")
    assert [item.object_id for item in frames[0].objects] == [0, 4, 6] and frames.input_boxes == 9
    assert [frames.class_of(item)[1] for item in frames[0].objects] == ["a", "e", "g"]
    reasons = {drop.where.split()[-1]: (drop.reason, drop.boxes) for drop in frames.drops}
    assert reasons["1"] == reasons["2"] == ("has no geometry", 1)
    assert reasons["3"] == ("is a multi-polygon of 2 parts, expected one polygon for each object", 1)
    assert reasons["5"] == ("is a Point, expected a polygon", 1)
    assert "beyond the raster's edge" in reasons["6"][0] and reasons["6"][1] == 0
    assert "wholly outside" in reasons["7"][0] and "zero area" in reasons["8"][0]
    run(raster, file, tmp_path / "out", class_field="kind")
    listed = pd.read_csv(tmp_path / "out/drops.csv")
    assert len(listed) == 7 and listed["boxes"].sum() == 6
    _, table, shapes = read_masks(tmp_path / "out/masks.gpkg")
    assert table["track"].tolist() == [0, 4, 6] and in_pixels(shapes[2], UTM).tolist() == [580, 390, 600, 400]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_field": "Colour"}, r"no attribute 'Colour'(?s:.)*name one of class"),
        ({"annotations": "absent.gpkg"}, "no such file of boxes"),
        ({"annotations": "broken.gpkg"}, "cannot be read"),
        ({"annotations": "empty.geojson"}, "holds no feature"),
        ({"annotations": "no_crs.shp"}, r"does not state the CRS of its boxes(?s:.)*--pixels"),
        ({"annotations": "two.gpkg"}, r"holds 2 layers with geometry \(first, second\)"),
        ({"path": "absent.tif"}, "no such raster file"),
        ({"path": "broken.gpkg"}, "is not an image of a known format"),
    ],
)
def test_bad_input_names_the_file_and_the_remedy(tmp_path, change, message):
    write_raster(tmp_path / "scene.tif")
    boxes_file(tmp_path / "boxes.geojson", "EPSG:32633", UTM, "EPSG:4326")
    (tmp_path / "broken.gpkg").write_text("no database")
    write_geojson(tmp_path / "empty.geojson", [])
    boxes_file(tmp_path / "no_crs.shp", "EPSG:32633", UTM, "EPSG:32633")
    (tmp_path / "no_crs.prj").unlink()
    geometry = shapely.to_wkb([shapely.box(0, 0, 1, 1)])
    for layer in ("first", "second"):
        options = {"geometry_type": "Polygon", "layer": layer, "append": layer == "second", "crs": "EPSG:4326"}
        pyogrio.raw.write(tmp_path / "two.gpkg", geometry, [], [], **options)
    arguments = {"path": "scene.tif", "annotations": "boxes.geojson"} | change
    paths = {name: tmp_path / arguments.pop(name) for name in ("path", "annotations")}
    with pytest.raises(RossamError, match=message):
        geo.read_scene(**paths, **arguments)


def test_formats_and_inputs_fit_each_other(tmp_path, frames):
    raster = write_raster(tmp_path / "scene.tif", crs="+proj=laea +lat_0=47.3 +lon_0=13.1 +ellps=bessel")
    file = write_geojson(tmp_path / "boxes.geojson", [polygon(box, Affine.identity()) for box in BOXES])
    scene = geo.read_scene(raster, file, pixels=True)
    with pytest.raises(RossamError, match=r"coco: holds images(?s:.)*gpkg, geojson, label-map"):
        geo_exports.check(scene, ["gpkg", "coco"])
    with pytest.raises(RossamError, match="gpkg: is of a scene"):
        geo_exports.check(frames, ["gpkg"])
    with pytest.raises(RossamError, match=r"CRS has no code(?s:.)*--format gpkg"):
        geo_exports.check(scene, ["geojson"])
    run(raster, file, tmp_path / "out", formats=("gpkg",), pixels=True)
    read_crs, _, shapes = read_masks(tmp_path / "out/masks.gpkg")
    assert "laea" in rasterio.crs.CRS.from_user_input(read_crs).to_proj4()
    assert np.abs(in_pixels(shapes[1], UTM) - BOXES[1]).max() <= 0.5


def test_a_missing_extra_is_named_with_its_installation(tmp_path, monkeypatch):
    raster = write_raster(tmp_path / "scene.tif")
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(RossamError, match=r"need pyogrio(?s:.)*pip install rasterio"):
        geo.read_scene(raster, tmp_path / "boxes.geojson")


class Empty(BoxBaseline):
    """No pixel for any box."""

    def predict(self, image, boxes_xyxy):
        masks = super().predict(image, boxes_xyxy)
        return [conversion_module.replace(mask, crop=np.zeros_like(mask.crop), status="empty") for mask in masks]


def test_boxes_without_a_mask_are_listed_and_files_stay_readable(tmp_path):
    raster = write_raster(tmp_path / "scene.tif")
    file = boxes_file(tmp_path / "boxes.geojson", "EPSG:32633", UTM, "EPSG:4326")
    run(raster, file, tmp_path / "out", Empty())
    for name in ("masks.gpkg", "masks.geojson"):
        assert len(read_masks(tmp_path / "out" / name)[2]) == 0
    with rasterio.open(tmp_path / "out/masks.tif") as labels:
        assert not labels.read(1).any() and labels.transform == UTM
    assert len(pd.read_csv(tmp_path / "out/drops.csv")) == 3


@pytest.mark.parametrize("name", ["gpkg", "geojson"])
@pytest.mark.parametrize("said", ["database or disk is full", "Failed to commit transaction"])
def test_polygons_that_cannot_be_written_are_an_error_that_says_why(name, said, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise pyogrio.errors.FeatureError(said)

    raster = write_raster(tmp_path / "scene.tif")
    frames = geo.read_scene(raster, boxes_file(tmp_path / "boxes.gpkg", "EPSG:32633", UTM, "EPSG:4326"))
    conversion = conversion_module.convert(BoxBaseline(), frames, tmp_path / "out")
    monkeypatch.setattr(pyogrio.raw, "write", full)
    file, write = geo_exports.EXPORTS[name]
    with pytest.raises(RossamError, match=rf"cannot be written: {said}(?s:.)*free some disk space; if"):
        write(conversion, tmp_path / "new" / file)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["drops.csv"]
