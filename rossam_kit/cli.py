"""`rossam …`: the command line, thin over the package."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import cache_dir
from rossam_core.progress import duration
from rossam_kit import config
from rossam_kit.convert import command as convert

ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; bad input ends with its message and status 2, a failed notebook with status 1."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is printed as an escape
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    if os.environ.get("ROSSAM_CACHE"):
        os.environ["ROSSAM_CACHE"] = str(_from_caller(os.environ["ROSSAM_CACHE"]))  # kernels run in another folder
    try:
        return options.command(options)
    except RossamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; start the same command again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rossam", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a profile's notebooks and build its report (what run_all.sh calls)")
    run.add_argument("--profile", default="demo", help="demo (default), smoke, nwpu, paper, or a path to a YAML file")
    run.add_argument("--only", metavar="NN", help="only the notebook whose name begins so, e.g. 02")
    run.add_argument("--from", dest="start", metavar="NN", help="this notebook and those after it")
    run.add_argument("--fresh", action="store_true", help="forget this profile's report and scores first")
    run.add_argument("--data", metavar="DIR", help="folder that holds the datasets' folders (profiles nwpu, paper)")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at a time, where memory allows")
    run.add_argument("--device", help="cpu, cuda, mps; default: the best there is")
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a profile key, e.g. inference.rate=4"
    )
    run.add_argument("--report", metavar="DIR", help="folder to write to; default reports/PROFILE")
    run.add_argument("--list", action="store_true", help="list profiles and notebooks and stop")
    run.add_argument("--dry-run", action="store_true", help="say what is there, what is missing, what would run; stop")
    run.add_argument("--two-steps", action="store_true", help="run all that has its data for two training steps")
    run.set_defaults(command=_run)

    rows = commands.add_parser("rows", help="show in which settings the rows of the tables differ")
    rows.add_argument(
        "table", nargs="?", metavar="TABLE", help="a table of experiments.yaml, e.g. table4; default: all"
    )
    rows.add_argument("--profile", default="demo", help="demo (default), full, nwpu, …, or a path to a YAML file")
    rows.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a profile key")
    rows.add_argument("--json", action="store_true", help="all settings of every row, for programs")
    rows.set_defaults(command=_rows)

    fetch = commands.add_parser("fetch", help="bring datasets and checkpoints here, or say what is here (--check)")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="e.g. sam_vit_l nwpu-vhr10; none: list what there is")
    fetch.add_argument("--yes", action="store_true", help="do not ask before fetching")
    fetch.add_argument("--from", dest="mirror", metavar="DIR_OR_URL", help="take the files from this folder or address")
    fetch.add_argument("--check", action="store_true", help="only say what is there, missing or broken")
    fetch.add_argument("--data", metavar="DIR", help="folder of datasets to look through, with --check")
    fetch.set_defaults(command=_fetch)

    convert.add_parser(commands, _overrides)
    return parser


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    values = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise RossamError(f"--set {pair}", "has no '='", "write KEY=VALUE, e.g. --set inference.rate=4")
        try:
            values[key] = _anchored(key, yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise RossamError(f"--set {pair}", f"its value is not valid YAML ({error})", "quote it") from error
    return values


def _anchored(key: str, value: Any) -> Any:
    """The value of a profile key with absolute paths: notebooks run in a folder of their own."""
    if isinstance(value, dict):
        return {name: _anchored(f"{key}.{name}", inner) for name, inner in value.items()}
    is_path = key == "model.checkpoint" or (key.split(".")[0] in ("data", "datasets") and key.endswith(".root"))
    return str(_from_caller(value)) if is_path and isinstance(value, str) and value != "default" else value


def _run(options: argparse.Namespace) -> int:
    from rossam_kit.datasets.loading import boxes_only, keep_manifests
    from rossam_kit.experiments import planning
    from rossam_kit.report import notebooks, provenance
    from rossam_kit.report.report import build_report

    overrides = _overrides(options.set)
    if options.device and overrides.setdefault("device", options.device) != options.device:
        raise RossamError(f"--device {options.device}", f"--set device={overrides['device']}", "name one of them")
    if options.list:
        return _list(notebooks)
    name = options.profile
    if Path(name).suffix in (".yaml", ".yml"):
        name = str(_from_caller(name))
    requested = dict(overrides)
    if options.data:
        overrides |= _roots(name, overrides, _from_caller(options.data))
    profile = config.load_profile(name, overrides)
    _refuse_without_effect(options, profile, requested)
    if options.dry_run:
        return _dry_run(profile, options)
    names = notebooks.select(profile.notebooks, options.only, options.start)
    report_dir = _from_caller(options.report) if options.report else ROOT / "reports" / profile.name
    if options.two_steps:
        overrides, names = _two_steps(profile, overrides, names)
        profile = config.load_profile(name, overrides)
        report_dir = report_dir if options.report else report_dir.with_name(f"{profile.name}-two-steps")
    else:
        _refuse_missing_data(profile, names)
    if options.fresh:
        _forget(report_dir, profile.name)
    parameters = {"profile": name, "overrides": json.dumps(overrides), "report_dir": str(report_dir)}
    started = time.time()
    outcomes = notebooks.run(
        names,
        parameters,
        report_dir,
        settings=profile.model_dump(mode="json"),
        expected_seconds=notebooks.expected_seconds(names, profile.name),
        jobs=options.jobs,
        boxes_only=any(planning.needs(profile, notebook) for notebook in names) and boxes_only(profile.data),
    )
    found = provenance.collect(profile, notebooks.read_state(report_dir))
    if profile.data.sample is not None and any(outcome.status == "done" for outcome in outcomes):
        keep_manifests(profile.data, report_dir / "samples")
    index = build_report(report_dir, profile, found, failed=notebooks.failed(report_dir))
    print(f"\n{'notebook':<28}{'status':<10}{'time':>8}")
    for outcome in outcomes:
        reason = {"killed": "  most likely for want of memory", "skipped": f"  {outcome.message}"}.get(
            outcome.status, ""
        )
        print(f"{outcome.notebook:<28}{outcome.status:<10}{duration(outcome.seconds):>8}{reason}")
    failed = [outcome for outcome in outcomes if outcome.status in notebooks.FAILURES]
    skipped = sum(outcome.status == "skipped" for outcome in outcomes)
    print(f"\n{len(failed)} failed, " if failed else "\nAll done, ", end=f"{skipped} skipped, " if skipped else "")
    print(f"{duration(time.time() - started)} in all. Open the report:\n  {index}")
    return 1 if failed else 0


def _roots(name: str, overrides: dict[str, Any], folder: Path) -> dict[str, str]:
    """`--data DIR` as overrides: the root of every real dataset that names none itself."""
    profile = config.load_profile(name, {**overrides, "data.root": str(folder)})
    others = {n: data for n, data in profile.datasets.items() if data.source != "synthetic" and data.root is None}
    return {"data.root": str(folder)} | {f"datasets.{n}.root": str(folder) for n in others}


def _refuse_without_effect(options: argparse.Namespace, profile: config.Profile, overrides: dict[str, Any]) -> None:
    """Raise `RossamError` where options are set that nothing of this profile reads, all at once."""
    problems = ProblemList("rossam run")
    problems.extend((f"--set {key}", reason) for key, reason in config.without_effect(profile, overrides).items())
    if options.data and all(data.source == "synthetic" for data in (profile.data, *profile.datasets.values())):
        problems.add(f"--data {options.data}", f"has no effect: all data of profile {profile.name} is generated")
    problems.raise_if_any("leave these out, or choose a profile or data.source that reads them")


def _refuse_missing_data(profile: config.Profile, names: list[str]) -> None:
    """Stop before the first notebook where the data that most tables are scored on is not there."""
    from rossam_kit.datasets.loading import root_of
    from rossam_kit.experiments import experiments, planning

    if profile.data.source != "synthetic" and any(
        experiments.MAIN_DATASET in planning.needs(profile, name) for name in names
    ):
        root_of(profile.data)


def _dry_run(profile: config.Profile, options: argparse.Namespace) -> int:
    from rossam_kit.report.dry_run import checklist

    words = [f"--profile {options.profile}"]
    words += [f"--data {options.data}"] if options.data else []
    words += [f"--device {options.device}"] if options.device else []
    words += [f"--set {shlex.quote(pair)}" for pair in options.set]
    print("Looking through data, weights and cached results …", file=sys.stderr)
    told = checklist(profile, command=" ".join(words))
    print("\n".join(told.lines))
    return 0 if told.is_complete else 1


def _two_steps(
    profile: config.Profile, overrides: dict[str, Any], names: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Overrides and notebooks of a trial of everything whose data is here."""
    from rossam_kit.experiments import planning

    missing = planning.missing_datasets(profile)
    here = [notebook for notebook in names if planning.can_run(profile, notebook, missing)]
    for notebook in names:
        if notebook not in here:
            print(f"left out: {notebook} waits for {', '.join(planning.waits_for(profile, notebook, missing))}")
    return overrides | planning.two_steps(profile), here


def _from_caller(path: str | Path) -> Path:
    """An absolute path; relative ones start where the user stood when calling run_all.sh."""
    return (Path(os.environ.get("ROSSAM_CALLED_FROM", ".")) / Path(path).expanduser()).resolve()


def _forget(report_dir: Path, profile: str) -> None:
    """Remove a report's own files and the profile's kept scores; nothing else that may lie in the folder."""
    if (report_dir / "state.json").exists():
        for name in ("parts", "notebooks"):
            shutil.rmtree(report_dir / name, ignore_errors=True)
        for name in ("index.html", "state.json"):
            (report_dir / name).unlink(missing_ok=True)
    shutil.rmtree(cache_dir() / "scores" / profile, ignore_errors=True)


def _list(notebooks) -> int:
    for name in config.profile_names():
        profile = config.load_profile(name)
        print(f"{name}: {profile.title}")
        for notebook, seconds in notebooks.expected_seconds(profile.notebooks, name).items():
            print(
                f"    {notebook:<28} "
                + ("see --dry-run" if name == "paper" else f"about {duration(seconds)} on 2 cores")
            )
    return 0


def _rows(options: argparse.Namespace) -> int:
    from rossam_kit.experiments.experiments import Experiments
    from rossam_kit.experiments.rows import rows_text, table_rows

    experiments = Experiments(config.load_profile(options.profile, _overrides(options.set)))
    if options.table and options.table not in experiments.specs:
        raise RossamError(f"table {options.table}", "is not known", f"use one of {', '.join(experiments.specs)}")
    shown = [options.table] if options.table else [name for name in experiments.specs if name in experiments.tables]
    rows = [row for table in shown for row in table_rows(experiments, table)]
    print(json.dumps(rows, indent=1) if options.json else rows_text(rows))
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from rossam_kit.datasets import catalogue, fetch

    data = _from_caller(options.data) if options.data else None
    if options.mirror and (options.check or not options.names):
        raise RossamError("--from", "has no effect where nothing is fetched", "name what to fetch, without --check")
    if options.check:
        return _print_states(fetch.check(options.names, data), data)
    if data is not None:
        raise RossamError("--data", "says where --check looks", "add --check; ROSSAM_CACHE says where files are put")
    if not options.names:
        for name, entry in catalogue.catalogue().items():
            print(f"{name:<24}{catalogue.size_text(entry.bytes):<14}{entry.title}; {entry.licence}")
        return 0
    mirror = options.mirror
    if mirror and "://" not in mirror:
        mirror = str(_from_caller(mirror))
    confirm = (lambda question: True) if options.yes else _ask
    return 0 if fetch.fetch(options.names, mirror=mirror, confirm=confirm) else 1


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        raise RossamError("fetch", "nobody is there to be asked: this is no terminal", "add --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _print_states(states, data: Path | None) -> int:
    from rossam_kit.datasets import catalogue

    for status in states:
        print(f"{status.state:<9}{status.name:<24}{status.path}")
        for line in status.details:
            print(f"{'':<9}{line}")
        if status.state != "ok":
            steps = catalogue.steps_by_hand(status.name, data) or [f"rossam fetch {status.name}"]
            for number, step in enumerate(steps, start=1):
                print(f"{'':<9}to do{f' {number}' if len(steps) > 1 else ''}: {step}")
    wrong = [status.name for status in states if status.state != "ok"]
    print(f"\n{len(states) - len(wrong)} of {len(states)} are there" + (f"; not: {', '.join(wrong)}" if wrong else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
