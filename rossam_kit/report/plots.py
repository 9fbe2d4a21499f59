"""Figures of scores: means with intervals beside published numbers, by size, by class, and areas.

In: DataFrames and `ForestRow`s. Out: a `Figure` that no global list holds on to; callers save it. Figures
made of images come from `pictures` and can be taken from here too, so that a notebook imports one module.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from rossam_core.errors import RossamError
from rossam_kit.experiments.robustness import DISTURBANCES
from rossam_kit.experiments.statistics import mean_interval
from rossam_kit.report.pictures import (
    Strategy,
    contact_sheet,
    crop_strategies,
    draw_box,
    draw_mask,
    filmstrip,
    mask_comparison,
    view_grid,
)
from rossam_kit.report.style import BASE, COLOURS, INK, LABELS, MUTED, RULE, SMALL, WIDTH, Figure, colour, label, need
from rossam_kit.report.tables import ForestRow

__all__ = [
    "COLOURS", "LABELS", "Figure", "Strategy", "area_histogram", "class_bars", "colour", "contact_sheet",
    "crop_strategies", "draw_box", "draw_mask", "filmstrip", "forest", "label", "mask_comparison",
    "robustness_curves", "score_by_crowding", "score_by_size", "training_curves", "view_grid",
]  # fmt: skip


VERDICTS = {
    "reproduced": {"color": "#2b7a6b", "fillstyle": "full"},
    "not reproduced": {"color": "#b3261e", "fillstyle": "none"},
    "inconclusive": {"color": "#6a737d", "fillstyle": "left"},
    "one run": {"color": "#a8a8a8", "fillstyle": "bottom"},
    "two runs": {"color": "#a8a8a8", "fillstyle": "bottom"},
}
"""Marks of the ledger's verdicts, told apart by their filling, too."""
_ROUND = {"marker": "o", "markersize": 6.5, "linestyle": "none", "markerfacecoloralt": "white"}


def forest(rows: Sequence[ForestRow], xlabel: str = "") -> Figure:
    """Measured means with their 95% intervals, one line per row, and the published number as a hollow diamond.

    Marks have the method's colour, or the verdict's colour and filling. Where a value is negative, or a row has a
    verdict, the values are differences, and a line stands at 0; otherwise the axis runs from 0 to 100.

    Args:
        xlabel: of the axis; by default that of `tables.forest_rows`.
    """
    need(rows, "forest", "rows")
    judged, published = any(row.verdict for row in rows), any(np.isfinite(row.published) for row in rows)
    figure, ax = _chart(0.3 * sum(1 + row.label.count("\n") for row in rows) + 0.9)
    for y, row in enumerate(rows):
        style = VERDICTS[row.verdict] if row.verdict else {"color": colour(row.method)}
        found = row.interval
        if found is None or np.isnan(found.mean):
            text = row.reason or "not measured"
        else:
            ax.plot([found.low, found.high], [y, y], color=style["color"], linewidth=2.2, alpha=0.6,
                    solid_capstyle="butt")  # fmt: skip
            ax.plot(found.mean, y, **_ROUND, **style)
            ends = "" if np.isnan(found.low) else f"  ({found.low:.1f} to {found.high:.1f})"
            text = f"{found.mean:.1f}{ends}"
        ax.text(1.012, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL, color=INK)
        if np.isfinite(row.published):
            ax.plot(row.published, y, marker="D", **_HOLLOW)
    _categories(ax, [textwrap.fill(row.label, 70) for row in rows])
    if len(rows) > 20:
        ax.tick_params(axis="y", labelsize=SMALL)
    if judged or xlabel:
        ax.axvline(0, color=INK, linewidth=0.9)
    else:
        ax.set_xlim(0, 100)
    default = f"IoU, {'one score per frame' if published else 'each object'}, percent"
    ax.set_xlabel(xlabel or default, fontsize=BASE, color=INK)
    handles = [Line2D([], [], label=name, **_ROUND, **VERDICTS[name]) for name in dict.fromkeys(r.verdict for r in rows)
               if name]  # fmt: skip
    handles = handles or [Line2D([], [], color=MUTED, linewidth=2.2, label="95% interval of the measured mean")]
    if published:
        handles.append(Line2D([], [], marker="D", label="published (other data or model: see notice)", **_HOLLOW))
    _legend(figure, handles)
    return figure


_HOLLOW = {"markersize": 6, "markerfacecolor": "white", "markeredgecolor": INK, "markeredgewidth": 1.2,
           "linestyle": "none", "zorder": 4}  # fmt: skip


def score_by_size(table: pd.DataFrame, size_bins: Sequence[float], value: str = "iou") -> Figure:
    """Mean score by object area, a mark per method, with 95% intervals over videos.

    Args:
        table: columns `method, area, video` and `value` (0..1); rows with NaN are left out.
        size_bins: lower bounds of the bins, square pixels (`EvaluationConfig.size_bins`).
    """
    return _score_by_bins(table, "area", size_bins, "Object area, px²", value)


def score_by_crowding(
    table: pd.DataFrame, bins: Sequence[float] = (0.0, 0.5, 1.0, 2.0, 4.0), value: str = "iou"
) -> Figure:
    """Mean score by distance to the nearest other box, a mark per method, with 95% intervals over videos.

    Args:
        table: columns `method, gap_in_sides, video` and `value` (0..1). Objects alone in their frame (NaN) count to
            the last bin.
        bins: lower bounds, in sides of the object's own box (`scoring.score`).
    """
    table = table.assign(gap_in_sides=table["gap_in_sides"].fillna(np.inf))
    return _score_by_bins(table, "gap_in_sides", bins, "Distance to the nearest other box, in own sides", value)


def _score_by_bins(table: pd.DataFrame, by: str, bounds: Sequence[float], title: str, value: str) -> Figure:
    """Marks of each method in bins of column `by`, whose lower bounds are given."""
    names = [_bin_name(low, high) for low, high in zip(bounds, [*bounds[1:], np.inf], strict=True)]
    place = np.searchsorted(bounds, table[by].to_numpy(dtype=float), side="right") - 1
    groups = pd.Series(np.array(names)[place.clip(0)], index=table.index).where((place >= 0) & table[by].notna())
    scores = _intervals(table.assign(group=groups), value)
    shown = [name for name in names if name in set(scores["group"])]
    figure, ax = _chart(3.9)
    _marks(ax, scores, shown, along="x")
    counts = scores.groupby("group")["n"].max()
    ax.set_xticks(range(len(shown)), [f"{g}\nn = {counts[g]:,}" for g in shown], fontsize=BASE, color=INK)
    ax.set_xlim(-0.5, len(shown) - 0.5)
    ax.set_ylim(0, 100)
    ax.set_xlabel(title, fontsize=BASE, color=INK)
    ax.set_ylabel(f"{_score_name(value)}, percent", fontsize=BASE, color=INK)
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    _legend(figure, _method_handles(scores))
    return figure


def class_bars(table: pd.DataFrame, value: str = "iou", *, by: str = "category") -> Figure:
    """Mean score of each class, a mark per method, with 95% intervals; classes with most objects first."""
    scores = _intervals(table.assign(group=table[by]), value)
    counts = scores.groupby("group")["n"].max().sort_values(ascending=False, kind="stable")
    methods = scores["method"].nunique()
    figure, ax = _chart((0.16 * methods + 0.14) * len(counts) + 0.9)
    _marks(ax, scores, list(counts.index), along="y")
    _categories(ax, [f"{name}  (n = {n:,})" for name, n in counts.items()])
    ax.set_xlim(0, 100)
    ax.set_xlabel(f"{_score_name(value)}, percent", fontsize=BASE, color=INK)
    _legend(figure, _method_handles(scores))
    return figure


def area_histogram(
    areas: Mapping[str, np.ndarray],
    *,
    size_bins: Sequence[float],
    marks: Mapping[str, float] | None = None,
) -> Figure:
    """Share of objects by area on a logarithmic axis.

    Args:
        areas: name of a set → areas in square pixels.
        size_bins: bounds drawn as dotted lines.
        marks: label → area, drawn as triangles on the axis, e.g. the paper's mean.
    """
    need(areas, "area histogram", "sets of areas")
    values = {name: np.asarray(a, dtype=float)[np.asarray(a) > 0] for name, a in areas.items()}
    low = min(v.min() for v in values.values())
    high = max(v.max() for v in values.values())
    edges = np.geomspace(low * 0.95, high * 1.05, 25)
    figure, ax = _chart(3.2)
    shades = ["#3c4a57", "#b3611f", "#6f5aa8", "#2b7a6b"]
    for i, (name, v) in enumerate(values.items()):
        weights = np.full(len(v), 100 / len(v))
        tag = f"{name}: {len(v):,} objects, mean {v.mean():,.0f} px², median {np.median(v):,.0f} px²"
        form = {"histtype": "stepfilled"} if len(values) == 1 else {"histtype": "step", "linewidth": 1.6}
        ax.hist(v, edges, weights=weights, color=shades[i % len(shades)], label=tag, **form)
    for bound in size_bins:
        if low < bound < high:
            ax.axvline(bound, color=MUTED, linewidth=0.9, linestyle=":")
    for text, at in (marks or {}).items():
        ax.plot(at, 0, marker="^", markersize=9, color=INK, linestyle="none", clip_on=False, zorder=5, label=text)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(bottom=0)
    ax.set_xlabel("Object area, px²", fontsize=BASE, color=INK)
    ax.set_ylabel("Objects, percent", fontsize=BASE, color=INK)
    _legend(figure, ax.get_legend_handles_labels()[0], columns=1)
    return figure


def training_curves(logs: Mapping[str, pd.DataFrame], window: int = 10) -> Figure:
    """Loss of each step (running mean over `window` steps) and validation IoU, against samples seen.

    Args:
        logs: row label → log (`training.runs.read_log`).
    """
    need(logs, "training curves", "logs")
    figure, left = _chart(3.4)
    figure.delaxes(left)
    left, right = figure.subplots(1, 2)
    shades = ["#2f7fd6", "#d5412a", "#f2b01e", "#2b7a6b", "#6f5aa8", "#8fd3f4", "#3c4a57", "#b3611f", "#a8a8a8"]
    for i, (name, log) in enumerate(logs.items()):
        steps, checks = log[log["kind"] == "step"], log[log["kind"] == "validation"]
        smooth = steps["loss"].rolling(window, min_periods=1).mean()
        left.plot(steps["samples"], smooth, color=shades[i % len(shades)], linewidth=1.3, label=name)
        if "iou" in checks:
            right.plot(checks["samples"], 100 * checks["iou"], color=shades[i % len(shades)], linewidth=1.3,
                       marker="o", markersize=4)  # fmt: skip
    for ax, title in ((left, "Training loss"), (right, "Validation IoU, percent")):
        ax.set_title(title, fontsize=BASE, color=INK, loc="left")
        ax.set_xlabel("Training views seen", fontsize=BASE, color=INK)
        ax.grid(color=RULE, linewidth=0.6)
        _plain(ax)
    _legend(figure, left.get_legend_handles_labels()[0], columns=3)
    return figure


def robustness_curves(table: pd.DataFrame, value: str = "iou") -> Figure:
    """Score against the level of each disturbance, a curve a method in a panel a disturbance, 95% intervals shaded.

    Args:
        table: as `evaluation.robustness.robustness` makes it.
    """
    need(table, "robustness curves", "scored units")
    names = list(dict.fromkeys(table["disturbance"]))
    figure = Figure(figsize=(7.2, 2.35 * -(-len(names) // 2) + 0.4), layout="constrained")
    panels = figure.subplots(-(-len(names) // 2), 2, sharey=True, squeeze=False).flat
    for ax, name in zip(panels, names, strict=False):
        part = table[table["disturbance"] == name]
        scores = _intervals(part.assign(group=part["level"]), value)
        for method, curve in scores.groupby("method", sort=False):
            at = curve["group"].astype(float)
            ax.fill_between(at, curve["low"], curve["high"], color=colour(method), alpha=0.15, linewidth=0)
            ax.plot(at, curve["mean"], color=colour(method), linewidth=1.8, marker="o", markersize=4)
        levels = sorted(part["level"].unique())
        ax.set_xticks(levels, [f"{level:g}" for level in levels])
        ax.set_xlabel(DISTURBANCES[name].title if name in DISTURBANCES else name, fontsize=BASE, color=INK)
        _plain(ax)
        ax.grid(color=RULE, linewidth=0.6)
        ax.set_ylim(0, 100)
    for ax in list(figure.axes)[len(names) :]:
        figure.delaxes(ax)
    figure.supylabel(f"{_score_name(value)}, percent", fontsize=BASE, color=INK)
    _legend(figure, _method_handles(table))
    return figure


def _intervals(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """One row for each method and group: mean, low, high in percent, n."""
    table = table.dropna(subset=[value, "group"])
    if table.empty:
        raise RossamError("score table", f"has no row with a value of {value!r}", "score at least one object")
    rows = []
    for (method, group), part in table.groupby(["method", "group"], observed=True, sort=False):
        i = mean_interval(part, value)
        rows.append((method, str(group), 100 * i.mean, 100 * i.low, 100 * i.high, i.n))
    return pd.DataFrame(rows, columns=["method", "group", "mean", "low", "high", "n"])


def _marks(ax: Axes, scores: pd.DataFrame, groups: Sequence[str], along: str) -> None:
    """A mark with its interval for each method, side by side within its group."""
    methods = list(dict.fromkeys(scores["method"]))
    reach = min(0.35, 0.08 * (len(methods) - 1))
    offsets = np.linspace(-reach, reach, len(methods))
    for row in scores.itertuples():
        at, shade = groups.index(row.group) + offsets[methods.index(row.method)], colour(row.method)
        span, middle = ([at, at], [row.low, row.high]), ([at], [row.mean])
        if along == "y":
            span, middle = span[::-1], middle[::-1]
        ax.plot(*span, color=shade, linewidth=2.4, alpha=0.55, solid_capstyle="butt")
        ax.plot(*middle, marker="o", markersize=6.5, color=shade, markeredgecolor="white")


def _method_handles(scores: pd.DataFrame) -> list[Line2D]:
    return [Line2D([], [], marker="o", linewidth=2.4, color=colour(m), markeredgecolor="white", label=label(m))
            for m in dict.fromkeys(scores["method"])]  # fmt: skip


def _chart(height: float, narrow: bool = False) -> tuple[Figure, Axes]:
    """One axes; `narrow` for figures whose text must be read in a column of 640 pixels."""
    figure = Figure(figsize=(7.2 if narrow else WIDTH * 0.82, height + 0.3), layout="constrained")
    ax = figure.add_subplot()
    _plain(ax)
    return figure, ax


def _plain(ax: Axes) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(RULE)
    ax.tick_params(labelsize=BASE, colors=RULE, labelcolor=INK, length=3)
    ax.set_axisbelow(True)


def _categories(ax: Axes, names: Sequence[str]) -> None:
    """Names down the y axis, the first on top, and vertical rules."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(10))
    ax.grid(axis="x", color=RULE, linewidth=0.6)


def _legend(figure: Figure, handles: Sequence, columns: int = 7) -> None:
    figure.legend(handles=handles, loc="outside upper left", ncols=min(columns, len(handles)), frameon=False,
                  fontsize=SMALL, labelcolor=INK, handlelength=1.6, columnspacing=1.6)  # fmt: skip


def _score_name(value: str) -> str:
    return {"iou": "IoU", "biou": "Boundary IoU", "biou_fit": "Boundary IoU, fitted band"}.get(value, value)


def _bin_name(low: float, high: float) -> str:
    if not np.isfinite(high):
        return f"{low:,g} and more"
    return f"under {high:,g}" if low == 0 else f"{low:,g} to {high:,g}"
