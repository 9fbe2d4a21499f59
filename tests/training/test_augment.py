"""Training views: one matrix for image, boxes and masks; nothing aliases, wraps or leaves without being counted."""

from collections import Counter

import cv2
import numpy as np
import pytest

from rossam_core import masks as mask_forms
from rossam_core.inference.windows import plan
from rossam_core.records import Frame, ObjectAnnotation
from rossam_core.settings import InferenceConfig
from rossam_core.training.augment import (
    AugmentConfig,
    augment,
    distort_colours,
    draw_matrix,
    inside_frame,
    jitter_boxes,
    warp_image,
    warp_objects,
    window_side,
)

PLAIN = AugmentConfig(scale=(1, 1), rotation=False, keep_object_in_view=False, min_area=1)
ELLIPSE = (60.0, 45.0, 30.0, 18.0)  # middle x, y and half axes, in the frame


def inside_ellipse(x, y):
    cx, cy, a, b = ELLIPSE
    return ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1


def as_polygon():
    t = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    cx, cy, a, b = ELLIPSE
    return [np.stack([cx + a * np.cos(t), cy + b * np.sin(t)], axis=1).ravel().tolist()]


def as_bitmap(size_hw):
    y, x = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    return inside_ellipse(x, y)


def rectangle(object_id, x0, y0, x1, y1, with_mask=True):
    polygon = [[x0, y0, x1, y0, x1, y1, x0, y1]] if with_mask else None
    return ObjectAnnotation(object_id, "plane", (x0, y0, x1, y1), polygon)


@pytest.fixture
def make_frame(tmp_path):
    def make(image, objects):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return Frame("made", "v", 1, path, image.shape[:2], tuple(objects))

    return make


@pytest.fixture
def noise(rng):
    return rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)


@pytest.fixture(params=["polygon", "rle"])
def ellipse_frame(request, make_frame):
    """A bright ellipse on dark ground, its mask in either form."""
    bitmap = as_bitmap((90, 120))
    segmentation = as_polygon() if request.param == "polygon" else mask_forms.encode(bitmap)
    image = np.where(bitmap[..., None], np.uint8(220), np.uint8(30)).repeat(3, axis=2)
    return make_frame(image, [ObjectAnnotation(1, "ship", mask_forms.box_of(bitmap), segmentation)])


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_at_scale_one_a_view_is_a_cut_of_the_frame_bit_for_bit(noise, make_frame, rng):
    whole = mask_forms.encode(np.ones((90, 120), bool))
    frame = make_frame(noise, [ObjectAnnotation(1, "x", (0, 0, 120, 90), whole), rectangle(2, 30, 20, 90, 70)])
    for _ in range(5):
        sample = augment(frame, 64, PLAIN, rng)
        x, y = (-sample.matrix[:, 2]).astype(int)
        np.testing.assert_array_equal(sample.image, noise[y : y + 64, x : x + 64].astype(np.float32))
        expected = [o.mask((90, 120))[y : y + 64, x : x + 64] for o in frame.objects]
        np.testing.assert_array_equal(sample.masks, expected)


def test_a_small_frame_sits_at_the_top_left_and_gray_fills_the_rest(noise, make_frame, rng):
    frame = make_frame(noise, [rectangle(1, 0, 0, 120, 90)])
    sample = augment(frame, 128, PLAIN.model_copy(update={"scale": (0.5, 0.5)}), rng)
    small = cv2.resize(noise, (60, 45), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(sample.image[:45, :60], small.astype(np.float32))
    assert (sample.image[45:] == 144).all() and (sample.image[:, 60:] == 144).all()
    np.testing.assert_array_equal(sample.boxes, [[0, 0, 60, 45]])


def test_the_mask_is_the_shape_seen_through_the_matrix_and_the_box_is_tight_on_it(ellipse_frame):
    config = AugmentConfig(scale=(0.3, 3.0), mirror=0.5, diagonal_flip=0.5)
    compared = 0
    for seed in range(30):
        sample = augment(ellipse_frame, 128, config, np.random.default_rng(seed))
        if not len(sample.masks):
            continue
        (a, b, tx), (c, d, ty) = cv2.invertAffineTransform(sample.matrix)
        v, u = np.mgrid[:128, :128] + 0.5
        expected = inside_ellipse(a * u + b * v + tx, c * u + d * v + ty)
        assert np.array_equal(sample.boxes[0], mask_forms.box_of(sample.masks[0]))
        bright = (sample.image[..., 0] > 125) & inside_frame(sample.matrix, (90, 120), 128)
        if expected.sum() > 300:  # half a pixel of outline costs a smaller shape more
            assert iou(sample.masks[0], expected) > 0.93
            assert iou(sample.masks[0], bright & ~(sample.image[..., 0] == 144)) > 0.93
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("rotation", [False, True])
def test_a_scale_of_a_tenth_does_not_alias(rotation, make_frame, rng):
    """A checkerboard of single pixels has one true value at a tenth of the size: its mean."""
    board = (np.indices((600, 600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    frame = make_frame(np.repeat(board[..., None], 3, axis=2), [])
    sample = augment(frame, 64, PLAIN.model_copy(update={"scale": (0.1, 0.1), "rotation": rotation}), rng)
    seen = sample.image[inside_frame(sample.matrix, frame.size_hw, 64)]
    assert len(seen) >= 1500
    np.testing.assert_allclose(seen, 127.5, atol=1)


def test_bicubic_overshoot_clamps_instead_of_wrapping():
    step = np.zeros((20, 20, 3), np.uint8)
    step[:, 10:] = 255
    image = warp_image(step, np.array([[4.0, 0, 0], [0, 4.0, 0]]), 80)
    assert (np.diff(image[..., 0], axis=1) >= 0).all()  # from 0 up to 255, without a speck
    assert (image[:, :32] == 0).all() and (image[:, 48:] == 255).all()


def test_every_object_is_kept_or_counted_with_its_reason(noise, make_frame, rng):
    frame = make_frame(
        noise,
        [
            rectangle(1, 5, 5, 25, 25),
            rectangle(2, 5, 5, 25, 25, with_mask=False),
            rectangle(3, 100, 70, 110, 80),  # beyond the 64 × 64 corner
            rectangle(4, 62, 10, 80, 11),  # two pixels reach into it
            rectangle(5, 30, 30, 50, 50),
        ],
    )
    corner = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    config = PLAIN.model_copy(update={"min_area": 4})
    _, masks, kept, dropped = warp_objects(frame, corner, 64, config, rng)
    assert kept == (0, 4) and masks.sum(axis=(1, 2)).tolist() == [400, 400]
    assert dropped == Counter({"no mask": 1, "out of view": 1, "too small": 1})

    _, _, kept, dropped = warp_objects(frame, corner, 64, config.model_copy(update={"max_objects": 1}), rng)
    assert len(kept) == 1 and dropped["over the cap"] >= 1
    assert len(kept) + dropped.total() == 5


def loose(object_id, x0, y0, x1, y1):
    """A rectangle whose annotated box is 2 px wider on each side."""
    return ObjectAnnotation(object_id, "x", (x0 - 2, y0 - 2, x1 + 2, y1 + 2), [[x0, y0, x1, y0, x1, y1, x0, y1]])


def test_prompts_are_annotated_boxes_where_the_view_shows_them_whole(noise, make_frame, rng):
    frame = make_frame(noise, [loose(1, 10, 12, 30, 20), loose(2, 50, 40, 80, 60), loose(3, 20, 40, 62, 50)])
    corner, half = np.array([[1.0, 0, 0], [0, 1.0, 0]]), np.array([[-1.0, 0, 64], [0, -1.0, 64]])
    tight = [[10, 12, 30, 20], [50, 40, 64, 60], [20, 40, 62, 50]]
    boxes, *_ = warp_objects(frame, corner, 64, PLAIN, rng)
    np.testing.assert_array_equal(boxes, [[8, 10, 32, 22], tight[1], [18, 38, 64, 52]])  # the second is cut
    boxes, *_ = warp_objects(frame, corner, 64, PLAIN.model_copy(update={"prompt": "tight"}), rng)
    np.testing.assert_array_equal(boxes, tight)
    boxes, *_ = warp_objects(frame, half, 64, PLAIN, rng)
    np.testing.assert_array_equal(boxes[0], [32, 42, 56, 54])
    quarter = np.array([[0.0, -0.5, 40], [0.5, 0.0, 0]])  # x' = 40 - y / 2, y' = x / 2
    boxes, *_ = warp_objects(frame, quarter, 64, PLAIN, rng)
    np.testing.assert_array_equal(boxes[0], [29, 4, 35, 16])
    turned = np.array([[0.8, -0.6, 30], [0.6, 0.8, 0]])
    boxes, masks, *_ = warp_objects(frame, turned, 64, PLAIN, rng)
    tight = np.array([mask_forms.box_of(mask) for mask in masks])
    np.testing.assert_allclose(boxes[0], tight[0] + [-2, -2, 2, 2], rtol=1e-6)  # the margins stay, of what is whole
    np.testing.assert_array_equal(boxes[1:], tight[1:])
    boxes, masks, *_ = warp_objects(frame, 0.5 * turned, 64, PLAIN, rng)
    tight = np.array([mask_forms.box_of(mask) for mask in masks])
    np.testing.assert_allclose(boxes[0], tight[0] + [-1, -1, 1, 1], rtol=1e-6)


def test_a_view_is_a_pure_function_of_its_generators_seed(ellipse_frame):
    config = AugmentConfig(photometric=True, box_jitter=0.1)
    one, two, other = (augment(ellipse_frame, 64, config, np.random.default_rng(s)) for s in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(one[:3], two[:3], strict=True))
    assert not np.array_equal(one.matrix, other.matrix)


def test_crops_drawn_around_objects_always_show_one(make_frame):
    frame = make_frame(np.zeros((300, 400, 3), np.uint8), [rectangle(1, 10, 10, 30, 30), rectangle(2, 370, 5, 390, 25)])
    config = AugmentConfig(scale=(1, 4), min_area=1)
    shown = [len(augment(frame, 64, config, np.random.default_rng(seed)).kept) for seed in range(40)]
    anywhere = config.model_copy(update={"keep_object_in_view": False})
    missed = [len(augment(frame, 64, anywhere, np.random.default_rng(seed)).kept) for seed in range(40)]
    assert min(shown) >= 1
    assert min(missed) == 0


def test_scale_of_the_input_fits_the_longer_side(noise, make_frame, rng):
    sample = augment(make_frame(noise, []), 60, PLAIN.model_copy(update={"scale_of": "input"}), rng)
    np.testing.assert_allclose(sample.matrix[:, :2], np.eye(2) * 0.5)


def test_colours_stay_in_range_and_change_as_often_as_not(noise):
    image = noise.astype(np.float32)
    outcomes = [distort_colours(image, np.random.default_rng(seed)) for seed in range(40)]
    assert all(o.dtype == np.float32 and o.min() >= 0 and o.max() <= 255 for o in outcomes)
    assert not np.array_equal(outcomes[0], outcomes[1])
    assert np.array_equal(image, noise)  # the input is not written to


def test_jittered_boxes_keep_their_order_and_stay_inside(rng):
    boxes = np.array([[0, 0, 64, 64], [10, 20, 11, 60], [63, 63, 64, 64]], np.float32).repeat(200, axis=0)
    moved = jitter_boxes(boxes, 0.49, 64, rng)
    assert moved.min() >= 0 and moved.max() <= 64
    assert (moved[:, 2:] > moved[:, :2]).all()
    assert np.abs(moved - boxes)[200:400, 0].max() <= 0.49
    assert jitter_boxes(boxes, 0, 64, rng) is boxes


@pytest.mark.parametrize(
    ("option", "axes"),
    [("diagonal_flip", (slice(None, None, -1),) * 2), ("mirror", (slice(None), slice(None, None, -1)))],
)
def test_a_half_turn_and_a_mirror_image_show_the_frame_turned_and_left_right(option, axes, noise, make_frame, rng):
    frame = make_frame(noise, [rectangle(1, 10, 5, 30, 25)])
    sample = augment(frame, 128, PLAIN.model_copy(update={option: 1.0}), rng)
    np.testing.assert_array_equal(sample.image[:90, :120], noise[axes].astype(np.float32))


def test_an_object_of_the_least_area_is_kept(noise, make_frame, rng):
    frame = make_frame(noise, [rectangle(1, 10, 10, 15, 14), rectangle(2, 30, 30, 49, 31)])
    *_, kept, dropped = warp_objects(frame, np.eye(2, 3), 64, PLAIN.model_copy(update={"min_area": 20}), rng)
    assert kept == (0,) and dropped == {"too small": 1}


def test_a_scale_range_out_of_order_is_refused():
    with pytest.raises(ValueError, match="0 < low <= high"):
        AugmentConfig(scale=(4.0, 0.1))


def test_a_scale_of_one_window_shows_the_object_as_inference_does(noise, make_frame):
    """Fixed windows measure size / rate; those that grow hold 1.5 × the side of a wide object."""
    config = AugmentConfig(scale=(1, 1), scale_of="window", rotation=False)
    wide, small = (20, 30, 100, 60), (20, 30, 30, 40)
    for box, growth, side in (
        (wide, "context", 120),
        (small, "context", 64),
        (wide, "none", 64),
        (small, "sopseg", 20),
    ):
        inference = InferenceConfig(rate=2, growth=growth)
        frame = make_frame(noise, [rectangle(1, *map(float, box))])
        matrix = draw_matrix(frame, 128, config, np.random.default_rng(3), inference)
        assert window_side(np.array(box), frame.size_hw, 128, inference) == side
        assert augment(frame, 128, config, np.random.default_rng(3), inference).matrix == pytest.approx(matrix)
        np.testing.assert_allclose(matrix[:, :2], np.eye(2) * 128 / side)


def test_a_scale_of_one_window_shows_the_whole_frame_where_inference_does(noise, make_frame):
    frame = make_frame(noise, [rectangle(1, 20.0, 30.0, 30.0, 40.0)])
    config, inference = AugmentConfig(scale=(1, 1), scale_of="window", rotation=False), InferenceConfig(mode="direct")
    (window,) = plan(frame.boxes_xyxy, frame.size_hw, 128, inference)
    matrix = draw_matrix(frame, 128, config, np.random.default_rng(3), inference)
    np.testing.assert_allclose(matrix, [[window.scale_xy[0], 0, 0], [0, window.scale_xy[0], 0]])


def test_the_part_of_a_box_outside_the_frame_widens_no_window():
    inference, half_outside = InferenceConfig(rate=2, growth="context"), np.array([-300, 0, 300, 20])
    (window,) = plan(half_outside[None], (400, 400), 256, inference)
    assert window_side(half_outside, (400, 400), 256, inference) == window.width == 400
    assert window_side(half_outside, (1000, 1000), 256, inference) == 450


def test_an_object_that_fits_is_whole_in_the_crop_drawn_around_it(noise, make_frame):
    frame = make_frame(noise, [rectangle(1, 40.0, 30.0, 60.0, 44.0)])
    config = AugmentConfig(scale=(0.5, 4.0))
    for seed in range(40):
        view = augment(frame, 128, config, np.random.default_rng(seed))
        scale = np.sqrt(np.linalg.det(view.matrix[:, :2]))
        assert view.masks[0].sum() == pytest.approx(20 * 14 * scale**2, rel=0.2 / min(scale, 1))


def test_a_scale_of_the_window_needs_the_window_of_an_object():
    with pytest.raises(ValueError, match="needs keep_object_in_view"):
        AugmentConfig(scale_of="window", keep_object_in_view=False)
