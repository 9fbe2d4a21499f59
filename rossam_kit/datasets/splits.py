"""Annotated data split into frames to train on and frames to validate on: made, cut down, and looked through."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from rossam_core.errors import RossamError
from rossam_core.files import sha256_of
from rossam_kit.datasets.frame_set import FrameSet

LITTLE = 100
"""Objects with masks below which the data is called little."""


def hold_out(frames: FrameSet) -> tuple[FrameSet, FrameSet]:
    """Frames to train on, and to validate on: every tenth video in the order of names, of fewer than ten the last.

    Of a single video, the last tenth of its frames (at least one). An image that belongs to no video counts as one.
    """
    videos = {*(frames.videos[9::10] or frames.videos[1:][-1:])}
    last_tenth = frames[-max(len(frames) // 10, 1) :] if len(frames.videos) == 1 else ()
    held_out = {frame.key for frame in (*last_tenth, *(frame for frame in frames if frame.video in videos))}
    parts = [[frame for frame in frames if (frame.key in held_out) == is_val] for is_val in (False, True)]
    return frames.subset(parts[0]), frames.subset(parts[1])


def spread_objects(frames: FrameSet, most: int) -> FrameSet:
    """At most `most` objects with masks, evenly spaced over the frames, and nothing else."""
    places = [(f, o) for f, frame in enumerate(frames) for o in frame.objects if o.has_mask]
    chosen = defaultdict(list)
    for i in np.linspace(0, len(places) - 1, min(max(most, 1), len(places))).round().astype(int):
        chosen[places[i][0]].append(places[i][1])
    return frames.subset([frames[f].with_objects(objects) for f, objects in chosen.items()])


def check_split(train: FrameSet, val: FrameSet, is_strict: bool) -> list[str]:
    """What a user should know of the data before training, as sentences.

    Args:
        is_strict: an image in both sets is an error, as it can be corrected; else it is a note.

    Raises:
        RossamError: no masks to train or to validate on, or images that are in both sets.
    """
    for frames, purpose in ((train, "train"), (val, "validate")):
        if not count_masks(frames):
            finding = f"none of {frames.object_count:,} objects in {len(frames):,} images to {purpose} on has a mask"
            remedy = "annotate masks in more images, or make some of the boxes with `rossam convert`"
            raise RossamError(frames.name, finding, remedy)
    notes, masks = [], count_masks(train)
    if shared := _shared_images(train, val):
        finding = f"{len(shared):,} of {len(val):,} validation images are training images, too, e.g. {shared[0]}"
        if is_strict:
            raise RossamError(val.name, finding, "take them out of one of the two sets, or leave --val out")
        notes.append(f"{finding}; the validation IoU is too high by that")
    if masks < LITTLE:
        notes.append(f"too little data for a reliable result: {size_text(train)}; {LITTLE} objects or more are better")
    if masks < train.object_count:
        notes.append(f"{train.object_count - masks:,} of {train.object_count:,} objects have no mask and are left out")
    if len(train.categories) == 1:
        notes.append(f"one class only ({next(iter(train.categories))}): masks of other objects may get worse")
    if unseen := sorted({*val.categories} - {*train.categories}):
        notes.append(f"classes to validate on that are not trained on: {', '.join(unseen)}")
    if videos := sorted({*train.videos} & {*val.videos}):
        notes.append(
            f"frames of {videos[0]} are in both sets; the IoU on other videos will be lower than measured here"
        )
    return notes


def count_masks(frames: FrameSet) -> int:
    """Objects that have a mask."""
    return sum(o.has_mask for frame in frames for o in frame.objects)


def size_text(frames: FrameSet) -> str:
    """Objects and images in words."""
    return f"{count_masks(frames):,} objects with masks in {len(frames):,} images"


def _shared_images(train: FrameSet, val: FrameSet) -> list[Path]:
    """Images of `val` whose bytes are those of an image of `train`; only files of a size that both have are read."""
    sizes = [{frame.image_path: frame.image_path.stat().st_size for frame in frames} for frames in (train, val)]
    both = {*sizes[0].values()} & {*sizes[1].values()}
    hashes = {sha256_of(path) for path, size in sizes[0].items() if size in both}
    return [path for path, size in sizes[1].items() if size in both and sha256_of(path) in hashes]
