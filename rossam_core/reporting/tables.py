"""Tables that stand a measured number beside the published one, with its interval and its caveat.

In: rows holding `evaluation.statistics.Interval`s (means in 0..1), and `configs/published.csv`. Out: a `Table`
in percent, for the report, a notebook or the README (`rendering`). A cell without a number says why.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from ..config import CONFIGS
from ..errors import ProblemList, RossamError
from .rendering import Cell, Column, Table

if TYPE_CHECKING:
    from ..evaluation.statistics import Interval

__all__ = ["ComparisonRow", "Published", "Table", "comparison_table", "published"]

NOT_PUBLISHED = "not in the paper"
NO_VERDICT = "no claim tested"
FIRST_ROW = "first row"
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
        iou, biou: measured, means in 0..1; None where nothing was measured, and then `reason` is needed.
        difference: this row's IoU minus the first row's, paired, in 0..1; without it the means are subtracted.
        verdict: `reproduced`, `not reproduced`, `inconclusive`, or empty.
        reason: why a measured number is missing.
        method: name of the method, for its colour in plots.
        dataset: what the published number was measured on; it stands in the heading.
    """

    setting: str
    published: Published | None = None
    iou: Interval | None = None
    biou: Interval | None = None
    difference: Interval | None = None
    verdict: str = ""
    reason: str = ""
    method: str = ""
    dataset: str = ""


def comparison_table(rows: Sequence[ComparisonRow], *, notice: str = "") -> Table:
    """Published beside measured: percent, differences against the first row, 95% interval and n of the IoU.

    The verdict column appears once a row has a verdict. A row without measured values must say why.
    """
    if not rows:
        raise RossamError("comparison table", "has no rows", "give at least one ComparisonRow")
    problems = ProblemList("comparison table")
    for row in rows:
        if (row.iou is None or row.biou is None) and not row.reason:
            problems.add(row.setting, "has no measured value and no reason for its absence")
    problems.raise_if_any("set `reason` on these rows")
    best = max((row.iou.mean for row in rows if row.iou), default=None)
    shown = len(_COMPARISON_COLUMNS) - (not any(row.verdict for row in rows))
    cells = tuple(_comparison_cells(row, rows[0], best)[:shown] for row in rows)
    dataset = next((DATASETS.get(row.dataset, row.dataset) for row in rows if row.dataset), "")
    columns = [
        replace(column, group=f"Published, {dataset}") if column.group == "Published" and dataset else column
        for column in _COMPARISON_COLUMNS[:shown]
    ]
    return Table(tuple(columns), cells, notice=notice)


_COMPARISON_COLUMNS = (
    Column("Setting"),
    Column("IoU", "Published", numeric=True),
    Column("BIoU", "Published", numeric=True),
    Column("IoU", "Measured", numeric=True),
    Column("BIoU", "Measured", numeric=True),
    Column("95% interval\nof IoU", numeric=True),
    Column("published", "IoU minus first row", numeric=True),
    Column("measured", "IoU minus first row", numeric=True),
    Column("n\n(videos)", numeric=True),
    Column("Verdict"),
)


def _comparison_cells(row: ComparisonRow, first: ComparisonRow, best: float | None) -> tuple[Cell, ...]:
    printed = [Cell(f"{value:.2f}", value) for value in row.published or ()] or [Cell(NOT_PUBLISHED)] * 2
    return (
        Cell(row.setting, row.setting),
        *printed,
        _mean_cell(row.iou, row.reason, best),
        _mean_cell(row.biou, row.reason),
        _range_cell(row),
        _published_difference(row, first),
        _measured_difference(row, first),
        Cell(f"{row.iou.n:,} ({row.iou.clusters:,})", float(row.iou.n)) if row.iou else Cell(row.reason),
        Cell(row.verdict, row.verdict) if row.verdict else Cell(NO_VERDICT),
    )


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
    if row.difference is not None:
        mean, low, high = (100 * v for v in (row.difference.mean, row.difference.low, row.difference.high))
        if math.isnan(mean):
            return Cell(row.difference.note)
        ends = "" if math.isnan(low) else f"\n({_signed(low)} to {_signed(high)})"
        return Cell(_signed(mean) + ends, mean)
    if first.iou is None:
        return Cell("first row not measured")
    value = 100 * (row.iou.mean - first.iou.mean)
    return Cell(row.iou.note or first.iou.note) if math.isnan(value) else Cell(_signed(value), value)


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
