"""The sampling manifest: the same draw everywhere, nothing left out in silence."""

import numpy as np
import pytest

from rossam_core.errors import RossamError
from rossam_core.masks import encode
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets import sampling
from rossam_kit.datasets.frame_set import FrameSet

MASK = encode(np.eye(8, dtype=bool))
EXPECTED = [f"airplane/01/{n:06d}" for n in (6, 7, 10)] + [f"ship/03/{n:06d}" for n in (7, 8)]
"""By `printf '0/airplane/01/000006' | sha256sum` and so on, sorted: a second implementation."""


def item(category="airplane", segmentation=MASK):
    return ObjectAnnotation(1, category, (0.0, 0.0, 8.0, 8.0), segmentation)


@pytest.fixture
def frames(tmp_path):
    """Two videos to draw from, one with two unlabelled frames; one of cars, one with boxes only, one with nothing."""
    made = []
    for video, objects in {
        "airplane/01": (item(),),
        "car/02": (item("car"),),
        "ship/03": (item("ship"), item("car", None)),
        "train/11": (item("train", None),),
        "train/12": (),
    }.items():
        for index in range(1, 11):
            path = tmp_path / video / "img" / f"{index:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{video} {index}".encode())
            kept = () if video == "ship/03" and index <= 2 else objects
            made.append(Frame("twin", video, index, path, (8, 8), kept))
    return FrameSet("twin", made)


def test_the_draw_is_the_same_on_every_machine(frames):
    """The very frames, as computed once; a change here changes what every published number was measured on."""
    keys = [frame.key for frame in sampling.draw_manifest(frames, fraction=0.25, seed=0).frames]
    assert keys == EXPECTED
    shuffled = frames.subset(frames.frames[::-1])
    assert [frame.key for frame in sampling.draw_manifest(shuffled).frames] == keys
    alone = frames.subset([frame for frame in frames if frame.video == "ship/03"])
    assert [frame.key for frame in sampling.draw_manifest(alone).frames] == [k for k in keys if k.startswith("ship")]


def test_a_quarter_of_each_video_is_drawn_and_a_larger_fraction_holds_a_smaller(frames):
    quarter = sampling.draw_manifest(frames)
    half = sampling.draw_manifest(frames, fraction=0.5)
    assert [sum(f.key.startswith(v) for f in quarter.frames) for v in ("airplane", "ship")] == [3, 2]  # of 10 and 8
    assert {f.key for f in quarter.frames} < {f.key for f in half.frames}
    assert len(sampling.draw_manifest(frames, fraction=0.001).frames) == 2  # one a video at least
    assert {f.key for f in sampling.draw_manifest(frames, seed=1).frames} != {f.key for f in quarter.frames}


def test_every_frame_has_the_same_chance(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    video = FrameSet("one", [Frame("one", "v", index, path, (8, 8), (item(),)) for index in range(1, 41)])
    drawn = [int(frame.key[-6:]) for seed in range(200) for frame in sampling.draw_manifest(video, 0.25, seed).frames]
    counts = np.bincount(drawn, minlength=41)[1:]
    assert counts.sum() == 2000
    chi_square = ((counts - 50) ** 2 / (50 * 0.75)).sum()
    assert 20 < chi_square < 66  # 0.5% and 99.5% points of chi square with 39 degrees of freedom


def test_cars_and_videos_without_masks_are_excluded_with_count_and_reason(frames):
    manifest = sampling.draw_manifest(frames)
    assert [(e.video, e.frames, e.reason) for e in manifest.exclusions] == [
        ("car/02", 10, "whole video: only objects of excluded categories (car)"),
        ("ship/03", 2, "single frames: no objects annotated"),
        ("train/11", 10, "whole video: boxes but no masks"),
        ("train/12", 10, "whole video: no objects annotated"),
    ]
    with_cars = sampling.draw_manifest(frames, exclude_categories=())
    assert any(frame.key.startswith("car/02") for frame in with_cars.frames)


def test_written_and_read_back_it_is_the_same(frames, tmp_path):
    manifest = sampling.draw_manifest(frames)
    path = tmp_path / "manifest.json"
    manifest.write(path)
    assert sampling.read_manifest(path) == manifest
    text = path.read_text()
    assert "airplane/01/img/" in text and str(tmp_path) not in text
    path.write_text(text.replace(manifest.frames[0].key, "airplane/01/000000"))
    with pytest.raises(RossamError, match="do not fit its digest"):
        sampling.read_manifest(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.json", "{", "not valid JSON"),
        ("m.json", "[]", "valid dictionary"),
        ("m.json", '{"format": "rossam-sampling-1"}', "dataset: Field required"),
        ("m.json", '{"frames": [], "format": "other"}', "should be 'rossam-sampling-1'"),
        ("m.json", '{"frames": [{}], "format": "rossam-sampling-1"}', r"frames\.0\.key: Field required"),
        ("m.json", '{"frames": 3, "format": "rossam-sampling-1", "dataset": "a"}', "frames: Input should be"),
        ("m.json", None, "no such file"),
    ],
)
def test_damaged_manifests_are_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RossamError, match=message):
        sampling.read_manifest(tmp_path / name)


def test_applied_it_keeps_the_drawn_frames_and_logs_every_other(frames):
    manifest = sampling.draw_manifest(frames)
    sampled = sampling.apply(frames, manifest)
    assert [frame.key for frame in sampled] == [frame.key for frame in manifest.frames]
    assert len(sampled) + len(sampled.drops) == len(frames)
    reasons = {drop.where: drop.reason for drop in sampled.drops}
    assert "excluded categories (car)" in reasons["car/02/000001"]
    assert reasons["train/11/000001"] == "boxes but no masks"
    assert reasons["ship/03/000001"] == "no objects annotated"
    assert sum("not in the sample of 0.25" in reason for reason in reasons.values()) == 13


def test_missing_frames_are_told_all_at_once(frames):
    manifest = sampling.draw_manifest(frames)
    absent = [frame.key for frame in manifest.frames[:2]]
    with pytest.raises(RossamError) as error:
        sampling.apply(frames.subset([frame for frame in frames if frame.key not in absent]), manifest)
    assert "2 problems" in str(error.value) and all(key in str(error.value) for key in absent)


def test_doubled_frames_and_senseless_fractions_are_refused(frames):
    with pytest.raises(RossamError, match="is both"):
        sampling.draw_manifest(frames.subset([*frames, frames[0]]))
    for fraction in (0, 1.5, float("nan")):
        with pytest.raises(RossamError, match="expected above 0"):
            sampling.draw_manifest(frames, fraction=fraction)
