"""A table as columns and rows of cells, rendered to HTML and CSV.

The notice that says what was measured on what is part of both. A cell without a value says why; no cell is blank.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from rossam_kit.csv_text import guarded


@dataclass(frozen=True)
class Column:
    """A column: its heading, the heading it shares with its neighbours, and whether it holds numbers."""

    label: str
    group: str = ""
    numeric: bool = False

    @property
    def full_label(self) -> str:
        return f"{self.group} {self.label}".strip().replace("\n", " ")


@dataclass(frozen=True)
class Cell:
    """What a cell shows; `value` is what it is sorted by, and None marks a missing number whose reason is `text`."""

    text: str
    value: float | str | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows, ready to be rendered; `notice` says what was measured on what, in every rendering."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notice: str = field(default="", kw_only=True)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        decimals: int = 2,
        labels: Mapping[str, str] | None = None,
        missing: str | Mapping[str, str] = "not measured",
    ) -> Table:
        """A DataFrame's columns as they are (the index is left out).

        Args:
            decimals: digits after the point of floats; a float column of whole numbers shows none.
            labels: column name → heading.
            missing: what stands where the frame holds None or NaN: one reason, or one a column.
        """
        columns, cells = [], []
        for name in frame.columns:
            heading = str((labels or {}).get(name, name))
            columns.append(Column(heading, numeric=all(map(_is_number, frame[name].dropna()))))
            reason = missing if isinstance(missing, str) else missing.get(name, "not measured")
            whole = pd.api.types.is_float_dtype(frame[name]) and (frame[name].dropna() % 1 == 0).all()
            cells.append([_cell(value, 0 if whole else decimals, reason) for value in frame[name]])
        return cls(tuple(columns), tuple(zip(*cells, strict=True)) if cells else ())

    def with_notice(self, notice: str) -> Table:
        """This table with `notice` below it, after what it says already."""
        return self if notice in self.notice else replace(self, notice=f"{self.notice} {notice}".strip())

    def to_html(self) -> str:
        """A `<table>` whose cells carry `data-sort` values, and the notice below it; all text escaped."""
        body = "\n".join(f"<tr>{_html_cells(self.columns, row)}</tr>" for row in self.rows)
        notice = f'\n<p class="rossam-notice">{escape(self.notice)}</p>' if self.notice else ""
        head = f"<thead>\n{_html_head(self.columns)}\n</thead>"
        return f'<div class="rossam-scroll"><table>\n{head}\n<tbody>\n{body}\n</tbody>\n</table></div>{notice}'

    def to_csv(self) -> str:
        """Comma-separated values with full-precision numbers; reasons stand in missing cells, the notice below."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([column.full_label for column in self.columns])
        writer.writerows([guarded(_exact(cell)) for cell in row] for row in self.rows)
        if self.notice:
            writer.writerow([f"# {self.notice}"])
        return stream.getvalue()


VERDICTS = {"reproduced": "verdict yes", "not reproduced": "verdict no", "inconclusive": "verdict open"}
"""What a cell of a column `Verdict` may say → its class in HTML."""


def _exact(cell: Cell) -> str:
    """The unrounded number where the cell shows one number, else its text."""
    shown = cell.text.lstrip("+−-").replace(",", "").replace(".", "", 1)
    return f"{cell.value:.10g}" if isinstance(cell.value, float) and shown.isdigit() else cell.text.replace("\n", " ")


def _cell(value: Any, decimals: int, reason: str) -> Cell:
    if isinstance(value, (list, tuple, dict, set)):
        return Cell(str(value), str(value))
    if pd.isna(value) or value == "":
        return Cell(reason)
    if not _is_number(value) or not math.isfinite(value):
        return Cell(str(value), str(value))
    if isinstance(value, numbers.Integral):
        return Cell(f"{int(value):,}", float(value))
    return Cell(f"{value:,.{decimals}f}".replace("-", "−"), float(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def _html_head(columns: Sequence[Column]) -> str:
    """One row of headings, below one of group headings where there are groups."""
    labels = [f'<th scope="col"{_class("number" if c.numeric else "")}>{escape(c.label)}</th>' for c in columns]
    if not any(column.group for column in columns):
        return f"<tr>{''.join(labels)}</tr>"
    spans = ""
    for name, members in itertools.groupby(column.group for column in columns):
        n = len(list(members))
        heading = f'<th scope="colgroup" class="group" colspan="{n}">{escape(name)}</th>'
        spans += heading if name else f'<td colspan="{n}"></td>'
    return f'<tr class="groups">{spans}</tr>\n<tr>{"".join(labels)}</tr>'


def _html_cells(columns: Sequence[Column], row: Sequence[Cell]) -> str:
    """`<td>`s of a row; neighbours missing for the same reason become one wide cell."""
    html = ""
    places = itertools.groupby(range(len(row)), lambda i: row[i].text if row[i].value is None else i)
    for _, members in places:
        first, *others = members
        column, cell, is_missing = columns[first], row[first], row[first].value is None
        span = f' colspan="{1 + len(others)}"' if others else ""
        sort = "" if is_missing else f' data-sort="{escape(str(cell.value))}"'
        flags = {"number": column.numeric, "missing": is_missing, "strong": cell.strong}
        classes = [name for name, is_set in flags.items() if is_set]
        if column.label.lower() == "verdict" and cell.text in VERDICTS:
            classes.append(VERDICTS[cell.text])
        html += f"<td{span}{_class(' '.join(classes))}{sort}>{escape(cell.text)}</td>"
    return html


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""
