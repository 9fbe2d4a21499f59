"""The reader of DOTA text on hand-written files."""

import pytest
from PIL import Image

from rossam_core.errors import RossamError
from rossam_kit.datasets.dota import read_dota

ROW = "10 2 18 10 10 18.5 2 10 {}\n"


@pytest.fixture
def folder(tmp_path):
    for name in ("P1", "P2", "P3"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (30, 20)).save(tmp_path / f"images/{name}.png")
    (tmp_path / "labelTxt-v1.5").mkdir()
    rows = ROW.format("Plane 1") + ROW.format("ship") + "40 2 48 2 48 8 40 8 ship 0\n" + ROW.format("ship 0")
    (tmp_path / "labelTxt-v1.5/P1.txt").write_text("imagesource:GoogleEarth\ngsd:0.146\n" + rows)
    (tmp_path / "labelTxt-v1.5/P2.txt").write_text("")
    return tmp_path


def test_corners_become_the_upright_box_around_them_and_stay(folder, tmp_path):
    frames = read_dota(folder, tmp_path / "cache")
    assert [(frame.video, len(frame.objects)) for frame in frames] == [("P1", 3), ("P2", 0)]
    plane, ship, _ = frames[0].objects
    assert plane.category == "plane" and plane.box_xyxy == (2, 2, 18, 18.5)
    assert plane.attributes == {"oriented_box": [[10, 2], [18, 10], [10, 18.5], [2, 10]], "difficult": 1}
    assert "difficult" not in ship.attributes and frames.input_boxes == 4
    reasons = {drop.where: drop.reason for drop in frames.drops}
    assert reasons["images/P3.png"] == "has no label file"
    assert "wholly outside" in reasons["labelTxt-v1.5/P1.txt line 5"]


def test_all_bad_rows_are_reported_at_once(folder, tmp_path):
    (folder / "labelTxt-v1.5/P2.txt").write_text("1 2 3 4 5 6 7 ship 0\n1 2 x 4 5 6 7 8 ship 0\n")
    (folder / "labelTxt-v1.5/P9.txt").write_text(ROW.format("ship 0"))
    with pytest.raises(RossamError, match=r"3 problems(?s:.)*P2\.txt line 1(?s:.)*P2\.txt line 2(?s:.)*P9\.txt"):
        read_dota(folder, tmp_path / "cache")
