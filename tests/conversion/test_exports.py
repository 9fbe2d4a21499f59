"""What is exported is read back as what was converted, exactly."""

import dataclasses
import json

import cv2
import numpy as np
import pandas as pd
import pytest
from tiny_tracks import SIZE_HW, Notched, make_frames

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.records import ObjectAnnotation
from rossam_kit.convert import exports
from rossam_kit.convert.convert import ConversionConfig, convert
from rossam_kit.datasets.authors_format import read_authors_format
from rossam_kit.datasets.coco import read_coco
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.experiments.baselines import EllipseBaseline

CONFIG = ConversionConfig(shard_frames=2, jitter=0)


@pytest.fixture
def frames(tmp_path):
    """With an object whose mask will be empty, one that overlaps another, and a box that no format can hold."""
    frames = make_frames(tmp_path / "data")
    more = [ObjectAnnotation(3, "ship", (12.0, 6.5, 20.0, 20.0)), ObjectAnnotation(4, "train", (0.0, 0.0, 8.0, 8.0)),
            ObjectAnnotation(5, "ship", (70.0, 0.0, 80.0, 9.0))]  # fmt: skip
    return frames.subset([frames[0].with_objects([*frames[0].objects, *more]), *frames[1:]])


@pytest.fixture
def done(frames, tmp_path):
    return convert(Notched(empty_id=0.0), frames, tmp_path / "out", CONFIG)


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_coco_reads_back_boxes_tracks_and_masks_exactly(done, frames, form, tmp_path):
    path = exports.write_coco(done, tmp_path / "coco.json", form)
    content = json.loads(path.read_text())
    read = read_coco(path, content["info"]["image_root"], name="back")
    assert [(f.key, f.image_path) for f in read] == [(f.key, f.image_path) for f in frames]
    for back, found in zip(read, done, strict=True):
        kept = [record for record in found.objects if record.status != "failed"]
        assert [(o.object_id, o.category, o.box_xyxy) for o in back.objects] == [
            (r.object_id, r.category.lower(), r.box_xyxy) for r in kept
        ]
        for thing, record in zip(back.objects, kept, strict=True):
            assert thing.attributes["status"] == record.status
            assert thing.has_mask == record.has_mask
            assert not thing.has_mask or np.array_equal(thing.mask(SIZE_HW), record.full(SIZE_HW))
    assert content["drops"] == [{"where": "clip 0/000001 object 5", "reason": done.table["reason"][4]}]


def test_polygons_are_polygons_where_there_is_no_hole(frames, tmp_path):
    done = convert(EllipseBaseline(), frames, tmp_path / "out", CONFIG)
    content = json.loads(exports.write_coco(done, tmp_path / "coco.json", "polygons").read_text())
    for item in content["annotations"]:
        polygon = cv2.contourArea(np.array(item["segmentation"][0], dtype=np.float32).reshape(-1, 2))
        assert polygon == item["area"]


def test_label_maps_hold_every_visible_pixel_and_count_the_others(done, tmp_path):
    folder = exports.write_label_maps(done, tmp_path / "labels")
    listed = pd.read_csv(folder / "labels.csv", keep_default_na=False)
    assert len(listed) == len(done.table)
    for frame in done:
        label_map = cv2.imread(str(folder / frame.video / f"{frame.index:03d}.png"), -1)
        assert label_map.dtype == np.uint16 and label_map.shape == SIZE_HW
        union = np.zeros(SIZE_HW, dtype=bool)
        for record in frame.objects:
            mask = record.full(SIZE_HW)
            union |= mask
            line = listed.query("video == @frame.video and frame == @frame.index and object_id == @record.object_id")
            visible = label_map == line["label"].item()
            assert not (visible & ~mask).any()
            assert line["pixels"].item() == mask.sum() and line["hidden"].item() == mask.sum() - visible.sum()
        assert np.array_equal(label_map > 0, union)
    assert listed.query("hidden > 0")["object_id"].tolist() == [3], "the larger of two that overlap"
    assert (listed.groupby(["video", "object_id"])["label"].nunique() == 1).all()


def test_mots_counts_what_is_hidden_and_leaves_out_the_class_to_ignore(frames, tmp_path):
    listed_classes = FrameSet("ten", list(frames), classes=[(10, "ship"), (2, "NA"), (3, "train")])
    done = convert(Notched(), listed_classes, tmp_path / "out", CONFIG)
    folder = exports.write_mots(done, tmp_path / "mots")
    classes = pd.read_csv(folder / "classes.csv", keep_default_na=False)
    assert classes.values.tolist() == [[1, 10, "ship"], [2, 2, "NA"], [3, 3, "train"]]
    listed = pd.read_csv(folder / "annotations.csv")
    areas = [record.area for frame in done for record in frame.objects if record.has_mask]
    assert (listed["pixels"] + listed["hidden"]).tolist() == areas and listed["hidden"].sum() > 0


def test_a_name_that_leads_upwards_is_a_path_below_the_export(frames, tmp_path):
    upwards = dataclasses.replace(frames[0], source={"file_name": "../other/./a.png"})
    done = convert(Notched(), FrameSet("up", [upwards]), tmp_path / "out", CONFIG)
    assert list(exports.Names(done).stem_of.values()) == ["other/a"]


def test_the_authors_format_holds_boxes_and_masks_side_by_side(done, frames, tmp_path):
    folder = exports.write_authors_format(done, tmp_path / "train")
    for found, frame in zip(done, frames, strict=True):
        name = f"{found.video.replace(' ', '_')}_{found.index:06d}"
        kept = [record for record in found.objects if record.has_mask]
        boxes, stack = (np.load(folder / kind / f"{name}.npy") for kind in ("boxes", "onehotmask"))
        assert boxes.dtype == np.float64 and boxes.tolist() == [list(record.box_xyxy) for record in kept]
        assert stack.dtype == np.uint8 and set(np.unique(stack)) == {0, 255}
        assert np.array_equal(stack > 0, [record.full(SIZE_HW) for record in kept])
        assert np.array_equal(cv2.imread(str(folder / "img" / f"{name}.png"))[..., ::-1], frame.image())
    assert pd.read_csv(folder / "drops.csv")["place"].tolist() == ["clip 0/000001 object 4", "clip 0/000001 object 5"]
    read = read_authors_format(tmp_path, "train", cache=tmp_path / "cache")
    for back, found in zip(read, done, strict=True):
        kept = [record for record in found.objects if record.has_mask]
        assert (back.index, [o.box_xyxy for o in back.objects]) == (found.index, [r.box_xyxy for r in kept])
        for thing, record in zip(back.objects, kept, strict=True):
            assert np.array_equal(thing.mask(SIZE_HW), record.full(SIZE_HW))


def test_yolo_polygons_fill_to_the_same_masks_holes_and_pieces_too(done, tmp_path):
    folder = exports.write_yolo(done, tmp_path / "yolo")
    listing = (folder / "data.yaml").read_text()
    for frame in done:
        name = f"{frame.video}/{frame.index:03d}"
        kept = [record for record in frame.objects if record.has_mask]
        lines = (folder / "labels" / f"{name}.txt").read_text().splitlines()
        assert len(lines) == len(kept) and (folder / "images" / f"{name}.png").exists()
        for line, record in zip(lines, kept, strict=True):
            number, *values = line.split()
            points = np.array(values, dtype=float).reshape(-1, 2)
            assert points.min() >= 0 and points.max() <= 1
            polygon = (points * SIZE_HW[::-1]).ravel().tolist()
            assert np.array_equal(masks.decode([polygon], SIZE_HW), record.full(SIZE_HW))
            assert f'{number}: "{record.category}"' in listing


def test_videos_that_would_share_a_name_get_different_ones(done, frames, tmp_path):
    twins = FrameSet("twins", [frames[0], dataclasses.replace(frames[0], video="clip_0")])
    both = convert(EllipseBaseline(), twins, tmp_path / "twins", CONFIG)
    exports.write_authors_format(both, tmp_path / "authors")
    exports.write_yolo(both, tmp_path / "yolo")
    assert [p.name for p in sorted((tmp_path / "authors/img").iterdir())] == [
        "clip_0_000001.png",
        "clip_0_2_000001.png",
    ]
    assert len(list((tmp_path / "yolo").rglob("*.png"))) == 2
    with pytest.raises(RossamError, match="rle or polygons"):
        exports.write_coco(both, tmp_path / "bad.json", "bitmap")


@pytest.mark.parametrize("name", ["n" * 250, "飞" * 80, f"{'d' * 200}/{'n' * 200}"])
def test_names_as_long_as_a_file_system_allows_fit_into_every_format(frames, tmp_path, name):
    path = tmp_path / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    frames[0].image_path.rename(path)
    twins = [dataclasses.replace(f, video=v, image_path=path, source={"file_name": f"{name}.png"})
             for f, v in ((frames[0], name), (frames[0], f"{name}2"))]  # fmt: skip
    done = convert(EllipseBaseline(), FrameSet("long", twins), tmp_path / "out", CONFIG)
    for place, write in exports.EXPORTS.values():
        write(done, tmp_path / "exports" / place)
    assert len(list((tmp_path / "exports/authors").rglob("*.npy"))) == 4
    assert len(list((tmp_path / "exports/yolo").rglob("*.png"))) == 2


def test_an_unreadable_image_is_left_out_with_its_boxes_listed(frames, tmp_path):
    frames[1].image_path.unlink()
    done = convert(Notched(), frames, tmp_path / "out", CONFIG)
    path = exports.write_coco(done, tmp_path / "coco.json")
    content = json.loads(path.read_text())
    assert len(read_coco(path, content["info"]["image_root"], name="back")) == len(frames) - 1
    assert sum(drop["reason"].startswith("image: ") for drop in content["drops"]) == 2
    for write in (exports.write_label_maps, exports.write_authors_format, exports.write_yolo, exports.write_mots):
        folder = write(done, tmp_path / write.__name__)
        assert pd.read_csv(folder / "drops.csv")["reason"].str.startswith("image: ").sum() == 2
