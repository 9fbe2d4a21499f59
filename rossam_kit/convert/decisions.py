"""The review of a conversion: decisions about its masks, kept in a file that survives a killed kernel.

`Decisions` is the file, `Review` the actions on it: accept, reject, predict again with a moved box, carry a fix along
the track, undo. `stratified_sample` and `usable_share` estimate how many masks are usable. `review_panel` has widgets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy

from rossam_core import masks
from rossam_core.boxes import check_boxes
from rossam_core.errors import RossamError
from rossam_core.records import Box
from rossam_kit.convert.mask_records import Conversion, FrameRecord, MaskRecord

FILE = "decisions.jsonl"
ACCEPTED, REJECTED, CORRECTED = "accepted", "rejected", "corrected"
KEY = ["video", "frame", "object_id"]
Key = tuple[str, int, int]
"""Video, frame number and object of a record."""


class Decisions:
    """Decisions in a file of JSON lines, one an action, written to the disk before the call returns.

    Nothing is ever changed in the file: `undo` appends a line, too. A line that a killed process left unfinished is
    left out when the file is read, and cut off before the next is appended. Where another session has appended, nothing
    is written, so that neither loses a decision.

    Attributes:
        latest: record → its decision: `verdict`, of a corrected mask also `box_xyxy` and `segmentation`.
    """

    def __init__(self, path: str | Path):
        self.path, self._actions, self._whole = Path(path), [], 0  # bytes of whole lines
        self.latest: dict[Key, dict[str, Any]] = {}
        for number, line in enumerate(self._lines(), start=1):
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                remedy = "delete this line, or name the file of an earlier state"
                raise RossamError(f"{self.path}, line {number}", f"is no decision ({error!r})", remedy) from error

    def _lines(self) -> list[bytes]:
        content = self.path.read_bytes() if self.path.exists() else b""
        self._whole = content.rfind(b"\n") + 1
        return content[: self._whole].splitlines()

    def _apply(self, action: Mapping[str, Any]) -> None:
        if action.get("undo"):
            self._actions.pop()
            self.latest = {key: decision for made in self._actions for key, decision in made.items()}
        else:
            self._actions.append({tuple(each[name] for name in KEY): each for each in action["decisions"]})
            self.latest |= self._actions[-1]

    def add(self, decisions: Sequence[Mapping[str, Any]]) -> None:
        """One action: decisions that are undone together."""
        self._append({"decisions": list(decisions)})

    def undo(self) -> list[Key]:
        """Take the last action back; its records, none where there is no action left."""
        undone = list(self._actions[-1]) if self._actions else []
        if undone:
            self._append({"undo": True})
        return undone

    def _append(self, action: Mapping[str, Any]) -> None:
        line = (json.dumps(action, separators=(",", ":")) + "\n").encode("utf-8")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(self._whole)
                if size < self._whole or b"\n" in stream.read():
                    finding = "was changed by another session or program since it was opened"
                    raise RossamError(self.path, finding, "start this review again, which reads it anew")
                stream.truncate(self._whole)
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            remedy = "free some disk space or make the folder writable, and decide again"
            raise RossamError(self.path, f"cannot be written: {error.strerror}", remedy) from error
        self._whole += len(line)
        self._apply(action)


class Review:
    """The actions of a review.

    Args:
        conversion: what is reviewed.
        predictor: makes the masks of moved boxes; None: boxes cannot be moved.
        path: of the decisions; default: `decisions.jsonl` in the conversion's folder.
    """

    def __init__(self, conversion: Conversion, predictor=None, path: str | Path | None = None):
        self.conversion, self.predictor = conversion, predictor
        self.decisions = Decisions(path or conversion.folder / FILE)
        self._shards = conversion.table.set_index(KEY)["shard"].sort_index()
        self._shard = lru_cache(4)(conversion.shard)
        self.image = lru_cache(4)(self._image)

    def find(self, key: Key) -> tuple[FrameRecord, MaskRecord]:
        """The frame and the record."""
        frame = self._frame(*key[:2])
        return frame, next(record for record in frame.objects if record.object_id == key[2])

    def _frame(self, video: str, index: int) -> FrameRecord:
        shard = self._shard(int(self._shards.loc[(video, index)].iloc[0]))
        return next(frame for frame in shard if (frame.video, frame.index) == (video, index))

    def _image(self, video: str, index: int) -> np.ndarray:
        return self._frame(video, index).frame().image()

    def verdict(self, key: Key) -> str:
        """`accepted`, `rejected`, `corrected`, or empty."""
        return self.decisions.latest.get(key, {}).get("verdict", "")

    def accept(self, key: Key) -> None:
        """The mask is usable as it is."""
        self.decisions.add([_decision(key, ACCEPTED)])

    def reject(self, key: Key) -> None:
        """The mask is not usable; it is left out of what is trained on."""
        self.decisions.add([_decision(key, REJECTED)])

    def current(self, key: Key) -> tuple[Box, np.ndarray]:
        """Box and mask (bool H×W) as decided, else as converted."""
        decision, (frame, record) = self.decisions.latest.get(key, {}), self.find(key)
        if decision.get("verdict") == CORRECTED:
            return tuple(decision["box_xyxy"]), masks.decode(decision["segmentation"], frame.size_hw)
        return record.box_xyxy, record.full(frame.size_hw)

    def predict(self, key: Key, box_xyxy: Sequence[float]) -> np.ndarray:
        """The mask of another box, bool H×W; nothing is decided by it."""
        if self.predictor is None:
            raise RossamError("review", "no predictor was given", "name one, to predict masks of moved boxes")
        size_hw = self.find(key)[0].size_hw
        boxes = check_boxes([box_xyxy], size_hw, f"box of {key[0]}/{key[1]:06d} #{key[2]}")
        return self.predictor.predict(self.image(*key[:2]), boxes)[0].full()

    def correct(self, key: Key, box_xyxy: Sequence[float]) -> None:
        """Replace the mask by that of another box."""
        self.decisions.add([self._corrected(key, box_xyxy)])

    def carry(self, key: Key) -> list[Key]:
        """Move the boxes of the object's following frames as this one's was moved, and predict their masks again.

        Each side moves by the same share of the box's width or height as in this frame. Ends before the first frame
        whose record has a decision, or with the video; one action, undone as one.

        Returns:
            The records that were corrected.
        """
        moved, (_, record) = np.array(self.current(key)[0]), self.find(key)
        if self.verdict(key) != CORRECTED:
            place = f"{key[0]}/{key[1]:06d} #{key[2]}"
            raise RossamError(place, "has no fix to carry", "move its box and accept first")
        shift = (moved - record.box_xyxy) / _sides(record.box_xyxy)
        following = sorted(k for k in self._shards.index if k[0] == key[0] and k[2] == key[2] and k[1] > key[1])
        made = []
        for other in following:
            if self.verdict(other):
                break
            frame, record = self.find(other)
            size_wh = np.tile(frame.size_hw[::-1], 2)
            box = np.clip(np.array(record.box_xyxy) + shift * _sides(record.box_xyxy), 0, size_wh)
            if (box[2:] > box[:2]).all():
                made.append(self._corrected(other, box.tolist()))
        if made:
            self.decisions.add(made)
        return [tuple(each[name] for name in KEY) for each in made]

    def undo(self) -> list[Key]:
        """Take the last action back, also one of an earlier session; its records."""
        return self.decisions.undo()

    def _corrected(self, key: Key, box_xyxy: Sequence[float]) -> dict[str, Any]:
        mask = self.predict(key, box_xyxy)
        box = [round(float(side), 2) for side in box_xyxy]
        return _decision(key, CORRECTED) | {"box_xyxy": box, "segmentation": masks.encode(mask)}


def _decision(key: Key, verdict: str) -> dict[str, Any]:
    video, frame, object_id = key
    return {"video": str(video), "frame": int(frame), "object_id": int(object_id), "verdict": verdict}


def _sides(box_xyxy: Sequence[float]) -> np.ndarray:
    """Width, height, width, height."""
    box = np.asarray(box_xyxy, dtype=float)
    return np.tile(box[2:] - box[:2], 2)


def keys_of(table: pd.DataFrame) -> list[Key]:
    """The records of a table's rows, in its order."""
    return [(str(video), int(frame), int(object_id)) for video, frame, object_id in table[KEY].itertuples(index=False)]


# --- how many masks are usable ----------------------------------------------------------------------------------------


def stratified_sample(table: pd.DataFrame, n: int, *, strata: int = 5, seed: int = 0) -> pd.DataFrame:
    """About `n` rows with a mask, drawn at random in strata of equal size by the review's order.

    Args:
        table: of a conversion.
        strata: number of strata; a stratum has at least two rows in the sample, or all it has.

    Returns:
        The rows in a random order, with `stratum` (0 looks worst) and `stratum_size`, the rows of the stratum in all.
    """
    masked = table[table["area"] > 0].sort_values("review_rank")
    parts = np.array_split(np.arange(len(masked)), min(strata, max(len(masked) // 2, 1)))
    drawn, rng = [], np.random.default_rng(seed)
    for number, part in enumerate(parts):
        count = min(len(part), max(2, round(n * len(part) / max(len(masked), 1))))
        rows = masked.iloc[np.sort(rng.choice(part, count, replace=False))]
        drawn.append(rows.assign(stratum=number, stratum_size=len(part)))
    return pd.concat(drawn).sample(frac=1, random_state=seed).reset_index(drop=True)


class UsableShare(NamedTuple):
    """Estimated share of masks that are usable, its 95% interval, and rows looked at."""

    share: float
    low: float
    high: float
    n: int


def usable_share(sample: pd.DataFrame, decisions: Mapping[Key, Mapping[str, Any]]) -> UsableShare:
    """The share of a conversion's masks that are usable as they are: accepted, neither rejected nor corrected.

    Mean over strata weighted by their size, of the rows that have a decision. Interval: Clopper and Pearson's with the
    effective sample size p (1 − p) / Var(p) of the stratified design, finite strata taken into account, and its
    degrees of freedom (Korn and Graubard, Survey Methodology 24, 1998). Where the estimate is 0 or 1, and with it the
    variance 0, the effective size is the number of rows.

    Args:
        sample: of `stratified_sample`.
        decisions: `Decisions.latest`.

    Returns:
        NaN where a stratum has no decision yet.
    """
    verdicts = [decisions.get(key, {}).get("verdict") for key in keys_of(sample)]
    seen = sample.assign(usable=[float(v == ACCEPTED) if v else np.nan for v in verdicts]).dropna(subset=["usable"])
    groups, strata = seen.groupby("stratum"), sample.groupby("stratum")["stratum_size"].first()
    n, share = len(seen), groups["usable"].mean()
    if len(share) < len(strata):
        return UsableShare(np.nan, np.nan, np.nan, n)
    weight, counts = strata / strata.sum(), groups.size()
    p = min(float((weight * share).sum()), 1.0)  # weights need not add up to 1 exactly
    spread = share * (1 - share) / (counts - 1).clip(lower=1) * (1 - counts / strata)
    variance, freedom = float((weight**2 * spread).sum()), n - len(strata)
    if (counts == strata).all():
        return UsableShare(p, p, p, n)
    size = float(n)
    if variance > 0 and freedom > 0:
        size = p * (1 - p) / variance * (scipy.stats.t.ppf(0.975, n - 1) / scipy.stats.t.ppf(0.975, freedom)) ** 2
    good = p * size
    low = scipy.stats.beta.ppf(0.025, good, size - good + 1) if good > 0 else 0.0
    high = scipy.stats.beta.ppf(0.975, good + 1, size - good) if good < size else 1.0
    return UsableShare(p, float(low), float(high), n)
