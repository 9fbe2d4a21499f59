"""Masks from boxes without learning: the filled box, the inscribed ellipse, and GrabCut.

Baselines have the same `.predict` as a network. They are in every comparison: a method that does not exceed them adds
nothing.

A pixel belongs to a box when its centre does: box edges at x0 and x1 take the columns i with
x0 ≤ i + 0.5 < x1. A box of less than a pixel may therefore hold no pixel; its mask is empty.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass

import cv2
import numpy as np

from rossam_core.boxes import check_boxes

GRABCUT_ITERATIONS = 5
GRABCUT_CONTEXT = 0.5
"""Background seen on each side of the box, as a fraction of the box's width or height."""
GRABCUT_COMPONENTS = 5
"""Colour components of OpenCV's models of object and background: neither can be fitted to fewer pixels."""


@dataclass(frozen=True)
class CropMask:
    """A mask kept as the rectangle that holds it, so that many objects of a large frame cost little memory."""

    crop: np.ndarray
    """Bool h×w."""
    offset_xy: tuple[int, int]
    """Frame coordinates of the crop's first pixel."""
    size_hw: tuple[int, int]
    box_xyxy: tuple[float, float, float, float]
    status: str = "ok"
    """`ok`, `empty` (no pixel), or what the method fell back to."""
    predicted_iou: float = float("nan")
    """These methods do not judge themselves."""

    def full(self) -> np.ndarray:
        """The mask in the frame, bool H×W."""
        full = np.zeros(self.size_hw, dtype=bool)
        (x, y), (h, w) = self.offset_xy, self.crop.shape
        full[y : y + h, x : x + w] = self.crop
        return full


class Baseline(abc.ABC):
    """Common to all: boxes are checked, then answered one by one."""

    def predict(self, image: np.ndarray, boxes_xyxy: np.ndarray) -> list[CropMask]:
        """One mask for each box, in order.

        Args:
            image: uint8 H×W×3 RGB.
            boxes_xyxy: N×4, pixel-edge coordinates, may reach beyond the image.

        Raises:
            RossamError: boxes that are not finite, inverted, of zero area or wholly outside, all in one error.
        """
        return [self._one(image, box) for box in check_boxes(boxes_xyxy, image.shape[:2], "boxes_xyxy")]

    @abc.abstractmethod
    def _one(self, image: np.ndarray, box: np.ndarray) -> CropMask:
        """The mask of one box."""


class BoxBaseline(Baseline):
    """Every pixel of the box."""

    def _one(self, image: np.ndarray, box: np.ndarray) -> CropMask:
        x0, y0, x1, y1 = box_pixels(box, image.shape[:2])
        return _crop_mask(np.ones((y1 - y0, x1 - x0), dtype=bool), (x0, y0), image, box)


class EllipseBaseline(Baseline):
    """The ellipse inscribed in the box: pixels whose centre (x, y) has ((x − cx) / a)² + ((y − cy) / b)² ≤ 1."""

    def _one(self, image: np.ndarray, box: np.ndarray) -> CropMask:
        x0, y0, x1, y1 = box_pixels(box, image.shape[:2])
        (cx, cy), (a, b) = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        across = ((np.arange(x0, x1) + 0.5 - cx) / a) ** 2
        down = ((np.arange(y0, y1) + 0.5 - cy) / b) ** 2
        return _crop_mask(across[None, :] + down[:, None] <= 1, (x0, y0), image, box)


class GrabCutBaseline(Baseline):
    """GrabCut with the box as prompt: colour models of box and surroundings, graph cut between them.

    Rother et al., "GrabCut: interactive foreground extraction using iterated graph cuts", SIGGRAPH 2004, in
    OpenCV's implementation. Where the box or its surroundings have fewer pixels than a colour model has
    components, the mask is the filled box and the status says `fallback: box`.

    OpenCV draws its starting clusters from a generator of its own, which is seeded anew for every box: a mask
    depends on image and box alone, not on earlier calls.
    """

    def _one(self, image: np.ndarray, box: np.ndarray) -> CropMask:
        x0, y0, x1, y1 = box_pixels(box, image.shape[:2])
        margin = GRABCUT_CONTEXT * (box[2:] - box[:2])
        left, top, right, bottom = box_pixels(np.concatenate([box[:2] - margin, box[2:] + margin]), image.shape[:2])
        inside = np.ones((y1 - y0, x1 - x0), dtype=bool)
        outside = (bottom - top) * (right - left) - inside.size
        if min(inside.size, outside) < GRABCUT_COMPONENTS:
            return _crop_mask(inside, (x0, y0), image, box, status="fallback: box")
        labels = np.full((bottom - top, right - left), cv2.GC_BGD, dtype=np.uint8)
        labels[y0 - top : y1 - top, x0 - left : x1 - left] = cv2.GC_PR_FGD
        around = np.ascontiguousarray(image[top:bottom, left:right])
        colour_models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)
        cv2.grabCut(around, labels, None, *colour_models, GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_MASK)
        labels = labels[y0 - top : y1 - top, x0 - left : x1 - left]
        return _crop_mask((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD), (x0, y0), image, box)


def box_pixels(box_xyxy: np.ndarray, size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """First and (exclusive) last column and row whose pixel centres lie in the box and in the frame."""
    height, width = size_hw
    x0, y0, x1, y1 = np.ceil(np.asarray(box_xyxy, dtype=float) - 0.5).clip(0, (width, height, width, height))
    return int(x0), int(y0), int(x1), int(y1)


def _crop_mask(
    crop: np.ndarray, offset_xy: tuple[int, int], image: np.ndarray, box: np.ndarray, status: str = "ok"
) -> CropMask:
    status = status if crop.any() else "empty"
    return CropMask(crop, offset_xy, image.shape[:2], tuple(box.tolist()), status)


BASELINES = {"box": BoxBaseline, "ellipse": EllipseBaseline, "grabcut": GrabCutBaseline}
