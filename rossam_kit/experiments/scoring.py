"""Scores of predicted masks in one table, under both protocols, with one row per scored unit.

Every object and every frame has a row; what cannot be scored has NaN scores and a `status` with the reason.

Protocols:
- `object`: each object's mask alone against its own target.
- `frame`: the union of a frame's predicted masks against the union of its targets, as in ROS-SAM's released
  code. That code leaves out, unreported, frames without boxes, and frames whose numbers of boxes and masks
  differ (cars have boxes only); here these keep a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.metrics import band_width
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.config import EvaluationConfig
from rossam_kit.experiments.mask_scores import fitted_band, score_masks

ProtocolName = Literal["object", "frame"]
PROTOCOLS: tuple[ProtocolName, ...] = ("frame", "object")
SCORES = ("iou", "biou", "biou_official", "biou_fit", "biou_fit_official")
MASK = "mask"
CROWDING = ("nearest_neighbour", "gap", "gap_in_sides")
COLUMNS = (
    *("protocol", "video", "frame", "object_id", "category", "area", "box_width", "box_height", "size_bin"),
    *(*CROWDING, *SCORES, "predicted_iou", "status", MASK),
)
SIZE_BINS = EvaluationConfig().size_bins
NO_OBJECT = -1
"""`object_id` of the row for a whole frame."""


Prediction = tuple[Frame, list[Any]]


def evaluate(
    predictor: Any, frames: Sequence[Frame], *, progress: Callable[[Iterable], Iterable] | None = None
) -> pd.DataFrame:
    """The table of `score` for every annotated box, each object alone.

    Args:
        progress: wraps the iteration over frames, e.g. `tqdm` or `progress.track`.
    """
    predictions = predict_frames(predictor, frames)
    if progress is not None:
        predictions = progress(predictions, total=len(frames))
    return score(predictions, ("object",))


def predict_frames(predictor: Any, frames: Iterable[Frame]) -> Iterator[Prediction]:
    """Prompt with the annotated box of every object that has a mask to be scored against.

    Args:
        predictor: a `Predictor`, a baseline, or anything whose `predict(image, boxes_xyxy)` returns for each box, in
            order, a mask with `full()`, `status` and `predicted_iou`. Its `predict_frames(frames)`, an iterator of
            (frame, masks) in order, is used where there is one, so that it can batch over frames.

    Yields:
        (frame, masks) for every frame in order, frames without such objects included. There is one entry in
        `masks` for each of the frame's objects; it is None for those that were not prompted.
    """
    frames = list(frames)
    prompted = [[item.has_mask for item in frame.objects] for frame in frames]
    prompted_frames = [
        frame.with_objects([o for o, used in zip(frame.objects, flags, strict=True) if used])
        for frame, flags in zip(frames, prompted, strict=True)
        if any(flags)
    ]
    if hasattr(predictor, "predict_frames"):
        answers = iter(predictor.predict_frames(prompted_frames))
    else:
        answers = ((frame, predictor.predict(frame.image(), frame.boxes_xyxy)) for frame in prompted_frames)
    for frame, flags in zip(frames, prompted, strict=True):
        if not any(flags):
            yield frame, [None] * len(flags)
            continue
        answered, masks = next(answers, (None, ()))
        if answered is None or answered.key != frame.key or len(masks) != sum(flags):
            given = "no answer" if answered is None else f"{len(masks)} masks for {answered.key}"
            finding = f"gave {given}, expected {sum(flags)} masks for {frame.key}"
            remedy = "return one mask for each box, frames in the order they were given"
            raise RossamError(f"predictor {type(predictor).__name__}", finding, remedy)
        remaining = iter(masks)
        yield frame, [next(remaining) if used else None for used in flags]


def score(
    predictions: Iterable[Prediction],
    protocols: Sequence[ProtocolName] = PROTOCOLS,
    *,
    dilation_ratio: float = 0.02,
    size_bins: Sequence[float] = SIZE_BINS,
) -> pd.DataFrame:
    """Score predictions under one or both protocols; one frame is in memory at a time.

    Args:
        predictions: (frame, masks), one mask or None for each of the frame's objects, as `predict_frames` yields.
        dilation_ratio: band of `biou` as a fraction of the frame's diagonal.
        size_bins: rising lower bounds of area in square pixels.

    Returns:
        One row a unit, with the columns
        `protocol`; `video`, `frame` (index in the video); `object_id`, `category`; `area` of the target in
        square pixels; `box_width`, `box_height` in pixels; `size_bin` (by area; the default bins are COCO's, its
        "small" cut in two at 16²); `iou`, `biou` in [0, 1]; `biou_fit`, Boundary IoU at the `fitted_band` of the
        area (under `frame`, of the mean area of the frame's objects); `biou_official`, `biou_fit_official`, the two
        under the official rule min(IoU, Boundary IoU); `predicted_iou`, the model's own; `status`; `mask`, the
        predicted mask of one object as COCO's `counts` (None for a whole frame, and where none was predicted).

        How crowded the object stands, by all boxes of its frame, those without masks too (NaN where it is alone):
        `nearest_neighbour`, pixels from its box's centre to the nearest other centre; `gap`, pixels from its box's
        edge to the nearest other box's (0 where they touch or overlap); `gap_in_sides`, the same in own sides,
        gap / √(width · height).

        Rows about a frame have `object_id` −1 and `category` `mixed` where there are several. `status` is the
        predictor's (`ok`, `empty`, …) where there is a score; else scores are NaN and it is one of
        `no objects`, `no mask` (box only), `not prompted` (no mask was given), `empty target` (annotated with
        a mask of no pixel), and under `frame` also `k of n objects lack a mask`.

    Raises:
        RossamError: unknown protocol, bins that do not rise, a number of masks that is not that of the objects, or a
            mask that has not the size of its frame.
    """
    unknown = [name for name in protocols if name not in PROTOCOLS]
    if unknown:
        raise RossamError("protocols", f"unknown: {unknown}", f"use {' or '.join(PROTOCOLS)}")
    labels = size_bin_labels(size_bins)
    rows = itertools.chain.from_iterable(
        _score_frame(frame, masks, protocols, dilation_ratio) for frame, masks in predictions
    )
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "size_bin"])
    place = np.searchsorted(size_bins, table["area"].to_numpy(dtype=float), side="right") - 1
    has_bin = table["area"].notna().to_numpy() & (place >= 0)
    names = np.array(labels, dtype=object)[place.clip(0, len(labels) - 1)]
    return table.assign(size_bin=np.where(has_bin, names, None))[list(COLUMNS)]


def size_bin_labels(bounds: Sequence[float]) -> list[str]:
    """`(0, 256, 1024)` → `["0–256", "256–1024", "1024+"]`, in square pixels."""
    if not len(bounds) or any(low >= high for low, high in itertools.pairwise(bounds)):
        raise RossamError("size_bins", f"are {tuple(bounds)}", "give lower bounds of area that rise")
    return [f"{low:g}–{high:g}" for low, high in itertools.pairwise(bounds)] + [f"{bounds[-1]:g}+"]


def _score_frame(
    frame: Frame, masks: Sequence[Any], protocols: Sequence[ProtocolName], dilation_ratio: float
) -> list[dict[str, Any]]:
    """Rows of one frame, that of the protocol `frame` first."""
    if len(masks) != len(frame.objects):
        finding = f"{len(masks)} masks for {len(frame.objects)} objects"
        raise RossamError(f"predictions for {frame.key}", finding, "give one mask, or None, for each object")
    band_px = band_width(frame.size_hw, dilation_ratio)
    pred_union, target_union = np.zeros(frame.size_hw, dtype=bool), np.zeros(frame.size_hw, dtype=bool)
    rows = []
    for annotation, mask, near in zip(frame.objects, masks, crowding(frame.boxes_xyxy), strict=True):
        row, pred, target = _score_object(frame, annotation, mask, band_px)
        rows.append(row | dict(zip(CROWDING, near, strict=True)))
        if pred is not None and "frame" in protocols:
            pred_union |= pred
            target_union |= target
    whole = [_score_union(frame, rows, pred_union, target_union, band_px)] if "frame" in protocols else []
    if "object" not in protocols:
        return whole
    return whole + (rows or [_unit(frame, "object") | {"status": "no objects"}])


def _score_object(
    frame: Frame, annotation: ObjectAnnotation, mask: Any, band_px: int
) -> tuple[dict[str, Any], np.ndarray | None, np.ndarray | None]:
    """The object's row, and its predicted and true mask where there are both."""
    x0, y0, x1, y1 = annotation.box_xyxy
    row = _unit(frame, "object") | {
        "object_id": annotation.object_id,
        "category": annotation.category,
        "box_width": x1 - x0,
        "box_height": y1 - y0,
    }
    if not annotation.has_mask:
        return row | {"status": "no mask"}, None, None
    target = annotation.mask(frame.size_hw)
    row["area"] = int(np.count_nonzero(target))
    if mask is None:
        return row | {"status": "not prompted"}, None, None
    pred = mask.full()
    if pred.shape != target.shape:
        finding = f"a predicted mask is {pred.shape}, the frame is {target.shape}"
        raise RossamError(f"predictions for {frame.key}", finding, "return masks of the frame's size")
    if row["area"] == 0:
        return row | {"status": "empty target"}, pred, target
    row |= _scores(pred, target, band_px, fitted_band(row["area"])) | {MASK: masks.encode(pred)["counts"]}
    return row | {"predicted_iou": float(mask.predicted_iou), "status": mask.status}, pred, target


def _score_union(
    frame: Frame, rows: list[dict[str, Any]], pred: np.ndarray, target: np.ndarray, band_px: int
) -> dict[str, Any]:
    """The frame's row: the union of its objects' masks, scored only where every object has both masks."""
    categories = {row["category"] for row in rows}
    whole = _unit(frame, "frame")
    whole["category"] = categories.pop() if len(categories) == 1 else "mixed" if categories else None
    lacking = [row["status"] for row in rows if row["status"] in ("no mask", "not prompted")]
    if not rows:
        return whole | {"status": "no objects"}
    if lacking:
        alike = len(lacking) == len(rows) and len(set(lacking)) == 1
        return whole | {"status": lacking[0] if alike else f"{len(lacking)} of {len(rows)} objects lack a mask"}
    whole["area"] = int(np.count_nonzero(target))
    if whole["area"] == 0:
        return whole | {"status": "empty target"}
    fit_px = fitted_band(float(np.mean([row["area"] for row in rows if row["area"]])))
    whole |= _scores(pred, target, band_px, fit_px)
    return whole | {"status": "ok" if pred.any() else "empty"}


def _unit(frame: Frame, protocol: ProtocolName) -> dict[str, Any]:
    """A row in which only the place is filled in."""
    unknown = dict.fromkeys(("area", "box_width", "box_height", *CROWDING, *SCORES, "predicted_iou"), np.nan)
    place = {"protocol": protocol, "video": frame.video, "frame": frame.index, "object_id": NO_OBJECT}
    return place | unknown | {"category": None, MASK: None}


def _scores(pred: np.ndarray, target: np.ndarray, band_px: int, fit_px: int) -> dict[str, float]:
    scores = score_masks(pred, target, band_px=band_px, fit_px=fit_px)
    return {name: getattr(scores, name) for name in SCORES}


def crowding(boxes_xyxy: np.ndarray) -> np.ndarray:
    """How crowded each box stands among the others: N×4 → float N×3, the columns `CROWDING` of `score`."""
    boxes = np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4)
    if len(boxes) < 2:
        return np.full((len(boxes), 3), np.nan)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    distances, _ = scipy.spatial.cKDTree(centres).query(centres, k=2)  # the nearest is the centre itself
    gaps = np.empty(len(boxes))
    for i, box in enumerate(boxes):  # a row at a time: N×N arrays of a parking lot would not fit
        apart = np.maximum(boxes[:, :2] - box[2:], box[:2] - boxes[:, 2:]).clip(0)
        apart[i] = np.inf
        gaps[i] = np.hypot(*apart.T).min()
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    return np.column_stack([distances[:, 1], gaps, gaps / sides])
