"""What a frame is: the records every reader yields and every later room takes in.

In: what a reader found on disk. Out: `Frame`s with `ObjectAnnotation`s in one coordinate convention, the
list of what was dropped and why, and a COCO index that carries all of it to and from disk.

Boxes are xyxy floats in pixel-edge coordinates: the origin is the outer corner of the first pixel, x1 and
y1 are exclusive, so a box around pixel columns 3..5 has x0 = 3 and x1 = 6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..files import sha256_of, stable_hash
from . import masks
from .images import read_image

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ObjectAnnotation:
    """One object in one frame.

    Attributes:
        object_id: unique within its frame; in a video, the same number in every frame (its track).
        category: class name, lower case.
        box_xyxy: pixel-edge coordinates of the frame.
        segmentation: COCO run-length encoding `{"size": [h, w], "counts": str}`, or a list of polygons
            `[x0, y0, x1, y1, …]`, or None where only the box is known.
        attributes: what else the source says (occluded, truncated, …), JSON-serialisable.
    """

    object_id: int
    category: str
    box_xyxy: Box
    segmentation: Mapping[str, Any] | list[list[float]] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

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
    """

    dataset: str
    video: str
    index: int
    image_path: Path
    size_hw: tuple[int, int]
    objects: tuple[ObjectAnnotation, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.video}/{self.index:06d}"

    def image(self) -> np.ndarray:
        """uint8 H×W×3, RGB."""
        return read_image(self.image_path)

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """float64 N×4, in the order of `objects`."""
        return np.array([o.box_xyxy for o in self.objects], dtype=np.float64).reshape(-1, 4)

    def with_objects(self, objects: Sequence[ObjectAnnotation]) -> Frame:
        return Frame(
            self.dataset, self.video, self.index, self.image_path, self.size_hw, tuple(objects), self.attributes
        )


@dataclass(frozen=True)
class Drop:
    """Something a reader or a filter left out, and why."""

    where: str
    reason: str


class FrameSet(Sequence[Frame]):
    """Frames in a fixed order, with a record of what is not among them.

    Args:
        name: shown in tables and reports.
        frames: sorted by video and index by the reader.
        drops: what was left out, one entry each.
    """

    def __init__(self, name: str, frames: Sequence[Frame], drops: Sequence[Drop] = ()):
        self.name, self.frames, self.drops = name, tuple(frames), tuple(drops)

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
    def categories(self) -> dict[str, int]:
        """Objects per category, most frequent first."""
        return dict(Counter(o.category for f in self.frames for o in f.objects).most_common())

    def subset(self, frames: Sequence[Frame], drops: Sequence[Drop] = ()) -> FrameSet:
        return FrameSet(self.name, frames, (*self.drops, *drops))

    def keep_objects(self, keep: Callable[[ObjectAnnotation], bool], reason: str) -> FrameSet:
        """Without the objects `keep` refuses; each leaves a `Drop`. Frames left empty stay."""
        drops, frames = [], []
        for frame in self.frames:
            kept = [o for o in frame.objects if keep(o)]
            drops += [Drop(f"{frame.key} object {o.object_id}", reason) for o in frame.objects if not keep(o)]
            frames.append(frame if len(kept) == len(frame.objects) else frame.with_objects(kept))
        return self.subset(frames, drops)

    def fingerprint(self) -> str:
        """Hash of everything that may move a score: keys, sizes, boxes, masks, and the images' bytes."""
        return stable_hash(
            [
                [f.dataset, f.key, f.size_hw, sha256_of(f.image_path)]
                + [[o.object_id, o.category, list(o.box_xyxy), o.segmentation] for o in f.objects]
                for f in self.frames
            ]
        )
