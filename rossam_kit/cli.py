"""`rossam …`: the command line, thin over the package."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import cache_dir
from rossam_kit import config, evaluate_command, train_command
from rossam_kit.convert import command as convert
from rossam_kit.convert import import_command
from rossam_kit.options import Device, Options, Settings, example, from_caller, read_settings
from rossam_kit.progress import duration

if TYPE_CHECKING:
    from rossam_kit.report.runner import Outcome

ROOT = Path(__file__).parents[1]
INTERRUPTED = 130


app = typer.Typer(
    help="Boxes to masks with ROS-SAM: the paper's experiments, and your own data.",
    rich_markup_mode=None,
    add_completion=False,
)
app.command("convert", epilog=convert.EXAMPLES)(convert.convert_command)
app.command("import-masks", epilog=import_command.EXAMPLES)(import_command.import_command)
app.command("train", epilog=train_command.EXAMPLES)(train_command.train_command)
app.command("evaluate", epilog=evaluate_command.EXAMPLES)(evaluate_command.evaluate_command)

ProfileName = Annotated[
    str, typer.Option("--profile", metavar="NAME", help="smoke, demo, full, nwpu, paper, or a path to a YAML file")
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; bad input ends with its message and status 2, a failed notebook with status 1."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is printed as an escape
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    if os.environ.get("ROSSAM_CACHE"):
        os.environ["ROSSAM_CACHE"] = str(from_caller(os.environ["ROSSAM_CACHE"]))  # kernels run in another folder
    try:
        status = typer.main.get_command(app).main(arguments, prog_name="rossam", standalone_mode=False)
    except RossamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except UnicodeEncodeError as error:  # of a file name, as in a C locale
        finding = f"does not exist in this system's encoding, {error.encoding}"
        remedy = "rename the file" if error.encoding == "utf-8" else "set PYTHONUTF8=1 for UTF-8, or rename the file"
        print(f"error: {RossamError(repr(error.object), finding, remedy)}", file=sys.stderr)
        return 2
    except typer.TyperException as error:  # an unknown command or option, or a value that does not fit it
        command = error.ctx.command_path if getattr(error, "ctx", None) else "rossam"
        print(f"error: {error.format_message()}\n  Remedy: see `{command} --help`", file=sys.stderr)
        return 2
    except typer.Abort:
        status = INTERRUPTED
    if status == INTERRUPTED:
        print("\ninterrupted; start the same command again to go on", file=sys.stderr)
    return status or 0


@app.command(
    epilog=example(
        "rossam run --profile smoke", "rossam run --profile nwpu --data DIR --only 02 --set inference.rate=4"
    )
)
def run(
    *,
    profile: ProfileName = "demo",
    only: Annotated[
        str | None, typer.Option(metavar="NN", help="only the notebook whose name begins so, e.g. 02")
    ] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="NN", help="this notebook and those after it")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="forget this profile's report and scores first")] = False,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="folder that holds the datasets' folders (profiles nwpu, paper)")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="notebooks at a time; default: one per core, if memory allows"),
    ] = None,
    device: Device = None,
    set: Settings,
    report: Annotated[
        str | None, typer.Option(metavar="DIR", help="folder to write to; default: reports/PROFILE")
    ] = None,
    list: Annotated[bool, typer.Option("--list", help="list profiles and notebooks and stop")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what is there, what is missing, what would run; stop")
    ] = False,
    two_steps: Annotated[
        bool, typer.Option("--two-steps", help="run all that has its data for two training steps")
    ] = False,
) -> int:
    """Run a profile's notebooks and build its report."""
    return _run(Options(**locals()))


@app.command(epilog=example("rossam rows table4 --profile full"))
def rows(
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="a table of experiments.yaml; default: all")
    ] = None,
    *,
    profile: ProfileName = "demo",
    set: Settings,
    json: Annotated[bool, typer.Option("--json", help="all settings of every row, for programs")] = False,
) -> int:
    """Show in which settings the rows of the tables differ."""
    return _rows(Options(**locals()))


@app.command(epilog=example("rossam fetch sam_vit_l nwpu-vhr10 --yes", "rossam fetch --check --data DIR"))
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="e.g. sam_vit_l nwpu-vhr10; none: list what there is"),
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask before fetching")] = False,
    mirror: Annotated[
        str | None, typer.Option("--from", metavar="DIR_OR_URL", help="take the files from this folder or address")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="only say what is there, missing or broken")] = False,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="folder of datasets to look through, with --check")
    ] = None,
) -> int:
    """Fetch datasets and checkpoints, or check them."""
    return _fetch(Options(names=names or [], yes=yes, mirror=mirror, check=check, data=data))


def _run(options: Options) -> int:
    from rossam_kit.datasets.loading import boxes_only, keep_manifests
    from rossam_kit.experiments import planning
    from rossam_kit.report import runner
    from rossam_kit.report.book import build_book

    overrides = read_settings(options.set)
    if options.device and overrides.setdefault("device", options.device) != options.device:
        raise RossamError(f"--device {options.device}", f"--set device={overrides['device']}", "name one of them")
    if options.list:
        return _list(runner)
    name = options.profile
    if Path(name).suffix in (".yaml", ".yml"):
        name = str(from_caller(name))
    requested = dict(overrides)
    if options.data:
        overrides |= _roots(name, overrides, from_caller(options.data))
    profile = config.load_profile(name, overrides)
    _refuse_without_effect(options, profile, requested)
    if options.dry_run:
        return _dry_run(profile, options)
    names = runner.select(profile.notebooks, options.only, options.start)
    report_dir = from_caller(options.report) if options.report else ROOT / "reports" / profile.name
    if options.two_steps:
        overrides, names = _two_steps(profile, overrides, names)
        profile = config.load_profile(name, overrides)
        report_dir = report_dir if options.report else report_dir.with_name(f"{profile.name}-two-steps")
    else:
        _refuse_missing_data(profile, names)
    if options.fresh:
        _forget(report_dir, profile.name)
    started = time.time()
    without_masks = any(planning.needs(profile, notebook) for notebook in names) and boxes_only(profile.data)
    outcomes = runner.run(
        names,
        {"profile": name, "overrides": overrides},
        report_dir,
        compute=None if without_masks else functools.partial(planning.compute, profile, names),
        jobs=options.jobs or planning.notebooks_at_a_time(profile),
        boxes_only=without_masks,
        expected_seconds=runner.expected_seconds(profile.name),
    )
    if profile.data.sample is not None and any(outcome.status == "done" for outcome in outcomes):
        keep_manifests(profile.data, report_dir / "samples")
    index = build_book(
        report_dir, profile, {outcome.notebook: outcome.message for outcome in outcomes if outcome.status == "skipped"}
    )
    return _print_outcomes(outcomes, time.time() - started, index)


def _print_outcomes(outcomes: Sequence[Outcome], seconds: float, index: Path) -> int:
    """Print what became of each notebook, and where the report is; the exit status."""
    print(f"\n{'notebook':<28}{'status':<10}{'time':>8}")
    for outcome in outcomes:
        reason = f"  {outcome.message}" if outcome.status == "skipped" else ""
        print(f"{outcome.notebook:<28}{outcome.status:<10}{duration(outcome.seconds):>8}{reason}")
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    skipped = sum(outcome.status == "skipped" for outcome in outcomes)
    print(f"\n{len(failed)} failed, " if failed else "\nAll done, ", end=f"{skipped} skipped, " if skipped else "")
    print(f"{duration(seconds)} in all. Open the report:\n  {index}")
    return 1 if failed else 0


def _roots(name: str, overrides: dict[str, Any], folder: Path) -> dict[str, str]:
    """`--data DIR` as overrides: the root of every real dataset that names none itself."""
    profile = config.load_profile(name, {**overrides, "data.root": str(folder)})
    others = {n: data for n, data in profile.datasets.items() if data.source != "synthetic" and data.root is None}
    return {"data.root": str(folder)} | {f"datasets.{n}.root": str(folder) for n in others}


def _refuse_without_effect(options: Options, profile: config.Profile, overrides: dict[str, Any]) -> None:
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


def _dry_run(profile: config.Profile, options: Options) -> int:
    from rossam_kit.report.dry_run import checklist

    words = [f"--profile {options.profile}"]
    words += [f"--data {options.data}"] if options.data else []
    words += [f"--device {options.device}"] if options.device else []
    words += [f"--set {shlex.quote(pair)}" for pair in options.set]
    print("Looking through data, weights and cached results …", file=sys.stderr)
    page = checklist(profile, command=" ".join(words))
    print("\n".join(page.lines))
    return 0 if page.is_complete else 1


def _two_steps(
    profile: config.Profile, overrides: dict[str, Any], names: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Overrides and notebooks of a trial of everything whose data is here."""
    from rossam_kit.experiments import planning

    missing = planning.missing_datasets(profile)
    lacking = {notebook: planning.waits_for(profile, notebook, missing) for notebook in names}
    for notebook, sources in lacking.items():
        if sources:
            print(f"left out: {notebook} waits for {', '.join(sources)}")
    return overrides | planning.two_steps(profile), [notebook for notebook in names if not lacking[notebook]]


def _forget(report_dir: Path, profile: str) -> None:
    """Remove a report's own files and the profile's cached scores; nothing else that may lie in the folder."""
    if (report_dir / "notebooks").is_dir():
        for name in ("notebooks", "_static"):
            shutil.rmtree(report_dir / name, ignore_errors=True)
        for file in [*report_dir.glob("*.html"), report_dir / "searchindex.js"]:
            file.unlink(missing_ok=True)
    shutil.rmtree(cache_dir() / "scores" / profile, ignore_errors=True)


def _list(runner) -> int:
    for name in config.profile_names():
        profile = config.load_profile(name)
        measured = runner.expected_seconds(name)
        print(f"{name}: {profile.title}")
        for notebook in profile.notebooks:
            time_text = f"about {duration(measured[notebook])} on 2 cores" if notebook in measured else "not timed"
            print(f"    {notebook:<28} {time_text}")
    return 0


def _rows(options: Options) -> int:
    from rossam_kit.experiments.experiments import Experiments
    from rossam_kit.experiments.rows import rows_text, table_rows

    experiments = Experiments(config.load_profile(options.profile, read_settings(options.set)))
    if options.table and options.table not in experiments.specs:
        raise RossamError(f"table {options.table}", "is not known", f"use one of {', '.join(experiments.specs)}")
    shown = [options.table] if options.table else [name for name in experiments.specs if name in experiments.tables]
    rows = [row for table in shown for row in table_rows(experiments, table)]
    print(json.dumps(rows, indent=1) if options.json else rows_text(rows))
    return 0


def _fetch(options: Options) -> int:
    from rossam_kit.datasets import catalogue, fetch

    data = from_caller(options.data) if options.data else None
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
        mirror = str(from_caller(mirror))
    confirm = (lambda question: True) if options.yes else _ask
    return 0 if fetch.fetch(options.names, mirror=mirror, confirm=confirm) else 1


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        raise RossamError("fetch", "cannot ask for confirmation: this is no terminal", "add --yes")
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
