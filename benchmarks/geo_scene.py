"""Peak memory and time of converting a scene like a Sentinel-2 product: 10 bands, 10,980 pixels a side, uint16.

The scene is generated tile by tile (speckle with bright rectangles of 8 to 60 pixels; deflate, tiles of 512 pixels),
its boxes are written as GeoJSON in degrees. `rossam convert` then runs in a process of its own with `--method box`, so
that the peak of its resident memory is that of reading, converting and writing; beside it stands the peak of a process
that only imports what the command needs. A network comes on top.

Usage: python benchmarks/geo_scene.py [--side 10980] [--boxes 2000] [--method box] [--keep DIR]
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.warp import transform

BANDS, TILE = 10, 512
TRANSFORM = Affine(10, 0, 399_960, 0, -10, 5_000_040)
CRS = "EPSG:32633"
STATUS = "next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))"
REPORT = f"print({STATUS}, time.process_time())"


def write_scene(path: Path, boxes: np.ndarray, side: int) -> None:
    """The raster, in rows of tiles: memory stays small here, too."""
    profile = {"driver": "GTiff", "height": side, "width": side, "count": BANDS, "dtype": "uint16", "nodata": 0}
    profile |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "zlevel": 1}
    rng = np.random.default_rng(1)
    with rasterio.Env(GDAL_CACHEMAX=2**26), rasterio.open(path, "w", crs=CRS, transform=TRANSFORM, **profile) as target:
        for y in range(0, side, TILE):
            rows = min(TILE, side - y)
            values = rng.integers(800, 1200, (rows, side), dtype=np.uint16)
            for x0, y0, x1, y1 in boxes:
                values[max(y0 - y, 0) : max(y1 - y, 0), x0:x1] += 2000
            for band in range(1, BANDS + 1):
                target.write(values + np.uint16(50 * band), band, window=((y, y + rows), (0, side)))


def write_boxes(path: Path, boxes: np.ndarray) -> None:
    """GeoJSON in degrees."""
    features = []
    for x0, y0, x1, y1 in boxes.tolist():
        corners = [TRANSFORM @ corner for corner in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))]
        ring = list(zip(*transform(CRS, "EPSG:4326", *zip(*corners, strict=True)), strict=True))
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"class": "ship"}, "geometry": geometry})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def peak_mb(code: str, arguments: list[str]) -> tuple[float, float]:
    """Peak resident memory in MB (Linux) and processor seconds of a Python process."""
    command = [sys.executable, "-c", f"import time; {code}; {REPORT}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, seconds = done.stdout.split()[-2:]
    return int(peak) / 1024, float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=10_980)
    parser.add_argument("--boxes", type=int, default=2_000)
    parser.add_argument("--method", default="box")
    parser.add_argument("--keep", type=Path, help="folder for scene and results, where the scene may lie already")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    corners = rng.integers(0, options.side - 60, (options.boxes, 2))
    boxes = np.concatenate([corners, corners + rng.integers(8, 60, (options.boxes, 2))], axis=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scene, file = folder / "scene.tif", folder / "boxes.geojson"
        if not scene.exists():
            write_scene(scene, boxes, options.side)
        write_boxes(file, boxes)
        shutil.rmtree(folder / "out", ignore_errors=True)
        arguments = ["convert", "--data", str(scene), "--annotations", str(file), "--out", str(folder / "out")]
        arguments += ["--method", options.method, "--workers", "1", "--jitter", "0", "--bands", "4,3,2"]
        arguments += [part for name in ("gpkg", "geojson", "label-map") for part in ("--format", name)]
        imports = "import rossam_kit.convert.geo_exports, rossam_kit.convert.review, rossam_kit.experiments.baselines"
        base, _ = peak_mb(imports, [])
        peak, seconds = peak_mb("from rossam_kit import cli; cli.main()", arguments)
        size = scene.stat().st_size / 2**20
    print(f"scene {options.side:,} px, {BANDS} bands, {size:,.0f} MB in the file; {options.boxes:,} boxes")
    print(f"peak {peak:,.0f} MB, of which imports {base:,.0f} MB; {seconds:.0f} s of a processor")


if __name__ == "__main__":
    main()
