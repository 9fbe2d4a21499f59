"""Means with 95% intervals over videos and training runs, their differences, and the verdict on a claim.

Input are tables of scored units (`scoring`); an `Interval` is in the units of the scores.

Objects of one video resemble each other, and so do all objects that one fine-tuning run answers. So the variance of a
mean over objects has two parts, one between videos and one between runs (seeds).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import scipy

from rossam_core.errors import RossamError

CLUSTER = "video"
UNIT = (CLUSTER, "frame", "object_id")
SEED = "seed"
LEVEL = 0.95
RUNS_NEEDED = 3
"""Fine-tuning runs (seeds) of a trained row that a verdict needs."""
Verdict = Literal["reproduced", "not reproduced", "inconclusive", "one run", "two runs"]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% confidence interval.

    Attributes:
        mean: over units; NaN where there is none.
        variances: independent parts of the mean's variance, each with its degrees of freedom; empty where they cannot
            be had, see `note`.
        n: units behind the mean.
        clusters: videos they come from.
        seeds: runs of the trained row (of two trained rows the smaller number); 0 where nothing was trained.
        note: why there is no interval; empty otherwise.
    """

    mean: float
    variances: tuple[tuple[float, int], ...]
    n: int
    clusters: int
    seeds: int = 0
    note: str = ""

    @property
    def se(self) -> float:
        """Standard error of the mean; NaN where there is no interval."""
        return float(np.sqrt(sum(variance for variance, _ in self.variances))) if self.variances else np.nan

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self._half_width(1 - LEVEL)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self._half_width(1 - LEVEL)

    @property
    def p(self) -> float:
        """Two-sided p-value of the hypothesis that the true mean is 0: 1 − level of the interval that ends there."""
        distance, smallest = abs(self.mean), 1e-12
        if np.isnan(self.se) or distance == 0:
            return np.nan if np.isnan(self.se) else 1.0
        if self._half_width(smallest) <= distance:
            return smallest
        return float(scipy.optimize.brentq(lambda p: self._half_width(p) - distance, smallest, 1))

    @property
    def p_above(self) -> float:
        """One-sided p-value against "the true mean is above 0": near 0 where it is, near 1 where it is below."""
        return self.p / 2 if self.mean > 0 else 1 - self.p / 2

    def scaled(self, factor: float) -> Interval:
        """The same interval in other units, e.g. `scaled(100)` for points."""
        variances = tuple((variance * factor**2, df) for variance, df in self.variances)
        return replace(self, mean=self.mean * factor, variances=variances)

    def _half_width(self, p: float) -> float:
        if not self.se > 0:
            return self.se
        quantiles = [variance * scipy.stats.t.isf(p / 2, df) for variance, df in self.variances]
        return float(sum(quantiles)) / self.se


def mean_interval(
    table: pd.DataFrame,
    value: str = "iou",
    *,
    where: str | None = None,
    minus: str | None = None,
) -> Interval:
    """Mean of `value` over units, with a 95% interval over clusters (videos) and runs (seeds).

    With s_c the sum and n_c the number of units of cluster c (averaged over the S runs), C clusters, and m_s the
    mean of run s over all units:

        estimate   θ = Σ s_c / Σ n_c
        clusters   V₁ = (C − 1)/C · Σ (θ₋c − mean θ₋c)²,   θ₋c = θ without cluster c (jackknife),   C − 1 degrees
        runs       V₂ = Σ (m_s − θ)² / (S (S − 1)), 0 where nothing was trained,                     S − 1 degrees
        interval   θ ± t √(V₁ + V₂),   t = (V₁ t(C − 1) + V₂ t(S − 1)) / (V₁ + V₂)   (Cochran and Cox)

    With one run V₂ is not known: the interval is about that run's network, and `verdict` gives none.

    This is the simplest of three methods that covers 93 to 97% from 24 videos on. Percent of intervals that hold the
    truth on simulated skewed scores with 1 to 29 objects per video (`benchmarks/interval_coverage.py` and `results/`
    beside it; "runs": three, with 0.5 to 3 times the standard error between videos):

    | | untrained: 4 | 8 | 24 | 48 videos | with runs: 4 | 8 | 24 | 48 |
    |---|---|---|---|---|---|---|---|---|
    | this interval | 89–94 | 91–94 | 94–96 | 94–96 | 95–98 | 93–97 | 95–96 | 95–96 |
    | bootstrap of videos and runs, expanded BCa | 86 | 91–96 | 95–96 | 95–96 | 89–90 | 86–92 | 86–92 | 84–95 |
    | `scipy.stats.bootstrap`, BCa, over videos | 77–81 | 85–92 | 93–94 | 94–96 | 57–76 | 63–85 | 67–90 | 69–93 |

    Three runs are too few to be resampled. Below 24 videos the interval is a little too narrow for skewed scores.

    Args:
        table: one row per unit and run; the column `seed` names the run, a table without it is of an untrained method.
        where: pandas query over the columns of `table`: only these units; None = all.
        minus: a second query: from the mean over `where` that over these units is subtracted. Both come from the same
            videos and runs, which the jackknife over videos and the differences between runs take into account.

    Returns:
        The interval; without ends and with a note where there are fewer than two clusters.

    Raises:
        RossamError: a column is missing, several protocols are mixed, or a unit occurs twice.
    """
    wide = _wide(table, value)
    return _estimate([wide], _runs(table), _sides(table, wide.index, where, minus))


def paired_difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    value: str = "iou",
    *,
    where: str | None = None,
    minus: str | None = None,
) -> Interval:
    """Mean of `value` in `a` minus `value` in `b`, unit by unit, with the interval of `mean_interval`.

    If only one table has runs, its runs are compared with the other's fixed scores. If both have the same seeds, the
    difference is taken run by run: runs of the same seed see the same training views in the same order, so their
    scores are correlated, and treating them as independent would claim a wrong variance, too large or too small
    according to the correlation's sign. Where they are not correlated, pairing remains valid and only widens the
    interval (S − 1 degrees of freedom rather than 2(S − 1)). With different seeds the runs are independent: both
    tables' variances between runs are added, which is conservative (three runs each: 98 to 99%); all rows of a profile
    have the same seeds.

    Args:
        where, minus: as in `mean_interval`, over the columns of `a`; e.g. the gain on crowded objects minus the gain on
            the others.

    Raises:
        RossamError: units differ between the tables, or as in `mean_interval`.
    """
    left, right = _wide(a, value), _wide(b, value)
    _refuse_unmatched(left, right)
    right = right.loc[left.index]
    runs = [runs for runs in (_runs(a), _runs(b)) if runs]
    if len(runs) < 2:  # the column of an untrained table is compared with every run of the other
        columns = left.columns if _runs(a) else right.columns
        left, right = (t if len(t.columns) == len(columns) else t.iloc[:, [0] * len(columns)] for t in (left, right))
        parts = [left.set_axis(columns, axis=1) - right.set_axis(columns, axis=1)]
    else:
        parts = [left - right] if list(left.columns) == list(right.columns) else [left, -right]
    return _estimate(parts, min(runs, default=0), _sides(a, left.index, where, minus))


def independent_difference(a: Interval, b: Interval) -> Interval:
    """`a` minus `b`, where they come from different datasets and different runs: their variances are added."""
    seeds = [interval.seeds for interval in (a, b) if interval.seeds]
    variances = a.variances + b.variances if a.variances and b.variances else ()
    return Interval(
        a.mean - b.mean, variances, a.n + b.n, a.clusters + b.clusters, min(seeds, default=0), a.note or b.note
    )  # fmt: skip


def weakest(differences: Sequence[Interval]) -> Interval:
    """The difference with the least evidence of being above 0; all are above 0 if this one is (intersection-union).

    Its p-value holds for the statement "all of them are above 0" without a correction (Berger, Technometrics 1982).
    """
    return max(differences, key=lambda each: (np.isnan(each.p_above), each.p_above))


def verdict(difference: Interval) -> Verdict:
    """What a measured difference says of the claim that it is above 0.

    `reproduced`: the whole interval lies above 0. `not reproduced`: the whole interval lies below 0. `inconclusive`:
    the interval holds 0, or there is none. `one run`, `two runs`: a trained row has fewer than three runs, so how much
    the result depends on the seed is not known well enough to judge.
    """
    if 0 < difference.seeds < RUNS_NEEDED:
        return "one run" if difference.seeds == 1 else "two runs"
    return "reproduced" if difference.low > 0 else "not reproduced" if difference.high < 0 else "inconclusive"


def adjusted(p_values: Sequence[float]) -> np.ndarray:
    """p-values adjusted for all being judged at once (Benjamini and Hochberg, JRSS B 1995); NaN stays NaN.

    Of the hypotheses whose adjusted p-value is below q, a share of at most q is expected to be rejected by chance, if
    the tests are independent or depend on one another positively, as those that share a row mostly do.
    """
    values = np.array(p_values, dtype=float)
    present = ~np.isnan(values)
    if present.any():
        values[present] = scipy.stats.false_discovery_control(values[present])
    return values


def _estimate(parts: Sequence[pd.DataFrame], seeds: int, sides: Mapping[int, np.ndarray]) -> Interval:
    """The interval of `mean_interval` for a sum of independent parts, each units × runs, on the same units.

    Args:
        sides: sign → bool per unit: those whose mean is added (1) or subtracted (−1).
    """
    kept = np.any(list(sides.values()), axis=0) & pd.concat(parts, axis=1).notna().all(axis=1).to_numpy()
    weights = {sign: chosen[kept] for sign, chosen in sides.items()}
    codes, names = pd.factorize(parts[0].index[kept].get_level_values(CLUSTER))
    counts = {"n": len(codes), "clusters": len(names), "seeds": seeds}
    if not all(chosen.any() for chosen in weights.values()):
        return Interval(np.nan, (), **counts, note="no scored unit")
    means = [part[kept].to_numpy() for part in parts]
    mean, without = _contrast(sum(part.mean(axis=1) for part in means), codes, weights)
    if not np.isfinite(without).all():
        return Interval(mean, (), **counts, note=f"one {CLUSTER} only")
    between = (len(names) - 1) / len(names) * np.sum((without - without.mean()) ** 2)
    variances = [(float(between), len(names) - 1)]
    for part in means:
        runs = part.shape[1]
        if runs > 1:
            of_runs = [_contrast(scores, codes, weights)[0] for scores in part.T]
            variances.append((float(np.var(of_runs, ddof=1)) / runs, runs - 1))
    return Interval(mean, tuple(variances), **counts)


def _contrast(scores: np.ndarray, codes: np.ndarray, weights: Mapping[int, np.ndarray]) -> tuple[float, np.ndarray]:
    """Signed sum of the sides' means, and the same without each cluster; not finite where a side has no other."""
    whole, without = 0.0, 0.0
    for sign, chosen in weights.items():
        sums = np.bincount(codes[chosen], scores[chosen], codes.max() + 1)
        counts = np.bincount(codes[chosen], minlength=codes.max() + 1)
        whole += sign * sums.sum() / counts.sum()
        others = np.where(counts < counts.sum(), counts.sum() - counts, np.nan)
        without = without + sign * (sums.sum() - sums) / others
    return float(whole), without


def _runs(table: pd.DataFrame) -> int:
    return table[SEED].nunique() if SEED in table.columns else 0


def _wide(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Scores of a table, units × runs; the index names the unit, its video among the levels."""
    missing = [column for column in (value, CLUSTER) if column not in table.columns]
    if missing:
        finding = f"columns {missing} are missing; there are {list(table.columns)}"
        raise RossamError("table of scores", finding, "pass a table made by scoring.score, or name its columns")
    if "protocol" in table.columns and table["protocol"].nunique() > 1:
        finding = f"mixes protocols {sorted(table['protocol'].unique())}"
        raise RossamError("table of scores", finding, "select one: table[table.protocol == 'object']")
    names = [column for column in UNIT if column in table.columns]
    if len(names) < len(UNIT):
        if _runs(table):
            finding = f"has runs (column 'seed') but lacks {sorted(set(UNIT) - set(names))}, which name a unit"
            raise RossamError("table of scores", finding, "keep the columns that name a unit")
        return table.reset_index(drop=True).set_index(CLUSTER, append=True)[[value]]
    run = [SEED] if _runs(table) else []
    twice = table.duplicated([*names, *run])
    if twice.any():
        finding = f"{int(twice.sum())} units occur more than once, e.g. {table.loc[twice, names].iloc[0].to_dict()}"
        raise RossamError("table of scores", finding, "pass the rows of one method; name runs in a column 'seed'")
    wide = table.sort_values(names).set_index([*names, *run])[[value]]
    return wide[value].unstack(SEED) if run else wide


def _refuse_unmatched(left: pd.DataFrame, right: pd.DataFrame) -> None:
    only_left, only_right = left.index.difference(right.index), right.index.difference(left.index)
    if len(only_left) or len(only_right):
        raise RossamError(
            "paired_difference",
            f"{len(only_left)} units are in the first table only, {len(only_right)} in the second only, "
            f"e.g. {[*only_left, *only_right][0]}",
            "score both methods on the same frames",
        )


def _sides(table: pd.DataFrame, units: pd.MultiIndex, where: str | None, minus: str | None) -> dict[int, np.ndarray]:
    """Sign → which of `units` the query `where` (+1) and, if there is one, the query `minus` (−1) select."""
    queries = {1: where} | ({-1: minus} if minus else {})
    everything = np.full(len(units), True)
    return {
        sign: units.isin(pd.MultiIndex.from_frame(table.query(query)[units.names])) if query else everything
        for sign, query in queries.items()
    }
