"""The inspector's pictures, drawn with numpy and OpenCV in a few milliseconds: mask, logits, boundary errors.

Every picture shows a rectangle of the frame (`region`, xyxy in frame pixels) as uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import cv2
import matplotlib
import numpy as np

from rossam_core.errors import RossamError
from rossam_core.inference.predictor import ObjectMask
from rossam_core.inference.windows import Rectangle
from rossam_core.metrics import boundary_band
from rossam_kit.experiments.mask_scores import MaskScores
from rossam_kit.report.style import TARGET, Figure, colour, label

LOGIT_RANGE = 10.0
"""Logits of -10 and below, 10 and above have the ends of the colour scale."""
MISSED, EXTRA, SHARED, BEYOND = "#009e73", "#cc79a7", "#f0f0f0", "#d0d0d0"
"""Boundary of the target only, of the prediction only, of both; pixels outside the window."""
WINDOW, POSITIVE, NEGATIVE = "#56b4e9", "#009e73", "#d55e00"
_SWATCH = "<span style='background:{};color:#000;padding:0 3px'>{}</span>"
LEGENDS = (
    "<b>Mask</b><br>white: ground truth<br>rectangle: the box",
    f"<b>Logits</b><br>blue −{LOGIT_RANGE:g}, red +{LOGIT_RANGE:g}<br>line: threshold",
    f"<b>Boundary errors</b><br>{_SWATCH.format(SHARED, 'both')}<br>{_SWATCH.format(MISSED, 'missed')}"
    f"<br>{_SWATCH.format(EXTRA, 'too much')}",
)
"""What each row of tiles shows, as HTML."""
_HEAT = (matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)


def rgb(colour: str) -> tuple[int, int, int]:
    """`#2f7fd6` → (47, 127, 214)."""
    return tuple(bytes.fromhex(colour[1:]))


def square_around(boxes_xyxy: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> Rectangle:
    """A square twice as long as all boxes together, at least 48 px, kept inside the frame."""
    boxes, (height, width) = np.asarray(boxes_xyxy, dtype=float), size_hw
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = int(np.ceil(max(48, 2 * (high - low).max())))
    left, top = ((low + high - side) / 2).round().clip(0, (max(width - side, 0), max(height - side, 0))).astype(int)
    return int(left), int(top), min(int(left) + side, width), min(int(top) + side, height)


def fit_size(region: Rectangle, longest: int) -> tuple[int, int]:
    """Width and height at which a region's longer side has `longest` pixels."""
    width, height = region[2] - region[0], region[3] - region[1]
    scale = longest / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def outlined(
    image: np.ndarray,
    region: Rectangle,
    size_wh: tuple[int, int],
    masks: Mapping[str, np.ndarray],
    boxes: Sequence[tuple[Sequence[float], str]] = (),
    points: Sequence[Sequence[float]] = (),
) -> np.ndarray:
    """A region of the frame with the outlines of masks, each in its method's colour, the last on top.

    Args:
        image: uint8 H×W×3 RGB.
        masks: method (or `ground truth`) → bool H×W.
        boxes: rectangles (xyxy, frame pixels), each with its colour.
        points: (x, y, label), frame pixels; label 1 is positive, 0 negative.
    """
    canvas = _enlarged(_part(image, region), size_wh)
    for method, mask in masks.items():
        contours = _contours(_part(mask, region), size_wh)
        for width, line in ((4, (0, 0, 0)), (2, rgb(colour(method)))):
            cv2.drawContours(canvas, contours, -1, line, width)
    scale = np.array(size_wh) / (region[2] - region[0], region[3] - region[1])

    def place(points_xy) -> list:
        return ((np.asarray(points_xy) - region[:2]) * scale).round().astype(int).tolist()

    for box, line in boxes:
        for width, shade in ((3, (0, 0, 0)), (1, rgb(line))):
            cv2.rectangle(canvas, *place(np.reshape(box, (2, 2))), shade, width)
    for x, y, positive in points:
        cv2.circle(canvas, place((x, y)), 7, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, place((x, y)), 5, rgb(POSITIVE if positive else NEGATIVE), -1, cv2.LINE_AA)
    return canvas


def heat_map(logits: np.ndarray, threshold: float, size_wh: tuple[int, int]) -> np.ndarray:
    """Logits (h×w, NaN outside the window) blue below and red above 0, with a black line at the threshold."""
    inside = ~np.isnan(logits)
    steps = np.nan_to_num(logits.astype(np.float32) * (127.5 / LOGIT_RANGE) + 127.5).clip(0, 255).astype(np.uint8)
    canvas = _enlarged(np.where(inside[..., None], _HEAT[steps], np.array(rgb(BEYOND), dtype=np.uint8)), size_wh)
    above = inside & (np.nan_to_num(logits) > threshold)
    cv2.drawContours(canvas, _contours(above, size_wh), -1, (0, 0, 0), 1)
    return canvas


def boundary_errors(pred: np.ndarray, target: np.ndarray, band_px: int) -> np.ndarray:
    """Where two masks' inner boundary bands agree: 0 no boundary, 1 of both, 2 of the target alone, 3 of `pred` alone.

    Boundary IoU is the number of ones over the number of ones, twos and threes. All are H×W; masks bool, codes uint8.
    """
    codes = np.array([[0, 2], [3, 1]], dtype=np.uint8)
    return codes[_band(pred, band_px).view(np.uint8), _band(target, band_px).view(np.uint8)]


def method_tiles(
    method: str,
    image: np.ndarray,
    answer: ObjectMask,
    target: np.ndarray | None,
    region: Rectangle,
    band_px: int,
    side: int,
    points: Sequence[Sequence[float]] = (),
) -> list[np.ndarray]:
    """Outline, logits and, where there is a target, boundary errors of one answer, `side` pixels on the longer side.

    Args:
        answer: its `logit_crop` covers the logits to show.
        target: bool H×W.
        band_px: width of the boundary band.
    """
    size, mask = fit_size(region, side), answer.full()
    logits = np.full(mask.shape, np.nan, dtype=np.float32)
    (x, y), (height, width) = answer.offset_xy, answer.logit_crop.shape
    logits[y : y + height, x : x + width] = answer.logit_crop
    masks = {method: mask} if target is None else {TARGET: target, method: mask}
    tiles = [
        outlined(image, region, size, masks, [(answer.box_xyxy, "#ffffff")], points),
        heat_map(_part(logits, region), answer.threshold, size),
    ]
    if target is not None:
        gray = cv2.cvtColor(np.ascontiguousarray(_part(image, region)), cv2.COLOR_RGB2GRAY)
        canvas, errors = np.repeat((gray // 3 + 60)[..., None], 3, axis=2), boundary_errors(mask, target, band_px)
        for code, shade in ((1, SHARED), (2, MISSED), (3, EXTRA)):
            canvas[_part(errors, region) == code] = rgb(shade)
        tiles.append(_enlarged(canvas, size))
    return tiles


def side_by_side(columns: Mapping[str, Sequence[np.ndarray]], scores: Mapping[str, MaskScores]) -> Figure:
    """`method_tiles` of several methods as a figure, each under its name and scores."""
    tiles = next(iter(columns.values()))
    height, width, _ = tiles[0].shape
    figure = Figure(figsize=(2.3 * len(columns), 2.3 * len(tiles) * height / width + 0.5), layout="constrained")
    axes = figure.subplots(len(tiles), len(columns), squeeze=False)
    for column, (method, pictures) in enumerate(columns.items()):
        for ax, picture in zip(axes[:, column], pictures, strict=True):
            ax.imshow(picture)
            ax.set_axis_off()
        score = scores.get(method)
        numbers = f"\nIoU {100 * score.iou:.1f}, BIoU {100 * score.biou:.1f}" if score else ""
        axes[0, column].set_title(label(method) + numbers)
    return figure


def heading(method: str, answer: ObjectMask, scores: MaskScores | None, note: str = "") -> str:
    """Name, scores and state of one answer, as HTML."""
    lines = ["no true mask to score against", "&nbsp;"]
    if scores is not None:
        lines = [f"IoU <b>{100 * scores.iou:.1f}</b> · BIoU <b>{100 * scores.biou:.1f}</b>"]
        lines += [f"BIoU fit to size {100 * scores.biou_fit:.1f}"]
    lines += [f"predicted IoU {100 * answer.predicted_iou:.1f}", f"{answer.area:,} px² · {answer.status}{note}"]
    name = f"<b style='border-bottom:3px solid {colour(method)}'>{escape(label(method))}</b>"
    return f"<div class='rossam-head'>{name}<br>{'<br>'.join(lines)}</div>"


def problem_html(problem: Exception) -> str:
    """An error and its remedy as HTML."""
    if not isinstance(problem, RossamError):
        problem = RossamError(type(problem).__name__, str(problem), "choose other settings, or run this cell again")
    where, finding, remedy = map(escape, map(str, (problem.where, problem.finding, problem.remedy)))
    return f"<div class='rossam-error'><b>{where}</b>: {finding}<br>Remedy: {remedy}</div>"


def png(canvas: np.ndarray) -> bytes:
    """uint8 H×W×3 RGB → PNG with little compression, for a browser on the same machine."""
    return cv2.imencode(".png", canvas[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _part(array: np.ndarray, region: Rectangle) -> np.ndarray:
    x0, y0, x1, y1 = region
    return array[y0:y1, x0:x1]


def _enlarged(pixels: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Pixels as squares when enlarged, averaged when reduced."""
    method = cv2.INTER_NEAREST if size_wh[0] >= pixels.shape[1] else cv2.INTER_AREA
    return cv2.resize(np.ascontiguousarray(pixels), size_wh, interpolation=method)


def _contours(mask: np.ndarray, size_wh: tuple[int, int]) -> Sequence[np.ndarray]:
    return cv2.findContours(_enlarged(mask.astype(np.uint8), size_wh), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]


def _band(mask: np.ndarray, band_px: int) -> np.ndarray:
    """The mask's boundary band, computed on the rectangle that holds the mask."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    band, inner = np.zeros_like(mask), np.s_[y : y + height, x : x + width]
    if width:
        band[inner] = boundary_band(mask[inner], band_px)
    return band
