"""Progress of long steps, for whoever watches: a bar in a terminal or notebook, and a status file for the runner.

A notebook's kernel has no terminal. The runner names a file in `ROSSAM_PROGRESS`; `track` writes its state
there a few times a second, and the runner shows it in the one line it keeps on the screen.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
VARIABLE = "ROSSAM_PROGRESS"


def track(iterable: Iterable[T], total: int | None = None, desc: str = "") -> Iterator[T]:
    """Yield from `iterable`, showing how many of `total` are done; a drop-in for `tqdm`."""
    total = len(iterable) if total is None and hasattr(iterable, "__len__") else total
    status_file = os.environ.get(VARIABLE)
    bar = tqdm(iterable, total=total, desc=desc, leave=False, disable=None if not status_file else True)
    started, last_written = time.time(), 0.0
    if status_file:
        _publish(status_file, {"desc": desc, "done": 0, "total": total, "started": started})
    for done, item in enumerate(bar):
        if status_file and time.time() - last_written > 0.3:
            last_written = time.time()
            _publish(status_file, {"desc": desc, "done": done, "total": total, "started": started})
        yield item
    if status_file:
        _publish(status_file, {})


@contextlib.contextmanager
def waiting(desc: str) -> Iterator[None]:
    """Say that nothing goes on here until the block ends, and why: in the status file, or else on the screen."""
    status_file = os.environ.get(VARIABLE)
    if status_file:
        _publish(status_file, {"desc": desc})
    else:
        print(desc, file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if status_file:
            _publish(status_file, {})


def read_status(path: str | os.PathLike) -> dict:
    """What `track` last wrote: desc, done, total, started; empty between steps."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _publish(path: str, status: dict) -> None:
    temporary = f"{path}.{os.getpid()}"
    try:
        Path(temporary).write_text(json.dumps(status), encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        return  # a progress line is not worth failing a run for


def duration(seconds: float) -> str:
    """`75` → `1:15`; `3700` → `1:01:40`."""
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
