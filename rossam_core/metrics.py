"""IoU and Boundary IoU of two masks: equation first, then code.

Symbols: P predicted mask, T true mask (sets of pixels); d band width in pixels; M_d the pixels of mask M whose
Chebyshev distance to the nearest pixel outside M is at most d, that is M minus its erosion by a square of side
2d + 1. Everything beyond the image counts as outside M, so a mask cut off by the image border has boundary
there. Both measures are symmetric in P and T.

Empty masks: both empty → 1 (the prediction is right); exactly one empty → 0.
"""

from __future__ import annotations

import cv2
import numpy as np

from rossam_core.errors import RossamError


def mask_iou(pred: np.ndarray, target: np.ndarray) -> float:
    """Intersection over union of two bool H×W masks, a float in [0, 1].

        IoU(P, T) = |P ∩ T| / |P ∪ T|

    Raises:
        RossamError: shapes differ, not two-dimensional, or not bool.
    """
    _check(pred, target, "mask_iou")
    return _ratio(*_crop_to_union(pred, target))


def boundary_iou(
    pred: np.ndarray, target: np.ndarray, dilation_ratio: float = 0.02, *, band_px: int | None = None
) -> float:
    """IoU of the inner boundary bands of two bool H×W masks, a float in [0, 1].

        BIoU_d(P, T) = |P_d ∩ T_d| / |P_d ∪ T_d|,   d = max(1, round(dilation_ratio · √(H² + W²)))

    Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021, equation 1.
    This is Boundary IoU alone, as ROS-SAM's released code has it. Cheng et al. evaluate min(IoU, BIoU), since a ring
    as wide as the band has the same band as the filled shape; the score tables have that, too (`biou_official`).
    Where neither mask holds a square of side 2d + 1, both are all band and BIoU equals IoU. In a frame of
    1024×1024 with ratio 0.02, d = 29: so for every object less than 59 px across.

    Args:
        dilation_ratio: d as a fraction of the frame's diagonal; the authors of ROS-SAM and of BIoU use 0.02.
        band_px: d itself, in pixels, instead of `dilation_ratio`.

    Raises:
        RossamError: as `mask_iou`, or a band that is not positive.
    """
    _check(pred, target, "boundary_iou")
    band_px = band_width(pred.shape, dilation_ratio) if band_px is None else band_px
    if band_px < 1:
        raise RossamError("boundary_iou", f"band_px is {band_px}", "a boundary band is at least 1 pixel wide")
    pred, target = _crop_to_union(pred, target)
    return _ratio(boundary_band(pred, band_px), boundary_band(target, band_px))


def boundary_band(mask: np.ndarray, band_px: int) -> np.ndarray:
    """The band M_d of a mask: its pixels at Chebyshev distance at most `band_px` from the outside; bool H×W.

    The padding makes whatever lies beyond the array count as outside: beyond the image, and beyond a crop that contains
    the whole mask, so that both give the same bands.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    return mask & (cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1] <= band_px)


def band_width(size_hw: tuple[int, int], dilation_ratio: float = 0.02) -> int:
    """Band width d in pixels for a frame of `size_hw`: 29 for 1024×1024, 23 for 1024×512, at least 1."""
    if not 0 < dilation_ratio < 1:
        raise RossamError("dilation_ratio", f"is {dilation_ratio}, expected a value between 0 and 1", "0.02 is usual")
    return max(1, round(dilation_ratio * float(np.hypot(*size_hw))))


def _ratio(a: np.ndarray, b: np.ndarray) -> float:
    """|A ∩ B| / |A ∪ B|; 1 where both are empty."""
    intersection = np.count_nonzero(a & b)
    union = np.count_nonzero(a) + np.count_nonzero(b) - intersection
    return intersection / union if union else 1.0


def _crop_to_union(pred: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks cropped to the smallest rectangle that holds their union (0×0 where both are empty)."""
    x, y, width, height = cv2.boundingRect((pred | target).view(np.uint8))
    return pred[y : y + height, x : x + width], target[y : y + height, x : x + width]


def _check(pred: np.ndarray, target: np.ndarray, where: str) -> None:
    fits = all(isinstance(m, np.ndarray) and m.dtype == bool and m.ndim == 2 for m in (pred, target))
    if fits and pred.shape == target.shape:
        return
    actual = [f"{getattr(m, 'dtype', type(m).__name__)} {getattr(m, 'shape', '')}" for m in (pred, target)]
    finding = f"pred is {actual[0]}, target is {actual[1]}; expected two bool arrays H×W of one shape"
    raise RossamError(where, finding, "threshold soft masks (mask > 0) and bring both to the size of the frame")
