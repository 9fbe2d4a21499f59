"""The inspector's pictures, drawn with numpy and OpenCV in a few milliseconds: mask, logits, boundary errors.

Every picture shows a rectangle of the frame (`region`, xyxy in frame pixels) as uint8 RGB, `side` pixels on its longer
side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import cv2
import matplotlib
import numpy as np

from rossam_core.inference.predictor import ObjectMask
from rossam_core.inference.windows import Rectangle
from rossam_core.metrics import boundary_band
from rossam_kit.experiments.mask_scores import MaskScores
from rossam_kit.report.labels import label
from rossam_kit.report.style import TARGET, Figure, colour

LOGIT_RANGE = 10.0
"""Logits of -10 and below, 10 and above have the ends of the colour scale."""
MISSED, EXTRA, SHARED, BEYOND = "#009e73", "#cc79a7", "#f0f0f0", "#d0d0d0"
"""Boundary of the target only, of the prediction only, of both; pixels outside the window."""
WINDOW = "#56b4e9"
HEAT = matplotlib.colormaps["RdBu_r"].with_extremes(bad=BEYOND)
_SWATCH = "<span style='background:{};color:#000;padding:0 3px;white-space:nowrap'>{}</span>"
LEGEND = (
    "From top to bottom: <b>mask</b> (white: ground truth; rectangle: the box) · "
    f"<b>logits</b> (blue −{LOGIT_RANGE:g}, red +{LOGIT_RANGE:g}; line: threshold) · <b>boundary</b> "
    f"{_SWATCH.format(SHARED, 'both')} {_SWATCH.format(MISSED, 'missed')} {_SWATCH.format(EXTRA, 'too much')}"
)
"""What `answer_picture` shows, as HTML."""


def rgb(colour: str) -> tuple[int, int, int]:
    """`#2f7fd6` → (47, 127, 214)."""
    return tuple(bytes.fromhex(colour[1:]))


def outlined(
    image: np.ndarray,
    region: Rectangle,
    side: int,
    masks: Mapping[str, np.ndarray],
    boxes: Sequence[tuple[Sequence[float], str]] = (),
) -> np.ndarray:
    """A region of the frame with the outlines of masks, each in its method's colour, the last on top.

    Args:
        image: uint8 H×W×3 RGB.
        masks: method (or `ground truth`) → bool H×W.
        boxes: rectangles (xyxy, frame pixels), each with its colour.
    """
    canvas = _enlarged(_part(image, region), side)
    for method, mask in masks.items():
        contours = _contours(_part(mask, region), side)
        for width, line in ((4, (0, 0, 0)), (2, rgb(colour(method)))):
            cv2.drawContours(canvas, contours, -1, line, width)
    scale = side / max(region[2] - region[0], region[3] - region[1])
    for box, line in boxes:
        corners = ((np.reshape(box, (2, 2)) - region[:2]) * scale).round().astype(int).tolist()
        for width, shade in ((3, (0, 0, 0)), (1, rgb(line))):
            cv2.rectangle(canvas, *corners, shade, width)
    return canvas


def heat_map(logits: np.ndarray, threshold: float, side: int) -> np.ndarray:
    """Logits (h×w, NaN outside the window) blue below and red above 0, with a black line at the threshold."""
    canvas = _enlarged(HEAT(0.5 + logits / (2 * LOGIT_RANGE), bytes=True)[..., :3], side)
    return cv2.drawContours(canvas, _contours(logits > threshold, side), -1, (0, 0, 0), 1)


def boundary_errors(pred: np.ndarray, target: np.ndarray, band_px: int) -> np.ndarray:
    """Where two masks' inner boundary bands agree: 0 no boundary, 1 of both, 2 of the target alone, 3 of `pred` alone.

    Boundary IoU is the number of ones over the number of ones, twos and threes. All are H×W; masks bool, codes uint8.
    """
    codes = np.array([[0, 2], [3, 1]], dtype=np.uint8)
    return codes[boundary_band(pred, band_px).view(np.uint8), boundary_band(target, band_px).view(np.uint8)]


def answer_picture(
    method: str,
    image: np.ndarray,
    answer: ObjectMask,
    target: np.ndarray | None,
    region: Rectangle,
    band_px: int,
    side: int,
) -> np.ndarray:
    """Outline, logits and, where there is a target (bool H×W), boundary errors of one answer, one below the other.

    Args:
        answer: its `logit_crop` covers the logits to show.
        band_px: width of the boundary band.
    """
    mask = answer.full()
    logits = np.full(mask.shape, np.nan, dtype=np.float32)
    (x, y), (height, width) = answer.offset_xy, answer.logit_crop.shape
    logits[y : y + height, x : x + width] = answer.logit_crop
    masks = {method: mask} if target is None else {TARGET: target, method: mask}
    pictures = [
        outlined(image, region, side, masks, [(answer.box_xyxy, "#ffffff")]),
        heat_map(_part(logits, region), answer.threshold, side),
    ]
    if target is not None:
        canvas = cv2.cvtColor(np.ascontiguousarray(_part(image, region)), cv2.COLOR_RGB2GRAY) // 3 + 60
        canvas, errors = np.repeat(canvas[..., None], 3, axis=2), _part(boundary_errors(mask, target, band_px), region)
        for code, shade in ((1, SHARED), (2, MISSED), (3, EXTRA)):
            canvas[errors == code] = rgb(shade)
        pictures.append(_enlarged(canvas, side))
    return np.concatenate([np.pad(each, ((0, 6), (0, 0), (0, 0)), constant_values=255) for each in pictures])[:-6]


def side_by_side(pictures: Mapping[str, np.ndarray], scores: Mapping[str, MaskScores]) -> Figure:
    """`answer_picture` of several methods as a figure, each under its name and scores."""
    height, width, _ = next(iter(pictures.values())).shape
    figure = Figure(figsize=(2.3 * len(pictures), 2.3 * height / width + 0.5), layout="constrained")
    axes = figure.subplots(1, len(pictures), squeeze=False)[0]
    for ax, (method, picture) in zip(axes, pictures.items(), strict=True):
        ax.imshow(picture)
        ax.set_axis_off()
        score = scores.get(method)
        numbers = f"\nIoU {100 * score.iou:.1f}, BIoU {100 * score.biou:.1f}" if score else ""
        ax.set_title(label(method) + numbers)
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


def png(canvas: np.ndarray) -> bytes:
    """uint8 H×W×3 RGB → PNG with little compression, for a browser on the same machine."""
    return cv2.imencode(".png", canvas[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _part(array: np.ndarray, region: Rectangle) -> np.ndarray:
    x0, y0, x1, y1 = region
    return array[y0:y1, x0:x1]


def _enlarged(pixels: np.ndarray, side: int) -> np.ndarray:
    """Pixels as squares when enlarged, averaged when reduced, so that the longer side has `side` pixels."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    return cv2.resize(np.ascontiguousarray(pixels), size_wh, interpolation=method)


def _contours(mask: np.ndarray, side: int) -> Sequence[np.ndarray]:
    return cv2.findContours(_enlarged(mask.astype(np.uint8), side), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]
