"""Workbooks: ours are read back, and so is what other programs write."""

import zipfile

import pytest

from rossam_core.data.spreadsheet import MAIN, read_xlsx, write_xlsx
from rossam_core.errors import RossamError


def test_a_workbook_reads_back_as_text(tmp_path):
    rows = [["", "a & b", '"<c>"'], [], ["train", 3, None, 4.5], [None] * 30 + ["far"]]
    write_xlsx(tmp_path / "a.xlsx", {"one": rows, "two <&>": [["x"]]})
    sheets = read_xlsx(tmp_path / "a.xlsx")
    assert sheets["one"] == [["", "a & b", '"<c>"'], [], ["train", "3", "", "4.5"], [""] * 30 + ["far"]]
    assert sheets["two <&>"] == [["x"]]


def test_shared_strings_left_out_rows_and_rich_text_are_understood(tmp_path):
    write_xlsx(tmp_path / "a.xlsx", {"one": [["x"]]})
    with zipfile.ZipFile(tmp_path / "a.xlsx") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["xl/sharedStrings.xml"] = (
        f'<sst xmlns="{MAIN}"><si><t>ship</t></si><si><r><t>tr</t></r><r><t>ain </t></r></si></sst>'.encode()
    )
    parts["xl/worksheets/sheet1.xml"] = (
        f'<worksheet xmlns="{MAIN}"><sheetData><row r="2"><c r="B2" t="s"><v>1</v></c><c r="C2"><v>7</v></c></row>'
        '<row><c t="s"><v>0</v></c><c/></row></sheetData></worksheet>'
    ).encode()
    with zipfile.ZipFile(tmp_path / "b.xlsx", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    assert read_xlsx(tmp_path / "b.xlsx")["one"] == [[], ["", "train", "7"], ["ship", ""]]


def test_what_is_no_workbook_is_an_error(tmp_path):
    with pytest.raises(RossamError, match="no such file"):
        read_xlsx(tmp_path / "gone.xlsx")
    with zipfile.ZipFile(tmp_path / "other.xlsx", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(RossamError, match="not a readable"):
        read_xlsx(tmp_path / "other.xlsx")
