"""`fit` on all cores of a processor: a process a core, since a second thread speeds one process up by a quarter only.

In: what `fit` takes. Out: what `fit` returns. The processes are plain subprocesses, so this works from a notebook or
a script alike; they end when the one that started them does, however that ends. Several GPUs or machines are
`accelerate launch`'s business.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from .. import progress
from ..data.records import FrameSet
from ..devices import core_count, resolve_device
from ..errors import RossamError
from ..files import exclusive
from ..progress import track
from . import runs
from .loop import fit
from .recipes import RunConfig

WORTH_SPREADING = 256
"""Views below which a run is over before other processes have started."""
MOST = 4
"""Processes at most; each holds the network and its libraries in memory."""


def process_count(run: RunConfig, frames: int) -> int:
    """Processes that `fit_on_cores` starts: 1 on a GPU, under `accelerate launch`, or for a run of a few views."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 or resolve_device(run.device).type != "cpu":
        return 1
    if run.training.total_samples(frames) < WORTH_SPREADING:
        return 1
    return max(p for p in range(1, MOST + 1) if p <= min(core_count(), frames) and run.training.batch % p == 0)


def fit_on_cores(
    run: RunConfig,
    run_dir: str | os.PathLike,
    train: FrameSet,
    val: FrameSet,
    *,
    on_event: runs.OnEvent | None = None,
) -> pd.DataFrame:
    """`fit`, spread over `process_count` processes; `on_event` hears of new lines of the log as they are written.

    Raises:
        RossamError: as `fit` does; or a process ended without a word, for instance killed for memory.
    """
    run_dir, count = Path(run_dir), process_count(run, len(train))
    if (run_dir / runs.AUDIT).exists() or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return fit(run, run_dir, train, val, on_event=on_event)
    with exclusive(run_dir):  # whoever asks for the same run waits for it
        if count == 1 or (run_dir / runs.AUDIT).exists():
            return fit(run, run_dir, train, val, on_event=on_event)
        with exclusive(run_dir.parent / "all-cores"):  # other runs wait too: two at once would take twice the memory
            return _fit_as_team(run, run_dir, train, val, count, on_event)


def _fit_as_team(
    run: RunConfig, run_dir: Path, train: FrameSet, val: FrameSet, count: int, on_event: runs.OnEvent | None
) -> pd.DataFrame:
    with tempfile.TemporaryDirectory(prefix="rossam-fit-") as folder:
        order = Path(folder) / "order.pickle"
        order.write_bytes(pickle.dumps((run, run_dir, train, val)))
        team = _start(order, count)
        try:
            total = run.training.total_samples(len(train)) // run.training.batch
            rows = _follow(team, Path(folder), run_dir, on_event)
            for _ in track((row for row in rows if row["kind"] == "step"), total, f"training {run.method}"):
                pass
        finally:
            for process in team:
                process.kill()
                process.wait()
    return runs.read_log(run_dir)


def _start(order: Path, count: int) -> list[subprocess.Popen]:
    """`count` processes that know of one another, each with its share of the cores; their words go to files."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = str(max(core_count() // count, 1))
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": threads}
    shared |= {progress.VARIABLE: ""}  # their progress is told here
    command = [sys.executable, "-m", __name__, str(order), str(os.getpid())]
    team = []
    for rank in range(count):
        with open(order.with_name(f"words_{rank}"), "wb") as words:
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            team.append(
                subprocess.Popen(command, env={**os.environ, **shared, **own}, stdout=words, stderr=subprocess.STDOUT)
            )
    return team


def _follow(
    team: list[subprocess.Popen], folder: Path, run_dir: Path, on_event: runs.OnEvent | None
) -> Iterator[Mapping[str, Any]]:
    """Lines of the log, as they come, until all processes have ended well."""
    log, read, running = run_dir / runs.LOG, 0, True
    while running:
        running = any(process.poll() is None for process in team)
        _raise_failure(team, folder, run_dir)
        lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        for row in map(json.loads, whole[read:]):
            if on_event is not None:
                on_event(row["kind"], row)
            yield row
        read = len(whole)
        if running:
            time.sleep(0.3)


def _raise_failure(team: list[subprocess.Popen], folder: Path, run_dir: Path) -> None:
    """Raise what a process said when it failed; others then wait for it in vain, and what they say comes later."""
    failed = [rank for rank, process in enumerate(team) if process.poll()]
    if not failed:
        return
    told = sorted(folder.glob("error_*"))
    if told:
        raise pickle.loads(told[0].read_bytes())
    code = team[failed[0]].returncode
    last = (folder / f"words_{failed[0]}").read_text(errors="replace").strip().splitlines()[-5:]
    raise RossamError(
        run_dir,
        f"a training process was killed by signal {-code}" if code < 0 else f"a training process failed: {last}",
        "close other programs if memory ran out; started again, the run goes on from its last checkpoint",
    )


def _leave_with(parent: int) -> None:
    """End this process when its parent is gone, even if that was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _main(order: Path, parent: int) -> int:
    """One process of the team."""
    _leave_with(parent)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    try:
        fit(*pickle.loads(order.read_bytes()))
    except RossamError as error:
        told = order.with_name(f"error_{os.environ['RANK']}")
        told.with_name(f".{told.name}").write_bytes(pickle.dumps(error))
        told.with_name(f".{told.name}").replace(told)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), int(sys.argv[2])))
