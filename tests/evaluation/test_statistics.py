"""Intervals that cover what they say, whatever the order of rows; pairs, seeds, verdicts."""

import numpy as np
import pandas as pd
import pytest

from rossam_core.errors import RossamError
from rossam_core.evaluation.statistics import Interval, adjusted, bootstrap_mean, paired_difference, verdict


def videos(rng, clusters, per_cluster=(1, 30), tied=False):
    """Scores in [0, 1] whose mean differs from video to video (expectation 2/3), with videos of unequal length.

    `tied`: the better a video's scores, the more of them there are.
    """
    level = rng.beta(2, 1, clusters).clip(0.01, 0.99)
    counts = lengths(level) if tied else rng.integers(*per_cluster, clusters)
    video = np.repeat(np.arange(clusters), counts)
    table = pd.DataFrame({"video": video, "frame": 1, "object_id": np.arange(len(video))})
    return table.assign(iou=rng.beta(8 * level[video], 8 * (1 - level[video])))


def lengths(level):
    return 1 + np.round(28 * level).astype(int)


def expected_mean(tied):
    level = np.random.default_rng(9).beta(2, 1, 1_000_000).clip(0.01, 0.99)
    return (level * lengths(level)).sum() / lengths(level).sum() if tied else 2 / 3


def same(a, b):
    return (a.n, a.clusters) == (b.n, b.clusters) and np.allclose([a.mean, a.low, a.high], [b.mean, b.low, b.high])


@pytest.mark.parametrize(("clusters", "tied"), [(24, False), (24, True), (48, False)])
def test_the_95_percent_interval_covers_the_truth_in_93_to_97_percent_of_draws(clusters, tied):
    rng = np.random.default_rng(clusters)
    truth = expected_mean(tied)
    options = {"samples": 1000, "against": truth}
    found = [bootstrap_mean(videos(rng, clusters, tied=tied), seed=draw, **options) for draw in range(1000)]
    held = np.array([i.low <= truth <= i.high for i in found])
    assert 0.93 <= np.mean(held) <= 0.97
    p = np.array([i.p for i in found])
    assert np.mean((p >= 0.05) == held) > 0.99
    for level in (0.1, 0.3, 0.5):  # under the hypothesis every p is as likely as any other
        assert np.mean(p < level) == pytest.approx(level, abs=0.05)


def test_p_is_small_where_the_mean_is_far_off_and_one_where_nothing_differs(rng):
    a = videos(rng, 30)
    assert bootstrap_mean(a, against=0.0).p < 0.01 < bootstrap_mean(a, against=bootstrap_mean(a).low).p < 0.1
    assert paired_difference(a, a).p == 1
    assert np.isnan(bootstrap_mean(a[a["video"] == 0]).p)


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg():
    # the third of 4: 0.03 · 4/3 = 0.04, the fourth 0.041; the second 0.02 · 4/2 = 0.04 too; the first 0.004 · 4
    assert np.allclose(adjusted([0.03, 0.004, 0.041, 0.02]), [0.04, 0.016, 0.041, 0.04])
    assert np.allclose(adjusted([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02], equal_nan=True)
    assert len(adjusted([])) == 0 and np.isnan(adjusted([np.nan])).all()


def test_of_true_hypotheses_few_are_rejected_however_many_are_tested(rng):
    raw = rng.uniform(size=(1000, 40))
    wrong = np.array([(adjusted(p) < 0.05).any() for p in raw])
    assert (raw < 0.05).any(axis=1).mean() > 0.8 and 0.03 <= wrong.mean() <= 0.07


def test_treating_objects_as_independent_would_cover_far_less():
    rng = np.random.default_rng(3)
    tables = [videos(rng, 24) for _ in range(100)]
    found = [bootstrap_mean(t, cluster="object_id", samples=300) for t in tables]
    assert np.mean([i.low <= 2 / 3 <= i.high for i in found]) < 0.75


def test_same_seed_same_interval_other_seed_nearly(rng):
    table = videos(rng, 20)
    assert bootstrap_mean(table, seed=1) == bootstrap_mean(table, seed=1)
    a, b = bootstrap_mean(table, seed=1), bootstrap_mean(table, seed=2)
    assert a.low != b.low and abs(a.low - b.low) < 0.1 * (a.high - a.low)


def test_order_of_rows_does_not_matter(rng):
    table = videos(rng, 20)
    assert same(bootstrap_mean(table), bootstrap_mean(table.sample(frac=1, random_state=1)))


def test_the_mean_is_over_units_and_counts_are_told():
    table = pd.DataFrame({"video": ["a", "a", "a", "b", "c"], "iou": [1.0, 1.0, 1.0, 0.0, np.nan]})
    found = bootstrap_mean(table)
    assert (found.mean, found.n, found.clusters, found.excluded) == (0.75, 4, 2, 1)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.scaled(100).mean == 75


def test_without_videos_to_resample_there_is_a_reason_instead_of_an_interval():
    one = bootstrap_mean(pd.DataFrame({"video": ["a", "a"], "iou": [0.2, 0.4]}))
    assert one.mean == pytest.approx(0.3) and np.isnan(one.low) and np.isnan(one.high) and "one video" in one.note
    none = bootstrap_mean(pd.DataFrame({"video": ["a"], "iou": [np.nan]}))
    assert np.isnan(none.mean) and none.n == 0 and none.excluded == 1 and none.note


def test_pairing_is_narrower_on_correlated_scores_and_antisymmetric(rng):
    a = videos(rng, 30)
    b = a.assign(iou=(a["iou"] - 0.05 + rng.normal(0, 0.02, len(a))))
    found, back = paired_difference(a, b), paired_difference(b, a)
    alone = bootstrap_mean(a)
    assert found.mean == pytest.approx(a["iou"].mean() - b["iou"].mean())
    assert found.high - found.low < 0.2 * (alone.high - alone.low)
    assert found.low <= 0.05 <= found.high
    assert found.mean == pytest.approx(-back.mean)
    assert paired_difference(a, a).high == 0
    assert same(found, paired_difference(a, b.sample(frac=1, random_state=3)))


def test_units_that_differ_are_an_error_unless_allowed(rng):
    a = videos(rng, 10)
    b = a.iloc[3:]
    with pytest.raises(RossamError, match="3 units are in the first table only, 0 in the second"):
        paired_difference(a, b)
    assert paired_difference(a, b, allow_unmatched=True).n == len(b)


def test_a_unit_without_a_score_in_either_table_is_excluded_from_both(rng):
    a, b = videos(rng, 10), videos(rng, 10)
    b = a.assign(iou=0.5)
    b.loc[0, "iou"] = np.nan
    found = paired_difference(a, b)
    assert found.excluded == 1 and found.mean == pytest.approx(a["iou"][1:].mean() - 0.5)


def test_seeds_are_averaged_first(rng):
    a = videos(rng, 12)
    seeds = pd.concat([a.assign(seed=s, iou=a["iou"] + shift) for s, shift in enumerate((-0.1, 0.0, 0.1))])
    assert same(bootstrap_mean(seeds), bootstrap_mean(a))
    assert paired_difference(seeds, a).mean == pytest.approx(0, abs=1e-12)


def test_mixed_methods_or_protocols_are_refused(rng):
    a = videos(rng, 5)
    with pytest.raises(RossamError, match="more than once"):
        bootstrap_mean(pd.concat([a, a]))
    with pytest.raises(RossamError, match="mixes protocols"):
        bootstrap_mean(pd.concat([a.assign(protocol="object"), a.assign(protocol="frame")]))
    with pytest.raises(RossamError, match="missing"):
        bootstrap_mean(a, value="dice")


@pytest.mark.parametrize(
    ("published", "low", "high", "options", "expected"),
    [
        (+13, 0.01, 0.20, {}, "reproduced"),
        (+13, -0.20, -0.01, {}, "not reproduced"),
        (+13, -0.01, 0.20, {}, "inconclusive"),
        (-0.6, -0.20, -0.01, {}, "reproduced"),
        (-0.6, 0.01, 0.20, {}, "not reproduced"),
        (+13, 0.01, 0.20, {"at_least": 0.05}, "inconclusive"),
        (+13, 0.01, 0.04, {"at_least": 0.05}, "not reproduced"),
        (-13, -0.20, -0.06, {"at_least": 0.05}, "reproduced"),
        (+13, np.nan, np.nan, {}, "inconclusive"),
        (0, -0.01, 0.01, {}, "inconclusive"),
        (0, -0.01, 0.01, {"within": 0.02}, "reproduced"),
        (0, 0.03, 0.05, {"within": 0.02}, "not reproduced"),
        (0, -0.01, 0.05, {"within": 0.02}, "inconclusive"),
    ],
)
def test_verdict_follows_its_rule(published, low, high, options, expected):
    assert verdict(published, Interval((low + high) / 2, low, high, 10, 5), **options) == expected


def test_verdict_refuses_what_it_cannot_judge():
    interval = Interval(0.1, 0.0, 0.2, 10, 5)
    for arguments, options in [((np.nan,), {}), ((1,), {"at_least": -1}), ((0,), {"within": 0})]:
        with pytest.raises(RossamError):
            verdict(*arguments, interval, **options)
