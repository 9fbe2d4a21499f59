"""Workbooks are read as text, and damaged ones are errors that say so."""

import openpyxl
import pytest

from rossam_core.errors import RossamError
from rossam_kit.datasets.sat_mtb import read_xlsx

from ..fake_datasets import write_xlsx


def test_cells_come_as_text(tmp_path):
    rows = [["", " a & b", '"<c>"'], [], ["train", 3, None, 4.5], [None, 1.0]]
    write_xlsx(tmp_path / "a.xlsx", {"one": rows, "two <&>": [[], ["x"]]})
    sheets = read_xlsx(tmp_path / "a.xlsx")
    assert sheets["one"] == [
        ["", "a & b", '"<c>"', ""],
        ["", "", "", ""],
        ["train", "3", "", "4.5"],
        ["", "1", "", ""],
    ]
    assert sheets["two <&>"] == [[""], ["x"]]


def test_formulas_without_a_computed_value_are_empty(tmp_path):
    workbook = openpyxl.Workbook()
    workbook.active["A1"], workbook.active["B1"] = "=1+1", "x"
    workbook.save(tmp_path / "a.xlsx")
    assert read_xlsx(tmp_path / "a.xlsx") == {"Sheet": [["", "x"]]}


@pytest.mark.parametrize("keep", [0, 100, 2000, 4000])
def test_what_is_no_workbook_is_an_error(tmp_path, keep):
    with pytest.raises(RossamError, match="no such file"):
        read_xlsx(tmp_path / "gone.xlsx")
    write_xlsx(tmp_path / "a.xlsx", {"one": [["x"]]})
    data = (tmp_path / "a.xlsx").read_bytes()
    (tmp_path / "a.xlsx").write_bytes(data[:keep])
    with pytest.raises(RossamError, match=r"a\.xlsx: is not a readable \.xlsx workbook"):
        read_xlsx(tmp_path / "a.xlsx")
    damaged = data[:keep] + bytes(500) + data[keep + 500 :]
    (tmp_path / "a.xlsx").write_bytes(damaged)
    with pytest.raises(RossamError, match="not a readable"):
        read_xlsx(tmp_path / "a.xlsx")
