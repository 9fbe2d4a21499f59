"""Boxes are N×4 xyxy of positive area that touch the frame, or an error that tells all faults at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rossam_core.data.boxes import check_boxes, xywh_to_xyxy
from rossam_core.errors import RossamError

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
