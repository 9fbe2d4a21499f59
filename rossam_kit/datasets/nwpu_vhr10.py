"""NWPU VHR-10: 650 aerial and satellite images, 3,921 objects of ten kinds, with instance polygons.

The dataset may lie in any of the first levels of the given folder. Each image is its own video.

Images: Cheng et al., ISPRS J. Photogramm. 98 (2014). Polygons: `annotations.json`, Su et al., IGARSS 2019.
The 150 images of the negative set hold no objects and are not read.

Coordinates, measured on all 3,921 objects: polygon points are pixel indices; `bbox` is x, y, width, height with
x + width = largest index + 1 (two boxes are one pixel less), so it is taken as pixel-edge unchanged. Polygons
are rasterised by pycocotools, which takes points as edges: a mask often ends one pixel left of and above its
box. Box and mask edges differ by at most 1 pixel on 3,538 objects, by at most 4 on all; no mask is empty.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Literal

from rossam_core.errors import RossamError
from rossam_core.files import read_json
from rossam_core.records import ObjectAnnotation
from rossam_kit.config import CONFIGS
from rossam_kit.datasets.coco import NOT_ASKED_FOR, read_coco
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.reading import subfolders

NAME = "nwpu-vhr10"
CATEGORIES = (
    "airplane",
    "ship",
    "storage_tank",
    "baseball_diamond",
    "tennis_court",
    "basketball_court",
    "ground_track_field",
    "harbor",
    "bridge",
    "vehicle",
)
"""Classes 1 to 10, by the names `annotations.json` gives them."""
IMAGE_FOLDER = "positive image set"
ANNOTATIONS_MD5 = "7c76ec50c17a61bb0514050d20f22c08"
SPLIT_FILE = CONFIGS / "nwpu_vhr10_split.json"
NOTES = {82: "two airplanes annotated as one object"}
"""What is odd about an annotation of the file with `ANNOTATIONS_MD5`, by its id."""
LAYOUT = f"""\
expected somewhere below it, at most three folders deep:
    annotations.json
    NWPU VHR-10 dataset/{IMAGE_FOLDER}/001.jpg … 650.jpg"""
HOW_TO_GET = (
    "download 'NWPU VHR-10 dataset.zip' of the dataset torchgeo/vhr10 on Hugging Face (77 MB), unzip it, and put "
    "annotations.json of the GitHub repository chaozhong2010/VHR-10_dataset_coco beside the folder it makes"
)


def read_nwpu_vhr10(root: str | PathLike, split: Literal["train", "val"] | None = None) -> FrameSet:
    """The positive images with their objects, None: all 650; `root` may be the image folder, too. Errors: `read_coco`.

    The split is the one that ships with this package (520 train, 130 val), whatever lies in `root`, so that numbers
    compare everywhere. An object's id is its annotation's; odd annotations carry a `note` among their attributes. A
    `UserWarning` says where `annotations.json` is not the known file.
    """
    if split not in ("train", "val", None):
        raise RossamError(NAME, f"has no split {split!r}", "use 'train', 'val', or None for all images")
    images, annotations = _find(Path(root).expanduser())
    keep_files = None if split is None else read_json(SPLIT_FILE)[split]
    frames = read_coco(annotations, images, name=NAME, keep_files=keep_files)
    drops = [drop for drop in frames.drops if drop.reason != NOT_ASKED_FOR]  # the other split is no loss
    frames = FrameSet(NAME, frames.frames, drops, frames.classes)
    md5 = hashlib.md5(annotations.read_bytes(), usedforsecurity=False).hexdigest()
    if md5 != ANNOTATIONS_MD5:
        warnings.warn(
            f"{annotations}: md5 is {md5}, not {ANNOTATIONS_MD5}; scores may not compare with published ones",
            stacklevel=2,
        )
        return frames
    return frames.subset([frame.with_objects([_with_note(item) for item in frame.objects]) for frame in frames])


def _with_note(item: ObjectAnnotation) -> ObjectAnnotation:
    note = NOTES.get(item.object_id)
    return replace(item, attributes=dict(item.attributes) | {"note": note}) if note else item


def _find(root: Path) -> tuple[Path, Path]:
    """The image folder and the annotation file beside it or in one of the three folders above."""
    folders, level = [root] if root.name == IMAGE_FOLDER else [], [root]
    for _ in range(4):
        folders += [folder / IMAGE_FOLDER for folder in level if (folder / IMAGE_FOLDER).is_dir()]
        level = [child for folder in level for child in subfolders(folder)]
    for images in folders:
        for parent in list(images.parents)[:4]:
            if (parent / "annotations.json").is_file():
                return images, parent / "annotations.json"
    finding = f"{folders[0]}, but no annotations.json beside or above it" if folders else "no such dataset"
    if not root.is_dir():
        finding = "no such folder"
    raise RossamError(root, f"{finding}; {LAYOUT}", HOW_TO_GET)
