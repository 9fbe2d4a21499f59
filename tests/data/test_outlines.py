"""Outlines follow pixels exactly, so that they fill back into the mask they came from."""

import numpy as np

from rossam_kit.convert.outlines import outline_path, outlines


def signed_area(loop):
    x, y = loop.T
    return 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)


def test_outlines_enclose_exactly_the_mask_with_right_angles_only(rng):
    for _ in range(200):
        mask = rng.random(rng.integers(1, 12, 2)) > rng.random()
        loops = outlines(mask)
        assert sum(signed_area(loop) for loop in loops) == mask.sum()  # holes run the other way and count negative
        for loop in loops:
            steps = np.roll(loop, -1, axis=0) - loop
            assert ((steps != 0).sum(axis=1) == 1).all(), "along pixel edges"
            assert ((np.roll(steps, -1, axis=0) * steps).sum(axis=1) == 0).all(), "a corner at every point"


def test_outlines_of_simple_shapes():
    assert outlines(np.zeros((3, 4), bool)) == []
    assert outlines(np.eye(2, dtype=bool))[1].tolist() == [[1, 1], [2, 1], [2, 2], [1, 2]]
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert sorted(signed_area(loop) for loop in outlines(ring)) == [-1, 9]


def test_the_path_of_an_outline():
    assert outline_path(np.ones((1, 2), bool)) == "M0 0h2v1h-2z"
    assert outline_path(np.zeros((2, 2), bool)) == ""
