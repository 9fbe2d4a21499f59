"""Tables show every row, a reason for every gap, the notice, and text as text."""

import numpy as np
import pandas as pd
import pytest

from rossam_core.errors import RossamError
from rossam_core.evaluation.statistics import Interval
from rossam_core.reporting.tables import (
    ComparisonRow,
    Published,
    Table,
    comparison_table,
    published,
)

NOTICE = "Measured on generated video."


def interval(mean):
    return Interval(mean, mean - 0.05, mean + 0.04, 1234, 24)


def cells(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_published_numbers_are_found_by_name_and_misspelling_is_answered():
    assert published("table1", "SAM + inference pipeline") == Published(43.41, 43.30)
    assert published("table6", "ROS-SAM", "nwpu-vhr10").iou == 87.46
    assert published("table2")["row"].iloc[0] == "Baseline"
    with pytest.raises(RossamError, match="did you mean 'table4'"):
        published("tabel4")
    with pytest.raises(RossamError, match="stands there for isaid, nwpu-vhr10"):
        published("table6", "SAM")


def test_comparison_shows_published_beside_measured_with_differences_against_the_first_row():
    measured = {
        "SAM": (interval(0.4), interval(0.38)),
        "SAM + inference pipeline": (interval(0.5), interval(0.49), interval(0.1)),
    }
    rows = [ComparisonRow(name, published("table1", name), *found) for name, found in measured.items()]
    rows.append(ComparisonRow("SAM2", published("table1", "SAM2"), reason="no weights"))
    rows.append(ComparisonRow("Filled box", None, interval(0.3), interval(0.2)))
    table = comparison_table(rows, notice=NOTICE)
    first, pipeline, sam2, box = cells(table)
    assert first == [
        "SAM",
        "37.25",
        "37.14",
        "40.00",
        "38.00",
        "35.00 to 44.00",
        "first row",
        "first row",
        "1,234 (24)",
    ]
    assert pipeline[6:8] == ["+6.16", "+10.00\n(+5.00 to +14.00)"]
    assert sam2[1:3] == ["36.80", "36.67"] and sam2[3:6] == ["no weights"] * 3 and sam2[6] == "−0.45"
    assert box[1:3] == ["not in the paper"] * 2 and box[7] == "−10.00"
    assert [c.strong for c in (row[3] for row in table.rows)] == [False, True, False, False]


def test_a_verdict_column_appears_once_there_is_a_verdict_and_is_then_full():
    rows = [ComparisonRow("a", iou=interval(0.4), biou=interval(0.4), verdict="reproduced"),
            ComparisonRow("b", iou=interval(0.5), biou=interval(0.5))]  # fmt: skip
    table = comparison_table(rows)
    assert [row[-1].text for row in table.rows] == ["reproduced", "no claim tested"]
    assert 'class="verdict yes"' in table.to_html()


def test_gaps_without_a_reason_are_refused():
    with pytest.raises(RossamError, match="no reason for its absence"):
        comparison_table([ComparisonRow("a", iou=interval(0.4))])


def test_an_interval_that_cannot_be_had_says_why():
    lone = Interval(0.4, np.nan, np.nan, 9, 1, note="one video only")
    none = Interval(np.nan, np.nan, np.nan, 0, 0, note="no scored unit")
    table = comparison_table([ComparisonRow("a", iou=lone, biou=lone), ComparisonRow("b", iou=none, biou=none)])
    assert cells(table)[0][3:6] == ["40.00", "40.00", "one video only"]
    assert cells(table)[1][3:6] == ["no scored unit"] * 3
    assert "nan" not in table.to_html() + table.to_csv()


@pytest.mark.parametrize("render", ["to_html", "to_csv", "_repr_html_"])
def test_every_rendering_holds_all_rows_no_blank_and_the_notice(render):
    frame = pd.DataFrame({"name": ["alpha", None, "gamma"], "value": [1.5, float("nan"), -2.25]})
    text = getattr(Table.from_frame(frame, missing={"value": "too small", "name": "unnamed"}, notice=NOTICE), render)()
    for expected in ("alpha", "unnamed", "gamma", "too small", NOTICE):
        assert expected in text
    assert "<td></td>" not in text and "|  |" not in text and ",," not in text and "nan" not in text.lower()


def test_html_is_escaped_and_neighbours_missing_for_one_reason_become_one_cell():
    frame = pd.DataFrame({"<script>": ["<b>&"], "x": [np.nan], "y": [np.nan]})
    html = Table.from_frame(frame, missing="<none>", notice="<i>").to_html()
    assert "<script>" not in html and "<b>" not in html and "<i>" not in html
    assert '<td colspan="2" class="number missing">&lt;none&gt;</td>' in html


def test_numbers_keep_their_order_when_sorted_and_their_digits_in_csv():
    table = Table.from_frame(pd.DataFrame({"n": [1234, 5], "iou": [0.123456, -1.0], "flag": [True, False]}))
    assert 'data-sort="1234.0">1,234<' in table.to_html() and ">−1.00<" in table.to_html()
    assert table.to_csv().splitlines()[1] == "1234,0.123456,True"
    assert [c.numeric for c in table.columns] == [True, True, False]


def test_json_round_trip_is_exact():
    rows = [ComparisonRow("a", Published(1, 2), interval(0.4), interval(0.3)), ComparisonRow("b", reason="later")]
    table = comparison_table(rows, notice=NOTICE)
    assert Table.from_json(table.to_json()) == table
    assert table.with_notice("other").notice == NOTICE
