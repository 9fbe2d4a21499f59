"""One object cut out of its frame with every method's mask: what figures and the report's viewer draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.metrics import boundary_iou, mask_iou
from rossam_kit.experiments.scoring import MASK

if TYPE_CHECKING:
    from rossam_core.inference.windows import Rectangle
    from rossam_core.records import Frame

QUANTILES = (0.95, 0.75, 0.5, 0.25, 0.05)
CONTEXT, MIN_SIDE = 2.0, 48
"""Side of a crop as a multiple of the box's longer side, and its least side in pixels."""


@dataclass(frozen=True)
class ObjectView:
    """One object in a crop of its frame.

    Attributes:
        key: names it, e.g. `video/000012 #3`.
        category: class name.
        area: square pixels of the target in the whole frame; 0 where no target is known.
        image: uint8 h×w×3 RGB, the crop at frame resolution.
        box_xyxy: the prompt, pixel-edge coordinates of the crop.
        target: bool h×w, or None where no ground truth exists.
        masks: method → bool h×w, in the order to be shown.
        iou, biou: method → score in 0..1 of the whole masks, not only of what the crop shows; empty without target.
    """

    key: str
    category: str
    area: int
    image: np.ndarray
    box_xyxy: tuple[float, float, float, float]
    target: np.ndarray | None
    masks: Mapping[str, np.ndarray]
    iou: Mapping[str, float] = field(default_factory=dict)
    biou: Mapping[str, float] = field(default_factory=dict)


def square_around(boxes_xyxy: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> Rectangle:
    """A square twice as long as all boxes together, at least 48 px, kept inside the frame (xyxy, frame pixels)."""
    boxes, (height, width) = np.asarray(boxes_xyxy, dtype=float), size_hw
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = int(np.ceil(max(MIN_SIDE, CONTEXT * (high - low).max())))
    left, top = ((low + high - side) / 2).round().clip(0, (max(width - side, 0), max(height - side, 0))).astype(int)
    return int(left), int(top), min(int(left) + side, width), min(int(top) + side, height)


def cut_object(
    image: np.ndarray,
    box_xyxy: Sequence[float],
    target: np.ndarray | None,
    masks: Mapping[str, np.ndarray],
    *,
    key: str,
    category: str,
) -> ObjectView:
    """Cut a square around a box, shifted inside the frame at its borders, and score every mask.

    Args:
        image: uint8 H×W×3 RGB.
        box_xyxy: pixel-edge coordinates of the frame.
        target: bool H×W or None.
        masks: method → bool H×W.

    Raises:
        RossamError: a mask or the target has another size than the image.
    """
    height, width = image.shape[:2]
    for name, mask in [*masks.items(), *([("target", target)] if target is not None else [])]:
        if mask.shape != (height, width):
            raise RossamError(f"object {key}", f"mask {name!r} is {mask.shape}, the image {(height, width)}",
                              "pass full-frame masks, e.g. ObjectMask.full()")  # fmt: skip
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    left, top, right, bottom = square_around([box_xyxy], (height, width))
    window = np.s_[top:bottom, left:right]
    scored = masks if target is not None else {}
    return ObjectView(
        key=key,
        category=category,
        area=0 if target is None else int(target.sum()),
        image=image[window].copy(),
        box_xyxy=(x0 - left, y0 - top, x1 - left, y1 - top),
        target=None if target is None else target[window].copy(),
        masks={name: mask[window].copy() for name, mask in masks.items()},
        iou={name: mask_iou(mask, target) for name, mask in scored.items()},
        biou={name: boundary_iou(mask, target) for name, mask in scored.items()},
    )


def quantile_rows(
    table: pd.DataFrame, value: str = "iou", quantiles: Sequence[float] = QUANTILES, by: str | None = None
) -> pd.DataFrame:
    """Rows of a score table that sit at given quantiles of `value`: a choice of examples nobody made by hand.

    Rows with NaN are left out; ties go to the earlier row; a row is taken once. With `by`, quantiles are taken
    within each of its groups.
    """
    if by is not None:
        return pd.concat([quantile_rows(group, value, quantiles) for _, group in table.groupby(by)])
    ranked = table.dropna(subset=[value]).sort_values(value, kind="stable")
    if ranked.empty:
        return ranked
    positions = [round(q * (len(ranked) - 1)) for q in quantiles]
    return ranked.iloc[list(dict.fromkeys(positions))]


def view_objects(rows: pd.DataFrame, frames: Iterable[Frame], methods: Mapping[str, Any]) -> list[ObjectView]:
    """The objects that `rows` name, cut out with every method's mask, in the order of the rows.

    Args:
        rows: columns `video, frame, object_id`, as `scoring.score` gives them.
        frames: the frames they come from.
        methods: method → scored objects with their masks (`RowResult.first_run`), or anything with
            `.predict(image, boxes_xyxy)`, which sees all boxes of a frame that are scored (all boxes where none is) at
            once, and every frame once.

    Raises:
        RossamError: a row names a frame or an object that `frames` does not hold.
    """
    by_key = {(frame.video, frame.index): frame for frame in frames}
    wanted = [(str(row.video), int(row.frame), int(row.object_id)) for row in rows.itertuples()]
    sources = {name: (_stored if isinstance(m, pd.DataFrame) else _predicted)(m) for name, m in methods.items()}
    views: dict[tuple[str, int, int], ObjectView] = {}
    for video, index in dict.fromkeys(key[:2] for key in wanted):
        if (video, index) not in by_key:
            raise RossamError(f"frame {video}/{index:06d}", "is not among the frames given", "pass the scored frames")
        frame = by_key[video, index]
        image = frame.image()
        prompted = {o.object_id: o for o in frame.objects if o.has_mask} or {o.object_id: o for o in frame.objects}
        answers = {name: of_frame(frame, image, prompted) for name, of_frame in sources.items()}
        for object_id in dict.fromkeys(key[2] for key in wanted if key[:2] == (video, index)):
            if object_id not in prompted:
                raise RossamError(f"frame {frame.key}", f"has no object {object_id}", "pass the scored frames")
            annotation = prompted[object_id]
            target = annotation.mask(frame.size_hw) if annotation.has_mask else None
            found = {name: answer(object_id) for name, answer in answers.items()}
            names = {"key": f"{frame.key} #{object_id}", "category": annotation.category}
            views[video, index, object_id] = cut_object(image, annotation.box_xyxy, target, found, **names)
    return [views[key] for key in wanted]


MasksOfFrame = Callable[["Frame", np.ndarray, Mapping[int, Any]], Callable[[int], np.ndarray]]
"""From a frame, its image, and its prompted objects by id: object id → mask, bool H×W."""


def _stored(scores: pd.DataFrame) -> MasksOfFrame:
    """Masks that were stored with their scores."""
    by_object = scores.set_index(["video", "frame", "object_id"])[MASK]

    def of_frame(frame: Frame, image: np.ndarray, prompted: Mapping[int, Any]) -> Callable[[int], np.ndarray]:
        counts, size_hw = by_object.loc[frame.video, frame.index], frame.size_hw
        return lambda object_id: masks.decode({"size": size_hw, "counts": counts[object_id]}, size_hw)

    return of_frame


def _predicted(predictor: Any) -> MasksOfFrame:
    """Masks that are predicted now."""

    def of_frame(frame: Frame, image: np.ndarray, prompted: Mapping[int, Any]) -> Callable[[int], np.ndarray]:
        boxes_xyxy = np.array([o.box_xyxy for o in prompted.values()], dtype=float)
        found = dict(zip(prompted, predictor.predict(image, boxes_xyxy), strict=True))
        return lambda object_id: found[object_id].full()

    return of_frame
