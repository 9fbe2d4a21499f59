"""Boxes as users and files give them → float64 N×4 that every later room may rely on.

In: anything array-like. Out: `boxes_xyxy` in pixel-edge coordinates (origin at the outer corner of the first
pixel, x1 and y1 exclusive), or one `RossamError` that tells every bad box at once.

A box partly outside the frame is legal and stays as it is: objects leave a scene through its border, and
trackers follow them there. A box wholly outside holds no pixel and is an error.
"""

from __future__ import annotations

from os import PathLike

import numpy as np
from numpy.typing import ArrayLike

from ..config import InferenceConfig
from ..errors import ProblemList, RossamError

FORM = "boxes are N×4 numbers x0, y0, x1, y1 in pixels, x1 and y1 exclusive"
SMALL = 32
"""Longer side in pixels below which SOPSeg calls an object small."""


def check_boxes(boxes: ArrayLike, size_hw: tuple[int, int], where: str | PathLike) -> np.ndarray:
    """Boxes as float64 N×4 xyxy, values unchanged; an empty list gives 0×4.

    Args:
        boxes: N×4, xyxy, in pixels of the frame.
        size_hw: height and width of the frame.
        where: names the boxes in messages.

    Raises:
        RossamError: not numbers, or not N×4; or a list of all boxes that are not finite, inverted, of zero
            area, or wholly outside the frame, each with its index and values.
    """
    try:
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RossamError(where, f"boxes are not an array of numbers ({error})", FORM) from error
    if array.shape == (0,):
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise RossamError(where, f"boxes have shape {array.shape}, expected (N, 4)", f"{FORM}; one box is [[…]]")
    problems = ProblemList(where)
    problems.extend((f"box {index}", found) for index, found in box_problems(array, size_hw))
    problems.raise_if_any(f"{FORM}; convert x, y, width, height with rossam_core.data.boxes.xywh_to_xyxy")
    return array


def box_problems(boxes_xyxy: np.ndarray, size_hw: tuple[int, int]) -> list[tuple[int, str]]:
    """Index and fault of each bad row of float N×4 `boxes_xyxy`, for callers that collect problems."""
    if len(boxes_xyxy) == 0:
        return []
    height, width = size_hw
    x0, y0, x1, y1 = boxes_xyxy.T
    finite = np.isfinite(boxes_xyxy).all(axis=1)
    inverted = (x1 < x0) | (y1 < y0)
    flat = (x1 == x0) | (y1 == y0)
    outside = (x1 <= 0) | (y1 <= 0) | (x0 >= width) | (y0 >= height)
    problems = []
    for index in np.flatnonzero(~finite | inverted | flat | outside).tolist():
        values = "[" + ", ".join(f"{value:g}" for value in boxes_xyxy[index]) + "]"
        if not finite[index]:
            fault = "holds NaN or infinity"
        elif inverted[index]:
            fault = "is inverted (x1 < x0 or y1 < y0)"
        elif flat[index]:
            fault = "has zero area"
        else:
            fault = f"lies wholly outside the frame of {height}×{width} (height×width)"
        problems.append((index, f"{values} {fault}"))
    return problems


def xywh_to_xyxy(boxes_xywh: ArrayLike) -> np.ndarray:
    """x, y, width, height (COCO) → x0, y0, x1, y1, float64 …×4."""
    boxes = np.array(boxes_xywh, dtype=np.float64)
    boxes[..., 2:] += boxes[..., :2]
    return boxes


def window_sides(longer: ArrayLike, base: int, size_hw: tuple[int, int], config: InferenceConfig) -> np.ndarray:
    """Side of the square window around each object, int64, by `config.growth`. A window that grows stops at the frame's
    longer side, beyond which only padding would be gained.

    Args:
        longer: longer sides of the boxes, in pixels of the frame.
        base: side of a fixed window.
    """
    longer, context = np.asarray(longer, dtype=np.float64), config.context
    if config.growth == "none":
        return np.full(longer.shape, base)
    least = base
    sides = context * longer
    if config.growth == "sopseg":
        least = 1
        sides = np.where(longer < SMALL, 2 * longer, sides + (2 - context) * SMALL)
    return np.ceil(sides).clip(least, max(least, *size_hw)).astype(np.int64)
