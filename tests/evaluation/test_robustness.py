"""Disturbances: nothing at level 0, the same draw at every level, never more than they say; curves are kept."""

import cv2
import numpy as np
import pandas as pd
import pytest

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.config import EvaluationConfig, load_profile
from rossam_kit.experiments.baselines import BoxBaseline, EllipseBaseline
from rossam_kit.experiments.experiments import Experiments, RowSpec
from rossam_kit.experiments.robustness import (
    DISTURBANCES,
    chosen_objects,
    disturbed,
    drift,
    robustness,
    robustness_curve,
)

SIZE = (80, 120)
DEFAULTS = {"seed": 0, "evaluation": EvaluationConfig()}
BOX_KINDS = [name for name, kind in DISTURBANCES.items() if kind.box]
IMAGE_KINDS = [name for name, kind in DISTURBANCES.items() if kind.image]


@pytest.fixture
def frames(tmp_path, rng):
    """Three videos of four frames: two ellipses a frame, one of them at the border, and a car without a mask."""
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), rng.integers(60, 180, (*SIZE, 3), dtype=np.uint8))
    made = []
    for video in "abc":
        for index in range(1, 5):
            things = [ObjectAnnotation(3, "car", (50.0, 5.0, 58.0, 9.0))]
            for number, middle in enumerate([(40, 40), (116, 76)], 1):
                bitmap = np.zeros(SIZE, np.uint8)
                cv2.ellipse(bitmap, middle, (14, 7), 0, 0, 360, 1, -1)
                things.append(ObjectAnnotation(number, "ship", masks.box_of(bitmap > 0), masks.encode(bitmap)))
            made.append(Frame("made", video, index, path, SIZE, tuple(things)))
    return made


@pytest.mark.parametrize("name", DISTURBANCES)
def test_level_zero_is_the_frame_itself_and_draws_repeat(name, frames):
    frame = chosen_objects(frames)[0]
    image, boxes = disturbed(frame, name, 0)
    assert np.array_equal(image, frame.image()) and np.array_equal(boxes, frame.boxes_xyxy)
    one, two = disturbed(frame, name, 0.3, seed=5), disturbed(frame, name, 0.3, seed=5)
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])


def test_jitter_stays_within_its_level_and_scales_one_draw(frames):
    frame = chosen_objects(frames)[0]
    inner, size = frame.boxes_xyxy[:1], np.tile(np.diff(frame.boxes_xyxy[:1].reshape(1, 2, 2), axis=1)[0], 2)
    little, much = (disturbed(frame, "jitter", level)[1][:1] - inner for level in (0.1, 0.3))
    assert np.allclose(much, 3 * little) and (np.abs(much) <= 0.3 * size).all() and (much != 0).all()
    assert not np.allclose(much, disturbed(frame, "jitter", 0.3, seed=1)[1][:1] - inner)


def test_loosened_boxes_hold_the_old_ones(frames):
    frame = chosen_objects(frames)[0]
    loose, tight = disturbed(frame, "loosen", 0.2)[1][0], frame.boxes_xyxy[0]
    assert np.allclose(loose[2:] - loose[:2], 1.4 * (tight[2:] - tight[:2]))
    assert np.allclose(loose[2:] + loose[:2], tight[2:] + tight[:2])


def test_a_tracker_drifts_slowly_and_each_track_its_own_way(frames):
    box, at = np.array([0.0, 0, 10, 20]), lambda i: Frame("made", "v", i, frames[0].image_path, SIZE)
    paths = np.array([[drift(box, 0.1, at(i), t, 0)[:2] / (1, 2) for i in range(1, 41)] for t in range(150)])
    assert np.std(paths) == pytest.approx(1, abs=0.1)  # a tenth of 10 px, in each axis
    for lag, expected in ((1, np.exp(-0.1)), (10, np.exp(-1)), (35, 0.03)):
        measured = np.corrcoef(paths[:, :-lag].ravel(), paths[:, lag:].ravel())[0, 1]
        assert measured == pytest.approx(expected, abs=0.08)


def test_images_lose_what_each_disturbance_takes(frames):
    frame = chosen_objects(frames)[0]
    plain = frame.image().astype(float)
    noisy, blurred, hazy = (disturbed(frame, name, level)[0].astype(float) for name, level in
                            (("noise", 10), ("blur", 2), ("haze", 0.5)))  # fmt: skip
    assert np.std(noisy - plain) == pytest.approx(10, rel=0.05)
    assert blurred.std() < 0.5 * plain.std() and blurred.mean() == pytest.approx(plain.mean(), abs=1)
    assert np.abs(hazy - (plain + 225) / 2).max() <= 0.5


def test_objects_are_evenly_spaced_and_frames_hold_no_others(frames):
    chosen = chosen_objects(frames)
    assert sum(len(frame.objects) for frame in chosen) == 6  # two a video
    assert {frame.video for frame in chosen} == {"a", "b", "c"}
    assert all(thing.has_mask for frame in chosen for thing in frame.objects)
    assert [f.key for f in chosen_objects(frames[::-1])] == [f.key for f in chosen]


@pytest.mark.parametrize("name", BOX_KINDS)
def test_a_filled_box_suffers_from_poor_boxes(name, frames):
    table = robustness_curve(BoxBaseline(), frames, name, (0, 0.15, 0.6), **DEFAULTS)
    means = table.groupby("level")["iou"].mean()
    assert means[0] > means[0.15] > means[0.6]
    assert set(table["status"]) <= {"ok", "empty"} and (table.groupby("level").size() == 6).all()


@pytest.mark.parametrize("name", IMAGE_KINDS)
def test_who_looks_at_no_image_suffers_from_none(name, frames):
    table = robustness_curve(EllipseBaseline(), frames, name, DISTURBANCES[name].levels, **DEFAULTS)
    assert (table.groupby(["video", "frame", "object_id"])["iou"].nunique() == 1).all()


def test_an_unknown_disturbance_names_the_known_ones(frames):
    with pytest.raises(RossamError, match="jitter, loosen"):
        disturbed(frames[0], "rain", 0.1)
    with pytest.raises(RossamError, match="no object"):
        chosen_objects([frames[0].with_objects([])])


def test_a_curve_is_computed_once(tmp_path, monkeypatch):
    few = {"data.limit_frames": 2, "data.synthetic.test_videos": 1, "data.synthetic.scenes": ["sea"]}
    few |= {"disturbance_levels": 2}
    experiments = Experiments(load_profile("smoke", few), tmp_path)
    spec = RowSpec(label="Ellipse", baseline="ellipse")
    first = robustness(experiments, [spec])
    monkeypatch.setattr(Experiments, "predictor", lambda *_: pytest.fail("predicted twice"))
    pd.testing.assert_frame_equal(robustness(experiments, [spec]), first)
    levels = first.groupby("disturbance")["level"].unique().map(list)
    assert levels["jitter"] == [0, 0.2, 0.3] and levels["noise"] == [0, 20, 40] and (levels.map(len) == 3).all()
    assert set(first["disturbance"]) == set(DISTURBANCES) and set(first["method"]) == {"ellipse"}


def test_curves_are_scored_by_the_band_and_the_sizes_of_the_evaluation(frames):
    wide = EvaluationConfig(dilation_ratio=0.5, size_bins=(0, 10**6))
    default, other = (
        robustness_curve(EllipseBaseline(), frames, "jitter", (0,), seed=0, evaluation=each)
        for each in (EvaluationConfig(), wide)
    )
    assert np.allclose(other["biou"], other["iou"]) and not np.allclose(default["biou"], default["iou"])
    assert default["iou"].equals(other["iou"]) and other["size_bin"].nunique() == 1 < default["size_bin"].nunique()
