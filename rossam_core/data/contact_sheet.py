"""A sheet of objects, each cut out with its outline: the quickest way to see whether a dataset was read rightly.

In: any `FrameSet`. Out: one RGB array, or a PNG file. A mask is outlined in yellow, a bare box (or its oriented
corners) in cyan; box or mask one pixel off, axes exchanged, or frames out of step are seen at a glance.
"""

from __future__ import annotations

from os import PathLike

import cv2
import numpy as np

from ..errors import RossamError
from ..files import write_bytes
from .records import Frame, FrameSet, ObjectAnnotation

MASK_COLOUR, BOX_COLOUR = (255, 225, 0), (0, 220, 255)
SMALLEST_WINDOW = 16
"""Frame pixels; a cut-out shows at least this much, however small its object."""
LABEL_HEIGHT = 14


def contact_sheet(
    frames: FrameSet, count: int = 24, columns: int = 6, tile: int = 128, context: float = 1.8
) -> np.ndarray:
    """Objects from all over a frame set, row by row.

    Args:
        frames: the objects are taken at even distances from the list of all of them, each category in its turn.
        count: objects shown, or as many as there are.
        columns: cut-outs a row.
        tile: side of a cut-out on the sheet, pixels.
        context: side of a cut-out in the frame, as a multiple of the longer side of the object's box.

    Returns:
        uint8 H×W×3, RGB.

    Raises:
        RossamError: there is no object, or an image cannot be read.
    """
    objects = sorted(((f, o) for f in frames for o in f.objects), key=lambda entry: entry[1].category)
    if not objects:
        raise RossamError(frames.name, f"has no object in {len(frames)} frames", "draw a set that has some")
    chosen = [objects[i] for i in sorted(set(np.linspace(0, len(objects) - 1, count).round().astype(int).tolist()))]
    tiles, image_of = [], (None, None)
    for frame, item in chosen:
        if image_of[0] is not frame:
            image_of = (frame, frame.image())
        tiles.append(_tile(image_of[1], frame, item, tile, context))
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def write_contact_sheet(frames: FrameSet, path: str | PathLike, **options) -> None:
    """Write `contact_sheet(frames, **options)` as a PNG, atomically."""
    write_bytes(path, cv2.imencode(".png", contact_sheet(frames, **options)[..., ::-1])[1].tobytes())


def _tile(image: np.ndarray, frame: Frame, item: ObjectAnnotation, tile: int, context: float) -> np.ndarray:
    """One cut-out with outline and label, uint8 (tile + LABEL_HEIGHT)×tile×3; black where the frame ends."""
    x0, y0, x1, y1 = item.box_xyxy
    side = max(context * max(x1 - x0, y1 - y0), SMALLEST_WINDOW)
    scale = tile / side
    # Frame pixel-edge coordinates → those of the tile.
    affine = np.array([[scale, 0, tile / 2 - scale * (x0 + x1) / 2], [0, scale, tile / 2 - scale * (y0 + y1) / 2]])
    to_centres = affine.copy()  # OpenCV puts the coordinate 0 into the middle of the first pixel
    to_centres[:, 2] += (scale - 1) / 2
    cut = cv2.warpAffine(image, to_centres, (tile, tile), flags=cv2.INTER_LINEAR)
    if item.has_mask:
        mask = item.mask(frame.size_hw).astype(np.uint8)
        mask = cv2.warpAffine(mask, to_centres, (tile, tile), flags=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(cut, contours, -1, MASK_COLOUR, 1)
    else:
        corners = np.array(item.attributes.get("corners") or [[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        points = np.rint(corners @ affine[:, :2].T + affine[:, 2]).astype(np.int32)
        cv2.polylines(cut, [points], True, BOX_COLOUR, 1)
    label = np.full((LABEL_HEIGHT, tile, 3), 255, np.uint8)
    cv2.putText(label, item.category, (2, LABEL_HEIGHT - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([cut, label])
