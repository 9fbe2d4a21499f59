"""The cells of an .xlsx workbook as text, read by pandas with openpyxl."""

from __future__ import annotations

from os import PathLike

import pandas as pd

from rossam_core.errors import RossamError

Sheet = list[list[str]]


def read_xlsx(path: str | PathLike) -> dict[str, Sheet]:
    """Rows of cells by sheet name; an empty cell is "", rows of a sheet are equally long.

    Numbers are text (`3`, `4.5`), formulas stand for the value last computed.

    Raises:
        RossamError: no such file, or not a readable workbook.
    """
    try:
        sheets = pd.read_excel(path, sheet_name=None, header=None, dtype=str, na_filter=False, engine="openpyxl")
    except FileNotFoundError as error:
        raise RossamError(path, "no such file", "check the path, or download the workbook again") from error
    except Exception as error:  # damage makes zipfile, the XML parser and openpyxl raise whatever they meet
        raise RossamError(path, f"is not a readable .xlsx workbook ({error})", "download it again") from error
    return {
        name: [[cell.strip() for cell in row] for row in sheet.to_numpy().tolist()] for name, sheet in sheets.items()
    }
