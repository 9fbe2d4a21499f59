"""Masks of a scene in its raster's coordinates: polygons with attributes, and a label map.

In: a `Conversion` of tiles (`geo.read_scene`). Out: `masks.gpkg`, `masks.geojson` and `masks.tif`, each written so that
a killed run leaves no half file; boxes without a mask, and what was left out before, in `drops.csv`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import atomic_path
from rossam_kit.convert import quality
from rossam_kit.convert.exports import MOST_LABELS, drop_of, write_drops
from rossam_kit.convert.geo import Raster, packages
from rossam_kit.convert.mask_records import Conversion, MaskRecord
from rossam_kit.csv_text import guarded_table
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.images import TileReading

LABEL_BLOCK = 2048
"""Side of the part of a label map that is in memory at once, in pixels."""


def check(frames: FrameSet, formats: Iterable[str]) -> None:
    """Raise `RossamError` where a format does not fit the frames, before any mask is made."""
    is_tiled, problems = any(isinstance(frame.reading, TileReading) for frame in frames), ProblemList("--format")
    for name in formats:
        if is_tiled and name not in EXPORTS:
            problems.add(name, "holds images of a dataset, not a scene")
        elif not is_tiled and name in EXPORTS:
            problems.add(name, "is of a scene, and the input is a dataset of images")
    problems.raise_if_any(f"a scene (--data scene.tif) has the formats {', '.join(EXPORTS)}, a dataset all others")
    raster = Raster.of(frames[0].image_path) if "geojson" in formats else None
    if raster is not None and raster.crs is not None and raster.crs.to_authority() is None:
        finding = "its CRS has no code (such as EPSG:32633), and GeoJSON states a CRS by its code only"
        raise RossamError(raster.path, finding, "use --format gpkg, or assign a code: gdal_edit.py -a_srs EPSG:… FILE")


def _scene_masks(conversion: Conversion, folder: Path) -> tuple[Raster, list[MaskRecord], pd.DataFrame]:
    """The raster, masks in its pixels, and a row of attributes for each. `folder` gets `drops.csv`."""
    records, corners, drops, raster = [], [], [*conversion.left_out], None
    for frame in conversion:
        raster = raster or Raster.of(frame.image_path)
        x, y = frame.reading.window[:2]
        drops += [drop_of(frame, record) for record in frame.objects if not record.has_mask]
        corners += [(x, y, x, y)] * len(frame.objects)
        moved = [replace(r, offset_xy=(r.offset_xy[0] + x, r.offset_xy[1] + y)) for r in frame.objects]
        records += [record for record in moved if record.has_mask]
    write_drops(folder, drops)
    table, class_ids = conversion.table.copy(), {name.lower(): number for number, name in conversion.classes}
    table[["x0", "y0", "x1", "y1"]] += np.array(corners)
    signs = [name for name in ("expected_iou", *quality.SIGNS) if table[name].notna().any()]
    columns = ["annotation_id", "status", "reason", "looks", "review_score", "review_rank", *signs]
    rows = table.assign(class_id=[str(class_ids[name.lower()]) for name in table["category"]])
    rows = rows.rename(columns={"category": "class", "object_id": "track", "area": "pixels"})
    rows = rows[rows["pixels"] > 0][["class", "class_id", "track", *columns, "pixels", "x0", "y0", "x1", "y1"]]
    rows.insert(0, "label", np.arange(1, len(rows) + 1))
    return raster, records, rows.reset_index(drop=True)


def write_polygons(conversion: Conversion, path: Path, driver: str) -> Path:
    """A multi-polygon per mask, along the pixels' edges, in the raster's CRS (or pixels), with its attributes.

    Boxes without a mask are in `drops.csv`, with what else was left out.
    """
    _, pyogrio, shapely = packages()
    raster, records, rows = _scene_masks(conversion, path.parent)
    shapes = np.array([_multipolygon(record, raster.outline) for record in records], dtype=object)
    columns = [rows[name].fillna("").astype(object) if rows[name].dtype.kind in "OTU" else rows[name] for name in rows]
    values = [column.to_numpy(object if column.dtype == object else None) for column in columns]
    options = {"layer": "masks", "driver": driver, "geometry_type": "MultiPolygon"}
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        temporary.unlink()
        crs = None if raster.crs is None else raster.crs.to_wkt() if driver == "GPKG" else raster.crs.to_string()
        try:
            pyogrio.raw.write(temporary, shapely.to_wkb(shapes), values, list(rows), crs=crs, **options)
        except RuntimeError as error:  # of a full disk, GDAL often says only that it cannot write
            remedy = "free some disk space; if there is enough, use the other of --format gpkg and --format geojson"
            raise RossamError(path, f"cannot be written: {error}", remedy) from error
    return path


def _multipolygon(record: MaskRecord, transform: Any) -> Any:
    rasterio, _, shapely = packages()
    piece = record.piece()
    place = transform @ type(transform).translation(*record.offset_xy)
    parts = rasterio.features.shapes(piece.astype(np.uint8), mask=piece, connectivity=4, transform=place)
    return shapely.MultiPolygon([shapely.geometry.shape(part) for part, _ in parts])


def write_label_map(conversion: Conversion, path: Path) -> Path:
    """A GeoTIFF of the raster's size, transform and CRS: 0 background, else the mask's label; `labels.csv` says whose.

    Where masks overlap, the smaller one is on top, and `hidden` counts the pixels that a mask loses to others. Written
    in blocks, of which only those with masks take room in the file.
    """
    rasterio = packages()[0]
    raster, records, rows = _scene_masks(conversion, path.parent)
    height, width = raster.size_hw
    kind = np.uint16 if len(records) <= MOST_LABELS else np.uint32
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": kind, "nodata": 0}
    profile |= {"crs": raster.crs, "transform": raster.transform, "compress": "deflate", "sparse_ok": True}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "bigtiff": "if_safer"}
    seen = np.zeros(len(records) + 1, dtype=np.int64)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(temporary, "w", **profile) as target:
            for (x0, y0, x1, y1), block in _label_blocks(records, raster.size_hw, kind):
                seen += np.bincount(block.ravel(), minlength=len(seen))
                target.write(block, 1, window=((y0, y1), (x0, x1)))
    rows["hidden"] = rows["pixels"] - seen[1:]
    with atomic_path(path.with_name("labels.csv")) as temporary:
        guarded_table(rows).to_csv(temporary, index=False, errors="surrogateescape")
    return path


def _label_blocks(
    records: Sequence[MaskRecord], size_hw: tuple[int, int], kind: type
) -> Iterator[tuple[tuple[int, int, int, int], np.ndarray]]:
    """Windows x0, y0, x1, y1 that hold masks, and their labels h×w."""
    sides = [record.piece_rle["size"] for record in records]
    low = np.array([record.offset_xy for record in records]).reshape(-1, 2)
    high = low + np.array(sides).reshape(-1, 2)[:, ::-1]
    order = np.argsort([-record.area for record in records], kind="stable")
    for y0 in range(0, size_hw[0], LABEL_BLOCK):
        for x0 in range(0, size_hw[1], LABEL_BLOCK):
            x1, y1 = min(x0 + LABEL_BLOCK, size_hw[1]), min(y0 + LABEL_BLOCK, size_hw[0])
            meets = (low < (x1, y1)).all(axis=1) & (high > (x0, y0)).all(axis=1)
            block = np.zeros((y1 - y0, x1 - x0), dtype=kind)
            for i in order[meets[order]] if len(order) else ():
                piece, x, y = records[i].piece(), low[i, 0] - x0, low[i, 1] - y0
                part = piece[max(-y, 0) :, max(-x, 0) :]
                target = block[max(y, 0) : y + piece.shape[0], max(x, 0) : x + piece.shape[1]]
                target[part[: target.shape[0], : target.shape[1]]] = i + 1
            if meets.any():
                yield (x0, y0, x1, y1), block


EXPORTS: Mapping[str, tuple[str, Callable[[Conversion, Path], Path]]] = {
    "gpkg": ("masks.gpkg", lambda conversion, path: write_polygons(conversion, path, "GPKG")),
    "geojson": ("masks.geojson", lambda conversion, path: write_polygons(conversion, path, "GeoJSON")),
    "label-map": ("masks.tif", write_label_map),
}
"""Name of a format of scenes → where it goes within the conversion's folder, and what writes it."""
