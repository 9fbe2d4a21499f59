"""The index round-trips exactly; anybody's COCO file is read, or refused with all its problems at once."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets.coco import read_coco, read_coco_index, write_coco_index
from rossam_kit.datasets.frame_set import Drop, FrameSet
from rossam_kit.datasets.images import AS_IT_IS

numbers = st.floats(allow_nan=False, allow_infinity=False, width=64).map(lambda v: v % 1000)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=6)
attributes = st.dictionaries(
    names, st.none() | st.booleans() | numbers | names | st.lists(st.integers(), max_size=2), max_size=2
)
polygons = st.lists(st.lists(numbers, min_size=6, max_size=8).filter(lambda p: len(p) % 2 == 0), min_size=1, max_size=2)


@st.composite
def frame_sets(draw):
    frames = []
    for index in range(draw(st.integers(0, 3))):
        height, width = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
        bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
        rle = masks.encode(np.array(bits).reshape(height, width))
        objects = tuple(
            ObjectAnnotation(
                draw(st.integers(0, 2**40)),
                draw(names),
                tuple(draw(st.lists(numbers, min_size=4, max_size=4))),
                draw(st.none() | st.just(rle) | polygons),
                draw(attributes),
            )
            for _ in range(draw(st.integers(0, 2)))
        )
        folder = draw(st.sampled_from(["/data/index", "/data/index/images", "/elsewhere"]))
        path = Path(folder) / f"{index}.png"
        frames.append(
            Frame(
                draw(names), draw(names), draw(st.integers(1, 10**6)), path, (height, width), objects, draw(attributes)
            )
        )
    drops = draw(st.lists(st.builds(Drop, names, names), max_size=2))
    return FrameSet(draw(names), frames, drops)


def content(frames: FrameSet):
    return frames.name, frames.frames, frames.drops


@settings(deadline=None, max_examples=60)
@given(frame_sets(), st.sampled_from([None, "/data/index/images", "/elsewhere"]))
def test_an_index_gives_back_exactly_what_was_written(tmp_path_factory, frames, image_root):
    folder = tmp_path_factory.mktemp("index")
    moved = [replace(f, image_path=folder / f.image_path.relative_to("/"), reading=AS_IT_IS) for f in frames]
    frames = frames.subset(moved)
    index = folder / "data/index/index.json"
    write_coco_index(frames, index, image_root and folder / image_root[1:])
    assert content(read_coco_index(index)) == content(frames)
    written = index.read_bytes()
    write_coco_index(read_coco_index(index), index, image_root and folder / image_root[1:])
    assert index.read_bytes() == written


@pytest.fixture
def dataset(tmp_path):
    """A small COCO dataset: two stills, three objects, one of them a crowd region."""
    (tmp_path / "images").mkdir()
    for name in ("b.png", "a.png"):
        Image.new("RGB", (20, 10)).save(tmp_path / "images" / name)
    rle = masks.encode(np.pad(np.ones((2, 3), bool), ((4, 4), (5, 12))))
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "height": 10, "width": 20},
            {"id": 3, "file_name": "a.png", "height": 10, "width": 20},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 4, 2, 4, 6]]},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [5, 4, 3, 2], "segmentation": rle},
            {"id": 9, "image_id": 3, "category_id": 4, "bbox": [-1, 2, 3, 4], "segmentation": []},
            {"id": 8, "image_id": 3, "category_id": 4, "bbox": [0, 0, 9, 9], "segmentation": [], "iscrowd": 1},
        ],
        "categories": [{"id": 4, "name": "Plane"}, {"id": 5, "name": "ship"}],
    }


def read(tmp_path, dataset, **options):
    (tmp_path / "coco.json").write_text(json.dumps(dataset))
    return read_coco(tmp_path / "coco.json", tmp_path / "images", name="mine", **options)


def test_a_plain_coco_file_becomes_frames_sorted_by_name(tmp_path, dataset):
    frames = read(tmp_path, dataset)
    assert [f.key for f in frames] == ["a/000001", "b/000001"]
    assert [f.size_hw for f in frames] == [(10, 20), (10, 20)]
    assert frames[0].boxes_xyxy.tolist() == [[-1, 2, 2, 6]]  # partly outside is legal
    assert [o.category for o in frames[1].objects] == ["plane", "ship"]
    assert frames[1].boxes_xyxy.tolist() == [[1, 2, 4, 6], [5, 4, 8, 6]]
    assert [o.has_mask for f in frames for o in f.objects] == [False, True, True]
    assert masks.box_of(frames[1].objects[1].mask((10, 20))) == (5, 4, 8, 6)
    assert frames.drops == (Drop("a.png annotation 8", "iscrowd: a region, not one object"),)
    assert frames[0].image().shape == (10, 20, 3)


def test_boxes_of_two_corners_are_read_where_said(tmp_path, dataset):
    dataset["annotations"] = [{"id": 1, "image_id": 7, "category_id": 4, "bbox": [1, 2, 5, 9]}]
    frames = read(tmp_path, dataset, box_convention="xyxy")
    assert frames[1].boxes_xyxy.tolist() == [[1, 2, 5, 9]]


def test_ids_classes_and_names_of_the_file_are_kept(tmp_path, dataset):
    frames = read(tmp_path, dataset)
    assert frames.classes == ((4, "Plane"), (5, "ship"))
    assert frames.class_of(frames[1].objects[0]) == (4, "Plane")
    assert frames[1].source == {"file_name": "b.png", "image_id": 7, "video_id": None}
    assert frames[1].objects[1].source == {"annotation_id": 2, "category_id": 5}
    write_coco_index(frames, tmp_path / "index.json")
    again = read_coco_index(tmp_path / "index.json")
    assert [(f.source, [o.source for o in f.objects]) for f in again] == [
        (f.source, [o.source for o in f.objects]) for f in frames
    ]
    assert again.classes == frames.classes and again.input_boxes == frames.input_boxes == 4


def test_an_index_has_the_ids_of_its_input_and_free_ones_for_what_is_new(tmp_path, dataset):
    frames = read(tmp_path, dataset)
    new = ObjectAnnotation(99, "ship", (1, 1, 3, 3))
    frames = frames.subset([frame.with_objects([*frame.objects, new]) for frame in frames])
    write_coco_index(frames, tmp_path / "index.json")
    content = json.loads((tmp_path / "index.json").read_text())
    files = {image["id"]: image["file_name"] for image in dataset["images"]}
    assert {image["id"]: image["file_name"].rpartition("/")[2] for image in content["images"]} == files
    given = {a["id"]: a["image_id"] for a in dataset["annotations"]}
    written = {a["id"]: (a["image_id"], a["track_id"]) for a in content["annotations"]}
    assert {number for number, (_, track) in written.items() if track == 99}.isdisjoint(given) and len(written) == 5
    assert all(given[number] == image for number, (image, track) in written.items() if track != 99)


def test_regions_are_objects_where_wanted(tmp_path, dataset):
    frames = read(tmp_path, dataset, keep_crowd=True)
    assert [o.object_id for o in frames[0].objects] == [9, 8] and frames.drops == ()
    dataset["annotations"][3]["iscrowd"] = "0"
    assert read(tmp_path, dataset).object_count == 4


def test_what_cannot_be_used_is_left_out_with_its_reason_where_wanted(tmp_path, dataset):
    (tmp_path / "images/a.png").unlink()
    dataset["annotations"][0] |= {"bbox": [9, 9, 0, 4], "segmentation": [[1, 2]]}
    dataset["annotations"].append({"id": 1, "image_id": 99, "category_id": 4, "bbox": [1, 2, 3, 4]})
    dataset["annotations"].append("nothing")
    frames = read(tmp_path, dataset, skip_bad=True)
    assert [o.object_id for f in frames for o in f.objects] == [2]
    assert {drop.where: drop.boxes for drop in frames.drops} == {
        "a.png": 0,
        "b.png annotation 1": 1,
        "a.png annotation 9": 1,
        "a.png annotation 8": 1,
        "annotations[4]": 1,
        "annotations[5]": 1,
    }
    reasons = {drop.where: drop.reason for drop in frames.drops}
    assert "has zero area" in reasons["b.png annotation 1"] and "has 1 points" in reasons["b.png annotation 1"]
    assert "no such image file" in reasons["a.png annotation 9"]
    assert frames.input_boxes == len(dataset["annotations"])


def test_a_box_that_is_not_around_its_mask_is_dropped_and_many_are_refused(tmp_path, dataset):
    dataset["annotations"][1]["bbox"] = [12, 0, 3, 2]
    frames = read(tmp_path, dataset)
    assert frames.drops[0].where == "b.png annotation 2" and "is not around its mask" in frames.drops[0].reason
    assert frames.input_boxes == 4 and frames.object_count == 2
    dataset["annotations"][0]["bbox"] = [12, 5, 3, 2]
    with pytest.raises(RossamError, match=r"annotation 1: .*not around its mask .*so are 2 of 2"):
        read(tmp_path, dataset)
    assert len(read(tmp_path, dataset, skip_bad=True).drops) == 3


@pytest.mark.parametrize(
    ("box", "convention"),
    [([4, 3, 14, 9], "xyxy"), ([9, 6, 10, 6], "cxcywh"), ([0.2, 0.3, 0.5, 0.6], "xywh-normalised")],
)
def test_boxes_of_another_convention_are_refused_with_its_name_and_read_by_it(tmp_path, dataset, box, convention):
    polygon = [[4, 3, 14, 3, 14, 9, 4, 9]]
    dataset["annotations"] = [{"id": 1, "image_id": 7, "category_id": 4, "bbox": box, "segmentation": polygon}]
    with pytest.raises(RossamError, match=f"--box-convention {convention}"):
        read(tmp_path, dataset)
    (item,) = read(tmp_path, dataset, box_convention=convention)[1].objects
    assert np.allclose(item.box_xyxy, (4, 3, 14, 9))


def test_boxes_without_masks_that_look_like_another_convention_are_read_as_said(tmp_path, dataset):
    dataset["annotations"] = [{"id": 1, "image_id": 7, "category_id": 4, "bbox": [11, 3, 19, 9]}]
    with pytest.raises(RossamError, match="--box-convention xyxy, or --box-convention xywh if they are right"):
        read(tmp_path, dataset)
    assert read(tmp_path, dataset, box_convention="xywh")[1].boxes_xyxy.tolist() == [[11, 3, 30, 12]]


def test_numbers_written_otherwise_are_read_as_what_they_are(tmp_path, dataset):
    dataset["videos"] = [{"id": "1", "name": "clip"}]
    dataset["images"][0] |= {"id": "7", "video_id": 1.0, "frame_id": "5", "height": "10", "width": 20.0}
    dataset["images"][1] |= {"video_id": "1", "frame_id": 40.0}
    dataset["annotations"][0] |= {"image_id": 7.0, "category_id": "4", "track_id": "77", "bbox": ["1", 2, 3, 4]}
    dataset["annotations"][1] |= {"segmentation": [5, 4, 8, 4, 8, 6, 5, 6]}
    frames = read(tmp_path, dataset)
    assert [(f.key, f.image_path.name) for f in frames] == [("clip/000005", "b.png"), ("clip/000040", "a.png")]
    assert [o.object_id for o in frames[0].objects] == [77, 2] and frames[0].objects[1].has_mask
    assert frames[0].source["image_id"] == "7"


@pytest.mark.parametrize("numbers", [("000005", "000040"), ("5.0", "40"), (" 5", 40.0)])
def test_a_frame_number_may_be_padded_and_an_id_that_is_padded_is_a_name(tmp_path, dataset, numbers):
    dataset["videos"] = [{"id": "01", "name": "padded"}, {"id": 1, "name": "clip"}]
    for image, number in zip(dataset["images"], numbers, strict=True):
        image |= {"video_id": "01", "frame_id": number}
    assert [frame.key for frame in read(tmp_path, dataset)] == ["padded/000005", "padded/000040"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"frame_id": "third"}, "frame number is 'third'"),
        ({"frame_id": 1.5}, "frame number is 1.5"),
        ({"frame_id": True}, "frame number is True"),
        ({"frame_id": "1.5"}, "frame number is '1.5'"),
        ({"frame_id": 10**30}, "frame number is 10"),
        ({"frame_id": [1]}, r"frame number is \[1\]"),
        ({"frame_index": -1}, "frame number is -1"),
        ({}, "some have a number"),
    ],
)
def test_frame_numbers_that_are_none_are_refused(tmp_path, dataset, fields, words):
    dataset["videos"] = [{"id": 1, "name": "clip"}]
    dataset["images"][0] |= {"video_id": 1} | fields
    dataset["images"][1] |= {"video_id": 1} | ({} if fields else {"frame_id": 3})
    if fields:
        dataset["images"][1]["frame_id"] = 9
    with pytest.raises(RossamError, match=words):
        read(tmp_path, dataset)


@pytest.mark.parametrize("key", ["track_id", "instance_id", "object_id"])
def test_objects_of_a_video_are_tracked_by_what_the_file_names_them(tmp_path, dataset, key):
    dataset["videos"] = [{"id": 1, "name": "clip"}]
    for number, image in enumerate(dataset["images"]):
        image |= {"video_id": 1, "frame_id": number}
    dataset["annotations"][0][key] = dataset["annotations"][2][key] = 2
    frames = read(tmp_path, dataset)
    assert [(f.index, [o.object_id for o in f.objects]) for f in frames] == [(0, [2, 3]), (1, [2])]  # 2 is a track's


def test_ids_of_more_than_64_bits_are_kept_like_names(tmp_path, dataset):
    dataset["annotations"][0]["track_id"] = huge = 2**64 - 1
    dataset["annotations"][1]["id"] = 2**80
    frames = read(tmp_path, dataset)
    assert all(item.object_id < 2**63 for frame in frames for item in frame.objects)
    first, second = sorted(frames[1].objects, key=lambda item: item.source["annotation_id"])
    assert first.source["track_id"] == huge and second.source["annotation_id"] == 2**80


def test_names_as_ids_are_kept_and_numbered(tmp_path, dataset):
    for section, keys in {
        "images": ["id"],
        "categories": ["id"],
        "annotations": ["id", "image_id", "category_id"],
    }.items():
        for entry in dataset[section]:
            entry |= {key: f"n-{entry[key]}" for key in keys}
    frames = read(tmp_path, dataset, keep_crowd=True)
    assert [[o.object_id for o in f.objects] for f in frames] == [[1, 2], [1, 2]]
    assert [o.source["annotation_id"] for f in frames for o in f.objects] == ["n-9", "n-8", "n-1", "n-2"]
    assert frames[0].source["image_id"] == "n-3" and frames.classes == (("n-4", "Plane"), ("n-5", "ship"))
    dataset["videos"] = [{"id": 1, "name": "clip"}]
    for number, image in enumerate(dataset["images"]):
        image |= {"video_id": 1, "frame_id": number}
    for item, track in zip(dataset["annotations"], ("boat", 1, "boat", "tug"), strict=True):
        item["instance_id"] = track
    frames = read(tmp_path, dataset, keep_crowd=True)
    assert [[o.object_id for o in f.objects] for f in frames] == [[2, 1], [2, 3]]
    assert [o.source.get("track_id") for f in frames for o in f.objects] == ["boat", None, "boat", "tug"]


def test_videos_of_one_name_stay_apart(tmp_path, dataset):
    dataset["videos"] = [{"id": 1, "name": "clip"}, {"id": 2, "name": "clip"}]
    for video, image in enumerate(dataset["images"], start=1):
        image |= {"video_id": video, "frame_id": video}
    assert [f.key for f in read(tmp_path, dataset)] == ["clip (1)/000001", "clip (2)/000002"]


def test_frames_without_numbers_are_counted_in_the_order_people_read(tmp_path, dataset):
    dataset["videos"] = [{"id": 1, "name": "clip"}]
    for image, name in zip(dataset["images"], ("f10.png", "f9.png"), strict=True):
        (tmp_path / "images" / image["file_name"]).rename(tmp_path / "images" / name)
        image |= {"file_name": name, "video_id": 1}
    assert [f.image_path.name for f in read(tmp_path, dataset)] == ["f9.png", "f10.png"]


@pytest.mark.parametrize(
    ("on_disk", "in_file"),
    [("é.png", "e\u0301.png"), ("e\u0301.png", "é.png"), ("sub/飞机 1.png", "sub\\飞机 1.png"), ("b.png", "./b.png")],
)
def test_a_name_is_found_in_whichever_form_it_is_written(tmp_path, dataset, on_disk, in_file):
    (tmp_path / "images/sub").mkdir()
    (tmp_path / "images/b.png").rename(tmp_path / "images" / on_disk)
    dataset["images"][0]["file_name"] = in_file
    frame = next(f for f in read(tmp_path, dataset) if len(f.objects) == 2)
    assert frame.image_path.exists() and frame.source["file_name"] == in_file


def test_keep_files_chooses_images_and_leaves_the_others_files_alone(tmp_path, dataset):
    (tmp_path / "images/b.png").unlink()
    kept = read(tmp_path, dataset, keep_files=["a.png"])
    assert [f.video for f in kept] == ["a"] and kept.input_boxes == 4
    assert [drop.reason for drop in kept.drops] == [*["of an image that is not asked for"] * 2, kept.drops[2].reason]
    with pytest.raises(RossamError, match=r"image c\.png: is asked for but not in the file"):
        read(tmp_path, dataset, keep_files=["a.png", "c.png"])


def test_sizes_the_file_does_not_state_come_from_the_headers(tmp_path, dataset):
    for image in dataset["images"]:
        del image["height"], image["width"]
    assert {f.size_hw for f in read(tmp_path, dataset)} == {(10, 20)}


def test_frames_of_a_video_are_numbered_as_stated_or_by_name(tmp_path, dataset):
    dataset["videos"] = [{"id": 1, "name": "clip"}]
    for image in dataset["images"]:
        image["video_id"] = 1
    assert [(f.key, f.image_path.name) for f in read(tmp_path, dataset)] == [
        ("clip/000001", "a.png"),
        ("clip/000002", "b.png"),
    ]
    dataset["images"][0]["frame_index"], dataset["images"][1]["frame_index"] = 5, 40
    dataset["annotations"][0]["track_id"] = 77
    frames = read(tmp_path, dataset)
    assert [(f.index, f.image_path.name) for f in frames] == [(5, "b.png"), (40, "a.png")]
    assert [o.object_id for o in frames[0].objects] == [77, 2]


def test_files_of_one_stem_keep_their_suffix_as_video_name(tmp_path, dataset):
    Image.new("RGB", (20, 10)).save(tmp_path / "images/a.jpg")
    dataset["images"].append({"id": 11, "file_name": "a.jpg", "height": 10, "width": 20})
    assert read(tmp_path, dataset).videos == ("a.jpg", "a.png", "b")


def spoil(dataset, section, position, **fields):
    dataset[section][position] |= fields


BAD = {
    "dangling image": (("annotations", 0, {"image_id": 99}), "annotation 1: image_id 99 points at nothing"),
    "no image": (("annotations", 0, {"image_id": None}), "annotation 1: image_id None points at nothing"),
    "dangling category": (("annotations", 1, {"category_id": 6}), "annotation 2: category_id 6 points at nothing"),
    "dangling video": (("images", 0, {"video_id": 5}), "image b.png: video_id 5 points at nothing"),
    "image id twice": (("images", 1, {"id": 7}), "images[1]: id 7 belongs to an earlier entry"),
    "file twice": (("images", 1, {"file_name": "b.png"}), "images[1]: file_name 'b.png' belongs to an earlier entry"),
    "annotation id twice": (("annotations", 1, {"id": 1}), "annotations[1]: id 1 belongs to an earlier entry"),
    "category id twice": (("categories", 1, {"id": 4}), "categories[1]: id 4 belongs to an earlier entry"),
    "file by number": (("images", 0, {"file_name": 5}), "images[0]: file_name is 5"),
    "no id": (("annotations", 1, {"id": None}), "annotations[1]: id is None"),
    "missing file": (("images", 0, {"file_name": "gone.png"}), "gone.png: no such image file"),
    "two points": (("annotations", 0, {"segmentation": [[1, 2, 3, 4]]}), "polygon 1 has 2 points"),
    "half a point": (("annotations", 0, {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}), "polygon 1 has 3.5 points"),
    "NaN polygon": (
        ("annotations", 0, {"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}),
        "flat list of finite numbers",
    ),
    "nested polygon": (("annotations", 0, {"segmentation": [[[1, 2], [3, 4]]]}), "flat list of finite numbers"),
    "far polygon": (("annotations", 0, {"segmentation": [[1, 2, 3, 4, 5, 1e9]]}), "polygon 1 has coordinate 1e+09"),
    "text mask": (("annotations", 0, {"segmentation": "mask.png"}), "segmentation is str"),
    "mask size": (
        ("annotations", 0, {"segmentation": {"size": [20, 10], "counts": "0"}}),
        "encoded for size [20, 10], the frame is [10, 20]",
    ),
    "mask counts": (("annotations", 0, {"segmentation": {"size": [10, 20], "counts": [3]}}), "do not fill the frame"),
    "mask cut off": (("annotations", 0, {"segmentation": {"size": [10, 20], "counts": "0"}}), "do not fill the frame"),
    "NaN box": (("annotations", 0, {"bbox": [1, float("nan"), 3, 4]}), "holds NaN"),
    "negative box": (
        ("annotations", 0, {"bbox": [9, 9, -3, 4]}),
        "bbox [9, 9, -3, 4] (xywh), as xyxy [9, 9, 6, 13] is inverted",
    ),
    "flat box": (("annotations", 0, {"bbox": [9, 9, 0, 4]}), "has zero area"),
    "box outside": (("annotations", 0, {"bbox": [30, 9, 3, 4]}), "wholly outside the frame of 10×20"),
    "no box": (("annotations", 0, {"bbox": None}), "bbox is None, expected four numbers"),
    "other size": (("images", 0, {"height": 11}), "height×width is 11×20, the file's is 10×20"),
    "turned size": (("images", 0, {"height": 20, "width": 10}), "turned by its EXIF tag"),
    "track twice": (("annotations", 1, {"track_id": 1}), "object 1 occurs twice"),
    "crowd": (("annotations", 0, {"iscrowd": "maybe"}), "iscrowd is 'maybe', expected 0 or 1"),
    "true as an id": (("annotations", 0, {"id": True}), "annotations[0]: id is True"),
    "size by name": (("images", 0, {"height": "tall"}), "height×width is tall×20"),
    "half a track": (("annotations", 1, {"track_id": 1.5}), "track_id or id is 1.5, expected a whole number or a name"),
    "no file name": (("images", 0, {"file_name": None}), "annotation 1: its image has no file_name"),
    "a name too long": (("images", 0, {"file_name": f"{'n' * 300}.png"}), "n.png: no such image file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_each_kind_of_fault_is_named(tmp_path, dataset, kind):
    (section, position, fields), words = BAD[kind]
    spoil(dataset, section, position, **fields)
    with pytest.raises(RossamError) as caught:
        read(tmp_path, dataset)
    assert str(caught.value).startswith(str(tmp_path / "coco.json")) and "Remedy: " in str(caught.value)
    assert words in str(caught.value)


def test_all_faults_are_told_at_once(tmp_path, dataset):
    spoil(dataset, "annotations", 0, bbox=[9, 9, -3, 4], segmentation=[[1, 2]])
    spoil(dataset, "annotations", 1, category_id=6)
    spoil(dataset, "images", 1, width=5)
    with pytest.raises(RossamError, match="4 problems"):
        read(tmp_path, dataset)


def test_an_unreadable_image_is_one_problem_not_one_for_each_of_its_objects(tmp_path, dataset):
    (tmp_path / "images/b.png").write_bytes(b"")
    with pytest.raises(RossamError, match=r"1 problem\n.*b\.png: is empty"):
        read(tmp_path, dataset)


@pytest.mark.parametrize(
    "content", [[], {}, {"images": [], "annotations": []}, {"images": [], "annotations": [], "categories": []}]
)
def test_other_json_is_refused(tmp_path, content):
    (tmp_path / "images").mkdir()
    with pytest.raises(RossamError, match=r"has no list|lists no images"):
        read(tmp_path, content)


def test_a_missing_image_folder_is_named(tmp_path, dataset):
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(RossamError, match="images: no such image folder"):
        read(tmp_path, dataset)


def test_an_index_is_coco_that_other_readers_open(tmp_path, dataset, capsys):
    frames = read(tmp_path, dataset)
    write_coco_index(frames, tmp_path / "index.json")
    coco = COCO(str(tmp_path / "index.json"))
    assert sorted(image["file_name"] for image in coco.loadImgs(coco.getImgIds())) == ["images/a.png", "images/b.png"]
    ship = coco.loadAnns(coco.getAnnIds(catIds=coco.getCatIds("ship")))[0]
    assert ship["bbox"] == [5, 4, 3, 2] and ship["area"] == 6 and coco.annToMask(ship).sum() == 6
    again = read_coco(tmp_path / "index.json", tmp_path, name="mine")
    assert again.frames == frames.frames


def test_an_index_moves_together_with_the_images_below_it(tmp_path, dataset):
    write_coco_index(read(tmp_path / "", dataset), tmp_path / "index.json")
    (tmp_path / "moved").mkdir()
    (tmp_path / "index.json").rename(tmp_path / "moved/index.json")
    (tmp_path / "images").rename(tmp_path / "moved/images")
    assert read_coco_index(tmp_path / "moved/index.json")[0].image().shape == (10, 20, 3)


@pytest.mark.parametrize("damage", [lambda c: c["images"][0].pop("height"), lambda c: c["categories"].clear()])
def test_a_damaged_index_is_an_error(tmp_path, dataset, damage):
    write_coco_index(read(tmp_path, dataset), tmp_path / "index.json")
    content = json.loads((tmp_path / "index.json").read_text())
    damage(content)
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(RossamError, match=r"index\.json: is damaged"):
        read_coco_index(tmp_path / "index.json")


def test_a_foreign_file_is_not_taken_for_an_index(tmp_path, dataset):
    read(tmp_path, dataset)
    with pytest.raises(RossamError, match=r"is not an index(?s:.)*read_coco"):
        read_coco_index(tmp_path / "coco.json")


def test_ten_thousand_images_are_indexed_without_decoding_any(tmp_path, dataset):
    header_only = (tmp_path / "images/a.png").read_bytes()[:60]  # decoding one would fail
    dataset["images"] = [{"id": i, "file_name": f"{i:05d}.png", "height": 10, "width": 20} for i in range(10_000)]
    polygon = [[1, 2, 4, 2, 4, 6]]
    dataset["annotations"] = [
        {"id": i, "image_id": i // 5, "category_id": 4, "bbox": [1, 2, 3, 4], "segmentation": polygon}
        for i in range(50_000)
    ]
    for image in dataset["images"]:
        (tmp_path / "images" / image["file_name"]).write_bytes(header_only)
    frames = read(tmp_path, dataset)
    assert len(frames) == 10_000 and frames.object_count == 50_000
