"""Training views of a frame: scale jitter, rotation, mirroring, crop and padding as ONE affine map.

Image, boxes and masks of an `AugmentedView` are mapped by the same 2×3 matrix; nothing is resampled twice, and every
object that is left out is counted with its reason.

Matrices map pixel-edge coordinates of the frame to pixel-edge coordinates of the S×S input: `x' = A x + b`.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

import cv2
import numpy as np
from pydantic import Field, model_validator

from rossam_core import masks as mask_forms
from rossam_core.inference.windows import pixel_hulls, window_sides
from rossam_core.records import Frame, ObjectAnnotation
from rossam_core.settings import Config, InferenceConfig


class AugmentConfig(Config):
    """How a training view is drawn (paper section 3.2.3, supplement Figure 9)."""

    scale: tuple[float, float] = (0.1, 4.0)
    """Large-scale jitter, uniform (paper section 4.2.1 and released code: 0.1 to 4.0); (1, 1) switches it off."""
    scale_of: Literal["frame", "input", "window"] = "frame"
    """Meaning of a scale of 1. `frame`: a frame pixel is an input pixel (the paper scales "original data"). `input`:
    the frame's longer side fits the input (mmdet's RandomResize, as the released code). `window` (ours, `corrected`):
    one object, drawn at random, is seen in the window that `RunConfig.inference` gives it."""
    rotation: bool = True
    """Rotate by an angle uniform in [0, 360) degrees (paper; range ours). The released code does not rotate."""
    diagonal_flip: float = Field(0.0, ge=0, le=1)
    """Probability of a half turn, mmdet's "diagonal" flip (released code: 0.1)."""
    mirror: float = Field(0.0, ge=0, le=1)
    """Probability of a left-right mirror image (ours, `corrected`: 0.5, since seen from above both occur)."""
    photometric: bool = False
    """Brightness, contrast, saturation, hue and channel order as mmdet's PhotoMetricDistortion (released code)."""
    keep_object_in_view: bool = True
    """Draw the crop so that one object, drawn at random, lies in it, whole where it fits (ours: a view without
    objects teaches nothing). False: any crop (released code)."""
    pad_value: tuple[float, float, float] = (144.0, 144.0, 144.0)
    """RGB outside the frame (paper: gray; released code: 144; SAM: the pixel mean)."""
    min_area: float = Field(16.0, ge=1)
    """Objects with fewer visible input pixels are left out. Ours: 16, one mask cell; released code: 1."""
    max_objects: int | None = Field(64, ge=1)
    """Objects a view keeps, drawn at random beyond that (ours, after SAM section 4: memory); None = all."""
    prompt: Literal["annotated", "tight"] = "annotated"
    """Box that prompts an object. `annotated`: its annotated box (paper, released code), where the view shows that
    whole; in a view turned by another angle than a multiple of 90 degrees, the box of the mask with the margins that
    the annotated box has in the frame. `tight`, and `annotated` where the view cuts the annotated box: the box of the
    visible mask. The paper prompts cut objects with the annotated box, too."""
    box_jitter: float = Field(0.0, ge=0, lt=0.5)
    """Every side of a prompt moves by up to this fraction of the box's width or height, uniformly (paper and
    released code: 0; `corrected`: 0.1, after SAM appendix A)."""

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> AugmentConfig:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale is {self.scale}, expected two numbers with 0 < low <= high")
        if self.scale_of == "window" and not self.keep_object_in_view:
            raise ValueError("scale_of is 'window', which needs keep_object_in_view: the window is that object's")
        return self


class AugmentedView(NamedTuple):
    """One training view."""

    image: np.ndarray  # float32 S×S×3, RGB 0-255
    boxes: np.ndarray  # float32 N×4, prompts in pixel-edge coordinates of the input; see `AugmentConfig.prompt`
    masks: np.ndarray  # bool N×S×S, what is visible of each object
    kept: tuple[int, ...]  # indices into `frame.objects`, one per row of `boxes`
    dropped: Counter  # reason → number of the frame's objects left out
    matrix: np.ndarray  # float64 2×3, frame → input


def augment(
    frame: Frame, size: int, config: AugmentConfig, rng: np.random.Generator, inference: InferenceConfig | None = None
) -> AugmentedView:
    """One random training view of a frame, S×S with S = `size`; a pure function of its arguments. `inference` (None =
    the defaults) gives the windows that `scale_of` = `window` refers to."""
    matrix = draw_matrix(frame, size, config, rng, inference or InferenceConfig())
    boxes, masks, kept, dropped = warp_objects(frame, matrix, size, config, rng)
    image = warp_image(frame.image(), matrix, size)
    if config.photometric:
        image = distort_colours(image, rng)
    image[~inside_frame(matrix, frame.size_hw, size)] = config.pad_value
    boxes = jitter_boxes(boxes, config.box_jitter, size, rng)
    return AugmentedView(image, boxes, masks, kept, dropped, matrix)


def window_side(box_xyxy: np.ndarray, size_hw: tuple[int, int], size: int, inference: InferenceConfig) -> int:
    """Frame pixels that inference shows of an object: the side of its own window; in mode `direct` the frame's longer
    side, also where SAM2 stretches the shorter one."""
    if inference.mode == "direct":
        return max(size_hw)
    x0, y0, x1, y1 = pixel_hulls(box_xyxy, size_hw)[0]
    return int(window_sides(max(x1 - x0, y1 - y0), round(size / inference.rate), size_hw, inference))


def draw_matrix(
    frame: Frame, size: int, config: AugmentConfig, rng: np.random.Generator, inference: InferenceConfig
) -> np.ndarray:
    """Frame → input, float64 2×3: scale, turn (the canvas grows to hold the turned frame), half turn, mirror, crop.

    A canvas wider than S is cropped at a whole-pixel offset; a narrower one sits at the left (top), so that padding
    comes out at the right (bottom).
    """
    h, w = frame.size_hw
    with_masks = [o for o in frame.objects if o.has_mask]
    subject = with_masks[rng.integers(len(with_masks))] if config.keep_object_in_view and with_masks else None
    box = np.array(subject.box_xyxy if subject else (0, 0, w, h))
    side = window_side(box, frame.size_hw, size, inference)
    unit = {"frame": 1.0, "input": size / max(h, w), "window": size / side}
    scale = rng.uniform(*config.scale) * unit[config.scale_of]
    angle = rng.uniform(0, 2 * np.pi) if config.rotation else 0.0
    half_turn, mirrored = rng.random() < config.diagonal_flip, rng.random() < config.mirror

    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * (-turn if half_turn else turn)
    if mirrored:
        linear = np.diag([-1.0, 1.0]) @ linear
    corners = linear @ _corners(0, 0, w, h)  # 2×4
    origin, canvas = corners.min(axis=1), np.ptp(corners, axis=1)  # xy

    room = np.maximum(np.ceil(canvas - size - 1e-6), 0).astype(int)  # largest crop offset, xy
    low, high = np.zeros(2, int), room
    if subject:
        on_canvas = linear @ _corners(*box) - origin[:, None]
        first, last = on_canvas.min(axis=1), on_canvas.max(axis=1)
        middle = (first + last) / 2
        first, last = np.where(last - first > size, middle, (first, last))  # too large: show its middle
        low = np.clip(np.ceil(last - size).astype(int), 0, room)
        high = np.clip(np.floor(first).astype(int), low, room)
    offset = rng.integers(low, high, endpoint=True)
    return np.hstack([linear, -(origin + offset)[:, None]])


def warp_image(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """uint8 H×W×3 → float32 S×S×3 in 0-255.

    Enlarging is bicubic, clamped to 0-255. Shrinking first averages over areas down to the final pixel size, so that
    a scale of 0.1 does not alias. Outside the frame its edge pixels repeat; `inside_frame` says where that is.
    """
    image, matrix = _area_prefilter(image, matrix)
    matrix, method = _to_pixel_centres(matrix), cv2.INTER_CUBIC  # cv2 saturates uint8, so that overshoot is clamped
    warped = cv2.warpAffine(image, matrix, (size, size), flags=method, borderMode=cv2.BORDER_REPLICATE)
    return warped.astype(np.float32)


def inside_frame(matrix: np.ndarray, size_hw: tuple[int, int], size: int) -> np.ndarray:
    """bool S×S: input pixels whose centre comes from inside the frame."""
    (a, b, tx), (c, d, ty) = cv2.invertAffineTransform(matrix)
    centres = np.arange(size) + 0.5
    x = a * centres[None, :] + b * centres[:, None] + tx
    y = c * centres[None, :] + d * centres[:, None] + ty
    return (x > 0) & (x < size_hw[1]) & (y > 0) & (y < size_hw[0])


def warp_objects(
    frame: Frame, matrix: np.ndarray, size: int, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], Counter]:
    """Boxes float32 N×4, masks bool N×S×S, kept indices and reasons of the others (see `AugmentedView`).

    The box of a turned object is not its turned box (`_annotated_box`).
    """
    dropped: Counter = Counter()
    visible: dict[int, np.ndarray] = {}
    cap = config.max_objects or len(frame.objects)
    for index in rng.permutation(len(frame.objects)).tolist():
        if not frame.objects[index].has_mask:
            dropped["no mask"] += 1
        elif len(visible) == cap:
            dropped["over the cap"] += 1
        else:
            mask = warp_mask(frame.objects[index], frame.size_hw, matrix, size)
            if mask is None:
                dropped["out of view"] += 1
            elif mask.sum() < config.min_area:
                dropped["too small"] += 1
            else:
                visible[index] = mask
    kept = tuple(sorted(visible))
    masks = np.array([visible[i] for i in kept], dtype=bool).reshape(-1, size, size)
    boxes = np.zeros((len(kept), 4), dtype=np.float32)
    for row, (index, mask) in enumerate(zip(kept, masks, strict=True)):
        boxes[row] = mask_forms.box_of(mask)
        if config.prompt == "annotated":
            boxes[row] = _annotated_box(frame.objects[index], frame.size_hw, boxes[row], matrix, size)
    return boxes, masks, kept, dropped


def warp_mask(
    annotation: ObjectAnnotation, size_hw: tuple[int, int], matrix: np.ndarray, size: int
) -> np.ndarray | None:
    """bool S×S, or None where the object's outline does not reach into the view.

    Polygons are moved vertex by vertex and rasterised once, at the final size. Run-length masks are warped
    bilinearly, after area averaging where they shrink, and cut at one half.
    """
    if isinstance(annotation.segmentation, list):
        polygons = [np.reshape(p, (-1, 2)) @ matrix[:, :2].T + matrix[:, 2] for p in annotation.segmentation]
        x0, y0, x1, y1 = _part_in_view(np.concatenate(polygons), size)
        if x0 >= x1 or y0 >= y1:
            return None
        part = mask_forms.decode([(p - (x0, y0)).ravel().tolist() for p in polygons], (y1 - y0, x1 - x0))
    else:
        mask = annotation.mask(size_hw)
        if not mask.any():
            return None
        left, top, right, bottom = (int(v) for v in mask_forms.box_of(mask))
        corners = matrix[:, :2] @ _corners(left, top, right, bottom) + matrix[:, 2:]
        x0, y0, x1, y1 = _part_in_view(corners.T, size)
        if x0 >= x1 or y0 >= y1:
            return None
        part = _warp_bitmap(mask[top:bottom, left:right], matrix, (left, top), (x0, y0, x1, y1))
    whole = np.zeros((size, size), dtype=bool)
    whole[y0:y1, x0:x1] = part
    return whole


def jitter_boxes(boxes: np.ndarray, fraction: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """Each side of each box (float32 N×4) moved by up to `fraction` < ½ of its width or height, then cut to the input.

    A box keeps its sides in order, since neither reaches its middle and the middle lies in the input.
    """
    if fraction == 0 or len(boxes) == 0:
        return boxes
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)  # N×4: w, h, w, h
    moved = boxes + rng.uniform(-fraction, fraction, boxes.shape) * sides
    return np.clip(moved, 0, size).astype(np.float32)


def distort_colours(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 H×W×3 RGB 0-255 → the same, brighter or darker, more or less contrasted, tinted (Liu et al. 2016, SSD).

    Each of these with probability one half: brightness ±32; contrast × 0.5-1.5, before or after the colour changes;
    saturation × 0.5-1.5; hue ± 18 degrees; channels in another order. The result is clipped to 0-255.
    """
    brighter, contrasted, late, saturated, tinted, shuffled = rng.random(6) < 0.5
    brightness, contrast = rng.uniform(-32, 32), rng.uniform(0.5, 1.5)
    saturation, hue, order = rng.uniform(0.5, 1.5), rng.uniform(-18, 18), rng.permutation(3)
    if brighter:
        image = image + np.float32(brightness)
    if contrasted and not late:
        image = image * np.float32(contrast)
    if saturated or tinted:
        hsv = cv2.cvtColor(np.clip(image, 0, 255).astype(np.float32), cv2.COLOR_RGB2HSV)  # H 0-360, S 0-1, V 0-255
        if saturated:
            hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
        if tinted:
            hsv[..., 0] = (hsv[..., 0] + hue) % 360
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if contrasted and late:
        image = image * np.float32(contrast)
    if shuffled:
        image = image[..., order]
    return np.clip(image, 0, 255)


def _corners(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """A box's corners, float64 2×4."""
    return np.array([[x0, x1, x1, x0], [y0, y0, y1, y1]], dtype=float)


def _annotated_box(
    annotation: ObjectAnnotation, size_hw: tuple[int, int], tight: np.ndarray, matrix: np.ndarray, size: int
) -> np.ndarray:
    """The annotated box in the view, where the view shows it whole; else `tight`, the box of the mask in the view.

    In a view that is turned by another angle than a multiple of 90 degrees it is `tight` with the margins that the
    annotated box has in the frame.
    """
    corners = matrix[:, :2] @ _corners(*annotation.box_xyxy) + matrix[:, 2:]
    if corners.min() < -1e-6 or corners.max() > size + 1e-6:
        return tight
    if abs(matrix[0, :2]).min() <= 1e-9 * _pixel_scale(matrix):  # turned by a multiple of 90 degrees
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)]).clip(0, size)
    if annotation.segmentation is None or (extent := mask_forms.extent(annotation.segmentation, size_hw)) is None:
        return tight
    return (tight + (annotation.box_xyxy - extent) * _pixel_scale(matrix)).clip(0, size)


def _pixel_scale(matrix: np.ndarray) -> float:
    """Input pixels per frame pixel; the linear part is a similarity."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def _to_pixel_centres(matrix: np.ndarray) -> np.ndarray:
    """The same map between cv2's coordinates, which number pixel centres from 0: `x' = A (x + ½) + b − ½`."""
    linear, shift = matrix[:, :2], matrix[:, 2]
    return np.hstack([linear, (linear @ (0.5, 0.5) + shift - 0.5)[:, None]])


def _area_prefilter(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the map shrinks: the image averaged down to the final pixel size, and the map that remains."""
    scale = _pixel_scale(matrix)
    if scale >= 1:
        return image, matrix
    h, w = image.shape[:2]
    small_w, small_h = max(round(w * scale), 1), max(round(h * scale), 1)
    small = cv2.resize(image, (small_w, small_h), interpolation=cv2.INTER_AREA)
    return small, np.hstack([matrix[:, :2] * (w / small_w, h / small_h), matrix[:, 2:]])


def _warp_bitmap(
    part: np.ndarray, matrix: np.ndarray, corner_xy: tuple[int, int], view: tuple[int, int, int, int]
) -> np.ndarray:
    """A bool patch whose corner is `corner_xy` in the frame, seen through `view` (x0, y0, x1, y1 of the input)."""
    margin = int(np.ceil(2 / min(_pixel_scale(matrix), 1)))  # background for the filters to fade into
    bitmap = np.pad(part.astype(np.float32), margin)
    shift = matrix[:, :2] @ (np.array(corner_xy) - margin) + matrix[:, 2] - view[:2]
    bitmap, local = _area_prefilter(bitmap, np.hstack([matrix[:, :2], shift[:, None]]))
    size_wh = (view[2] - view[0], view[3] - view[1])
    return cv2.warpAffine(bitmap, _to_pixel_centres(local), size_wh, flags=cv2.INTER_LINEAR) >= 0.5


def _part_in_view(points_xy: np.ndarray, size: int) -> tuple[int, int, int, int]:
    """Whole-pixel bounds (x0, y0, x1, y1) of the points, cut to the input; x0 ≥ x1 or y0 ≥ y1 where they miss it."""
    low = np.clip(np.floor(points_xy.min(axis=0)), 0, size).astype(int)
    high = np.clip(np.ceil(points_xy.max(axis=0)), 0, size).astype(int)
    return low[0], low[1], high[0], high[1]
