"""The NWPU VHR-10 reader, on tiny made datasets and on the real one where it is at hand."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_kit.datasets import nwpu_vhr10
from rossam_kit.datasets.nwpu_vhr10 import CATEGORIES, SPLIT_FILE, read_nwpu_vhr10

IMAGES = "NWPU VHR-10 dataset/positive image set"


def make(folder, annotations_in=""):
    """Two images of the val split with one airplane each, laid out below `folder`."""
    (folder / IMAGES).mkdir(parents=True)
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "airplane"}]}
    for number in (1, 4):
        Image.new("RGB", (20, 10)).save(folder / IMAGES / f"{number:03d}.jpg")
        content["images"].append({"id": number - 1, "file_name": f"{number:03d}.jpg", "height": 10, "width": 20})
        polygon = [[1, 2, 5, 2, 5, 6, 1, 6]]
        item = {"id": number, "image_id": number - 1, "category_id": 1, "bbox": [1, 2, 5, 5], "segmentation": polygon}
        content["annotations"].append(item)
    (folder / annotations_in / "annotations.json").write_text(json.dumps(content))


@pytest.mark.parametrize("below", ["", "nwpu-vhr10", "data/nwpu-vhr10"])
@pytest.mark.parametrize("annotations_in", ["", "NWPU VHR-10 dataset"])
def test_the_dataset_is_found_at_or_below_the_folder(tmp_path, below, annotations_in):
    make(tmp_path / below, annotations_in)
    with pytest.warns(UserWarning, match=r"annotations\.json: md5 is .* not 7c76ec50"):
        frames = read_nwpu_vhr10(tmp_path)
    assert [f.key for f in frames] == ["001/000001", "004/000001"]
    assert frames[0].boxes_xyxy.tolist() == [[1, 2, 6, 7]]


def test_the_image_folder_itself_may_be_named(tmp_path):
    make(tmp_path)
    with pytest.warns(UserWarning, match="md5"):
        assert len(read_nwpu_vhr10(tmp_path / IMAGES)) == 2


def test_missing_images_of_a_split_are_an_error(tmp_path):
    make(tmp_path)
    with pytest.raises(RossamError, match=r"128 problems(?s:.)*image 009\.jpg: is asked for but not in the file"):
        read_nwpu_vhr10(tmp_path, "val")


def test_a_missing_dataset_says_what_is_expected_and_where_to_get_it(tmp_path):
    for root, found in ((tmp_path, "no such dataset"), (tmp_path / "gone", "no such folder")):
        with pytest.raises(RossamError) as caught:
            read_nwpu_vhr10(root)
        for words in (str(root), found, IMAGES, "torchgeo/vhr10", "chaozhong2010/VHR-10_dataset_coco"):
            assert words in str(caught.value)
    make(tmp_path)
    (tmp_path / "annotations.json").unlink()
    with pytest.raises(RossamError, match=r"but no annotations\.json"):
        read_nwpu_vhr10(tmp_path)


def test_an_unknown_split_is_an_error(tmp_path):
    with pytest.raises(RossamError, match="no split 'test'"):
        read_nwpu_vhr10(tmp_path, "test")


def test_the_packaged_split_covers_all_images_once():
    split = json.loads(SPLIT_FILE.read_text())
    assert (len(split["train"]), len(split["val"])) == (520, 130)
    assert sorted(split["train"] + split["val"]) == [f"{number:03d}.jpg" for number in range(1, 651)]


@pytest.fixture(scope="module")
def real(real_data):
    return read_nwpu_vhr10(real_data)


def test_real_counts_are_the_published_ones(real, real_data):
    assert (len(real), real.object_count, len(real.drops)) == (650, 3921, 0)
    assert set(real.categories) == set(CATEGORIES)
    val, train = read_nwpu_vhr10(real_data, "val"), read_nwpu_vhr10(real_data / "nwpu-vhr10", "train")
    assert (len(val), val.object_count) == (130, 743)
    assert (val.categories["airplane"], val.categories["ship"]) == (195, 61)
    assert (len(train), train.object_count) == (520, 3178)
    assert not set(val.videos) & set(train.videos)


def test_real_split_files_are_the_packaged_ones(real_data):
    packaged = json.loads(SPLIT_FILE.read_text())
    for split in ("train", "val"):
        assert (real_data / f"nwpu-vhr10/split_{split}.txt").read_text().split() == packaged[split]


def test_the_merged_airplanes_are_kept_and_noted(real):
    noted = [(f.video, o) for f in real for o in f.objects if o.attributes]
    assert [(video, o.object_id, o.category, len(o.segmentation)) for video, o in noted] == [("014", 82, "airplane", 2)]
    assert noted[0][1].attributes["note"] == "two airplanes annotated as one object"


def test_real_masks_are_not_empty_and_meet_their_boxes(real):
    offsets = np.array([np.subtract(o.box_xyxy, masks.box_of(o.mask(f.size_hw))) for f in real for o in f.objects])
    furthest = np.abs(offsets).max(axis=1)
    assert (furthest <= 1).sum() == 3538 and furthest.max() == 4
    assert np.median(offsets, axis=0).tolist() == [0, 0, 1, 1]


def test_a_changed_annotation_file_is_read_with_a_warning_and_without_notes(real_data, tmp_path):
    source = real_data / "nwpu-vhr10"
    (tmp_path / "NWPU VHR-10 dataset").mkdir()
    (tmp_path / IMAGES).symlink_to(source / IMAGES)
    shutil.copy(source / "annotations.json", tmp_path)
    (tmp_path / "annotations.json").chmod(0o644)
    with (tmp_path / "annotations.json").open("a") as stream:
        stream.write("\n")
    with pytest.warns(UserWarning, match=nwpu_vhr10.ANNOTATIONS_MD5):
        frames = read_nwpu_vhr10(tmp_path, "train")
    assert len(frames) == 520 and not any(o.attributes for f in frames for o in f.objects)
