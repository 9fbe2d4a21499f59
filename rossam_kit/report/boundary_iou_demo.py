"""Boundary IoU by object width, demonstrated on constructed masks.

The object is a storage tank, a disc. Its two predictions are equally wrong by IoU: its box filled, so that no outline
was found, and a true outline with a piece missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rossam_core.metrics import band_width, boundary_band
from rossam_kit.experiments.mask_scores import all_boundary_below, fitted_band, score_masks
from rossam_kit.report.pictures import draw_mask
from rossam_kit.report.style import COLOURS, INK, MUTED, SMALL, Figure, styled

SHOWN = 36
SIZE_HW = (1024, 1024)
"""Of the frame, pixels."""
WIDTHS = tuple(range(8, 129, 4))
WRONG = {"box": "its box filled: no outline", "bite": "a true outline, a piece missing"}


def made_masks(width: int) -> dict[str, np.ndarray]:
    """A disc `width` pixels across, its box, and the disc without a bite: name → bool mask, all of one size.

    The bite is placed and sized so that both predictions have the IoU of a disc in its box, π/4, but for pixels.
    """
    y, x = (np.mgrid[: width + 8, : width + 8] - 3.5) / width - 0.5  # pixel centres; the disc's diameter is 1
    target = x**2 + y**2 <= 0.25
    bite = (x - 0.3) ** 2 + (y - 0.3) ** 2 <= 0.09
    return {"target": target, "box": np.maximum(abs(x), abs(y)) <= 0.5, "bite": target & ~bite}


def band_demonstration(dilation_ratio: float, widths: Sequence[int] = WIDTHS) -> pd.DataFrame:
    """Scores (percent) of the wrong predictions by object width: `width, wrong, iou, biou, biou_fit`."""
    rows = []
    for width in widths:
        masks = made_masks(width)
        bands = {"band_px": band_width(SIZE_HW, dilation_ratio), "fit_px": fitted_band(masks["target"].sum())}
        for name in WRONG:
            scores = score_masks(masks[name], masks["target"], **bands)
            rows.append((width, name, *(100 * value for value in scores)))
    return pd.DataFrame(rows, columns=["width", "wrong", "iou", "biou", "biou_fit"])


@styled
def band_figure(dilation_ratio: float) -> Figure:
    """Above: the bands of a small object, and its two wrong predictions. Below: their scores by object width."""
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 4, height_ratios=(1, 1.5))
    masks = made_masks(SHOWN)
    target, usual = masks["target"], band_width(SIZE_HW, dilation_ratio)
    fitted = fitted_band(target.sum())
    pictures = {
        f"band at {dilation_ratio:g}: {usual} px": (boundary_band(target, usual), target),
        f"fitted band: {fitted} px": (boundary_band(target, fitted), target),
        "its box": (target, masks["box"]),
        "a piece missing": (target, masks["bite"]),
    }
    for column, (title, (filled, outlined)) in enumerate(pictures.items()):
        ax = figure.add_subplot(grid[0, column])
        shades = np.where(filled[..., None], (143, 176, 212), (70, 74, 78)).astype(np.uint8)
        ax.imshow(shades, extent=(0, filled.shape[1], filled.shape[0], 0), interpolation="nearest")
        draw_mask(ax, outlined, "#ffffff", fill=0)
        ax.set_axis_off()
        ax.set_title(title, fontsize=SMALL, loc="center")
    table, limit = band_demonstration(dilation_ratio), all_boundary_below(SIZE_HW, dilation_ratio)
    for column, (name, text) in enumerate(WRONG.items()):
        ax, scores = figure.add_subplot(grid[1, 2 * column : 2 * column + 2]), table[table["wrong"] == name]
        fit = {"linewidth": 1.6, "linestyle": "--", "label": "BIoU, fitted band"}
        ax.plot(scores["width"], scores["iou"], color=MUTED, linewidth=5, alpha=0.45, label="IoU")
        ax.plot(scores["width"], scores["biou"], color=COLOURS["sam"], linewidth=1.6, label="BIoU")
        ax.plot(scores["width"], scores["biou_fit"], color=COLOURS["ros-sam"], **fit)
        ax.axvline(limit, color=INK, linewidth=0.9, linestyle=":")
        ax.text(limit - 1, 99, f"under {limit} px:\nall boundary", ha="right", va="top", fontsize=SMALL)
        ax.set(title=text, xlabel="Object width, pixels", ylabel="" if column else "Score, percent", ylim=(0, 100))
        ax.grid()
    ax.legend(loc="lower right")
    return figure
