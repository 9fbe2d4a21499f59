"""Tables that stand a measured number beside the published one, with its interval and its caveat.

In: rows holding `evaluation.statistics.Interval`s (means in 0..1), and `configs/published.csv`. Out: a `Table` in
percent, for the report, a notebook or the README (`rendering`). A cell without a number says why. No table judges: the
ledger (`results.claim_table`) does.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from rossam_core.errors import ProblemList, RossamError
from rossam_kit.config import CONFIGS
from rossam_kit.report.rendering import Cell, Column, Table

if TYPE_CHECKING:
    from rossam_kit.experiments.statistics import Interval

__all__ = ["ComparisonRow", "ForestRow", "Published", "Table", "comparison_table", "forest_rows", "published"]

NOT_PUBLISHED = "not in the paper"
NOT_SCORED = "not scored per frame"
FIRST_ROW = "first row"
PROTOCOLS = (
    "Published numbers, and those under 'one score per frame', score the union of all masks in a frame, as the "
    "released code does; those under 'each object' are means over objects, which intervals and differences are about."
)
DATASETS = {"sat-mtb": "SAT-MTB", "isaid": "iSAID", "nwpu-vhr10": "NWPU VHR-10"}


class Published(NamedTuple):
    """Scores as printed in the paper, in percent."""

    iou: float
    biou: float


def published(table: str, row: str | None = None, dataset: str | None = None) -> pd.DataFrame | Published:
    """Numbers printed in the paper (`configs/published.csv`).

    Args:
        table: `table1` … `table6`.
        row: name of a row, as in the file; None for the whole table, columns `row, dataset, iou, biou`.
        dataset: `sat-mtb`, `isaid` or `nwpu-vhr10`; needed where a table has the row more than once (Table 6).

    Raises:
        RossamError: no such table, row or dataset; the nearest known name is given.
    """
    found = _narrow(_published_csv(), "table", table)
    if dataset is not None:
        found = _narrow(found, "dataset", dataset)
    if row is None:
        return found.drop(columns="table").reset_index(drop=True)
    found = _narrow(found, "row", row)
    if len(found) > 1:
        datasets = ", ".join(found["dataset"])
        raise RossamError(f"published {table}, row {row!r}", f"stands there for {datasets}", "name the dataset too")
    return Published(float(found["iou"].iloc[0]), float(found["biou"].iloc[0]))


@dataclass(frozen=True)
class ComparisonRow:
    """One setting of one table of the paper, as published and as measured.

    Attributes:
        setting: the row's name.
        published: percent, as printed; None where the paper has no such row.
        iou, biou: measured, means over objects in 0..1; None where nothing was measured, and then `reason` is needed.
        frame_iou, frame_biou: measured with one score per frame, the protocol of the published numbers; 0..1.
        difference: this row's `iou` minus the first row's, paired, in 0..1; None for the first row.
        reason: why a measured number is missing.
        method: name of the method, for its colour in plots.
        dataset: what the published number was measured on; it stands in the heading.
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


class ForestRow(NamedTuple):
    """One line of `plots.forest`: a measured interval and the published number, in percent or points."""

    label: str
    interval: Interval | None
    published: float = math.nan
    method: str = ""
    verdict: str = ""
    reason: str = ""


def forest_rows(rows: Sequence[ComparisonRow]) -> list[ForestRow]:
    """Measured and published IoU of each row, percent; one score per frame where the table has published numbers."""
    protocol = "frame_iou" if any(row.published for row in rows) else "iou"
    return [
        ForestRow(
            row.setting,
            None if getattr(row, protocol) is None else getattr(row, protocol).scaled(100),
            row.published.iou if row.published else math.nan,
            method=row.method,
            reason=row.reason,
        )
        for row in rows
    ]


def comparison_table(rows: Sequence[ComparisonRow]) -> Table:
    """Published beside measured, percent: both protocols, 95% intervals, differences against the first row, and n.

    Without any published number the table has neither the published columns nor those of the published protocol. A row
    without measured values must say why.
    """
    if not rows:
        raise RossamError("comparison table", "has no rows", "give at least one ComparisonRow")
    problems = ProblemList("comparison table")
    for row in rows:
        if (row.iou is None or row.biou is None) and not row.reason:
            problems.add(row.setting, "has no measured value and no reason for its absence")
    problems.raise_if_any("set `reason` on these rows")
    best = max((row.iou.mean for row in rows if row.iou), default=None)
    dataset = next((DATASETS.get(row.dataset, row.dataset) for row in rows if row.dataset), "the paper's dataset")
    columns, cells = _COMPARISON_COLUMNS, [_comparison_cells(row, rows[0], best) for row in rows]
    has_published = any(row.published for row in rows)
    if not has_published:
        shown = [i for i, column in enumerate(columns) if column not in _PUBLISHED_COLUMNS]
        columns, *cells = (tuple(line[i] for i in shown) for line in (columns, *cells))
    columns = [replace(c, group=f"Published, {dataset}") if c.group == "Published" else c for c in columns]
    return Table(tuple(columns), tuple(cells), notice=PROTOCOLS if has_published else "")


_PUBLISHED_COLUMNS = (
    Column("IoU", "Published", numeric=True),
    Column("BIoU", "Published", numeric=True),
    Column("IoU", "Measured, one score per frame", numeric=True),
    Column("BIoU", "Measured, one score per frame", numeric=True),
    Column("published", "IoU minus first row", numeric=True),
)
_COMPARISON_COLUMNS = (
    Column("Setting"),
    *_PUBLISHED_COLUMNS[:4],
    Column("IoU", "Measured, each object", numeric=True),
    Column("95% interval", "Measured, each object", numeric=True),
    Column("BIoU", "Measured, each object", numeric=True),
    _PUBLISHED_COLUMNS[4],
    Column("measured,\neach object", "IoU minus first row", numeric=True),
    Column("n\n(videos, runs)", numeric=True),
)


def _comparison_cells(row: ComparisonRow, first: ComparisonRow, best: float | None) -> tuple[Cell, ...]:
    printed = [Cell(f"{value:.2f}", value) for value in row.published or ()] or [Cell(NOT_PUBLISHED)] * 2
    return (
        Cell(row.setting, row.setting),
        *printed,
        _mean_cell(row.frame_iou, row.reason or NOT_SCORED),
        _mean_cell(row.frame_biou, row.reason or NOT_SCORED),
        _mean_cell(row.iou, row.reason, best),
        _range_cell(row),
        _mean_cell(row.biou, row.reason),
        _published_difference(row, first),
        _measured_difference(row, first),
        _count_cell(row),
    )


def _count_cell(row: ComparisonRow) -> Cell:
    if row.iou is None:
        return Cell(row.reason)
    runs = {0: "", 1: ", 1 run"}.get(row.iou.seeds, f", {row.iou.seeds} runs")
    return Cell(f"{row.iou.n:,} ({row.iou.clusters:,}{runs})", float(row.iou.n))


def _mean_cell(interval: Interval | None, reason: str, best: float | None = None) -> Cell:
    if interval is None:
        return Cell(reason)
    if math.isnan(interval.mean):
        return Cell(interval.note)
    return Cell(f"{100 * interval.mean:.2f}", 100 * interval.mean, strong=interval.mean == best)


def _range_cell(row: ComparisonRow) -> Cell:
    if row.iou is None:
        return Cell(row.reason)
    if math.isnan(row.iou.low):
        return Cell(row.iou.note)
    return Cell(f"{100 * row.iou.low:.2f} to {100 * row.iou.high:.2f}", 100 * row.iou.low)


def _published_difference(row: ComparisonRow, first: ComparisonRow) -> Cell:
    if row is first:
        return Cell(FIRST_ROW, 0.0)
    if row.published is None:
        return Cell(NOT_PUBLISHED)
    if first.published is None:
        return Cell("first row not in the paper")
    value = row.published.iou - first.published.iou
    return Cell(_signed(value), value)


def _measured_difference(row: ComparisonRow, first: ComparisonRow) -> Cell:
    if row.iou is None:
        return Cell(row.reason)
    if row is first:
        return Cell(FIRST_ROW, 0.0)
    if row.difference is None:
        return Cell("first row not measured")
    mean, low, high = (100 * v for v in (row.difference.mean, row.difference.low, row.difference.high))
    if math.isnan(mean):
        return Cell(row.difference.note)
    ends = "" if math.isnan(low) else f"\n({_signed(low)} to {_signed(high)})"
    return Cell(_signed(mean) + ends, mean)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


@functools.cache
def _published_csv() -> pd.DataFrame:
    return pd.read_csv(CONFIGS / "published.csv")


def _narrow(frame: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    found = frame[frame[column] == value]
    if found.empty:
        known = list(dict.fromkeys(frame[column]))
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        raise RossamError(CONFIGS / "published.csv", f"no {column} {value!r}", hint)
    return found
