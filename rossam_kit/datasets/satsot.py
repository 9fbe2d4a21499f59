"""SatSOT: 105 satellite video sequences that each follow one object, with boxes.

In: a folder with `<class>_<NN>/img/0001.jpg …` and `<class>_<NN>/groundtruth.txt`. Out: a `FrameSet`, each
sequence a video. Zhao et al., IEEE TGRS 60 (2022). 65 cars, 9 planes, 5 ships, 26 trains.

Coordinates: rows `x,y,w,h`, of the top left corner; `none` where the target is out of sight. Nothing states
whether the first pixel is 0 or 1: see `FIRST_PIXEL`. x1 = x0 + w, so the box is pixel-edge.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from rossam_kit.datasets.box_conventions import xywh_to_xyxy
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.reading import find_folder, indexed, subfolders
from rossam_kit.datasets.tracking_text import SEQUENCE, single_object_set

NAME = "satsot"
FIRST_PIXEL = 0.0
"""What the source calls the first pixel's left edge; 1.0 would move every box by one pixel to the left and up."""
LAYOUT = """\
    car_01/img/0001.jpg …
    car_01/groundtruth.txt, a row x,y,w,h (or none) for each frame
    … plane_01, ship_01, train_01 …"""
HOW_TO_GET = (
    "get SatSOT from its authors (Zhao et al., IEEE TGRS 60, 2022, doi:10.1109/TGRS.2022.3140809) and unpack it in the "
    "folder you name"
)


def read_satsot(root: str | PathLike, cache: Path | None = None) -> FrameSet:
    """All sequences, sorted by class and number. The dataset has no splits.

    Args:
        root: the dataset's folder, or one at most two levels above it.
        cache: folder for the index; None = `files.cache_dir()`.

    Raises:
        RossamError: the dataset is not there, or a list of all problems with file and line: images missing,
            unreadable or of several sizes; rows that are no four numbers; row and frame counts that differ.
    """
    root = find_folder(root, _is_dataset, LAYOUT, HOW_TO_GET)
    return indexed(NAME, root, [root], {}, cache, lambda: single_object_set(NAME, root, 4, _to_object))


def _is_dataset(folder: Path) -> bool:
    return any(SEQUENCE.fullmatch(f.name) and (f / "img").is_dir() for f in subfolders(folder)) and not any(
        (folder / "anno").glob("*.txt")
    )


def _to_object(values: list[float]):
    x, y, w, h = values
    return tuple(xywh_to_xyxy([x - FIRST_PIXEL, y - FIRST_PIXEL, w, h]).tolist()), {}
