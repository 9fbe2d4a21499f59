"""IoU and Boundary IoU: bounds, symmetry, invariance, the empty and border cases, and a naive twin they equal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rossam_core.errors import RossamError
from rossam_core.metrics import band_width, boundary_band, boundary_iou, mask_iou
from rossam_kit.experiments.mask_scores import all_boundary_below, fitted_band, score_masks


def rectangle(size_hw, y0, x0, y1, x1):
    mask = np.zeros(size_hw, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


@st.composite
def blobs(draw, size_hw):
    """A union of up to three rectangles, minus up to one; may be empty, touch borders, or fill the frame."""
    height, width = size_hw
    mask = np.zeros(size_hw, dtype=bool)
    for value in [True] * draw(st.integers(0, 3)) + [False] * draw(st.integers(0, 1)):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[y : draw(st.integers(y + 1, height)), x : draw(st.integers(x + 1, width))] = value
    return np.asfortranarray(mask) if draw(st.booleans()) else mask


@st.composite
def pairs(draw):
    size_hw = draw(st.integers(1, 26)), draw(st.integers(1, 26))
    return draw(blobs(size_hw)), draw(blobs(size_hw))


def naive_band(mask, d):
    """Full frame, straight from the definition: kept by the erosion if the square around it lies in the mask."""
    height, width = mask.shape
    padded = np.pad(mask, d)
    eroded = np.ones_like(mask)
    for dy in range(2 * d + 1):
        for dx in range(2 * d + 1):
            eroded &= padded[dy : dy + height, dx : dx + width]
    return mask & ~eroded


def naive_iou(a, b):
    union = (a | b).sum()
    return (a & b).sum() / union if union else 1.0


@settings(max_examples=150, deadline=None)
@given(pairs(), st.integers(1, 6))
def test_equals_the_full_frame_definition(pair, d):
    pred, target = pair
    iou, biou = naive_iou(pred, target), naive_iou(naive_band(pred, d), naive_band(target, d))
    assert np.array_equal(boundary_band(pred, d), naive_band(pred, d))
    assert mask_iou(pred, target) == iou
    assert boundary_iou(pred, target, band_px=d) == biou
    wide = naive_iou(naive_band(pred, d + 2), naive_band(target, d + 2))
    assert score_masks(pred, target, band_px=d + 2, fit_px=d) == (iou, wide, biou)


@settings(max_examples=60, deadline=None)
@given(pairs(), st.integers(1, 6), st.integers(0, 9), st.integers(0, 9))
def test_bounded_symmetric_and_blind_to_place(pair, d, down, right):
    pred, target = pair
    for measure in (mask_iou, lambda p, t: boundary_iou(p, t, band_px=d)):
        value = measure(pred, target)
        assert 0 <= value <= 1
        assert value == measure(target, pred) == measure(pred.T, target.T)
        assert measure(pred, pred) == 1
        moved = [np.pad(mask, ((down, 9 - down), (right, 9 - right))) for mask in (pred, target)]
        assert measure(*moved) == value


def test_no_overlap_is_zero_and_half_overlap_a_third():
    left, right = rectangle((10, 20), 2, 0, 8, 10), rectangle((10, 20), 2, 10, 8, 20)
    assert mask_iou(left, right) == boundary_iou(left, right) == 0
    assert mask_iou(left, rectangle((10, 20), 2, 5, 8, 15)) == pytest.approx(1 / 3)


def test_both_empty_is_one_and_one_empty_is_zero():
    nothing, something = np.zeros((8, 8), dtype=bool), rectangle((8, 8), 0, 0, 8, 8)
    for measure in (mask_iou, boundary_iou):
        assert measure(nothing, nothing) == 1
        assert measure(nothing, something) == measure(something, nothing) == 0


def test_one_pixel_is_its_own_boundary():
    pixel = rectangle((9, 9), 4, 4, 5, 5)
    assert boundary_iou(pixel, pixel) == 1
    assert boundary_iou(pixel, rectangle((9, 9), 4, 5, 5, 6)) == 0
    assert boundary_iou(np.ones((1, 1), bool), np.ones((1, 1), bool)) == 1


def test_a_mask_cut_by_the_image_border_has_boundary_there():
    everything = np.ones((20, 20), dtype=bool)
    band = boundary_band(everything, 3)
    assert np.array_equal(~band, rectangle((20, 20), 3, 3, 17, 17))


def test_band_rounds_as_the_official_code_does():
    assert band_width((1024, 1024)) == 29  # 28.96
    assert band_width((512, 512)) == 14  # 14.48
    assert band_width((270, 540)) == 12  # 12.07
    assert band_width((1080, 2160)) == 48  # 48.30
    assert band_width((3, 3)) == 1


def test_below_59_pixels_in_a_1024_frame_boundary_iou_is_iou(rng):
    frame, d = (1024, 1024), band_width((1024, 1024))
    assert all_boundary_below(frame) == 59 and all_boundary_below((256, 256)) == 15
    for side in (2, 20, 58):
        y, x = rng.integers(60, 900, 2)
        target = rectangle(frame, y, x, y + side, x + 300)  # 300 long: the shorter side decides
        pred = rectangle(frame, y + 1, x - 7, y + side, x + 281)
        assert boundary_band(target, d).sum() == target.sum()
        assert boundary_iou(pred, target, 0.02) == mask_iou(pred, target)
    square = rectangle(frame, 100, 100, 159, 159)
    assert boundary_band(square, d).sum() == square.sum() - 1  # 59 across: the first pixel that is not boundary


def test_the_fitted_band_tells_a_wrong_outline_where_the_usual_one_cannot():
    frame = (1024, 1024)
    target, pred = rectangle(frame, 500, 500, 540, 540), rectangle(frame, 502, 502, 538, 538)
    assert fitted_band(1600) == 4 and fitted_band(518) == 2 and fitted_band(1) == 1
    assert boundary_iou(pred, target) == mask_iou(pred, target) == 0.81
    assert boundary_iou(pred, target, band_px=fitted_band(1600)) < 0.5


def test_the_band_does_not_see_a_hole_that_iou_sees():
    filled = rectangle((200, 200), 50, 50, 150, 150)
    ring = filled & ~rectangle((200, 200), 56, 56, 144, 144)
    assert boundary_iou(ring, filled, band_px=6) == 1
    assert mask_iou(ring, filled) < 0.25


@pytest.mark.parametrize(
    "pred",
    [np.zeros((4, 5), bool), np.zeros((4, 6), np.uint8), np.zeros((1, 4, 6), bool), [[True]]],
    ids=["shape", "dtype", "three axes", "list"],
)
def test_unfit_masks_are_refused_naming_both(pred):
    with pytest.raises(RossamError, match=r"pred is .*, target is bool \(4, 6\)"):
        mask_iou(pred, np.zeros((4, 6), bool))


@pytest.mark.parametrize("options", [{"band_px": 0}, {"dilation_ratio": 0.0}])
def test_unfit_options_are_refused(options):
    with pytest.raises(RossamError):
        boundary_iou(np.ones((4, 4), bool), np.ones((4, 4), bool), **options)
