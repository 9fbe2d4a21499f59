"""DOTA text: still images with oriented boxes, one text file per image.

In: a folder with `images/NAME.png` and `labelTxt/NAME.txt` (or `labelTxt-v1.5/…`, `annfiles/…`). Out: a `FrameSet`,
each image a video of one frame. Xia et al., CVPR 2018; the format is used by many other datasets.

A row is `x1 y1 x2 y2 x3 y3 x4 y4 class difficult`; rows `imagesource:…` and `gsd:…` are passed over. The box is the
smallest upright one around the corners, which stay in the attribute `oriented_box`, in pixel-edge coordinates as they
stand.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets.box_conventions import upright_box
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.reading import (
    IMAGE_SUFFIXES,
    Entry,
    Report,
    find_folder,
    indexed,
    list_files,
    size_or_problem,
    subfolders,
    usable_entries,
)
from rossam_kit.datasets.tracking_text import parse_numbers, parse_whole, read_rows

NAME = "dota"
LABEL_FOLDERS = ("labeltxt", "annfiles")
"""How names of label folders begin, in lower case."""
LAYOUT = """\
    images/P0001.png …
    labelTxt/P0001.txt …, rows x1 y1 x2 y2 x3 y3 x4 y4 class difficult"""
HOW_TO_GET = "name the folder of one split, which holds its images and labels"
REMEDY = "correct these files, or move them away with their images"


def read_dota(root: str | PathLike, cache: Path | None = None) -> FrameSet:
    """All images in the folder of one split that have a label file, sorted by name; arguments and errors: `reading`."""
    root = find_folder(root, lambda folder: _labels(folder) is not None, LAYOUT, HOW_TO_GET)
    return indexed(NAME, root, [root / "images", _labels(root)], {}, cache, lambda: _read(root))


def _labels(folder: Path) -> Path | None:
    """The folder of label files; None where there are no images beside one."""
    names = [f for f in subfolders(folder) if f.name.lower().startswith(LABEL_FOLDERS)]
    return names[0] if names and (folder / "images").is_dir() else None


def _read(root: Path) -> FrameSet:
    report, frames, classes = Report(root, REMEDY), [], {}
    labels = {path.stem: path for path in list_files(_labels(root), (".txt",))}
    for image in list_files(root / "images", IMAGE_SUFFIXES):
        path = labels.pop(image.stem, None)
        if path is None:
            report.drop(image, "has no label file")
        elif (size_hw := size_or_problem(image, report)) is not None:
            objects = _objects(path, size_hw, report)
            classes |= dict.fromkeys(item.category for item in objects)
            frames.append(Frame(NAME, image.stem, 1, image, size_hw, tuple(objects)))
    for path in labels.values():
        report.problem(path, "has no image in images/")
    report.raise_if_any()
    return FrameSet(root.name, frames, report.drops, list(enumerate(classes, start=1)))


def _objects(path: Path, size_hw: tuple[int, int], report: Report) -> list[ObjectAnnotation]:
    rows = [] if path.stat().st_size == 0 else read_rows(path, report)[0]
    entries = []
    for line, fields in rows:
        values = parse_numbers(fields[:8])
        if not fields or fields[0].lower().startswith(("imagesource:", "gsd:")):
            continue
        if values is None or not 9 <= len(fields) <= 10 or (len(fields) == 10 and parse_whole(fields[9]) is None):
            report.problem(path, f"is {' '.join(fields)!r}, expected x1 y1 x2 y2 x3 y3 x4 y4 class difficult", line)
            continue
        corners = np.array(values).reshape(4, 2)
        attributes = {"oriented_box": corners.tolist()}
        attributes |= {"difficult": parse_whole(fields[9])} if len(fields) == 10 else {}
        item = ObjectAnnotation(line, fields[8].lower(), upright_box(corners), attributes=attributes)
        entries.append(Entry(1, line, item))
    return [entry.item for entry in usable_entries(entries, size_hw, path, report, "xyxy")]
