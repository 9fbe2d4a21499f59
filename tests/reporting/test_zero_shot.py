"""Zero-shot clips: chosen by rule, shown over time, judged without true masks."""

import numpy as np
import pytest

from rossam_core.errors import RossamError
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.config import SyntheticConfig, load_profile
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.synthetic.video import generate
from rossam_kit.experiments.baselines import BoxBaseline, EllipseBaseline
from rossam_kit.experiments.experiments import Experiments
from rossam_kit.report import pictures, zero_shot

MADE = {
    "variant": "zero-shot",
    "test_videos": 2,
    "frames_per_video": 3,
    "frame_stride": 1,
    "scenes": ["airport", "sea"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def clips(cache):
    frames = generate(SyntheticConfig(**MADE), "test", cache / "synthetic")
    return zero_shot.choose_clips(frames, 3, 3)


def track(video, category, object_id, boxes):
    return [
        Frame("made", video, i, f"{i}.png", (100, 100), (ObjectAnnotation(object_id, category, tuple(box)),))
        for i, box in enumerate(boxes, start=1)
    ]


def test_classes_come_in_turn_and_cars_not_at_all():
    frames = [
        frame
        for video, category in (("a", "plane"), ("b", "plane"), ("c", "ship"), ("d", "car"))
        for frame in track(video, category, 1, [(10, 10, 20, 20)] * 4)
    ]
    chosen = zero_shot.choose_clips(FrameSet("made", frames), 3, 4)
    assert [clip.category for clip in chosen] == ["plane", "ship", "plane"]
    assert {clip.frames.name for clip in chosen} == {"a #1", "b #1", "c #1"}


def test_moments_are_spread_over_the_track_and_cut_tracks_come_last():
    whole = track("a", "ship", 1, [(10 + i, 10, 20 + i, 20) for i in range(11)])
    cut = track("b", "ship", 2, [(0, 10, 9 + i, 20) for i in range(11)])
    brief = track("c", "ship", 3, [(30, 30, 40, 40)] * 2)
    (clip,) = zero_shot.choose_clips(FrameSet("made", [*whole, *cut, *brief]), 5, 3)
    assert clip.object_id == 1 and [frame.index for frame in clip.frames] == [1, 6, 11]
    (alone,) = zero_shot.choose_clips(FrameSet("made", cut), 5, 3)
    assert alone.object_id == 2


def test_every_method_is_judged_on_the_same_boxes(clips):
    judged = zero_shot.judge(clips, {"box": BoxBaseline(), "ellipse": EllipseBaseline()})
    count = sum(len(clip.frames) for clip in clips)
    assert judged.groupby("method").size().to_dict() == {"box": count, "ellipse": count}
    box, ellipse = (judged[judged["method"] == name] for name in ("box", "ellipse"))
    assert (box["fill"] == 1).all() and (box["leakage"] == 0).all() and (box["temporal_consistency"] > 0.9).all()
    assert (ellipse["fill"] < 0.85).all() and judged["iou"].between(0, 1).all()
    table = zero_shot.signs_table(judged)
    assert list(table["method"].unique()) == ["Filled box", "Inscribed ellipse"] and "true IoU" in table
    assert set(zero_shot.long_signs(judged)["sign"]) == set(zero_shot.SHOWN.values())


def test_clips_without_true_masks_have_signs_and_no_iou(clips):
    bare = [
        zero_shot.Clip(
            c.dataset, c.category, c.object_id,
            FrameSet(c.frames.name, [f.with_objects([ObjectAnnotation(o.object_id, o.category, o.box_xyxy)
                                                     for o in f.objects]) for f in c.frames]),
        )
        for c in clips
    ]  # fmt: skip
    judged = zero_shot.judge(bare, {"ellipse": EllipseBaseline()})
    assert judged["iou"].isna().all() and judged["fill"].notna().all()
    assert "true IoU" not in zero_shot.signs_table(judged)
    views = zero_shot.views(bare[0].frames, {"ellipse": EllipseBaseline()})
    assert all(view.target is None and np.count_nonzero(view.masks["ellipse"]) for view in views)
    assert pictures.filmstrip(views, titles=bare[0].titles).axes


def test_generated_stand_ins_of_several_datasets_stay_apart(cache):
    sets = {f"datasets.{name}": {"source": "synthetic", "synthetic": MADE} for name in ("satsot", "viso", "ootb")}
    clips, account = zero_shot.gather(Experiments(load_profile("smoke", sets), cache), 1)
    names = ["stand-in for satsot", "stand-in for viso", "stand-in for ootb"]
    assert [clip.dataset for clip in clips] == names and (account["clips"] == 1).all()
    assert len({clip.frames.name for clip in clips}) == 3
    judged = zero_shot.judge(clips, {"box": BoxBaseline()})
    assert judged.groupby("dataset").size().to_dict() == dict.fromkeys(names, 3)


def test_datasets_that_are_missing_are_told_and_the_others_shown(cache, tmp_path):
    here = {"datasets.satsot": {"source": "synthetic", "synthetic": MADE}}
    gone = {"viso": {"source": "viso", "root": str(tmp_path)}}
    both = load_profile("smoke", {"datasets": {"satsot": here["datasets.satsot"], **gone}})
    clips, account = zero_shot.gather(Experiments(both, cache), 2)
    assert len(clips) == 2
    notes = dict(zip(account["dataset"], account["note"], strict=True))
    assert "true masks are known" in notes["satsot"] and "not here" in notes["viso"]
    with pytest.raises(RossamError, match="viso: not here"):
        zero_shot.gather(Experiments(load_profile("smoke", {"datasets": gone}), cache))
