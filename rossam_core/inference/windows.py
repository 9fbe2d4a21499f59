"""Geometry of the inference pipeline (paper section 3.2.3): plan windows, cut them out, restore their logits.

Frame and input coordinates are pixel-edge: pixel i covers i to i + 1, and a window that is enlarged r times
sends frame coordinate x to r · (x - x0), without a half-pixel shift in either direction. Windows lie on whole
frame pixels inside the frame. The model's input is S×S; a window that fills less of it (the frame is smaller than the
window, or `border` is `clamp_and_pad`) lies at the top left, and the rest is padding, as in SAM. For SAM2 and SAM 3
a whole frame is stretched to a square.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch.nn import functional as F

from rossam_core.settings import InferenceConfig

SOPSEG_SMALL = 32
"""Longer side in pixels below which SOPSeg (arXiv 2509.03002) calls an object small."""

Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels, x1 and y1 exclusive."""

Cover = Iterator[tuple[Sequence[int], list[int]]]
"""For each window the rectangle that it is centred on, and the rows of the box array that it serves."""


@dataclass(frozen=True)
class CropPlan:
    """One window of a frame: its corner and extent in frame pixels."""

    x0: int
    y0: int
    width: int
    height: int
    content_hw: tuple[int, int]
    """Input pixels it fills, from the top left of the S×S input."""
    indices: tuple[int, ...]
    """Rows of the box array it serves."""
    input_size: int
    """S."""

    @property
    def window_xyxy(self) -> Rectangle:
        return self.x0, self.y0, self.x0 + self.width, self.y0 + self.height

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Input pixels per frame pixel, in x and y (equal, except for rounding and frames stretched to a square)."""
        return self.content_hw[1] / self.width, self.content_hw[0] / self.height

    def holds(self, hull: Sequence[int]) -> bool:
        """Whether a pixel rectangle of the frame lies entirely in the window."""
        x0, y0, x1, y1 = self.window_xyxy
        return x0 <= hull[0] and y0 <= hull[1] and hull[2] <= x1 and hull[3] <= y1

    def to_input(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Boxes N×4 in frame pixels → N×4 in input pixels, clipped to what the model sees of the frame."""
        scale = np.tile(self.scale_xy, 2)
        boxes = (np.asarray(boxes_xyxy, dtype=np.float64) - (self.x0, self.y0, self.x0, self.y0)) * scale
        height, width = self.content_hw
        return boxes.clip(0, (width, height, width, height))


def pixel_hulls(boxes_xyxy: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Smallest pixel rectangles of the frame that hold the boxes' visible parts: int N×4, at least 1×1 each."""
    height, width = size_hw
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    low = np.floor(boxes[:, :2]).clip(0, (width - 1, height - 1))
    high = np.maximum(np.ceil(boxes[:, 2:]).clip(0, (width, height)), low + 1)
    return np.concatenate([low, high], axis=1).astype(np.int64)


# --- plan -------------------------------------------------------------------------------------------------------


def plan(
    boxes_xyxy: np.ndarray,
    size_hw: tuple[int, int],
    input_size: int,
    config: InferenceConfig,
    resize: Literal["longest_side", "square"] = "longest_side",
) -> list[CropPlan]:
    """Windows that together serve every box exactly once, in a fixed order.

    - `direct`: the whole frame, its longer side scaled to the input (SAM's `ResizeLongestSide`) or, by `resize`,
      both sides (SAM2).
    - `tiled`: windows of side S / rate on a grid that overlaps by half a side or more, so that every box up to
      half a side is whole in one of them. A box goes to the tile in which it lies whole and most central; tiles
      that serve no box are left out.
    - `shared`: a greedy cover by windows of side S / rate. The leftmost unserved box opens a window, placed so that it
      holds as many other unserved boxes whole as it can, then centred on what it holds.
    - `object`: one window per box, centred on it; at the frame's borders `border` decides.

    All windows measure S / rate, and a longer box is cut (paper), unless `growth` says otherwise
    (`window_sides`). In `tiled` and `shared`, a box that needs another side than S / rate, or lies whole in
    no tile, has a window of its own.

    Args:
        boxes_xyxy: N×4, frame pixels; parts outside the frame play no role.
        input_size: S, the model's input side in pixels.
        resize: how the model makes a frame square (`PromptableSegmenter.resize`).
    """
    hulls = pixel_hulls(boxes_xyxy, size_hw)
    all_boxes = range(len(hulls))
    if not len(hulls):
        return []
    if config.mode == "direct":
        frame = _window((0, 0, *size_hw[::-1]), max(size_hw), size_hw, input_size, all_boxes)
        return [replace(frame, content_hw=(input_size, input_size))] if resize == "square" else [frame]

    base = max(1, round(input_size / config.rate))
    longer = (hulls[:, 2:] - hulls[:, :2]).max(axis=1)
    sides = window_sides(longer, base, size_hw, config)

    plans, served = [], set()
    if config.mode != "object":
        cover = _tiles if config.mode == "tiled" else _greedy_cover
        fitting = [i for i in all_boxes if longer[i] <= base and sides[i] == base]
        for rectangle, indices in cover(hulls, fitting, base, size_hw):
            plans.append(_window(rectangle, base, size_hw, input_size, indices, config.border))
            served.update(indices)
    alone = [i for i in all_boxes if i not in served]
    return plans + [_window(hulls[i], int(sides[i]), size_hw, input_size, (i,), config.border) for i in alone]


def window_sides(longer: ArrayLike, base: int, size_hw: tuple[int, int], config: InferenceConfig) -> np.ndarray:
    """Side of the square window around each object, int64, by `config.growth`. A window that grows stops at the frame's
    longer side. `longer`: longer sides of the boxes, `base`: side of a fixed window, in frame pixels."""
    longer, context = np.asarray(longer, dtype=np.float64), config.context
    if config.growth == "none":
        return np.full(longer.shape, base)
    smallest = base
    sides = context * longer
    if config.growth == "sopseg":
        smallest, sides = 1, np.where(longer < SOPSEG_SMALL, 2 * longer, sides + (2 - context) * SOPSEG_SMALL)
    return np.ceil(sides).clip(smallest, max(smallest, *size_hw)).astype(np.int64)


def _window(
    rectangle: Sequence[int],
    side: int,
    size_hw: tuple[int, int],
    input_size: int,
    indices: Sequence[int],
    border: Literal["shift", "clamp_and_pad"] = "shift",
) -> CropPlan:
    """The window of that side centred on `rectangle`, shifted inside the frame or cut at its border."""
    starts, extents = [], []
    for low, high, length in zip(rectangle[:2], rectangle[2:], reversed(size_hw), strict=True):
        if border == "clamp_and_pad":
            first = (int(low) + int(high) - side) // 2
            start, end = max(first, 0), min(first + side, length)
        else:
            extent = min(side, length)
            start = min(max((int(low) + int(high) - extent) // 2, 0), length - extent)
            end = start + extent
        starts.append(start)
        extents.append(end - start)
    (x0, y0), (width, height) = starts, extents
    # SAM's rounding
    content_height, content_width = (max(1, int(n * input_size / side + 0.5)) for n in (height, width))
    return CropPlan(x0, y0, width, height, (content_height, content_width), tuple(indices), input_size)


def _tiles(hulls: np.ndarray, fitting: list[int], side: int, size_hw: tuple[int, int]) -> Cover:
    """Tiles of a fixed grid, row by row, each with the boxes given to it."""
    lefts, columns = _central_tile(hulls[fitting][:, 0::2], side, size_hw[1])
    tops, rows = _central_tile(hulls[fitting][:, 1::2], side, size_hw[0])
    members: dict[tuple[int, int], list[int]] = {}
    for i, row, column in zip(fitting, rows, columns, strict=True):
        if row >= 0 and column >= 0:
            members.setdefault((int(tops[row]), int(lefts[column])), []).append(i)
    for (top, left), indices in sorted(members.items()):
        yield (left, top, left + side, top + side), indices


def _central_tile(spans: np.ndarray, side: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: the tiles' starts, and for each span (N×2) the tile that holds it most centrally, or -1."""
    count = math.ceil(2 * max(0, length - side) / side) + 1
    starts = np.linspace(0, max(0, length - side), count).round().astype(np.int64)
    low, high = spans[:, :1], spans[:, 1:]
    is_whole = (starts <= low) & (high <= starts + side)  # N×tiles
    distance = np.where(is_whole, abs(low + high - 2 * starts - side), np.inf)
    return starts, np.where(is_whole.any(axis=1), distance.argmin(axis=1), -1)


def _greedy_cover(hulls: np.ndarray, fitting: list[int], side: int, size_hw: tuple[int, int]) -> Cover:
    """Windows from left to right. One of them must hold the leftmost unserved box; it may start at that box's left edge
    without losing another box. Only its top edge is chosen, among the top edges of the boxes that it could hold."""
    unserved = np.array(sorted(fitting, key=lambda i: tuple(hulls[i])), dtype=np.int64)
    while len(unserved):
        x0, y0, _, y1 = hulls[unserved[0]]
        strip = unserved[hulls[unserved, 2] <= x0 + side]
        strip_y0, strip_y1 = hulls[strip, 1], hulls[strip, 3]
        tops = np.unique(strip_y0[(strip_y0 <= y0) & (y1 <= strip_y0 + side)])
        is_whole = (tops[:, None] <= strip_y0) & (strip_y1 <= tops[:, None] + side)  # tops×strip
        members = strip[is_whole[is_whole.sum(axis=1).argmax()]]
        union = (*hulls[members, :2].min(axis=0), *hulls[members, 2:].max(axis=0))
        yield union, sorted(members.tolist())
        unserved = unserved[~np.isin(unserved, members)]


# --- cut --------------------------------------------------------------------------------------------------------


def cut(
    image: np.ndarray,
    window: CropPlan,
    input_size: int,
    config: InferenceConfig,
    pad_value: Sequence[float] = (123.675, 116.28, 103.53),
    resize: Literal["longest_side", "square"] = "longest_side",
) -> np.ndarray:
    """The model's input for one window: float32 S×S×3 in 0..255, integer-valued except padding and stretched frames.

    Pillow resamples, as in SAM's own preprocessing: pixel-edge aligned; the kernel widens with the shrinking
    factor, so that fine texture averages out instead of aliasing; sums are clamped to 0..255, so that bicubic
    overshoot cannot wrap. Its bicubic kernel is Catmull-Rom's (a = -0.5; OpenCV's and torch's are sharper, -0.75).
    Pixels around the window contribute where the frame has them.

    Args:
        image: uint8 H×W×3, RGB.
        pad_value: RGB of the padding, the model's pixel mean; `border` = `clamp_and_pad` takes 0.
        resize: as `plan`'s.
    """
    if config.mode == "direct":
        return cut_frame(image, window, input_size, pad_value, resize)
    pad_value = (0, 0, 0) if config.border == "clamp_and_pad" else pad_value
    if config.interpolation == "bicubic" and config.overshoot == "wrap":
        return _cut_wrapping(image, window, input_size, pad_value)
    method = Image.Resampling.BICUBIC if config.interpolation == "bicubic" else Image.Resampling.BILINEAR
    margin = 3 * math.ceil(max(1, *(1 / scale for scale in window.scale_xy)))  # kernel radius, with a pixel to spare
    left, top = max(0, window.x0 - margin), max(0, window.y0 - margin)
    x0, y0, x1, y1 = window.window_xyxy
    around = Image.fromarray(np.ascontiguousarray(image[top : y1 + margin, left : x1 + margin]))
    box = (x0 - left, y0 - top, x1 - left, y1 - top)
    return _padded(around.resize(window.content_hw[::-1], method, box=box), input_size, pad_value)


def cut_frame(
    image: np.ndarray, frame: CropPlan, input_size: int, pad_value: Sequence[float], resize: str
) -> np.ndarray:
    """The whole frame as the original models take it, bilinear with antialiasing: SAM's `ResizeLongestSide` rounds to
    uint8; SAM2's transforms resize to a square in floating point."""
    size_wh, method = frame.content_hw[::-1], Image.Resampling.BILINEAR
    if resize == "square":
        planes = [Image.fromarray(image[..., c].astype(np.float32)).resize(size_wh, method) for c in range(3)]
        return np.stack([np.asarray(plane) for plane in planes], axis=-1)
    return _padded(Image.fromarray(image).resize(size_wh, method), input_size, pad_value)


def _padded(content: Image.Image, input_size: int, pad_value: Sequence[float]) -> np.ndarray:
    """The content at the top left of an S×S×3 input, float32."""
    square = np.empty((input_size, input_size, 3), dtype=np.float32)
    square[:] = pad_value
    square[: content.height, : content.width] = np.asarray(content)
    return square


def _cut_wrapping(image: np.ndarray, window: CropPlan, input_size: int, pad_value: Sequence[float]) -> np.ndarray:
    """The window padded to a square, then enlarged by torch's bicubic kernel and cast to uint8 without clamping."""
    x0, y0, x1, y1 = window.window_xyxy
    extent, content = max(zip((y1 - y0, x1 - x0), window.content_hw, strict=True))
    side = max(extent, round(extent * input_size / content))
    square = np.empty((side, side, 3), dtype=np.float32)
    square[:] = pad_value
    square[: y1 - y0, : x1 - x0] = image[y0:y1, x0:x1]
    planes = torch.from_numpy(square).permute(2, 0, 1)[None]  # H×W×3 → 1×3×H×W
    enlarged = F.interpolate(planes, (input_size, input_size), mode="bicubic", align_corners=False)
    return (enlarged[0].permute(1, 2, 0).to(torch.int32) & 255).float().numpy()


# --- restore ----------------------------------------------------------------------------------------------------


def restore(logits: np.ndarray, window: CropPlan, rectangle: Rectangle | None = None) -> np.ndarray:
    """Interpolate mask logits (float32 S/4×S/4, of SAM 3 S/3.5×S/3.5) to the window's frame pixels, as SAM does.

    Bilinear to the input, unpad, bilinear to the window.

    Both steps are linear in rows and columns apart, so that they are one small matrix per axis, and any rectangle can
    be computed without the rest. SAM does not antialias the second step, nor do we up to rate 4: the map was enlarged
    4 times just before and has nothing to alias. Beyond rate 4, where a frame pixel covers several mask cells, it
    is their weighted mean.

    Args:
        rectangle: what is computed, in window pixels; None = the whole window.

    Returns:
        float32 h×w of the rectangle.
    """
    x0, y0, x1, y1 = rectangle or (0, 0, window.width, window.height)
    vertical, horizontal = _axes(logits, window)
    row_weights, rows = vertical.part(y0, y1)
    column_weights, columns = horizontal.part(x0, x1)
    return row_weights @ logits[rows, columns] @ column_weights.T


def reach(above: np.ndarray, window: CropPlan) -> Rectangle | None:
    """Window pixels to whose logit any cell of `above` (bool, one per mask cell) contributes; None where none does.

    Restored logits are weighted means of cells, so a pixel outside cannot exceed the largest cell outside `above`.
    """
    spans = []
    for axis, cells in zip(reversed(_axes(above, window)), (above.any(axis=0), above.any(axis=1)), strict=True):
        contributing = np.flatnonzero(cells & (axis.first < axis.last))
        if not len(contributing):
            return None
        spans.append((int(axis.first[contributing[0]]), int(axis.last[contributing[-1]])))
    (x0, x1), (y0, y1) = spans
    return x0, y0, x1, y1


class _Axis(NamedTuple):
    weights: np.ndarray  # float32 window pixels × mask cells, rows sum to 1
    first: np.ndarray  # for each cell, the first window pixel it contributes to
    last: np.ndarray  # and the one after the last; first = last = 0 for cells of the padding

    def part(self, low: int, high: int) -> tuple[np.ndarray, slice]:
        """Weights of window pixels low..high, and the cells that contribute to them."""
        cells = np.flatnonzero((self.first < high) & (self.last > low))
        contributing = slice(cells[0], cells[-1] + 1)
        return self.weights[low:high, contributing], contributing


def _axes(cells: np.ndarray, window: CropPlan) -> tuple[_Axis, _Axis]:
    (height, width), (content_height, content_width), side = cells.shape, window.content_hw, window.input_size
    return _axis(height, side, content_height, window.height), _axis(width, side, content_width, window.width)


@functools.lru_cache(maxsize=32)
def _axis(cells: int, side: int, content: int, length: int) -> _Axis:
    """Weights along one axis, by resizing each cell's unit impulse."""
    impulses = torch.eye(cells, dtype=torch.float64)[None, None]
    on_input = F.interpolate(impulses, (cells, side), mode="bilinear")[..., :content]
    antialias = content * cells > side * length
    on_window = F.interpolate(on_input, (cells, length), mode="bilinear", antialias=antialias)
    weights = np.ascontiguousarray(on_window[0, 0].numpy().T, dtype=np.float32)
    contributes = weights > 0
    first, last = contributes.argmax(axis=0), length - contributes[::-1].argmax(axis=0)
    in_content = contributes.any(axis=0)
    return _Axis(weights, np.where(in_content, first, 0), np.where(in_content, last, 0))
