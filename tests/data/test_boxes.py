"""Boxes are N×4 xyxy of positive area that touch the frame, or an error that tells all faults at once."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rossam_core.boxes import check_boxes
from rossam_core.errors import RossamError
from rossam_kit.config import BoxConvention
from rossam_kit.datasets.box_conventions import CONVENTIONS, are_around, other_convention, to_xyxy, xywh_to_xyxy

SIZE_HW = (20, 30)


def test_good_boxes_come_back_as_float64_unchanged():
    boxes = check_boxes([[0, 0, 30, 20], [1.5, 2.25, 3, 4]], SIZE_HW, "boxes")
    assert boxes.dtype == np.float64
    assert boxes.tolist() == [[0, 0, 30, 20], [1.5, 2.25, 3, 4]]


@pytest.mark.parametrize("empty", [[], (), np.zeros((0, 4)), np.zeros(0)])
def test_no_boxes_are_legal(empty):
    assert check_boxes(empty, SIZE_HW, "boxes").shape == (0, 4)


def test_a_box_partly_outside_is_legal_and_unchanged():
    box = [[-5, -5, 1, 1], [29.5, 19.5, 90, 90], [-10, -10, 100, 100]]
    assert check_boxes(box, SIZE_HW, "boxes").tolist() == box


def test_every_fault_is_told_at_once_with_index_and_values():
    boxes = [
        [1, 1, 2, 2],
        [5, 1, 2, 2],
        [3, 3, 3, 9],
        [np.nan, 0, 1, 1],
        [0, 0, np.inf, 1],
        [30, 0, 40, 9],
        [0, -9, 9, 0],
    ]
    with pytest.raises(RossamError) as caught:
        check_boxes(boxes, SIZE_HW, "clip 7")
    message = str(caught.value)
    assert message.startswith("clip 7: 6 problems") and "box 0" not in message
    for line in (
        "box 1: [5, 1, 2, 2] is inverted",
        "box 2: [3, 3, 3, 9] has zero area",
        "box 3: [nan, 0, 1, 1] holds NaN",
        "box 4: [0, 0, inf, 1] holds NaN or infinity",
        "box 5: [30, 0, 40, 9] lies wholly outside the frame of 20×30",
        "box 6: [0, -9, 9, 0] lies wholly outside",
        "Remedy: ",
    ):
        assert line in message


@pytest.mark.parametrize(
    "boxes", [[1, 2, 3, 4], [[1, 2, 3]], [[[1, 2, 3, 4]]], [["a", 1, 2, 3]], [[1, 2, 3, 4], [1]], None]
)
def test_other_shapes_and_types_are_errors(boxes):
    with pytest.raises(RossamError, match="boxes"):
        check_boxes(boxes, SIZE_HW, "boxes")


@given(st.lists(st.tuples(*[st.floats(-50, 50)] * 4), max_size=8))
def test_boxes_pass_exactly_if_their_clipped_part_has_an_area(corners):
    boxes = np.array(corners).reshape(-1, 4)
    clipped = boxes.clip(0, [*SIZE_HW[::-1], *SIZE_HW[::-1]])
    good = (boxes[:, 2:] > boxes[:, :2]).all(1) & (clipped[:, 2:] > clipped[:, :2]).all(1)
    try:
        assert check_boxes(boxes, SIZE_HW, "boxes").shape == boxes.shape
        passed = np.ones(len(boxes), dtype=bool)
    except RossamError as error:
        passed = np.array([f"box {index}: " not in str(error) for index in range(len(boxes))], dtype=bool)
    np.testing.assert_array_equal(passed, good)


def test_xywh_becomes_xyxy_without_touching_its_input():
    boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert xywh_to_xyxy(boxes).tolist() == [[1, 2, 4, 6]]
    assert boxes.tolist() == [[1, 2, 3, 4]]


SIZE = (64, 96)
BOXES = np.array([[30, 20, 54, 36], [60, 30, 84, 50], [5, 40, 25, 60], [70, 4, 92, 18]], dtype=float)


def written_as(convention):
    """`BOXES` in the numbers of a convention."""
    form, _, unit = convention.partition("-")
    values = BOXES.copy()
    if form != "xyxy":
        values[:, 2:] -= values[:, :2]
    if form == "cxcywh":
        values[:, :2] += values[:, 2:] / 2
    return values / (np.tile(SIZE[::-1], 2) if unit else 1)


def test_a_profile_may_name_every_convention():
    assert get_args(BoxConvention) == CONVENTIONS


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_each_convention_is_read_and_recognised_where_another_was_expected(convention):
    values = written_as(convention)
    assert np.allclose(to_xyxy(values, convention, SIZE), BOXES)
    for expected in CONVENTIONS:
        found = other_convention(values, expected, SIZE, BOXES)
        assert found == (None if expected == convention else convention)
    assert other_convention(values, convention, SIZE) is None


@pytest.mark.parametrize(
    ("values", "other"),
    [
        ([[60, 20, 84, 36]], "xyxy"),
        ([[60, 20, 84, 36], [70, 30, 95, 60], [80, 40, 90, 50]], "xyxy"),
        ([[10 * i, 8 * i, 10 * i + 8, 8 * i + 8] for i in range(1, 7)], "xyxy"),  # a third of them out of the frame
        ([[0.3, 0.2, 0.25, 0.25]], "xywh-normalised"),
        ([[80, 50, 20, 20]], None),  # leaves the frame
        ([[-5, 10, 20, 20], [85, 30, 20, 20]], None),
        ([[30, 20, 24, 16], [40, 8, 10, 12], [60, 20, 84, 36]], None),
        (np.empty((0, 4)), None),
        ([[np.nan, 1, 2, 3]], None),
    ],
)
def test_boxes_without_masks_are_suspected_where_they_cannot_lie_in_the_frame(values, other):
    assert other_convention(np.array(values, dtype=float), "xywh", SIZE) == other


def test_a_box_is_around_its_mask_up_to_two_pixels_or_half_of_it():
    box = np.array([[10, 10, 20, 20.0]])
    for extent, expected in (((10, 10, 20, 20), True), ((12, 12, 18, 18), True), ((10, 10, 20, 14), False)):
        assert are_around(box, np.array([extent], dtype=float), SIZE).tolist() == [expected]
