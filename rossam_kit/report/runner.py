"""Run a profile's notebooks with papermill, each in a kernel of its own, into the report's folder.

What their tables need may be computed first, by worker processes that all notebooks share. Results are cached by
content, so a notebook that is run again computes only what changed. A notebook whose metadata has
`rossam.needs_masks` is about masks.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import yaml
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from rossam_core.devices import core_count
from rossam_core.errors import RossamError
from rossam_core.files import cache_dir, write_text
from rossam_kit.progress import VARIABLE, duration, read_status

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
DURATIONS = Path(__file__).parents[1] / "durations.yaml"
RESULTS = "results"
"""Name of what is computed before the first notebook."""
LONGEST_SOCKET = 98
"""Characters of a socket's path; the system's limit is 104 to 108, and Jupyter adds `-N`."""
logging.getLogger("papermill").setLevel(logging.CRITICAL)  # its errors are raised here as RossamError


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended: `status` is done, skipped or failed; `message` is the reason or the error."""

    notebook: str
    status: str
    seconds: float = 0.0
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
    compute: Callable[[], None] | None = None,
    jobs: int = 1,
    boxes_only: bool = False,
    expected_seconds: Mapping[str, float] | None = None,
) -> list[Outcome]:
    """Run notebooks in order; after a failure the rest still runs.

    Args:
        compute: called in this process before the first notebook, to fill the cache. Where it fails, the notebooks
            compute, and show, what they can.
        jobs: how many run at a time, each on its share of the processor's cores.
        boxes_only: the data has no masks: notebooks and cells that need masks are left out.
        expected_seconds: durations on another machine, of notebooks and of `RESULTS`, the call of `compute`; scaled by
            those that have ended here, they give the time left.

    Returns:
        The outcomes, in the order of `names`.
    """
    if jobs < 1:
        raise RossamError("--jobs", f"is {jobs}, expected 1 or more", "state how many notebooks may run at a time")
    labels = {name: f"[{position}/{len(names)}] {name}" for position, name in enumerate(names, 1)}
    expected, outcomes = expected_seconds or {}, {}
    arguments = parameters, report_dir, notebooks, boxes_only
    first, tasks = {RESULTS: functools.partial(_compute, compute)} if compute else {}, {}
    for name in names:
        about = read_notebook(notebooks / f"{name}.ipynb").metadata.get("rossam", {})
        if boxes_only and about.get("needs_masks"):
            outcomes[name] = Outcome(name, "skipped", message="it needs masks, and the data has boxes only")
            print(f"{labels[name]}  skipped: {outcomes[name].message}", flush=True)
        else:
            tasks[name] = functools.partial(execute, name, *arguments)
    pace = _Pace({name: expected.get(name) for name in (*first, *tasks)}, jobs)
    for stage in (first, tasks):
        outcomes |= _run_stage(stage, labels | {RESULTS: "[results]"}, jobs, pace)
    return [outcomes[name] for name in names]


class _Pace:
    """Time left of a run: expected durations of what has not ended, scaled by how long the others took here."""

    def __init__(self, expected: Mapping[str, float | None], jobs: int):
        self.expected, self.jobs, self.seconds = dict(expected), jobs, dict[str, float]()

    def left(self, running: Mapping[str, float]) -> float | None:
        """Seconds left, with the elapsed seconds of running notebooks; None where a duration is not known."""
        if None in self.expected.values():
            return None
        ended = sum(self.expected[name] for name in self.seconds)
        factor = (sum(self.seconds.values()) + 60) / (ended + 60)  # the first short notebooks say little
        waiting = {name: factor * self.expected[name] for name in self.expected if name not in self.seconds}
        left = {name: max(seconds - running.get(name, 0.0), 0.0) for name, seconds in waiting.items()}
        return left.pop(RESULTS, 0.0) + sum(left.values()) / self.jobs


def _run_stage(tasks: Mapping[str, Callable], labels, jobs, pace) -> dict[str, Outcome]:
    """Run tasks that do not wait for each other; on an interrupt no kernel or worker is left running."""
    outcomes, running = {}, {}
    waiting, shown, terminal = list(tasks), time.time(), sys.stdout.isatty()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    name = waiting.pop(0)
                    status = Path(folder) / f"{name}.json"
                    if not terminal:
                        print(f"{labels[name]}  starting", flush=True)
                    future = pool.submit(_outcome, name, tasks[name], _environment(jobs, status))
                    running[future] = name, status, time.time()
                ended, _ = wait(running, 0.5, FIRST_COMPLETED)
                for future in ended:
                    name, *_ = running.pop(future)
                    outcomes[name] = future.result()
                    pace.seconds[name] = outcomes[name].seconds
                    _print_outcome(labels[name], outcomes[name], terminal)
                if running and (terminal or time.time() - shown > 20):
                    shown = time.time()
                    lines = [_progress(labels[n], s, t) for n, s, t in running.values()]
                    left = pace.left({n: time.time() - t for n, _, t in running.values()})
                    lines += [] if left is None else [f"about {max(round(left / 60), 1)} min left"]
                    _print_progress(lines, terminal)
        except BaseException:
            while wait(running, 0.5).not_done:
                _kill_children()
            raise
    return outcomes


def _outcome(name: str, task: Callable[..., Any], environment: Mapping[str, str]) -> Outcome:
    started = time.time()
    try:
        task(environment=environment)
    except Exception as error:
        kind = "" if isinstance(error, RossamError) else f"{type(error).__name__}: "
        return Outcome(name, "failed", time.time() - started, f"{kind}{error}")
    return Outcome(name, "done", time.time() - started)


def _compute(compute: Callable[[], None], environment: Mapping[str, str]) -> None:
    os.environ[VARIABLE] = environment[VARIABLE]  # where `track` writes the progress
    try:
        compute()
    finally:
        del os.environ[VARIABLE]


def execute(
    name: str,
    parameters: Mapping[str, Any],
    report_dir: Path,
    notebooks: Path = NOTEBOOKS,
    boxes_only: bool = False,
    *,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Run one notebook with `parameters`; returns its executed copy, `<report_dir>/notebooks/<name>.ipynb`.

    Raises:
        RossamError: not a Python notebook, unknown parameter, a failing cell (with its number, source and error), or
            the death of its kernel. What was executed of a notebook with a failing cell is written, too.
    """
    source, target = notebooks / f"{name}.ipynb", report_dir / "notebooks" / f"{name}.ipynb"
    notebook = read_notebook(source)
    if boxes_only:
        notebook.cells = [_without_masks(cell) for cell in notebook.cells]
    with tempfile.TemporaryDirectory(prefix="rossam-") as folder:
        draft, executed = Path(folder) / f"draft-{target.name}", Path(folder) / target.name
        nbformat.write(notebook, draft)
        _check_parameters(draft, parameters, source)
        kernel = AsyncKernelManager(kernel_name="python3", **_transport(Path(folder)))
        variables = {**os.environ, "ROSSAM_CACHE": str(cache_dir()), **(environment or {})}
        quiet = ["--log-level=40", "--HistoryManager.hist_file=:memory:"]
        run_sync(kernel.start_kernel)(cwd=str(notebooks), env=variables, extra_arguments=quiet)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                options = {"progress_bar": False, "log_output": False, "start_timeout": 300, "km": kernel}
                papermill.execute_notebook(str(draft), str(executed), dict(parameters), **options)
        except PapermillExecutionError as error:
            _keep(executed, target)
            cell = "\n".join(f"      {line}" for line in error.source.strip().splitlines())
            finding = f"{error.ename}: {error.evalue}\n\n{cell}"
            remedy = f"correct the cause and start again; the executed part is {target}"
            raise RossamError(f"{source}, cell {error.exec_count}", finding, remedy) from error
        except DeadKernelError as error:
            raise _death(source, run_sync(kernel.provisioner.poll)()) from error
        finally:
            run_sync(kernel.shutdown_kernel)(now=True)
        _keep(executed, target)
    return target


def read_notebook(path: Path) -> NotebookNode:
    """A notebook, with Python as its language where it names none.

    Raises:
        RossamError: no such file, no notebook, or one in another language.
    """
    if not path.exists():
        raise RossamError(path, "no such notebook", f"notebooks are in {path.parent}; correct the profile's list")
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
        finding = f"cannot be read as a notebook ({str(error).splitlines()[0][:120]})"
        raise RossamError(path, finding, "open it in JupyterLab and save it, or write it anew") from error
    kernel = notebook.metadata.get("kernelspec", {})
    language = notebook.metadata.get("language_info", {}).get("name") or kernel.get("language", "python")
    if language != "python":
        remedy = "choose a Python kernel in JupyterLab and save it"
        raise RossamError(path, f"is in {language}, expected Python", remedy)
    python = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata |= {"kernelspec": python, "language_info": {"name": "python"}}
    return notebook


def expected_seconds(profile: str) -> dict[str, float]:
    """Seconds that notebooks and `RESULTS` took on 2 cores, where measured (`durations.yaml`)."""
    return yaml.safe_load(DURATIONS.read_text(encoding="utf-8")).get(profile, {})


def _without_masks(cell: NotebookNode) -> NotebookNode:
    """The cell, or a line in its place where it needs masks."""
    if "needs-masks" not in cell.metadata.get("tags", ()):
        return cell
    return nbformat.v4.new_markdown_cell("*Left out: this needs masks, and the data has boxes only.*")


def _check_parameters(draft: Path, parameters: Mapping[str, Any], source: Path) -> None:
    accepted = papermill.inspect_notebook(str(draft))
    unknown = sorted(set(parameters) - set(accepted))
    if unknown:
        raise RossamError(source, f"unknown parameter{'s' * (len(unknown) > 1)} {', '.join(unknown)}",
                          f"its cell with the tag `parameters` has {', '.join(accepted) or 'none'}")  # fmt: skip


def _keep(executed: Path, target: Path) -> None:
    """Put an executed notebook into the report, without widgets, which no kernel would answer there."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not any("widget" in mime for mime in o.get("data", ()))]
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.metadata.tags.append("remove-cell")
    write_text(target, nbformat.writes(notebook))


def _transport(folder: Path) -> dict[str, str]:
    """Sockets in a folder of their own where possible: two runs at a time may choose the same TCP ports."""
    path = str(folder / "kernel")
    return {"transport": "ipc", "ip": path} if os.name == "posix" and len(path) <= LONGEST_SOCKET else {}


def _death(source: Path, status: int | None) -> RossamError:
    if status == -9:
        finding = "its kernel was killed (signal 9), which the system does when memory runs out"
        remedy = "close other programs, use a smaller --jobs, or lower inference.batch_size, and start again"
        return RossamError(source, finding, remedy)
    return RossamError(source, f"its kernel ended with status {status}", "run it in JupyterLab to see in which cell")


def _environment(jobs: int, status: Path) -> dict[str, str]:
    """Where a kernel writes its progress, and its share of the cores where the user has set none."""
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return {VARIABLE: str(status)}
    return {VARIABLE: str(status), "OMP_NUM_THREADS": str(max(core_count() // jobs, 1))}


def _progress(label: str, status_file: Path, started: float) -> str:
    """Step and its count as the notebook reports them, and elapsed time."""
    status = read_status(status_file)
    step = status.get("desc", "") + (f" {status['done']}/{status['total']}" if status.get("total") else "")
    return "  ".join(filter(None, [label, step, f"{duration(time.time() - started)} so far"]))


def _print_progress(texts: Sequence[str], terminal: bool) -> None:
    line = "  |  ".join(texts)
    if terminal:
        line = f"\r\x1b[2K{line[: shutil.get_terminal_size().columns - 1]}"
    print(line, end="" if terminal else "\n", flush=True)


def _print_outcome(label: str, outcome: Outcome, terminal: bool) -> None:
    clear = "\r\x1b[2K" if terminal else ""
    print(f"{clear}{label}  {outcome.status} in {duration(outcome.seconds)}", flush=True)
    if outcome.message:
        print(f"\n{outcome.message}\n", file=sys.stderr, flush=True)


def _kill_children() -> None:
    """End the kernels and workers that this process has started, and their processes."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
