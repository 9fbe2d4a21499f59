"""The inspector's pictures, drawn with numpy and OpenCV in a few milliseconds: mask, logits, boundary errors.

In: a frame, masks and logits as arrays. Out: uint8 RGB tiles, PNG bytes, and the words beside the pictures as HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import cv2
import matplotlib
import numpy as np

from ..evaluation.metrics import MaskScores, boundary_band
from ..inference.crops import Rectangle
from ..inference.predictor import ObjectMask
from .style import BASE, INK, TARGET, Figure, colour, label

GAP = 6
"""Pixels between tiles."""
LOGIT_RANGE = 10.0
"""Logits of -10 and below, 10 and above have the ends of the colour scale."""
MISSED, EXTRA, SHARED, BEYOND = "#009e73", "#cc79a7", "#f0f0f0", "#d0d0d0"
"""Boundary that only the truth has, only the prediction, both; what no window covers."""
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # for enlarged pixels half the time of libpng's own choice, and no larger
    _PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
_HEAT = (matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)


def rgb(colour: str) -> tuple[int, int, int]:
    """`#2f7fd6` → (47, 127, 214)."""
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def square_around(
    boxes_xyxy: Sequence[Sequence[float]], size_hw: tuple[int, int], context: float = 2.0, least: int = 48
) -> Rectangle:
    """A square of `context` × the longer side of all boxes together, at least `least` px, kept inside the frame."""
    boxes = np.asarray(boxes_xyxy, dtype=float)
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = int(np.ceil(max(least, context * (high - low).max())))
    height, width = size_hw
    left, top = ((low + high - side) / 2).round().clip(0, (max(width - side, 0), max(height - side, 0))).astype(int)
    return int(left), int(top), min(int(left) + side, width), min(int(top) + side, height)


def fit_size(region: Rectangle, longest: int) -> tuple[int, int]:
    """Width and height at which a region's longer side has `longest` pixels."""
    width, height = region[2] - region[0], region[3] - region[1]
    scale = longest / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def part(array: np.ndarray, region: Rectangle) -> np.ndarray:
    """What an H×W… array holds in a region of the frame."""
    x0, y0, x1, y1 = region
    return array[y0:y1, x0:x1]


def enlarge(pixels: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Pixels as squares where they grow, averaged where they shrink."""
    method = cv2.INTER_NEAREST if size_wh[0] >= pixels.shape[1] else cv2.INTER_AREA
    return cv2.resize(np.ascontiguousarray(pixels), size_wh, interpolation=method)


def outlined(
    image: np.ndarray,
    region: Rectangle,
    size_wh: tuple[int, int],
    masks: Mapping[str, np.ndarray],
    boxes: Sequence[tuple[Sequence[float], tuple[int, int, int]]] = (),
) -> np.ndarray:
    """A part of the frame with the outlines of masks, each in its method's colour, the last on top.

    Args:
        image: uint8 H×W×3 RGB.
        masks: method (or `ground truth`) → bool H×W.
        boxes: rectangles to draw (xyxy, frame pixels), each with its RGB colour.
    """
    canvas = enlarge(part(image, region), size_wh)
    for method, mask in masks.items():
        _outline(canvas, part(mask, region), rgb(colour(method)))
    scale = np.array(size_wh) / (region[2] - region[0], region[3] - region[1])
    for box, line in boxes:
        corners = (np.reshape(box, (2, 2)) - region[:2]) * scale
        (left, top), (right, bottom) = corners.round().astype(int).tolist()
        for width, shade in ((3, (0, 0, 0)), (1, line)):
            cv2.rectangle(canvas, (left, top), (right, bottom), shade, width)
    return canvas


def heat_map(logits: np.ndarray, threshold: float, size_wh: tuple[int, int]) -> np.ndarray:
    """Logits (h×w, NaN outside the window) blue below and red above 0, with a black line at the threshold."""
    known = ~np.isnan(logits)
    steps = np.nan_to_num(logits.astype(np.float32) * (127.5 / LOGIT_RANGE) + 127.5).clip(0, 255).astype(np.uint8)
    colours = np.where(known[..., None], _HEAT[steps], np.array(rgb(BEYOND), dtype=np.uint8))
    canvas = enlarge(colours, size_wh)
    above = np.greater(logits, threshold, where=known, out=np.zeros(logits.shape, dtype=bool))
    cv2.drawContours(canvas, _contours(above, size_wh), -1, (0, 0, 0), 1)
    return canvas


def boundary_errors(pred: np.ndarray, target: np.ndarray, band_px: int, region: Rectangle | None = None) -> np.ndarray:
    """Where two masks' inner boundary bands agree: 0 no boundary, 1 of both, 2 of the target alone, 3 of `pred` alone.

    Boundary IoU is the number of ones over the number of ones, twos and threes. Both bool H×W; returns uint8 h×w of
    `region`, by default of the whole frame.
    """
    region = region or (0, 0, *pred.shape[::-1])
    return np.array([[0, 2], [3, 1]], dtype=np.uint8)[
        part(_band(pred, band_px), region).view(np.uint8), part(_band(target, band_px), region).view(np.uint8)
    ]


def error_map(image: np.ndarray, errors: np.ndarray, region: Rectangle, size_wh: tuple[int, int]) -> np.ndarray:
    """`boundary_errors` of a region in colour over the image's, pale and gray."""
    gray = cv2.cvtColor(np.ascontiguousarray(part(image, region)), cv2.COLOR_RGB2GRAY)
    canvas = np.repeat((gray // 3 + 60)[..., None], 3, axis=2)
    for code, shade in ((1, SHARED), (2, MISSED), (3, EXTRA)):
        canvas[errors == code] = rgb(shade)
    return enlarge(canvas, size_wh)


def method_tiles(
    method: str,
    image: np.ndarray,
    answer: ObjectMask,
    target: np.ndarray | None,
    region: Rectangle,
    band_px: int,
    side: int,
) -> np.ndarray:
    """Outline, logits and, where the truth is known, boundary errors of one answer, one below the other on white.

    Args:
        image: uint8 H×W×3 RGB.
        answer: with logits as far as they shall be shown.
        target: bool H×W.
        region: the part of the frame to show.
        band_px: of the boundary.
        side: of a tile, pixels.
    """
    size, mask = fit_size(region, side), answer.full()
    truth = {} if target is None else {TARGET: target}
    logits = np.full(mask.shape, np.nan, dtype=np.float32)
    (x, y), (height, width) = answer.offset_xy, answer.logit_crop.shape
    logits[y : y + height, x : x + width] = answer.logit_crop
    tiles = [
        outlined(image, region, size, {**truth, method: mask}, [(answer.box_xyxy, (255, 255, 255))]),
        heat_map(part(logits, region), answer.threshold, size),
    ]
    if target is not None:
        tiles.append(error_map(image, boundary_errors(mask, target, band_px, region), region, size))
    space = np.full((GAP, size[0], 3), 255, dtype=np.uint8)
    return np.concatenate([piece for tile in tiles for piece in (tile, space)][:-1])


def side_by_side(columns: Mapping[str, np.ndarray], scores: Mapping[str, MaskScores]) -> Figure:
    """`method_tiles` of several methods as a figure, each under its name and scores."""
    height, width, _ = next(iter(columns.values())).shape
    figure = Figure(figsize=(2.3 * len(columns), 2.3 * height / width + 0.5))
    for i, (method, canvas) in enumerate(columns.items()):
        place = ((i + 0.02) / len(columns), 0, 0.96 / len(columns), 1 - 0.5 / figure.get_figheight())
        ax = figure.add_axes(place)
        ax.imshow(canvas)
        ax.set_axis_off()
        found = scores.get(method)
        numbers = "" if found is None else f"IoU {100 * found.iou:.1f}, BIoU {100 * found.biou:.1f}"
        ax.set_title(f"{label(method)}\n{numbers}", fontsize=BASE, color=INK)
    return figure


def heading(method: str, answer: ObjectMask, scores: MaskScores | None) -> str:
    """Name, scores and state of one answer, as HTML."""
    lines = ["no true mask to score against", "&nbsp;"]
    if scores is not None:
        lines = [f"IoU <b>{100 * scores.iou:.1f}</b>, BIoU <b>{100 * scores.biou:.1f}</b>"]
        lines += [f"BIoU, band fit to size: {100 * scores.biou_fit:.1f}"]
    lines += [f"predicted IoU {100 * answer.predicted_iou:.1f}", f"{answer.area:,} px², {answer.status}"]
    swatch = f"<span style='display:inline-block;width:10px;height:10px;background:{colour(method)}'></span>"
    return f"<div style='line-height:18px'>{swatch} <b>{escape(label(method))}</b><br>{'<br>'.join(lines)}</div>"


def legend(height: int) -> str:
    """What the rows of tiles show, level with them below the headings, and what their colours mean, as HTML.

    Args:
        height: of a tile as the browser shows it, pixels.
    """
    spans = [
        f"<span style='background:{shade};color:#000;padding:0 3px'>{name}</span>"
        for name, shade in (("both", SHARED), ("missed", MISSED), ("too much", EXTRA))
    ]
    rows = {
        "Mask": "white: ground truth; rectangle: the box",
        "Logits": f"blue −{LOGIT_RANGE:g}, red +{LOGIT_RANGE:g}; line: threshold",
        "Boundary errors": " ".join(spans),
    }
    style = f"height:{height + GAP}px;line-height:18px"
    cells = [f"<div style='{style}'><b>{name}</b><br>{text}</div>" for name, text in rows.items()]
    return f"<div style='width:110px;padding-top:96px'>{''.join(cells)}</div>"


def png(canvas: np.ndarray) -> bytes:
    """uint8 H×W×3 RGB → PNG, little compressed: it travels to a browser on the same machine."""
    return cv2.imencode(".png", canvas[..., ::-1], _PNG)[1].tobytes()


def _outline(canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    contours = _contours(mask, canvas.shape[1::-1])
    cv2.drawContours(canvas, contours, -1, (0, 0, 0), 4)
    cv2.drawContours(canvas, contours, -1, colour, 2)


def _contours(mask: np.ndarray, size_wh: tuple[int, int]) -> Sequence[np.ndarray]:
    large = enlarge(mask.astype(np.uint8), size_wh)
    return cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]


def _band(mask: np.ndarray, band_px: int) -> np.ndarray:
    """The mask's boundary band, worked out on the rectangle that holds the mask."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    band = np.zeros_like(mask)
    if width:
        band[y : y + height, x : x + width] = boundary_band(mask[y : y + height, x : x + width], band_px)
    return band
