"""The OOTB reader on a hand-written sequence."""

from PIL import Image

from rossam_kit.datasets.ootb import read_ootb


def test_corners_become_the_upright_box_around_them_and_stay(tmp_path):
    for name in ("ship_10", "ship_2"):
        (tmp_path / name / "img").mkdir(parents=True)
        Image.new("RGB", (30, 20)).save(tmp_path / name / "img/0001.jpg")
        (tmp_path / name / "groundtruth.txt").write_text("10,2,18,10,10,18.5,2,10\n")
    (tmp_path / "anno").mkdir()
    (tmp_path / "anno/ship_2.txt").write_text("1,0,0,0,0,1,0,0,0,0,1,1,0,0,1,1\n")
    frames = read_ootb(tmp_path, tmp_path.with_name(f"{tmp_path.name} cache"))
    assert [f.video for f in frames] == ["ship_2", "ship_10"]
    item = frames[0].objects[0]
    assert item.box_xyxy == (2, 2, 18, 18.5)
    assert item.attributes["oriented_box"] == [[10, 2], [18, 10], [10, 18.5], [2, 10]]
    assert frames[0].attributes["flags"] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1]
    assert [drop.where for drop in frames.drops] == ["anno/ship_10.txt"]


def test_corners_that_enclose_no_box_are_left_out_and_counted(tmp_path):
    (tmp_path / "ship_2/img").mkdir(parents=True)
    (tmp_path / "anno").mkdir()
    rows = ["10,2,18,10,10,18,2,10", "10,2,10,18,18,10,2,10", "1,1,5,5,9,9,3,3", "10,2,18,10,10,18.5,2,10"]
    for number in range(1, 5):
        Image.new("RGB", (30, 20)).save(tmp_path / f"ship_2/img/{number:04d}.jpg")
    (tmp_path / "ship_2/groundtruth.txt").write_text("\n".join(rows) + "\n")
    frames = read_ootb(tmp_path, tmp_path.with_name(f"{tmp_path.name} cache"))
    assert [len(f.objects) for f in frames] == [1, 0, 0, 1] and frames.input_boxes == 4
    assert [d.where for d in frames.drops if d.boxes] == [
        "ship_2/groundtruth.txt line 2",
        "ship_2/groundtruth.txt line 3",
    ]
