"""From measured rows to what tables and figures take: intervals, paired differences, verdicts, long tables.

In: `evaluation.experiments.RowResult`s. Out: `ComparisonRow`s, and DataFrames with a `method` column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..config import InferenceConfig, Profile
from ..errors import RossamError
from ..evaluation.claims import ledger
from ..evaluation.experiments import table_specs
from ..evaluation.statistics import adjusted, bootstrap_mean, paired_difference, verdict
from ..inference import crops
from .objects import ObjectView, cut_object, quantile_rows
from .pictures import Strategy
from .tables import ComparisonRow, Published, published

if TYPE_CHECKING:
    from ..data.records import Frame, FrameSet
    from ..evaluation.claims import Claim, Judgement
    from ..evaluation.experiments import RowResult, RowSpec, TableSpec


def comparison_rows(
    table: str,
    results: Sequence[RowResult],
    profile: Profile,
    protocol: str = "object",
    *,
    left_out: Mapping[str, str] | None = None,
) -> list[ComparisonRow]:
    """Each row as published and as measured, its paired difference to the first row, and what that says of the claim.

    Args:
        table: name in `experiments.yaml`; rows without a published number are shown beside, without verdict.
        results: rows in order, scored on the same frames; the first is what differences are to.
        profile: gives number of bootstrap samples and seed.
        protocol: `object` (each object alone) or `frame` (a frame's union mask, as the released code scores).
        left_out: label → reason of the table's other rows (`Experiments.left_out`); they keep their place.
    """
    spec = table_specs()[table]
    rows = [_measured_row(spec, result, results[0], profile, protocol) for result in results]
    for place, row in enumerate(spec.rows):
        if reason := (left_out or {}).get(row.label):
            told = ComparisonRow(row.label, _printed(spec, row), reason=reason, method=row.kind, dataset=spec.dataset)
            rows.insert(place, told)
    return rows


def _measured_row(
    spec: TableSpec, result: RowResult, first: RowResult, profile: Profile, protocol: str
) -> ComparisonRow:
    options = {"samples": profile.evaluation.bootstrap_samples, "seed": profile.seed}
    units, printed = result.units(protocol), _printed(spec, result.spec)
    difference, judged = None, ""
    if result is not first:
        difference = paired_difference(units, first.units(protocol), **options)
        if printed and (base := _printed(spec, first.spec)):
            judged = verdict(printed.iou - base.iou, difference)
    iou, biou = (bootstrap_mean(units, value, **options) for value in ("iou", "biou"))
    return ComparisonRow(
        result.spec.label, printed, iou, biou, difference, judged, method=result.spec.kind, dataset=spec.dataset
    )


def _printed(spec: TableSpec, row: RowSpec) -> Published | None:
    """What the paper prints for a row of a table; None where it has no such row."""
    return published(spec.published, row.published, spec.dataset) if row.published else None


def units_by_method(results: Sequence[RowResult], protocol: str = "object") -> pd.DataFrame:
    """All scored units of several rows, one below the other, with a `method` column for plots."""
    return pd.concat([r.units(protocol).assign(method=r.spec.kind) for r in results], ignore_index=True)


def scores_by(results: Sequence[RowResult], by: str, profile: Profile, value: str = "iou") -> pd.DataFrame:
    """Mean `value` in percent of each group (rows) and setting (columns), with n; groups with most objects first."""
    columns = {}
    for result in results:
        units = result.units().dropna(subset=[value])
        columns[result.spec.label] = 100 * units.groupby(by, observed=True)[value].mean()
    counts = results[0].units().dropna(subset=[value]).groupby(by, observed=True)[value].size()
    table = pd.DataFrame({"n": counts, **columns}).sort_values("n", ascending=False, kind="stable")
    return table.reset_index(names=by)


def crop_strategy(frame: Frame, shown: int, input_size: int, config: InferenceConfig) -> Strategy:
    """The windows `config` cuts for all of a frame's boxes, and the input that serves box number `shown`."""
    boxes = frame.boxes_xyxy
    windows = crops.plan(boxes, frame.size_hw, input_size, config)
    at = next(i for i, window in enumerate(windows) if shown in window.indices)
    image = crops.cut(frame.image(), windows[at], input_size, config)
    return Strategy(
        windows_xyxy=np.array([window.window_xyxy for window in windows]),
        shown=at,
        input_image=np.asarray(image, dtype=np.uint8),
        input_box_xyxy=windows[at].to_input(boxes[[shown]])[0],
    )


def object_statistics(frames: Sequence[Frame]) -> pd.DataFrame:
    """One row an object with a mask: its names, area (px²), share of the frame, and the width and height of its box."""
    rows = []
    for frame in frames:
        for thing in frame.objects:
            if not thing.has_mask:
                continue
            x0, y0, x1, y1 = thing.box_xyxy
            area = int(thing.mask(frame.size_hw).sum())
            share = area / (frame.size_hw[0] * frame.size_hw[1])
            rows.append((frame.video, frame.index, thing.object_id, thing.category, area, share, x1 - x0, y1 - y0))
    columns = ["video", "frame", "object_id", "category", "area", "share_of_frame", "width", "height"]
    return pd.DataFrame(rows, columns=columns)


PUBLISHED_DATASET: Mapping[str, str] = {
    "Images": "10,617 (8,333 train, 2,284 test)",
    "Largest image": "2160×1080",
    "Smallest image": "512×512",
    "Objects with masks": "52,123",
    "Largest object, px²": "8,422",
    "Smallest object, px²": "12",
    "Mean object, px²": "518",
    "Largest share of its image": "0.023339",
    "Smallest share of its image": "3.111e-06",
}
"""Table 7 of the paper (supplement, section 6), as printed."""


def dataset_table(frames: Sequence[Frame]) -> pd.DataFrame:
    """Table 7: the paper's attributes of its dataset beside those of `frames`."""
    objects = object_statistics(frames)
    sizes = sorted({frame.size_hw for frame in frames}, key=lambda hw: hw[0] * hw[1])
    ours = [
        f"{len(frames):,}",
        f"{sizes[-1][1]}×{sizes[-1][0]}",
        f"{sizes[0][1]}×{sizes[0][0]}",
        f"{len(objects):,}",
        f"{objects['area'].max():,}",
        f"{objects['area'].min():,}",
        f"{objects['area'].mean():,.0f}",
        f"{objects['share_of_frame'].max():.6f}",
        f"{objects['share_of_frame'].min():.3e}",
    ]
    return pd.DataFrame({"attribute": list(PUBLISHED_DATASET), "paper": list(PUBLISHED_DATASET.values()), "here": ours})


def example_objects(frames: Sequence[Frame], each: int = 3, most: int = 9) -> list[ObjectView]:
    """`each` objects of every class at even quantiles of area, at most `most` in all (the most frequent classes)."""
    table = object_statistics(frames)
    by_frame = {(frame.video, frame.index): frame for frame in frames}
    quantiles = np.linspace(0.1, 0.95, each)
    views = []
    for category in table["category"].value_counts().index[: most // each]:
        for row in quantile_rows(table[table["category"] == category], "area", quantiles).itertuples():
            frame = by_frame[row.video, row.frame]
            thing = next(o for o in frame.objects if o.object_id == row.object_id)
            target = thing.mask(frame.size_hw)
            key = f"{frame.key} #{thing.object_id}"
            views.append(cut_object(frame.image(), thing.box_xyxy, target, {}, key=key, category=category))
    return views


def drop_table(frames: FrameSet) -> pd.DataFrame:
    """Reasons for which something was left out, how often, and one example; objects without mask among them."""
    rows = [(drop.reason, drop.where) for drop in frames.drops]
    rows += [
        (f"{o.category}: a box but no mask, so not scored", f"{f.key} object {o.object_id}")
        for f in frames
        for o in f.objects
        if not o.has_mask
    ]
    rows += [
        ("shows too little of itself (under 12 px²)", f.key)
        for f in frames
        for _ in range(f.attributes.get("left_out_too_small", 0))
    ]
    rows = rows or [("nothing was left out", "—")]
    table = pd.DataFrame(rows, columns=["reason", "example"])
    counted = table.groupby("reason", sort=False)["example"].agg(["size", "first"]).reset_index()
    counted.columns = ["reason", "times", "example"]
    return counted.assign(times=counted["times"].where(counted["example"] != "—", 0))


def gains(results: Sequence[RowResult], profile: Profile) -> pd.DataFrame:
    """What the inference pipeline and what fine-tuning adds to each method, paired, in points of IoU (Figure 5).

    The pipeline's gain is that of a row over the row of the same method and training on whole frames; the gain of
    fine-tuning that of a fine-tuned row with the pipeline over the same method not fine-tuned, where the table has
    it, else over SAM.

    Returns:
        `method, step` ("inference pipeline", "fine-tuning"), `text` (row over row), `mean, low, high, n`, and
        `published`, NaN where the paper does not print both rows.
    """
    options = {"samples": profile.evaluation.bootstrap_samples, "seed": profile.seed}
    whole = {_same(r): r for r in results if _direct(r)}
    untrained = {r.spec.method: r for r in results if r.spec.training is None and not _direct(r)}
    rows = []
    for result in results:
        if _direct(result) or result.spec.method is None:
            continue
        bases = {"inference pipeline": whole.get(_same(result))}
        if result.spec.training is not None:
            bases["fine-tuning"] = untrained.get(result.spec.method, untrained.get("sam"))
        for step, base in bases.items():
            if base is None:
                continue
            gain = paired_difference(result.units(), base.units(), **options).scaled(100)
            text = f"{result.spec.label} over {base.spec.label}"
            numbers = gain.mean, gain.low, gain.high, gain.n, _printed_gain(result, base)
            rows.append((result.spec.kind, step, text, *numbers))
    return pd.DataFrame(rows, columns=["method", "step", "text", "mean", "low", "high", "n", "published"])


def _direct(result: RowResult) -> bool:
    return result.spec.inference.get("mode") == "direct"


def _same(result: RowResult) -> tuple[str | None, str]:
    return result.spec.method, str(result.spec.training)


def _printed_gain(result: RowResult, base: RowResult, table: str = "table5") -> float:
    names = [r.spec.published for r in (result, base)]
    if None in names:
        return np.nan
    ours, theirs = (published(table, name).iou for name in names)
    return ours - theirs


def measures_table(results: Sequence[RowResult]) -> pd.DataFrame:
    """All measures of the same predictions, percent: a row a setting; and how often BIoU at 0.02 says nothing new."""
    measures = {
        "iou": "IoU",
        "biou": "BIoU at 0.02",
        "biou_official": "min(IoU, BIoU), official",
        "biou_fit": "BIoU, fitted band",
        "biou_fit_official": "min(IoU, fitted BIoU)",
    }
    rows = []
    for result in results:
        units, frames = result.units().dropna(subset=["iou"]), result.units("frame")
        row = {"setting": result.spec.label} | {title: 100 * units[name].mean() for name, title in measures.items()}
        row["objects whose BIoU is their IoU, percent"] = 100 * np.isclose(units["biou"], units["iou"]).mean()
        rows.append(row | {f"{measures[name]}, a frame": 100 * frames[name].mean() for name in ("iou", "biou")})
    return pd.DataFrame(rows)


def claim_table(judgements: Iterable[Judgement]) -> pd.DataFrame:
    """The ledger: statement, source, published and measured difference in points, interval, n, verdict.

    The verdict is by the claim's own interval. `p, adjusted` counts all judged claims at once
    (`statistics.adjusted`), and so does the last column, in which only what has a p below 0.05 stays decided.
    Statements that no scored row can judge come last, with the reason in the verdict's place.
    """
    judgements = list(judgements)
    rows = []
    for judgement, p in zip(judgements, adjusted([j.difference.p for j in judgements]), strict=True):
        claim, measured = judgement.claim, judgement.difference.scaled(100)
        printed = published_difference(claim)
        rows.append(
            {
                "claim": claim.says,
                "source": claim.source,
                "published difference": "not in numbers" if printed is None else f"{printed:+.2f}",
                "measured difference": "no such object here" if np.isnan(measured.mean) else f"{measured.mean:+.2f}",
                "95% interval": measured.note or f"{measured.low:+.2f} to {measured.high:+.2f}",
                "n": measured.n,
                "verdict": judgement.verdict,
                "p, adjusted": measured.note or f"{p:.3f}",
                "all claims at once": judgement.verdict if p < 0.05 else "inconclusive",
            }
        )
    absent = dict.fromkeys(("published difference", "measured difference", "95% interval"), "—")
    for entry in ledger().not_testable:
        told = {"n": 0, "verdict": f"not testable: {entry.reason}", "p, adjusted": "—", "all claims at once": "—"}
        rows.append({"claim": entry.says, "source": entry.source} | absent | told)
    return pd.DataFrame(rows)


def published_difference(claim: Claim) -> float | None:
    """The paper's difference between the claim's rows in points, where both are printed, of all objects."""
    specs = table_specs()
    pairs = [(specs[table], specs[table].row(label)) for table, label in (claim.better, claim.than)]
    printed = [found for spec, row in pairs if (found := _printed(spec, row))]
    if len(printed) < 2 or claim.where or claim.value not in Published._fields:
        return None
    better, than = (getattr(found, claim.value) for found in printed)
    return better - than


def example_frames(frames: Sequence[Frame], count: int = 9) -> list[Frame]:
    """One frame with objects from each of `count` videos, evenly spaced over all videos."""
    first = {frame.video: frame for frame in reversed(frames) if frame.objects}
    videos = sorted(first)
    chosen = np.unique(np.linspace(0, len(videos) - 1, min(count, len(videos))).round().astype(int))
    return [first[videos[i]] for i in chosen]


def busiest_frame(frames: Sequence[Frame]) -> Frame:
    """The frame with most objects that have masks, and only those; data of boxes alone is a `RossamError`."""
    kept = [frame.with_objects([o for o in frame.objects if o.has_mask]) for frame in frames]
    busiest = max(kept, key=lambda frame: len(frame.objects), default=None)
    if busiest is None or not busiest.objects:
        raise RossamError(
            "the data", "has no object with a mask", "notebooks 00, 01 and 10 need none; start with these"
        )
    return busiest
