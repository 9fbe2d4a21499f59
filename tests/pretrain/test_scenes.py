"""Procedural scenes: determinism, shapes and ranges, exactness of masks, spread of sizes."""

import itertools

import cv2
import numpy as np
import pytest

from rossam_core.masks import box_of
from tools.pretrain import scenes as module
from tools.pretrain import shapes, structures, textures
from tools.pretrain.scenes import MIN_AREA, MIN_SIDE, sample_scene


def scenes(count, size=256, seed=0):
    return [sample_scene(np.random.default_rng([seed, number]), size) for number in range(count)]


def longer_side(mask):
    x0, y0, x1, y1 = box_of(mask)
    return max(x1 - x0, y1 - y0)


@pytest.fixture(scope="module")
def many():
    return scenes(60)


def test_a_seed_fixes_image_and_masks_and_another_seed_changes_them():
    (first, again), other = (sample_scene(np.random.default_rng(7), 96) for _ in range(2)), scenes(1, 96, seed=8)[0]
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    assert first[0].tobytes() != other[0].tobytes()


@pytest.mark.parametrize("size", [32, 128, 200])
def test_every_size_gives_an_image_and_masks_of_that_size(size):
    for image, masks in scenes(5, size):
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert masks.shape[1:] == (size, size) and masks.dtype == bool and len(masks) >= 1


def test_every_annotated_object_is_large_enough_to_see(many):
    for mask in itertools.chain.from_iterable(masks for _, masks in many):
        assert mask.sum() >= MIN_AREA
        assert longer_side(mask) >= MIN_SIDE


def test_objects_measure_from_a_few_pixels_to_most_of_the_image(many):
    sides = np.array([longer_side(mask) for _, masks in many for mask in masks])
    assert sides.min() <= 8
    assert sides.max() >= 0.9 * 256
    for low, high in ((6, 16), (16, 48), (48, 128), (128, 257)):
        assert np.mean((sides >= low) & (sides < high)) > 0.03, (low, high)


def test_objects_overlap_only_as_part_and_whole(many):
    for _, masks in many:
        for a, b in itertools.combinations(masks, 2):
            shared = (a & b).sum()
            # Whatever lies above both of a whole and its part hides both alike.
            assert shared == 0 or shared >= 0.99 * min(a.sum(), b.sum())


def drawn_with(layout, count, monkeypatch):
    monkeypatch.setattr(module, "LAYOUTS", (layout,))
    monkeypatch.setattr(module, "LAYOUT_WEIGHTS", (1.0,))
    return scenes(count, 128)


def test_fields_are_whole_although_lines_divide_them(monkeypatch):
    """The fullest mask of a scene fills its smallest turned rectangle, or an oval's share of that, at least π/4."""
    filled = []
    for _, masks in drawn_with(structures.lay_fields, 12, monkeypatch):
        points = [np.argwhere(mask).astype(np.float32) for mask in masks]
        boxes = [np.prod(np.array(cv2.minAreaRect(each)[1]) + 1) for each in points]
        filled.append(max(len(each) / box for each, box in zip(points, boxes, strict=True)))
    assert np.mean(np.array(filled) > 0.75) > 0.8


def test_a_crossing_is_a_straight_strip_and_ends_at_the_band(monkeypatch):
    longest = []
    for _, masks in drawn_with(structures.lay_crossing, 12, monkeypatch):
        sides = [np.sort(np.array(cv2.minAreaRect(np.argwhere(mask).astype(np.float32))[1]) + 1) for mask in masks]
        longest.append(max(side[1] / side[0] for side in sides))
    assert np.median(longest) > 3


def test_a_group_covers_its_members(monkeypatch):
    covered = 0
    for _, masks in drawn_with(structures.lay_group, 12, monkeypatch):
        whole = masks[np.argmax(masks.sum(axis=(1, 2)))]
        members = [mask for mask in masks if mask is not whole and (mask & ~whole).sum() <= 0.01 * mask.sum()]
        covered += len(members) >= 2
    assert covered >= 8


def test_images_are_neither_blank_nor_alike(many):
    means = np.array([image.mean() for image, _ in many])
    assert all(image.std() > 1 for image, _ in many)
    assert means.std() > 20


def test_texture_tiles_are_normalised():
    bank = textures.texture_bank()
    assert np.isfinite(bank).all()
    assert np.abs(bank.mean(axis=(1, 2))).max() < 0.2
    assert bank.std(axis=(1, 2)) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("family", shapes.FAMILIES, ids=lambda family: family.__name__)
def test_every_family_fits_the_unit_frame_and_covers_something(rng, family):
    for _ in range(8):
        silhouette = shapes.normalise(family(rng))
        painted = np.concatenate([polygon for polygon, paints in silhouette if paints])
        assert np.isfinite(painted).all()
        assert np.ptp(painted, axis=0).max() == pytest.approx(1)
        matrix = np.array([[60.0, 0, 40], [0, 60.0, 40]])
        coverage, window, inside = shapes.rasterise(silhouette, matrix, 80)
        assert coverage.shape == (window[0].stop - window[0].start, window[1].stop - window[1].start)
        assert coverage.min() >= 0 and coverage.max() <= 1
        assert coverage.sum() > 5
        assert inside == pytest.approx(1)


def test_rasterised_area_equals_the_polygon_s(rng):
    for scale in (12.0, 40.0, 150.0):
        square = [(np.array([[-0.5, -0.25], [0.5, -0.25], [0.5, 0.25], [-0.5, 0.25]]), True)]
        angle = rng.uniform(0, np.pi)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        coverage, _, _ = shapes.rasterise(square, np.c_[turn, [100, 100]], 200)
        # cv2 paints the outline's own pixels too: up to one fine pixel (a quarter or half) around.
        perimeter = 3 * scale
        assert scale**2 / 2 <= coverage.sum() + 0.02 * scale**2 <= scale**2 / 2 + 0.6 * perimeter + 0.02 * scale**2


def test_a_silhouette_beyond_the_canvas_is_none_and_one_across_its_border_is_cut():
    square = [(np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]), True)]
    assert shapes.rasterise(square, np.array([[10.0, 0, -50], [0, 10.0, 20]]), 40) is None
    coverage, window, inside = shapes.rasterise(square, np.array([[20.0, 0, 0], [0, 20.0, 20]]), 40)
    assert window[1].start == 0 and inside == pytest.approx(0.5)
    assert coverage.sum() == pytest.approx(200, rel=0.1)
