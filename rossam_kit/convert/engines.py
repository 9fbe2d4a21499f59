"""Where shards are computed: in this process, in several, or on a Ray cluster. The bytes are the same.

In: a worker and numbered jobs. Out: (number, bytes) as they are done, in any order.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rossam_core.errors import RossamError

Job = tuple[int, Any]


@dataclass(frozen=True)
class Work:
    """What is to be done with each job.

    Attributes:
        call: takes a job's content, gives its bytes; pickled for other processes.
        gpu: a worker needs a GPU of its own.
        threads: processor threads of a worker.
    """

    call: Callable[[Any], bytes]
    gpu: bool
    threads: int


def run(engine: str, work: Work, jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, bytes]]:
    """Do all jobs.

    Raises:
        RossamError: unknown engine, no workers, Ray missing, a predictor that cannot be brought to another process,
            or a worker that died.
    """
    if workers < 1:
        raise RossamError(f"workers = {workers}", "there must be at least one", "use --workers 1 or more")
    if engine == "ray":
        return _ray(work, jobs, workers)
    if engine != "local":
        raise RossamError(f"engine {engine!r}", "is not known", "use local or ray")
    workers = min(workers, len(jobs))
    return _here(work, jobs) if workers == 1 else _processes(work, jobs, workers)


def _here(work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, bytes]]:
    for number, job in jobs:
        yield number, work.call(job)


# --- several processes ------------------------------------------------------------------------------------------------

_payload: bytes = b""  # a worker process's own, set when it starts
_call: Callable[[Any], bytes] | None = None


def _processes(work: Work, jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, bytes]]:
    context = multiprocessing.get_context("spawn")
    started, gpus = context.Value("i", 0), _visible_gpus() if work.gpu else []
    others, payload = multiprocessing.active_children(), _pickled(work)
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=_start_process, initargs=(payload, started, gpus)
    ) as pool:
        numbers = {pool.submit(_do, job): number for number, job in jobs}
        team = [process for process in multiprocessing.active_children() if process not in others]
        try:
            for future in concurrent.futures.as_completed(numbers):
                yield numbers.pop(future), future.result()  # popped, so that its bytes are not kept
        except concurrent.futures.process.BrokenProcessPool as error:
            pool.shutdown(cancel_futures=True)  # until all have ended, and have an exit status
            raise _death([process.exitcode for process in team], started.value) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _death(statuses: Sequence[int | None], started: int) -> RossamError:
    """Why workers died, by their exit statuses and by how many of them had started."""
    again = "start again (finished shards are kept)"
    if -signal.SIGKILL in statuses:
        found = "was killed (signal 9), which the system does when memory runs out"
        return RossamError(
            "a worker process", found, f"{again}, with fewer --workers or a smaller inference.batch_size"
        )
    if not started:
        return RossamError(
            "a worker process",
            "ended before it began to work: it could not import the script that called, whose error is printed above",
            'make the call below `if __name__ == "__main__":` of a script, since workers import it; or use workers=1',
        )
    status = next((s for s in statuses if s not in (0, None, -signal.SIGTERM)), 0)  # the others are ended by the pool
    ended = f"by signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"with status {status}"
    return RossamError("a worker process", f"was ended {ended}", f"{again}; with workers=1 it is seen where it ends")


def _pickled(work: Work) -> bytes:
    try:
        return pickle.dumps(work.call)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise _immovable(error) from error


def _immovable(error: Exception) -> RossamError:
    found = f"cannot be brought to another process ({error})"
    return RossamError("the predictor", found, "define its class in a module that can be imported, or use workers=1")


def _start_process(payload: bytes, started, gpus: list[str]) -> None:
    """Give this worker its GPU, its end when its parent ends, and its work."""
    global _payload
    with started.get_lock():
        place, started.value = started.value, started.value + 1
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _payload = payload


def _end_with_parent() -> None:
    """A killed parent cannot tell its workers to stop."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _do(job: Any) -> bytes:
    global _call
    if _call is None:  # not when the process starts: what is raised there reaches nobody
        try:
            _call = pickle.loads(_payload)
        except (AttributeError, ImportError) as error:
            raise _immovable(error) from error
    return _call(job)


def _visible_gpus() -> list[str]:
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


# --- Ray --------------------------------------------------------------------------------------------------------------


class _Actor:
    """A worker on a Ray cluster."""

    def __init__(self, payload: bytes):
        self.call = pickle.loads(payload)

    def do(self, number: int, job: Any) -> tuple[int, bytes]:
        return number, self.call(job)


def _ray(work: Work, jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, bytes]]:
    try:
        import ray
        from ray.util import ActorPool
    except ImportError as error:
        found = f"Ray is not installed ({error})"
        raise RossamError("engine ray", found, "pip install 'rossam-core[cluster]', or use --engine local") from error
    begun = not ray.is_initialized()
    if begun:
        ray.init(log_to_driver=False)  # joins the cluster that RAY_ADDRESS names, else one on this machine
    try:
        payload = ray.put(_pickled(work))
        actor = ray.remote(_Actor).options(num_cpus=work.threads, num_gpus=1 if work.gpu else 0)
        pool = ActorPool([actor.remote(payload) for _ in range(min(workers, len(jobs)))])
        yield from pool.map_unordered(lambda actor, job: actor.do.remote(*job), jobs)
    finally:
        if begun:
            ray.shutdown()
