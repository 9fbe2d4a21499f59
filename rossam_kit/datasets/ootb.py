"""OOTB: 110 satellite video sequences that each follow one object, with oriented boxes.

Files: `<class>_<n>/img/0001.jpg …`, `<class>_<n>/groundtruth.txt`, and `anno/<class>_<n>.txt`. Each sequence is a
video. Chen et al., ISPRS J. Photogramm. 210 (2024).

Coordinates: rows of eight numbers, x and y of the four corners in turn. The box is the smallest upright one that
holds them; the corners stay in the object's attribute `oriented_box`, [[x, y], …], in the same pixel-edge
coordinates. Nothing states whether the first pixel is 0 or 1; it is taken for 0. The sixteen flags of a
sequence are in its frames' attribute `flags`.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from rossam_kit.datasets.box_conventions import upright_box
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.reading import Report, find_folder, indexed, subfolders
from rossam_kit.datasets.tracking_text import SEQUENCE, parse_whole, read_rows, single_object_set

NAME = "ootb"
FLAGS = 16
FLAG_FOLDER = "anno"
LAYOUT = """\
    car_1/img/0001.jpg …
    car_1/groundtruth.txt, a row of eight numbers (four corners) for each frame
    anno/car_1.txt, sixteen flags 0 or 1
    … plane_1, ship_1, train_1 …"""
HOW_TO_GET = "follow the download link in the README of the GitHub repository YZCU/OOTB"


def read_ootb(root: str | PathLike, cache: Path | None = None) -> FrameSet:
    """All sequences, sorted by class and number (`reading` describes arguments and errors). There are no splits."""
    root = find_folder(root, _is_dataset, LAYOUT, HOW_TO_GET)
    return indexed(
        NAME, root, [root], {}, cache, lambda: single_object_set(NAME, root, 8, _to_object, _flags, [FLAG_FOLDER])
    )


def _is_dataset(folder: Path) -> bool:
    return (folder / FLAG_FOLDER).is_dir() and any(SEQUENCE.fullmatch(f.name) for f in subfolders(folder))


def _flags(folder: Path, report: Report) -> dict[str, list[int]]:
    """`anno/<sequence>.txt`, sixteen of 0 and 1."""
    path = folder.parent / FLAG_FOLDER / f"{folder.name}.txt"
    if not path.exists():
        report.drop(path, "no such file: the sequence has no flags")
        return {}
    rows, _ = read_rows(path, report)
    flags = [parse_whole(field) for _, fields in rows for field in fields]
    if rows and (len(flags) != FLAGS or not set(flags) <= {0, 1}):
        report.problem(path, f"holds {len(flags)} values, expected {FLAGS} of 0 and 1")
    return {"flags": flags}


def _to_object(values: list[float]):
    corners = np.array(values).reshape(4, 2)
    sides = np.roll(corners, -1, axis=0) - corners
    following = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]  # of one sign around a convex outline
    if (turns > 0).sum() == (turns < 0).sum() and np.isfinite(corners).all():
        raise ValueError(f"the corners {corners.tolist()} do not follow each other around a box")
    return upright_box(corners), {"oriented_box": corners.tolist()}
