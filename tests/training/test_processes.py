"""Two processes on a processor (gloo) train as one: the same data, one log, one set of files, the same weights."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file

from rossam_core.errors import RossamError
from rossam_core.model.build import build_base, load_run
from rossam_core.settings import parse_config
from rossam_core.training import run_folder as runs
from rossam_core.training import train as loop


@pytest.fixture(scope="module")
def pair(tiny, tiny_script, tmp_path_factory):
    """Folders of the same run in one process and in two."""
    folder = tmp_path_factory.mktemp("processes")
    frames = tiny.make_frames(folder / "frames")
    loop.fit(tiny.tiny_run(), folder / "one", frames, frames[:2])
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    launch += ["--main_process_port", "0", str(tiny_script), str(folder / "two"), str(folder / "frames")]
    done = subprocess.run(
        launch, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder / "one", folder / "two"


def test_each_step_sees_the_same_views_and_is_logged_once(pair):
    one, two = (runs.read_log(folder) for folder in pair)
    assert two.step.tolist() == one.step.tolist() == [1, 2, 2, 3, 4, 4, 5, 6, 6]
    for column in ("data", "objects", "samples", "first_sample", "mask", "rate_lora", "rate_hq_head"):
        assert one[column].equals(two[column]), column
    assert one.data.nunique() == 6
    assert sorted(f.name for f in pair[0].iterdir()) == sorted(f.name for f in pair[1].iterdir())


def test_weights_agree_with_those_of_one_process(pair):
    """Sums over a batch are taken in another order, so float32 rounds differently, and Adam, which divides by the
    gradient's own size, passes that on at full size where a gradient is next to nothing. Hence the distance is
    measured over all weights, against the distance that training went: 1 in 1000."""
    one, two = (load_file(runs.weights_file(folder, "last")) for folder in pair)
    run = parse_config(runs.RunConfig, json.loads((pair[0] / "run.json").read_text())["run"], "run.json")
    base, ended = (dict(m.named_parameters()) for m in (build_base(run.model_dump()), load_run(pair[0], "last")))
    went = sum((ended[name] - base[name]).square().sum().item() for name in base) ** 0.5
    apart = sum((one[name] - two[name]).square().sum().item() for name in one) ** 0.5
    assert went > 0 and apart < 1e-3 * went
    logs = [runs.read_log(folder) for folder in pair]
    np.testing.assert_allclose(logs[0].loss, logs[1].loss, rtol=1e-4)
    np.testing.assert_allclose(logs[0].iou, logs[1].iou, atol=1e-3)
    assert (pair[0] / runs.AUDIT).read_text() == (pair[1] / runs.AUDIT).read_text()


def test_more_processes_than_data_are_refused(tiny, tiny_frames, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Accelerator, "num_processes", property(lambda self: 3))
    with pytest.raises(RossamError, match="3 processes: cannot share a batch of 4 frames out of 6"):
        loop.fit(tiny.tiny_run(), tmp_path / "run", tiny_frames, tiny_frames[:2])
    with pytest.raises(RossamError, match="3 processes: cannot share a batch of 3 frames out of 2"):
        loop.fit(tiny.tiny_run(batch=3), tmp_path / "run", tiny_frames[:2], tiny_frames[:2])
