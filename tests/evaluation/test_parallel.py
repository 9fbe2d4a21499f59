"""Worker processes: they live for many tasks and calls, also when they hold a network and frames."""

import os
import time

import numpy as np

from rossam_kit.parallel import run_tasks

_held = []


def hold_memory(number):
    time.sleep(1.2)  # joblib looks at a worker's memory once per second
    _held.append(np.ones(25_000_000))
    return os.getpid()


def test_workers_that_grow_by_hundreds_of_megabytes_are_kept_over_calls():
    tasks = [(number,) for number in range(4)]
    first, second = (set(run_tasks(hold_memory, tasks, workers=2, bar=False)) for _ in range(2))
    assert len(first) == 2 and second == first and os.getpid() not in first
