"""`rossam …`: the command line, thin over the package."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from . import config
from .errors import RossamError
from .files import cache_dir
from .progress import duration

ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; bad input ends with its message and status 2, a failed notebook with status 1."""
    options = _parser().parse_args(arguments)
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
    run.add_argument("--profile", default="demo", help="demo (default), smoke, nwpu, or a path to a YAML file")
    run.add_argument("--only", metavar="NN", help="only the notebook whose name begins so, e.g. 02")
    run.add_argument("--from", dest="start", metavar="NN", help="this notebook and those after it")
    run.add_argument("--fresh", action="store_true", help="forget this profile's report and scores first")
    run.add_argument("--data", metavar="DIR", help="folder of real data (profile nwpu)")
    run.add_argument("--device", help="cpu, cuda, mps; default: the best there is")
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a profile key, e.g. inference.rate=4"
    )
    run.add_argument("--report", metavar="DIR", help="folder to write to; default reports/PROFILE")
    run.add_argument("--list", action="store_true", help="list profiles and notebooks and stop")
    run.set_defaults(command=_run)

    pretrain = commands.add_parser("pretrain", help="train the tiny prior from nothing on generated images; resumes")
    pretrain.add_argument("run_dir", type=Path, help="folder of checkpoints and log; an unfinished run there goes on")
    pretrain.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    pretrain.add_argument("--device", default="auto")
    pretrain.set_defaults(command=_pretrain)
    return parser


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    values = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise RossamError(f"--set {pair}", "has no '='", "write KEY=VALUE, e.g. --set inference.rate=4")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RossamError(f"--set {pair}", f"its value is not valid YAML ({error})", "quote it") from error
    return values


def _run(options: argparse.Namespace) -> int:
    from .reporting import notebooks, provenance
    from .reporting.report import build_report

    overrides = _overrides(options.set)
    if options.data:
        overrides["data.root"] = options.data
    if options.device:
        overrides["device"] = options.device
    if options.list:
        return _list(notebooks)
    name = options.profile
    if Path(name).suffix in (".yaml", ".yml"):
        name = str(_from_caller(name))
    for key in ("data.root", "model.checkpoint"):  # notebooks run in a folder of their own
        if overrides.get(key) not in (None, "default"):
            overrides[key] = str(_from_caller(overrides[key]))
    profile = config.load_profile(name, overrides)
    names = notebooks.select(profile.notebooks, options.only, options.start)
    report_dir = _from_caller(options.report) if options.report else ROOT / "reports" / profile.name
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
    )
    found = provenance.collect(profile, notebooks.read_state(report_dir))
    index = build_report(report_dir, profile, found, failed=notebooks.failed(report_dir))
    print(f"\n{'notebook':<28}{'status':<10}{'time':>8}")
    for outcome in outcomes:
        print(f"{outcome.notebook:<28}{outcome.status:<10}{duration(outcome.seconds):>8}")
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    print(f"\n{len(failed)} failed, " if failed else "\nAll done, ", end="")
    print(f"{duration(time.time() - started)} in all. Open the report:\n  {index}")
    return 1 if failed else 0


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
        overrides = {"data.root": "."} if name != "demo" else {}
        profile = config.load_profile(name, overrides)
        print(f"{name}: {profile.title}")
        for notebook, seconds in notebooks.expected_seconds(profile.notebooks, name).items():
            print(f"    {notebook:<28} about {duration(seconds)} on 2 cores")
    return 0


def _pretrain(options: argparse.Namespace) -> int:
    from .training.pretrain import PretrainConfig, pretrain

    settings = config.parse_config(PretrainConfig, _overrides(options.set), where="--set")
    pretrain(settings, options.run_dir, device=options.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
