"""What the inspector knows, apart from how it shows it: which objects, in which order, and what to encode again.

In: frames, score tables, what the user chose. Out: rows of objects in order, and for the object in focus the window
its masks are read from. Nothing here draws or runs a network.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pycocotools import mask as coco_mask

from ..config import EvaluationConfig, InferenceConfig
from ..data import masks
from ..data.boxes import check_boxes
from ..data.records import Box, Frame, ObjectAnnotation
from ..errors import RossamError
from ..evaluation.scoring import size_bin_labels
from ..inference import crops

T = TypeVar("T")
ORDERS = {"worst first": "worst", "best first": "best", "random": "random", "as in the data": "data"}
PLACE = ["video", "frame", "object_id"]


def list_objects(frames: Iterable[Frame], size_bins: Sequence[float] = EvaluationConfig().size_bins) -> pd.DataFrame:
    """One row an object, in the order of the data.

    Returns:
        Columns `row` (which of `frames`), `place` (which of its objects), `video, frame, object_id, category`, `area`
        (px²) and `size_bin`, both NaN for a box without a mask.
    """
    labels, rows = size_bin_labels(size_bins), []
    for row, frame in enumerate(frames):
        for place, thing in enumerate(frame.objects):
            area, size_bin = np.nan, None
            if thing.has_mask:
                area = float(coco_mask.area(masks.to_rle(thing.segmentation, frame.size_hw)))
                at = int(np.searchsorted(size_bins, area, side="right")) - 1
                size_bin = labels[at] if at >= 0 else None
            rows.append((row, place, frame.video, frame.index, thing.object_id, thing.category, area, size_bin))
    return pd.DataFrame(rows, columns=["row", "place", *PLACE, "category", "area", "size_bin"])


def with_scores(objects: pd.DataFrame, method: str, scores: pd.DataFrame) -> pd.DataFrame:
    """`objects` with a column `method`: the IoU that `scores` has for each, NaN where it has none."""
    known = scores.drop_duplicates(PLACE)[[*PLACE, "iou"]].rename(columns={"iou": method})
    known = known.assign(video=known["video"].astype(str))
    return objects.drop(columns=method, errors="ignore").merge(known, on=PLACE, how="left")


def arrange(
    objects: pd.DataFrame,
    order: str = "data",
    judge: str | None = None,
    *,
    category: str | None = None,
    size_bin: str | None = None,
    row: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The objects that pass all filters (None: no filter), in the order asked for.

    Args:
        order: `worst` or `best` by the column `judge` (objects without a score last, ties as in the data), `random`
            (the same for the same seed), or `data`.
        row: only objects of this frame.

    Raises:
        RossamError: an unknown order, or no object passes.
    """
    if order not in ORDERS.values():
        raise RossamError(f"order {order!r}", "is not known", f"use one of {', '.join(ORDERS.values())}")
    wanted = {"category": category, "size_bin": size_bin, "row": row}
    for column, value in wanted.items():
        if value is not None:
            objects = objects[objects[column] == value]
    if objects.empty:
        filters = [str(value) for name, value in wanted.items() if value is not None and name != "row"]
        filters += ["one frame"] if row is not None else []
        raise RossamError(
            " and ".join(filters) or "these frames", "no object there", "choose 'all' in one of the lists"
        )
    if order == "random":
        return objects.iloc[np.random.default_rng(seed).permutation(len(objects))]
    if order == "data":
        return objects
    return objects.sort_values(judge, ascending=order == "worst", kind="stable", na_position="last")


class Focus:
    """One object under inspection: its prompt, which may be edited, and the windows its masks are read from.

    A window stays while it holds the prompt whole, so that an edited box inside it needs no new encoding. It is
    planned anew when the box leaves it, when settings change, and by `recentre`.

    Args:
        frame: the object's.
        place: which of `frame.objects`.
        config: how windows are cut.
    """

    def __init__(self, frame: Frame, place: int, config: InferenceConfig):
        self.frame, self.place, self.config = frame, place, config
        self.box_xyxy: Box = self.own_box
        self._windows: dict[int, crops.CropPlan] = {}

    @property
    def thing(self) -> ObjectAnnotation:
        return self.frame.objects[self.place]

    @property
    def own_box(self) -> Box:
        """The annotated box."""
        return tuple(float(side) for side in self.thing.box_xyxy)

    def set_box(self, box_xyxy: Sequence[float]) -> None:
        """Prompt with another box; a bad one is a `RossamError` and changes nothing."""
        (box,) = check_boxes([box_xyxy], self.frame.size_hw, f"box in frame {self.frame.key}")
        self.box_xyxy = tuple(box.tolist())

    def set_config(self, config: InferenceConfig) -> None:
        """Cut windows another way."""
        self.config = config
        self.recentre()

    def recentre(self) -> None:
        """Forget the windows, so that the next ones are planned around the box as it is now."""
        self._windows.clear()

    def window(self, input_size: int) -> crops.CropPlan:
        """The window for a model of that input size."""
        (hull,) = crops.pixel_hulls([self.box_xyxy], self.frame.size_hw)
        known = self._windows.get(input_size)
        if known is None or not known.holds(hull):
            self._windows[input_size] = self._plan(input_size)
        return self._windows[input_size]

    def encoding_key(self, method: str, input_size: int) -> Hashable:
        """All that an encoding depends on; equal keys are answered from the same one."""
        window = self.window(input_size)
        config = self.config
        how = window.window_xyxy, window.content_hw, config.mode == "direct", config.interpolation
        return str(self.frame.image_path), method, *how

    def _plan(self, input_size: int) -> crops.CropPlan:
        """The window that serves the box among all prompts of its frame, as the pipeline would cut it."""
        prompts = [tuple(o.box_xyxy) for i, o in enumerate(self.frame.objects) if o.has_mask and i != self.place]
        boxes = np.array([self.box_xyxy, *prompts], dtype=float)
        planned = crops.plan(boxes, self.frame.size_hw, input_size, self.config)
        return next(window for window in planned if 0 in window.indices)


class Encodings:
    """Encodings by key, the least recently used forgotten first.

    Args:
        limit: bytes to keep; the newest stays whatever its size.
    """

    def __init__(self, limit: int = 256 * 2**20):
        self.limit, self._kept = limit, OrderedDict[Hashable, tuple[Any, int]]()

    def get(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """What is kept under `key`; else what `make` returns, of `size` bytes, kept from now on."""
        if key not in self._kept:
            made = make()
            self._kept[key] = made, size(made)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(held for _, held in self._kept.values()) > self.limit:
            self._kept.popitem(last=False)
        return self._kept[key][0]
