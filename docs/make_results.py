"""Tables of results from a profile's scores: published rows into the README, all rows and the ledger into results.md.

What is missing is computed. The README's part stands between its markers.
Usage: python docs/make_results.py [--profile full] [--machine "AMD EPYC (Zen 4), 2 cores, bfloat16"]
"""

import argparse
import functools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rossam_kit.config import load_profile
from rossam_kit.experiments import claims
from rossam_kit.experiments.experiments import Experiments
from rossam_kit.experiments.statistics import Interval, paired_difference
from rossam_kit.report.claim_table import claim_table
from rossam_kit.report.tables import ComparisonRow, comparison_rows

DOCS = Path(__file__).resolve().parent
README, PAGE = DOCS.parent / "README.md", DOCS / "results.md"
IN_README = ("table5", "table3", "table4", "table6")
LEFT_TO_PAGE = ("SAM2, whole frame", "HQ-SAM, whole frame", "rate 2, bilinear", "rate 4, bilinear")
HEADING = (
    "| | published, per frame | measured, per frame | per object | difference per object |\n|---|---:|---:|---:|---:|"
)


def percent(interval: Interval | None) -> str:
    return f"{100 * interval.mean:.1f}" if interval else ""


def points(interval: Interval | None) -> str:
    """A difference with its interval, in points of IoU."""
    if interval is None:
        return ""
    scaled = interval.scaled(100)
    return f"{scaled.mean:+.1f} ({scaled.note or f'{scaled.low:+.1f} to {scaled.high:+.1f}'})"


def line(row: ComparisonRow) -> str:
    printed = f"{row.published.iou:.2f}" if row.published else ""
    measured = [percent(row.frame_iou), percent(row.iou), points(row.difference)]
    return f"| {' | '.join([row.setting, printed, *measured])} |".replace("|  |", "| |")


def tables(experiments: Experiments, names: Sequence[str], *, all_rows: bool) -> str:
    """One Markdown table for all `names`, each with its command; without `all_rows` only what the paper prints."""
    lines = [HEADING]
    for name in names:
        spec = experiments.specs[name]
        rows = comparison_rows(name, experiments.results(name), left_out=experiments.left_out(name))
        command = f"`./run_all.sh --profile {experiments.profile.name} --only {spec.notebook[:2]}`"
        stand_in = experiments.on(spec.dataset) is not experiments
        is_generated = stand_in and claims.stand_in(experiments.profile, spec.dataset) == "generated"
        title = spec.title + (", generated stand-in" if is_generated else "")
        lines.append(f"| **{title}**: {command} | | | | *to {spec.reference}* |")
        is_shown = [all_rows or (row.published and row.setting not in LEFT_TO_PAGE) for row in rows]
        lines += [line(row) for row, shown in zip(rows, is_shown, strict=True) if row.iou and shown]
    return "\n".join(lines)


def gain(experiments: Experiments, table: str, row: str, than: str) -> str:
    spec = experiments.specs[table]
    better, worse = (experiments.on(spec.dataset).result(spec.row(label)).units() for label in (row, than))
    return points(paired_difference(better, worse))


def verdicts(judgements: Sequence[claims.Judgement], table: pd.DataFrame) -> str:
    counts = Counter(judgement.verdict or "not judged" for judgement in judgements)
    decided = (table["all claims at once"].isin(["reproduced", "not reproduced"])).sum()
    comparisons = len({judgement.comparison for judgement in judgements if judgement.difference})
    named = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    return (
        f"Of {len(judgements)} claims, decided by {comparisons} comparisons: {named}; {decided} stay decided\n  "
        "when all are counted at once."
    )


def sentences(experiments: Experiments) -> str:
    to = functools.partial(gain, experiments)
    return "\n".join([
        f"- The inference pipeline: SAM {to('table5', 'SAM', 'SAM, whole frame')}, "
        f"SAM2 {to('table5', 'SAM2', 'SAM2, whole frame')}.",
        f"- ROS-SAM: minus SAM {to('table5', 'ROS-SAM', 'SAM')}, minus fine-tuned HQ-SAM "
        f"{to('table5', 'ROS-SAM', 'HQ-SAM')};\n  LoRA and last block add "
        f"{to('figure7', 'ROS-SAM, LoRA and last block', 'ROS-SAM, decoders only')} to its decoders.",
    ])  # fmt: skip


def ledger(table: pd.DataFrame) -> str:
    columns = ["claim", "published, per frame", "measured, per frame", "measured, each object", "verdict"]
    columns += ["p, adjusted"]
    rows = [" | ".join(str(value).replace("|", "/") for value in row) for row in table[columns].itertuples(index=False)]
    return "\n".join([f"| {' | '.join(columns)} |", "|---|---:|---:|---:|---|---:|", *(f"| {row} |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="full")
    parser.add_argument("--machine", default="AMD EPYC (Zen 4), 2 cores, bfloat16")
    options = parser.parse_args()
    experiments = Experiments(load_profile(options.profile))
    judgements = list(claims.judge(experiments))
    table = claim_table(judgements).head(len(judgements))  # without what cannot be tested
    summary = f"{sentences(experiments)}\n- {verdicts(judgements, table)}"

    content = f"{tables(experiments, IN_README, all_rows=False)}\n\n{summary}"
    text = README.read_text(encoding="utf-8")
    pattern = re.compile(r"(<!-- results -->\n).*?(\n<!-- end -->)", re.DOTALL)
    text, count = pattern.subn(lambda found: found[1] + content + found[2], text)
    if count != 1:
        raise SystemExit(f"{README}: has {count} places <!-- results --> … <!-- end -->, expected one")
    README.write_text(text, encoding="utf-8")

    names = [name for name in experiments.specs if name in experiments.tables]
    parts = [
        f"# Results of the profile `{options.profile}`",
        f"{experiments.profile.notice} IoU in percent; published numbers and the second column score frames. "
        "Differences are paired, in points, with 95% intervals over videos and training runs. Measured on "
        f"{options.machine}; written by `python docs/make_results.py`.",
        summary,
        "## Tables",
        tables(experiments, names, all_rows=True),
        "## The ledger: claims of the paper",
        ledger(table),
    ]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
