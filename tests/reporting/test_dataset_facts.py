"""Size, density and motion of a dataset, on boxes whose answers are known."""

import numpy as np
import pytest

from rossam_core.errors import RossamError
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.report import dataset_facts


def frame(index, *boxes, video="a"):
    things = tuple(ObjectAnnotation(i, "ship", box) for i, box in enumerate(boxes, start=1))
    return Frame("made", video, index, f"{index}.png", (1000, 1000), things)


def test_motion_is_a_frame_number_and_in_box_sides():
    other = frame(5, (0, 0, 1, 1), video="b")
    steps = dataset_facts.motion([frame(1, (0, 0, 10, 5)), frame(5, (12, 16, 22, 21)), other])
    assert len(steps) == 1
    assert steps["pixels"].item() == pytest.approx(5) and steps["sides"].item() == pytest.approx(0.5)


def test_another_class_under_the_same_number_is_another_object():
    car = Frame("made", "a", 2, "2.png", (9, 9), (ObjectAnnotation(1, "car", (50, 50, 52, 52)),))
    assert dataset_facts.motion([frame(1, (0, 0, 2, 2)), car]).empty


def test_boxes_without_masks_are_named_as_the_cause():
    for frames in ([], [frame(1, (0, 0, 2, 2))]):
        with pytest.raises(RossamError, match="no object with a mask"):
            dataset_facts.busiest_frame(frames)


def test_neighbours_are_measured_between_centres_and_lone_objects_have_none():
    pair = frame(1, (0, 0, 10, 10), (30, 0, 35, 10))
    assert dataset_facts.neighbour_distances([pair, frame(2, (0, 0, 1, 1))]) == pytest.approx([2.75, 2.75])
    assert dataset_facts.neighbour_distances([]).size == 0


def test_the_table_counts_what_each_measure_is_of():
    table = dataset_facts.statistics_table([frame(1, (0, 0, 10, 10), (30, 0, 35, 10)), frame(2)]).set_index("measure")
    assert table["n"].to_dict() == {
        "area of a mask, px²": 0,
        "longer side of a box, px": 2,
        "objects per frame": 2,
        "objects per megapixel": 2,
        "distance to nearest object, box sides": 2,
        "displacement per frame, px": 0,
        "displacement per frame, box sides": 0,
    }
    assert table.loc["objects per frame", "mean"] == table.loc["objects per megapixel", "mean"] == 1
    assert np.isnan(table.loc["displacement per frame, px", "mean"])
    assert table.loc["displacement per frame, px", "counted"] == dataset_facts.NO_MOTION
