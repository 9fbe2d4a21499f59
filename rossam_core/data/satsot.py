"""SatSOT: 105 satellite video sequences that each follow one object, with boxes.

In: a folder with `<class>_<NN>/img/0001.jpg …` and `<class>_<NN>/groundtruth.txt`. Out: a `FrameSet`, each
sequence a video. Zhao et al., IEEE TGRS 60 (2022). 65 cars, 9 planes, 5 ships, 26 trains.

Coordinates: rows `x,y,w,h`, of the top left corner; `none` where the target is out of sight. Nothing states
whether the first pixel is 0 or 1: see `FIRST_PIXEL`. x1 = x0 + w, so the box is pixel-edge.
"""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from .boxes import xywh_to_xyxy
from .reading import Report, find_folder, indexed, subfolders
from .records import FrameSet
from .tracking_text import single_object_frames

NAME = "satsot"
FIRST_PIXEL = 0.0
"""What the source calls the first pixel's left edge; 1.0 would move every box by one pixel to the left and up."""
CATEGORIES = ("car", "plane", "ship", "train")
SEQUENCE = re.compile(r"([a-z]+)_(\d+)")
LAYOUT = """\
    car_01/img/0001.jpg …
    car_01/groundtruth.txt, a row x,y,w,h (or none) for each frame
    … plane_01, ship_01, train_01 …"""
HOW_TO_GET = (
    "get SatSOT from its authors (Zhao et al., IEEE TGRS 60, 2022, doi:10.1109/TGRS.2022.3140809) and unpack it in the "
    "folder you name"
)
REMEDY = "unpack the dataset anew; a file that is damaged in the original too can be moved away with its sequence"


def read_satsot(root: str | PathLike, cache: Path | None = None) -> FrameSet:
    """All sequences, sorted by name. The dataset has no splits.

    Args:
        root: the dataset's folder, or one at most two levels above it.
        cache: folder for the index; None = `files.cache_dir()`.

    Raises:
        RossamError: the dataset is not there, or a list of all problems with file and line: images missing,
            unreadable or of several sizes; rows that are no four numbers; row and frame counts that differ.
    """
    root = find_folder(root, _is_dataset, LAYOUT, HOW_TO_GET)
    return indexed(NAME, root, [root], {}, cache, lambda: _read(root))


def _is_dataset(folder: Path) -> bool:
    return any(SEQUENCE.fullmatch(f.name) and (f / "img").is_dir() for f in subfolders(folder)) and not any(
        (folder / "anno").glob("*.txt")
    )


def _read(root: Path) -> FrameSet:
    report, frames = Report(root, REMEDY), []
    for folder in subfolders(root):
        match = SEQUENCE.fullmatch(folder.name)
        if match is None or match[1] not in CATEGORIES:
            report.problem(folder, f"is not a sequence <class>_<number> of a class among {', '.join(CATEGORIES)}")
            continue
        frames += single_object_frames(NAME, folder, folder.name, match[1], 4, _to_object, report)
    report.raise_if_any()
    return FrameSet(NAME, frames, report.drops)


def _to_object(values: list[float]):
    x, y, w, h = values
    return tuple(xywh_to_xyxy([x - FIRST_PIXEL, y - FIRST_PIXEL, w, h]).tolist()), {}
