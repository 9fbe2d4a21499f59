"""A dataset in numbers: how large its objects are, how close together, how fast (beside the paper's Table 7).

In: frames. Out: tables with a row a measure, for the notebook on the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rossam_kit.report.results import object_statistics

if TYPE_CHECKING:
    from rossam_core.records import Frame

NO_MOTION = "no object is in two frames"


def statistics_table(frames: Sequence[Frame]) -> pd.DataFrame:
    """Size, density and motion: a row a measure with n, mean, median, 5th and 95th percentile, and its remark."""
    objects = object_statistics(frames)
    counts = np.array([len(frame.objects) for frame in frames], float)
    megapixels = np.array([frame.size_hw[0] * frame.size_hw[1] / 1e6 for frame in frames])
    steps = motion(frames)
    sides = np.array([max(x1 - x0, y1 - y0) for f in frames for x0, y0, x1, y1 in f.boxes_xyxy])
    measures = [
        ("size", "area of a mask, px²", objects["area"], "objects with a mask"),
        ("size", "longer side of a box, px", sides, "all objects"),
        ("density", "objects a frame", counts, "all frames"),
        ("density", "objects a megapixel", counts / megapixels, "all frames"),
        ("density", "to the nearest other object, sides", neighbour_distances(frames), "centres, over the box's side"),
        ("motion", "a frame, px", steps["pixels"], "the same number in two frames" if len(steps) else NO_MOTION),
        ("motion", "a frame, sides", steps["sides"], "over the box's longer side" if len(steps) else NO_MOTION),
    ]
    return pd.DataFrame(
        [
            {"of": of, "measure": measure, "n": len(values), **_spread(np.asarray(values, float)), "counted": remark}
            for of, measure, values, remark in measures
        ]
    )


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
    found = []
    for frame in frames:
        boxes = frame.boxes_xyxy
        if len(boxes) < 2:
            continue
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        distances = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))  # N×N
        np.fill_diagonal(distances, np.inf)
        found.append(distances.min(axis=1) / (boxes[:, 2:] - boxes[:, :2]).max(axis=1))
    return np.concatenate(found) if found else np.zeros(0)


def _spread(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(("mean", "median", "5th percentile", "95th percentile"), np.nan)
    low, middle, high = np.percentile(values, [5, 50, 95])
    return {"mean": values.mean(), "median": middle, "5th percentile": low, "95th percentile": high}
