"""Texts in CSV files. Spreadsheets run a cell that begins like a formula: such a text gets an apostrophe before it."""

from __future__ import annotations

import re
from typing import TypeVar

import pandas as pd

T = TypeVar("T")
FORMULA = re.compile(r"'*[=+\-@\t\r]")
NUMBERS = re.compile(r"([-+\d.,%()\s]|e[-+]?\d|to\b|inf|nan)*", re.ASCII)
"""Numbers and intervals such as `+6.6 (+4.9 to +8.3)`, which are left as they are."""


def guarded(value: T) -> T | str:
    """The value as it is written; a text that would be run as a formula with an apostrophe before it."""
    is_formula = isinstance(value, str) and FORMULA.match(value) and not NUMBERS.fullmatch(value)
    return f"'{value}" if is_formula else value


def plain(value: T) -> T | str:
    """What `guarded` was given."""
    return value[1:] if isinstance(value, str) and value.startswith("'") and FORMULA.match(value) else value


def guarded_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table with all its texts `guarded`."""
    return _mapped(table, guarded)


def plain_table(table: pd.DataFrame) -> pd.DataFrame:
    """What `guarded_table` was given."""
    return _mapped(table, plain)


def _mapped(table: pd.DataFrame, change) -> pd.DataFrame:
    texts = table.select_dtypes(["object", "string"]).columns
    return table.assign(**{name: table[name].map(change) for name in texts})
