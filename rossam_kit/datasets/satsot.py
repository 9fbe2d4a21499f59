"""SatSOT: 105 satellite video sequences that each follow one object, with boxes.

Files: `<class>_<NN>/img/0001.jpg …` and `<class>_<NN>/groundtruth.txt`. Each sequence is a video. Zhao et al., IEEE
TGRS 60 (2022). 65 cars, 9 planes, 5 ships, 26 trains.

Coordinates: rows `x,y,w,h`, of the top left corner; `none` where the target is out of sight. Nothing states whether the
first pixel is 0 or 1; it is taken for 0. x1 = x0 + w, so the box is pixel-edge.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from rossam_kit.datasets.box_conventions import xywh_box
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.reading import find_folder, indexed, list_files, subfolders
from rossam_kit.datasets.tracking_text import SEQUENCE, single_object_set

NAME = "satsot"
LAYOUT = """\
    car_01/img/0001.jpg …
    car_01/groundtruth.txt, a row x,y,w,h (or none) for each frame
    … plane_01, ship_01, train_01 …"""
HOW_TO_GET = (
    "get SatSOT from its authors (Zhao et al., IEEE TGRS 60, 2022, doi:10.1109/TGRS.2022.3140809) and unpack it in the "
    "folder you name"
)


def read_satsot(root: str | PathLike, cache: Path | None = None) -> FrameSet:
    """All sequences, sorted by class and number (`reading` describes arguments and errors). There are no splits."""
    root = find_folder(root, _is_dataset, LAYOUT, HOW_TO_GET)
    return indexed(
        NAME, root, [root], {}, cache, lambda: single_object_set(NAME, root, 4, lambda row: (xywh_box(row), {}))
    )


def _is_dataset(folder: Path) -> bool:
    is_set = any(SEQUENCE.fullmatch(f.name) and (f / "img").is_dir() for f in subfolders(folder))
    return is_set and not list_files(folder / "anno", (".txt",))  # of OOTB
