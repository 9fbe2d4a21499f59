"""The SAT-MTB reader on hand-written files."""

import json

import pytest
from PIL import Image

from rossam_core.errors import RossamError
from rossam_kit.datasets.sat_mtb import SHEETS, read_sat_mtb

from ..fake_datasets import write_xlsx

POLYGON = [10, 5, 20, 5, 20, 9, 10, 9]
XML = """<annotation><size><width>40</width><height>30</height></size>
<object><name>{name}</name><subname>{sub}</subname>
<objectID>4</objectID>{box}</object></annotation>"""
CORNERS = ((12, 4), (18, 10), (12, 16), (6, 10))


@pytest.fixture
def dataset(tmp_path):
    """A ship, a car without polygons, and an airplane that no sheet lists."""
    root = tmp_path / "SAT-MTB_Dataset"
    for video in ("ship/02", "car/01", "airplane/05"):
        (root / video / "img").mkdir(parents=True)
        (root / video / "mot").mkdir()
        for number in (1, 2):
            Image.new("RGB", (40, 30)).save(root / video / f"img/{number:06d}.png")
    ship = root / "ship/02"
    for part in ("seg", "det/HBB", "det/OBB"):
        (ship / part).mkdir(parents=True)
    content = {
        "images": [{"height": 30, "width": 40}],
        "categories": [{"id": 3, "name": "yacht", "supercategory": "ship"}],
        "annotations": [{"id": 1, "category_id": 3, "bbox": [10, 5, 20, 9], "segmentation": [POLYGON]}],
    }
    (ship / "seg/000001.json").write_text(json.dumps(content))
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3.5</xmax><ymax>4</ymax></bndbox>"
    (ship / "det/HBB/000001.xml").write_text(XML.format(name="YH", sub="ship", box=box))
    corners = "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in enumerate(CORNERS))
    (ship / "det/OBB/000001.xml").write_text(XML.format(name="ship", sub="YH", box=f"<robndbox>{corners}</robndbox>"))
    (ship / "mot/02").write_text("1,7,10,5,10,4,1,2,0,0,0\n2,7,11,5,10,4,1,2,0,0,0\n")
    (root / "car/01/mot/01.txt").write_text("2,1,0,0,3,3,1,0,0,0,0\n")
    (root / "airplane/05/mot/05.txt").write_text("2,1,0,0,3,3,1,1,0,0,0\n")
    sheets = {name: [["", "ship"], ["train", "2"]] for name in SHEETS.values()}
    sheets["mot"] = [["", "ship", "car"], ["train", None, 1.0], [None, 2], ["test"]]
    write_xlsx(root / "data_split.xlsx", sheets)
    return tmp_path


def read(dataset, split, kind="seg"):
    return read_sat_mtb(dataset, split, kind, dataset / "cache")


def test_polygons_and_corner_boxes_are_read(dataset):
    frames = read(dataset, "train")
    assert [f.key for f in frames] == ["ship/02/000001"]
    (ship,) = frames[0].objects
    assert (ship.category, ship.box_xyxy, ship.segmentation) == ("ship", (10, 5, 20, 9), [POLYGON])
    assert ship.attributes == {"kind": "yacht"} and ship.mask((30, 40)).sum() == 40
    assert {(d.where, d.reason) for d in frames.drops} == {
        ("airplane/05", "in no split of sheet seg of data_split.xlsx"),
        ("car/01", "in no split of sheet seg of data_split.xlsx"),
        ("ship/02/seg/000002.json", "no such file: the frame is not annotated"),
    }


def test_upright_and_oriented_boxes_are_read(dataset):
    (upright,) = read(dataset, "train", "hbb")[0].objects
    assert (upright.object_id, upright.category, upright.box_xyxy) == (4, "ship", (1, 2, 3.5, 4))
    (oriented,) = read(dataset, "train", "obb")[0].objects
    assert oriented.box_xyxy == (6, 4, 18, 16)
    assert oriented.attributes == {"kind": "YH", "oriented_box": [list(corner) for corner in CORNERS]}


def test_tracks_are_read_with_and_without_suffix_and_split(dataset):
    frames = read(dataset, "train", "mot")
    assert [(f.key, [(o.object_id, o.category, o.box_xyxy) for o in f.objects]) for f in frames] == [
        ("car/01/000001", []),
        ("car/01/000002", [(1, "car", (0, 0, 3, 3))]),
        ("ship/02/000001", [(7, "ship", (10, 5, 20, 9))]),
        ("ship/02/000002", [(7, "ship", (11, 5, 21, 9))]),
    ]
    assert len(read(dataset, "test", "mot")) == 0
    assert read(dataset, None, "mot").videos == ("airplane/05", "car/01", "ship/02")


def test_without_a_split_unlabelled_sequences_are_logged(dataset):
    frames = read(dataset, None)
    assert frames.videos == ("ship/02",)
    assert [d.where for d in frames.drops] == ["airplane/05/seg", "car/01/seg", "ship/02/seg/000002.json"]


def test_a_box_away_from_its_polygon_is_logged(dataset):
    path = dataset / "SAT-MTB_Dataset/ship/02/seg/000001.json"
    content = json.loads(path.read_text())
    content["annotations"].append(content["annotations"][0] | {"id": 2, "bbox": [30, 20, 35, 25]})
    path.write_text(json.dumps(content))
    frames = read(dataset, "train")
    assert [o.object_id for o in frames[0].objects] == [1]
    (drop,) = [drop for drop in frames.drops if "is not around its mask" in drop.reason]
    assert drop.where == "ship/02/seg/000001.json annotations[1]"


def test_boxes_given_by_width_and_height_are_a_problem(dataset):
    path = dataset / "SAT-MTB_Dataset/ship/02/seg/000001.json"
    content = json.loads(path.read_text())
    content["annotations"][0] |= {"bbox": [3, 5, 10, 9], "segmentation": [[3, 5, 13, 5, 13, 14, 3, 14]]}
    path.write_text(json.dumps(content))
    with pytest.raises(RossamError, match=r"000001\.json annotations\[\d\]: boxes are expected as xyxy: as xywh"):
        read(dataset, "train")


def test_a_track_of_two_classes_is_a_problem(dataset):
    path = dataset / "SAT-MTB_Dataset/ship/02/mot/02"
    path.write_text("1,7,10,5,10,4,1,2,0,0,0\n2,7,11,5,10,4,1,1,0,0,0\n")
    with pytest.raises(RossamError, match="line 2: object 7 is airplane, before ship"):
        read(dataset, "train", "mot")


def test_unknown_splits_and_kinds_are_errors(dataset):
    with pytest.raises(RossamError, match="no split 'val'"):
        read(dataset, "val")
    with pytest.raises(RossamError, match="no annotations 'pose'"):
        read(dataset, "train", "pose")
