"""How often three 95% intervals of a mean over objects hold the true mean, on simulated scores.

Scores are skewed (Beta), videos differ in level and have 1 to 29 objects, either independently of the score or more
the better it is ("tied"). Rows are untrained, or trained with three seeds: then each run shifts all scores, and each
run shifts each video a little (sd 0.02). The sd of the shift of a run is given as a multiple of the standard error
between videos. The three methods:

- `t`: `statistics.mean_interval`: jackknife over videos plus variance between runs, Student's t.
- `expanded BCa`: bootstrap that draws videos and, independently, runs; bias-corrected, accelerated, expanded quantiles.
- `scipy BCa`: `scipy.stats.bootstrap` on the videos' sums and counts; it cannot draw two factors, so runs are averaged.

Usage: python benchmarks/interval_coverage.py [--draws 400] [--samples 300]
"""

import argparse

import numpy as np
import pandas as pd
from scipy import stats

from rossam_kit.experiments.statistics import Interval, mean_interval

CLUSTERS = (4, 8, 24, 48)
SEEDS = 3
LEVEL_SD = 0.236
"""Standard deviation of the videos' levels, Beta(2, 1)."""
SCENARIOS = {
    "untrained": (None, False),
    "untrained, tied": (None, True),
    "3 runs, sd 0.5": (0.5, False),
    "3 runs, sd 1": (1.0, False),
    "3 runs, sd 1, tied": (1.0, True),
    "3 runs, sd 3": (3.0, False),
}


def lengths(level: np.ndarray) -> np.ndarray:
    """Objects of a video where their number is tied to its level."""
    return 1 + np.round(28 * level).astype(int)


def draw(rng: np.random.Generator, clusters: int, run_sd: float | None, tied: bool) -> pd.DataFrame:
    """One table of scores; `run_sd` in standard errors between videos, None for an untrained row."""
    level = rng.beta(2, 1, clusters).clip(0.01, 0.99)
    counts = lengths(level) if tied else rng.integers(1, 30, clusters)
    video = np.repeat(np.arange(clusters), counts)
    table = pd.DataFrame({"video": video, "frame": 1, "object_id": np.arange(len(video))})
    table["iou"] = rng.beta(8 * level[video], 8 * (1 - level[video]))
    if run_sd is None:
        return table
    shifts = run_sd * LEVEL_SD / np.sqrt(clusters) * rng.normal(size=SEEDS)
    per_video = rng.normal(0, 0.02, (SEEDS, clusters))
    runs = [table.assign(seed=s, iou=table["iou"] + shifts[s] + per_video[s, video]) for s in range(SEEDS)]
    return pd.concat(runs, ignore_index=True)


def truth(tied: bool) -> float:
    """The expected mean over objects."""
    level = np.random.default_rng(9).beta(2, 1, 1_000_000).clip(0.01, 0.99)
    return (level * lengths(level)).sum() / lengths(level).sum() if tied else level.mean()


def sums_and_counts(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Sums of scores, runs × videos, and objects of each video."""
    runs = table["seed"] if "seed" in table else pd.Series(0, index=table.index)
    sums = table.groupby([runs, "video"])["iou"].sum().unstack().to_numpy()
    return sums, table[runs == 0].groupby("video").size().to_numpy()


def expanded_bca(table: pd.DataFrame, samples: int, rng: np.random.Generator) -> tuple[float, float]:
    """Bootstrap over videos and runs with quantiles corrected for bias, skewness and few videos."""
    sums, counts = sums_and_counts(table)
    runs, clusters = sums.shape
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=samples).astype(float)
    weights = rng.multinomial(runs, np.full(runs, 1 / runs), size=samples) / runs
    means = np.einsum("ks,sc,kc->k", weights, sums, drawn, optimize=True) / (drawn @ counts)
    sums = sums.mean(axis=0)
    mean = sums.sum() / counts.sum()
    bias = stats.norm.ppf(np.clip(np.mean(means < mean), 0.5 / samples, 1 - 0.5 / samples))
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    influence = left_out.mean() - left_out
    acceleration = np.sum(influence**3) / (6 * np.sum(influence**2) ** 1.5)
    end = stats.t.ppf(0.975, clusters - 1) * np.sqrt(clusters / (clusters - 1))
    z = bias + np.array([-end, end])
    tails = stats.norm.cdf(bias + z / np.maximum(1 - acceleration * z, 1e-3))
    return tuple(np.quantile(means, tails))


def scipy_bca(table: pd.DataFrame, samples: int, rng: np.random.Generator) -> tuple[float, float]:
    """scipy's BCa interval of Σ sums / Σ counts over videos."""
    sums, counts = sums_and_counts(table)
    found = stats.bootstrap(
        (sums.mean(axis=0), counts), lambda s, n, axis: s.sum(axis) / n.sum(axis), paired=True, n_resamples=samples,
        vectorized=True, method="BCa", rng=rng,
    )  # fmt: skip
    return found.confidence_interval


METHODS = {
    "t": lambda table, samples, rng: ends(mean_interval(table)),
    "expanded BCa": expanded_bca,
    "scipy BCa": scipy_bca,
}


def ends(interval: Interval) -> tuple[float, float]:
    """Both ends of an interval."""
    return interval.low, interval.high


def coverage(name: str, draws: int, samples: int) -> pd.DataFrame:
    """Share of intervals that hold the truth in one scenario: methods × numbers of videos."""
    run_sd, tied = SCENARIOS[name]
    true_mean, held = truth(tied), pd.DataFrame(0.0, index=list(METHODS), columns=list(CLUSTERS))
    for clusters in CLUSTERS:
        rng = np.random.default_rng(clusters)
        for _ in range(draws):
            table = draw(rng, clusters, run_sd, tied)
            for method, interval in METHODS.items():
                low, high = interval(table, samples, rng)
                held.loc[method, clusters] += (low <= true_mean <= high) / draws
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    options = parser.parse_args()
    print("| rows | method | draws | " + " | ".join(f"{c} videos" for c in CLUSTERS) + " |", flush=True)
    print("|---|---|---:|" + "---:|" * len(CLUSTERS))
    for name in options.scenarios:
        for method, shares in coverage(name, options.draws, options.samples).iterrows():
            cells = " | ".join(f"{100 * share:.1f}" for share in shares)
            print(f"| {name} | {method} | {options.draws} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
