"""Claims: each tests its own sentence, on the dataset it was made of, and the ledger says what was not judged."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rossam_kit.config import load_profile
from rossam_kit.experiments import claims
from rossam_kit.experiments.experiments import table_specs
from rossam_kit.report.claim_table import claim_rows, claim_table

VIDEOS, OBJECTS = 24, 12


def scores(gains=0.0, *, seeds=(), train=0.0, near=0.0, spread=0.0):
    """Scores of one row: 0.4 with noise common to all rows, plus `gains`, plus `train` on trains, `near` where crowded.

    `seeds`: one training run each, `spread` apart.
    """
    rng = np.random.default_rng(0)
    n = VIDEOS * OBJECTS
    table = pd.DataFrame({"video": np.repeat(np.arange(VIDEOS), OBJECTS), "frame": 1, "object_id": np.arange(n)})
    table["category"] = np.where(np.arange(n) % 3, "ship", "train")
    table["gap_in_sides"] = np.where(np.arange(n) % 2, 0.2, np.where(np.arange(n) % 4, np.nan, 2.0))
    level = 0.4 + rng.normal(0, 0.05, VIDEOS)[table["video"]] + rng.normal(0, 0.05, n)
    own = np.random.default_rng(abs(hash((gains, train, near))) % 2**32).normal(0, 0.01, n)
    score = level + own + gains + train * (table["category"] == "train") + near * (table["gap_in_sides"] < 0.5)
    table = table.assign(iou=score, biou=score, biou_fit=score)
    runs = [table.assign(seed=s, iou=table["iou"] + spread * (i - 1)) for i, s in enumerate(seeds)]
    return pd.concat(runs) if seeds else table


class Measured:
    """Stands for `Experiments`: the rows of given tables have given scores, all other rows those of SAM."""

    def __init__(self, profile="demo", rows=None, **overrides):
        self.profile, self.specs, self.rows = load_profile(profile, overrides), table_specs(), rows or {}
        self.tables, self.others = set(self.specs), scores()

    def left_out(self, table):
        return {}

    def on(self, dataset):
        return self

    def result(self, spec):
        table = self.rows.get(spec.label, self.others)
        return SimpleNamespace(units=lambda protocol="object": table)


def claim(*words):
    """The one claim whose statement holds all these words."""
    (match,) = [each for each in claims.ledger().claims if all(word in each.says for word in words)]
    return match


def judged(rows, *words, profile="demo"):
    return claims.judge_one(claim(*words), Measured(profile, rows))


def test_every_claim_names_rows_that_exist_on_the_dataset_that_it_names():
    specs = table_specs()
    for each in claims.ledger().claims:
        for comparison in each.holds:
            assert specs[comparison.table].dataset == each.dataset, each.says
            for table in comparison.tables:
                for label in filter(None, (comparison.better, comparison.than)):
                    assert specs[table].row(label).label == label


def test_no_comparison_counts_twice():
    held = [frozenset(each.holds) for each in claims.ledger().claims]
    assert len(held) == len(set(held)) and 30 <= len(held) <= 45
    assert not any("BIoU" in each.says or "markedly" in each.says for each in claims.ledger().claims)


def test_two_claims_that_one_comparison_decides_are_one_test():
    rows = {"+ LSJ and random rotation": scores(0.1), "+ LSJ": scores(-0.1), "+ random rotation": scores(-0.2)}
    both = [judged(rows, "training pipeline improves"), judged(rows, "jitter and rotation together")]
    assert both[0].comparison == both[1].comparison
    alone, together = claim_table(both[:1]), claim_table(both)
    assert together["p, adjusted"][0] == together["p, adjusted"][1] == alone["p, adjusted"][0]


def test_misclassification_is_not_testable_throughout():
    ledger = claims.ledger()
    assert not [each.says for each in ledger.claims if "misclass" in each.says]
    assert len([each.says for each in ledger.not_testable if "misclass" in each.says]) == 2


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("nwpu", {"sat-mtb": "", "nwpu-vhr10": "real", "isaid": ""}),
        ("demo", {"sat-mtb": "generated", "nwpu-vhr10": "generated", "isaid": "generated"}),
        ("paper", {"sat-mtb": "real", "nwpu-vhr10": "real", "isaid": "real"}),
    ],
)
def test_claims_are_judged_only_on_what_stands_for_their_dataset(profile, expected):
    experiments = Measured(profile)
    assert {dataset: claims.stand_in(experiments.profile, dataset) for dataset in expected} == expected
    for words in (("Upsampling at rate 2",), ("beats SAM2", "NWPU"), ("beats SAM2", "iSAID"), ("advantages", "NWPU")):
        judgement = claims.judge_one(claim(*words), experiments)
        needed = {experiments.specs[table].dataset for each in judgement.claim.holds for table in each.tables}
        assert (judgement.difference is not None) == all(expected[dataset] for dataset in needed)
        assert bool(judgement.reason) == (judgement.difference is None)


def test_is_best_is_judged_against_every_rival():
    words = ("both decoders alternately is best",)
    best = {"Alternately Update Two Decoders": scores(0.1), "Update HQ Mask Decoder": scores(0.05)}
    assert judged(best, *words).verdict == "reproduced"
    beaten = judged(best | {"Update Mask Decoder": scores(0.2)}, *words)
    assert beaten.verdict == "not reproduced" and beaten.comparison.than == "Update Mask Decoder"


def test_best_and_next_needs_both_halves():
    words = ("the best, HQ-SAM's next",)
    assert judged({"ROS-SAM": scores(0.1), "HQ-SAM": scores(0.05)}, *words).verdict == "reproduced"
    assert judged({"ROS-SAM": scores(0.1), "HQ-SAM": scores(-0.05)}, *words).verdict == "not reproduced"
    assert judged({"ROS-SAM": scores(0.1), "HQ-SAM": scores(0.2)}, *words).verdict == "not reproduced"


def test_telling_close_objects_apart_needs_a_larger_gain_where_they_are_close():
    words = ("apart that stand close together",)
    assert judged({"ROS-SAM": scores(0.05, near=0.05)}, *words).verdict == "reproduced"
    assert judged({"ROS-SAM": scores(0.05, near=-0.02)}, *words).verdict == "not reproduced", "gains everywhere"


def test_failing_on_trains_needs_a_lower_iou_on_trains():
    words = ("fails on trains",)
    assert judged({"SAM": scores(train=-0.2), "ROS-SAM": scores(0.05)}, *words).verdict == "reproduced"
    assert judged({"SAM": scores(train=0.2), "ROS-SAM": scores(0.3)}, *words).verdict == "not reproduced"


def test_more_advantages_on_still_images_is_a_difference_of_gains():
    words = ("more advantages", "NWPU")
    judgement = judged({"ROS-SAM": scores(0.1)}, *words)  # the same gain on both datasets
    assert judgement.difference.mean == pytest.approx(0) and judgement.verdict == "inconclusive"
    assert judgement.difference.clusters == 2 * VIDEOS


def test_with_one_seed_a_trained_row_gets_its_direction_and_no_verdict():
    words = ("ROS-SAM beats SAM with",)
    assert judged({"ROS-SAM": scores(0.1, seeds=(0,))}, *words).verdict == "one run"
    assert judged({"ROS-SAM": scores(0.1, seeds=(0, 1, 2))}, *words).verdict == "reproduced"
    assert judged({"ROS-SAM": scores(0.1, seeds=(0, 1, 2), spread=0.3)}, *words).verdict == "inconclusive"
    row = claim_table([judged({"ROS-SAM": scores(0.1, seeds=(0,))}, *words)]).iloc[0]
    assert (row["verdict"], row["runs"], row["p, adjusted"]) == ("one run: above 0", "1", "—")


def test_a_perfect_replication_is_reproduced_and_its_size_is_asked_of_real_data_only():
    words = ("raises IoU over SAM on whole frames",)
    exact = {"ROS-SAM": scores(0.1329, seeds=(0, 1, 2), spread=0.002)}
    for profile, size in (("paper", "inside"), ("demo", "not compared")):
        row = claim_table([judged(exact, *words, profile=profile)]).iloc[0]
        assert row["verdict"] == "reproduced" and row["published, per frame"] == "+13.29"
        assert row["published size"].startswith(size)
    row = claim_table([judged({"ROS-SAM": scores(0.05)}, *words, profile="paper")]).iloc[0]
    assert row["verdict"] == "reproduced" and row["published size"].startswith("outside")


def test_the_ledger_lists_every_statement_once_with_a_verdict_or_a_reason():
    judgements = list(claims.judge(Measured("nwpu", {"ROS-SAM": scores(0.1)})))
    table, ledger = claim_table(judgements), claims.ledger()
    assert len(table) == len(ledger.claims) + len(ledger.not_testable)
    assert not table.isna().any().any() and (table["verdict"] != "").all()
    assert table["verdict"].str.contains("stands for sat-mtb").sum() > 25
    assert [row.label for row in claim_rows(judgements)] == [j.claim.says for j in judgements if j.difference]
    reproduced = table[table["verdict"] == "reproduced"]
    assert len(reproduced) == 3 and (reproduced["all claims at once"] == "reproduced").all()
