"""Sentences about measured rows for the conclusions of notebooks, true in every profile and for any number of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from IPython.display import Markdown

from rossam_kit.experiments.statistics import RUNS_NEEDED, Interval, paired_difference

if TYPE_CHECKING:
    from rossam_kit.experiments.experiments import RowResult

SCOPES = ("In one run, ", "In two runs, ")
"""How the sentence on a trained row with fewer runs than a verdict needs begins: one run, two runs."""


def compare(results: Sequence[RowResult], row: str, than: str) -> str:
    """One sentence: the paired difference in IoU of each object between two rows, named by their labels."""
    units = {result.spec.label: result.units() for result in results}
    if absent := [label for label in (row, than) if label not in units]:
        return f"**{row}** against **{than}**: {' and '.join(absent)} cannot be measured in this profile."
    return difference_sentence(row, than, paired_difference(units[row], units[than]))


def difference_sentence(row: str, than: str, difference: Interval) -> str:
    """The same for a difference in 0..1 that is already computed.

    The direction is stated only where the interval excludes 0; fewer than three runs of a trained row are named,
    since the interval then holds the variation between videos alone or is too uncertain about that between runs.
    """
    points = difference.scaled(100)
    if np.isnan(points.mean):
        return f"**{row}** against **{than}**: {points.note}."
    runs = {0: "", 1: ", one run"}.get(points.seeds, f", {points.seeds} runs")
    size = f"{points.mean:+.1f} points of IoU"
    if np.isnan(points.low):
        return f"**{row}** minus **{than}**: {size}, without an interval ({points.note}{runs})."
    direction = (
        "is higher than" if points.low > 0 else "is lower than" if points.high < 0 else "is not distinguishable from"
    )
    scope = SCOPES[points.seeds - 1] if 0 < points.seeds < RUNS_NEEDED else ""
    interval = f"95% interval {points.low:+.1f} to {points.high:+.1f}"
    counts = f"{points.n:,} objects, {points.clusters} video{'s' * (points.clusters > 1)} or images{runs}"
    return f"{scope}**{row}** {direction} **{than}**: {size} ({interval}, {counts})."


def conclusion(*sentences: str) -> Markdown:
    """The sentences as a list, for the last expression of a cell; with the caution that fewer than three runs need."""
    lines = [f"- {sentence}" for sentence in sentences]
    if any(scope in sentence for scope in SCOPES for sentence in sentences):
        lines.append("- Another run of a fine-tuned row may give another number: a verdict needs three runs.")
    return Markdown("\n".join(lines))
