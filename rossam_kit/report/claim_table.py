"""The ledger as a table and as lines of a forest plot: the paper's claims, and what the profile's data says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rossam_kit.experiments.claims import ledger
from rossam_kit.experiments.experiments import table_specs
from rossam_kit.experiments.statistics import adjusted
from rossam_kit.report.tables import ForestRow, printed_difference

if TYPE_CHECKING:
    from rossam_kit.experiments.claims import Judgement
    from rossam_kit.experiments.statistics import Interval

DECIDED = ("reproduced", "not reproduced", "inconclusive")
"""Verdicts that count as tests; a row of one run is not tested."""
BESIDE_TITLES = {"biou": "the same in BIoU", "biou_fit": "in BIoU, fitted band"}
COLUMNS = [
    *("claim", "verdict", "measured, each object", "published, per frame", "measured, per frame"),
    *("all claims at once", "p, adjusted", "decided by", "n (videos)", "runs", "source", "said of", "published size"),
    *BESIDE_TITLES.values(),
]


def claim_table(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """The ledger: statement, what decides it, published and measured difference in points, verdict, published size.

    The verdict is by the interval of the deciding comparison's IoU. `p, adjusted` counts all deciding comparisons at
    once, each one time (`statistics.adjusted`), and so does the last column, in which only what has a p below 0.05
    stays decided.
    Claims the profile cannot judge, and statements that no scored row can judge, have the reason in the verdict's
    place.
    """
    decided = {judgement.comparison: judgement.difference.p for judgement in judgements if judgement.verdict in DECIDED}
    p_of = dict(zip(decided, adjusted(list(decided.values())), strict=True))
    rows = [_claim_row(judgement, p_of.get(judgement.comparison, np.nan)) for judgement in judgements]
    rows += [
        {"claim": entry.says, "source": entry.source, "verdict": f"not testable: {entry.reason}"}
        for entry in ledger().not_testable
    ]
    return pd.DataFrame([dict.fromkeys(COLUMNS, "—") | row for row in rows])


def claim_rows(judgements: Sequence[Judgement]) -> list[ForestRow]:
    """The judged claims' deciding differences, for `plots.forest`."""
    return [
        ForestRow(j.claim.says, j.difference.scaled(100), verdict=j.verdict, reason=j.difference.note)
        for j in judgements
        if j.difference is not None
    ]


def _claim_row(judgement: Judgement, p: float) -> dict[str, str]:
    claim, difference, verdict = judgement.claim, judgement.difference, judgement.verdict
    published = _published_difference(judgement)
    per_frame = judgement.per_frame
    row = {
        "claim": claim.says,
        "source": claim.source,
        "said of": claim.dataset,
        "decided by": str(judgement.comparison),
        "published, per frame": "not in numbers" if np.isnan(published) else f"{published:+.2f}",
    }
    if difference is None:
        return row | {"verdict": f"not judged: {judgement.reason}"}
    if verdict not in DECIDED:
        verdict += f": {'above' if difference.mean > 0 else 'below'} 0"
    row |= {"measured, per frame": "—" if per_frame is None else _points(per_frame)}
    row |= {"measured, each object": _points(difference)}
    row |= {title: _points(judgement.beside[value]) for value, title in BESIDE_TITLES.items()}
    row |= {"n (videos)": f"{difference.n:,} ({difference.clusters})", "runs": str(difference.seeds or "—")}
    row |= {"verdict": verdict, "published size": _size(judgement, published)}
    if np.isnan(p):
        return row
    return row | {"p, adjusted": f"{p:.3f}", "all claims at once": verdict if p < 0.05 else "inconclusive"}


def _points(interval: Interval) -> str:
    """Mean and ends in points, or the reason for their absence."""
    points = interval.scaled(100)
    if np.isnan(points.mean):
        return points.note
    return f"{points.mean:+.2f} ({points.note or f'{points.low:+.2f} to {points.high:+.2f}'})"


def _size(judgement: Judgement, published: float) -> str:
    """Whether the published difference lies in the interval; compared only on the paper's own dataset."""
    if np.isnan(published):
        return "—"
    if not judgement.is_real or judgement.per_frame is None:
        return "not compared: not the paper's dataset"
    inside = judgement.per_frame.low <= published / 100 <= judgement.per_frame.high
    return f"{'inside' if inside else 'outside'} the interval per frame"


def _published_difference(judgement: Judgement) -> float:
    """The paper's difference in points for the deciding comparison; NaN where it does not print both rows."""
    comparison, specs = judgement.comparison, table_specs()
    if comparison.than is None or comparison.where or comparison.minus:
        return np.nan
    pair = comparison.better, comparison.than
    first, *others = (printed_difference(specs[t], *map(specs[t].row, pair)) for t in comparison.tables)
    return first - sum(others)
