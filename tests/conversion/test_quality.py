"""Each sign of quality on masks made for it, and the score over all of them."""

import numpy as np
import pandas as pd
import pytest

from rossam_core.files import read_json
from rossam_core.inference.predictor import ObjectMask
from rossam_kit.convert import quality
from rossam_kit.convert.mask_records import record_of

SIZE_HW = (100, 120)
BOX = (10.0, 20.0, 30.0, 40.0)


def record(piece, offset_xy, box=BOX):
    return record_of(1, "ship", box, "ok", "", piece, offset_xy, {})


def test_a_filled_box_fills_it_in_one_piece_and_leaks_nothing():
    signs = quality.shape_signs(np.ones((20, 20), dtype=bool), (10, 20), BOX, SIZE_HW)
    assert signs == {"fill": 1.0, "leakage": 0.0, "fragments": 1}


def test_leakage_is_the_share_of_the_mask_outside_the_box():
    signs = quality.shape_signs(np.ones((20, 20), dtype=bool), (20, 20), BOX, SIZE_HW)  # right half outside
    assert signs == {"fill": 0.5, "leakage": 0.5, "fragments": 1}
    above = quality.shape_signs(np.ones((5, 5), dtype=bool), (10, 15), BOX, SIZE_HW)
    assert above == {"fill": 0.0, "leakage": 1.0, "fragments": 1}


def test_pixels_that_touch_at_a_corner_are_one_fragment():
    corner = np.eye(3, dtype=bool)
    apart = corner & ~np.eye(3, dtype=bool)[::-1]
    assert quality.shape_signs(corner, (12, 22), BOX, SIZE_HW)["fragments"] == 1
    assert quality.shape_signs(apart, (12, 22), BOX, SIZE_HW)["fragments"] == 2


def test_a_mask_or_box_without_pixels_has_no_shape():
    assert quality.shape_signs(np.zeros((4, 4), dtype=bool), (12, 22), BOX, SIZE_HW)["leakage"] is None
    thin = quality.shape_signs(np.ones((4, 4), dtype=bool), (12, 22), (10.6, 20, 11.4, 40), SIZE_HW)
    assert thin["fill"] is None and thin["leakage"] == 1.0


def test_threshold_stability_is_the_ratio_of_areas():
    logits = np.array([[2.0, 2.0, 0.5, -0.5, -3.0]])
    assert quality.threshold_stability(logits, 0.0) == 2 / 4
    assert quality.threshold_stability(logits, 0.0, offset=0.1) == 1.0
    assert quality.threshold_stability(np.full((2, 2), -9.0), 0.0) is None


def test_piece_iou_is_the_iou_of_the_whole_masks(rng):
    for _ in range(20):
        pieces = [(rng.random((rng.integers(1, 9), rng.integers(1, 9))) > 0.4, rng.integers(0, 9, 2)) for _ in "ab"]
        full = np.zeros((2, 30, 30), dtype=bool)
        for mask, (piece, (x, y)) in zip(full, pieces, strict=True):
            mask[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
        assert quality.piece_iou(*pieces) == pytest.approx(quality.mask_iou(*full))
    assert quality.jitter_stability(pieces[0], [pieces[0], pieces[0]]) == 1.0
    assert quality.jitter_stability(pieces[0], []) is None


def test_jitter_depends_on_its_key_alone_and_stays_near():
    boxes = quality.jittered(BOX, 50, 0.1, SIZE_HW, (0, "a", 3, 1))
    assert np.array_equal(boxes[:5], quality.jittered(BOX, 5, 0.1, SIZE_HW, (0, "a", 3, 1)))
    assert not np.array_equal(boxes, quality.jittered(BOX, 50, 0.1, SIZE_HW, (0, "a", 3, 2)))
    assert abs(boxes - BOX).max() <= 2.0 and abs(boxes - BOX).max() > 1.5
    edge = (-39.0, 10.0, 1.0, 20.0)  # moved a little it lies wholly outside: such a box is left as it was
    boxes = quality.jittered(edge, 50, 0.1, SIZE_HW, ("edge",))
    assert (boxes[:, 2] > 0).all() and (boxes == edge).all(axis=1).any()


@pytest.mark.parametrize(
    ("corner", "offset_xy", "touches"),
    [((0, 2), (40, 30), True), ((2, 2), (40, 30), False), ((0, 2), (40, 0), False), ((2, 4), (115, 30), False)],
)
def test_a_mask_touches_its_window_only_inside_the_frame(corner, offset_xy, touches):
    piece = np.zeros((5, 5), dtype=bool)
    piece[corner] = True
    assert quality.touches_window(piece, offset_xy, SIZE_HW) is touches


def test_contrast_is_that_of_the_colours_on_both_sides_of_the_outline(rng):
    image, piece = np.full((60, 80, 3), 80, dtype=np.uint8), np.ones((10, 20), dtype=bool)
    image[20:30, 30:50] = 180
    assert quality.contrast(image, piece, (30, 20)) == pytest.approx(100 * np.sqrt(3))
    noisy = (image + rng.normal(0, 10, image.shape)).clip(0, 255).astype(np.uint8)
    moved = [quality.contrast(noisy, piece, (30 + by, 20)) for by in (0, 2, 5, 10)]
    assert moved == sorted(moved, reverse=True) and moved[0] == pytest.approx(100 / np.sqrt(200), rel=0.1)
    assert quality.contrast(image, piece, (0, 0)) == quality.contrast(image, piece, (60, 50)) == 0  # at a frame's edge
    assert quality.contrast(image, np.ones((60, 80), dtype=bool), (0, 0)) is None


def test_an_object_mask_keeps_a_margin_unless_its_window_ends():
    """What `touches_window` rests on."""
    logits = np.full((9, 9), -1.0, dtype=np.float16)
    logits[2:7, 2:7] = 1.0
    mask = ObjectMask((2, 2, 7, 7), (30, 30), logits, (10, 10), 0.0, 0.5)
    assert not quality.touches_window(mask.piece, mask.offset_xy, mask.size_hw)


def test_the_same_form_elsewhere_and_larger_is_consistent_and_another_is_not():
    triangle = np.tri(20, dtype=bool)
    large = record(np.kron(triangle, np.ones((2, 2), dtype=bool)), (50, 50), (50, 50, 90, 90))
    memory = quality.TrackMemory()
    for thing in (record(triangle, (10, 20)), large, record(triangle[::-1], (10, 20))):
        memory.add("a", thing)
    memory.add("b", record(triangle, (10, 20)))
    first, middle, last, alone = memory.values()
    assert first == 1.0 and last < 0.6 and np.isnan(alone)
    assert middle == pytest.approx((first + last) / 2)


def test_a_neighbour_without_a_mask_says_nothing():
    memory = quality.TrackMemory()
    for piece in (np.ones((20, 20), dtype=bool), np.zeros((1, 1), dtype=bool), np.ones((20, 20), dtype=bool)):
        memory.add("a", record(piece, (10, 20)))
    assert np.isnan(memory.values()).all()


def table(**columns):
    n = len(next(iter(columns.values())))
    base = {"area": [9] * n, "category": ["ship"] * n, "status": ["ok"] * n, "reason": [""] * n}
    base |= {name: [np.nan] * n for name in quality.SIGNS}
    places = {"video": [f"v{i // 4}" for i in range(n)], "frame": list(range(n)), "object_id": [1] * n}
    return pd.DataFrame(places | base | columns)


def test_the_score_is_the_mean_of_shares_and_one_without_a_mask():
    rows = table(area=[9, 9, 9, 0], jitter_stability=[0.9, 0.5, 0.7, np.nan], leakage=[0.0, 0.2, 0.2, np.nan])
    expected = [1 / 6, (5 / 6 + 4 / 6) / 2, (3 / 6 + 4 / 6) / 2, 1.0]
    assert quality.review_score(rows).tolist() == pytest.approx(expected)
    assert quality.review_score(table(leakage=[0.3, 0.3])).tolist() == [0.0, 0.0]
    assert quality.review_score(table(area=[0])).tolist() == [1.0]


def test_what_stands_out_is_said():
    (row,) = table(leakage=[0.25], fragments=[3.0], fill=[0.5], temporal_consistency=[0.9]).to_dict("records")
    assert quality.looks(row) == [("leakage", "25% of it lies outside its box"), ("fragments", "3 pieces")]
    assert quality.looks(row | {"area": 0, "status": "empty", "reason": "no pixel"}) == [("empty", "no pixel")]


def test_spearman_is_scipy_s_and_its_interval_that_of_resampled_videos(rng):
    from scipy import stats

    truth = rng.normal(size=240)
    rows = table(iou=truth, predicted_iou=truth + np.repeat(rng.normal(size=60), 4))
    found = quality.spearman(rows, "predicted_iou")
    assert found.mean == pytest.approx(stats.spearmanr(rows["iou"], rows["predicted_iou"]).statistic)
    videos, draws = [group for _, group in rows.groupby("video")], []
    for _ in range(300):
        drawn = pd.concat([videos[i] for i in rng.integers(0, 60, 60)])
        draws.append(stats.spearmanr(drawn["iou"], drawn["predicted_iou"]).statistic)
    assert np.quantile(draws, [0.025, 0.975]) == pytest.approx([found.low, found.high], abs=0.03)


def test_a_sign_that_is_wrong_way_round_agrees_negatively():
    rows = table(iou=np.linspace(0, 1, 12), predicted_iou=np.linspace(0, 1, 12), leakage=np.linspace(0, 1, 12))
    rows["review_score"] = 1 - rows["predicted_iou"]
    rows["fragments"] = 1.0
    found = quality.agreement(rows).set_index("sign")["spearman"]
    assert found["review_score"] == pytest.approx(1) and found["leakage"] == pytest.approx(-1)
    assert np.isnan(found["fragments"])


def test_review_gain_of_a_perfect_and_of_a_reversed_order():
    rows = table(iou=np.linspace(0, 0.99, 20)).assign(review_rank=np.arange(1, 21))
    gain = quality.review_gain(rows, poor=0.5, shares=(0.25, 0.5))
    assert gain["poor masks found"].tolist() == gain["at best"].tolist() == [0.5, 1.0]
    rows["review_rank"] = rows["review_rank"].to_numpy()[::-1]
    assert quality.review_gain(rows, shares=(0.5,))["poor masks found"].tolist() == [0.0]


def test_expected_iou_rises_with_every_sign_and_needs_them_all():
    good = {"predicted_iou": 0.9, "jitter_stability": 0.9, "threshold_stability": 0.9, "leakage": 0.0}
    good |= {"contrast": 1.5, "fragments": 1.0, "touches_window": 0.0}
    (best,) = quality.expected_iou(table(**{name: [value] for name, value in good.items()}))
    assert 0.5 < best < 1
    fitted = read_json(quality.CALIBRATION)
    assert len(fitted["weights"]) >= 3 and "nwpu fit" in fitted["source"]
    for name in fitted["weights"]:
        worse = good | {name: 3.0 if name == "fragments" else abs(good[name] - 0.5)}
        assert quality.expected_iou(table(**{key: [value] for key, value in worse.items()}))[0] < best
        assert np.isnan(quality.expected_iou(table(**{k: [v] for k, v in good.items() if k != name}))[0])
    assert quality.expected_iou(table(area=[0])).tolist() == [0.0]


def test_reliability_compares_means_of_equal_parts():
    rows = quality.reliability(table(iou=np.linspace(0, 0.9, 10), expected_iou=np.linspace(0, 0.9, 10)[::-1]), parts=2)
    assert rows["objects"].tolist() == [5, 5]
    assert rows["expected"].tolist() == pytest.approx([0.2, 0.7]) and rows["true"].tolist() == pytest.approx([0.7, 0.2])
