"""iSAID: 2,806 large aerial images with instance masks of 15 classes, read as patches of 800×800 pixels.

Files: `{train,val}/images/P0005.png`, `P0005_instance_color_RGB.png` (class) and `P0005_instance_id_RGB.png`
(instance). In the `FrameSet`, each image is a video and each patch one of its frames.
Waqas Zamir et al., CVPR Workshops 2019. The test split is published without masks.

Patches overlap by 200 pixels, as in the authors' kit; the last of a row or column is moved back to end at the
image's border, and an image smaller than a patch is one frame of its own size. The first reading of an image cuts
those patches that hold an object into PNG files in the cache folder, and remembers image by image what is done.

Coordinates: everything comes from the masks' pixels, so boxes are tight and in pixel-edge coordinates. An object cut
by the border of a patch is the part inside; `visible` among its attributes is that part's share of all its pixels.
`source_id` is the number in the id mask, R + 256 G + 65536 B; object ids count an image's instances from 1.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from os import PathLike
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.files import cache_dir, stable_hash, write_bytes
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets.coco import read_whole_index, write_coco_index
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.image_sources import open_image
from rossam_kit.datasets.images import read_image
from rossam_kit.datasets.reading import Report, find_folder, indexed, list_files
from rossam_kit.progress import track

NAME = "isaid"
PATCH, OVERLAP = 800, 200
PATCHES_VERSION = 1
"""To be raised with any change of code that moves a patch: cached patches of older versions are not used."""
MIN_AREA = 12
"""Square pixels; less of an object in a patch is left out. The smallest object of the paper's dataset (Table 7)."""
LEAST_SHARE = 0.95
"""Share of an instance's pixels that must be of one class."""
COLOURS = {
    "ship": (0, 0, 63),
    "storage_tank": (0, 63, 63),
    "baseball_diamond": (0, 63, 0),
    "tennis_court": (0, 63, 127),
    "basketball_court": (0, 63, 191),
    "ground_track_field": (0, 63, 255),
    "bridge": (0, 127, 63),
    "large_vehicle": (0, 127, 127),
    "small_vehicle": (0, 0, 127),
    "helicopter": (0, 0, 191),
    "swimming_pool": (0, 0, 255),
    "roundabout": (0, 191, 127),
    "soccer_ball_field": (0, 127, 191),
    "plane": (0, 127, 255),
    "harbor": (0, 100, 155),
}
"""RGB in the class masks; black is background."""
CATEGORIES = tuple(COLOURS)
CLASS_SUFFIX, ID_SUFFIX = "_instance_color_RGB.png", "_instance_id_RGB.png"
UNKNOWN = 255
LAYOUT = f"""\
    train/images/P0000.png …, P0000{CLASS_SUFFIX} …, P0000{ID_SUFFIX} …
    val/images/…"""
HOW_TO_GET = (
    "get the images from DOTA v1.0 (https://captain-whu.github.io/DOTA) and the masks from iSAID "
    "(https://captain-whu.github.io/iSAID), and put both into <split>/images"
)
REMEDY = "unpack these files anew; each image needs both masks, of its own size, as 8-bit RGB PNG"


def read_isaid(
    root: str | PathLike,
    split: Literal["train", "val"],
    cache: Path | None = None,
) -> FrameSet:
    """The patches of a split that hold an object, sorted by image, row and column; arguments and errors: `reading`.

    The cache holds the patches as well, which take about as much disk as the images.
    """
    if split not in ("train", "val"):
        raise RossamError(NAME, f"has no split {split!r} with masks", "use 'train' or 'val'")
    root = find_folder(root, lambda f: (f / split / "images").is_dir(), LAYOUT, HOW_TO_GET)
    cache = cache or cache_dir()
    options = {"split": split, "patch": PATCH, "overlap": OVERLAP}
    folder = root / split / "images"
    return indexed(NAME, root, [folder], options, cache, lambda: _read(root, folder, cache))


def _read(root: Path, folder: Path, cache: Path) -> FrameSet:
    report, frames, drops = Report(root, REMEDY), [], []
    names = [path.name for path in list_files(folder, (".png",))]
    stems = sorted({name.removesuffix(CLASS_SUFFIX).removesuffix(ID_SUFFIX).removesuffix(".png") for name in names})
    if not stems:
        report.problem(folder, "holds no images")
    for stem in track(stems, desc="cutting iSAID"):
        cut = _patches_of(folder / stem, root, cache, report)
        if cut is not None:
            frames += cut.frames
            drops += cut.drops
    report.raise_if_any()
    return FrameSet(f"{NAME} {folder.parent.name}", frames, drops, list(enumerate(CATEGORIES, start=1)))


def _patches_of(base: Path, root: Path, cache: Path, report: Report) -> FrameSet | None:
    """The patches of one image, cut now or before; None where something is wrong with its files."""
    files = [base.with_name(base.name + suffix) for suffix in (".png", CLASS_SUFFIX, ID_SUFFIX)]
    missing = [path for path in files if not path.is_file()]
    for path in missing:
        report.problem(path, "no such file")
    if missing:
        return None
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = stable_hash([PATCHES_VERSION, PATCH, OVERLAP, states])[:16]
    folder = cache / NAME / f"{base.name}-{key}"
    index = folder / "index.json.gz"
    if index.exists():
        try:
            return read_whole_index(index)
        except RossamError as error:
            warnings.warn(f"the patches of {base.name} are cut again: {error}", stacklevel=2)
    pixels = _read_files(files, report)
    if pixels is None:
        return None
    own = Report(root, REMEDY)
    frames = FrameSet(NAME, _cut(*pixels, base, folder, own), own.drops)
    report.problems.extend(own.problems.items)
    if len(own.problems):
        return None
    write_coco_index(frames, index)
    return frames


def _read_files(files: list[Path], report: Report) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Image uint8 H×W×3, class index uint8 H×W (0 background), and instance number int32 H×W."""
    arrays = []
    for path in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # images reach 13,000 pixels a side
                with open_image(path) as source:
                    bands, dtype = source.band_count, source.dtype
                if path != files[0] and (bands, dtype) != (3, np.uint8):
                    report.problem(path, f"has {bands} bands of {dtype}, expected 8-bit RGB")
                    return None
                arrays.append(read_image(path))
        except RossamError as error:
            report.problem(path, error.finding)
            return None
    image, colours, ids = arrays
    for path, array in zip(files[1:], (colours, ids), strict=True):
        if array.shape != image.shape:
            report.problem(path, f"height×width is {array.shape[:2]}, the image's is {image.shape[:2]}")
    if not image.shape == colours.shape == ids.shape:
        return None
    classes = _class_table()[_code(colours)]
    if (classes == UNKNOWN).any():
        y, x = np.argwhere(classes == UNKNOWN)[0]
        report.problem(
            files[1],
            f"{(classes == UNKNOWN).sum()} pixels are of a colour that is no class, the first is "
            f"{tuple(colours[y, x].tolist())} at x={x}, y={y}",
        )
        return None
    return image, classes, _code(ids)


def _code(rgb: np.ndarray) -> np.ndarray:
    """uint8 H×W×3 → int32 H×W, R + 256 G + 65536 B."""
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    return red | green << 8 | blue << 16


@functools.cache
def _class_table() -> np.ndarray:
    """uint8, colour code → 1 + position in `CATEGORIES`, 0 for black, `UNKNOWN` for all others."""
    table = np.full(2**24, UNKNOWN, np.uint8)
    table[0] = 0
    for number, (red, green, blue) in enumerate(COLOURS.values(), start=1):
        table[red | green << 8 | blue << 16] = number
    return table


def _cut(
    image: np.ndarray,
    classes: np.ndarray,
    ids: np.ndarray,
    base: Path,
    out: Path,
    report: Report,
) -> list[Frame]:
    """Write the patches that hold an object, and describe them."""
    id_path, image_path = base.with_name(base.name + ID_SUFFIX), base.with_name(f"{base.name}.png")
    categories, areas = _instances(classes, ids, id_path, report)
    numbers = {source_id: number for number, source_id in enumerate(sorted(areas), start=1)}
    height, width = ids.shape
    corners = list(itertools.product(_starts(height), _starts(width)))
    frames = []
    for index, (y, x) in enumerate(corners, start=1):
        window = np.s_[y : y + PATCH, x : x + PATCH]
        part, objects = ids[window], []
        for source_id in np.unique(part[part > 0]).tolist():
            mask = part == source_id
            if source_id not in categories:
                continue
            if (area := int(mask.sum())) < MIN_AREA:
                report.drop(
                    id_path, f"{area} pixels of it are in patch {index}, fewer than {MIN_AREA}", f"id {source_id}", 1
                )
                continue
            attributes = {"source_id": source_id, "visible": round(area / areas[source_id], 4)}
            objects.append(
                ObjectAnnotation(
                    numbers[source_id], categories[source_id], masks.box_of(mask), masks.encode(mask), attributes
                )
            )
        if objects:
            path = out / f"{index:04d}.png"
            _, stream = cv2.imencode(".png", image[window][..., ::-1])
            write_bytes(path, stream.tobytes())
            frames.append(Frame(NAME, base.name, index, path, part.shape, tuple(objects), {"patch_xy": [x, y]}))
    if len(frames) < len(corners):
        report.drop(image_path, f"{len(corners) - len(frames)} of its {len(corners)} patches hold no object")
    return frames


def _instances(
    classes: np.ndarray, ids: np.ndarray, path: Path, report: Report
) -> tuple[dict[int, str], dict[int, int]]:
    """Instance → class name, and → area, from the pixels of both masks; what does not fit together is logged."""
    foreground = ids > 0
    if stray := int((~foreground & (classes > 0)).sum()):
        report.drop(path, f"{stray} pixels have a class but belong to no instance")
    pairs, counts = np.unique(ids[foreground].astype(np.int64) << 8 | classes[foreground], return_counts=True)
    votes: dict[int, dict[int, int]] = {}
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        votes.setdefault(pair >> 8, {})[pair & 255] = count
    categories, areas = {}, {}
    for source_id, by_class in votes.items():
        areas[source_id] = sum(by_class.values())
        best = max(by_class, key=by_class.__getitem__)
        if by_class[best] < LEAST_SHARE * areas[source_id]:
            report.drop(path, f"its {areas[source_id]} pixels are of several classes", f"id {source_id}", 1)
        elif best == 0:
            report.drop(path, f"its {areas[source_id]} pixels are background in the class mask", f"id {source_id}", 1)
        else:
            categories[source_id] = CATEGORIES[best - 1]
    if len(votes) > 1 and not categories:
        class_mask = path.name.replace(ID_SUFFIX, CLASS_SUFFIX)
        report.problem(path, f"none of its {len(votes)} instances has a class in {class_mask}")
    return categories, areas


def _starts(side: int) -> list[int]:
    """First pixels of the patches along a side: every PATCH - OVERLAP pixels; the last patch ends at the border."""
    last = max(0, side - PATCH)
    return [*range(0, last, PATCH - OVERLAP), last]
