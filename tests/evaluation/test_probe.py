"""The probe: times a run's own network once, says what it measured, and fails with a remedy."""

import subprocess
from dataclasses import replace

import pytest

from rossam_core.errors import RossamError
from rossam_core.settings import InferenceConfig
from rossam_core.training.recipes import RunConfig, recipe
from rossam_kit.experiments import probe as probing

SMALL = {"depth": 4, "global_attention": [0, 3], "dim": 48, "input_size": 256}
RUN = RunConfig(device="cpu", architecture=SMALL, training=recipe("paper", lora_rank=2, batch=8))
MADE = probing.Probe("a processor, float32", (2.0, 3.0), (0.5, 0.5), 1, 0.25, 1.5, 1000)


def test_a_large_network_is_measured_on_a_part_of_its_blocks(tmp_path, monkeypatch):
    whole = probing.measure(RUN, InferenceConfig(), tmp_path)
    monkeypatch.setattr(probing, "LARGE", 128)
    assert probing._shallower(RUN) == {"depth": 1, "global_attention": [0]}
    part = probing.measure(RUN, InferenceConfig(), tmp_path)
    assert (whole.share, part.share) == (1, 0.25) and whole.batch == part.batch == 1
    assert len(whole.view_seconds) == len(part.window_seconds) == probing.STEPS
    # adapters of 4 blocks, whether 4 were measured or 1; last block and decoders alike
    assert whole.trained == part.trained


def test_what_was_measured_is_kept_until_the_run_is_another(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(probing, "_in_own_process", lambda *order: asked.append(order) or MADE)
    assert probing.probe(RUN, InferenceConfig(), tmp_path) == probing.probe(RUN, InferenceConfig(), tmp_path) == MADE
    assert len(asked) == 1
    probing.probe(RUN.model_copy(update={"backbone": "vit_b"}), InferenceConfig(), tmp_path)
    assert len(asked) == 2


def test_what_was_measured_beside_other_work_is_measured_again(tmp_path, monkeypatch):
    asked, disturbed = [], replace(MADE, busy=probing.BUSY + 1)
    monkeypatch.setattr(probing, "_in_own_process", lambda *order: asked.append(order) or disturbed)
    for _ in range(2):
        assert probing.probe(RUN, InferenceConfig(), tmp_path) == disturbed
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        ((1, "RuntimeError: DefaultCPUAllocator: can't allocate memory"), "does not fit into"),
        ((-9, ""), "does not fit into"),
        ((1, "rossam_core.errors.RossamError: backbone vit_x is not known"), "vit_x is not known"),
    ],
)
def test_a_process_that_fails_says_why(tmp_path, monkeypatch, ended, told):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], ended[0], "", ended[1]))
    with pytest.raises(RossamError, match=told):
        probing.probe(RUN, InferenceConfig(), tmp_path)
