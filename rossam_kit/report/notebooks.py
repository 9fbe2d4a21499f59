"""A profile's notebooks, one after the other or several at a time, resumed where a run was cut off.

In: the names of notebooks and their parameters. Out: what `execution` makes of each, a state file that says what is
done under which key, and one line of progress. A notebook's metadata names in `rossam.after` those whose results it
shows without computing them itself, `*` for all; and in `rossam.needs_masks` that it is about masks of the data.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rossam_core.devices import core_count
from rossam_core.errors import RossamError
from rossam_core.files import read_json, sha256_of, stable_hash, write_json
from rossam_kit.progress import duration
from rossam_kit.report.execution import NOTEBOOKS, KilledError, execute, read_notebook
from rossam_kit.report.jobs import Job, finished
from rossam_kit.report.provenance import commit

PACKAGE = Path(__file__).parents[1]
STATE = "state.json"
FAILURES = ("failed", "killed")
USUAL_MEMORY = 3 * 2**30
"""Bytes a notebook is counted with at least; the demo's largest process takes 2.6 GiB."""


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended.

    Attributes:
        status: `done`, `kept` (nothing had changed since it was last done), `skipped`, `failed`, or `killed` (for
            memory).
        seconds: time it took when it ran.
        message: for a failure, the cell and its error; why it was skipped.
    """

    notebook: str
    status: str
    seconds: float
    message: str = ""


def select(names: Sequence[str], only: str | None = None, start: str | None = None) -> list[str]:
    """Notebooks by prefix: `only="02"` that one, `start="04"` from there on; no match is a `RossamError`."""
    if only and start:
        raise RossamError(f"--only {only} --from {start}", "are two choices of notebooks", "use one of them")
    for option, prefix in (("--only", only), ("--from", start)):
        if prefix and not any(name.startswith(prefix) for name in names):
            raise RossamError(option, f"no notebook begins with {prefix!r}", f"use one of {', '.join(names)}")
    if only:
        return [name for name in names if name.startswith(only)]
    first = next((i for i, name in enumerate(names) if start and name.startswith(start)), 0)
    return list(names[first:])


def run(
    names: Sequence[str],
    parameters: Mapping[str, Any],
    report_dir: Path,
    notebooks: Path = NOTEBOOKS,
    *,
    settings: Any = None,
    expected_seconds: Mapping[str, float] | None = None,
    jobs: int = 1,
    boxes_only: bool = False,
) -> list[Outcome]:
    """Run notebooks, keeping what is done; after a failure the rest still runs.

    A notebook is kept when its own source, its parameters, the resolved `settings` and all of the package's files
    (source, configs, weights) are what they were when it was last done, and its executed copy is still there.

    Args:
        jobs: how many may run at a time. Another starts only while memory is free for it, and each gets its share
            of the processor's cores.
        boxes_only: the data has no masks. Notebooks whose metadata has `rossam.needs_masks` are skipped, the others
            run without their cells that need masks.

    Returns:
        The outcomes, in the order of `names`.
    """
    if jobs < 1:
        raise RossamError("--jobs", f"is {jobs}, expected 1 or more", "say how many notebooks may run at a time")
    state = read_state(report_dir)
    keys = {name: _key(notebooks / f"{name}.ipynb", parameters, [settings, boxes_only]) for name in names}
    labels = {name: f"[{position}/{len(names)}] {name}" for position, name in enumerate(names, 1)}
    outcomes = {}
    for name in names:
        if boxes_only and _metadata(notebooks / f"{name}.ipynb").get("needs_masks"):
            outcomes[name] = Outcome(name, "skipped", 0.0, "it needs masks, and the data has boxes only")
            print(f"{labels[name]}  skipped: {outcomes[name].message}", flush=True)
            continue
        last = state.get(name, {})
        if last.get("key") == keys[name] and (report_dir / "notebooks" / f"{name}.html").exists():
            outcomes[name] = Outcome(name, "kept", last["seconds"])
            print(f"{labels[name]}  nothing to do, done before in {duration(last['seconds'])}", flush=True)

    def work(job: Job) -> None:
        execute(job.name, parameters, report_dir, notebooks, job.kernel, boxes_only=boxes_only)

    todo = [
        Job(
            name,
            labels[name],
            expected=(expected_seconds or {}).get(name, 60.0),
            need=max(state.get(name, {}).get("peak_gib", 0.0) * 2**30, USUAL_MEMORY),
            after=_metadata(notebooks / f"{name}.ipynb").get("after", ()),
            variables=_share_of_cores(jobs),
        )
        for name in names
        if name not in outcomes
    ]
    for job, error in finished(todo, jobs, work):
        outcome = outcomes[job.name] = _outcome(job, error)
        _tell(job.label, outcome)
        if outcome.status in FAILURES:
            (report_dir / "notebooks" / f"{job.name}.html").unlink(missing_ok=True)
        key = keys[job.name] if outcome.status == "done" else None
        about = {"status": outcome.status, "seconds": outcome.seconds, "peak_gib": job.peak / 2**30}
        state[job.name] = {"key": key, "commit": commit(), **about}
        write_json(report_dir / STATE, state)
    return [outcomes[name] for name in names]


def read_state(report_dir: Path) -> dict[str, dict[str, Any]]:
    """Notebook → how and when it was last run: status, seconds, peak memory, commit."""
    path = report_dir / STATE
    return read_json(path) if path.exists() else {}


def failed(report_dir: Path) -> list[str]:
    """Notebooks whose last run failed."""
    return [name for name, last in read_state(report_dir).items() if last["status"] in FAILURES]


def expected_seconds(names: Sequence[str], profile: str, notebooks: Path = NOTEBOOKS) -> dict[str, float]:
    """Seconds each notebook took on 2 cores, from its metadata (`rossam.seconds.<profile>`); 60 where not measured."""
    seconds = {}
    for name in names:
        if not (notebooks / f"{name}.ipynb").exists():
            raise RossamError(f"notebooks: {name}", f"no such notebook in {notebooks}", "correct the profile's list")
        seconds[name] = float(_metadata(notebooks / f"{name}.ipynb").get("seconds", {}).get(profile, 60.0))
    return seconds


def _metadata(path: Path) -> dict[str, Any]:
    """What the kit itself has noted in a notebook."""
    return read_notebook(path).metadata.get("rossam", {})


def _outcome(job: Job, error: BaseException | None) -> Outcome:
    """How the job ended, whatever it raised: the other notebooks and the report go on."""
    if error is None:
        return Outcome(job.name, "done", job.seconds)
    status = "killed" if isinstance(error, KilledError) else "failed"
    kind = "" if isinstance(error, RossamError) else f"{type(error).__name__}: "
    return Outcome(job.name, status, job.seconds, f"{kind}{error}")


def _tell(label: str, outcome: Outcome) -> None:
    print(f"{label}  {outcome.status} in {duration(outcome.seconds)}", flush=True)
    if outcome.message:
        print(f"\n{outcome.message}\n", file=sys.stderr, flush=True)


def _share_of_cores(jobs: int) -> dict[str, str]:
    """Environment variables that leave each of `jobs` kernels its part of the processor, where nobody has said how."""
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(core_count() // jobs, 1))}


def _key(path: Path, parameters: Mapping[str, Any], settings: Any) -> str:
    """Hash of all that may change what a notebook shows."""
    return stable_hash([path.read_text("utf-8"), dict(parameters), settings, _package_digest()])


@functools.cache
def _package_digest() -> str:
    files = sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return stable_hash([[str(path.relative_to(PACKAGE)), sha256_of(path)] for path in files])
