"""Scenes of Earth observation: boxes of GIS files onto a raster of any size.

In: a GeoTIFF or VRT, and boxes as GeoJSON, GeoPackage, shapefile or COCO. Out: a `FrameSet` of tiles around the boxes
for `convert`, which reads one tile at a time; `geo_exports` puts the masks back in the raster's coordinate reference
system (CRS). Needs the extra `geo` (rasterio, pyogrio, shapely).

A raster with an affine transform of any kind, turned ones included, is supported. One without a CRS or transform is
worked on in pixels: boxes and polygons are then in columns and rows from the outer corner of the first pixel.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rossam_core.boxes import box_problems
from rossam_core.errors import RossamError
from rossam_core.files import read_json
from rossam_core.inference.windows import pixel_hulls
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.config import DataConfig, ImageOptions
from rossam_kit.datasets.coco import TRACK_KEYS, read_coco
from rossam_kit.datasets.frame_set import Drop, FrameSet
from rossam_kit.datasets.image_sources import INSTALL_GEO, open_image
from rossam_kit.datasets.images import TileReading, resolve_reading
from rossam_kit.datasets.vrt import OFFLINE

RASTERS, VECTORS = (".tif", ".tiff", ".vrt"), (".geojson", ".gpkg", ".shp")
CLASS_FIELDS = ("class", "category", "label", "name", "type")
"""Attributes taken for a box's class, in this order, where none is named."""
CELL, MARGIN = 2048, 512
"""Pixels: boxes whose centres lie in the same square cell share a tile, which reaches at least a margin (or the longer
side of the box) beyond each. A window of the default settings, 512 pixels wide, fits in around every box."""
PIXELS = "pixels"


def is_scene(data: Any, annotations: Any) -> bool:
    """Whether `--data` and `--annotations` are a raster or a file of a GIS."""
    is_raster = data is not None and Path(data).suffix.lower() in RASTERS and not Path(data).is_dir()
    return is_raster or (annotations is not None and Path(annotations).suffix.lower() in VECTORS)


def ignored_options(options) -> Iterator[tuple[str, str]]:
    """Option and reason of each `rossam convert` option that has no effect with this input."""
    if is_scene(options.data, options.annotations) and _is_features(options.annotations or ""):
        reason = f"is about COCO files, {options.annotations} is none"
        values = {"--box-convention": options.box_convention, "--keep-crowd": options.keep_crowd}
        values["--skip-bad"] = options.skip_bad
    else:
        reason = "is about boxes of a GeoJSON, GeoPackage or shapefile"
        values = {"--pixels": options.pixels, "--class-field": options.class_field}
    yield from ((name, reason) for name, value in values.items() if value)


# --- the raster -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Raster:
    """Header of a raster.

    Attributes:
        crs: `rasterio.crs.CRS`; None where pixels cannot be placed on the Earth, so that all is in pixels.
        transform: `affine.Affine`, (column, row) → coordinates in `crs`; the file's own, whether or not there is a CRS.
    """

    path: Path
    size_hw: tuple[int, int]
    crs: Any
    transform: Any

    @classmethod
    def of(cls, path: str | Path) -> Raster:
        """Read the header; `RossamError` where rasterio is missing or cannot open the file."""
        rasterio, path = packages()[0], Path(path)
        if not path.is_file():
            raise RossamError(path, "no such raster file", "name a GeoTIFF or VRT: --data scene.tif")
        with open_image(path):
            pass  # only what it reads is opened below
        try:
            with warnings.catch_warnings(), rasterio.Env(**OFFLINE):
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                with rasterio.open(path) as source:
                    crs = None if source.transform.is_identity else source.crs or None
                    return cls(path, source.shape, crs, source.transform)
        except rasterio.errors.RasterioError as error:
            raise RossamError(path, f"cannot be opened as a raster ({error})", "save it as GeoTIFF or VRT") from error

    @property
    def crs_name(self) -> str:
        """Authority and code, or the definition as text; `pixels` without a CRS."""
        return PIXELS if self.crs is None else self.crs.to_string()

    @property
    def outline(self) -> Any:
        """Transform of the polygons' pixel coordinates."""
        return self.transform if self.crs is not None else type(self.transform).identity()

    def to_pixels(self, points: np.ndarray, crs: Any) -> np.ndarray:
        """Points N×2 in `crs` (None: pixels) → columns and rows, N×2; infinite where they cannot be reprojected."""
        if crs is None or not len(points):
            return points
        a, b, c, d, e, f = tuple(~self.transform)[:6]
        x, y = self._reprojected(points, crs)
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    def extent(self, pixels: np.ndarray) -> str:
        """Extent of points N×2 (columns, rows) in the raster's coordinates, for messages."""
        a, b, c, d, e, f = tuple(self.outline)[:6]
        column, row = pixels[np.isfinite(pixels).all(axis=1)].T
        x, y = a * column + b * row + c, d * column + e * row + f
        return f"x {x.min():.7g} to {x.max():.7g}, y {y.min():.7g} to {y.max():.7g}" if len(x) else "no finite point"

    def _reprojected(self, points: np.ndarray, crs: Any) -> tuple[np.ndarray, np.ndarray]:
        if crs == self.crs:
            return points[:, 0], points[:, 1]
        from rasterio.warp import transform

        x, y = transform(crs, self.crs, *points.T)
        return np.array(x), np.array(y)


def packages() -> tuple[Any, Any, Any]:
    """The modules rasterio, pyogrio and shapely."""
    try:
        import pyogrio
        import rasterio
        import rasterio.features
        import shapely
    except ImportError as error:
        raise RossamError(
            "Earth observation files", f"need {error.name}, which is not installed", INSTALL_GEO
        ) from error
    return rasterio, pyogrio, shapely


# --- boxes ------------------------------------------------------------------------------------------------------------


def read_scene(
    path: str | Path,
    annotations: str | Path,
    data: DataConfig | None = None,
    *,
    pixels: bool = False,
    class_field: str | None = None,
    shown: ImageOptions | None = None,
) -> FrameSet:
    """Tiles of a raster around the boxes of an annotation file.

    Polygons (upright, turned, any) prompt by the smallest upright rectangle of pixels around them. Features that are
    no single polygon with a part inside the raster leave a `Drop` each.

    Args:
        path: GeoTIFF or VRT.
        annotations: GeoJSON, GeoPackage or shapefile of any CRS; or a COCO file that lists the raster by name.
        data: bands, stretch, and options of COCO files.
        pixels: coordinates are columns and rows. Without, a GeoJSON that states no CRS is in degrees (RFC 7946), or in
            pixels where the raster has no CRS or the numbers are no degrees.
        class_field: attribute that holds the class; None = the first there is of `CLASS_FIELDS`, else all are `object`.
        shown: bands and stretch instead of those of `data`.

    Returns:
        One frame per tile: boxes in the tile's pixels, `reading.window` its place. `attributes["boxes_in"]` of frames
        names the CRS of the boxes.

    Raises:
        RossamError: extra not installed; file unreadable; CRS missing; boxes that do not overlap the raster.
    """
    data, annotations, raster = data or DataConfig(), Path(annotations), Raster.of(path)
    if not _is_features(annotations):
        options = {"box_convention": data.box_convention, "keep_crowd": data.keep_crowd, "skip_bad": data.skip_bad}
        name = raster.path.name
        frames = read_coco(annotations, raster.path.parent, name=annotations.stem, keep_files=[name], **options)
        if not len(frames):
            return frames
        frame, drops, classes = frames[0], frames.drops, frames.classes
    else:
        frame, drops, classes = _read_features(raster, annotations, pixels, class_field)
    reading = resolve_reading(shown or data, [raster.path])
    frame = replace(frame, reading=reading, source={"file_name": raster.path.name})
    return FrameSet(annotations.stem, list(_tiles(frame)), drops, classes)


def _is_features(annotations: str | Path) -> bool:
    path = Path(annotations)
    if path.suffix.lower() in VECTORS:
        return True
    content = read_json(path) if path.suffix.lower() == ".json" else None
    return isinstance(content, dict) and content.get("type") == "FeatureCollection"


def _read_features(
    raster: Raster, path: Path, pixels: bool, class_field: str | None
) -> tuple[Frame, list[Drop], list[tuple[int, str]]]:
    """The whole scene as a frame, what is left out, and the classes."""
    shapely = packages()[2]
    crs_text, table = _read_table(path)
    names = _class_names(path, table, class_field)
    faults = [_geometry_fault(geometry) for geometry in table["geometry"]]
    drops = [Drop(f"{path.name} feature {n}", fault, 1) for n, fault in zip(table.index, faults, strict=True) if fault]
    usable = [not fault for fault in faults]
    table, names = table[usable], names[usable]
    rings = shapely.get_exterior_ring([getattr(g, "geoms", [g])[0] for g in table["geometry"]])
    points, owner = shapely.get_coordinates(rings, return_index=True)
    crs = _box_crs(path, crs_text, raster, points, pixels)
    points = raster.to_pixels(points, crs)
    corners = [points[owner == i] for i in range(len(rings))] if len(rings) < 2 else np.split(points, _starts(owner))
    boxes = np.array([[*p.min(axis=0), *p.max(axis=0)] for p in corners]).reshape(-1, 4)
    bad = dict(box_problems(boxes, raster.size_hw))
    drops += [Drop(f"{path.name} feature {table.index[i]}", f"box {fault}", 1) for i, fault in bad.items()]
    if len(boxes) and all("outside" in bad.get(i, "") for i in range(len(boxes))):
        _refuse_apart(raster, path, points, crs)
    height, width = raster.size_hw
    beyond = (boxes[:, :2] < 0).any(axis=1) | (boxes[:, 2] > width) | (boxes[:, 3] > height)
    reason = "the part of the box beyond the raster's edge is left out, the rest is converted"
    drops += [Drop(f"{path.name} feature {table.index[i]}", reason) for i in np.flatnonzero(beyond) if i not in bad]
    ids, classes = _object_ids(table), list(enumerate(dict.fromkeys(names), start=1))
    numbers, objects = {name: number for number, name in classes}, []
    for i in (i for i in range(len(boxes)) if i not in bad):
        source = {"annotation_id": int(table.index[i]), "category_id": numbers[names.iloc[i]]}
        oriented = {"oriented_box": corners[i][:4].tolist()} if len(corners[i]) == 5 else {}
        box = tuple(boxes[i].tolist())
        objects.append(ObjectAnnotation(ids[i], names.iloc[i].lower(), box, attributes=oriented, source=source))
    attributes = {"boxes_in": PIXELS if crs is None else crs.to_string()}
    return Frame("scene", raster.path.stem, 1, raster.path, raster.size_hw, tuple(objects), attributes), drops, classes


def _read_table(path: Path) -> tuple[str | None, pd.DataFrame]:
    """CRS as text, and a row per feature: its attributes and `geometry` (shapely, or None), indexed by feature id."""
    _, pyogrio, shapely = packages()
    if not path.is_file():
        raise RossamError(path, "no such file of boxes", "name a GeoJSON, GeoPackage, shapefile or COCO file")
    try:
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
        if len(layers) != 1:
            finding = f"holds {len(layers)} layers with geometry ({', '.join(layers)}), expected one"
            raise RossamError(path, finding, f"save the boxes on their own: ogr2ogr boxes.gpkg {path.name} LAYER")
        meta, ids, geometry, fields = pyogrio.raw.read(path, layer=layers[0], return_fids=True, force_2d=True)
    except RossamError:
        raise
    except (RuntimeError, ValueError) as error:  # pyogrio's own are RuntimeErrors
        raise RossamError(path, f"cannot be read ({error})", "save it anew as GeoPackage or GeoJSON") from error
    if not len(ids):
        raise RossamError(path, "holds no feature", "name a file with a polygon around each object")
    table = pd.DataFrame(dict(zip(meta["fields"], fields, strict=True)), index=ids)
    return meta["crs"], table.assign(geometry=list(shapely.from_wkb(geometry, on_invalid="ignore")))


def _class_names(path: Path, table: pd.DataFrame, field: str | None) -> pd.Series:
    fields = {str(name).lower(): name for name in table.columns if name != "geometry"}
    if field is not None and field.lower() not in fields:
        remedy = f"name one of {', '.join(fields.values()) or '(there is none)'}, or leave --class-field out"
        raise RossamError(path, f"its features have no attribute {field!r}", remedy)
    column = fields.get(field.lower()) if field else next((fields[n] for n in CLASS_FIELDS if n in fields), None)
    if column is None:
        return pd.Series("object", index=table.index)
    values = table[column].convert_dtypes().astype("string").str.strip()  # 3.0, where some are missing, is class 3
    values = values.mask(values == "").fillna("object").astype(object)
    spelling: dict[str, str] = {}
    return values.map(lambda name: spelling.setdefault(name.lower(), name))


def _object_ids(table: pd.DataFrame) -> list[int]:
    """Track numbers of the features where all have one and no two the same, else numbers from 1."""
    for column in (name for name in ("track", *TRACK_KEYS) if name in table.columns):
        numbers = pd.to_numeric(table[column], errors="coerce")
        if numbers.notna().all() and numbers.is_unique and (numbers % 1 == 0).all():
            return [int(number) for number in numbers]
    return list(range(1, len(table) + 1))


def _geometry_fault(geometry: Any) -> str:
    if geometry is None or geometry.is_empty:
        return "has no geometry"
    if geometry.geom_type == "MultiPolygon" and len(geometry.geoms) > 1:
        return f"is a multi-polygon of {len(geometry.geoms)} parts, expected one polygon for each object"
    return "" if "Polygon" in geometry.geom_type else f"is a {geometry.geom_type}, expected a polygon"


def _box_crs(path: Path, crs_text: str | None, raster: Raster, points: np.ndarray, pixels: bool) -> Any:
    """CRS of the boxes; None: they are in pixels."""
    if pixels:
        return None
    crs = None if crs_text is None else packages()[0].crs.CRS.from_user_input(crs_text)
    is_json = path.suffix.lower() in (".geojson", ".json")
    is_stated = not is_json or "crs" in read_json(path)  # GDAL takes degrees for granted where a GeoJSON states none
    if raster.crs is None:
        if crs is not None and is_stated:
            finding = f"its boxes are in {crs.to_string()}, and {raster.path.name} has no CRS (or no transform)"
            remedy = "give the raster its own, e.g. gdal_edit.py -a_srs EPSG:32633 FILE (control points: gdalwarp), or "
            raise RossamError(path, finding, f"{remedy}boxes in pixels with --pixels")
        return None
    if crs is None:
        remedy = f"assign it, e.g. ogr2ogr -a_srs EPSG:4326 out.gpkg {path.name}, or say that they are pixels: --pixels"
        raise RossamError(path, "does not state the CRS of its boxes", remedy)
    are_degrees = not len(points) or (np.abs(points) <= (360, 90)).all()
    return crs if is_stated or are_degrees else None


def _refuse_apart(raster: Raster, path: Path, points: np.ndarray, crs: Any) -> None:
    height, width = raster.size_hw
    frame = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=float)
    finding = f"none of its boxes overlaps {raster.path.name}; in {raster.crs_name} the boxes reach from "
    finding += f"{raster.extent(points)}, the raster from {raster.extent(frame)}"
    stated = "taken as pixels" if crs is None else f"stated as {crs.to_string()}"
    remedy = f"check the CRS of the boxes ({stated}); boxes in columns and rows of the raster: --pixels"
    raise RossamError(path, finding, remedy)


def _starts(owner: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(owner)) + 1


# --- tiles ------------------------------------------------------------------------------------------------------------


def _tiles(scene: Frame) -> Iterator[Frame]:
    """Parts of the scene, row by row, that together hold every box whole (as far as it is inside) with its context."""
    if not scene.objects:
        return
    (height, width), hulls = scene.size_hw, pixel_hulls(scene.boxes_xyxy, scene.size_hw)
    cells = (hulls[:, :2] + hulls[:, 2:]) // 2 // CELL
    reach = np.maximum(MARGIN, (hulls[:, 2:] - hulls[:, :2]).max(axis=1))[:, None]
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (column, row) in enumerate(cells.tolist()):
        groups.setdefault((row, column), []).append(i)
    for number, (_, members) in enumerate(sorted(groups.items()), start=1):
        x0, y0 = (hulls[members, :2] - reach[members]).min(axis=0).clip(0).tolist()
        x1, y1 = (hulls[members, 2:] + reach[members]).max(axis=0).clip(None, (width, height)).tolist()
        reading = TileReading(**scene.reading.model_dump(), window=(x0, y0, x1, y1))
        objects = [_moved(scene.objects[i], -x0, -y0) for i in members]
        yield replace(scene, index=number, size_hw=(y1 - y0, x1 - x0), objects=tuple(objects), reading=reading)


def _moved(item: ObjectAnnotation, dx: int, dy: int) -> ObjectAnnotation:
    x0, y0, x1, y1 = item.box_xyxy
    attributes = dict(item.attributes)
    if "oriented_box" in attributes:
        attributes["oriented_box"] = [[x + dx, y + dy] for x, y in attributes["oriented_box"]]
    return replace(item, box_xyxy=(x0 + dx, y0 + dy, x1 + dx, y1 + dy), attributes=attributes)


def describe(frames: FrameSet) -> str:
    """Lines that say in what coordinates a scene is converted, and how its values become 8-bit RGB."""
    frame, raster = frames[0], Raster.of(frames[0].image_path)
    (height, width), reading = raster.size_hw, frame.reading
    place = f"masks in {raster.crs_name}" if raster.crs is not None else "no CRS or no transform, so masks in pixels"
    boxes_in = frame.attributes.get("boxes_in", PIXELS)
    bands = ", ".join(map(str, reading.bands or ())) or "the first three, or one"
    limits = "; ".join(f"values {low:g} to {high:g} become 0 to 255" for low, high in reading.limits.values())
    shown = f"{reading.stretch} stretch{limits and ': ' + limits}"
    count = f"{len(frames)} tile{'s' if len(frames) > 1 else ''}"
    place = f"{raster.path.name}: {width:,}×{height:,} pixels, {place}; boxes in {boxes_in}; {count}"
    return f"{place}\nbands: {bands}; {shown}"
