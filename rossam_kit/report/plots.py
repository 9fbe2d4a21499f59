"""Figures of scores: means with intervals beside published numbers, by group, over training, under disturbance.

Figures made of images are in `pictures`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from rossam_core.errors import RossamError
from rossam_kit.experiments.robustness import DISTURBANCES
from rossam_kit.experiments.statistics import mean_interval
from rossam_kit.report.labels import label
from rossam_kit.report.style import INK, LINES, MUTED, SMALL, WIDTH, Figure, colour, need, styled
from rossam_kit.report.tables import ForestRow

VERDICTS = {
    "reproduced": {"color": "#2b7a6b", "fillstyle": "full"},
    "not reproduced": {"color": "#b3261e", "fillstyle": "none"},
    "inconclusive": {"color": "#6a737d", "fillstyle": "left"},
    "one run": {"color": "#a8a8a8", "fillstyle": "bottom"},
    "two runs": {"color": "#a8a8a8", "fillstyle": "bottom"},
}
"""Marks of the ledger's verdicts, distinguished by their filling, too."""
CROWDING_BINS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Lower bounds of the gap to the nearest other box, in sides of the object's own box."""
SCORE_NAMES = {"iou": "IoU", "biou": "Boundary IoU", "biou_fit": "Boundary IoU, fitted band"}
_ROUND = {"marker": "o", "markersize": 6.5, "linestyle": "none", "markerfacecoloralt": "white"}
_DIAMOND = {"marker": "D", "markersize": 6, "markerfacecolor": "white", "markeredgecolor": INK, "markeredgewidth": 1.2,
            "linestyle": "none", "zorder": 4}  # fmt: skip


@styled
def forest(rows: Sequence[ForestRow], xlabel: str = "") -> Figure:
    """Measured means with their 95% intervals, one line per row, and the published number as a hollow diamond.

    Marks have the method's colour, or the verdict's colour and filling.

    Args:
        xlabel: of rows that are differences; a line then stands at 0. By default rows are IoUs, from 0 to 100.
    """
    need(rows, "forest", "rows")
    has_published = any(np.isfinite(row.published) for row in rows)
    labels = [textwrap.fill(row.label, 70) for row in rows]
    figure, ax = _chart(0.3 * sum(1 + text.count("\n") for text in labels) + 0.9)
    for y, row in enumerate(rows):
        measured, text = row.interval, row.reason or "not measured"
        if measured is not None and not np.isnan(measured.mean):
            style = VERDICTS[row.verdict] if row.verdict else {"color": colour(row.method)}
            _mark(ax, y, measured.low, measured.mean, measured.high, **style)
            ends = "" if np.isnan(measured.low) else f"  ({measured.low:.1f} to {measured.high:.1f})"
            text = f"{measured.mean:.1f}{ends}"
        ax.text(1.012, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL)
        if np.isfinite(row.published):
            ax.plot(row.published, y, **_DIAMOND)
    _categories(ax, labels)
    if len(rows) > 20:
        ax.tick_params(axis="y", labelsize=SMALL)
    if xlabel:
        ax.axvline(0, color=INK, linewidth=0.9)
    else:
        ax.set_xlim(0, 100)
    ax.set_xlabel(xlabel or f"IoU, {'one score per frame' if has_published else 'each object'}, percent")
    verdicts = dict.fromkeys(row.verdict for row in rows if row.verdict)
    handles = [Line2D([], [], label=name, **_ROUND, **VERDICTS[name]) for name in verdicts]
    handles = handles or [Line2D([], [], color=MUTED, linewidth=2.2, label="95% interval of the measured mean")]
    if has_published:
        handles.append(Line2D([], [], label="published (other data or model: see notice)", **_DIAMOND))
    _legend(figure, handles)
    return figure


def score_by_size(table: pd.DataFrame, size_bins: Sequence[float], value: str = "iou") -> Figure:
    """`score_by_group` of bins of object area, whose lower bounds are given (`EvaluationConfig.size_bins`)."""
    return score_by_group(_binned(table, "area", size_bins, "px²"), value, order=False)


def score_by_crowding(table: pd.DataFrame) -> Figure:
    """`score_by_group` of the gap to the nearest other box; objects alone in their frame count to the last bin."""
    table = table.assign(gap_in_sides=table["gap_in_sides"].fillna(CROWDING_BINS[-1]))
    return score_by_group(_binned(table, "gap_in_sides", CROWDING_BINS, "own sides away"), order=False)


@styled
def score_by_group(table: pd.DataFrame, value: str = "iou", *, by: str = "category", order: bool = True) -> Figure:
    """Mean score of each group, a mark per method, with 95% intervals over videos.

    Args:
        table: columns `method, video`, `by` and `value` (0..1); rows with NaN are left out.
        order: groups with most objects first; else in the order of a categorical column.
    """
    scores = _intervals(table, by, value)
    counts = scores.groupby("group", observed=True)["n"].max()
    counts = counts.sort_values(ascending=False, kind="stable") if order else counts
    methods, groups = list(dict.fromkeys(scores["method"])), list(counts.index)
    figure, ax = _chart((0.16 * len(methods) + 0.14) * len(counts) + 0.9)
    reach = min(0.35, 0.08 * (len(methods) - 1))
    offsets = dict(zip(methods, np.linspace(-reach, reach, len(methods)), strict=True))
    for row in scores.itertuples():
        _mark(ax, groups.index(row.group) + offsets[row.method], row.low, row.mean, row.high, color=colour(row.method))
    _categories(ax, [f"{name}  (n = {n:,})" for name, n in counts.items()])
    ax.set_xlim(0, 100)
    ax.set_xlabel(f"{SCORE_NAMES.get(value, value)}, percent")
    _legend(figure, _method_handles(methods))
    return figure


@styled
def area_histogram(areas: Mapping[str, np.ndarray], size_bins: Sequence[float], marks: Mapping[str, float]) -> Figure:
    """Share of objects by area on a logarithmic axis.

    Args:
        areas: name of a set → areas in square pixels.
        size_bins: bounds drawn as dotted lines.
        marks: label → area, drawn as triangles on the axis, e.g. the paper's mean.
    """
    need(areas, "area histogram", "sets of areas")
    values = {name: np.asarray(a, dtype=float)[np.asarray(a) > 0] for name, a in areas.items()}
    low, high = min(v.min() for v in values.values()), max(v.max() for v in values.values())
    figure, ax = _chart(3.2)
    for shade, (name, v) in zip(LINES[3:], values.items(), strict=False):
        tag = f"{name}: {len(v):,} objects, mean {v.mean():,.0f} px², median {np.median(v):,.0f} px²"
        edges, weights = np.geomspace(low * 0.95, high * 1.05, 25), np.full(len(v), 100 / len(v))
        ax.hist(v, edges, weights=weights, color=shade, label=tag, histtype="step", linewidth=1.6)
    for bound in size_bins:
        if low < bound < high:
            ax.axvline(bound, color=MUTED, linewidth=0.9, linestyle=":")
    for text, at in marks.items():
        ax.plot(at, 0, marker="^", markersize=9, color=INK, linestyle="none", clip_on=False, zorder=5, label=text)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(ylim=(0, None), xlabel="Object area, px²", ylabel="Objects, percent")
    _legend(figure, ax.get_legend_handles_labels()[0], columns=1)
    return figure


@styled
def training_curves(logs: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss (running mean over 10 steps) and validation IoU, against samples seen.

    Args:
        logs: row label → log (`run_folder.read_log`).
    """
    need(logs, "training curves", "logs")
    figure = Figure(figsize=(WIDTH * 0.82, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (name, log) in enumerate(logs.items()):
        steps, checks, shade = log[log["kind"] == "step"], log[log["kind"] == "validation"], LINES[i % len(LINES)]
        smooth = steps["loss"].rolling(10, min_periods=1).mean()
        left.plot(steps["samples"], smooth, color=shade, linewidth=1.3, label=name)
        if "iou" in checks:
            right.plot(checks["samples"], 100 * checks["iou"], color=shade, linewidth=1.3, marker="o", markersize=4)
    for ax, title in ((left, "Training loss"), (right, "Validation IoU, percent")):
        ax.set(title=title, xlabel="Training views seen")
        ax.grid()
    _legend(figure, left.get_legend_handles_labels()[0], columns=3)
    return figure


@styled
def robustness_curves(table: pd.DataFrame) -> Figure:
    """IoU against the level of each disturbance, a panel per disturbance with a curve per method, 95% intervals shaded.

    Args:
        table: as `robustness.robustness` makes it.
    """
    need(table, "robustness curves", "scored units")
    names = list(dict.fromkeys(table["disturbance"]))
    rows = -(-len(names) // 2)
    figure = Figure(figsize=(7.2, 2.35 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, 2, sharey=True, squeeze=False).flatten()
    for ax, name in zip(panels, names, strict=False):
        part = table[table["disturbance"] == name]
        for method, curve in _intervals(part, "level", "iou").groupby("method", sort=False):
            ax.fill_between(curve["group"], curve["low"], curve["high"], color=colour(method), alpha=0.15, linewidth=0)
            ax.plot(curve["group"], curve["mean"], color=colour(method), linewidth=1.8, marker="o", markersize=4)
        levels = sorted(part["level"].unique())
        ax.set_xticks(levels, [f"{level:g}" for level in levels])
        ax.set(xlabel=DISTURBANCES[name].title, ylim=(0, 100))
        ax.grid()
    for ax in panels[len(names) :]:
        figure.delaxes(ax)
    figure.supylabel("IoU, percent")
    _legend(figure, _method_handles(dict.fromkeys(table["method"])))
    return figure


def _binned(table: pd.DataFrame, column: str, bounds: Sequence[float], unit: str) -> pd.DataFrame:
    """The table with its `category` replaced by the bin of a column, in order; values under all bins are left out."""
    names = [f"{low:,g} to {high:,g} {unit}" if low else f"under {high:,g} {unit}" for low, high in pairwise(bounds)]
    names += [f"{bounds[-1]:,g} {unit} and more"]
    return table.assign(category=pd.cut(table[column], [*bounds, np.inf], right=False, labels=names))


def _intervals(table: pd.DataFrame, by: str, value: str) -> pd.DataFrame:
    """One row for each method and group: mean, low, high in percent, n."""
    table = table.dropna(subset=[value, by])
    if table.empty:
        raise RossamError("score table", f"has no row with a value of {value!r}", "score at least one object")
    rows = []
    for (method, group), part in table.groupby(["method", by], observed=True, sort=False):
        i = mean_interval(part, value).scaled(100)
        rows.append((method, group, i.mean, i.low, i.high, i.n))
    scores = pd.DataFrame(rows, columns=["method", "group", "mean", "low", "high", "n"])
    return scores.astype({"group": table[by].dtype})


def _mark(ax: Axes, y: float, low: float, mean: float, high: float, **style) -> None:
    """A mean with its interval at height y."""
    ax.plot([low, high], [y, y], color=style["color"], linewidth=2.2, alpha=0.6, solid_capstyle="butt")
    ax.plot(mean, y, **_ROUND, **style)


def _method_handles(methods) -> list[Line2D]:
    return [Line2D([], [], marker="o", linewidth=2.2, color=colour(m), label=label(m)) for m in methods]


def _chart(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH * 0.82, height + 0.3), layout="constrained")
    return figure, figure.add_subplot()


def _categories(ax: Axes, names: Sequence[str]) -> None:
    """Names down the y axis, the first on top, and vertical rules."""
    ax.set_yticks(range(len(names)), names, parse_math=False)  # a class may be called $x$
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
    ax.grid(axis="x")


def _legend(figure: Figure, handles: Sequence, columns: int = 7) -> None:
    figure.legend(handles=handles, loc="outside upper left", ncols=min(columns, len(handles)))
