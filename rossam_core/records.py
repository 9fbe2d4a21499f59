"""Frames and their annotated objects: what readers return, and what training and inference take.

Boxes are xyxy floats in pixel-edge coordinates: the origin is the outer corner of the first pixel, x1 and
y1 are exclusive, so a box around pixel columns 3..5 has x0 = 3 and x1 = 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.files import sha256_of, stable_hash
from rossam_core.settings import Config

Box = tuple[float, float, float, float]
PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "PPM", "JPEG2000")
"""What Pillow may open: others it would decode by a program of the system (EPS by Ghostscript). MPO is a JPEG."""


class ImageReading(Config):
    """How an image file becomes pixels. This one reads 8-bit images; datasets may define others."""

    def read(self, path: Path) -> np.ndarray:
        """uint8 H×W×3, RGB, in stored pixel order; `RossamError` where the file is no 8-bit image."""
        try:
            with Image.open(path, formats=PILLOW_FORMATS) as image:
                if image.mode in ("RGB", "L", "P"):
                    return np.asarray(image.convert("RGB"))
                finding = f"has the mode {image.mode}, expected 8-bit RGB, gray or palette"
        except FileNotFoundError as error:
            raise RossamError(path, "no such image file", "check the path") from error
        except OSError as error:
            finding = f"cannot be read as an image ({error})"
        raise RossamError(path, finding, "save it as 8-bit RGB, or read the dataset with rossam_kit.datasets")

    def files(self, path: Path) -> list[Path]:
        """All files that the pixels of an image come from, that at `path` first."""
        return [path]

    def as_entry(self) -> dict[str, Any]:
        """`{"reading": …}` to be stored with a frame; empty for the default."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        return {"reading": values} if values else {}


AS_STORED = ImageReading()


@dataclass(frozen=True)
class ObjectAnnotation:
    """One object in one frame. Further properties in `attributes` (occluded, truncated, …) are JSON-serialisable;
    `source` has its `annotation_id`, `category_id` and, of a track with a name, `track_id` there."""

    object_id: int  # unique within its frame; in a video, the same number in every frame (its track)
    category: str  # class name, lower case
    box_xyxy: Box  # pixel-edge coordinates of the frame
    segmentation: Mapping[str, Any] | list[list[float]] | None = None
    """COCO run-length encoding `{"size": [h, w], "counts": str}`, or a list of polygons `[x0, y0, x1, y1, …]`, or None
    where there is only a box."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def has_mask(self) -> bool:
        return self.segmentation is not None

    def mask(self, size_hw: tuple[int, int]) -> np.ndarray:
        """The object's mask, bool H×W, decoded on each call; `ValueError` where there is none."""
        if self.segmentation is None:
            raise ValueError(f"object {self.object_id} ({self.category}) has a box but no mask")
        return masks.decode(self.segmentation, size_hw)


@dataclass(frozen=True)
class Frame:
    """One image and its objects. `attributes` (ground resolution, scene, sensor, …) are JSON-serialisable; `source` has
    its `file_name`, `image_id` and `video_id` there."""

    dataset: str  # its source, e.g. `synthetic-video` or `nwpu-vhr10`
    video: str  # the video (or still image) it belongs to
    index: int  # frame number within the video, from 1
    image_path: Path  # read only when `image()` is called
    size_hw: tuple[int, int]  # height and width in pixels
    objects: tuple[ObjectAnnotation, ...] = ()  # in the order of the source
    attributes: Mapping[str, Any] = field(default_factory=dict)
    reading: ImageReading = AS_STORED  # the same for all frames of a dataset
    source: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        return f"{self.video}/{self.index:06d}"

    def image(self) -> np.ndarray:
        """uint8 H×W×3, RGB."""
        return self.reading.read(self.image_path)

    def image_hash(self) -> str:
        """Hash of the bytes of all files that the image comes from."""
        return "+".join(sha256_of(file) for file in self.reading.files(self.image_path))

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """float64 N×4, in the order of `objects`."""
        return np.array([o.box_xyxy for o in self.objects], dtype=np.float64).reshape(-1, 4)

    def with_objects(self, objects: Sequence[ObjectAnnotation]) -> Frame:
        """The same frame with other objects."""
        return replace(self, objects=tuple(objects))


def fingerprint(frames: Iterable[Frame]) -> str:
    """Hash of everything that may change a score: keys, sizes, boxes, masks, the images' bytes and their reading."""
    return stable_hash(
        [
            [f.dataset, f.key, f.size_hw, f.image_hash(), f.reading.model_dump(mode="json")]
            + [[o.object_id, o.category, list(o.box_xyxy), o.segmentation] for o in f.objects]
            for f in frames
        ]
    )
