"""Rows of experiments as tables and forest plots: published beside measured numbers, with intervals and differences.

Scores of rows are in 0..1, published numbers, tables and plots in percent. A cell without a number says why. No table
judges: the ledger (`claim_table`) does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from rossam_core.errors import ProblemList, RossamError
from rossam_kit.config import CONFIGS
from rossam_kit.experiments.experiments import table_specs
from rossam_kit.experiments.statistics import mean_interval, paired_difference
from rossam_kit.report.rendering import Cell, Column, Table

if TYPE_CHECKING:
    from rossam_kit.experiments.experiments import RowResult, RowSpec, TableSpec
    from rossam_kit.experiments.statistics import Interval

NOT_PUBLISHED = "not in the paper"
PROTOCOLS = (
    "Published numbers, and those under 'one score per frame', score the union of all masks in a frame, as the "
    "released code does; those under 'each object' are means over objects, which intervals and differences are about."
)
DATASETS = {"sat-mtb": "SAT-MTB", "isaid": "iSAID", "nwpu-vhr10": "NWPU VHR-10"}
PUBLISHED, PER_FRAME, PER_OBJECT = "Published", "Measured, one score per frame", "Measured, each object"


class Published(NamedTuple):
    """Scores as printed in the paper, in percent."""

    iou: float
    biou: float


@dataclass(frozen=True)
class ComparisonRow:
    """One setting of one table of the paper, as published and as measured.

    Attributes:
        setting: the row's name.
        published: percent, as printed; None where the paper has no such row.
        iou, biou: measured, means over objects in 0..1; None where nothing was measured, and then `reason` is needed.
        frame_iou, frame_biou: measured with one score per frame, the protocol of the published numbers; 0..1.
        difference: this row's `iou` minus that of the reference row, paired, in 0..1; None for the reference.
        reason: why a measured number is missing.
        method: name of the method, for its colour in plots.
        dataset: what the published number was measured on; it stands in the heading.
        is_reference: differences are to this row.
    """

    setting: str
    published: Published | None = None
    iou: Interval | None = None
    biou: Interval | None = None
    frame_iou: Interval | None = None
    frame_biou: Interval | None = None
    difference: Interval | None = None
    reason: str = ""
    method: str = ""
    dataset: str = ""
    is_reference: bool = False


class ForestRow(NamedTuple):
    """One line of `plots.forest`: a measured interval and the published number, in percent or points."""

    label: str
    interval: Interval | None
    published: float = math.nan
    method: str = ""
    verdict: str = ""
    reason: str = ""


# --- published numbers ------------------------------------------------------------------------------------------------


@functools.cache
def published() -> dict[tuple[str, str, str], Published]:
    """Numbers printed in the paper (`published.csv`) by table, row and dataset, in the paper's order."""
    lines = pd.read_csv(CONFIGS / "published.csv").itertuples(index=False)
    return {(line.table, line.row, line.dataset): Published(line.iou, line.biou) for line in lines}


def _printed(spec: TableSpec, row: RowSpec) -> Published | None:
    """What the paper prints for a row of a table; None where it has no such row."""
    return published()[spec.published, row.published, spec.dataset] if row.published else None


def printed_difference(spec: TableSpec, row: RowSpec, than: RowSpec) -> float:
    """The difference in IoU of two rows as the paper prints them, points; NaN where it does not print both."""
    ours, theirs = _printed(spec, row), _printed(spec, than)
    return math.nan if ours is None or theirs is None else ours.iou - theirs.iou


# --- a table of the paper ---------------------------------------------------------------------------------------------


def comparison_rows(
    table: str,
    results: Sequence[RowResult],
    *,
    left_out: Mapping[str, str] | None = None,
    reference: str | None = None,
) -> list[ComparisonRow]:
    """Each row as published and as measured under both protocols, and its paired difference to the reference row.

    Args:
        table: name in `experiments.yaml`.
        results: rows in order, scored on the same frames.
        left_out: label → reason of the table's other rows (`Experiments.left_out`); they keep their place.
        reference: label of the row that differences are to; None: the table's own.
    """
    spec = table_specs()[table]
    reference = reference or spec.reference
    base = next((result for result in results if result.spec.label == reference), None)
    rows, reasons = [_measured_row(spec, result, base) for result in results], left_out or {}
    known = {*reasons, *(result.spec.label for result in results)}
    for place, row in enumerate(row for row in spec.rows if row.label in known):
        if reason := reasons.get(row.label):
            absent = ComparisonRow(row.label, _printed(spec, row), reason=reason, method=row.kind, dataset=spec.dataset)
            rows.insert(place, absent)
    return [replace(row, is_reference=row.setting == reference) for row in rows]


def _measured_row(spec: TableSpec, result: RowResult, base: RowResult | None) -> ComparisonRow:
    units, frames = result.units(), result.units("frame")
    return ComparisonRow(
        result.spec.label,
        _printed(spec, result.spec),
        iou=mean_interval(units),
        biou=mean_interval(units, "biou"),
        frame_iou=mean_interval(frames) if len(frames) else None,
        frame_biou=mean_interval(frames, "biou") if len(frames) else None,
        difference=None if base is None or result is base else paired_difference(units, base.units()),
        method=result.spec.kind,
        dataset=spec.dataset,
    )


def forest_rows(rows: Sequence[ComparisonRow]) -> list[ForestRow]:
    """Measured and published IoU of each row, percent; one score per frame where the table has published numbers."""
    protocol = "frame_iou" if any(row.published for row in rows) else "iou"
    lines = []
    for row in rows:
        measured, printed = getattr(row, protocol), row.published.iou if row.published else math.nan
        interval = None if measured is None else measured.scaled(100)
        lines.append(ForestRow(row.setting, interval, printed, row.method, reason=row.reason))
    return lines


def comparison_table(rows: Sequence[ComparisonRow]) -> Table:
    """Published beside measured, percent: both protocols, 95% intervals, differences to the reference row, and n.

    The reference is the row that says so, else the first; without a published number of it there is no published
    difference. Without any published number the table has neither the published columns nor those of their protocol.
    A row without measured values must say why.
    """
    if not rows:
        raise RossamError("comparison table", "has no rows", "give at least one ComparisonRow")
    problems = ProblemList("comparison table")
    for row in rows:
        if (row.iou is None or row.biou is None) and not row.reason:
            problems.add(row.setting, "has no measured value and no reason for its absence")
    problems.raise_if_any("set `reason` on these rows")
    best = max((row.iou.mean for row in rows if row.iou), default=None)
    reference = next((row for row in rows if row.is_reference), rows[0])
    cells = [_comparison_cells(row, reference, best) for row in rows]
    columns = list(cells[0])
    has_published = any(row.published for row in rows)
    if not has_published:
        columns = [column for column in columns if column.group not in (PUBLISHED, PER_FRAME)]
    if reference.published is None:
        columns = [column for column in columns if column.label != "published"]
    dataset = next((DATASETS.get(row.dataset, row.dataset) for row in rows if row.dataset), "the paper's dataset")
    headings = [replace(c, group=f"{PUBLISHED}, {dataset}") if c.group == PUBLISHED else c for c in columns]
    lines = tuple(tuple(line[column] for column in columns) for line in cells)
    return Table(tuple(headings), lines, notice=PROTOCOLS if has_published else "")


def _comparison_cells(row: ComparisonRow, reference: ComparisonRow, best: float | None) -> dict[Column, Cell]:
    """All cells of a row by their columns."""
    printed = [Cell(f"{value:.2f}", value) for value in row.published or ()] or [Cell(NOT_PUBLISHED)] * 2
    per_frame, difference = row.reason or "not scored per frame", f"IoU minus {reference.setting}"
    if row.iou is None:
        ends = count = Cell(row.reason)
    else:
        runs = {0: "", 1: ", 1 run"}.get(row.iou.seeds, f", {row.iou.seeds} runs")
        count = Cell(f"{row.iou.n:,}\n({row.iou.clusters:,}{runs})", float(row.iou.n))
        low, high = 100 * row.iou.low, 100 * row.iou.high
        ends = Cell(row.iou.note) if math.isnan(low) else Cell(f"{low:.2f} to\n{high:.2f}", low)
    return {
        Column("Setting"): Cell(row.setting, row.setting),
        Column("IoU", PUBLISHED, numeric=True): printed[0],
        Column("BIoU", PUBLISHED, numeric=True): printed[1],
        Column("IoU", PER_FRAME, numeric=True): _mean_cell(row.frame_iou, per_frame),
        Column("BIoU", PER_FRAME, numeric=True): _mean_cell(row.frame_biou, per_frame),
        Column("IoU", PER_OBJECT, numeric=True): _mean_cell(row.iou, row.reason, best),
        Column("95% interval", PER_OBJECT, numeric=True): ends,
        Column("BIoU", PER_OBJECT, numeric=True): _mean_cell(row.biou, row.reason),
        Column("published", difference, numeric=True): _published_difference(row, reference),
        Column("measured,\neach object", difference, numeric=True): _measured_difference(row, reference),
        Column("n\n(videos, runs)", numeric=True): count,
    }


def _mean_cell(interval: Interval | None, reason: str, best: float | None = None) -> Cell:
    if interval is None:
        return Cell(reason)
    if math.isnan(interval.mean):
        return Cell(interval.note)
    return Cell(f"{100 * interval.mean:.2f}", 100 * interval.mean, strong=interval.mean == best)


def _published_difference(row: ComparisonRow, reference: ComparisonRow) -> Cell:
    if row is reference:
        return Cell("reference", 0.0)
    if row.published is None or reference.published is None:
        return Cell(NOT_PUBLISHED)
    value = row.published.iou - reference.published.iou
    return Cell(_signed(value), value)


def _measured_difference(row: ComparisonRow, reference: ComparisonRow) -> Cell:
    if row.iou is None:
        return Cell(row.reason)
    if row is reference:
        return Cell("reference", 0.0)
    if row.difference is None:
        return Cell("reference not measured")
    points = row.difference.scaled(100)
    if math.isnan(points.mean):
        return Cell(points.note)
    ends = "" if math.isnan(points.low) else f"\n({_signed(points.low)} to {_signed(points.high)})"
    return Cell(_signed(points.mean) + ends, points.mean)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


# --- other views of the same rows -------------------------------------------------------------------------------------


def units_by_method(results: Sequence[RowResult]) -> pd.DataFrame:
    """All scored objects of several rows, one below the other, with a `method` column for plots."""
    return pd.concat([r.units().assign(method=r.spec.kind) for r in results], ignore_index=True)


def scores_by(results: Sequence[RowResult], by: str) -> pd.DataFrame:
    """Mean IoU in percent of each group (rows) and setting (columns), with n; by rising size, or most objects first."""
    groups = {r.spec.label: r.units().dropna(subset=["iou"]).groupby(by, observed=True)["iou"] for r in results}
    means = {label: 100 * group.mean() for label, group in groups.items()}
    table = pd.DataFrame({"n": next(iter(groups.values())).size(), **means})
    heading = {"category": "class", "size_bin": "area, px²"}.get(by, by)
    if by == "size_bin":
        table = table.sort_index(key=lambda bins: [float(name.rstrip("+").split("–")[0]) for name in bins])
    else:
        table = table.sort_values("n", ascending=False, kind="stable")
    return table.reset_index(names=heading)


def gains(results: Sequence[RowResult]) -> list[ForestRow]:
    """What the inference pipeline and what fine-tuning adds to each method of Table 5, paired, in points of IoU.

    The pipeline's gain is that of a row over the row of the same method and training on whole frames; the gain of
    fine-tuning that of a fine-tuned row with the pipeline over the same method not fine-tuned, where the table has
    it, else over SAM. Scores are one per frame, as in the published numbers. The pipeline's gains come first.
    """

    def is_direct(result: RowResult) -> bool:
        return result.spec.inference.get("mode") == "direct"

    def kin(result: RowResult) -> tuple:
        return result.spec.method, result.spec.trains, str(result.spec.training)

    whole = {kin(r): r for r in results if is_direct(r)}
    untrained = {r.spec.method: r for r in results if not r.spec.trains and not is_direct(r)}
    scored = [result for result in results if not is_direct(result) and result.spec.method is not None]
    pairs = [("inference pipeline", result, whole.get(kin(result))) for result in scored]
    trained = [result for result in scored if result.spec.trains]
    pairs += [("fine-tuning", r, untrained.get(r.spec.method, untrained.get("sam"))) for r in trained]
    return [
        ForestRow(
            f"{step}: {result.spec.label} over {base.spec.label}",
            paired_difference(result.units("frame"), base.units("frame")).scaled(100),
            printed_difference(table_specs()["table5"], result.spec, base.spec),
            method=result.spec.kind,
        )
        for step, result, base in pairs
        if base is not None
    ]


def measures_table(results: Sequence[RowResult]) -> pd.DataFrame:
    """All measures of the same predictions, percent: one row per setting; and how often BIoU says nothing new."""
    ratio = results[0].experiments.profile.evaluation.dilation_ratio
    measures = {
        "iou": "IoU",
        "biou": f"BIoU at {ratio:g}",
        "biou_official": "min(IoU, BIoU), official",
        "biou_fit": "BIoU, fitted band",
        "biou_fit_official": "min(IoU, fitted BIoU)",
    }
    rows = []
    for result in results:
        units, frames = result.units().dropna(subset=["iou"]), result.units("frame")
        row = {"setting": result.spec.label} | {title: 100 * units[name].mean() for name, title in measures.items()}
        row["objects whose BIoU is their IoU, percent"] = 100 * np.isclose(units["biou"], units["iou"]).mean()
        rows.append(row | {f"{measures[name]}, per frame": 100 * frames[name].mean() for name in ("iou", "biou")})
    return pd.DataFrame(rows)
