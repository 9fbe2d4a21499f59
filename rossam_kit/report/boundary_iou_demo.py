"""A demonstration on made masks: what Boundary IoU can tell of objects of any size, and what it cannot.

In: a frame size. Out: a table of scores against object width, and a figure. The object is a storage tank, a disc. Its
two predictions are equally wrong by IoU: its box filled, so that no outline was found, and a true outline with a
piece missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rossam_core.metrics import band_width, boundary_band
from rossam_kit.experiments.mask_scores import all_boundary_below, fitted_band, score_masks
from rossam_kit.report.pictures import draw_mask
from rossam_kit.report.style import BASE, COLOURS, INK, MUTED, RULE, SMALL, Figure

SHOWN = 36
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


def band_demonstration(
    dilation_ratio: float, widths: Sequence[int] = WIDTHS, size_hw: tuple[int, int] = (1024, 1024)
) -> pd.DataFrame:
    """Scores (percent) of the wrong predictions by object width: `width, wrong, iou, biou, biou_fit`."""
    rows = []
    for width in widths:
        masks = made_masks(width)
        bands = {"band_px": band_width(size_hw, dilation_ratio), "fit_px": fitted_band(masks["target"].sum())}
        for name in WRONG:
            scores = score_masks(masks[name], masks["target"], **bands)
            rows.append((width, name, *(100 * value for value in scores)))
    return pd.DataFrame(rows, columns=["width", "wrong", "iou", "biou", "biou_fit"])


def band_figure(dilation_ratio: float, size_hw: tuple[int, int] = (1024, 1024)) -> Figure:
    """Above: the bands of a small object, and its two wrong predictions. Below: their scores by object width."""
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 4, height_ratios=(1, 1.5))
    masks = made_masks(SHOWN)
    target, usual = masks["target"], band_width(size_hw, dilation_ratio)
    fitted = fitted_band(target.sum())
    pictures = {
        f"band at {dilation_ratio:g}: {usual} px": (boundary_band(target, usual), target),
        f"fitted band: {fitted} px": (boundary_band(target, fitted), target),
        "its box": (target, masks["box"]),
        "a piece missing": (target, masks["bite"]),
    }
    for column, (title, (filled, outlined)) in enumerate(pictures.items()):
        _picture(figure.add_subplot(grid[0, column]), title, filled, outlined)
    scores = band_demonstration(dilation_ratio, size_hw=size_hw)
    for column, (name, text) in enumerate(WRONG.items()):
        ax = figure.add_subplot(grid[1, 2 * column : 2 * column + 2])
        _curves(ax, scores[scores["wrong"] == name], text, all_boundary_below(size_hw, dilation_ratio))
        if column == 0:
            ax.set_ylabel("Score, percent", fontsize=BASE, color=INK)
    ax.legend(loc="lower right", fontsize=SMALL, frameon=False, labelcolor=INK)
    return figure


def _picture(ax: Axes, title: str, filled: np.ndarray, outlined: np.ndarray) -> None:
    shades = np.where(filled[..., None], (143, 176, 212), (70, 74, 78)).astype(np.uint8)
    ax.imshow(shades, extent=(0, filled.shape[1], filled.shape[0], 0), interpolation="nearest")
    draw_mask(ax, outlined, "#ffffff", fill=0)
    ax.set_axis_off()
    ax.set_title(title, fontsize=SMALL, color=INK)


def _curves(ax: Axes, scores: pd.DataFrame, title: str, limit: int) -> None:
    ax.plot(scores["width"], scores["iou"], color=MUTED, linewidth=5, alpha=0.45, label="IoU")
    ax.plot(scores["width"], scores["biou"], color=COLOURS["sam"], linewidth=1.6, label="BIoU")
    ax.plot(scores["width"], scores["biou_fit"], color=COLOURS["ros-sam"], linewidth=1.6, linestyle="--",
            label="BIoU, fitted band")  # fmt: skip
    ax.axvline(limit, color=INK, linewidth=0.9, linestyle=":")
    ax.text(limit - 1, 99, f"under {limit} px:\nall boundary", ha="right", va="top", fontsize=SMALL, color=INK)
    ax.set_ylim(0, 100)
    ax.set_title(title, fontsize=BASE, color=INK, loc="left")
    ax.set_xlabel("Object width, pixels", fontsize=BASE, color=INK)
    ax.grid(color=RULE, linewidth=0.6)
    ax.tick_params(labelsize=BASE, colors=RULE, labelcolor=INK)
