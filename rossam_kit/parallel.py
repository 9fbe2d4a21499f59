"""Independent tasks in parallel: worker processes of joblib on one machine, or actors on a Ray cluster.

Worker processes live for many tasks and compute with one thread each, so that a result does not depend on the number
of cores. They end when the process that started them ends. Arguments and results go through pipes.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import pickle
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import joblib
import psutil
import torch
from joblib.externals.loky import get_reusable_executor, process_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from rossam_core.devices import core_count
from rossam_core.errors import RossamError
from rossam_kit.progress import VARIABLE, track

Engine = Literal["local", "ray"]
WORKER_BYTES, WORKER_SIDE = 2 << 30, 256
"""Memory set aside for each worker process (network, libraries, one batch), for a network with inputs of that side in
pixels. It grows with their square."""

warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)  # it has been replaced


def worker_count(tasks: int, input_side: int = WORKER_SIDE) -> int:
    """Workers for `tasks` tasks: one per core, limited by the number of tasks and by free memory.

    Args:
        input_side: of the largest network's input, pixels.
    """
    bytes_each = round(WORKER_BYTES * max(1, (input_side / WORKER_SIDE) ** 2))
    return max(1, min(tasks, core_count(), free_memory() // bytes_each))


def free_memory() -> int:
    """Bytes of memory that are free or can be made so, within the limits set for this process's control group."""
    return min([psutil.virtual_memory().available, *_free_in_groups()])


def _free_in_groups() -> Iterator[int]:
    """Bytes left under each memory limit of Linux control groups (version 2): those of containers, batch systems."""
    with contextlib.suppress(OSError, IndexError):
        name = Path("/proc/self/cgroup").read_text(encoding="utf-8").split("0::/", 1)[1].splitlines()[0]
        own = Path("/sys/fs/cgroup", name)
        for group in [own, *own.parents]:
            limit = group / "memory.max"
            if limit.exists() and (most := limit.read_text().strip()) != "max":
                facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                used = int((group / "memory.current").read_text()) - int(facts["inactive_file"])
                yield max(int(most) - used, 0)


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[tuple],
    *,
    shared: Any = None,
    workers: int | None = None,
    engine: Engine = "local",
    gpu: bool = False,
    desc: str = "",
    bar: bool = True,
) -> Iterator[Any]:
    """Yield `function(*task)` for every task in order of completion, or `function(shared, *task)` with `shared`.

    Args:
        function: a module-level function.
        shared: an object that every call needs, such as a network; it is sent to each worker once.
        workers: processes; None: `worker_count`. With one worker, the local engine computes in this process.
        engine: `local`, or `ray`: workers of the Ray cluster that RAY_ADDRESS names, or of this machine.
        gpu: give each worker one GPU.
        desc: what is computed, for the progress bar and for errors.
        bar: show a progress bar.

    Raises:
        RossamError: unknown engine, no workers, `shared` cannot be pickled, a worker was killed, or Ray is not
            installed. An error raised by a task keeps its type.
    """
    workers = worker_count(len(tasks)) if workers is None else workers
    if workers < 1:
        raise RossamError(f"workers = {workers}", "there must be at least one", "use 1 or more")
    if engine not in ("local", "ray"):
        raise RossamError(f"engine {engine!r}", "does not exist", "use local or ray")
    if not tasks:
        return
    workers = min(workers, len(tasks))
    if engine == "local" and workers == 1:
        leading = () if shared is None else (shared,)
        results = (function(*leading, *task) for task in tasks)
    else:
        results = _parallel_results(function, tasks, shared, workers, engine, gpu, desc)
    yield from track(results, len(tasks), desc) if bar else results


def _parallel_results(function, tasks, shared, workers, engine, gpu, desc) -> Iterator[Any]:
    place = desc or "parallel tasks"
    try:
        payload = cloudpickle.dumps(shared)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RossamError(
            place, f"cannot be sent to another process ({error})", "remove what cannot be pickled, or use one worker"
        ) from error
    run = _run_local if engine == "local" else _run_ray
    calls = [(function, task, shared is not None) for task in tasks]
    yield from run(calls, payload, workers, gpu, place)


def _death(place: str, report: str) -> RossamError:
    """The error for a killed worker; joblib's report names exit codes as in `SIGKILL(-9)` or `EXIT(1)`."""
    again = "start again: finished work is kept"
    codes = [int(code) for code in re.findall(r"[A-Z]\((-?\d+)\)", report)]
    if -signal.SIGKILL in codes:
        cause = "was killed (signal 9), as the system does when memory runs out"
        return RossamError(place, f"a worker process {cause}", f"{again}, with fewer workers or smaller batches")
    code = next((code for code in codes if code not in (0, -signal.SIGTERM)), None)
    if code is None:
        cause = f"ended unexpectedly ({report.splitlines()[0]})"
    else:
        cause = f"was ended by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exited with status {code}"
    return RossamError(place, f"a worker process {cause}", f"{again}; with one worker the failing call can be traced")


def end_workers() -> None:
    """End this process's local workers, which otherwise wait some minutes for further tasks."""
    get_reusable_executor(reuse=True).shutdown()


# --- engines ----------------------------------------------------------------------------------------------------------


def _run_local(calls: Sequence[tuple], payload: bytes, workers: int, gpu: bool, place: str) -> Iterator[Any]:
    options = {"initializer": _start_worker, "initargs": (payload, _visible_gpus() if gpu else [])}
    with joblib.parallel_config("loky", n_jobs=workers, inner_max_num_threads=1, **options):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch=2 * workers)
        try:
            yield from parallel(joblib.delayed(_in_worker)(*call) for call in calls)
        except BrokenProcessPool as error:
            raise _death(place, str(error)) from error


def _run_ray(calls: Sequence[tuple], payload: bytes, workers: int, gpu: bool, place: str) -> Iterator[Any]:
    """Use a running Ray, else join the cluster of RAY_ADDRESS or start one, with one actor per worker.

    Ray's joblib backend is of no use here: it returns no result before all tasks have ended.
    """
    address = os.environ.get("RAY_ADDRESS", "local")
    if address == "local":  # Ray then listens on 127.0.0.1 only, as by default on Windows and macOS
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        from ray.util import ActorPool
    except ImportError as error:
        raise RossamError("engine ray", "needs the package ray", "pip install ray") from error
    is_own = not ray.is_initialized()
    if is_own:
        ray.init(address, include_dashboard=False if address == "local" else None, log_to_driver=False)
    try:
        actor, reference = ray.remote(num_cpus=1, num_gpus=1 if gpu else 0)(_RayWorker), ray.put(payload)
        pool = ActorPool([actor.remote(reference) for _ in range(workers)])
        yield from pool.map_unordered(lambda worker, call: worker.run.remote(*call), calls)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayActorError as error:
        raise _death(place, str(error)) from error
    finally:
        if is_own:
            ray.shutdown()


def _visible_gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


# --- in a worker ------------------------------------------------------------------------------------------------------

_payload: bytes = b""


def _start_worker(payload: bytes, gpus: Sequence[str]) -> None:
    """Initialise a local worker: its shared object, its GPU, and its end together with its parent."""
    global _payload
    _payload = payload
    # joblib replaces a worker that has grown by 300 MB; networks, frames and compiled kernels are larger than that
    process_executor._MAX_MEMORY_LEAK_SIZE = WORKER_BYTES // 2
    if gpus:  # workers are numbered in the order in which they start
        number = int(multiprocessing.current_process().name.rsplit("-", 1)[-1])
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has ended; a killed parent cannot stop its workers."""
    psutil.Process(os.getppid()).wait()
    os._exit(1)


def _in_worker(function: Callable[..., Any], task: tuple, has_shared: bool) -> Any:
    """Call `function` with one thread, and without a progress bar of its own."""
    os.environ.pop(VARIABLE, None)
    torch.set_num_threads(1)
    return function(*((_unpickled(_payload),) if has_shared else ()), *task)


@functools.lru_cache(maxsize=1)
def _unpickled(payload: bytes) -> Any:
    return cloudpickle.loads(payload)


class _RayWorker:
    """An actor of a Ray cluster."""

    def __init__(self, payload: bytes):
        global _payload
        _payload = payload

    def run(self, function: Callable[..., Any], task: tuple, has_shared: bool) -> Any:
        return _in_worker(function, task, has_shared)
