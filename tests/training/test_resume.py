"""Killed with SIGKILL anywhere and started again, a run ends bit for bit as the unbroken one.

Each run is a process of its own, forked from a server that has the libraries loaded.
"""

import multiprocessing
import runpy
import signal

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from rossam_core.errors import RossamError
from rossam_core.files import read_json
from rossam_core.training import run_folder as runs

KILLS = [
    ("step", 1),  # before the first checkpoint
    ("checkpoint", 1),  # the first checkpoint is written but not yet in place
    ("step", 3),
    ("validation", 2),  # the best weights are saved, the state is not
    ("checkpoint", 2),  # an older checkpoint stands while the next one is being written
    ("step", 6),  # the last step is taken, nothing of it is saved
    ("checkpoint", 3),
]


@pytest.fixture(scope="module")
def run_in_process(tiny_script, tmp_path_factory):
    """Run the tiny script with a folder, an event and its number; returns the exit code."""
    data = tmp_path_factory.mktemp("frames")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["rossam_core.training.train", "accelerate", "peft"])

    def run(run_dir, *kill):
        arguments = [str(run_dir), str(data), *map(str, kill)]
        process = server.Process(target=runpy.run_path, args=(str(tiny_script), {"ARGUMENTS": arguments}, "__main__"))
        process.start()
        process.join(60)
        return process.exitcode

    return run


@pytest.fixture(scope="module")
def unbroken(run_in_process, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "unbroken"
    assert run_in_process(run_dir) == 0
    return run_dir


def assert_same_run(one, other):
    for which in ("best", "last"):
        first, second = (load_file(runs.weights_file(each, which)) for each in (one, other))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)  # safetensors shuffles its metadata
    assert read_json(one / runs.AUDIT) == read_json(other / runs.AUDIT)
    pd.testing.assert_frame_equal(
        runs.read_log(one).drop(columns="seconds"), runs.read_log(other).drop(columns="seconds"), check_exact=True
    )
    states = [runs.read_state(each)["optimizers"] for each in (one, other)]
    tensors = [
        [value for group in state.values() for moments in group["state"].values() for value in moments.values()]
        for state in states
    ]
    assert len(tensors[0]) > 100
    assert all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


@pytest.mark.parametrize(("event", "number"), KILLS)
def test_a_killed_run_ends_as_the_unbroken_one(event, number, unbroken, run_in_process, tmp_path):
    assert run_in_process(tmp_path, event, number) == -signal.SIGKILL
    assert not (tmp_path / runs.AUDIT).exists()
    assert run_in_process(tmp_path) == 0
    assert_same_run(tmp_path, unbroken)
    assert not list(tmp_path.glob(".*"))  # what the killed writer left behind is gone


def test_a_run_killed_again_and_again_ends_as_the_unbroken_one(unbroken, run_in_process, tmp_path):
    for event, number in [("step", 2), ("checkpoint", 1), ("step", 3), ("checkpoint", 1), ("step", 1)]:
        assert run_in_process(tmp_path, event, number) == -signal.SIGKILL
    assert run_in_process(tmp_path) == 0
    assert_same_run(tmp_path, unbroken)


def test_a_log_line_cut_short_is_forgotten(unbroken, tmp_path):
    lines = (unbroken / runs.LOG).read_text().splitlines(keepends=True)
    (tmp_path / runs.LOG).write_text("".join(lines[:4]) + lines[4][:20])
    assert len(runs.read_log(tmp_path)) == 4
    runs.cut_log(tmp_path, 2)
    assert runs.read_log(tmp_path).step.tolist() == [1, 2, 2]


def test_a_damaged_state_is_told_with_its_path(unbroken, tmp_path):
    (tmp_path / runs.STATE).write_bytes((unbroken / runs.STATE).read_bytes()[:1000])
    with pytest.raises(RossamError, match=r"state\.pt: cannot be read"):
        runs.read_state(tmp_path)
