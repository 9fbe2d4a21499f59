"""The paper's comparative statements as predicates, judged by paired differences.

In: `configs/claims.yaml` and the rows that `Experiments` has. Out: one `Judgement` a claim, and the statements that
no row can judge, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import yaml

from ..config import CONFIGS, Config, parse_config
from .experiments import Experiments
from .statistics import Interval, Verdict, paired_difference, verdict

CLAIMS = CONFIGS / "claims.yaml"


class Claim(Config):
    """One statement: row `better` exceeds row `than` in `value`, by more than `at_least` points."""

    says: str
    """The statement, in our words."""
    source: str
    """Where the paper makes it."""
    better: tuple[str, str]
    """Table and label of a row in `experiments.yaml`."""
    than: tuple[str, str]
    value: Literal["iou", "biou", "biou_fit"] = "iou"
    at_least: float = 0.0
    """Percent points; 0 where the paper names no size."""
    where: str | None = None
    """Which objects it is about: a pandas query over the columns of `scoring.score`; None = all."""


class NotTestable(Config):
    """A quantitative or comparative statement that no scored row can judge."""

    says: str
    """The statement, in our words."""
    source: str
    """Where the paper makes it."""
    reason: str
    """Why it cannot be judged here."""


class Ledger(Config):
    """The whole of `claims.yaml`."""

    claims: tuple[Claim, ...]
    not_testable: tuple[NotTestable, ...]


@dataclass(frozen=True)
class Judgement:
    """A claim, the measured paired difference in 0..1, and the verdict by its own interval."""

    claim: Claim
    difference: Interval
    verdict: Verdict


def ledger() -> Ledger:
    """`claims.yaml`, checked."""
    return parse_config(Ledger, yaml.safe_load(CLAIMS.read_text(encoding="utf-8")), where=CLAIMS)


def judge(experiments: Experiments) -> Iterator[Judgement]:
    """Judge each claim whose rows the profile's notebooks show and can be had; what is missing is computed."""
    evaluation = experiments.profile.evaluation
    for claim in ledger().claims:
        pair = (claim.better, claim.than)
        if not {table for table, _ in pair} <= experiments.tables:
            continue
        if any(label in experiments.left_out(table) for table, label in pair):
            continue
        better, than = (
            experiments.on(spec.dataset).result(spec.row(label)).units()
            for spec, label in ((experiments.specs[table], label) for table, label in pair)
        )
        if claim.where:
            better, than = better.query(claim.where), than.query(claim.where)
        difference = paired_difference(
            better, than, value=claim.value, samples=evaluation.bootstrap_samples, seed=experiments.profile.seed,
            against=claim.at_least / 100,
        )  # fmt: skip
        yield Judgement(claim, difference, verdict(1.0, difference, at_least=claim.at_least / 100))
