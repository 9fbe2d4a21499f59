"""Figures of scores: means with intervals beside published numbers, by size, by class, and areas.

In: DataFrames and `ComparisonRow`s. Out: a `Figure` that no global list holds on to; callers save it. Figures
made of images come from `pictures` and can be taken from here too, so that a notebook imports one module.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from ..errors import RossamError
from ..evaluation.robustness import DISTURBANCES
from ..evaluation.statistics import bootstrap_mean
from .pictures import (
    Strategy,
    contact_sheet,
    crop_strategies,
    draw_box,
    draw_mask,
    filmstrip,
    mask_comparison,
    view_grid,
)
from .style import BASE, COLOURS, INK, LABELS, MUTED, RULE, SMALL, WIDTH, Figure, colour, label, need
from .tables import ComparisonRow

if TYPE_CHECKING:
    from ..evaluation.claims import Judgement

__all__ = [
    "COLOURS", "LABELS", "Figure", "Strategy", "area_histogram", "claim_intervals", "class_bars", "colour",
    "contact_sheet", "crop_strategies", "draw_box", "draw_mask", "filmstrip", "gain_bars", "interval_bars", "label",
    "mask_comparison", "robustness_curves", "score_by_crowding", "score_by_size", "training_curves", "view_grid",
]  # fmt: skip


VERDICTS = {
    "reproduced": {"color": "#2b7a6b", "fillstyle": "full"},
    "not reproduced": {"color": "#b3261e", "fillstyle": "none"},
    "inconclusive": {"color": "#6a737d", "fillstyle": "left"},
}
"""Marks of the ledger's verdicts, told apart by their filling, too."""
_ROUND = {"marker": "o", "markersize": 6.5, "linestyle": "none", "markerfacecoloralt": "white"}


def interval_bars(rows: Sequence[ComparisonRow], value: str = "iou") -> Figure:
    """Measured means with their 95% intervals, and the published number as a hollow diamond beside each; percent."""
    need(rows, "interval bars", "rows")
    figure, ax = _chart(0.36 * len(rows) + 0.9)
    for y, row in enumerate(rows):
        measured = getattr(row, value)
        if measured is None or np.isnan(measured.mean):
            ax.text(1, y, row.reason or "not measured", va="center", fontsize=SMALL, color=MUTED, style="italic")
        else:
            mean, low, high = 100 * measured.mean, 100 * measured.low, 100 * measured.high
            ax.barh(y, mean, height=0.56, color=colour(row.method), alpha=0.85, linewidth=0)
            ax.plot([low, high], [y, y], color=INK, linewidth=1.4, solid_capstyle="butt")
            text = f"{mean:.1f}" + ("" if np.isnan(low) else f"  ({low:.1f} to {high:.1f})")
            ax.text(1.012, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL, color=INK)
        if row.published is not None:
            ax.plot(getattr(row.published, value), y, marker="D", markersize=6, markerfacecolor="white",
                    markeredgecolor=INK, markeredgewidth=1.2, linestyle="none", zorder=4)  # fmt: skip
    _categories(ax, [row.setting for row in rows])
    ax.set_xlim(0, 100)
    ax.set_xlabel(f"{_score_name(value)}, percent", fontsize=BASE, color=INK)
    handles = [Line2D([], [], color=INK, linewidth=1.4, label="95% interval of the measured mean")]
    if any(row.published is not None for row in rows):
        handles.append(Line2D([], [], marker="D", linestyle="none", markerfacecolor="white", markeredgecolor=INK,
                              label="published (other data or model: see notice)"))  # fmt: skip
    _legend(figure, handles)
    return figure


def score_by_size(
    table: pd.DataFrame,
    size_bins: Sequence[float] = (0.0, 256.0, 1024.0, 9216.0),
    value: str = "iou",
    *,
    cluster: str = "video",
    samples: int = 1000,
    seed: int = 0,
) -> Figure:
    """Mean score by object area, a mark a method, with 95% intervals over videos.

    Args:
        table: columns `method, area, video` and `value` (0..1); rows with NaN are left out.
        size_bins: lower bounds of the bins, square pixels.
    """
    return _score_by_bins(table, "area", size_bins, "Object area, px²", value, cluster, samples, seed)


def score_by_crowding(
    table: pd.DataFrame,
    bins: Sequence[float] = (0.0, 0.5, 1.0, 2.0, 4.0),
    value: str = "iou",
    *,
    cluster: str = "video",
    samples: int = 1000,
    seed: int = 0,
) -> Figure:
    """Mean score by distance to the nearest other box, a mark a method, with 95% intervals over videos.

    Args:
        table: columns `method, gap_in_sides, video` and `value` (0..1). Objects alone in their frame (NaN) count to
            the last bin.
        bins: lower bounds, in sides of the object's own box (`scoring.score`).
    """
    table = table.assign(gap_in_sides=table["gap_in_sides"].fillna(np.inf))
    title = "Distance to the nearest other box, in own sides"
    return _score_by_bins(table, "gap_in_sides", bins, title, value, cluster, samples, seed)


def _score_by_bins(
    table: pd.DataFrame,
    by: str,
    bounds: Sequence[float],
    title: str,
    value: str,
    cluster: str,
    samples: int,
    seed: int,
) -> Figure:
    """Marks of each method in bins of column `by`, whose lower bounds are given."""
    names = [_bin_name(low, high) for low, high in zip(bounds, [*bounds[1:], np.inf], strict=True)]
    place = np.searchsorted(bounds, table[by].to_numpy(dtype=float), side="right") - 1
    groups = pd.Series(np.array(names)[place.clip(0)], index=table.index).where((place >= 0) & table[by].notna())
    scores = _intervals(table.assign(group=groups), value, cluster, samples, seed)
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


def class_bars(
    table: pd.DataFrame,
    value: str = "iou",
    *,
    by: str = "category",
    cluster: str = "video",
    samples: int = 1000,
    seed: int = 0,
) -> Figure:
    """Mean score of each class, a mark a method, with 95% intervals; classes with most objects first."""
    scores = _intervals(table.assign(group=table[by]), value, cluster, samples, seed)
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
    size_bins: Sequence[float] = (256.0, 1024.0, 9216.0),
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


def gain_bars(gains: pd.DataFrame) -> Figure:
    """What the pipeline and what fine-tuning adds to each method: points of IoU with 95% intervals (paper Fig. 5).

    Args:
        gains: as `results.gains` makes it.
    """
    need(gains, "gain bars", "gains")
    ordered = gains.sort_values("step", key=lambda steps: steps.map({"inference pipeline": 0}).fillna(1), kind="stable")
    figure, ax = _chart(0.36 * len(ordered) + 0.9, narrow=True)
    for y, row in enumerate(ordered.itertuples()):
        ax.barh(y, row.mean, height=0.56, color=colour(row.method), alpha=0.85, linewidth=0)
        ax.plot([row.low, row.high], [y, y], color=INK, linewidth=1.4, solid_capstyle="butt")
        if np.isfinite(row.published):
            ax.plot(row.published, y, marker="D", markersize=6, markerfacecolor="white", markeredgecolor=INK,
                    markeredgewidth=1.2, linestyle="none", zorder=4)  # fmt: skip
        where = {"transform": ax.get_yaxis_transform(), "va": "center"}
        ax.text(1.012, y, f"{row.mean:+.1f}", fontsize=SMALL, color=INK, **where)
    _categories(ax, [f"{step}: {text}" for step, text in zip(ordered["step"], ordered["text"], strict=True)])
    ax.axvline(0, color=INK, linewidth=0.9)
    ax.set_xlabel("Gain in IoU, points", fontsize=BASE, color=INK)
    handles = [Line2D([], [], color=INK, linewidth=1.4, label="95% interval of the paired difference")]
    if ordered["published"].notna().any():
        handles.append(Line2D([], [], marker="D", linestyle="none", markerfacecolor="white", markeredgecolor=INK,
                              label="published"))  # fmt: skip
    _legend(figure, handles)
    return figure


def claim_intervals(judgements: Iterable[Judgement]) -> Figure:
    """Each claim's measured difference in points with its 95% interval; shape and colour tell the verdict.

    The claims' own order; a claim whose objects do not occur here has no mark. A bar across the row stands where the
    difference must lie beyond: 0, or the size that the paper names.
    """
    judged = list(judgements)
    need(judged, "claim intervals", "judgements")
    figure, ax = _chart(0.3 * len(judged) + 0.9)
    for y, judgement in enumerate(judged):
        found, style = judgement.difference.scaled(100), VERDICTS[judgement.verdict]
        shade = style["color"]
        ax.plot([judgement.claim.at_least] * 2, [y - 0.32, y + 0.32], color=MUTED, linewidth=1.2)
        if np.isfinite(found.mean):
            ax.plot([found.low, found.high], [y, y], color=shade, linewidth=2.2, alpha=0.6, solid_capstyle="butt")
            ax.plot(found.mean, y, **_ROUND, **style)
    _categories(ax, [textwrap.fill(judgement.claim.says, 70) for judgement in judged])
    ax.tick_params(axis="y", labelsize=SMALL)
    ax.set_xlabel("Measured difference, points", fontsize=BASE, color=INK)
    handles = [Line2D([], [], label=verdict, **_ROUND, **style) for verdict, style in VERDICTS.items()]
    _legend(figure, [*handles, Line2D([], [], color=MUTED, linewidth=1.2, label="what the claim must exceed")])
    return figure


def robustness_curves(
    table: pd.DataFrame, value: str = "iou", *, cluster: str = "video", samples: int = 1000, seed: int = 0
) -> Figure:
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
        scores = _intervals(part.assign(group=part["level"]), value, cluster, samples, seed)
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


def _intervals(table: pd.DataFrame, value: str, cluster: str, samples: int, seed: int) -> pd.DataFrame:
    """One row for each method and group: mean, low, high in percent, n."""
    table = table.dropna(subset=[value, "group"])
    if table.empty:
        raise RossamError("score table", f"has no row with a value of {value!r}", "score at least one object")
    rows = []
    for (method, group), part in table.groupby(["method", "group"], observed=True, sort=False):
        i = bootstrap_mean(part, value=value, cluster=cluster, samples=samples, seed=seed)
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
