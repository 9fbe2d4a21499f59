"""Several notebooks at a time, as far as memory goes, and the one line that says how far they are.

In: jobs in order, and what runs one. Out: each job as it ends. What two notebooks both need is computed by one of
them while the other waits (`files.exclusive`).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from rossam_kit.memory import free_memory
from rossam_kit.progress import VARIABLE, duration, read_status
from rossam_kit.report.execution import Kernel

WEIGHED_EVERY = 2.0
"""Seconds between two looks at the memory of what runs."""


@dataclass
class Job:
    """One notebook to run.

    Attributes:
        label: its name with its place among all, as `[3/12] 02_inference_pipeline`.
        expected: seconds it is likely to take.
        need: bytes of memory it is likely to take, with the processes it starts.
        after: names of jobs that must have ended before, where they are among those to do; `*` is all others.
        variables: environment variables of its kernel.
        held, peak: bytes of memory it takes now, and the most it was seen to take.
    """

    name: str
    label: str
    expected: float = 60.0
    need: float = 0.0
    after: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    kernel: Kernel = field(default_factory=Kernel)
    held: float = 0.0
    peak: float = 0.0
    started: float = 0.0
    seconds: float = 0.0
    _status: Path = Path()

    def begin(self, folder: Path) -> None:
        """Get a kernel that writes its progress to a file in `folder`."""
        self._status = folder / f"{self.name}.json"
        self.kernel = Kernel({**self.variables, VARIABLE: str(self._status)})
        self.started = time.time()

    def weigh(self) -> None:
        """Look at the memory it takes."""
        self.held = self.kernel.memory()
        self.peak = max(self.peak, self.held)

    def progress(self) -> tuple[str, float]:
        """What it is at, empty between steps, and the seconds it is likely to take from now on."""
        status, left = read_status(self._status), max(self.expected - (time.time() - self.started), 0.0)
        if not status.get("total"):
            return status.get("desc", ""), left
        done, total = status["done"], status["total"]
        if done:
            left = max(left, (time.time() - status["started"]) / done * (total - done))
        filled = round(16 * done / total)
        return f"{status['desc']} {'█' * filled}{'░' * (16 - filled)} {done}/{total}", left


def finished(
    jobs: Sequence[Job], at_once: int, work: Callable[[Job], object]
) -> Iterator[tuple[Job, BaseException | None]]:
    """Do `work` for every job, up to `at_once` at a time, and yield each as it ends, with what it raised.

    However this ends, by a break or an interrupt too, no kernel is left running.
    """
    waiting, running = list(jobs), {}
    line, weighed = _Line(at_once), 0.0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(at_once) as pool:
        try:
            while waiting or running:
                while len(running) < at_once and (job := _next(waiting, list(running.values()))):
                    waiting.remove(job)
                    job.begin(Path(folder))
                    line.started(job)
                    running[pool.submit(work, job)] = job
                ended, _ = wait(running, line.interval, FIRST_COMPLETED)
                if time.monotonic() - weighed > WEIGHED_EVERY:
                    weighed = time.monotonic()
                    for job in running.values():
                        job.weigh()
                line.clear(bool(ended))
                for future in ended:
                    job = running.pop(future)
                    job.seconds = time.time() - job.started
                    yield job, future.exception()
                line.show(list(running.values()), waiting)
        finally:
            line.clear(True)
            for job in running.values():
                job.kernel.kill()


def _next(waiting: Sequence[Job], running: Sequence[Job]) -> Job | None:
    """The first job that waits for no other, if there is memory for it."""
    left = {job.name for job in [*waiting, *running]}
    ready = [job for job in waiting if not (left - {job.name} if "*" in job.after else left.intersection(job.after))]
    job = ready[0] if ready else None if running else next(iter(waiting), None)
    return job if job is not None and _fits(job, running) else None


def _fits(job: Job, running: Sequence[Job]) -> bool:
    """Whether memory is left for `job` when those that run have taken all they need; alone, a job always fits."""
    if not running:
        return True
    held = sum(other.held for other in running)
    return free_memory() + held >= job.need + sum(max(other.need, other.held) for other in running)


class _Line:
    """One line, kept up to date in a terminal: step, bar, elapsed, time left in all.

    Without a terminal it is printed anew every 20 seconds.
    """

    def __init__(self, at_once: int):
        self.terminal, self.at_once = sys.stdout.isatty(), at_once
        self.interval = 0.5
        self._begun = self._shown = time.time()

    def started(self, job: Job) -> None:
        if not self.terminal:
            print(f"{job.label}  starting", flush=True)
        self._shown = time.time() if self.at_once == 1 else self._shown

    def clear(self, for_good: bool) -> None:
        """Make way for a line that stays."""
        if self.terminal and for_good:
            print("\r\x1b[2K", end="", flush=True)

    def show(self, running: Sequence[Job], waiting: Sequence[Job]) -> None:
        if not running or (not self.terminal and time.time() - self._shown < 20):
            return
        self._shown = time.time()
        text = self._text(running, waiting)
        if self.terminal:
            text = f"\r\x1b[2K{text[: shutil.get_terminal_size().columns - 1]}"
        print(text, end="" if self.terminal else "\n", flush=True)

    def _text(self, running: Sequence[Job], waiting: Sequence[Job]) -> str:
        steps, lefts = zip(*(job.progress() for job in running), strict=True)
        left = sum(lefts) + sum(job.expected for job in waiting)
        if self.at_once == 1:
            elapsed, told = time.time() - running[0].started, [running[0].label, *filter(None, steps)]
            return "  ".join([*told, f"{duration(elapsed)} so far, about {duration(left)} left in all"])
        left = max(*lefts, left / self.at_once)
        told = [f"{job.name} {step}".strip() for job, step in zip(running, steps, strict=True)]
        if waiting and len(running) < self.at_once:
            told.append(f"{waiting[0].name} waits for {'those before it' if waiting[0].after else 'memory'}")
        elapsed = f"{duration(time.time() - self._begun)} so far, about {duration(left)} left in all"
        return "  |  ".join([elapsed, *told])
