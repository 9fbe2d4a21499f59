"""The paper's comparative statements as predicates, judged by paired differences.

In: `configs/claims.yaml` and the rows that `Experiments` has. Out: one `Judgement` a claim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import yaml

from ..config import CONFIGS, Config, parse_config
from .experiments import Experiments, table_specs
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
    value: Literal["iou", "biou"] = "iou"
    at_least: float = 0.0
    """Percent points; 0 where the paper names no size."""


@dataclass(frozen=True)
class Judgement:
    """A claim, the measured paired difference in 0..1, and the verdict."""

    claim: Claim
    difference: Interval
    verdict: Verdict


def claims() -> list[Claim]:
    """All claims of `claims.yaml`, checked."""
    entries = yaml.safe_load(CLAIMS.read_text(encoding="utf-8"))
    return [parse_config(Claim, entry, where=f"{CLAIMS} entry {i + 1}") for i, entry in enumerate(entries)]


def judge(experiments: Experiments) -> Iterator[Judgement]:
    """Judge each claim whose rows the profile's notebooks show; rows not computed yet are computed."""
    options = {"samples": experiments.profile.evaluation.bootstrap_samples, "seed": experiments.profile.seed}
    specs = table_specs()
    for claim in claims():
        if not {claim.better[0], claim.than[0]} <= experiments.tables:
            continue
        better, than = (
            experiments.result(specs[table].row(label)).units() for table, label in (claim.better, claim.than)
        )
        difference = paired_difference(better, than, value=claim.value, **options)
        yield Judgement(claim, difference, verdict(1.0, difference, at_least=claim.at_least / 100))
