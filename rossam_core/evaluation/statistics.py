"""How sure a mean is: intervals by bootstrap over videos, paired differences, and the verdict on a claim.

In: tables of scored units (`scoring`). Out: `Interval`s in the units of the scores.

Objects of one video resemble each other, so the video is what is drawn again, with all its objects
(cluster bootstrap). The mean is over objects, not over videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import RossamError

UNIT = ("video", "frame", "object_id")
SEED = "seed"
Verdict = Literal["reproduced", "not reproduced", "inconclusive"]


@dataclass(frozen=True)
class Interval:
    """A mean and where it may lie.

    Attributes:
        mean: over units; NaN where there is none.
        low, high: ends of the confidence interval; NaN where it cannot be had, see `note`.
        n: units behind the mean.
        clusters: videos they come from.
        excluded: units left out because they have no score (NaN).
        note: why there is no interval; empty otherwise.
        p: two-sided p-value of the hypothesis that the true mean is the `against` of `bootstrap_mean`; NaN where there
            is no interval.
    """

    mean: float
    low: float
    high: float
    n: int
    clusters: int
    excluded: int = 0
    note: str = ""
    p: float = np.nan

    def scaled(self, factor: float) -> Interval:
        """The same interval in other units, e.g. `scaled(100)` for points."""
        return replace(self, mean=self.mean * factor, low=self.low * factor, high=self.high * factor)


def bootstrap_mean(
    table: pd.DataFrame,
    value: str = "iou",
    cluster: str = "video",
    samples: int = 2000,
    seed: int = 0,
    *,
    level: float = 0.95,
    against: float = 0.0,
) -> Interval:
    """Mean of `value` over units, with an interval by bootstrap over clusters.

    With s_c the sum and n_c the number of cluster c's units, the estimate is Σ s_c / Σ n_c; a resample draws
    as many clusters as there are, with replacement, and estimates again. The interval runs between two quantiles
    of the resamples, and so never leaves the range of the data. Plain quantiles are too narrow for few clusters C
    and blind to skew; those used here are corrected for both: the expanded tail α' = Φ(t_{C−1, α/2} · √(C / (C−1)))
    (Hesterberg, "What teachers should know about the bootstrap", The American Statistician 2015) takes the place of
    α/2 in the bias-corrected and accelerated interval (Efron, "Better bootstrap confidence intervals", JASA 1987).

    How often the 95% interval held the truth in simulations (skewed scores, 1 to 29 units a cluster; 1,500 draws;
    number of units independent of the score, and tied to it):

    | clusters | 4 | 8 | 12 | 24 | 48 |
    |---|---|---|---|---|---|
    | this interval | 85–86% | 93–95% | 94–96% | 94–96% | 94–95% |
    | expanded quantiles alone | 86% | 92–94% | 93–95% | 93–95% | 94–95% |
    | accelerated alone | 77–81% | 87–91% | 90–94% | 92–94% | 93–94% |

    Below 8 clusters no interval made of quantiles suffices: four videos are too few to say more than the mean. The
    studentised bootstrap covers 94–97% throughout, but has no bounds where most clusters do not differ, as in a
    comparison of two methods that are nearly the same, and is several times as wide with four clusters.

    Args:
        table: one row a unit. Where the column `seed` exists, a unit's scores are averaged over seeds first,
            so the interval is about videos, not about seeds.
        cluster: column of the cluster label.
        samples: number of resamples.
        seed: of the resampling; rows in another order give the same interval.
        level: confidence, e.g. 0.95.
        against: the mean that `Interval.p` tests; p < 1 − level where the interval does not hold it, but for the
            rounding of quantiles.

    Returns:
        The interval; without ends and with a note where there are fewer than two clusters.

    Raises:
        RossamError: a column is missing, several protocols are mixed, or a unit stands there twice.
    """
    units = _units(table, [value], cluster)
    scored = units.dropna(subset=[value])
    sums = scored.groupby(cluster, observed=True, sort=True)[value].agg(["sum", "count"])
    n, clusters, excluded = int(sums["count"].sum()), len(sums), len(units) - len(scored)
    if clusters == 0:
        return Interval(np.nan, np.nan, np.nan, 0, 0, excluded, "no scored unit")
    mean = float(sums["sum"].sum() / n)
    if clusters == 1:
        return Interval(mean, np.nan, np.nan, n, 1, excluded, f"one {cluster} only: nothing to resample")
    # samples × clusters: how often each resample draws each cluster
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=samples).astype(np.float64)
    means = (drawn @ sums["sum"].to_numpy()) / (drawn @ sums["count"].to_numpy(dtype=np.float64))
    bias, acceleration = _corrections(means, mean, sums["sum"].to_numpy(), sums["count"].to_numpy())
    low, high = np.quantile(means, _tails(bias, acceleration, clusters, level))
    p = _p_value(means, against, bias, acceleration, clusters)
    return Interval(mean, float(low), float(high), n, clusters, excluded, p=p)


def paired_difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    on: Sequence[str] = UNIT,
    *,
    value: str = "iou",
    cluster: str = "video",
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    against: float = 0.0,
    allow_unmatched: bool = False,
) -> Interval:
    """Mean of `value` in `a` minus `value` in `b`, unit by unit, with the interval of `bootstrap_mean`.

    Units that have no score (NaN) in either table are excluded and counted. Scores are averaged over the
    column `seed` of each table first, so the two may have different numbers of seeds.

    Args:
        on: columns that name a unit; `cluster` must be among them.
        allow_unmatched: compare the units both tables have, and leave out the others; else they are an error.

    Raises:
        RossamError: units differ between the tables, or as in `bootstrap_mean`.
    """
    on = list(on)
    if cluster not in on:
        raise RossamError("paired_difference", f"on={on} lacks the cluster column {cluster!r}", "add it to `on`")
    left, right = (_units(table, [value], cluster, on)[[*on, value]] for table in (a, b))
    pairs = left.merge(right, on=on, how="outer", suffixes=("_a", "_b"), indicator=True)
    unmatched = pairs[pairs["_merge"] != "both"]
    if len(unmatched) and not allow_unmatched:
        counts = unmatched["_merge"].value_counts()
        first = unmatched.iloc[0][on].to_dict()
        raise RossamError(
            "paired_difference",
            f"{counts['left_only']} units are in the first table only, {counts['right_only']} in the second only, "
            f"e.g. {first}",
            "score both methods on the same frames, or pass allow_unmatched=True",
        )
    pairs = pairs[pairs["_merge"] == "both"]
    differences = pairs[on].assign(**{value: pairs[f"{value}_a"] - pairs[f"{value}_b"]})
    return bootstrap_mean(differences, value, cluster, samples, seed, level=level, against=against)


def verdict(
    published_delta: float, interval: Interval, *, at_least: float = 0.0, within: float | None = None
) -> Verdict:
    """What a measured difference says about a published one.

    The rule, for a published difference that is not zero. Count both in the direction the paper claims
    (multiply by the sign of `published_delta`), so that the claim is "the difference exceeds `at_least`":

    - `reproduced`: the whole interval lies above `at_least`;
    - `not reproduced`: the whole interval lies below `at_least`;
    - `inconclusive`: the interval holds `at_least`, or there is no interval.

    `at_least` = 0 judges the direction alone. For a published difference of zero the claim is "no difference
    worth naming": `reproduced` where the interval lies inside [−within, within], `not reproduced` where it lies
    wholly outside, `inconclusive` otherwise, and also where `within` does not say what is worth naming.

    Args:
        published_delta: the paper's difference, or its sign.
        interval: the measured difference, the same way round.
        at_least: smallest difference that counts, not negative, in the interval's units.
        within: for a published difference of 0; positive, in the interval's units.
    """
    if np.isnan(published_delta) or not at_least >= 0 or (within is not None and not within > 0):
        found = f"published_delta is {published_delta}, at_least {at_least}, within {within}"
        raise RossamError("verdict", found, "pass a number, a threshold that is not negative, a margin above 0")
    low, high = (interval.low, interval.high) if published_delta >= 0 else (-interval.high, -interval.low)
    if published_delta != 0:
        holds, fails = low > at_least, high < at_least
    elif within is None:
        return "inconclusive"
    else:
        holds, fails = -within <= low and high <= within, low > within or high < -within
    return "reproduced" if holds else "not reproduced" if fails else "inconclusive"


def adjusted(p_values: Sequence[float]) -> np.ndarray:
    """p-values as they count when all are judged at once: Benjamini and Hochberg's, JRSS B 1995; NaN stays NaN.

    Of the hypotheses whose adjusted p-value is below q, a share of at most q is expected to be rejected by chance, if
    the tests are independent or depend on one another positively, as those that share a row mostly do.
    """
    found = np.array(p_values, dtype=float)
    known = ~np.isnan(found)
    if known.any():
        found[known] = stats.false_discovery_control(found[known])
    return found


def _corrections(means: np.ndarray, mean: float, sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Bias z₀ and acceleration a of the resampled `means` about the estimate `mean`.

    z₀ is Φ⁻¹ of the share of resamples below the estimate (ties count half), a a sixth of the skewness of the
    jackknife's influences.
    """
    bias = stats.norm.ppf(_share_below(means, mean))
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    influence = left_out.mean() - left_out
    scale = np.sum(influence**2) ** 1.5
    return float(bias), float(np.sum(influence**3) / (6 * scale)) if scale > 0 else 0.0


def _tails(bias: float, acceleration: float, clusters: int, level: float) -> np.ndarray:
    """Probabilities of the two quantiles of the resampled means between which the interval runs.

    With z the expanded normal quantile of either end: Φ(z₀ + (z₀ + z) / (1 − a·(z₀ + z))).
    """
    end = stats.t.ppf((1 + level) / 2, clusters - 1) * _expansion(clusters)
    z = bias + np.array([-end, end])
    return stats.norm.cdf(bias + z / np.maximum(1 - acceleration * z, 1e-3))


def _p_value(means: np.ndarray, against: float, bias: float, acceleration: float, clusters: int) -> float:
    """1 − level of the interval of which `against` would be an end: `_tails` solved for the level.

    With w = Φ⁻¹(share of resamples below `against`) − z₀ the end is z = w / (1 + a·w) − z₀. As no share is told finer
    than half a resample, p is never 0.
    """
    w = stats.norm.ppf(_share_below(means, against)) - bias
    end = abs(w / max(1 + acceleration * w, 1e-3) - bias)
    return float(2 * stats.t.sf(end / _expansion(clusters), clusters - 1))


def _share_below(means: np.ndarray, value: float) -> float:
    """Share of resamples below `value`, ties counted half, at least half a resample away from 0 and 1."""
    share = np.mean(means < value) + np.mean(means == value) / 2
    return float(np.clip(share, 0.5 / len(means), 1 - 0.5 / len(means)))


def _expansion(clusters: int) -> float:
    return float(np.sqrt(clusters / (clusters - 1)))


def _units(table: pd.DataFrame, values: list[str], cluster: str, unit: Sequence[str] = UNIT) -> pd.DataFrame:
    """One row a unit, averaged over seeds; the columns of `unit` that the table has, `cluster` and `values`."""
    missing = [column for column in [*values, cluster] if column not in table.columns]
    if missing:
        found = f"columns {missing} are missing; there are {list(table.columns)}"
        raise RossamError("table of scores", found, "pass a table made by evaluation.scoring, or name its columns")
    if "protocol" in table.columns and table["protocol"].nunique() > 1:
        found = f"mixes protocols {sorted(table['protocol'].unique())}"
        raise RossamError("table of scores", found, "select one: table[table.protocol == 'object']")
    names = [column for column in unit if column in table.columns]
    if len(names) < len(unit):
        if SEED in table.columns:
            found = f"has several seeds but lacks {sorted(set(unit) - set(names))}, which name a unit"
            raise RossamError("table of scores", found, "keep the columns that name a unit")
        return table
    if SEED in table.columns:
        _refuse_duplicates(table, [*names, SEED])
        keys = names if cluster in names else [*names, cluster]
        return table.groupby(keys, observed=True, sort=True)[values].mean().reset_index()
    _refuse_duplicates(table, names)
    return table


def _refuse_duplicates(table: pd.DataFrame, names: list[str]) -> None:
    twice = table.duplicated(names)
    if twice.any():
        first = table.loc[twice, names].iloc[0].to_dict()
        found = f"{int(twice.sum())} units stand there more than once, e.g. {first}"
        raise RossamError("table of scores", found, "pass the rows of one method, and name repeats in a column 'seed'")
