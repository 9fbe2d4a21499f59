"""Peak memory: what is allocated is seen, what the starting process holds is not; kept; told beside quality."""

import subprocess
import sys

import numpy as np
import pytest

from rossam_core.errors import RossamError
from rossam_kit.config import load_profile
from rossam_kit.experiments import footprint
from rossam_kit.experiments.experiments import Experiments, RowSpec
from rossam_kit.experiments.footprint import footprints, peak_resident
from rossam_kit.report import fine_tuning as runs

MIB = 2**20
TINY = {
    "data.limit_frames": 1,
    "data.synthetic.train_videos": 1,
    "data.synthetic.val_videos": 1,
    "data.synthetic.test_videos": 1,
    "data.synthetic.frames_per_video": 1,
    "data.synthetic.scenes": ["sea"],
    "model.checkpoint": None,
    "model.architecture": {"depth": 2, "global_attention": [1], "dim": 48},
    "training.samples": 1,
    "training.batch": 1,
    "training.validation_objects": 0,
    "training.lora_rank": 2,
}


def test_a_fork_says_what_it_takes_itself_and_not_what_was_there_before():
    held = np.ones(40 * MIB // 8)
    taken = footprint._peak_in_fork(lambda: np.ones(80 * MIB // 8).sum(), "cpu")
    assert 78 * MIB < taken < 100 * MIB and held[0] == 1
    assert footprint._peak_in_fork(lambda: None, "cpu") < 10 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss is the process's own")
def test_a_child_of_a_large_process_looks_as_small_as_it_is():
    held = np.ones(400 * MIB // 8)
    read = "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    child = int(done.stdout) * 1024
    assert child < 100 * MIB < 400 * MIB < peak_resident() and held[0] == 1


def test_a_failing_measurement_ends_in_an_error_and_leaves_the_fork(tmp_path):
    experiments = Experiments(load_profile("smoke", TINY), tmp_path)
    asked = footprint._asked(experiments.result(RowSpec(label="Box", baseline="box")))
    broken = footprint._Asked("sphere", *list(vars(asked).values())[1:])
    with pytest.raises(RossamError, match="KeyError: 'sphere'"):
        footprint._in_own_process([(broken, None)])


@pytest.mark.timeout(300)
def test_every_row_has_its_footprint_beside_its_quality_and_it_is_kept(tmp_path, monkeypatch):
    experiments = Experiments(load_profile("smoke", TINY), tmp_path)
    specs = [
        RowSpec(label="Box", baseline="box"),
        RowSpec(label="SAM", method="sam"),
        RowSpec(label="ROS-SAM", method="ros-sam", trains=("lora", "last_block", "sam_decoder", "hq_head")),
    ]
    results = [experiments.result(spec) for spec in specs]
    box, sam, tuned = footprints(results)
    assert box.answering < sam.answering < tuned.training
    assert box.training is None and sam.training is None
    monkeypatch.setattr(footprint, "_in_own_process", lambda *_: pytest.fail("measured twice"))
    table = runs.cost_table(results).set_index("setting")
    assert table.loc["SAM", "peak MiB, answering"] == round(sam.answering / MIB)
    assert table.loc["ROS-SAM", "peak MiB, training"] == f"{tuned.training / MIB:.0f}"
    assert table.loc["Box", "peak MiB, training"] == "—" and table.loc["Box", "parameters"] == 0
    assert 0 < table.loc["ROS-SAM", "trained parameters"] < table.loc["ROS-SAM", "parameters"]
