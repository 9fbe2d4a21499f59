"""The format that the authors' released code trains and tests on: an image, its boxes, and its masks as arrays.

Files: `<split>/img/*.png`, `<split>/boxes/*.npy` and `<split>/onehotmask/*.npy`.
Files of one stem belong together: boxes float N×4 (x0, y0, x1, y1), masks N×H×W of 0 and 255 in the same order.
A mask array is opened without being loaded, and becomes run-length encodings object by object.

A stem that ends in a number, `airplane_03_000012`, is a frame of the video before it; any other is a video of its
own. The format has no classes: one is taken from the stem's beginning (`airplane`, `plane`, `ship`, `train`, `car`),
else it is `object`.

Coordinates: boxes are taken as pixel-edge coordinates as they stand; nothing states whether the first pixel is 0
or 1.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from os import PathLike
from pathlib import Path
from tokenize import TokenError

import numpy as np

from rossam_core import masks
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.reading import (
    IMAGE_SUFFIXES,
    Entry,
    Report,
    entries_around_masks,
    find_folder,
    indexed,
    list_files,
    size_or_problem,
    usable_entries,
)

NAME = "authors-format"
CLASSES = ("airplane", "plane", "ship", "train", "car")
NAMES = list(enumerate((*CLASSES, "object"), start=1))
FRAME_NAME = re.compile(r"(.*?)[_-]*(\d+)")
PARTS = ("img", "boxes", "onehotmask")
LAYOUT = """\
    <split>/img/NAME.png …
    <split>/boxes/NAME.npy …, float N×4: x0, y0, x1, y1
    <split>/onehotmask/NAME.npy …, N×H×W of 0 and 255"""
HOW_TO_GET = (
    "the authors have not released their files; make them from SAT-MTB (Zenodo record 15253996), or read that dataset "
    "with read_sat_mtb"
)
REMEDY = "write these files anew; each image needs one array of boxes and one of masks, in the same order"


def read_authors_format(root: str | PathLike, split: str, cache: Path | None = None) -> FrameSet:
    """The images of a split, sorted by video and frame number; arguments and errors: `reading`.

    An object's id is its row, from 1. `split` is the name of a folder, such as `train` or `test`.
    """
    root = find_folder(root, lambda folder: (folder / split / "img").is_dir(), LAYOUT, HOW_TO_GET)
    folder = root / split
    return indexed(NAME, root, [folder / part for part in PARTS], {"split": split}, cache, lambda: _read(root, folder))


def _read(root: Path, folder: Path) -> FrameSet:
    report, frames = Report(root, REMEDY), []
    images: dict[str, Path] = {}
    for path in list_files(folder / "img", IMAGE_SUFFIXES):
        if images.setdefault(path.stem, path) != path:
            report.problem(path, f"has the name of {images[path.stem].name}")
    if not images:
        report.problem(folder / "img", "holds no images")
    for part in PARTS[1:]:
        for path in list_files(folder / part, (".npy",)):
            if path.stem not in images:
                report.problem(path, "has no image in img/")
    places = _places(images)
    for stem, path in images.items():
        size_hw = size_or_problem(path, report)
        if size_hw is not None:
            video, index = places[stem]
            objects = _read_objects(folder, stem, size_hw, report)
            frames.append(Frame(NAME, video, index, path, size_hw, tuple(objects)))
    report.raise_if_any()
    return FrameSet(f"{NAME} {folder.name}", sorted(frames, key=lambda f: (f.video, f.index)), report.drops, NAMES)


def _places(stems: dict[str, Path]) -> dict[str, tuple[str, int]]:
    """Stem → video and frame number; stems that would be the same frame are videos of their own."""
    places = {}
    for stem in stems:
        match = FRAME_NAME.fullmatch(stem)
        places[stem] = (match[1], int(match[2])) if match and match[1] else (stem, 1)
    repeated = Counter(places.values())
    return {stem: place if repeated[place] == 1 else (stem, 1) for stem, place in places.items()}


def _read_objects(folder: Path, stem: str, size_hw: tuple[int, int], report: Report) -> list[ObjectAnnotation]:
    box_path, mask_path = folder / "boxes" / f"{stem}.npy", folder / "onehotmask" / f"{stem}.npy"
    boxes, stack = _load(box_path, None, report), _load(mask_path, "r", report)
    if boxes is None or stack is None:
        return []
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "fiu":
        report.problem(box_path, f"is {boxes.dtype} of shape {boxes.shape}, expected numbers of shape (N, 4)")
        return []
    expected = (len(boxes), *size_hw)
    if stack.dtype.kind not in "uib" or (stack.shape != expected and not len(boxes) == stack.size == 0):
        report.problem(mask_path, f"is {stack.dtype} of shape {stack.shape}, expected integers of shape {expected}")
        return []
    category = next((name for name in CLASSES if stem.lower().startswith(name)), "object")
    items = [
        ObjectAnnotation(row, category, tuple(box))
        for row, box in enumerate(boxes.astype(np.float64).tolist(), start=1)
    ]
    entries = [Entry(1, f"object {item.object_id}", item) for item in items]
    masked = []
    for entry in usable_entries(entries, size_hw, box_path, report, "xyxy"):
        plane = np.asarray(stack[entry.item.object_id - 1])
        mask = plane != 0
        if not mask.any():
            report.drop(mask_path, "its mask is empty", entry.place, boxes=1)
        elif not (plane[mask] == plane.max()).all() or plane.max() not in (1, 255):
            report.problem(mask_path, "mask holds other values than 0 and 255 (or 1)", entry.place)
        else:
            masked.append(entry._replace(item=replace(entry.item, segmentation=masks.encode(mask))))
    return [entry.item for entry in entries_around_masks(masked, size_hw, box_path, report)]


def _load(path: Path, mmap_mode: str | None, report: Report) -> np.ndarray | None:
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except FileNotFoundError:
        report.problem(path, "no such file")
    except (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, OverflowError, MemoryError) as error:
        report.problem(path, f"is no readable array ({error})")
    return None
