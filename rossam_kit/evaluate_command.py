"""`rossam evaluate`: score a run or a method on annotated masks: CSV tables, and a page with worst, median and best."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import jinja2
import numpy as np
import pandas as pd
import typer

from rossam_core.errors import RossamError
from rossam_core.files import atomic_path, remove_partial, write_text
from rossam_kit import config
from rossam_kit import options as opt
from rossam_kit.convert.command import frames_of, method_of, predictor_of, profile_of, refuse_without_effect
from rossam_kit.convert.outlines import outline_path
from rossam_kit.convert.review import data_address, thumbnail
from rossam_kit.csv_text import guarded_table
from rossam_kit.datasets.frame_set import Drop, print_drops
from rossam_kit.progress import duration, track
from rossam_kit.report.objects import ObjectView, view_objects
from rossam_kit.report.rendering import Table
from rossam_kit.report.style import label

EXAMPLES = opt.example(
    "rossam evaluate --annotations val.json --data IMAGES --checkpoint RUN --out SCORES",
    "rossam evaluate --annotations val.json --data IMAGES --method grabcut --out SCORES",
)
OBJECTS, SUMMARY, PAGE = "objects.csv", "summary.csv", "index.html"
SHOWN = 12
"""Objects a gallery."""
MEASURES = {"iou": "IoU", "biou": "Boundary IoU", "biou_fit": "Boundary IoU, fitted band"}


def evaluate_command(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder to write to")],
    annotations: opt.Annotations = None,
    data: opt.Data = None,
    source: opt.Source = None,
    split: Annotated[config.Split | None, typer.Option(help="of --source; default: the one it is scored on")] = None,
    checkpoint: opt.Checkpoint = None,
    method: Annotated[
        opt.AnyMethod | None, typer.Option(help="default: that of --checkpoint, of a weights file hq-sam")
    ] = None,
    limit: opt.Limit = None,
    device: opt.Device = None,
    box_convention: opt.Convention = None,
    keep_crowd: opt.KeepCrowd = False,
    skip_bad: opt.SkipBad = False,
    bands: opt.Bands = None,
    stretch: opt.Stretch = None,
    set: opt.Settings,
) -> int:
    """Score a run or a method on annotated masks. By class and size, with intervals, tables and pictures."""
    return run(opt.Options(**locals(), profile=str(config.OWN_DATA)), opt.read_settings(set))


def run(options: opt.Options, overrides: dict[str, Any]) -> int:
    """Score every object that has a mask, write tables and page, and print the summary."""
    from rossam_kit.convert.exports import write_drops
    from rossam_kit.experiments.scoring import MASK, predict_frames, score

    if not (options.annotations or options.source):
        raise RossamError("rossam evaluate", "no data is named", "give --annotations FILE, or --source READER")
    if not (options.checkpoint or options.method):
        raise RossamError("rossam evaluate", "nothing to score is named", "give --checkpoint RUN, or --method NAME")
    started, requested = time.time(), dict(overrides)
    options.method = options.method or method_of(options.checkpoint)
    profile = profile_of(options, overrides)
    refuse_without_effect(options, profile, requested, also_read=("evaluation",))
    frames, settings = frames_of(options, profile), profile.evaluation
    masks = sum(o.has_mask for frame in frames for o in frame.objects)
    if not masks:
        finding = f"none of {frames.object_count:,} objects in {len(frames):,} images has a mask to score against"
        raise RossamError(frames.name, finding, "name annotations with masks; rossam convert makes masks of boxes")
    predictor = predictor_of(options.method, profile, options.checkpoint is not None)
    predictions = track(predict_frames(predictor, frames), total=len(frames), desc=f"scoring {options.method}")
    scale = {"dilation_ratio": settings.dilation_ratio, "size_bins": settings.size_bins}
    objects = score(predictions, ("object",), **scale)
    summary = summarise(objects, settings.size_bins)
    views = _galleries(objects, frames, options.method)
    remove_partial(options.out)
    for name, table in ((OBJECTS, objects.drop(columns=MASK)), (SUMMARY, summary)):
        with atomic_path(options.out / name) as temporary:
            guarded_table(table).to_csv(temporary, index=False)
    what = f"{label(options.method)}{f', {options.checkpoint}' if options.checkpoint else ''}"
    write_text(options.out / PAGE, _page(frames.name, what, summary, objects, views))
    print(
        summary.drop(columns=[c for c in summary if c.startswith("biou_fit")]).to_string(
            index=False, float_format="{:.3f}".format
        )
    )
    bare = [(frame, item) for frame in frames for item in frame.objects if not item.has_mask]
    drops = [*frames.drops, *(Drop(f"{frame.key} object {item.object_id}", "has no mask", 1) for frame, item in bare)]
    write_drops(options.out, drops)
    if drops:
        print(f"\nnot scored (all of it in {options.out / 'drops.csv'}):")
        print_drops(drops)
    print(f"\n{masks:,} objects in {duration(time.time() - started)}; tables and pictures:\n  {options.out / PAGE}")
    return 0


def summarise(objects: pd.DataFrame, size_bins: tuple[float, ...]) -> pd.DataFrame:
    """Mean and 95% interval (over images or videos) of each measure: of all objects, by size in px², by class.

    Args:
        objects: the table of `scoring.score`, protocol `object`.

    Returns:
        One row a group: `group`, `objects`, `images` and for each of `MEASURES` the mean in 0..1, `_low` and `_high`
        (NaN where all objects are of one image).
    """
    from rossam_kit.experiments.scoring import size_bin_labels
    from rossam_kit.experiments.statistics import mean_interval

    scored = objects.dropna(subset=["iou"])
    groups = [("all", scored)]
    groups += [(f"{name} px²", scored[scored["size_bin"] == name]) for name in size_bin_labels(size_bins)]
    groups += [(str(name), scored[scored["category"] == name]) for name in scored["category"].value_counts().index]
    rows = []
    for name, part in groups:
        if len(part):
            row = {"group": name, "objects": len(part), "images": part["video"].nunique()}
            for measure in MEASURES:
                interval = mean_interval(part, measure)
                row |= {measure: interval.mean, f"{measure}_low": interval.low, f"{measure}_high": interval.high}
            rows.append(row)
    return pd.DataFrame(rows)


def _galleries(objects: pd.DataFrame, frames, method: str) -> dict[str, list[ObjectView]]:
    """Worst, median and best objects, each once, cut out with their masks."""
    ranked = objects.dropna(subset=["iou"]).sort_values("iou", kind="stable").reset_index(drop=True)
    count = min(SHOWN, -(-len(ranked) // 3))
    others, best = ranked[count:-count], ranked[count:][-count:][::-1]
    first = (len(others) - min(count, len(others))) // 2
    parts = {"Worst": ranked[:count], "Median": others[first : first + count], "Best": best}
    return {name: view_objects(rows, frames, {method: objects}) for name, rows in parts.items()}


def _page(name: str, what: str, summary: pd.DataFrame, objects: pd.DataFrame, views) -> str:
    from rossam_kit.report.plots import score_by_group

    loader = jinja2.PackageLoader("rossam_kit.report", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    shown = pd.DataFrame({"Objects of": summary["group"], "Objects": summary["objects"], "Images": summary["images"]})
    for measure, title in MEASURES.items():
        shown[title] = 100 * summary[measure]
        ends = zip(100 * summary[f"{measure}_low"], 100 * summary[f"{measure}_high"], strict=True)
        shown[f"95% interval of {title}"] = [
            None if np.isnan(low) else f"{low:.1f} to {high:.1f}" for low, high in ends
        ]
    table = Table.from_frame(shown, decimals=1, missing="one image only").to_html()
    chart = score_by_group(objects.assign(method=what.partition(",")[0]))._repr_png_()
    galleries = {title: [_card(view) for view in of_title] for title, of_title in views.items()}
    return environment.get_template("evaluation.html").render(
        name=name, what=what, table=table, chart=data_address(chart, "png"), galleries=galleries
    )


def _card(view: ObjectView) -> dict[str, Any]:
    """What the page shows of one object; outlines in pixels of the crop."""
    (method,) = view.masks
    outlines = {"target": outline_path(view.target), "mask": outline_path(view.masks[method])}
    facts = {"key": view.key, "category": view.category, "area": view.area}
    scores = {"iou": view.iou[method], "biou": view.biou[method]}
    picture = {"size": view.image.shape[1::-1], "box": view.box_xyxy, "image": thumbnail(view.image)}
    return facts | scores | outlines | picture
