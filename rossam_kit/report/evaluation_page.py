"""The page of `rossam evaluate`: scores by class and size, and the worst, median and best masks."""

from __future__ import annotations

from typing import Any

import jinja2
import numpy as np
import pandas as pd

from rossam_kit.convert.outlines import outline_path
from rossam_kit.convert.review import data_address, thumbnail
from rossam_kit.experiments.scoring import size_bin_labels
from rossam_kit.experiments.statistics import mean_interval
from rossam_kit.report.objects import ObjectView, view_objects
from rossam_kit.report.plots import SCORE_NAMES, score_by_group
from rossam_kit.report.rendering import Table

SHOWN = 12
"""Objects a gallery."""


def summarise(objects: pd.DataFrame, size_bins: tuple[float, ...]) -> pd.DataFrame:
    """Mean and 95% interval (over images or videos) of each measure: of all objects, by size in px², by class.

    Args:
        objects: the table of `scoring.score`, protocol `object`.

    Returns:
        One row a group: `group`, `objects`, `images`, `videos` (an image of no video counts as one) and for each of
        `SCORE_NAMES` the mean in 0..1, `_low` and `_high`, cut to 0..1 (NaN where all objects are of one video).
    """
    scored = objects.dropna(subset=["iou"])
    groups = [("all", scored)]
    groups += [(f"{name} px²", scored[scored["size_bin"] == name]) for name in size_bin_labels(size_bins)]
    groups += [(str(name), scored[scored["category"] == name]) for name in scored["category"].value_counts().index]
    rows = []
    for name, part in groups:
        if len(part):
            images, videos = len(part[["video", "frame"]].drop_duplicates()), part["video"].nunique()
            row = {"group": name, "objects": len(part), "images": images, "videos": videos}
            for measure in SCORE_NAMES:
                interval = mean_interval(part, measure)
                low, high = np.clip((interval.low, interval.high), 0, 1)  # with few videos it may reach beyond 0 or 1
                row |= {measure: interval.mean, f"{measure}_low": low, f"{measure}_high": high}
            rows.append(row)
    return pd.DataFrame(rows)


def galleries(objects: pd.DataFrame, frames, method: str) -> dict[str, list[ObjectView]]:
    """Worst, median and best objects, each once, cut out with their masks."""
    ranked = objects.dropna(subset=["iou"]).sort_values("iou", kind="stable").reset_index(drop=True)
    count = min(SHOWN, -(-len(ranked) // 3))
    others, best = ranked[count:-count], ranked[count:][-count:][::-1]
    first = (len(others) - min(count, len(others))) // 2
    parts = {"Worst": ranked[:count], "Median": others[first : first + count], "Best": best}
    return {name: view_objects(rows, frames, {method: objects}) for name, rows in parts.items()}


def page(name: str, what: str, summary: pd.DataFrame, objects: pd.DataFrame, views) -> str:
    loader = jinja2.PackageLoader("rossam_kit.report", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    shown = pd.DataFrame({"Objects of": summary["group"]})
    counted = ["objects", "images"] if summary["images"].equals(summary["videos"]) else ["objects", "images", "videos"]
    shown = shown.assign(**{key.title(): summary[key] for key in counted})
    for measure, title in SCORE_NAMES.items():
        shown[title] = 100 * summary[measure]
        ends = zip(100 * summary[f"{measure}_low"], 100 * summary[f"{measure}_high"], strict=True)
        shown[f"95% interval of {title}"] = [
            None if np.isnan(low) else f"{low:.1f} to {high:.1f}" for low, high in ends
        ]
    table = Table.from_frame(shown, decimals=1, missing="one video only").to_html()
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
