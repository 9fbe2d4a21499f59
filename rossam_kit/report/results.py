"""From measured rows to what tables and figures take: intervals, paired differences, the ledger, long tables.

In: `evaluation.experiments.RowResult`s. Out: `ComparisonRow`s, and DataFrames with a `method` column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rossam_core.errors import RossamError
from rossam_core.inference import windows as crops
from rossam_core.settings import InferenceConfig
from rossam_kit.experiments.claims import ledger
from rossam_kit.experiments.experiments import table_specs
from rossam_kit.experiments.statistics import adjusted, mean_interval, paired_difference
from rossam_kit.report.objects import ObjectView, cut_object, quantile_rows
from rossam_kit.report.pictures import Strategy
from rossam_kit.report.tables import ComparisonRow, ForestRow, Published, published

if TYPE_CHECKING:
    from rossam_core.records import Frame
    from rossam_kit.datasets.frame_set import FrameSet
    from rossam_kit.experiments.claims import Judgement
    from rossam_kit.experiments.experiments import RowResult, RowSpec, TableSpec
    from rossam_kit.experiments.statistics import Interval


def comparison_rows(
    table: str,
    results: Sequence[RowResult],
    *,
    left_out: Mapping[str, str] | None = None,
    reference: str | None = None,
) -> list[ComparisonRow]:
    """Each row as published and as measured under both protocols, and its paired difference to the reference row.

    Args:
        table: name in `experiments.yaml`.
        results: rows in order, scored on the same frames.
        left_out: label → reason of the table's other rows (`Experiments.left_out`); they keep their place.
        reference: label of the row that differences are to; None: the table's own.
    """
    spec = table_specs()[table]
    label = reference or spec.reference
    base = next((result for result in results if result.spec.label == label), None)
    rows = [_measured_row(spec, result, base) for result in results]
    for place, row in enumerate(spec.rows):
        if reason := (left_out or {}).get(row.label):
            absent = ComparisonRow(row.label, _printed(spec, row), reason=reason, method=row.kind, dataset=spec.dataset)
            rows.insert(place, absent)
    return rows


def _measured_row(spec: TableSpec, result: RowResult, base: RowResult | None) -> ComparisonRow:
    units, frames = result.units(), result.units("frame")
    return ComparisonRow(
        result.spec.label,
        _printed(spec, result.spec),
        iou=mean_interval(units),
        biou=mean_interval(units, "biou"),
        frame_iou=mean_interval(frames) if len(frames) else None,
        frame_biou=mean_interval(frames, "biou") if len(frames) else None,
        difference=None if base is None or result is base else paired_difference(units, base.units()),
        method=result.spec.kind,
        dataset=spec.dataset,
    )


def _printed(spec: TableSpec, row: RowSpec) -> Published | None:
    """What the paper prints for a row of a table; None where it has no such row."""
    return published(spec.published, row.published, spec.dataset) if row.published else None


def units_by_method(results: Sequence[RowResult], protocol: str = "object") -> pd.DataFrame:
    """All scored units of several rows, one below the other, with a `method` column for plots."""
    return pd.concat([r.units(protocol).assign(method=r.spec.kind) for r in results], ignore_index=True)


def scores_by(results: Sequence[RowResult], by: str, value: str = "iou") -> pd.DataFrame:
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


def gains(results: Sequence[RowResult]) -> list[ForestRow]:
    """What the inference pipeline and what fine-tuning adds to each method, paired, in points of IoU (Figure 5).

    The pipeline's gain is that of a row over the row of the same method and training on whole frames; the gain of
    fine-tuning that of a fine-tuned row with the pipeline over the same method not fine-tuned, where the table has
    it, else over SAM. Scores are one per frame, as in the published numbers. The pipeline's gains come first.
    """
    whole = {_same(r): r for r in results if _direct(r)}
    untrained = {r.spec.method: r for r in results if not r.spec.trains and not _direct(r)}
    scored = [result for result in results if not _direct(result) and result.spec.method is not None]
    pairs = [("inference pipeline", result, whole.get(_same(result))) for result in scored]
    pairs += [
        ("fine-tuning", result, untrained.get(result.spec.method, untrained.get("sam")))
        for result in scored
        if result.spec.trains
    ]
    return [
        ForestRow(
            f"{step}: {result.spec.label} over {base.spec.label}",
            paired_difference(result.units("frame"), base.units("frame")).scaled(100),
            _printed_gain(result, base),
            method=result.spec.kind,
        )
        for step, result, base in pairs
        if base is not None
    ]


def _direct(result: RowResult) -> bool:
    return result.spec.inference.get("mode") == "direct"


def _same(result: RowResult) -> tuple[str | None, tuple[str, ...], str]:
    return result.spec.method, result.spec.trains, str(result.spec.training)


def _printed_gain(result: RowResult, base: RowResult, table: str = "table5") -> float:
    names = [r.spec.published for r in (result, base)]
    if None in names:
        return np.nan
    ours, theirs = (published(table, name).iou for name in names)
    return ours - theirs


def measures_table(results: Sequence[RowResult]) -> pd.DataFrame:
    """All measures of the same predictions, percent: a row a setting; and how often BIoU says nothing new."""
    ratio = results[0].experiments.profile.evaluation.dilation_ratio
    measures = {
        "iou": "IoU",
        "biou": f"BIoU at {ratio:g}",
        "biou_official": "min(IoU, BIoU), official",
        "biou_fit": "BIoU, fitted band",
        "biou_fit_official": "min(IoU, fitted BIoU)",
    }
    rows = []
    for result in results:
        units, frames = result.units().dropna(subset=["iou"]), result.units("frame")
        row = {"setting": result.spec.label} | {title: 100 * units[name].mean() for name, title in measures.items()}
        row["objects whose BIoU is their IoU, percent"] = 100 * np.isclose(units["biou"], units["iou"]).mean()
        rows.append(row | {f"{measures[name]}, per frame": 100 * frames[name].mean() for name in ("iou", "biou")})
    return pd.DataFrame(rows)


def claim_table(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """The ledger: statement, what decides it, published and measured difference in points, verdict, published size.

    The verdict is by the interval of the deciding comparison's IoU. `p, adjusted` counts all judged claims at once
    (`statistics.adjusted`), and so does the last column, in which only what has a p below 0.05 stays decided.
    Claims the profile cannot judge, and statements that no scored row can judge, have the reason in the verdict's
    place.
    """
    decided = [j.difference.p if j.verdict in DECIDED else np.nan for j in judgements]
    rows = [_claim_row(judgement, p) for judgement, p in zip(judgements, adjusted(decided), strict=True)]
    rows += [
        {"claim": entry.says, "source": entry.source, "verdict": f"not testable: {entry.reason}"}
        for entry in ledger().not_testable
    ]
    return pd.DataFrame([dict.fromkeys(LEDGER_COLUMNS, "—") | row for row in rows])


DECIDED = ("reproduced", "not reproduced", "inconclusive")
"""Verdicts that count as tests; a row of one run is not tested."""


def _claim_row(judgement: Judgement, p: float) -> dict[str, str]:
    claim, difference = judgement.claim, judgement.difference
    row = {"claim": claim.says, "source": claim.source, "said of": claim.dataset}
    row["decided by"] = str(judgement.comparison)
    printed = published_difference(judgement)
    row["published, per frame"] = "not in numbers" if printed is None else f"{printed:+.2f}"
    if difference is None:
        return row | {"verdict": f"not judged: {judgement.reason}"}
    verdict = judgement.verdict
    if verdict not in DECIDED:
        verdict += f": {'above' if difference.mean > 0 else 'below'} 0"
    row |= {"measured, each object": _points(difference)}
    row |= {title: _points(judgement.beside[value]) for value, title in BESIDE_TITLES.items()}
    row |= {"n (videos)": f"{difference.n:,} ({difference.clusters})", "runs": str(difference.seeds or "—")}
    row |= {"verdict": verdict, "published size": _size(judgement, printed)}
    if np.isnan(p):
        return row
    return row | {"p, adjusted": f"{p:.3f}", "all claims at once": verdict if p < 0.05 else "inconclusive"}


BESIDE_TITLES = {"biou": "the same in BIoU", "biou_fit": "in BIoU, fitted band"}
LEDGER_COLUMNS = [
    *("claim", "source", "said of", "decided by", "published, per frame", "measured, each object"),
    *(*BESIDE_TITLES.values(), "n (videos)", "runs", "verdict", "published size", "p, adjusted", "all claims at once"),
]


def _points(interval: Interval) -> str:
    """Mean and ends in points, or the reason for their absence."""
    points = interval.scaled(100)
    if np.isnan(points.mean):
        return points.note
    return f"{points.mean:+.2f} ({points.note or f'{points.low:+.2f} to {points.high:+.2f}'})"


def _size(judgement: Judgement, printed: float | None) -> str:
    """Whether the published difference lies in the interval; asked only of the paper's own dataset and protocol."""
    if judgement.per_frame is None or printed is None:
        return "not asked: not the paper's dataset" if printed is not None else "—"
    inside = judgement.per_frame.low <= printed / 100 <= judgement.per_frame.high
    return f"{'inside' if inside else 'outside'} {_points(judgement.per_frame)}"


def claim_rows(judgements: Sequence[Judgement]) -> list[ForestRow]:
    """The judged claims' deciding differences, for `plots.forest`."""
    return [
        ForestRow(j.claim.says, j.difference.scaled(100), verdict=j.verdict, reason=j.difference.note)
        for j in judgements
        if j.difference is not None
    ]


def published_difference(judgement: Judgement) -> float | None:
    """The paper's difference in points for the deciding comparison; None where it does not print both rows."""
    comparison = judgement.comparison
    if comparison.than is None or comparison.where or comparison.minus:
        return None
    differences = []
    for spec in (table_specs()[table] for table in comparison.tables):
        printed = [_printed(spec, spec.row(label)) for label in (comparison.better, comparison.than)]
        if None in printed:
            return None
        differences.append(printed[0].iou - printed[1].iou)
    return differences[0] - sum(differences[1:])


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
            "the data", "has no object with a mask", "notebooks 00, 01 and 11 need none; start with these"
        )
    return busiest
