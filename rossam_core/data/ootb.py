"""OOTB: 110 satellite video sequences that each follow one object, with oriented boxes.

In: a folder with `<class>_<n>/img/0001.jpg …`, `<class>_<n>/groundtruth.txt`, and `anno/<class>_<n>.txt`. Out:
a `FrameSet`, each sequence a video. Chen et al., ISPRS J. Photogramm. 210 (2024).

Coordinates: rows of eight numbers, x and y of the four corners in turn. The box is the smallest upright one that
holds them; the corners stay in the object's attribute `corners`, [[x, y], …], in the same pixel-edge
coordinates. Nothing states whether the first pixel is 0 or 1: see `FIRST_PIXEL`. The sixteen flags of a
sequence are in its frames' attribute `flags`.
"""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

import numpy as np

from .reading import Report, find_folder, indexed, subfolders
from .records import FrameSet
from .tracking_text import parse_whole, read_rows, single_object_frames

NAME = "ootb"
FIRST_PIXEL = 0.0
"""What the source calls the first pixel's left edge; 1.0 would move every corner by one pixel to the left and up."""
CATEGORIES = ("car", "plane", "ship", "train")
FLAGS = 16
SEQUENCE = re.compile(r"([a-z]+)_(\d+)")
LAYOUT = """\
    car_1/img/0001.jpg …
    car_1/groundtruth.txt, a row of eight numbers (four corners) for each frame
    anno/car_1.txt, sixteen flags 0 or 1
    … plane_1, ship_1, train_1 …"""
HOW_TO_GET = "follow the download link in the README of the GitHub repository YZCU/OOTB"
REMEDY = "unpack the dataset anew; a file that is damaged in the original too can be moved away with its sequence"


def read_ootb(root: str | PathLike, cache: Path | None = None) -> FrameSet:
    """All sequences, sorted by class and number. The dataset has no splits.

    Args:
        root: the dataset's folder, or one at most two levels above it.
        cache: folder for the index; None = `files.cache_dir()`.

    Raises:
        RossamError: the dataset is not there, or a list of all problems with file and line: images missing,
            unreadable or of several sizes; rows that are no eight numbers; row and frame counts that differ;
            flags that are not sixteen of 0 and 1.
    """
    root = find_folder(root, _is_dataset, LAYOUT, HOW_TO_GET)
    return indexed(NAME, root, [root], {}, cache, lambda: _read(root))


def _is_dataset(folder: Path) -> bool:
    return (folder / "anno").is_dir() and any(SEQUENCE.fullmatch(f.name) for f in subfolders(folder))


def _read(root: Path) -> FrameSet:
    report, sequences = Report(root, REMEDY), []
    for folder in subfolders(root):
        match = SEQUENCE.fullmatch(folder.name)
        if match is not None and match[1] in CATEGORIES:
            sequences.append((match[1], int(match[2]), folder))
        elif folder.name != "anno":
            report.problem(folder, f"is not a sequence <class>_<number> of a class among {', '.join(CATEGORIES)}")
    frames = []
    for category, _, folder in sorted(sequences):
        attributes = _flags(root / "anno" / f"{folder.name}.txt", report)
        frames += single_object_frames(NAME, folder, folder.name, category, 8, _to_object, report, attributes)
    report.raise_if_any()
    return FrameSet(NAME, frames, report.drops)


def _flags(path: Path, report: Report) -> dict[str, list[int]]:
    if not path.exists():
        report.drop(path, "no such file: the sequence has no flags")
        return {}
    rows, _ = read_rows(path, report)
    flags = [parse_whole(field) for _, fields in rows for field in fields]
    if rows and (len(flags) != FLAGS or not set(flags) <= {0, 1}):
        report.problem(path, f"holds {len(flags)} values, expected {FLAGS} of 0 and 1")
    return {"flags": flags}


def _to_object(values: list[float]):
    corners = np.array(values).reshape(4, 2) - FIRST_PIXEL
    return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()), {"corners": corners.tolist()}
