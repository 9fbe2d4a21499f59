"""Independent tasks side by side: worker processes on one machine, or a Ray cluster, through joblib.

Each worker computes with one thread, so that a result does not depend on the number of cores, and lives on for later
tasks. Workers hand arguments and results over pipes; nothing is read from files that others could replace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool

from rossam_core.devices import core_count
from rossam_core.errors import RossamError
from rossam_kit.memory import free_memory
from rossam_kit.progress import VARIABLE, track

Engine = Literal["local", "ray"]
WORKER_BYTES = 2 << 30
"""Memory set aside for each worker process: network, libraries, one batch."""


def worker_count(tasks: int) -> int:
    """Workers for `tasks` tasks: one per core, as far as there are tasks and memory."""
    return max(1, min(tasks, core_count(), free_memory() // WORKER_BYTES))


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[tuple],
    *,
    workers: int | None = None,
    engine: Engine = "local",
    desc: str = "",
) -> Iterator[Any]:
    """Yield `function(*task)` for every task, in the order in which they end.

    Args:
        function: a module-level function.
        workers: processes; None: `worker_count`. One worker of the local engine computes in this process.
        engine: `local`, or `ray`: workers of the Ray cluster that RAY_ADDRESS names, or of this machine.
        desc: shown beside the progress bar.

    Raises:
        RossamError: a worker was killed, or Ray is not installed. Errors of a task keep their type.
    """
    workers = worker_count(len(tasks)) if workers is None else workers
    if engine == "local" and workers == 1:
        yield from track((function(*task) for task in tasks), len(tasks), desc)
        return
    calls = [joblib.delayed(_in_worker)(function, task) for task in tasks]
    with _backend(engine, workers):
        parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch=2 * workers)
        try:
            yield from track(parallel(calls), len(tasks), desc)
        except BrokenProcessPool as error:
            raise RossamError(
                desc or "a worker process",
                f"ended without an answer ({error.__class__.__name__}): it was killed, as happens when memory runs out",
                "close other programs or use fewer workers; started again, finished work is not repeated",
            ) from error


def _backend(engine: Engine, workers: int):
    if engine == "local":
        return joblib.parallel_config("loky", n_jobs=workers, inner_max_num_threads=1)
    try:
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise RossamError("engine ray", "needs the package ray", "pip install 'rossam-core[cluster]'") from error
    register_ray()
    return joblib.parallel_config("ray", n_jobs=workers)


def _in_worker(function: Callable[..., Any], task: tuple) -> Any:
    """Call `function` with one thread, and without a progress bar of its own."""
    import torch

    os.environ.pop(VARIABLE, None)
    torch.set_num_threads(1)
    return function(*task)
