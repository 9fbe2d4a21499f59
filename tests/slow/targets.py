"""Readers to be fed damaged files: each target writes a small intact input, and reads it to the last pixel and mask."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from rossam_core import masks
from rossam_core.files import read_json
from rossam_core.model.weights import read_official
from rossam_kit.checkpoints.files import read_weights
from rossam_kit.config import load_profile
from rossam_kit.convert import editors, exports
from rossam_kit.convert.convert import ConversionConfig, convert
from rossam_kit.convert.imports import READERS as IMPORTS
from rossam_kit.convert.imports import corrected
from rossam_kit.convert.mask_records import Conversion
from rossam_kit.datasets.coco import read_coco_index, write_coco_index
from rossam_kit.datasets.dota import read_dota
from rossam_kit.datasets.images import read_image
from rossam_kit.datasets.unpack import unpack

from ..conversion.tiny_tracks import Notched, make_frames
from ..data.scenes import READERS, made_frames
from ..fake_datasets import write_twin

SUFFIXES = {".json", ".xml", ".txt", ".xlsx", ".npy", ".png", ".jpg", ".csv", ".yaml", ".gz"}


@dataclass(frozen=True)
class Target:
    """A reader and its files.

    Attributes:
        make: writes an intact input into a folder that exists.
        files: the files and folders in it that are to be damaged, as a pattern.
        read: reads the folder; raises `RossamError` and nothing else.
    """

    make: Callable[[Path], None]
    files: str
    read: Callable[[Path], object]


def _read_all(read: Callable[[Path], object]) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        frames = read(folder)
        for frame in frames:
            frame.image()
            for item in frame.objects:
                if item.has_mask:
                    item.mask(frame.size_hw)

    return run


def _dataset(name: str, files: str) -> Target:
    def make(folder: Path) -> None:
        write_twin(made_frames(folder.parent / f"{folder.name}-source"), name.split()[0], folder)

    return Target(make, files, _read_all(lambda folder: READERS[name](folder, folder.parent / "cache")))


def _dota(folder: Path) -> None:
    for part in ("images", "labelTxt"):
        (folder / part).mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(folder / "images/P1.png")
    (folder / "labelTxt/P1.txt").write_text("gsd:0.1\n5 5 20 5 20 15 5 15 plane 0\n8 30 20 30 20 40 8 40 ship 1\n")


def _index(folder: Path) -> None:
    write_coco_index(make_frames(folder / "data", 1, 2), folder / "index.json.gz")


def _converted(folder: Path) -> Conversion:
    return convert(Notched(), make_frames(folder / "data", 1, 2), folder / "out", ConversionConfig(jitter=0))


def _import(format: str) -> Target:
    writers = exports.EXPORTS | editors.EXPORTS

    def make(folder: Path) -> None:
        done = _converted(folder)
        writers[format][1](done, done.folder / writers[format][0])

    return Target(make, f"out/{writers[format][0]}", lambda f: corrected(Conversion(f / "out"), format))


def _read_conversion(folder: Path) -> None:
    done = Conversion(folder / "out")
    for frame in done:
        for record in frame.objects:
            record.full(frame.size_hw)
    assert done.table is not None and done.left_out is not None and done.classes is not None


def _image(name: str, **options) -> Target:
    def make(folder: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (24, 32, options.pop("bands", 3)), dtype=np.uint8)
        path = folder / name
        if path.suffix == ".tif" and not options.get("pillow"):
            tifffile.imwrite(path, pixels.astype(options.pop("dtype", np.uint8)), photometric="rgb", **options)
        else:
            options.pop("pillow", None)
            image = Image.fromarray(pixels[..., 0] if options.get("mode") else pixels)
            image.convert(options.pop("mode", image.mode)).save(path, **options)

    return Target(make, name, lambda folder: read_image(folder / name))


def _features(folder: Path) -> None:
    tifffile.imwrite(folder / "scene.tif", np.full((64, 64, 3), 90, np.uint8), photometric="rgb")
    ring = [[5, 5], [20, 5], [20, 15], [5, 15], [5, 5]]
    feature = {
        "type": "Feature",
        "properties": {"class": "ship"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    (folder / "boxes.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))


def _read_features(folder: Path) -> None:
    from rossam_kit.convert.geo import read_scene

    _read_all(lambda f: read_scene(f / "scene.tif", f / "boxes.geojson", pixels=True))(folder)


def _weights(folder: Path) -> None:
    from safetensors.torch import save_file

    tensors = {"mask_decoder.a": torch.arange(12.0), "image_encoder.b": torch.zeros(3, 2)}
    save_file(tensors, folder / "a.safetensors", {"method": "sam"})
    torch.save(tensors, folder / "b.pth")


def _read_weights(folder: Path) -> None:
    for name in ("a.safetensors", "b.pth"):
        read_weights(folder / name)
        read_official(folder / name)


def _archives(folder: Path) -> None:
    (folder / "set").mkdir()
    (folder / "set/a.txt").write_text("abc" * 50)
    for kind in ("zip", "gztar", "xztar", "tar"):
        shutil.make_archive(str(folder / f"a-{kind}"), kind, folder, "set")
    shutil.rmtree(folder / "set")


def _unpack(folder: Path) -> None:
    for path in sorted(folder.glob("a-*")):
        unpack(path, folder.parent / "unpacked")
        shutil.rmtree(folder.parent / "unpacked", ignore_errors=True)


def _rle(folder: Path) -> None:
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:20] = True
    (folder / "rle.json").write_text(json.dumps(masks.encode(mask)))


def _read_rle(folder: Path) -> None:
    from rossam_kit.datasets.coco import segmentation_fault

    rle = read_json(folder / "rle.json")
    for segmentation in (rle, [rle], [list(rle.values())] if isinstance(rle, dict) else rle):
        if segmentation and not segmentation_fault(segmentation, (20, 30)):
            masks.decode(segmentation, (20, 30))
            masks.extent(segmentation, (20, 30))


def _profile(folder: Path) -> None:
    text = (
        "extends: smoke\ntitle: mine\ninference:\n  rate: 2\n  context: 1.5\nseeds: [0, 1]\ntraining:\n  samples: 4\n"
    )
    (folder / "mine.yaml").write_text(text)


TARGETS: dict[str, Target] = {
    "sat-mtb": _dataset("sat-mtb", "**/*"),
    "sat-mtb hbb": _dataset("sat-mtb hbb", "**/HBB/*"),
    "sat-mtb obb": _dataset("sat-mtb obb", "**/OBB/*"),
    "sat-mtb mot": _dataset("sat-mtb mot", "**/mot/*"),
    "authors": _dataset("authors", "test/**/*"),
    "isaid": _dataset("isaid", "val/**/*"),
    "satsot": _dataset("satsot", "**/*"),
    "ootb": _dataset("ootb", "**/*"),
    "viso mot": _dataset("viso mot", "mot/**/*"),
    "viso sot": _dataset("viso sot", "sot/**/*"),
    "nwpu-vhr10": _dataset("nwpu-vhr10", "**/*"),
    "coco": _dataset("coco", "test.json"),
    "dota": Target(_dota, "labelTxt/*", _read_all(lambda folder: read_dota(folder, folder.parent / "cache"))),
    "geojson": Target(_features, "boxes.geojson", _read_features),
    "index": Target(_index, "index.json.gz", _read_all(lambda folder: read_coco_index(folder / "index.json.gz"))),
    "conversion": Target(lambda folder: _converted(folder) and None, "out/**/*", _read_conversion),
    **{f"import {format}": _import(format) for format in IMPORTS if format != "review"},
    "png": _image("a.png"),
    "png palette": _image("a.png", mode="P"),
    "png 16 bit": _image("a.png", mode="I;16"),
    "jpeg": _image("a.jpg"),
    "bmp": _image("a.bmp"),
    "gif": _image("a.gif"),
    "webp": _image("a.webp"),
    "jpeg 2000": _image("a.jp2"),
    "ppm": _image("a.ppm"),
    "tiff strips": _image("a.tif"),
    "tiff tiles": _image("a.tif", tile=(16, 16), compression="zlib"),
    "tiff 16 bit": _image("a.tif", dtype=np.uint16, compression="lzw"),
    "tiff float": _image("a.tif", dtype=np.float32, planarconfig=None),
    "weights": Target(_weights, "*", _read_weights),
    "archives": Target(_archives, "a-*", _unpack),
    "rle": Target(_rle, "rle.json", _read_rle),
    "profile": Target(_profile, "mine.yaml", lambda folder: load_profile(str(folder / "mine.yaml"))),
}


def quiet(read: Callable[[Path], object], folder: Path) -> None:
    """`read` without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read(folder)
