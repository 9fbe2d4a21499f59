"""Tracking clips of datasets nobody trained on: one object over time in each, and every method's masks judged."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rossam_core.devices import core_count
from rossam_core.errors import RossamError
from rossam_core.records import Frame
from rossam_kit.convert import quality
from rossam_kit.convert.convert import ConversionConfig, boxes_only, convert
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.loading import is_there
from rossam_kit.experiments.planning import ZERO_SHOT
from rossam_kit.experiments.statistics import mean_interval
from rossam_kit.report.labels import label
from rossam_kit.report.objects import ObjectView, view_objects

if TYPE_CHECKING:
    from rossam_kit.experiments.experiments import Experiments, RowSpec

SHOWN: Mapping[str, str] = {
    "fill": "fill of the box",
    "in_one_piece": "in one piece",
    "inside": "inside the box",
    "jitter_stability": "steady under box jitter",
    "temporal_consistency": "steady over time",
    "iou": "true IoU",
}
"""Signs that are shares, as figures name them; the last one only where true masks are known."""


@dataclass(frozen=True)
class Clip:
    """One object's way through a video of a dataset.

    Attributes:
        frames: some moments of the video, evenly spaced over its track, with that object alone; the clip's own name
            stands in place of the video's, so that clips of one video stay apart.
    """

    dataset: str
    category: str
    object_id: int
    frames: FrameSet

    @property
    def titles(self) -> list[str]:
        """One a moment, for filmstrips."""
        return [f"frame {frame.index}" for frame in self.frames]

    @property
    def caption(self) -> str:
        first = self.frames[0]
        moments = f"{self.category.capitalize()} in frames {first.index} to {self.frames[-1].index}"
        return f"{moments} ({self.dataset}, {first.video})"

    @property
    def middle(self) -> Frame:
        return self.frames[len(self.frames) // 2]


def gather(experiments: Experiments, each: int = 3) -> tuple[list[Clip], pd.DataFrame]:
    """`each` clips of all zero-shot datasets that the profile names, taken in turn, and an account of them.

    A profile that names none is shown on its own data, and the account says so.

    Raises:
        RossamError: none of the datasets has a clip; every reason is listed.
    """
    profile = experiments.profile
    named = [name for name in ZERO_SHOT if name in profile.datasets]
    by_dataset, account = [], []
    for turn, name in enumerate(named or [profile.data.source]):
        frames, clips, note = _clips_of(experiments.on(name), name, each)
        if clips and not named:
            note = "the profile names no zero-shot dataset: this is the data it is scored on"
        start = turn % len(clips) if clips else 0
        by_dataset.append(clips[start:] + clips[:start])
        account.append({"dataset": name, "frames": frames, "clips": len(clips), "note": note})
    clips = [clip for turn in itertools.zip_longest(*by_dataset) for clip in turn if clip is not None]
    if not clips:
        reasons = "; ".join(f"{row['dataset']}: {row['note'] or 'no object but cars'}" for row in account)
        raise RossamError("zero-shot clips", f"there are none ({reasons})", "run the profile's --dry-run for the steps")
    return clips, pd.DataFrame(account)


def _clips_of(experiments: Experiments, name: str, each: int) -> tuple[int, list[Clip], str]:
    """Number of frames of a dataset, its clips, and a note: what is known of it, or why there are none."""
    data = experiments.profile.data
    if not is_there(data):
        return 0, [], f"not here; ./run_all.sh --profile {experiments.profile.name} --dry-run says how to get it"
    try:
        frames = experiments.frames
    except RossamError as error:
        return 0, [], f"not read: {error.finding.splitlines()[0]}"
    note = "boxes of trackers, no true masks"
    if data.source == "synthetic":  # videos of several such sets stay apart by their names
        note = "a generated stand-in, so true masks are known"
        renamed = [replace(frame, video=f"{name} {frame.video}") for frame in frames]
        frames = FrameSet(f"stand-in for {name}", renamed, frames.drops)
    return len(frames), choose_clips(frames, each), note


def choose_clips(frames: FrameSet, count: int = 3, moments: int = 6) -> list[Clip]:
    """Clips chosen by rule: classes in turn, within each tracks at even quantiles of their box's area. Tracks that the
    frame's edge cuts count only where there are no others. Cars are left out: they are too small to be
    distinguished from filled boxes (paper section 4.1).

    Args:
        count: clips, at most.
        moments: frames a clip, at most, evenly spaced over its track. Tracks shorter than that count only where there
            is no longer one.
    """
    tracks: dict[tuple[str, str, int], list[Frame]] = {}
    for frame in frames:
        for annotation in frame.objects:
            if annotation.category != "car":
                alone = frame.with_objects([annotation])
                tracks.setdefault((annotation.category, frame.video, annotation.object_id), []).append(alone)
    longest = max(map(len, tracks.values()), default=0)
    tracks = {key: track for key, track in tracks.items() if len(track) >= min(moments, longest)}
    tracks = {key: track for key, track in tracks.items() if all(map(_is_whole, track))} or tracks
    by_class: dict[str, list[tuple[str, str, int]]] = {}
    for key in sorted(tracks, key=lambda key: (_area(tracks[key]), key)):
        by_class.setdefault(key[0], []).append(key)
    each = -(-count // max(len(by_class), 1))
    columns = [
        dict.fromkeys(keys[int((i + 0.5) / each * len(keys))] for i in range(each))
        for _, keys in sorted(by_class.items())
    ]
    chosen = [key for turn in itertools.zip_longest(*columns) for key in turn if key is not None]
    return [_clip(frames.name, key, tracks[key], moments) for key in chosen[:count]]


def _is_whole(frame: Frame) -> bool:
    """Whether none of its boxes reaches the frame's edge."""
    boxes, (height, width) = frame.boxes_xyxy, frame.size_hw
    return bool((boxes[:, :2] > 0).all() and (boxes[:, 2] < width).all() and (boxes[:, 3] < height).all())


def _area(track: Sequence[Frame]) -> float:
    boxes = np.concatenate([frame.boxes_xyxy for frame in track])
    return float(np.median(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)))


def _clip(dataset: str, key: tuple[str, str, int], track: Sequence[Frame], moments: int) -> Clip:
    category, video, object_id = key
    name = f"{video} #{object_id}"
    places = np.unique(np.linspace(0, len(track) - 1, min(moments, len(track))).round().astype(int))
    frames = [replace(track[i], video=name) for i in places]
    return Clip(dataset, category, object_id, FrameSet(name, frames))


def views(frames: Sequence[Frame], predictors: Mapping[str, Any]) -> list[ObjectView]:
    """The one object of each frame with the masks of all methods, for figures and the viewer."""
    rows = [{"video": f.video, "frame": f.index, "object_id": o.object_id} for f in frames for o in f.objects]
    return view_objects(pd.DataFrame(rows), frames, predictors)


def judge(clips: Sequence[Clip], predictors: Mapping[str, Any], seed: int = 0) -> pd.DataFrame:
    """Signs of every method's mask in every moment of all clips; `seed` is that of the jittered boxes, for all methods.

    Returns:
        The table of `Conversion` with columns `method`, `dataset`, `in_one_piece` and `inside` (1 − leakage), and `iou`
        with the true mask, NaN where none is known. A box without a mask fills nothing and agrees with nothing: its
        signs are 0.
    """
    merged = FrameSet("clips", [frame for clip in clips for frame in clip.frames])
    datasets = {clip.frames.name: clip.dataset for clip in clips}
    tables = []
    for method, predictor in predictors.items():
        with tempfile.TemporaryDirectory() as folder:
            config = ConversionConfig(seed=seed, threads=core_count())
            conversion = convert(predictor, boxes_only(merged), folder, config)
            table = quality.with_true_iou(conversion, merged)
        empty = table["area"] == 0
        table["in_one_piece"] = (table["fragments"] == 1).astype(float)
        table["inside"] = 1 - table["leakage"]
        table.loc[empty, ["fill", "inside", "jitter_stability", "temporal_consistency"]] = 0.0
        tables.append(table.assign(method=method, dataset=table["video"].map(datasets)))
    return pd.concat(tables, ignore_index=True)


def long_signs(judged: pd.DataFrame) -> pd.DataFrame:
    """One row per mask and sign of `SHOWN`, for `plots.score_by_group(…, "share", by="sign")`."""
    shown = [name for name in SHOWN if judged[name].notna().any()]
    long = judged.melt(["method", "dataset", "video", "frame"], shown, "sign", "share")
    return long.assign(sign=long["sign"].map(SHOWN)).dropna(subset=["share"])


def signs_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Mean signs, one row per method and dataset, percent (but for the pieces); intervals are over clips."""
    rows = []
    for (dataset, method), part in judged.groupby(["dataset", "method"], sort=False):
        steady = mean_interval(part, "jitter_stability").scaled(100)
        low, high = np.clip([steady.low, steady.high], 0, 100)  # a share has these bounds; few clips pass them
        row = {
            "dataset": dataset,
            "method": label(method),
            "clips": part["video"].nunique(),
            "masks": int((part["area"] > 0).sum()),
            "fill of the box": 100 * part["fill"].mean(),
            "outside the box": 100 * part.loc[part["area"] > 0, "leakage"].mean(),
            "pieces": part.loc[part["area"] > 0, "fragments"].mean(),
            "steady under box jitter": steady.mean,
            "95% interval": steady.note or f"{low:.1f} to {high:.1f}",
            "steady over time": 100 * part["temporal_consistency"].mean(),
        }
        rows.append(row | ({"true IoU": 100 * part["iou"].mean()} if judged["iou"].notna().any() else {}))
    return pd.DataFrame(rows)


def of_table(experiments: Experiments, table: str, labels: Sequence[str]) -> dict[str, RowSpec]:
    """Rows of a table by the method each shows; those that are left out (`Experiments.left_out`) are not among them."""
    missing = experiments.left_out(table)
    rows = [experiments.specs[table].row(label) for label in labels if label not in missing]
    return {spec.kind: spec for spec in rows}
