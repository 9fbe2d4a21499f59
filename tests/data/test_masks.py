"""Masks survive the way to run-length encoding and back; polygons rasterise as COCO's do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rossam_core import masks

anything = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


@given(anything)
def test_encoding_round_trips_any_mask(mask):
    rle = masks.encode(mask)
    decoded = masks.decode(rle, mask.shape)
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask)


@given(anything)
def test_uncompressed_counts_decode_to_the_same_mask(mask):
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask.ravel(order="F")[-1]]])
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], changes])).tolist()
    rle = {"size": list(mask.shape), "counts": counts}
    np.testing.assert_array_equal(masks.decode(rle, mask.shape), mask)


@given(anything, st.data())
def test_a_damaged_encoding_is_refused_or_still_fills_the_frame(mask, data):
    rle = masks.encode(mask)
    masks.check_rle(rle, mask.shape)
    text = list(rle["counts"])
    place = data.draw(st.integers(0, len(text) - 1))
    text[place : data.draw(st.integers(place, len(text)))] = data.draw(st.text("01PXop~ é", max_size=2))
    damaged = rle | {"counts": "".join(text)}
    try:
        masks.check_rle(damaged, mask.shape)
    except ValueError as error:
        assert "mask" in str(error)
        return
    first, second = (masks.decode(damaged, mask.shape) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("counts", ["", "0", "PP", "o" * 50, [3], [-1, 21], [1.5, 18.5], [], None, "é"])
def test_runs_that_do_not_fill_the_frame_are_refused(counts):
    with pytest.raises(ValueError, match="mask"):
        masks.decode({"size": [4, 5], "counts": counts}, (4, 5))


def test_a_rectangle_polygon_covers_its_pixel_edges_exactly():
    mask = masks.decode([[2, 1, 6, 1, 6, 4, 2, 4]], (5, 8))
    expected = np.zeros((5, 8), dtype=bool)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(mask, expected)
    assert masks.box_of(mask) == (2, 1, 6, 4)


def test_several_polygons_are_one_object():
    mask = masks.decode([[0, 0, 2, 0, 2, 2, 0, 2], [4, 2, 6, 2, 6, 4, 4, 4]], (5, 8))
    assert mask.sum() == 8 and masks.box_of(mask) == (0, 0, 6, 4)


def test_an_encoding_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"size \[4, 5\].*\[5, 4\]"):
        masks.decode(masks.encode(np.ones((4, 5), bool)), (5, 4))


def test_an_empty_mask_has_no_box():
    with pytest.raises(ValueError, match="no box"):
        masks.box_of(np.zeros((3, 3), bool))
