"""The iSAID reader on made images, and on a real one where it is at hand."""

import numpy as np
import pytest
from PIL import Image

from rossam_core.errors import RossamError
from rossam_kit.datasets import isaid
from rossam_kit.datasets.isaid import CLASS_SUFFIX, COLOURS, ID_SUFFIX, MIN_AREA, read_isaid


@pytest.fixture
def dataset(tmp_path):
    """One image of 50×70 pixels; a ship of 10×20 lies across x = 40, a plane of 5×5 at the lower right."""
    folder = tmp_path / "iSAID/val/images"
    folder.mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    colours, ids = np.zeros_like(image), np.zeros_like(image)
    colours[10:20, 30:50], ids[10:20, 30:50] = COLOURS["ship"], (1, 2, 3)
    colours[42:47, 60:65], ids[42:47, 60:65] = COLOURS["plane"], (5, 0, 0)
    for suffix, array in ((".png", image), (CLASS_SUFFIX, colours), (ID_SUFFIX, ids)):
        Image.fromarray(array).save(folder / f"P0001{suffix}")
    return folder


def read(dataset):
    return read_isaid(dataset.parents[2], "val", dataset.parents[2] / "cache")


def test_an_image_smaller_than_a_patch_is_one_frame(dataset):
    (frame,) = read(dataset)
    assert (frame.key, frame.size_hw) == ("P0001/000001", (50, 70))
    np.testing.assert_array_equal(frame.image(), np.array(Image.open(dataset / "P0001.png")))
    plane, ship = frame.objects
    assert (plane.category, plane.box_xyxy, plane.attributes["source_id"]) == ("plane", (60, 42, 65, 47), 5)
    assert (ship.category, ship.box_xyxy) == ("ship", (30, 10, 50, 20))
    assert ship.attributes == {"source_id": 1 + 256 * 2 + 65536 * 3, "visible": 1.0}
    assert ship.mask((50, 70)).sum() == 200


def test_objects_are_cut_at_the_borders_of_patches(dataset, monkeypatch):
    monkeypatch.setattr(isaid, "PATCH", 40)
    monkeypatch.setattr(isaid, "OVERLAP", 10)
    frames = read(dataset)
    whole = np.array(Image.open(dataset / "P0001.png"))
    found = {}
    for frame in frames:
        x, y = frame.attributes["patch_xy"]
        np.testing.assert_array_equal(frame.image(), whole[y : y + 40, x : x + 40])
        for item in frame.objects:
            found[x, y, item.category] = (item.object_id, item.box_xyxy, item.attributes["visible"])
    # Columns begin at 0 and 30, rows at 0 and 10 (moved back from 30 to end at the border).
    assert found == {
        (0, 0, "ship"): (2, (30, 10, 40, 20), 0.5),
        (30, 0, "ship"): (2, (0, 10, 20, 20), 1.0),
        (0, 10, "ship"): (2, (30, 0, 40, 10), 0.5),
        (30, 10, "ship"): (2, (0, 0, 20, 10), 1.0),
        (30, 10, "plane"): (1, (30, 32, 35, 37), 1.0),
    }


def test_slivers_and_empty_patches_are_logged(dataset, monkeypatch):
    monkeypatch.setattr(isaid, "PATCH", 31)
    monkeypatch.setattr(isaid, "OVERLAP", 11)
    frames = read(dataset)
    dropped = [drop.reason for drop in frames.drops]
    assert any(f"fewer than {MIN_AREA}" in reason for reason in dropped)
    assert any("hold no object" in reason for reason in dropped)


def test_only_new_images_are_cut_again(dataset):
    frames = read(dataset)
    frames[0].image_path.write_bytes(b"kept")
    for suffix in (".png", CLASS_SUFFIX, ID_SUFFIX):
        (dataset / f"P0002{suffix}").write_bytes((dataset / f"P0001{suffix}").read_bytes())
    again = read(dataset)
    assert again.videos == ("P0001", "P0002") and again[0].image_path.read_bytes() == b"kept"
    again[0].image_path.unlink()
    assert read(dataset)[0].image_path.stat().st_size > 4


def test_the_test_split_has_no_masks(dataset):
    with pytest.raises(RossamError, match="no split 'test' with masks"):
        read_isaid(dataset, "test")


def test_a_real_image_is_read(real_data, tmp_path, monkeypatch):
    frames = read_isaid(real_data / "isaid", "train", tmp_path)
    assert [(f.key, f.size_hw, f.attributes["patch_xy"]) for f in frames] == [
        ("P0005/000001", (800, 800), [0, 0]),
        ("P0005/000002", (800, 800), [84, 0]),
        ("P0005/000003", (800, 800), [0, 177]),
        ("P0005/000004", (800, 800), [84, 177]),
    ]
    objects = {o.object_id: o for f in frames for o in f.objects}
    assert set(objects) == set(range(1, 132)) and set(frames.categories) == {"large_vehicle", "small_vehicle"}
    assert all(o.mask(f.size_hw).any() for f in frames for o in f.objects)
    monkeypatch.setattr(isaid, "PATCH", 1000)
    (whole,) = read_isaid(real_data / "isaid", "train", tmp_path)
    assert sum(int(o.mask(whole.size_hw).sum()) for o in whole.objects) == 20325 + 135058
    assert len(whole.objects) == 131
