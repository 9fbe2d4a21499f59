"""Window geometry: every box is served, nothing drifts by half a pixel, nothing aliases or wraps."""

import numpy as np
import pytest
import torch
from segment_anything.utils.transforms import ResizeLongestSide
from torch.nn import functional as F
from torchvision.transforms.functional import resize, to_tensor

from rossam_core.inference import windows as crops
from rossam_core.settings import InferenceConfig

S = 256
MODES = ("direct", "tiled", "shared", "object")


def random_boxes(rng, count, size_hw, sides=(0.3, 150)):
    """Boxes that touch the frame, some reaching beyond it."""
    height, width = size_hw
    centers = rng.uniform((0, 0), (width, height), (count, 2))
    half = np.exp(rng.uniform(*np.log(sides), (count, 2))) / 2
    return np.concatenate([centers - half, centers + half], axis=1)


def only(plans):
    (window,) = plans
    return window


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("growth", ["none", "context", "sopseg"])
@pytest.mark.parametrize("rate", [0.7, 1, 2, 3, 4])
def test_every_box_is_served_once_by_a_window_inside_the_frame(mode, growth, rate, rng):
    config = InferenceConfig(mode=mode, growth=growth, rate=rate)
    for size_hw in [(300, 500), (90, 700), (40, 30), (1, 1)]:
        boxes = random_boxes(rng, 60, size_hw)
        hulls = crops.pixel_hulls(boxes, size_hw)
        plans = crops.plan(boxes, size_hw, S, config)
        assert sorted(i for window in plans for i in window.indices) == list(range(60))
        for window in plans:
            x0, y0, x1, y1 = window.window_xyxy
            assert 0 <= x0 < x1 <= size_hw[1] and 0 <= y0 < y1 <= size_hw[0]
            assert min(window.content_hw) >= 1 and max(window.content_hw) <= S
            fixed = mode != "direct" and growth == "none"
            assert not fixed or (window.width, window.height) == tuple(min(round(S / rate), n) for n in size_hw[::-1])
            for i in window.indices:
                side = max(window.width, window.height)
                assert window.holds(hulls[i]) or (fixed and (hulls[i, 2:] - hulls[i, :2]).max() > side)


def test_hulls_are_whole_pixels_inside_the_frame():
    boxes = [[0.5, 0.7, 2.2, 3.0], [-4, -4, 0.5, 0.5], [58.2, 38.5, 70, 50], [60, 40, 70, 50]]
    expected = [[0, 0, 3, 3], [0, 0, 1, 1], [58, 38, 60, 40], [59, 39, 60, 40]]
    assert crops.pixel_hulls(boxes, (40, 60)).tolist() == expected


def test_a_box_beyond_the_window_is_clipped_to_what_the_model_sees():
    window = only(crops.plan([[30, 20, 50, 30]], (70, 90), S, InferenceConfig(rate=2)))
    assert window.to_input([[-5, -5, 200, 200]]).tolist() == [[0, 0, 180, 140]]


def test_no_boxes_need_no_window():
    assert crops.plan(np.zeros((0, 4)), (50, 50), S, InferenceConfig()) == []


def test_an_object_window_is_centred_and_shifts_inside_at_borders():
    config = InferenceConfig(mode="object", rate=2)
    boxes = [[190, 140, 210, 160], [0, 0, 8, 8], [392, 292, 400, 300], [0, 140, 9, 160]]
    windows = [window.window_xyxy for window in crops.plan(boxes, (300, 400), S, config)]
    assert windows == [(136, 86, 264, 214), (0, 0, 128, 128), (272, 172, 400, 300), (0, 86, 128, 214)]


@pytest.mark.parametrize(
    ("growth", "sides"),
    [
        ("none", {10: 128, 31: 128, 32: 128, 100: 128, 200: 128, 390: 128}),
        ("context", {10: 128, 31: 128, 32: 128, 100: 150, 200: 300, 390: 400}),
        ("sopseg", {10: 20, 31: 62, 32: 64, 100: 166, 200: 316, 390: 400}),  # 1.5 d + 0.5 · 32 from 32 px on
    ],
)
def test_a_windows_side_follows_the_longer_side_of_its_box_up_to_the_frame(growth, sides):
    config = InferenceConfig(mode="object", rate=2, growth=growth, context=1.5)
    for longer, side in sides.items():
        window = only(crops.plan([[5, 100, 5 + longer, 104]], (300, 400), S, config))
        assert (window.width, window.height) == (side, min(side, 300)), longer


def test_the_papers_windows_are_fixed_by_default():
    assert InferenceConfig().growth == "none"


def test_a_tile_is_the_most_central_of_those_that_hold_the_box_whole(rng):
    config = InferenceConfig(mode="tiled", rate=2)
    boxes = random_boxes(rng, 200, (333, 500), sides=(2, 60))
    hulls = crops.pixel_hulls(boxes, (333, 500))
    grid = [(x, y) for x in np.linspace(0, 372, 7).round() for y in np.linspace(0, 205, 5).round()]
    for window in crops.plan(boxes, (333, 500), S, config):
        assert (window.x0, window.y0) in grid
        for i in window.indices:
            center = (hulls[i, :2] + hulls[i, 2:]) / 2
            rivals = [
                np.hypot(*(center - (x + 64, y + 64)))
                for x, y in grid
                if x <= hulls[i, 0] and y <= hulls[i, 1] and hulls[i, 2] <= x + 128 and hulls[i, 3] <= y + 128
            ]
            assert np.hypot(*(center - (window.x0 + 64, window.y0 + 64))) == min(rivals)


def test_a_shared_window_holds_as_many_boxes_as_it_can():
    boxes = [[0, 100, 5, 110], [5, 40, 10, 50], [6, 60, 11, 70], [5, 190, 10, 195]]
    plans = crops.plan(boxes, (400, 400), S, InferenceConfig(mode="shared", rate=2, growth="none"))
    assert [window.indices for window in plans] == [(0, 1, 2), (3,)]


def test_shared_windows_are_few():
    config = InferenceConfig(mode="shared", rate=2)
    cluster = np.array([[0, 0, 10, 10], [60, 5, 70, 15], [30, 90, 45, 100]])
    boxes = np.concatenate([cluster + np.tile(shift, 2) for shift in [(20, 20), (400, 30), (220, 250)]])
    plans = crops.plan(boxes, (400, 600), S, config)
    assert sorted(window.indices for window in plans) == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]


def test_direct_is_sams_resize_longest_side(rng):
    """Shape, pixels and box coordinates, bit for bit, enlarging and shrinking."""
    sam = ResizeLongestSide(S)
    config = InferenceConfig(mode="direct")
    for size_hw in [(100, 80), (333, 500), (256, 256), (700, 301)]:
        image = rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        boxes = rng.uniform(0, min(size_hw), (5, 2)).repeat(2, axis=1)[:, [0, 2, 1, 3]]
        window = only(crops.plan(boxes, size_hw, S, config))
        theirs = sam.apply_image(image)
        height, width = window.content_hw
        ours = crops.cut(image, window, S, config, (1.5, 2.5, 3.5))
        assert theirs.shape == (height, width, 3)
        np.testing.assert_array_equal(ours[:height, :width], theirs)
        assert (ours[height:] == (1.5, 2.5, 3.5)).all() and (ours[:, width:] == (1.5, 2.5, 3.5)).all()
        np.testing.assert_allclose(window.to_input(boxes), sam.apply_boxes(boxes, size_hw))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("rate", [0.5, 1, 2, 3, 4])
def test_a_ramp_stays_where_it_is(interpolation, rate):
    """Pixels of value x at frame column x: input column u shows the frame coordinate below its centre."""
    step = 2 if rate < 1 else 1  # so that uint8 rounding goes both ways, or is not needed
    ramp = np.broadcast_to(step * np.arange(120, dtype=np.uint8)[None, :, None], (120, 120, 3))
    config = InferenceConfig(rate=rate, interpolation=interpolation)
    window = only(crops.plan([[57, 58, 65, 64]], (120, 120), 32, config))
    across = crops.cut(ramp, window, 32, config)[..., 0] / step
    down = crops.cut(ramp.swapaxes(0, 1), window, 32, config)[..., 0].T / step
    for shown, start, scale in zip((across, down), (window.x0, window.y0), window.scale_xy, strict=True):
        error = shown - (start + (np.arange(32) + 0.5) / scale - 0.5)
        assert abs(error).max() < 0.51  # uint8 rounding
        assert abs(error.mean()) < 0.02


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_fine_grating_averages_out_when_shrunk(interpolation):
    image = np.zeros((400, 400, 3), dtype=np.uint8)
    image[:, ::2] = 254
    config = InferenceConfig(rate=0.3, interpolation=interpolation)
    window = only(crops.plan([[190, 190, 210, 210]], (400, 400), 64, config))
    assert window.width == 213
    contrast = abs(crops.cut(image, window, 64, config) - 127).max() / 127
    assert contrast < 0.1  # without a widened kernel, all of it comes through


def test_bicubic_overshoot_is_clamped():
    image = np.zeros((80, 80, 3), dtype=np.uint8)
    image[:, 40:] = 255
    window = only(crops.plan([[36, 36, 44, 44]], (80, 80), 128, InferenceConfig(rate=4)))
    row = crops.cut(image, window, 128, InferenceConfig(rate=4))[64, :, 0]
    assert row.min() == 0 and row.max() == 255
    assert (np.diff(row) >= 0).all()  # a wrapped overshoot would dip beside the edge


def test_bicubic_overshoot_wraps_as_in_the_released_code(rng):
    """Beside an edge 255 becomes 0 and 0 becomes 255; elsewhere the kernels agree to a few gray levels."""
    image = np.zeros((80, 80, 3), dtype=np.uint8)
    image[:, 40:] = 255
    wrap = InferenceConfig(rate=4, overshoot="wrap")
    window = only(crops.plan([[36, 36, 44, 44]], (80, 80), 128, wrap))
    row = crops.cut(image, window, 128, wrap)[64, :, 0]
    unclamped = F.interpolate(
        torch.from_numpy(image[None, None, 24:56, 24:56, 0]).float(), (128, 128), mode="bicubic", align_corners=False
    )[0, 0, 64].numpy()
    assert unclamped.min() < -5 and unclamped.max() > 260
    np.testing.assert_array_equal(row, unclamped.astype(np.int64) % 256)
    smooth = np.broadcast_to(np.arange(80, dtype=np.uint8)[None, :, None] + 60, (80, 80, 3))
    clamped = crops.cut(smooth, window, 128, InferenceConfig(rate=4))
    assert abs(crops.cut(smooth, window, 128, wrap) - clamped)[:, 4:-4].max() <= 1


def test_windows_are_cut_off_at_the_border_and_padded_with_zeros_as_in_the_released_code(rng):
    image = rng.integers(1, 256, (300, 400, 3), dtype=np.uint8)
    config = InferenceConfig(rate=2, border="clamp_and_pad")
    boxes = [[190, 140, 210, 160], [0, 0, 8, 8], [392, 292, 400, 300], [0, 140, 10, 160]]
    plans = crops.plan(boxes, (300, 400), S, config)
    corners = [(136, 86, 264, 214), (0, 0, 68, 68), (332, 232, 400, 300), (0, 86, 69, 214)]
    assert [window.window_xyxy for window in plans] == corners
    for overshoot in ("clamp", "wrap"):
        for window in plans:
            assert window.scale_xy == (2, 2)
            x0, y0, x1, y1 = window.window_xyxy
            how = config.model_copy(update={"overshoot": overshoot, "interpolation": "bicubic"})
            view = crops.cut(image, window, S, how, (9, 9, 9))
            height, width = window.content_hw
            assert (height, width) == (2 * (y1 - y0), 2 * (x1 - x0))
            assert view.shape == (S, S, 3) and view[: height - 4, : width - 4].any(axis=2).all()
            assert not view[height + 4 :].any() and not view[:, width + 4 :].any()
            np.testing.assert_allclose(window.to_input(np.array([[x0, y0, x1, y1]])), [[0, 0, width, height]])


@pytest.mark.parametrize("size_hw", [(100, 80), (90, 90), (333, 500)])
def test_direct_is_sam2s_resize_to_a_square(size_hw, rng):
    """Its transforms resize tensors in [0, 1] bilinearly with antialiasing, unrounded; `interpolation` is ignored."""
    image = rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    theirs = resize(to_tensor(image), [128, 128], antialias=True).permute(1, 2, 0).numpy() * 255
    for interpolation in ("bicubic", "bilinear"):
        config = InferenceConfig(mode="direct", interpolation=interpolation)
        window = only(crops.plan([[5, 5, 20, 20]], size_hw, 128, config, "square"))
        np.testing.assert_allclose(crops.cut(image, window, 128, config, resize="square"), theirs, atol=1e-3)


def sam_postprocess(logits, window, size):
    """`Sam.postprocess_masks`, on the window instead of the whole image, in float64."""
    up = F.interpolate(
        torch.from_numpy(logits)[None, None].double(), (size, size), mode="bilinear", align_corners=False
    )
    up = up[..., : window.content_hw[0], : window.content_hw[1]]
    return F.interpolate(up, (window.height, window.width), mode="bilinear", align_corners=False)[0, 0].numpy()


@pytest.mark.parametrize("mode, rate", [("direct", 1), ("object", 0.5), ("object", 1), ("object", 3), ("object", 4)])
def test_restored_logits_are_sams(mode, rate, rng):
    config = InferenceConfig(mode=mode, rate=rate)
    for size_hw in [(333, 500), (100, 61)]:
        window = only(crops.plan([[20, 30, 45, 50]], size_hw, S, config))
        logits = rng.normal(0, 5, (S // 4, S // 4)).astype(np.float32)
        expected = sam_postprocess(logits, window, S)
        whole = crops.restore(logits, window)
        np.testing.assert_allclose(whole, expected, atol=1e-5)
        np.testing.assert_allclose(crops.restore(logits, window, (5, 7, 30, 20)), whole[7:20, 5:30], atol=1e-5)


def test_restored_logits_do_not_alias_when_pixels_are_larger_than_cells():
    """Stripes one cell wide under pixels of four cells are the stripes' mean, whatever their phase."""
    window = only(crops.plan([[30, 30, 33, 33]], (64, 64), S, InferenceConfig(rate=16)))
    assert (window.width, window.height) == (16, 16)
    stripes = np.tile(np.float32([10, -10]), (S // 4, S // 8))
    assert abs(crops.restore(stripes, window)[:, 1:-1]).max() < 0.5


@pytest.mark.parametrize("rate", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("corner", [(0, 0), (472, 0), (0, 372), (472, 372), (240, 190)])
def test_there_and_back_nothing_drifts(rate, corner):
    """Logits that are linear in frame coordinates come back as the same function, to 1/200 of a pixel."""
    x, y = corner
    window = only(crops.plan([[x, y, x + 28, y + 28]], (400, 500), S, InferenceConfig(rate=rate)))
    cell = (np.arange(S // 4) + 0.5) * 4
    column = (window.x0 + cell / window.scale_xy[0]).astype(np.float32)
    row = (window.y0 + cell / window.scale_xy[1]).astype(np.float32)
    xs, ys = np.arange(window.width) + window.x0 + 0.5, np.arange(window.height) + window.y0 + 0.5
    inner = slice(2, -2)  # the outermost half cell has no neighbour to interpolate with
    back = crops.restore(np.broadcast_to(column, (S // 4, S // 4)), window)
    np.testing.assert_allclose(back[:, inner], np.broadcast_to(xs, back.shape)[:, inner], atol=5e-3, rtol=0)
    back = crops.restore(np.broadcast_to(row[:, None], (S // 4, S // 4)), window)
    np.testing.assert_allclose(back[inner], np.broadcast_to(ys[:, None], back.shape)[inner], atol=5e-3, rtol=0)


def test_nothing_rises_above_the_threshold_out_of_reach(rng):
    for rate, size_hw in [(0.5, (400, 500)), (2, (400, 500)), (2, (70, 90)), (8, (400, 500))]:
        window = only(crops.plan([[30, 30, 45, 45]], size_hw, S, InferenceConfig(rate=rate)))
        for _ in range(20):
            logits = np.full((S // 4, S // 4), -1, dtype=np.float32)
            x, y = rng.integers(0, 50, 2)
            logits[y : y + 5, x : x + 9] = rng.uniform(-1, 3, (5, 9))
            above = crops.restore(logits, window) > 0
            reach = crops.reach(logits > 0, window)
            if reach is not None:
                x0, y0, x1, y1 = reach
                above[y0:y1, x0:x1] = False
            assert not above.any()


def test_cells_of_the_padding_reach_nothing():
    window = only(crops.plan([[30, 30, 45, 45]], (70, 90), S, InferenceConfig(rate=2)))
    above = np.zeros((S // 4, S // 4), dtype=bool)
    above[-1, -1] = True
    assert crops.reach(above, window) is None


def test_a_frame_made_square_fills_the_input_and_its_logits_come_back_in_place():
    box = np.array([[30.0, 40, 90, 50]])
    for size_hw in ((60, 120), (300, 100)):
        window = only(crops.plan(box, size_hw, S, InferenceConfig(mode="direct"), "square"))
        assert window.content_hw == (S, S) and window.window_xyxy == (0, 0, size_hw[1], size_hw[0])
        scale = np.tile((S / size_hw[1], S / size_hw[0]), 2)
        np.testing.assert_allclose(window.to_input(box), box * scale)
        logits = np.full((S // 4, S // 4), -1.0, dtype=np.float32)
        logits[: S // 8] = 1.0
        restored = crops.restore(logits, window)
        assert restored.shape == size_hw
        assert (restored[: size_hw[0] // 2] > 0).all() and (restored[size_hw[0] // 2 :] < 0).all()
    assert crops.plan(box, (60, 120), S, InferenceConfig(), "square") == crops.plan(
        box, (60, 120), S, InferenceConfig()
    )
