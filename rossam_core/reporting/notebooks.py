"""Notebooks run in order by papermill, resumed where a run was cut off, with one line of progress.

In: a profile, its overrides and the names of notebooks. Out: `reports/<profile>/notebooks/NAME.{ipynb,html}`,
a state file that says what is done under which key, and a table of statuses.
"""

from __future__ import annotations

import base64
import copy
import os
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import nbformat
import numpy as np
import papermill
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from ..errors import RossamError
from ..files import read_json, sha256_of, stable_hash, write_json, write_text
from ..progress import VARIABLE, duration, read_status
from .provenance import commit, peak_gib

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PACKAGE = Path(__file__).parents[1]
STATE = "state.json"


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended.

    Attributes:
        status: `done`, `kept` (nothing had changed since it was last done) or `failed`.
        seconds: time it took when it ran.
        message: for a failure, the cell and its error.
    """

    notebook: str
    status: str
    seconds: float
    message: str = ""


def select(names: Sequence[str], only: str | None = None, start: str | None = None) -> list[str]:
    """Notebooks by prefix: `only="02"` that one, `start="04"` from there on; no match is a `RossamError`."""
    for option, prefix in (("--only", only), ("--from", start)):
        if prefix and not any(name.startswith(prefix) for name in names):
            raise RossamError(option, f"no notebook begins with {prefix!r}", f"use one of {', '.join(names)}")
    if only:
        return [name for name in names if name.startswith(only)]
    first = next((i for i, name in enumerate(names) if start and name.startswith(start)), 0)
    return list(names[first:])


def check_parameters(path: Path, parameters: Mapping[str, Any]) -> None:
    """Raise `RossamError` where the notebook's `parameters` cell does not know one of `parameters`."""
    if not path.exists():
        raise RossamError(path, "no such notebook", f"the notebooks lie in {NOTEBOOKS}")
    known = papermill.inspect_notebook(str(path))
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise RossamError(
            path,
            f"unknown parameter{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}",
            f"its parameters cell has {', '.join(known) or 'none'}",
        )


def execute(name: str, parameters: Mapping[str, Any], report_dir: Path, notebooks: Path = NOTEBOOKS) -> Path:
    """Run one notebook with `parameters` and keep it as HTML that opens offline, and as ipynb without outputs.

    Raises:
        RossamError: unknown parameter, a failing cell (with its number, source and error), or a dead kernel.
    """
    source = notebooks / f"{name}.ipynb"
    check_parameters(source, parameters)
    target = report_dir / "notebooks" / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder) / target.name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                papermill.execute_notebook(
                    str(source), str(executed), dict(parameters), kernel_name="python3",
                    progress_bar=False, log_output=False, start_timeout=300, extra_arguments=["--log-level=40"],
                    cwd=str(notebooks),
                )  # fmt: skip
        except PapermillExecutionError as error:
            shutil.copyfile(executed, target.with_suffix(".failed.ipynb"))
            raise RossamError(
                f"{source}, cell {error.exec_count}",
                f"{error.ename}: {error.evalue}\n\n{_indent(error.source)}",
                f"mend the cause and start again; the run as far as it came is {target.with_suffix('.failed.ipynb')}",
            ) from error
        except DeadKernelError as error:
            raise RossamError(
                source,
                "its kernel died, most likely killed by the system for want of memory",
                "close other programs, or lower inference.batch_size in the profile, and start again",
            ) from error
        target.with_suffix(".failed.ipynb").unlink(missing_ok=True)
        notebook = nbformat.read(executed, as_version=4)
        write_text(target.with_suffix(".html"), _offline_html(notebook, name))
        write_text(target, nbformat.writes(_without_outputs(notebook)))  # its text is woven into the report
    return target


def run(
    names: Sequence[str],
    parameters: Mapping[str, Any],
    report_dir: Path,
    notebooks: Path = NOTEBOOKS,
    *,
    settings: Any = None,
    expected_seconds: Mapping[str, float] | None = None,
) -> list[Outcome]:
    """Run notebooks in order, keeping what is done; after a failure the rest still runs.

    A notebook is kept when its own source, its parameters, the resolved `settings` and all of the package's files
    (source, configs, weights) are what they were when it was last done, and its executed copy is still there.
    """
    state = read_state(report_dir)
    expected = {name: (expected_seconds or {}).get(name, 60.0) for name in names}
    outcomes = []
    for position, name in enumerate(names):
        key = stable_hash(
            [(notebooks / f"{name}.ipynb").read_text("utf-8"), dict(parameters), settings, _package_digest()]
        )
        last = state.get(name, {})
        label = f"[{position + 1}/{len(names)}] {name}"
        if last.get("key") == key and (report_dir / "notebooks" / f"{name}.html").exists():
            outcomes.append(Outcome(name, "kept", last["seconds"]))
            print(f"{label}  nothing to do, done before in {duration(last['seconds'])}", flush=True)
            continue
        started = time.time()
        later = sum(expected[other] for other in names[position + 1 :])
        with _ProgressLine(label, expected[name], later):
            try:
                execute(name, parameters, report_dir, notebooks)
                outcome = Outcome(name, "done", time.time() - started)
            except Exception as error:  # whatever it is, the other notebooks and the report go on
                kind = "" if isinstance(error, RossamError) else f"{type(error).__name__}: "
                outcome = Outcome(name, "failed", time.time() - started, f"{kind}{error}")
        outcomes.append(outcome)
        print(f"{label}  {outcome.status} in {duration(outcome.seconds)}", flush=True)
        if outcome.status == "failed":
            print(f"\n{outcome.message}\n", file=sys.stderr, flush=True)
            (report_dir / "notebooks" / f"{name}.html").unlink(missing_ok=True)
        state[name] = {
            "key": key if outcome.status == "done" else None,
            "status": outcome.status,
            "seconds": outcome.seconds,
            "peak_gib": peak_gib(),
            "commit": commit(),
        }
        write_json(report_dir / STATE, state)
    return outcomes


def read_state(report_dir: Path) -> dict[str, dict[str, Any]]:
    """Notebook → how and when it was last run: status, seconds, peak memory so far, commit."""
    path = report_dir / STATE
    return read_json(path) if path.exists() else {}


def failed(report_dir: Path) -> list[str]:
    """Notebooks whose last run failed."""
    return [name for name, last in read_state(report_dir).items() if last["status"] == "failed"]


def expected_seconds(names: Sequence[str], profile: str, notebooks: Path = NOTEBOOKS) -> dict[str, float]:
    """Seconds each notebook took on 2 cores, from its metadata (`rossam.seconds.<profile>`); 60 where not measured."""
    seconds = {}
    for name in names:
        if not (notebooks / f"{name}.ipynb").exists():
            raise RossamError(f"notebooks: {name}", f"no such notebook in {notebooks}", "correct the profile's list")
        metadata = nbformat.read(notebooks / f"{name}.ipynb", as_version=4).metadata
        seconds[name] = float(metadata.get("rossam", {}).get("seconds", {}).get(profile, 60.0))
    return seconds


def _package_digest() -> str:
    files = sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return stable_hash([[str(path.relative_to(PACKAGE)), sha256_of(path)] for path in files])


def _indent(source: str) -> str:
    return "\n".join(f"      {line}" for line in source.strip().splitlines())


def _offline_html(notebook: NotebookNode, name: str) -> str:
    """The executed notebook as one HTML file that loads nothing from elsewhere."""
    exporter = HTMLExporter(template_name="lab", embed_images=True, theme="light")
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    html, _ = exporter.from_notebook_node(_lighter(notebook), resources={"metadata": {"name": name}})
    return _without_remote_scripts(html)


def _lighter(notebook: NotebookNode) -> NotebookNode:
    """The same with every picture as PNG or JPEG, whichever is smaller: charts are the one, photographs the other."""
    notebook = copy.deepcopy(notebook)
    for data in (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())):
        if "image/png" in data:
            png = base64.b64decode(data["image/png"])
            picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
            jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
            if len(jpeg) < len(png):
                del data["image/png"]
                data["image/jpeg"] = base64.b64encode(jpeg).decode()
    return notebook


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def _without_remote_scripts(html: str) -> str:
    """Drop script tags that would be fetched (MathJax, require.js, widget manager): nothing here needs them."""
    pieces, rest = [], html
    while "<script" in rest:
        before, tag = rest.split("<script", 1)
        head = tag.split(">", 1)[0]
        body, rest = tag.split("</script>", 1)
        remote = "http://" in body or "https://" in body or 'src="//' in head
        pieces += [before] if remote else [before, "<script", body, "</script>"]
    return "".join([*pieces, rest])


class _ProgressLine:
    """Keeps one line up to date while a notebook runs: step, bar, elapsed, time left in all.

    Without a terminal it prints a line every 20 seconds instead.
    """

    def __init__(self, label: str, expected: float, later: float):
        self.label, self.expected, self.later = label, expected, later
        self.terminal = sys.stdout.isatty()
        self._stop = threading.Event()

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        self._status = Path(self._folder.name) / "status.json"
        os.environ[VARIABLE] = str(self._status)
        self._started = time.time()
        print(f"{self.label}  starting", end="" if self.terminal else "\n", flush=True)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()
        os.environ.pop(VARIABLE, None)
        self._folder.cleanup()
        if self.terminal:
            print("\r\x1b[2K", end="")

    def _watch(self) -> None:
        while not self._stop.wait(0.5 if self.terminal else 20.0):
            line = self._line()
            width = shutil.get_terminal_size().columns
            print(
                f"\r\x1b[2K{line[: width - 1]}" if self.terminal else line,
                end="" if self.terminal else "\n",
                flush=True,
            )

    def _line(self) -> str:
        elapsed = time.time() - self._started
        status = read_status(self._status)
        parts = [self.label]
        here = max(self.expected - elapsed, 0.0)
        if status.get("total"):
            done, total = status["done"], status["total"]
            filled = round(16 * done / total)
            parts.append(f"{status['desc']} {'█' * filled}{'░' * (16 - filled)} {done}/{total}")
            if done:
                here = max(here, (time.time() - status["started"]) / done * (total - done))
        parts.append(f"{duration(elapsed)} so far, about {duration(here + self.later)} left in all")
        return "  ".join(parts)
