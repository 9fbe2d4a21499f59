"""A run spread over cores by subprocesses: the same files, errors that come through, nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rossam_core.errors import RossamError
from rossam_core.training import cores, runs

pytestmark = pytest.mark.skipif(cores.core_count() < 2, reason="needs two cores")


@pytest.fixture
def spread(monkeypatch):
    monkeypatch.setattr(cores, "WORTH_SPREADING", 1)
    monkeypatch.setattr(cores, "MOST", 2)


def test_two_processes_fill_one_run_folder(spread, tiny, tiny_frames, tmp_path):
    run = tiny.tiny_run()
    assert cores.process_count(run, len(tiny_frames)) == 2
    told = []
    watch = {"on_event": lambda kind, row: told.append((kind, row["step"]))}
    log = cores.fit_on_cores(run, tmp_path / "run", tiny_frames, tiny_frames[:2], **watch)
    assert log.step.tolist() == [1, 2, 2, 3, 4, 4, 5, 6, 6]
    assert told == list(zip(log.kind, log.step, strict=True))
    assert (tmp_path / "run" / runs.AUDIT).exists()
    again = cores.fit_on_cores(run, tmp_path / "run", tiny_frames, tiny_frames[:2])
    assert again.equals(log)


def test_runs_take_turns_and_one_that_two_ask_for_is_trained_once(spread, tiny, tiny_frames, tmp_path, monkeypatch):
    at_work, most, trained, train = set(), [], [], cores._fit_as_team

    def watched(run, run_dir, *rest):
        at_work.add(run_dir)
        most.append(len(at_work))
        trained.append(run_dir.name)
        try:
            return train(run, run_dir, *rest)
        finally:
            at_work.discard(run_dir)

    monkeypatch.setattr(cores, "_fit_as_team", watched)
    ask = lambda name: cores.fit_on_cores(tiny.tiny_run(), tmp_path / name, tiny_frames, tiny_frames[:2])  # noqa: E731
    with ThreadPoolExecutor(3) as pool:
        logs = list(pool.map(ask, ["one", "one", "two"]))
    assert sorted(trained) == ["one", "two"] and max(most) == 1
    assert logs[0].equals(logs[1])


def test_what_fit_complains_about_comes_through(spread, tiny, tiny_frames, tmp_path):
    run = tiny.tiny_run()
    cores.fit_on_cores(run, tmp_path / "run", tiny_frames, tiny_frames[:2])
    (tmp_path / "run" / runs.AUDIT).unlink()
    other = run.model_copy(update={"training": run.training.model_copy(update={"weight_decay": 0.5})})
    with pytest.raises(RossamError, match=r"weight_decay: the folder.s run has 0\.0, this one 0\.5"):
        cores.fit_on_cores(other, tmp_path / "run", tiny_frames, tiny_frames[:2])


def test_short_runs_and_spread_ones_stay_in_one_process(tiny, tiny_frames, monkeypatch):
    assert cores.process_count(tiny.tiny_run(), len(tiny_frames)) == 1
    monkeypatch.setattr(cores, "WORTH_SPREADING", 1)
    assert cores.process_count(tiny.tiny_run(batch=3), len(tiny_frames)) in (1, 3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cores.process_count(tiny.tiny_run(), len(tiny_frames)) == 1


def test_a_process_whose_parent_was_killed_ends(tmp_path):
    """The parent starts one that would wait for minutes, writes its number down, and is killed."""
    child = "import sys, time; from rossam_core.training.cores import _leave_with; "
    child += "_leave_with(int(sys.argv[1])); print('ready', flush=True); time.sleep(300)"
    parent = "import os, subprocess, sys; p = subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())], "
    parent += "stdout=subprocess.PIPE); p.stdout.readline(); print(p.pid, flush=True); p.wait()"
    started = subprocess.Popen([sys.executable, "-c", parent, child], stdout=subprocess.PIPE, text=True)
    number = int(started.stdout.readline())
    started.send_signal(signal.SIGKILL)
    started.wait()
    until = time.monotonic() + 20
    while time.monotonic() < until and _alive(number):
        time.sleep(0.1)
    assert not _alive(number)


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True).stdout
    return bool(status.strip()) and not status.startswith("Z")
