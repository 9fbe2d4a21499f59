"""The cells of an .xlsx workbook as text, by the standard library alone: a zip archive of XML sheets.

In: a path. Out: rows of strings by sheet name. Numbers come as text (`3`, or `3.0` as some programs write it),
formulas by the value last computed; formats and dates are not interpreted.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from ..errors import RossamError
from ..files import write_bytes

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
CONTENT_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
MIME = "application/vnd.openxmlformats-officedocument.spreadsheetml"
MAX_COLUMNS = 16384
"""Excel's own limit; a reference beyond it is damage."""
DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, ElementTree.ParseError, ValueError, IndexError, EOFError, OSError)

Sheet = list[list[str]]


def read_xlsx(path: str | PathLike) -> dict[str, Sheet]:
    """Rows of cells by sheet name; an empty cell is "", rows are as long as their last cell.

    Raises:
        RossamError: no such file, or not a readable workbook.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            workbook = ElementTree.fromstring(archive.read("xl/workbook.xml"))
            relations = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))
            targets = {r.attrib["Id"]: r.attrib["Target"] for r in relations}
            shared = _shared_strings(archive)
            return {
                sheet.attrib["name"]: _rows(archive, targets[sheet.attrib[f"{{{RELATIONS}}}id"]], shared)
                for sheet in workbook.iter(f"{{{MAIN}}}sheet")
            }
    except FileNotFoundError as error:
        raise RossamError(path, "no such file", "check the path, or download the workbook again") from error
    except DAMAGE as error:
        raise RossamError(path, f"is not a readable .xlsx workbook ({error})", "download it again") from error


def write_xlsx(path: str | PathLike, sheets: Mapping[str, Sequence[Sequence[str | int | float | None]]]) -> None:
    """Write rows of text and numbers, one sheet a name, atomically; None leaves a cell out."""
    numbered = list(enumerate(sheets.items(), start=1))
    kinds = [("xl/workbook.xml", "sheet.main"), *((f"xl/worksheets/sheet{i}.xml", "worksheet") for i, _ in numbered)]
    overrides = "".join(f'<Override PartName="/{part}" ContentType="{MIME}.{kind}+xml"/>' for part, kind in kinds)
    links = "".join(
        f'<Relationship Id="rId{i}" Type="{RELATIONS}/worksheet" Target="worksheets/sheet{i}.xml"/>'
        for i, _ in numbered
    )
    names = "".join(f'<sheet name={quoteattr(name)} sheetId="{i}" r:id="rId{i}"/>' for i, (name, _) in numbered)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{CONTENT_TYPES}"><Default Extension="rels" ContentType='
        f'"application/vnd.openxmlformats-package.relationships+xml"/>{overrides}</Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="rId1" Type="{RELATIONS}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}"><sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}">{links}</Relationships>',
    }
    for i, (_, rows) in numbered:
        body = "".join(f'<row r="{r}">{_cells(row, r)}</row>' for r, row in enumerate(rows, start=1))
        parts[f"xl/worksheets/sheet{i}.xml"] = f'<worksheet xmlns="{MAIN}"><sheetData>{body}</sheetData></worksheet>'
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n' + text)
    write_bytes(path, stream.getvalue())


def _shared_strings(archive: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    return [_text(item) for item in ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))]


def _rows(archive: zipfile.ZipFile, target: str, shared: list[str]) -> Sheet:
    part = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
    rows: Sheet = []
    for row in ElementTree.fromstring(archive.read(part)).iter(f"{{{MAIN}}}row"):
        number = int(row.get("r", len(rows) + 1))
        rows += [[] for _ in range(min(number, 2**20) - 1 - len(rows))]  # rows left out are empty
        cells: list[str] = []
        for cell in row.iter(f"{{{MAIN}}}c"):
            column = _column(cell.get("r")) if cell.get("r") else len(cells)
            cells += [""] * (column - len(cells))
            cells.append(_value(cell, shared))
        rows.append(cells)
    return rows


def _value(cell: ElementTree.Element, shared: list[str]) -> str:
    if cell.get("t") == "inlineStr":
        return _text(cell).strip()
    value = cell.findtext(f"{{{MAIN}}}v", "")
    return (shared[int(value)] if cell.get("t") == "s" else value).strip()


def _text(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.iter(f"{{{MAIN}}}t"))


def _column(reference: str) -> int:
    """`B7` → 1."""
    letters = re.match(r"[A-Z]{1,3}", reference)
    if letters is None:
        raise ValueError(f"cell reference {reference!r}")
    column = 0
    for letter in letters[0]:
        column = 26 * column + ord(letter) - 64
    if column > MAX_COLUMNS:
        raise ValueError(f"cell reference {reference!r}")
    return column - 1


def _cells(row: Sequence[str | int | float | None], number: int) -> str:
    cells = []
    for column, value in enumerate(row):
        reference = f"{_letters(column)}{number}"
        if isinstance(value, str):
            cells.append(f'<c r="{reference}" t="inlineStr"><is><t>{escape(value)}</t></is></c>')
        elif value is not None:
            cells.append(f'<c r="{reference}"><v>{value}</v></c>')
    return "".join(cells)


def _letters(column: int) -> str:
    """1 → `B`."""
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(65 + rest) + letters
    return letters
