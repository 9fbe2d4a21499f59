"""Sentences of conclusions: the direction follows the interval, and fewer than three runs are named."""

import math

import pytest

from rossam_kit.experiments.statistics import Interval
from rossam_kit.report.conclusions import compare, conclusion, difference_sentence


@pytest.mark.parametrize(
    ("mean", "finding"), [(0.04, "is higher than"), (-0.04, "is lower than"), (0.01, "is not distinguishable from")]
)
def test_a_direction_is_stated_only_where_the_interval_excludes_zero(mean, finding):
    difference = Interval(mean, ((0.01**2, 23),), n=100, clusters=24)
    sentence = difference_sentence("ROS-SAM", "SAM", difference)
    assert sentence.startswith(f"**ROS-SAM** {finding} **SAM**: {100 * mean:+.1f} points of IoU (95% interval ")
    assert sentence.endswith("100 objects, 24 videos or images).")


@pytest.mark.parametrize(("seeds", "start"), [(1, "In one run, "), (2, "In two runs, "), (3, "**ROS-SAM**")])
def test_fewer_than_three_runs_are_named_and_bring_a_caution(seeds, start):
    sentence = difference_sentence("ROS-SAM", "SAM", Interval(0.1, ((0.01**2, 9),), n=50, clusters=10, seeds=seeds))
    assert sentence.startswith(start)
    assert sentence.endswith(", one run)." if seeds == 1 else f", {seeds} runs).")
    assert ("needs three runs" in conclusion(f"One half. {sentence}").data) == (seeds < 3)


def test_a_difference_without_interval_or_without_units_says_why():
    one_video = Interval(0.1, (), n=5, clusters=1, note="one video only")
    assert "+10.0 points of IoU, without an interval (one video only)" in difference_sentence("A", "B", one_video)
    nothing = Interval(math.nan, (), n=0, clusters=0, note="no scored unit")
    assert difference_sentence("A", "B", nothing) == "**A** against **B**: no scored unit."


def test_a_row_that_was_not_measured_is_named():
    assert compare([], "SAM2", "SAM") == "**SAM2** against **SAM**: SAM2 and SAM cannot be measured in this profile."
