"""The SatSOT reader on a hand-written sequence."""

from PIL import Image

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
