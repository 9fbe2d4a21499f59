"""Conventions of boxes in files: conversion to xyxy pixels, and detection of boxes read by the wrong convention."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rossam_core.records import Box

CONVENTIONS = ("xywh", "xyxy", "cxcywh", "xywh-normalised", "xyxy-normalised", "cxcywh-normalised")
"""What four numbers of a box may be: corner and sides, two corners, centre and sides; in pixels, or in fractions of the
frame's width and height."""
LEAST_AGREEMENT = 0.5
"""A box whose overlap (IoU) with its mask's extent is below this is none of that mask."""
TOLERANCE = 2.0
"""Pixels that a side may always differ from the mask's: points of polygons may be pixels' indices or their edges."""
FEW_BOXES = 4


def clip_boxes(boxes_xyxy: np.ndarray, size_hw: ArrayLike) -> np.ndarray:
    """The part of each box inside its frame, N×4; a box wholly outside becomes one of zero area."""
    return np.clip(boxes_xyxy, 0, np.tile(np.asarray(size_hw)[..., ::-1], 2))


def xywh_to_xyxy(boxes_xywh: ArrayLike) -> np.ndarray:
    """x, y, width, height (COCO) → x0, y0, x1, y1, float64 …×4."""
    boxes = np.array(boxes_xywh, dtype=np.float64)
    boxes[..., 2:] += boxes[..., :2]
    return boxes


def xywh_box(values: ArrayLike) -> Box:
    """x, y, width, height of one box → x0, y0, x1, y1."""
    return tuple(xywh_to_xyxy(values).tolist())


def upright_box(corners: np.ndarray) -> Box:
    """The smallest upright box around corners, N×2."""
    return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())


def to_xyxy(values: np.ndarray, convention: str, size_hw: ArrayLike) -> np.ndarray:
    """Boxes of one of the `CONVENTIONS` → x0, y0, x1, y1 in pixels, float64 N×4.

    Args:
        size_hw: height and width of the frame, or of each box's frame (N×2).
    """
    boxes = np.array(values, dtype=np.float64).reshape(-1, 4)
    form, _, unit = convention.partition("-")
    if unit:
        boxes *= np.tile(np.asarray(size_hw, dtype=np.float64)[..., ::-1], 2)
    if form == "cxcywh":
        boxes[:, :2] -= boxes[:, 2:] / 2
    return boxes if form == "xyxy" else xywh_to_xyxy(boxes)


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of each box of `a` with the box of `b` in the same row, both N×4 xyxy; 0 where either has no area."""
    area_a, area_b = ((box[:, 2:] - box[:, :2]).clip(0).prod(axis=1) for box in (a, b))
    shared = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(0).prod(axis=1)
    return shared / np.maximum(area_a + area_b - shared, np.finfo(np.float64).tiny)


def are_around(boxes_xyxy: np.ndarray, extents_xyxy: np.ndarray, size_hw: ArrayLike) -> np.ndarray:
    """Whether each box fits the extent of its mask, bool N: IoU in the frame, or `TOLERANCE` per side."""
    a, b = (clip_boxes(boxes, size_hw) for boxes in (boxes_xyxy, extents_xyxy))
    return (box_iou(a, b) >= LEAST_AGREEMENT) | (np.abs(a - b).max(axis=1) <= TOLERANCE)


def other_convention(
    values: np.ndarray, convention: str, sizes_hw: ArrayLike, extents_xyxy: np.ndarray | None = None
) -> str | None:
    """The convention that N boxes are likelier written in than in the one they are read by; None: none is.

    With the extents of the boxes' masks, it is the one whose boxes agree clearly better with them (mean IoU, 1 where no
    side differs by more than `TOLERANCE`). Without, it is one by which the boxes lie inside their frames where, as they
    are read, at least half of them (a quarter, if it is two corners) have no area or more than a quarter of it outside.
    Boxes of which no number is above 1 are fractions of the frame.
    """
    values = np.asarray(values, dtype=np.float64).reshape(-1, 4)
    finite = np.isfinite(values).all(axis=1)
    if not finite.any():
        return None
    sizes = np.broadcast_to(np.asarray(sizes_hw, dtype=np.float64), (len(values), 2))[finite]
    values, frames = values[finite], np.concatenate([np.zeros_like(sizes), sizes[:, ::-1]], axis=1)
    extents = None if extents_xyxy is None else _shared(extents_xyxy[finite], frames)

    def fit(name: str) -> float:
        boxes = to_xyxy(values, name, sizes)
        inside = _shared(boxes, frames)
        if extents is not None:
            agrees = np.abs(inside - extents).max(axis=1) <= TOLERANCE
            return float(np.where(agrees, 1, box_iou(inside, extents)).mean())
        areas = [(box[:, 2:] - box[:, :2]).clip(0).prod(axis=1) for box in (inside, boxes)]
        return float((areas[0] > areas[1] * (0.75 if name == convention else 0.999)).mean())

    fractions = [name for name in CONVENTIONS if name.endswith("-normalised")]
    if extents is None and convention not in fractions and values.min() >= 0 and values.max() <= 1:
        return max(fractions, key=fit)
    others = [name for name in CONVENTIONS if name != convention]
    if extents is None and len(values) < FEW_BOXES:
        others = [name for name in others if not name.startswith("cxcywh")]
    own, others = fit(convention), {name: fit(name) for name in others}
    best = max(others, key=others.__getitem__)
    if extents is not None:
        return best if others[best] >= max(0.75, own + 0.1) else None
    most = 0.75 if best.startswith("xyxy") else 0.5  # boxes of corner and sides hardly ever fit as two corners
    return best if own <= most and others[best] >= 0.95 else None


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The part of each box inside the box of the same row, N×4; of no or negative sides where they do not meet."""
    return np.concatenate([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])], axis=1)
