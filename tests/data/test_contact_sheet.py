"""The contact sheet shows what the annotations say, where they say it."""

import numpy as np
import pytest
from PIL import Image

from rossam_core.data import masks
from rossam_core.data.contact_sheet import BOX_COLOUR, LABEL_HEIGHT, MASK_COLOUR, contact_sheet, write_contact_sheet
from rossam_core.data.records import Frame, FrameSet, ObjectAnnotation
from rossam_core.errors import RossamError


@pytest.fixture
def frames(tmp_path):
    """A white square of 10×10 pixels on black, once with its mask and once with its box alone."""
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[15:25, 20:30] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = pixels[..., 0] > 0
    box = (20, 15, 30, 25)
    objects = (ObjectAnnotation(1, "a", box, masks.encode(mask)), ObjectAnnotation(2, "b", box))
    return FrameSet("made", [Frame("made", "v", 1, tmp_path / "a.png", mask.shape, objects)])


def test_outlines_lie_on_the_edge_of_the_object(frames):
    tile = 200
    sheet = contact_sheet(frames, count=2, columns=2, tile=tile, context=2)
    assert sheet.shape == (tile + LABEL_HEIGHT, 2 * tile, 3) and sheet.dtype == np.uint8
    for part, colour in ((sheet[:tile, :tile], MASK_COLOUR), (sheet[:tile, tile:], BOX_COLOUR)):
        y, x = np.nonzero((part == colour).all(axis=2))
        # The object is the middle half of its tile: 50 to 150, ten tile pixels a frame pixel.
        np.testing.assert_allclose([x.min(), y.min(), x.max(), y.max()], [50, 50, 150, 150], atol=1)
        assert part[100, 100].tolist() == [200] * 3 and part[20, 20].tolist() == [0] * 3


def test_a_sheet_has_as_many_tiles_as_objects_and_whole_rows(frames, tmp_path):
    write_contact_sheet(frames, tmp_path / "sheet.png", columns=3, tile=32)
    assert Image.open(tmp_path / "sheet.png").size == (96, 32 + LABEL_HEIGHT)
    with pytest.raises(RossamError, match="has no object in 0 frames"):
        contact_sheet(frames[:0])
