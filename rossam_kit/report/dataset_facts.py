"""A dataset in numbers and examples: sizes, density, motion, what was left out (beside the paper's Table 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rossam_core.errors import RossamError
from rossam_kit.experiments.scoring import crowding
from rossam_kit.report.objects import ObjectView, quantile_rows, view_objects

if TYPE_CHECKING:
    from rossam_core.records import Frame
    from rossam_kit.datasets.frame_set import FrameSet

NO_MOTION = "no object is in two frames"
PUBLISHED: Mapping[str, str] = {
    "Images": "10,617 (8,333 train, 2,284 test)",
    "Largest image": "2160×1080",
    "Smallest image": "512×512",
    "Objects with masks": "52,123",
    "Largest object, px²": "8,422",
    "Smallest object, px²": "12",
    "Mean object, px²": "518",
    "Largest share of its image": "0.023339",
    "Smallest share of its image": "3.111e-06",
}
"""Table 7 of the paper (supplement, section 6), as printed."""


def object_statistics(frames: Sequence[Frame]) -> pd.DataFrame:
    """One row per object with a mask: its names, area (px²), share of the frame, width and height of its box."""
    rows = []
    for frame in frames:
        for annotation in frame.objects:
            if not annotation.has_mask:
                continue
            x0, y0, x1, y1 = annotation.box_xyxy
            area = int(annotation.mask(frame.size_hw).sum())
            names = frame.video, frame.index, annotation.object_id, annotation.category
            rows.append((*names, area, area / (frame.size_hw[0] * frame.size_hw[1]), x1 - x0, y1 - y0))
    columns = ["video", "frame", "object_id", "category", "area", "share_of_frame", "width", "height"]
    return pd.DataFrame(rows, columns=columns)


def dataset_table(frames: Sequence[Frame]) -> pd.DataFrame:
    """Table 7: the paper's attributes of its dataset beside those of `frames`."""
    objects = object_statistics(frames)
    sizes = sorted({frame.size_hw for frame in frames}, key=lambda hw: hw[0] * hw[1])
    ours = [
        f"{len(frames):,}",
        f"{sizes[-1][1]}×{sizes[-1][0]}",
        f"{sizes[0][1]}×{sizes[0][0]}",
        f"{len(objects):,}",
        f"{objects['area'].max():,}",
        f"{objects['area'].min():,}",
        f"{objects['area'].mean():,.0f}",
        f"{objects['share_of_frame'].max():.6f}",
        f"{objects['share_of_frame'].min():.3e}",
    ]
    return pd.DataFrame({"attribute": list(PUBLISHED), "paper": list(PUBLISHED.values()), "here": ours})


def statistics_table(frames: Sequence[Frame]) -> pd.DataFrame:
    """Size, density and motion: a row a measure with n, mean, median, 5th and 95th percentile, and its remark."""
    counts = np.array([len(frame.objects) for frame in frames], float)
    megapixels = np.array([frame.size_hw[0] * frame.size_hw[1] / 1e6 for frame in frames])
    steps = motion(frames)
    sides = [max(x1 - x0, y1 - y0) for f in frames for x0, y0, x1, y1 in f.boxes_xyxy]
    same = "the same number in two frames" if len(steps) else NO_MOTION
    longer = "over the box's longer side" if len(steps) else NO_MOTION
    gaps = neighbour_distances(frames)
    measures = [
        ("size", "area of a mask, px²", object_statistics(frames)["area"], "objects with a mask"),
        ("size", "longer side of a box, px", sides, "all objects"),
        ("density", "objects per frame", counts, "all frames"),
        ("density", "objects per megapixel", counts / megapixels, "all frames"),
        ("density", "distance to nearest object, box sides", gaps, "centres, over the box's side"),
        ("motion", "displacement per frame, px", steps["pixels"], same),
        ("motion", "displacement per frame, box sides", steps["sides"], longer),
    ]
    rows = []
    for of, measure, values, remark in measures:
        spread = pd.Series(values, dtype=float)
        quantiles = {"median": 0.5, "5th percentile": 0.05, "95th percentile": 0.95}
        row = {"of": of, "measure": measure, "n": len(spread), "mean": spread.mean()}
        rows.append(row | {name: spread.quantile(q) for name, q in quantiles.items()} | {"counted": remark})
    return pd.DataFrame(rows)


def motion(frames: Sequence[Frame]) -> pd.DataFrame:
    """How far each object's box moves from a frame to the next one that shows it, a frame number.

    An object is the same where video, number and class are; whether the numbers of SAT-MTB's masks go through a whole
    video is not published. What the platform's own sway adds is part of it.

    Returns:
        `video, object_id, category, frame, pixels, sides`: displacement of the box's centre over the difference of
        frame numbers, in pixels, and in the box's longer sides.
    """
    last: dict[tuple[str, int, str], tuple[int, np.ndarray]] = {}
    rows = []
    for frame in sorted(frames, key=lambda frame: (frame.video, frame.index)):
        for item, box in zip(frame.objects, frame.boxes_xyxy, strict=True):
            key, centre = (frame.video, item.object_id, item.category), (box[:2] + box[2:]) / 2
            if key in last:
                index, earlier = last[key]
                pixels = float(np.hypot(*(centre - earlier))) / (frame.index - index)
                rows.append((*key, frame.index, pixels, pixels / float((box[2:] - box[:2]).max())))
            last[key] = frame.index, centre
    return pd.DataFrame(rows, columns=["video", "object_id", "category", "frame", "pixels", "sides"])


def neighbour_distances(frames: Sequence[Frame]) -> np.ndarray:
    """From each object's centre to the nearest other in its frame, in its box's longer sides; lone ones have none."""
    boxes = [frame.boxes_xyxy for frame in frames if len(frame.objects) > 1]
    return np.concatenate([np.zeros(0), *(crowding(b)[:, 0] / (b[:, 2:] - b[:, :2]).max(axis=1) for b in boxes)])


def drop_table(frames: FrameSet) -> pd.DataFrame:
    """Reasons for which something was left out, how often, and one example; objects without mask among them."""
    rows = [(drop.reason, drop.where) for drop in frames.drops]
    rows += [
        (f"{o.category}: a box but no mask, so not scored", f"{f.key} object {o.object_id}")
        for f in frames
        for o in f.objects
        if not o.has_mask
    ]
    for frame in frames:
        small = frame.attributes.get("left_out_too_small", 0)
        rows += [("shows too little of itself (under 12 px²)", frame.key)] * small
    if not rows:
        return pd.DataFrame({"reason": ["nothing was left out"], "times": [0], "example": ["—"]})
    table = pd.DataFrame(rows, columns=["reason", "example"]).groupby("reason", sort=False)["example"]
    return table.agg(times="size", example="first").reset_index()


def example_objects(frames: Sequence[Frame]) -> list[ObjectView]:
    """Three objects of each of the three most frequent classes, at even quantiles of area."""
    table = object_statistics(frames)
    frequent = table[table["category"].isin(table["category"].value_counts().index[:3])]
    return view_objects(quantile_rows(frequent, "area", np.linspace(0.1, 0.95, 3), by="category"), frames, {})


def example_frames(frames: Sequence[Frame], count: int = 9) -> list[Frame]:
    """One frame with objects from each of `count` videos, evenly spaced over all videos."""
    first = {frame.video: frame for frame in reversed(frames) if frame.objects}
    videos = sorted(first)
    chosen = np.unique(np.linspace(0, len(videos) - 1, min(count, len(videos))).round().astype(int))
    return [first[videos[i]] for i in chosen]


def busiest_frame(frames: Sequence[Frame]) -> Frame:
    """The frame with most objects that have masks, and only those; data of boxes alone is a `RossamError`."""
    kept = [frame.with_objects([o for o in frame.objects if o.has_mask]) for frame in frames]
    busiest = max(kept, key=lambda frame: len(frame.objects), default=None)
    if busiest is None or not busiest.objects:
        remedy = "notebooks 00, 01 and 11 need none; start with these"
        raise RossamError("the data", "has no object with a mask", remedy)
    return busiest
