"""What a twin writer lays out, the format's reader gives back: the same boxes, masks, tracks and splits."""

import numpy as np
import pytest

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_kit.config import SyntheticConfig
from rossam_kit.convert.outlines import outlines
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.sat_mtb import read_sat_mtb
from rossam_kit.datasets.synthetic.video import generate

from ..fake_datasets import WRITERS, polygons_of, write_twin
from .scenes import READERS, SIZE, made_frames

PLANE = {"airplane": "plane"}
# Format → its category names, whether masks survive, and which frames of the source its videos are:
# "video": a video a video; "image": a video an image; "object": a video an object of a video.
FORMS = {
    "sat-mtb": ({}, True, "video"),
    "sat-mtb hbb": ({}, False, "video"),
    "sat-mtb obb": ({}, False, "video"),
    "sat-mtb mot": ({}, False, "video"),
    "authors": ({"airplane": "object", "ship": "object"}, True, "video"),
    "isaid": (PLANE, True, "image"),
    "satsot": (PLANE, False, "object"),
    "ootb": (PLANE, False, "object"),
    "viso mot": (PLANE, False, "video"),
    "viso sot": (PLANE, False, "video"),
    "nwpu-vhr10": ({}, True, "image"),
    "coco": ({}, True, "video"),
}


def contents(frames, names) -> list:
    """Category, box, and mask of every object, by position of video and frame in their order."""
    found = []
    for position, video in enumerate(dict.fromkeys(f.video for f in frames)):
        for moment, frame in enumerate([f for f in frames if f.video == video]):
            for item in frame.objects:
                mask = masks.to_rle(item.segmentation, frame.size_hw)["counts"] if item.has_mask else None
                found.append((position, moment, names.get(item.category, item.category), item.box_xyxy, mask))
    return found


def expected_contents(frames, form, names, has_masks) -> list:
    """The same of the source, its frames grouped as the format groups them."""
    if form == "object":
        tracks = dict.fromkeys((f.video, o.object_id) for f in frames for o in f.objects)
        split = [
            frame.__class__(
                frame.dataset, f"{video} {number}", frame.index, frame.image_path, frame.size_hw,
                tuple(o for o in frame.objects if o.object_id == number),
            )
            for video, number in tracks
            for frame in frames
            if frame.video == video
        ]  # fmt: skip
        frames = FrameSet(frames.name, split)
    rows = contents(frames, names)
    if form == "image":
        keys = {key: n for n, key in enumerate(dict.fromkeys((row[0], row[1]) for row in rows))}
        rows = [(keys[row[0], row[1]], 0, *row[2:]) for row in rows]
    return rows if has_masks else [(*row[:4], None) for row in rows]


@pytest.mark.filterwarnings("ignore:.*annotations.json. md5")
@pytest.mark.parametrize("format", FORMS)
def test_a_twin_reads_back_as_what_was_written(tmp_path, format):
    names, has_masks, form = FORMS[format]
    frames = made_frames(tmp_path / "source")
    write_twin(frames, format.split()[0], tmp_path / "twin")
    again = READERS[format](tmp_path / "twin", tmp_path / "cache")
    ours, theirs = contents(again, {}), expected_contents(frames, form, names, has_masks)
    assert [row[:3] + row[4:] for row in ours] == [row[:3] + row[4:] for row in theirs]
    np.testing.assert_allclose([row[3] for row in ours], [row[3] for row in theirs], atol=1e-6)
    assert all(frame.image().shape == (*SIZE, 3) for frame in again) and again.drops == ()


def test_formats_without_loss_keep_the_pixels(tmp_path):
    frames = made_frames(tmp_path / "source")
    for format in ("sat-mtb", "authors", "coco"):
        write_twin(frames, format, tmp_path / format)
        again = READERS[format](tmp_path / format, tmp_path / "cache")
        for mine, theirs in zip(frames, again, strict=True):
            np.testing.assert_array_equal(mine.image(), theirs.image())


def test_generated_video_goes_through_its_twin_unchanged(tmp_path):
    config = SyntheticConfig(scale=0.1, test_videos=4, frames_per_video=2, frame_stride=1)
    frames = generate(config, "test", tmp_path / "generated")
    masked = frames.keep_objects(lambda o: o.has_mask, "no mask")
    write_twin(masked, "sat-mtb", tmp_path / "twin")
    again = read_sat_mtb(tmp_path / "twin", "test", cache=tmp_path / "cache")
    tracks = {
        (o.object_id, o.box_xyxy, masks.to_rle(o.segmentation, f.size_hw)["counts"]) for f in masked for o in f.objects
    }
    assert tracks and tracks == {
        (o.object_id, o.box_xyxy, masks.to_rle(o.segmentation, f.size_hw)["counts"]) for f in again for o in f.objects
    }


def test_splits_are_written_side_by_side(tmp_path):
    frames = made_frames(tmp_path / "source")
    one, two = (frames.subset([f for f in frames if f.video == video]) for video in ("one", "two"))
    for part, split in ((one, "train"), (two, "test"), (one, "test")):
        write_twin(part, "sat-mtb", tmp_path / "twin", split)
    train, test = (read_sat_mtb(tmp_path / "twin", split, cache=tmp_path / "cache") for split in ("train", "test"))
    assert train.videos == ("airplane/01",) and test.videos == ("airplane/02", "ship/01")


def test_polygons_fill_to_exactly_their_mask(rng):
    for share in (0.2, 0.5, 0.9):
        mask = rng.random((9, 11)) < share
        np.testing.assert_array_equal(masks.decode(polygons_of(mask), mask.shape), mask)
    square = np.pad(np.ones((4, 4), bool), 2)
    assert len(polygons_of(square)) == len(outlines(square)) == 1


def test_a_category_without_a_class_in_the_format_is_refused(tmp_path):
    frames = made_frames(tmp_path / "source")
    with pytest.raises(RossamError, match=r"isaid has no class for train(?s:.)*keep_objects"):
        strange = [o.__class__(o.object_id, "train", o.box_xyxy, o.segmentation) for o in frames[0].objects]
        write_twin(frames.subset([frames[0].with_objects(strange)]), "isaid", tmp_path / "twin")
    with pytest.raises(RossamError, match="no format of that name(?s:.)*" + ", ".join(WRITERS)):
        write_twin(frames, "tiff", tmp_path / "twin")
    with pytest.raises(RossamError, match="no split of that name"):
        write_twin(frames, "coco", tmp_path / "twin", "all")
