"""The measures of one mask that tables show: IoU, Boundary IoU at the usual band and at one that fits the object."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rossam_core.metrics import band_width, boundary_iou, mask_iou

FIT_FRACTION = 0.1
"""Width of the fitted band as a fraction of the square root of the object's area (our choice)."""


class MaskScores(NamedTuple):
    """IoU, Boundary IoU at the usual band, and Boundary IoU at a band fit for the object's size (`fitted_band`)."""

    iou: float
    biou: float
    biou_fit: float

    @property
    def biou_official(self) -> float:
        """min(IoU, Boundary IoU at the usual band), as Cheng et al. evaluate."""
        return min(self.iou, self.biou)

    @property
    def biou_fit_official(self) -> float:
        """min(IoU, Boundary IoU at the fitted band)."""
        return min(self.iou, self.biou_fit)


def all_boundary_below(size_hw: tuple[int, int], dilation_ratio: float = 0.02) -> int:
    """Width in pixels under which an object of a frame of `size_hw` is all boundary: 2·d + 1, d as in `band_width`.

    Erosion by a square of side 2d + 1 leaves nothing of an object that is narrower than that anywhere, so its
    Boundary IoU is its IoU, whatever is predicted within such a width: 59 px for 1024×1024, 15 for 256×256.
    """
    return 2 * band_width(size_hw, dilation_ratio) + 1


def fitted_band(area: float) -> int:
    """Band width in pixels that suits an object of `area` square pixels: max(1, round(0.1 · √area)).

    A square object keeps (1 − 2 · 0.1)² = 64% of its area inside the band, whatever its size, so the measure
    can tell a wrong outline from a wrong place. An object of the paper's mean area (518 px) gets 2 px.

    √area stands for the object's size, not its box's diagonal: the box of a thin object that lies askew (a train
    of 6 × 60 px) is ten times as wide as the object, and a tenth of its diagonal would again cover all of it. Under
    5 px of √area, one pixel is more than a fifth of the object, and no band tells outline from place.
    """
    return max(1, round(FIT_FRACTION * float(np.sqrt(area))))


def score_masks(pred: np.ndarray, target: np.ndarray, *, band_px: int, fit_px: int) -> MaskScores:
    """`mask_iou`, and `boundary_iou` at two band widths."""
    bands = (boundary_iou(pred, target, band_px=width) for width in (band_px, fit_px))
    return MaskScores(mask_iou(pred, target), *bands)
