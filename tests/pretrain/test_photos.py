"""Photographs as surfaces: the split, errors of a folder, windows, colours; scenes that use them."""

import cv2
import numpy as np
import pytest

from rossam_core.errors import RossamError
from tools.pretrain.photos import HELD_OUT_EVERY, PhotoFill, read_photos
from tools.pretrain.scenes import sample_scene
from tools.pretrain.textures import Material, sample_fill


@pytest.fixture
def folder(tmp_path):
    """Sixteen drawn pictures; number n has a brightness of about 10 n in its red channel, and noise."""
    rng = np.random.default_rng(3)
    for number in range(16):
        picture = rng.integers(0, 10, (40, 60, 3), dtype=np.uint8)
        picture[..., 2] += np.uint8(10 * number)
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), picture)
    return tmp_path


def test_held_out_scenes_have_photographs_of_their_own(folder):
    held_out, trained = read_photos(folder, True), read_photos(folder, False)
    assert [round(photo[..., 0].mean() / 10 - 0.45) for photo in held_out] == [0, HELD_OUT_EVERY]
    assert [round(photo[..., 0].mean() / 10 - 0.45) for photo in trained] == [*range(1, 8), *range(9, 16)]
    assert all(photo.shape == (40, 60, 3) and photo.dtype == np.uint8 for photo in trained)
    assert read_photos(None, False) == ()


def test_a_folder_with_too_few_or_broken_photographs_is_an_error_that_names_it(folder, tmp_path):
    (folder / "01.png").write_bytes(b"cut off")
    with pytest.raises(RossamError, match=r"01\.png.*cannot be read"):
        read_photos(folder, False)
    for name in list(folder.glob("*.png"))[3:]:
        name.unlink()
    with pytest.raises(RossamError, match="holds 3 photographs"):
        read_photos(folder, False)


@pytest.mark.parametrize("size", [(1, 7), (50, 30), (300, 500)])
def test_a_window_has_the_size_asked_for_even_where_the_photograph_is_smaller(rng, size):
    photo = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    rendered = PhotoFill(photo, 0.7, 1.0, None).render(rng, *size)
    assert rendered.shape == (*size, 3) and rendered.dtype == np.float32


def test_colours_are_the_photographs_own_or_shifted_and_contrast_scales_them(rng):
    photo = rng.integers(0, 200, (64, 64, 3), dtype=np.uint8)
    base = np.float32([200, 30, 90])
    own = PhotoFill(photo, 1.0, 1.0, None).render(np.random.default_rng(1), 64, 64)
    flat = PhotoFill(photo, 1.0, 0.25, base).render(np.random.default_rng(1), 64, 64)
    assert own.mean(axis=(0, 1)) == pytest.approx(photo.mean(axis=(0, 1)), abs=0.1)
    assert flat.mean(axis=(0, 1)) == pytest.approx(base, abs=0.1)
    assert (flat - base) == pytest.approx(0.25 * (own - own.mean(axis=(0, 1))), abs=0.01)


def test_a_larger_zoom_shows_less_of_the_photograph(rng):
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    near, far = (np.ptp(PhotoFill(ramp, zoom, 1.0, None).render(rng, 100, 100)) for zoom in (4, 0.7))
    assert near == pytest.approx(25, abs=4) and far == pytest.approx(143, abs=4)


def test_the_share_of_photographs_is_that_of_the_settings(rng):
    photos, base = [np.zeros((8, 8, 3), np.uint8)], np.zeros(3, np.float32)
    kinds = [type(sample_fill(rng, base, photos, 0.6)) for _ in range(500)]
    assert 0.5 < kinds.count(PhotoFill) / 500 < 0.7
    assert {type(sample_fill(rng, base, (), 1.0)) for _ in range(20)} == {Material}


def test_scenes_with_photographs_are_reproducible_and_have_other_surfaces(folder):
    photos = read_photos(folder, False)
    first, again, drawn = (sample_scene(np.random.default_rng(4), 96, each, 1.0) for each in (photos, photos, ()))
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    assert first[0].tobytes() != drawn[0].tobytes()
