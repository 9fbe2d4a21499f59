"""Frames and their annotated objects: what readers return, and what training, inference and scoring take.

Boxes are xyxy floats in pixel-edge coordinates: the origin is the outer corner of the first pixel, x1 and
y1 are exclusive, so a box around pixel columns 3..5 has x0 = 3 and x1 = 6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.files import sha256_of, stable_hash
from rossam_core.settings import Config

Box = tuple[float, float, float, float]


class ImageReading(Config):
    """How an image file becomes pixels. This one takes 8-bit images as they are; readers bring their own."""

    def read(self, path: Path) -> np.ndarray:
        """uint8 H×W×3, RGB, in stored pixel order; `RossamError` where the file is no 8-bit image."""
        try:
            with Image.open(path) as image:
                if image.mode in ("RGB", "L", "P"):
                    return np.asarray(image.convert("RGB"))
                finding = f"has the mode {image.mode}, expected 8-bit RGB, gray or palette"
        except FileNotFoundError as error:
            raise RossamError(path, "no such image file", "check the path") from error
        except OSError as error:
            finding = f"cannot be read as an image ({error})"
        raise RossamError(path, finding, "save it as 8-bit RGB, or read the dataset with rossam_kit.datasets")

    def as_entry(self) -> dict[str, Any]:
        """`{"reading": …}` to be stored beside a frame; empty for the default."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        return {"reading": values} if values else {}


AS_STORED = ImageReading()


@dataclass(frozen=True)
class ObjectAnnotation:
    """One object in one frame.

    Attributes:
        object_id: unique within its frame; in a video, the same number in every frame (its track).
        category: class name, lower case; `FrameSet.class_of` gives the source's spelling.
        box_xyxy: pixel-edge coordinates of the frame.
        segmentation: COCO run-length encoding `{"size": [h, w], "counts": str}`, or a list of polygons
            `[x0, y0, x1, y1, …]`, or None where only the box is known.
        attributes: what else the source says (occluded, truncated, …), JSON-serialisable.
        source: the source's own `annotation_id` and `category_id`, where it has them.
    """

    object_id: int
    category: str
    box_xyxy: Box
    segmentation: Mapping[str, Any] | list[list[float]] | None = None
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
    """One image and its objects.

    Attributes:
        dataset: where it comes from, e.g. `synthetic-video` or `nwpu-vhr10`.
        video: the video (or still image) it belongs to; what intervals are over.
        index: frame number within the video, from 1.
        image_path: the image file, read only when `image()` is called.
        size_hw: height and width in pixels.
        objects: all annotated objects, in the order of the source.
        attributes: ground resolution, scene, sensor, …, JSON-serialisable.
        reading: how the image file becomes pixels, the same for all frames of a dataset.
        source: the source's own `file_name`, `image_id` and `video_id`, where it has them.
    """

    dataset: str
    video: str
    index: int
    image_path: Path
    size_hw: tuple[int, int]
    objects: tuple[ObjectAnnotation, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    reading: ImageReading = AS_STORED
    source: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        return f"{self.video}/{self.index:06d}"

    def image(self) -> np.ndarray:
        """uint8 H×W×3, RGB."""
        return self.reading.read(self.image_path)

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """float64 N×4, in the order of `objects`."""
        return np.array([o.box_xyxy for o in self.objects], dtype=np.float64).reshape(-1, 4)

    def with_objects(self, objects: Sequence[ObjectAnnotation]) -> Frame:
        return replace(self, objects=tuple(objects))


@dataclass(frozen=True)
class Drop:
    """Something a reader or a filter left out, and why; `boxes` is the number of boxes of the input in it."""

    where: str
    reason: str
    boxes: int = field(default=0, compare=False)


class FrameSet(Sequence[Frame]):
    """Frames in a fixed order, with a record of what is not among them.

    Args:
        name: shown in tables and reports.
        frames: sorted by video and index by the reader.
        drops: what was left out, one entry each.
        classes: id and name of each class of the source, used or not; default: those of the objects, from 1.
    """

    def __init__(
        self,
        name: str,
        frames: Sequence[Frame],
        drops: Sequence[Drop] = (),
        classes: Sequence[tuple[int | str, str]] = (),
    ):
        self.name, self.frames, self.drops = name, tuple(frames), tuple(drops)
        self._source_classes = tuple((number, name) for number, name in classes)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index):
        return self.subset(self.frames[index]) if isinstance(index, slice) else self.frames[index]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def __repr__(self) -> str:
        return (
            f"FrameSet({self.name!r}: {len(self)} frames, {self.object_count} objects, "
            f"{len(self.videos)} videos, {len(self.drops)} dropped)"
        )

    @property
    def videos(self) -> tuple[str, ...]:
        return tuple(sorted({frame.video for frame in self.frames}))

    @property
    def object_count(self) -> int:
        return sum(len(frame.objects) for frame in self.frames)

    @property
    def input_boxes(self) -> int:
        """Boxes of the input: those that are here and those that were left out."""
        return self.object_count + sum(drop.boxes for drop in self.drops)

    @cached_property
    def classes(self) -> tuple[tuple[int | str, str], ...]:
        """Id and name of each class: the source's list in its order, then classes of objects that it lacks."""
        listed = {name.lower() for _, name in self._source_classes}
        missing = {o.category: None for f in self.frames for o in f.objects if o.category.lower() not in listed}
        first = max((number for number, _ in self._source_classes if isinstance(number, int)), default=0) + 1
        return (*self._source_classes, *enumerate(missing, start=first))

    @cached_property
    def class_of(self) -> Callable[[Any], tuple[int | str, str]]:
        """Object → id and name of its class, from `classes`."""
        return class_finder(self.classes)

    @property
    def categories(self) -> dict[str, int]:
        """Objects per category, most frequent first."""
        return dict(Counter(o.category for f in self.frames for o in f.objects).most_common())

    def subset(self, frames: Sequence[Frame], drops: Sequence[Drop] = ()) -> FrameSet:
        return FrameSet(self.name, frames, (*self.drops, *drops), self._source_classes)

    def keep_objects(self, keep: Callable[[ObjectAnnotation], bool], reason: str) -> FrameSet:
        """Without the objects `keep` refuses; each leaves a `Drop`. Frames left empty stay."""
        drops, frames = [], []
        for frame in self.frames:
            kept = [o for o in frame.objects if keep(o)]
            drops += [Drop(f"{frame.key} object {o.object_id}", reason, 1) for o in frame.objects if not keep(o)]
            frames.append(frame if len(kept) == len(frame.objects) else frame.with_objects(kept))
        return self.subset(frames, drops)

    def fingerprint(self) -> str:
        """Hash of everything that may move a score: keys, sizes, boxes, masks, the images' bytes and their reading."""
        return stable_hash(
            [
                [f.dataset, f.key, f.size_hw, sha256_of(f.image_path), f.reading.model_dump(mode="json")]
                + [[o.object_id, o.category, list(o.box_xyxy), o.segmentation] for o in f.objects]
                for f in self.frames
            ]
        )


def class_finder(classes: Sequence[tuple[int | str, str]]) -> Callable[[Any], tuple[int | str, str]]:
    """A function from an object (`category`, `source`) to the entry of `classes` it belongs to: by id, else by name."""
    by_id = {(number, name.lower()): (number, name) for number, name in classes}
    by_name = {name.lower(): (number, name) for number, name in reversed(classes)}

    def find(item) -> tuple[int | str, str]:
        name = item.category.lower()
        return by_id.get((item.source.get("category_id"), name)) or by_name[name]

    return find
