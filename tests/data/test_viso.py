"""The VISO reader on hand-written sequences, and on a real one where it is at hand."""

import pytest
from PIL import Image

from rossam_kit.datasets.viso import read_viso


def sequence(folder, frames=(1, 2, 3)):
    for number in frames:
        (folder / "img").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(folder / f"img/{number:06d}.jpg")
    (folder / "gt").mkdir(exist_ok=True)
    return folder / "gt"


@pytest.mark.parametrize(
    "text", ["1,5,2,3,4,5,1,1,-1,-1\n3,5,3,3,4,5,1,1,-1,-1\n", "1 5 2 3 6 8\n3 5 3 3 7 8 -1 -1 -1 -1\n"]
)
def test_the_delimiter_tells_how_the_box_is_given(tmp_path, text):
    (sequence(tmp_path / "mot/ship/045") / "gt.txt").write_text(text)
    frames = read_viso(tmp_path, tmp_path / "cache")
    assert [f.key for f in frames] == [f"mot/ship/045/{i:06d}" for i in (1, 2, 3)]
    assert [f.boxes_xyxy.tolist() for f in frames] == [[[2, 3, 6, 8]], [], [[3, 3, 7, 8]]]
    assert {(o.object_id, o.category) for f in frames for o in f.objects} == {(5, "ship")}


def test_tracks_of_one_sequence_meet_in_its_frames(tmp_path):
    folder = sequence(tmp_path / "sot/car/012", frames=(1, 2, 3, 4))
    (folder / "7_1_2.txt").write_text("1,2,3,4\n0,0,0,0\n")
    (folder / "9_2_3.txt").write_text("5,5,5,5\n6,5,x,5\n")
    frames = read_viso(tmp_path, tmp_path / "cache")
    assert [(f.index, [o.object_id for o in f.objects]) for f in frames] == [(1, [7]), (2, [9])]
    assert [(drop.where.split("/")[-1], drop.reason) for drop in frames.drops] == [
        ("7_1_2.txt line 2", "target absent"),
        ("9_2_3.txt line 2", "malformed row '6,5,x,5', expected x,y,w,h"),
        ("000003.jpg", "no box for this frame"),
        ("000004.jpg", "no box for this frame"),
    ]


def test_two_boxes_of_an_object_in_one_frame_leave_one_and_are_counted(tmp_path):
    folder = sequence(tmp_path / "sot/car/012", frames=(1, 2))
    (folder / "7_1_2.txt").write_text("1,2,3,4\n2,2,3,4\n")
    (folder / "7_2_2.txt").write_text("9,9,3,4\n")
    (sequence(tmp_path / "mot/car/001") / "gt.txt").write_text(
        "1,5,2,3,4,5,1\n1,5,9,9,4,5,1\n2,x,2,3,4,5,1\n3,5,40,3,4,5,1\n"
    )
    frames = read_viso(tmp_path, tmp_path / "cache")
    assert (frames.object_count, frames.input_boxes) == (3, 7)
    assert sum(drop.boxes for drop in frames.drops) == 4


def test_both_tasks_are_read_where_both_are_there(tmp_path):
    (sequence(tmp_path / "mot/car/001") / "gt.txt").write_text("1,5,2,3,4,5,1,1,-1,-1\n")
    (sequence(tmp_path / "sot/car/001", (1,)) / "1_1_1.txt").write_text("1,2,3,4\n")
    assert read_viso(tmp_path, tmp_path / "cache").videos == ("mot/car/001", "sot/car/001")


def test_a_real_sequence_is_read(real_data, tmp_path):
    frames = read_viso(real_data / "viso", tmp_path / "cache")
    assert [f.key for f in frames] == ["sot/car/012_26/000001"] and frames[0].size_hw == (1024, 1024)
    assert frames[0].boxes_xyxy.tolist() == [[423, 430, 433, 436]]
    assert frames[0].image().shape == (1024, 1024, 3) and frames[0].objects[0].category == "car"
    assert len(frames.drops) == 9 and {drop.reason for drop in frames.drops} == {"no box for this frame"}
