"""Tiny frame sets for tests of readers: two videos of three frames, 48×64 pixels, two objects per frame."""

import cv2
import numpy as np
from PIL import Image

from rossam_core import masks
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets.authors_format import read_authors_format
from rossam_kit.datasets.coco import read_coco
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.isaid import read_isaid
from rossam_kit.datasets.nwpu_vhr10 import read_nwpu_vhr10
from rossam_kit.datasets.ootb import read_ootb
from rossam_kit.datasets.sat_mtb import read_sat_mtb
from rossam_kit.datasets.satsot import read_satsot
from rossam_kit.datasets.viso import read_viso

SIZE = (48, 64)


def _of_task(frames, task):
    """The frames of one of VISO's tasks."""
    return frames.subset([frame for frame in frames if frame.video.startswith(f"{task}/")])


READERS = {
    "sat-mtb": lambda root, cache: read_sat_mtb(root, "test", cache=cache),
    "sat-mtb hbb": lambda root, cache: read_sat_mtb(root, "test", "hbb", cache),
    "sat-mtb obb": lambda root, cache: read_sat_mtb(root, "test", "obb", cache),
    "sat-mtb mot": lambda root, cache: read_sat_mtb(root, "test", "mot", cache),
    "authors": lambda root, cache: read_authors_format(root, "test", cache),
    "isaid": lambda root, cache: read_isaid(root, "val", cache),
    "satsot": read_satsot,
    "ootb": read_ootb,
    "viso mot": lambda root, cache: _of_task(read_viso(root, cache), "mot"),
    "viso sot": lambda root, cache: _of_task(read_viso(root, cache), "sot"),
    "nwpu-vhr10": lambda root, cache: read_nwpu_vhr10(root),
    "coco": lambda root, cache: read_coco(root / "test.json", root / "images", name="coco"),
}
"""How each format is read; what stands before the space is the twin's format."""


def made_frames(folder) -> FrameSet:
    """Moving, turning ellipses; the second object of each frame has a hole."""
    rng = np.random.default_rng(7)
    frames = []
    for video, category in (("one", "airplane"), ("two", "ship")):
        for index in (1, 2, 3):
            path = folder / f"{video}-{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
            objects = []
            for number in (1, 2):
                mask = np.zeros(SIZE, np.uint8)
                centre = (15 * number + 2 * index, 13 * number + index)
                cv2.ellipse(mask, centre, (8, 4), 40 * number + 10 * index, 0, 360, 1, -1)
                if number == 2:
                    mask[centre[1], centre[0]] = 0
                objects.append(ObjectAnnotation(number, category, masks.box_of(mask > 0), masks.encode(mask > 0), {}))
            frames.append(Frame("made", video, index, path, SIZE, tuple(objects)))
    return FrameSet("made", frames)
