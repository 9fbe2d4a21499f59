"""Frame sets: what is left out is logged, and the fingerprint moves with whatever may move a score."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rossam_core import masks
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets.frame_set import Drop, FrameSet


@pytest.fixture
def frames(tmp_path):
    Image.new("RGB", (8, 5), (10, 20, 30)).save(tmp_path / "a.png")
    plane = ObjectAnnotation(1, "plane", (1, 1, 3, 3), masks.encode(np.eye(5, 8, dtype=bool)))
    car = ObjectAnnotation(2, "car", (4, 0, 8, 5))
    made = [Frame("made", "v1", i, tmp_path / "a.png", (5, 8), (plane, car)) for i in (1, 2)]
    return FrameSet("made", made)


def test_a_frame_gives_its_pixels_boxes_and_masks(frames):
    frame = frames[0]
    assert (frame.image() == [10, 20, 30]).all() and frame.image().shape == (5, 8, 3)
    assert frame.key == "v1/000001"
    assert frame.boxes_xyxy.tolist() == [[1, 1, 3, 3], [4, 0, 8, 5]]
    assert frame.with_objects([]).boxes_xyxy.shape == (0, 4)
    np.testing.assert_array_equal(frame.objects[0].mask(frame.size_hw), np.eye(5, 8, dtype=bool))
    with pytest.raises(ValueError, match="no mask"):
        frame.objects[1].mask(frame.size_hw)


def test_every_object_left_out_leaves_a_drop_and_its_frame_stays(frames):
    kept = frames.keep_objects(lambda o: o.has_mask, "no mask")
    assert len(kept) == 2 and kept.categories == {"plane": 2}
    assert kept.drops == (Drop("v1/000001 object 2", "no mask"), Drop("v1/000002 object 2", "no mask"))
    assert kept.keep_objects(lambda o: True, "never").drops == kept.drops


def test_a_slice_is_a_frame_set_with_the_same_drops(frames):
    part = frames.subset(frames.frames, [Drop("x", "y")])[:1]
    assert isinstance(part, FrameSet) and len(part) == 1 and part.drops == (Drop("x", "y"),)


def test_the_fingerprint_moves_with_boxes_masks_order_and_image_files(frames):
    def changed(**fields):
        plane, car = frames[0].objects
        return FrameSet("made", [frames[0].with_objects([replace(plane, **fields), car]), frames[1]])

    prints = {
        frames.fingerprint(),
        changed(box_xyxy=(1, 1, 3, 3.5)).fingerprint(),
        changed(category="ship").fingerprint(),
        changed(segmentation=None).fingerprint(),
        FrameSet("made", frames.frames[::-1]).fingerprint(),
    }
    assert changed().fingerprint() == frames.fingerprint()
    frames[0].image_path.write_bytes(b"shorter")
    prints.add(frames.fingerprint())
    assert len(prints) == 6
