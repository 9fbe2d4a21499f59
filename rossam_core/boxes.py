"""Check boxes: float N×4 xyxy in pixel-edge coordinates (0 is the outer corner of the first pixel, x1, y1 exclusive).

A box partly outside the frame is valid and stays as it is, since objects leave a scene through its border. A box
wholly outside holds no pixel and is an error.
"""

from __future__ import annotations

from os import PathLike

import numpy as np
from numpy.typing import ArrayLike

from rossam_core.errors import ProblemList, RossamError

FORM = "boxes are N×4 numbers x0, y0, x1, y1 in pixels, x1 and y1 exclusive"


def check_boxes(boxes: ArrayLike, size_hw: tuple[int, int], where: str | PathLike) -> np.ndarray:
    """Boxes as float64 N×4 xyxy, values unchanged; an empty list gives 0×4.

    Args:
        where: names the boxes in messages.

    Raises:
        RossamError: not numbers, or not N×4; or a list of all boxes that are not finite, inverted, of zero
            area, or wholly outside the frame, each with its index and values.
    """
    try:
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise RossamError(where, f"boxes are not an array of numbers ({error})", FORM) from error
    if array.shape == (0,):
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise RossamError(where, f"boxes have shape {array.shape}, expected (N, 4)", f"{FORM}; one box is [[…]]")
    problems = ProblemList(where)
    problems.extend((f"box {index}", fault) for index, fault in box_problems(array, size_hw))
    problems.raise_if_any(f"{FORM}; rossam_kit.datasets.box_conventions.to_xyxy converts others")
    return array


def box_problems(boxes_xyxy: np.ndarray, size_hw: ArrayLike) -> list[tuple[int, str]]:
    """Index and fault of each bad row of float N×4 boxes; `size_hw` is of the frame, or of each box's frame (N×2)."""
    if len(boxes_xyxy) == 0:
        return []
    sizes = np.broadcast_to(np.asarray(size_hw), (len(boxes_xyxy), 2))
    height, width = sizes.T
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
            fault = f"lies wholly outside the frame of {sizes[index][0]}×{sizes[index][1]} (height×width)"
        problems.append((index, f"{values} {fault}"))
    return problems
