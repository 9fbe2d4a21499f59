"""One row a unit, whatever can go wrong with it; both protocols from one prediction."""

import io
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
import pytest

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.metrics import boundary_iou, mask_iou
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.experiments.baselines import BoxBaseline
from rossam_kit.experiments.mask_scores import fitted_band
from rossam_kit.experiments.scoring import COLUMNS, SCORES, crowding, evaluate, predict_frames, score, size_bin_labels

SIZE = (40, 60)


@dataclass
class Given:
    mask: np.ndarray
    status: str = "ok"
    predicted_iou: float = 0.9

    def full(self):
        return self.mask


def rectangle(x0, y0, x1, y1):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def thing(number, box, mask="box", category="ship"):
    mask = rectangle(*box) if isinstance(mask, str) else mask
    return ObjectAnnotation(number, category, box, None if mask is None else masks.encode(mask))


@pytest.fixture
def frames(tmp_path):
    """Two videos: two ships; a car without a mask; nothing; a ship beside a car; an annotation without a pixel."""
    path = tmp_path / "black.png"
    cv2.imwrite(str(path), np.zeros((*SIZE, 3), np.uint8))
    contents = [
        ("a", [thing(1, (2, 2, 12, 12)), thing(2, (22, 2, 42, 32))]),
        ("a", [thing(3, (2, 2, 6, 6), None, "car")]),
        ("b", []),
        ("b", [thing(4, (2, 2, 12, 12)), thing(5, (20, 20, 24, 24), None, "car")]),
        ("b", [thing(6, (2, 2, 12, 12), rectangle(0, 0, 0, 0))]),
    ]
    made = [Frame("made", video, i + 1, path, SIZE, tuple(objects)) for i, (video, objects) in enumerate(contents)]
    return FrameSet("made", made)


def test_a_perfect_predictor_scores_one_everywhere_and_nothing_is_dropped(frames):
    table = score(predict_frames(BoxBaseline(), frames))
    assert list(table.columns) == list(COLUMNS)
    objects, whole = (table[table["protocol"] == name].set_index("frame") for name in ("object", "frame"))
    assert objects["status"].tolist() == ["ok", "ok", "no mask", "no objects", "ok", "no mask", "empty target"]
    assert whole["status"].tolist() == ["ok", "no mask", "no objects", "1 of 2 objects lack a mask", "empty target"]
    for rows in (objects, whole):
        scored = rows["status"] == "ok"
        assert (rows.loc[scored, list(SCORES)] == 1).all(axis=None)
        assert rows.loc[~scored, list(SCORES)].isna().all(axis=None)
    assert objects["object_id"].tolist() == [1, 2, 3, -1, 4, 5, 6] and set(whole["object_id"]) == {-1}
    assert whole["category"].fillna("none").tolist() == ["ship", "car", "none", "mixed", "ship"]
    assert objects["area"].tolist()[:2] == [100, 600] and whole.loc[1, "area"] == 700


def test_scores_are_those_of_the_metrics_and_protocols_share_one_prediction(frames):
    pair = frames[0]
    predicted = [Given(rectangle(2, 2, 12, 8)), Given(rectangle(24, 2, 44, 30), "cut", 0.4)]
    targets = [o.mask(SIZE) for o in pair.objects]
    table = score(iter([(pair, predicted)]), dilation_ratio=0.05)
    for row, mask, target in zip(table[table.protocol == "object"].itertuples(), predicted, targets, strict=True):
        assert row.iou == mask_iou(mask.mask, target)
        assert row.biou == boundary_iou(mask.mask, target, 0.05)
        assert row.biou_fit == boundary_iou(mask.mask, target, band_px=fitted_band(target.sum()))
        assert row.biou_official == min(row.iou, row.biou) and row.biou_fit_official == min(row.iou, row.biou_fit)
        assert (row.status, row.predicted_iou) == (mask.status, mask.predicted_iou)
        assert np.array_equal(masks.decode({"size": SIZE, "counts": row.mask}, SIZE), mask.mask)
    (whole,) = table[table.protocol == "frame"].itertuples()
    unions = predicted[0].mask | predicted[1].mask, targets[0] | targets[1]
    assert whole.iou == mask_iou(*unions) and whole.biou == boundary_iou(*unions, 0.05)
    assert whole.biou_fit == boundary_iou(*unions, band_px=fitted_band(350))  # mean area of 100 and 600
    assert score([(pair, predicted)], ("frame",), dilation_ratio=0.05)["iou"].tolist() == [whole.iou]


def test_an_empty_prediction_scores_zero_and_says_so(frames):
    table = score([(frames[0], [Given(rectangle(0, 0, 0, 0), "empty")] * 2)])
    assert table["iou"].tolist() == [0, 0, 0] and set(table["status"]) == {"empty"}


def test_nearest_neighbour_counts_objects_without_masks_too(frames):
    table = evaluate(BoxBaseline(), frames)
    by_id = table.set_index("object_id")["nearest_neighbour"]
    assert by_id[1] == by_id[2] == np.hypot(25, 10)
    assert by_id[4] == by_id[5] == np.hypot(15, 15)
    assert np.isnan(by_id[3])


def test_crowding_is_the_gap_between_boxes_in_pixels_and_in_own_sides(rng):
    boxes = np.array([[0, 0, 10, 40], [13, 44, 23, 54], [100, 0, 110, 10], [105, 5, 107, 7]], dtype=float)
    assert crowding(boxes)[:, 1].tolist() == [5, 5, 0, 0]  # 3 across and 4 down; one inside another
    assert crowding(boxes)[:2, 2].tolist() == [0.25, 0.5]
    assert np.isnan(crowding(boxes[:1])).all() and crowding(np.zeros((0, 4))).shape == (0, 3)
    many = rng.uniform(0, 90, (40, 2))
    many = np.hstack([many, many + rng.uniform(1, 9, (40, 2))])
    both = [[np.hypot(*np.maximum(np.maximum(a[:2] - b[2:], b[:2] - a[2:]), 0)) for b in many] for a in many]
    assert np.allclose(crowding(many)[:, 1], (np.array(both) + np.diag([np.inf] * 40)).min(axis=1))


def test_objects_without_a_prediction_are_listed_and_not_scored(frames):
    table = score([(frame, [None] * len(frame.objects)) for frame in frames], ("object",))
    assert table["iou"].isna().all()
    assert table["status"].value_counts()["not prompted"] == 4


def test_a_predictor_that_batches_over_frames_is_used_so_and_asked_only_for_what_is_scored(frames):
    class Batching(BoxBaseline):
        def predict_frames(self, frames):
            assert [len(frame.objects) for frame in frames] == [2, 1, 1]
            for frame in frames:
                yield frame, self.predict(frame.image(), frame.boxes_xyxy)

    pd.testing.assert_frame_equal(evaluate(Batching(), frames), evaluate(BoxBaseline(), frames))


@pytest.mark.parametrize("answer", [lambda p: p[:-1], lambda p: p[::-1], lambda p: [(p[0][0], []), *p[1:]]])
def test_a_predictor_that_skips_frames_or_boxes_is_refused(answer, frames):
    class Sloppy:
        def predict_frames(self, frames):
            return answer([(f, BoxBaseline().predict(f.image(), f.boxes_xyxy)) for f in frames])

    with pytest.raises(RossamError, match="predictor Sloppy"):
        evaluate(Sloppy(), frames)


def test_bad_input_is_refused(frames):
    with pytest.raises(RossamError, match="union"):
        score([], ("union",))
    with pytest.raises(RossamError, match="size"):
        score([(frames[0], [Given(np.zeros((4, 4), bool))] * 2)])
    with pytest.raises(RossamError, match="1 masks for 2 objects"):
        score([(frames[0], [None])])
    with pytest.raises(RossamError, match="rise"):
        score([], size_bins=(0, 100, 100))


def test_size_bins_take_their_lower_bound_and_survive_a_file(frames):
    assert size_bin_labels((0, 256, 1024)) == ["0–256", "256–1024", "1024+"]
    table = score(predict_frames(BoxBaseline(), frames), ("object",), size_bins=(0, 100, 600))
    assert table.set_index("object_id")["size_bin"].reindex([1, 2]).tolist() == ["100–600", "600+"]
    assert table["size_bin"].isna().sum() == table["area"].isna().sum()
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert again["size_bin"].equals(table["size_bin"])


def test_progress_wraps_the_frames(frames):
    seen = []

    def progress(iterable, total):
        for item in iterable:
            seen.append(total)
            yield item

    evaluate(BoxBaseline(), frames, progress=progress)
    assert seen == [5] * 5
