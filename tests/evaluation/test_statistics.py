"""Intervals that cover what they say, over videos and training runs; pairs, contrasts, verdicts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rossam_core.errors import RossamError
from rossam_kit.experiments.statistics import (
    Interval,
    adjusted,
    independent_difference,
    mean_interval,
    paired_difference,
    verdict,
    weakest,
)


def videos(rng, clusters, per_cluster=(1, 30)):
    """Scores in [0, 1] whose mean differs from video to video (expectation 2/3), with videos of unequal length."""
    level = rng.beta(2, 1, clusters).clip(0.01, 0.99)
    video = np.repeat(np.arange(clusters), rng.integers(*per_cluster, clusters))
    table = pd.DataFrame({"video": video, "frame": 1, "object_id": np.arange(len(video))})
    return table.assign(iou=rng.beta(8 * level[video], 8 * (1 - level[video])))


def runs(table, shifts):
    """The table once per run, all scores of a run moved by its shift."""
    return pd.concat([table.assign(seed=s, iou=table["iou"] + shift) for s, shift in enumerate(shifts)])


def covered(draw, truth, times=200):
    """Share of `times` drawn intervals that hold the truth."""
    intervals = [draw() for _ in range(times)]
    return np.mean([interval.low <= truth <= interval.high for interval in intervals])


def interval(mean, low, high, **values):
    """An interval with these ends."""
    return Interval(mean, ((((high - low) / 2 / 1.959964) ** 2, 10**9),), 10, 5, **values)


def same(a, b):
    return (a.n, a.clusters) == (b.n, b.clusters) and np.allclose([a.mean, a.low, a.high], [b.mean, b.low, b.high])


@pytest.mark.parametrize("clusters", [24, 48])
def test_the_95_percent_interval_covers_the_truth_in_93_to_97_percent_of_draws(clusters):
    rng = np.random.default_rng(clusters)
    assert 0.93 <= covered(lambda: mean_interval(videos(rng, clusters)), 2 / 3, 1000) <= 0.97


def test_with_three_runs_the_interval_covers_the_expectation_over_runs_and_over_videos():
    rng = np.random.default_rng(5)
    intervals = [mean_interval(runs(videos(rng, 24, (1, 8)), rng.normal(0, 0.15, 3))) for _ in range(250)]
    assert 0.93 <= np.mean([each.low <= 2 / 3 <= each.high for each in intervals]) <= 0.985
    videos_only = [replace(each, variances=each.variances[:1]) for each in intervals]
    assert np.mean([each.low <= 2 / 3 <= each.high for each in videos_only]) < 0.85, "runs carry variance of their own"


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_differences_of_runs_with_the_same_seeds_cover_whether_or_not_runs_are_correlated(correlation):
    rng, truth = np.random.default_rng(7), 0.02

    def draw(seeds=(0, 1, 2)):
        base, shared = videos(rng, 24, (1, 8)), rng.normal(0, 0.03, 3)
        own = [rng.normal(0, 0.03, 3) for _ in "ab"]
        mixed = [np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * each for each in own]
        noisy = base.assign(iou=base["iou"] + truth + rng.normal(0, 0.05, 24)[base["video"]])
        b = runs(base, mixed[1])
        return paired_difference(runs(noisy, mixed[0]), b.assign(seed=b["seed"].map(dict(enumerate(seeds)))))

    assert 0.93 <= covered(draw, truth) <= 0.985
    if not correlation:
        assert covered(lambda: draw((7, 8, 9)), truth) >= 0.95, "independent runs: conservative"
    else:
        paired, unpaired = (np.median([draw(s).high - draw(s).low for _ in range(30)]) for s in ((0, 1, 2), (7, 8, 9)))
        assert paired < unpaired, "correlated runs are worth pairing"


def test_differences_of_runs_are_paired_by_seed():
    a = videos(np.random.default_rng(1), 12)
    noise = [-0.1, 0.0, 0.1]
    difference = paired_difference(runs(a.assign(iou=a["iou"] + 0.02), noise), runs(a, noise))
    assert difference.mean == pytest.approx(0.02) and difference.se == pytest.approx(0, abs=1e-9)
    other = runs(a, noise)
    independent = paired_difference(runs(a, noise), other.assign(seed=other["seed"] + 5))
    assert independent.se == pytest.approx(np.sqrt(2 * 0.01 / 3))
    assert [df for _, df in independent.variances] == [11, 2, 2]


def test_a_trained_row_against_an_untrained_one_varies_with_its_runs_only():
    a = videos(np.random.default_rng(1), 12)
    trained = runs(a.assign(iou=a["iou"] + 0.02), [-0.1, 0.0, 0.1])
    there, back = paired_difference(trained, a), paired_difference(a, trained)
    assert there.seeds == back.seeds == 3
    assert there.se == pytest.approx(np.sqrt(0.01 / 3)) and there.high - there.mean == pytest.approx(
        4.30265 * there.se, rel=1e-5
    )
    assert (there.mean, there.low) == (pytest.approx(-back.mean), pytest.approx(-back.high))


def test_p_is_small_where_the_mean_is_far_off_and_one_where_nothing_differs(rng):
    a = videos(rng, 30)
    assert mean_interval(a).p < 0.01
    shifted = a.assign(iou=a["iou"] - mean_interval(a).low)
    assert mean_interval(shifted).p == pytest.approx(0.05)
    assert paired_difference(a, a).p == 1
    assert np.isnan(mean_interval(a[a["video"] == 0]).p)


def test_under_the_hypothesis_every_p_is_as_likely_as_any_other():
    rng = np.random.default_rng(2)
    p = np.array([mean_interval(videos(rng, 24).assign(iou=lambda t: t["iou"] - 2 / 3)).p for _ in range(600)])
    for level in (0.1, 0.3, 0.5):
        assert np.mean(p < level) == pytest.approx(level, abs=0.05)


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg():
    # the third of 4: 0.03 · 4/3 = 0.04, the fourth 0.041; the second 0.02 · 4/2 = 0.04 too; the first 0.004 · 4
    assert np.allclose(adjusted([0.03, 0.004, 0.041, 0.02]), [0.04, 0.016, 0.041, 0.04])
    assert np.allclose(adjusted([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02], equal_nan=True)
    assert len(adjusted([])) == 0 and np.isnan(adjusted([np.nan])).all()


def test_treating_objects_as_independent_would_cover_far_less():
    rng = np.random.default_rng(3)
    assert covered(lambda: mean_interval(videos(rng, 24).assign(video=lambda t: t["object_id"])), 2 / 3, 100) < 0.75


def test_order_of_rows_does_not_matter(rng):
    table = videos(rng, 20)
    assert same(mean_interval(table), mean_interval(table.sample(frac=1, random_state=1)))


def test_the_mean_is_over_units_and_counts_are_reported():
    table = pd.DataFrame({"video": ["a", "a", "a", "b", "c"], "iou": [1.0, 1.0, 1.0, 0.0, np.nan]})
    measured = mean_interval(table)
    assert (measured.mean, measured.n, measured.clusters) == (0.75, 4, 2)
    # without a: 0, without b: 1; V = 1/2 · (1/4 + 1/4)
    assert measured.variances == ((pytest.approx(0.25), 1),)
    assert measured.high == pytest.approx(0.75 + 12.706 * 0.5, rel=1e-4)
    assert measured.scaled(100).mean == 75 and measured.scaled(100).high == pytest.approx(100 * measured.high)


def test_without_videos_to_compare_there_is_a_reason_instead_of_an_interval():
    one = mean_interval(pd.DataFrame({"video": ["a", "a"], "iou": [0.2, 0.4]}))
    assert one.mean == pytest.approx(0.3) and np.isnan(one.low) and np.isnan(one.high) and "one video" in one.note
    none = mean_interval(pd.DataFrame({"video": ["a"], "iou": [np.nan]}))
    assert np.isnan(none.mean) and none.n == 0 and none.note


def test_pairing_is_narrower_on_correlated_scores_and_antisymmetric(rng):
    a = videos(rng, 30)
    b = a.assign(iou=(a["iou"] - 0.05 + rng.normal(0, 0.02, len(a))))
    difference, back = paired_difference(a, b), paired_difference(b, a)
    alone = mean_interval(a)
    assert difference.mean == pytest.approx(a["iou"].mean() - b["iou"].mean())
    assert difference.high - difference.low < 0.2 * (alone.high - alone.low)
    assert difference.low <= 0.05 <= difference.high
    assert difference.mean == pytest.approx(-back.mean)
    assert paired_difference(a, a).high == 0
    assert same(difference, paired_difference(a, b.sample(frac=1, random_state=3)))


def test_units_that_differ_are_an_error(rng):
    a = videos(rng, 10)
    with pytest.raises(RossamError, match="3 units are in the first table only, 0 in the second"):
        paired_difference(a, a.iloc[3:])


def test_a_unit_without_a_score_in_either_table_or_in_one_run_is_excluded(rng):
    a = videos(rng, 10)
    b = a.assign(iou=0.5)
    b.loc[0, "iou"] = np.nan
    difference = paired_difference(a, b)
    assert difference.n == len(a) - 1 and difference.mean == pytest.approx(a["iou"][1:].mean() - 0.5)
    trained = runs(a, [0, 0, 0]).reset_index(drop=True)
    trained.loc[len(a) + 1, "iou"] = np.nan
    assert mean_interval(trained).n == len(a) - 1


def test_a_contrast_is_the_difference_of_two_groups_means_within_the_same_videos():
    rng = np.random.default_rng(11)

    def draw():
        a = videos(rng, 24).assign(near=lambda t: rng.random(len(t)) < 0.3)
        gain = 0.05 + 0.04 * a["near"] + rng.normal(0, 0.05, 24)[a["video"]] + rng.normal(0, 0.05, len(a))
        return paired_difference(a.assign(iou=a["iou"] + gain), a, where="near", minus="not near")

    assert 0.93 <= covered(draw, 0.04) <= 0.97
    a = videos(rng, 10).assign(near=lambda t: t.index % 2 == 0)
    contrast = mean_interval(a, where="near", minus="not near")
    assert contrast.mean == pytest.approx(a["iou"][a["near"]].mean() - a["iou"][~a["near"]].mean())
    assert mean_interval(a, where="near").n == a["near"].sum()
    assert mean_interval(a, where="near", minus="video == 99").note == "no scored unit"


def test_independent_differences_add_their_variances():
    a, b = Interval(0.3, ((0.0009, 23),), 100, 24, 3), Interval(0.1, ((0.0016, 11),), 50, 12)
    difference = independent_difference(a, b)
    assert (difference.mean, difference.se) == (pytest.approx(0.2), pytest.approx(0.05))
    t = (0.0009 * 2.0687 + 0.0016 * 2.2010) / 0.0025
    assert difference.high == pytest.approx(0.2 + 0.05 * t, rel=1e-4)
    assert (difference.n, difference.clusters, difference.seeds) == (150, 36, 3)
    assert np.isnan(independent_difference(a, Interval(np.nan, (), 0, 0)).low)


def test_the_weakest_difference_decides_whether_all_are_above_zero():
    clear, unclear, below = interval(0.5, 0.4, 0.6), interval(0.6, -0.1, 1.3), interval(-0.2, -0.3, -0.1)
    absent = Interval(np.nan, (), 0, 0, note="no scored unit")
    assert weakest([clear, unclear]) is unclear and verdict(weakest([clear, unclear])) == "inconclusive"
    assert verdict(weakest([clear, unclear, below])) == "not reproduced"
    assert weakest([below, absent]) is absent and weakest([clear]) is clear


def test_mixed_methods_or_protocols_are_refused(rng):
    a = videos(rng, 5)
    with pytest.raises(RossamError, match="more than once"):
        mean_interval(pd.concat([a, a]))
    with pytest.raises(RossamError, match="mixes protocols"):
        mean_interval(pd.concat([a.assign(protocol="object"), a.assign(protocol="frame")]))
    with pytest.raises(RossamError, match="missing"):
        mean_interval(a, value="dice")
    with pytest.raises(RossamError, match="which name a unit"):
        mean_interval(a.drop(columns="frame").assign(seed=0))


@pytest.mark.parametrize(
    ("low", "high", "seeds", "expected"),
    [
        (0.01, 0.20, 0, "reproduced"),
        (-0.20, -0.01, 0, "not reproduced"),
        (-0.01, 0.20, 0, "inconclusive"),
        (-0.20, 0.01, 0, "inconclusive"),
        (0.01, 0.20, 3, "reproduced"),
        (0.01, 0.20, 1, "one run"),
        (0.01, 0.20, 2, "two runs"),
        (np.nan, np.nan, 0, "inconclusive"),
    ],
)
def test_verdict_follows_its_rule(low, high, seeds, expected):
    assert verdict(interval((low + high) / 2, low, high, seeds=seeds)) == expected
