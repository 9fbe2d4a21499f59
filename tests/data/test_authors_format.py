"""The reader of the authors' format on hand-written arrays."""

import numpy as np
import pytest
from PIL import Image

from rossam_core.errors import RossamError
from rossam_kit.datasets.authors_format import read_authors_format


def write(root, stem, boxes, stack, size=(8, 6)):
    for part in ("img", "boxes", "onehotmask"):
        (root / "train" / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(root / f"train/img/{stem}.png")
    np.save(root / f"train/boxes/{stem}.npy", np.array(boxes, dtype=np.float64))
    np.save(root / f"train/onehotmask/{stem}.npy", stack)


def test_boxes_and_masks_belong_together_by_row(tmp_path):
    stack = np.zeros((2, 6, 8), np.uint8)
    stack[0, 1:3, 2:5], stack[1, 4:, 6:] = 255, 255
    write(tmp_path, "ship_03_000012", [[2, 1, 5, 3], [5.5, 4, 8, 6]], stack)
    (frame,) = read_authors_format(tmp_path, "train", tmp_path / "cache")
    assert (frame.key, frame.size_hw) == ("ship_03/000012", (6, 8))
    assert [(o.object_id, o.category, o.box_xyxy) for o in frame.objects] == [
        (1, "ship", (2, 1, 5, 3)),
        (2, "ship", (5.5, 4, 8, 6)),
    ]
    for item, plane in zip(frame.objects, stack, strict=True):
        np.testing.assert_array_equal(item.mask(frame.size_hw), plane > 0)


def test_names_tell_video_and_frame(tmp_path):
    stems = {
        "train-2_7": ("train-2", 7),
        "P0005": ("P", 5),
        "0012": ("0012", 1),
        "a_1": ("a_1", 1),
        "a_01": ("a_01", 1),
    }
    for stem in stems:
        write(tmp_path, stem, np.zeros((0, 4)), np.zeros((0, 6, 8), np.uint8))
    frames = read_authors_format(tmp_path, "train", tmp_path / "cache")
    assert {f.image_path.stem: (f.video, f.index) for f in frames} == stems
    assert frames.object_count == 0


def test_a_missing_split_says_what_is_expected(tmp_path):
    with pytest.raises(RossamError, match=r"no such dataset(?s:.)*<split>/onehotmask(?s:.)*Zenodo record 15253996"):
        read_authors_format(tmp_path, "train")


def test_boxes_and_masks_that_contradict_each_other_are_left_out_or_refused(tmp_path):
    stack = np.zeros((2, 60, 80), np.uint8)
    stack[0, 10:30, 20:50], stack[1, 40:55, 60:75] = 255, 255
    write(tmp_path, "ship_1", [[20, 10, 50, 30], [5, 5, 30, 30]], stack, (80, 60))
    frames = read_authors_format(tmp_path, "train", tmp_path / "cache")
    assert [o.object_id for f in frames for o in f.objects] == [1] and frames.input_boxes == 2
    assert "is not around its mask" in frames.drops[0].reason
    write(tmp_path, "ship_1", [[20, 10, 30, 20], [60, 40, 15, 15]], stack, (80, 60))
    with pytest.raises(RossamError, match=r"ship_1\.npy object 1: boxes are expected as xyxy: as xywh they fit"):
        read_authors_format(tmp_path, "train", tmp_path / "cache")


def test_an_array_whose_header_is_damaged_is_named(tmp_path):
    stack = np.zeros((1, 60, 80), np.uint8)
    stack[0, 10:30, 20:50] = 255
    write(tmp_path, "ship_1", [[20, 10, 50, 30]], stack, (80, 60))
    path = tmp_path / "train/boxes/ship_1.npy"
    path.write_bytes(
        b"\x93NUMPY\x01\x00=\x00{'descr': '<f8/, 'fo,\x00\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': 4), F"
    )
    with pytest.raises(RossamError, match=r"ship_1\.npy: is no readable array"):
        read_authors_format(tmp_path, "train", tmp_path / "cache")
