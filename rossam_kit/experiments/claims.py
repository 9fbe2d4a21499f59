"""The paper's comparative statements as predicates, judged by paired differences of IoU.

Claims are read from `claims.yaml`. Each has one `Judgement`, with the reason where the profile cannot test it;
statements that no row can test are listed separately.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pandas as pd
import yaml

from rossam_core.settings import Config, parse_config
from rossam_kit.config import CONFIGS, Profile
from rossam_kit.experiments.experiments import MAIN_DATASET, Experiments
from rossam_kit.experiments.statistics import (
    Interval,
    Verdict,
    independent_difference,
    mean_interval,
    paired_difference,
    verdict,
    weakest,
)

CLAIMS = CONFIGS / "claims.yaml"
HEADLINE, BESIDE = "iou", ("biou", "biou_fit")
"""The measure that verdicts are about, and those shown beside it."""


class Comparison(Config):
    """The mean IoU of row `better` minus that of row `than`, which the claim says is above 0."""

    table: str
    """Name in `experiments.yaml`."""
    better: str
    """Label of a row of it."""
    than: str | None = None
    """Label of another row; None: the row's own mean over `where` is compared with that over `minus`."""
    where: str | None = None
    """Which objects: a pandas query over the columns of `scoring.score`; None = all."""
    minus: str | None = None
    """Query: the same over these objects is subtracted (a difference of differences)."""
    minus_table: str | None = None
    """Table whose difference between the rows of the same labels, on its own dataset, is subtracted."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables it takes rows from."""
        return (self.table, self.minus_table) if self.minus_table else (self.table,)

    def __str__(self) -> str:
        text = " minus ".join(filter(None, (self.better, self.than)))
        text += f" where {self.where}" if self.where else ""
        text += f", less the same where {self.minus}" if self.minus else ""
        return text + (f", less the same in {self.minus_table}" if self.minus_table else "")


class Claim(Config):
    """One statement, true where every comparison in `holds` is above 0."""

    says: str
    """The statement, in our words."""
    source: str
    """Where the paper makes it."""
    dataset: str = MAIN_DATASET
    """What the paper says it of; the claim is judged only on data that stands for it (`stand_in`)."""
    holds: tuple[Comparison, ...]


class NotTestable(Config):
    """A quantitative or comparative statement that no scored row can judge."""

    says: str
    """The statement, in our words."""
    source: str
    """Where the paper makes it."""
    reason: str
    """Reason the claim is not testable here."""


class Ledger(Config):
    """The whole of `claims.yaml`."""

    claims: tuple[Claim, ...]
    not_testable: tuple[NotTestable, ...]


@dataclass(frozen=True)
class Judgement:
    """What the profile's data says of a claim.

    Attributes:
        comparison: of the claim's comparisons the one with the least evidence, which decides.
        difference: its measured difference of IoU (0..1), each object alone; None where nothing was judged.
        beside: measure → the same difference in that measure; no verdict depends on it.
        per_frame: the same difference with one IoU per frame, the protocol of the published numbers; None for
            comparisons of some objects with others.
        is_real: the data is the paper's own, so that a published size can be confirmed.
        verdict: by `difference` alone; None where nothing was judged.
        reason: why nothing was judged; empty otherwise.
    """

    claim: Claim
    comparison: Comparison
    difference: Interval | None = None
    beside: dict[str, Interval] = field(default_factory=dict)
    per_frame: Interval | None = None
    is_real: bool = False
    verdict: Verdict | None = None
    reason: str = ""


def ledger() -> Ledger:
    """`claims.yaml`, checked."""
    return parse_config(Ledger, yaml.safe_load(CLAIMS.read_text(encoding="utf-8")), where=CLAIMS)


def stand_in(profile: Profile, dataset: str) -> str:
    """What the profile scores tables of `dataset` on: `real` (that dataset), `generated` (made in its place), or "".

    Photographs do not stand for satellite video: the profile `nwpu` shows the tables of SAT-MTB on its photographs,
    but no claim about SAT-MTB is judged on them.
    """
    named = profile.datasets.get(dataset)
    data = named or profile.data
    if data.source == dataset or (dataset == MAIN_DATASET and data.source == "authors"):
        return "real"
    is_video = dataset == MAIN_DATASET and not data.synthetic.is_still
    return "generated" if data.source == "synthetic" and (named is not None or is_video) else ""


def judge(experiments: Experiments) -> Iterator[Judgement]:
    """Judge every claim of the ledger, in order; rows that were not computed yet are computed."""
    return (judge_one(claim, experiments) for claim in ledger().claims)


def judge_one(claim: Claim, experiments: Experiments) -> Judgement:
    """Judge one claim, or say why the profile cannot."""
    reason = _obstacle(claim, experiments)
    return Judgement(claim, claim.holds[0], reason=reason) if reason else _judged(claim, experiments)


def _obstacle(claim: Claim, experiments: Experiments) -> str:
    """Why the profile cannot judge a claim; empty where it can."""
    for table in dict.fromkeys(table for comparison in claim.holds for table in comparison.tables):
        spec = experiments.specs[table]
        if not stand_in(experiments.profile, spec.dataset):
            return f"nothing in the profile {experiments.profile.name} stands for {spec.dataset}"
        if table not in experiments.tables:
            return f"{spec.notebook} is not among the profile's notebooks"
        left_out = experiments.left_out(table)
        for label in (label for comparison in claim.holds for label in (comparison.better, comparison.than)):
            if label in left_out:
                return left_out[label]
    return ""


def _judged(claim: Claim, experiments: Experiments) -> Judgement:
    measured = {comparison: measure(comparison, experiments) for comparison in claim.holds}
    difference = weakest(list(measured.values()))
    comparison = next(each for each, interval in measured.items() if interval is difference)
    beside = {value: measure(comparison, experiments, value) for value in BESIDE}
    is_real = all(stand_in(experiments.profile, experiments.specs[t].dataset) == "real" for t in comparison.tables)
    of_objects = comparison.where or comparison.minus
    per_frame = None if of_objects else measure(comparison, experiments, protocol="frame")
    return Judgement(claim, comparison, difference, beside, per_frame, is_real, verdict(difference))


def measure(
    comparison: Comparison, experiments: Experiments, value: str = HEADLINE, protocol: str = "object"
) -> Interval:
    """The measured difference of a comparison, in 0..1."""
    differences = []
    for table in comparison.tables:
        better = _units(experiments, table, comparison.better, protocol)
        queries = {"where": comparison.where, "minus": comparison.minus}
        if comparison.than is None:
            differences.append(mean_interval(better, value, **queries))
        else:
            than = _units(experiments, table, comparison.than, protocol)
            differences.append(paired_difference(better, than, value, **queries))
    return differences[0] if len(differences) == 1 else independent_difference(*differences)


def _units(experiments: Experiments, table: str, label: str, protocol: str) -> pd.DataFrame:
    spec = experiments.specs[table]
    return experiments.on(spec.dataset).result(spec.row(label)).units(protocol)
