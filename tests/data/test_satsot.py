"""The SatSOT reader on a hand-written sequence."""

import pytest
from PIL import Image

from rossam_core.errors import RossamError
from rossam_kit.datasets.frame_set import Drop
from rossam_kit.datasets.satsot import read_satsot


def test_rows_become_boxes_and_absence_an_empty_frame(tmp_path):
    (tmp_path / "SatSOT/car_07/img").mkdir(parents=True)
    for number in (1, 2, 3):
        Image.new("RGB", (30, 20)).save(tmp_path / f"SatSOT/car_07/img/{number:04d}.jpg")
    (tmp_path / "SatSOT/car_07/groundtruth.txt").write_text("1.5,2,3,4\r\nnone\r\n-2,3,5,5\r\n")
    frames = read_satsot(tmp_path, tmp_path / "cache")
    assert [f.key for f in frames] == ["car_07/000001", "car_07/000002", "car_07/000003"]
    assert [f.boxes_xyxy.tolist() for f in frames] == [[[1.5, 2, 4.5, 6]], [], [[-2, 3, 3, 8]]]
    assert {(f.size_hw, o.category, o.object_id) for f in frames for o in f.objects} == {((20, 30), "car", 1)}
    assert frames.drops == (Drop("car_07/groundtruth.txt line 2", "target absent (none)"),)


def test_litter_is_no_sequence_and_rows_of_corners_are_refused(tmp_path):
    for name in ("__MACOSX/SatSOT/car_07", "SatSOT/@eaDir", "SatSOT/System Volume Information", "SatSOT/car_07/img"):
        (tmp_path / name).mkdir(parents=True)
    for number in range(1, 6):
        Image.new("RGB", (30, 20)).save(tmp_path / f"SatSOT/car_07/img/{number:04d}.jpg")
    truth = tmp_path / "SatSOT/car_07/groundtruth.txt"
    truth.write_text("".join(f"{x},10,3,4\n" for x in range(20, 25)))
    frames = read_satsot(tmp_path, tmp_path / "cache")
    assert frames.object_count == frames.input_boxes == 5
    assert [name for _, name in frames.classes] == ["car", "plane", "ship", "train"]
    assert frames[0].source["file_name"] == "car_07/img/0001.jpg"
    truth.write_text("".join(f"{x},10,{x + 3},14\n" for x in range(20, 25)))
    with pytest.raises(RossamError, match="boxes are expected as xywh"):
        read_satsot(tmp_path, tmp_path / "cache")
