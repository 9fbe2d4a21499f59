"""The README's tables of results, written between its markers from a profile's scores; what is missing is computed.

Usage: python docs/make_results.py [--profile full] [--tables table1 table3 …]
"""

import argparse
import re
from pathlib import Path

from rossam_kit.config import load_profile
from rossam_kit.experiments.experiments import Experiments
from rossam_kit.experiments.statistics import Interval
from rossam_kit.report.tables import ComparisonRow, comparison_rows

README = Path(__file__).resolve().parents[1] / "README.md"
TABLES = ("table5", "table4", "figure7")
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
    printed = f"{row.published.iou:.1f}" if row.published else ""
    measured = [percent(row.frame_iou), percent(row.iou), points(row.difference)]
    return f"| {' | '.join([row.setting, printed, *measured])} |".replace("|  |", "| |")


def tables(experiments: Experiments, names: list[str]) -> str:
    lines, printed = [HEADING], set[str]()
    for name in names:
        spec = experiments.specs[name]
        rows = comparison_rows(name, experiments.results(name), left_out=experiments.left_out(name))
        command = f"`./run_all.sh --profile {experiments.profile.name} --only {spec.notebook[:2]}`"
        lines.append(f"| **{spec.title}**: {command} | | | | *to {spec.reference}* |")
        shown = [row for row in rows if row.iou and not (row.setting == spec.reference and row.setting in printed)]
        lines += [line(row) for row in shown]  # a reference row of two tables stands once
        printed |= {row.setting for row in shown}
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="full")
    parser.add_argument("--tables", nargs="+", default=list(TABLES))
    options = parser.parse_args()
    experiments = Experiments(load_profile(options.profile))
    text = README.read_text(encoding="utf-8")
    pattern = re.compile(r"(<!-- results -->\n).*?(\n<!-- end -->)", re.DOTALL)
    content = tables(experiments, options.tables)
    text, count = pattern.subn(lambda found: found[1] + content + found[2], text)
    if count != 1:
        raise SystemExit(f"{README}: has {count} places <!-- results --> … <!-- end -->, expected one")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
