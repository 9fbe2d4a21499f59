"""Pretraining: examples, losses, schedule; a run learns, resumes to the same weights, and refuses bad settings."""

import itertools
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rossam_core.errors import RossamError
from rossam_core.masks import box_of
from rossam_core.model.build import build_model
from tools.pretrain import train as module
from tools.pretrain.config import PretrainConfig, learning_rate, phases
from tools.pretrain.dataset import (
    SceneBatches,
    choose_objects,
    held_out_scenes,
    jitter_boxes,
    scene_layout,
)
from tools.pretrain.equivariance import mirror_weights
from tools.pretrain.initialization import initialize, start_hq_as_sam
from tools.pretrain.losses import iou_loss, layout_loss, prompt_loss
from tools.pretrain.train import _PhaseState, pretrain

ROOT = Path(__file__).parents[2]
QUICK = {
    "small_samples": 16,
    "sam_samples": 0,
    "hq_samples": 0,
    "batch_size": 4,
    "boxes_per_image": 2,
    "warmup_samples": 0,
    "validate_every": 8,
    "held_out_scenes": 2,
    "workers": 0,
    "threads": 1,
    "precision": "float32",
}


def weights(run, which="model"):
    return torch.load(run / "checkpoint.pt", weights_only=True)[which]


def assert_same_weights(run_a, run_b):
    for which in ("model", "average"):
        a, b = weights(run_a, which), weights(run_b, which)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


# ---- examples


def test_a_batch_is_the_same_whoever_asks_and_shares_are_its_parts():
    config = PretrainConfig(**QUICK)
    whole = SceneBatches(config, 64, 0, range(3, 5), range(4))[1]
    later = SceneBatches(config, 64, 0, range(4, 5), range(4))[0]
    assert torch.equal(whole.images, later.images) and torch.equal(whole.targets, later.targets)
    shares = [SceneBatches(config, 64, 0, range(4, 5), range(rank, 4, 2))[0] for rank in (0, 1)]
    assert torch.equal(whole.images[0::2], shares[0].images)
    assert torch.equal(whole.images[1::2], shares[1].images)
    assert all(torch.equal(a, b) for a, b in zip(whole.boxes[1::2], shares[1].boxes, strict=True))


def test_a_batch_holds_images_boxes_and_soft_targets_that_agree():
    batch = SceneBatches(PretrainConfig(**QUICK), 64, 0, range(1), range(4))[0]
    assert batch.images.shape == (4, 3, 64, 64) and batch.images.dtype == torch.uint8
    assert sum(map(len, batch.boxes)) == len(batch.targets)
    assert batch.targets.shape[1:] == (32, 32) and batch.targets.dtype == torch.uint8
    assert batch.layout.shape == (4, 2, 16, 16) and batch.layout.dtype == torch.uint8
    for box, target in zip(torch.cat(batch.boxes), batch.targets, strict=True):
        x0, y0, x1, y1 = box_of(target.numpy() > 0)
        assert torch.tensor([x0, y0, x1, y1]).mul(2).sub(box).abs().max() <= 2 + 0.15 * 64


def test_held_out_scenes_are_not_trained_on():
    config = PretrainConfig(**QUICK)
    held_out = held_out_scenes(config, 64).images[0]
    trained = [SceneBatches(config, 64, stream, range(1), range(4))[0].images for stream in range(3)]
    assert not any((images[0].permute(1, 2, 0).numpy() == held_out).all() for images in trained)


def test_chosen_boxes_are_tight_and_jittered_ones_stay_near_and_inside(rng):
    masks = np.zeros((3, 64, 64), bool)
    masks[0, 5:15, 8:50], masks[1, 20:26, 1:7], masks[2, :, :] = True, True, True
    chosen, boxes = choose_objects(rng, masks, 2)
    assert len(chosen) == 2 and all(tuple(b) == box_of(m) for b, m in zip(boxes, chosen, strict=True))
    boxes = np.array([[8.0, 5, 50, 15]] * 200)
    moved = jitter_boxes(rng, boxes, 0.1, 64)
    changed = (moved != boxes).any(axis=1)
    assert 0.3 < changed.mean() < 0.7
    assert (np.abs(moved - boxes) <= 0.3 * np.array([42, 10, 42, 10]) + 1e-9).all()
    assert moved.min() >= 0 and moved.max() <= 64


def test_the_layout_holds_objects_and_their_outlines():
    masks = np.zeros((2, 32, 32), bool)
    masks[0, 4:16, 4:16], masks[1, 8:12, 24:28] = True, True
    covered, outline = scene_layout(masks)
    assert covered.sum() / 255 * 16 == masks.sum()
    assert outline[2, 2] == 0 and covered[2, 2] == 255  # inside
    assert outline[1, 1] > 0 and outline[2, 6] > 0
    assert outline[7, 7] == 0 and covered[7, 7] == 0  # outside


# ---- losses and schedule


def test_the_loss_is_near_zero_for_the_truth_and_larger_for_a_shifted_mask():
    truth = torch.zeros(1, 32, 32)
    truth[:, 10:20, 6:26] = 1
    box = torch.tensor([[12.0, 20, 52, 40]])
    right = prompt_loss(40 * truth - 20, truth, box, 64)
    wrong = prompt_loss(40 * truth.roll(3, 1) - 20, truth, box, 64)
    assert float(right) < 1e-3 < 0.2 < float(wrong)


def test_a_small_object_costs_about_as_much_as_a_large_one():
    def missed(side):
        truth = torch.zeros(1, 128, 128)
        truth[:, 40 : 40 + side, 40 : 40 + side] = 1
        edges = torch.tensor([[80.0, 80, 80 + 2 * side, 80 + 2 * side]])
        return float(prompt_loss(torch.full((1, 64, 64), -3.0), truth, edges, 256))

    assert 0.5 < missed(5) / missed(60) < 1


def test_predicted_iou_is_compared_with_that_of_the_thresholded_logits():
    truth = torch.zeros(1, 8, 8)
    truth[:, :4] = 1
    logits = torch.where(truth.roll(2, 1) > 0, 5.0, -5.0)  # shares 2 of 6 rows
    assert float(iou_loss(logits, truth, torch.tensor([1 / 3]))) == pytest.approx(0, abs=1e-9)
    assert float(iou_loss(logits, truth, torch.tensor([1.0]))) == pytest.approx(4 / 9)


def test_the_layout_loss_is_near_zero_for_the_truth_only():
    truth = torch.zeros(2, 2, 8, 8)
    truth[:, :, 2:6] = 1
    assert float(layout_loss(40 * truth - 20, truth).max()) < 1e-3
    assert float(layout_loss(20 - 40 * truth, truth).min()) > 1


def test_the_rate_rises_stays_and_falls_to_zero():
    config = PretrainConfig(sam_samples=1000, warmup_samples=50, cooldown=0.5, batch_size=10)
    phase = phases(config)[1]
    rates = [learning_rate(config, phase, samples) for samples in range(0, 1001, 10)]
    assert rates[0] < phase.lr / 2 and rates[5] == phase.lr
    assert rates[10:50] == [phase.lr] * 40
    assert all(a > b for a, b in itertools.pairwise(rates[50:]))
    assert math.isclose(rates[-1], 0, abs_tol=1e-9)


# ---- runs


def test_a_run_learns_leaves_its_files_and_a_finished_one_is_returned_as_it_is(tmp_path):
    log = pretrain({**QUICK, "small_samples": 48, "validate_every": 16, "small_lr": 1e-3}, tmp_path, "cpu", False)
    assert list(log.samples) == [16, 32, 48]
    assert log.train_mask.iloc[-1] < log.train_mask.iloc[0] - 0.05
    assert (log.embedding_spread > 0).all()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"small.safetensors", "log.jsonl", "config.json", "checkpoint.pt"}
    again = pretrain({**QUICK, "small_samples": 48, "validate_every": 16, "small_lr": 1e-3}, tmp_path, "cpu", False)
    assert again.equals(log)


def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(tmp_path, monkeypatch):
    settings = {**QUICK, "sam_samples": 8, "hq_samples": 8, "validate_every": 4}
    settings |= {"small_samples": 8, "batch_size": 2, "average_decay": 0.5}
    log = pretrain(settings, tmp_path / "unbroken", "cpu", False)
    assert list(log.phase) == ["small"] * 2 + ["sam"] * 2 + ["hq"] * 2

    write, written = _PhaseState.save, []

    def write_then_die(*arguments):
        write(*arguments)
        written.append(arguments)
        if len(written) in (1, 4, 5):  # within a phase, and at the end of one
            raise KeyboardInterrupt

    monkeypatch.setattr(_PhaseState, "save", write_then_die)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            pretrain(settings, tmp_path / "killed", "cpu", False)
    resumed = pretrain(settings, tmp_path / "killed", "cpu", False)
    assert_same_weights(tmp_path / "unbroken", tmp_path / "killed")
    clock = ["seconds", "images_per_second"]
    assert resumed.drop(columns=clock).equals(log.drop(columns=clock))

    final = build_model("hq-sam", "vit_t", tmp_path / "killed" / "weights.safetensors")
    sam = build_model("sam", "vit_t", tmp_path / "killed" / "sam.safetensors").state_dict()
    frozen = {name: value for name, value in final.state_dict().items() if name in sam}
    assert all(torch.allclose(value, sam[name], atol=1e-3) for name, value in frozen.items())


def test_two_processes_train_as_one(tmp_path):
    """Sums over a batch are taken in another order, so float32 rounds differently: distance against that travelled."""
    settings = {**QUICK, "small_samples": 8, "validate_every": 8}
    pretrain(settings, tmp_path / "one", "cpu", False)
    command = [sys.executable, "-m", "tools.pretrain", str(tmp_path / "two"), "--device", "cpu"]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, cwd=ROOT, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    model = build_model("sam", "vit_t", checkpoint=None, input_size=128)
    initialize(model)
    mirror_weights(model)
    start = model.state_dict()
    travelled = sum((one[name] - start[name]).square().sum() for name in one) ** 0.5
    apart = sum((one[name] - two[name]).square().sum() for name in one) ** 0.5
    assert travelled > 0 and apart < 0.01 * travelled


def test_sam2_trains_in_two_phases_resumes_and_leaves_its_weights(tmp_path, monkeypatch):
    settings = {**QUICK, "backbone": "hiera_t", "sam_samples": 4, "validate_every": 4, "average_decay": 0.5}
    settings |= {"small_samples": 8, "batch_size": 2, "hq_samples": 8}
    log = pretrain(settings, tmp_path / "unbroken", "cpu", False)
    assert list(log.phase) == ["small", "small", "sam"]
    assert (log.embedding_spread > 0.1).all()

    write = _PhaseState.save

    def write_then_die(*arguments):
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(_PhaseState, "save", write_then_die)
    for _ in range(2):  # within a phase, and at the end of one
        with pytest.raises(KeyboardInterrupt):
            pretrain(settings, tmp_path / "killed", "cpu", False)
    monkeypatch.setattr(_PhaseState, "save", write)
    pretrain(settings, tmp_path / "killed", "cpu", False)
    assert_same_weights(tmp_path / "unbroken", tmp_path / "killed")

    result = tmp_path / "killed" / "weights.safetensors"
    assert result.stat().st_size <= 14e6
    trained = build_model("sam2", "hiera_t", result).state_dict()
    average = weights(tmp_path / "killed", "average")
    assert all(torch.allclose(value, average["module." + name], atol=1e-3) for name, value in trained.items())


@pytest.mark.parametrize(("method", "backbone"), [("sam", "vit_t"), ("sam2", "hiera_t")])
def test_fresh_weights_show_each_image_differently_to_the_decoder(method, backbone):
    model = build_model(method, backbone, checkpoint=None, input_size=64)
    initialize(model)
    images = SceneBatches(PretrainConfig(**QUICK), 64, 0, range(1), range(4))[0].images.float()
    with torch.no_grad():
        embeddings = model.encode(images)
    for features in (embeddings.final, *embeddings.high_resolution):
        assert 0.1 < features.std(dim=0).mean() < 3


def test_the_hq_head_begins_with_sams_mask():
    model = build_model("hq-sam", "vit_t")
    start_hq_as_sam(model)
    scenes = held_out_scenes(PretrainConfig(held_out_scenes=4), 256)
    images = torch.from_numpy(np.stack(scenes.images)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        output = model(images, [torch.from_numpy(boxes).float() for boxes in scenes.boxes])
    sam, hq = output.sam > 0, output.hq > 0
    assert (sam & hq).sum() / (sam | hq).sum() > 0.9


def test_a_run_can_be_made_longer(tmp_path):
    pretrain({**QUICK, "small_samples": 8}, tmp_path / "short", "cpu", False)
    pretrain({**QUICK, "small_samples": 16}, tmp_path / "short", "cpu", False)
    pretrain({**QUICK, "small_samples": 16}, tmp_path / "long", "cpu", False)
    assert_same_weights(tmp_path / "short", tmp_path / "long")


def test_a_run_can_be_cooled_down_at_any_time(tmp_path):
    settings = {**QUICK, "small_samples": 0, "batch_size": 2, "validate_every": 2, "cooldown": 0, "sam_samples": 4}
    constant = pretrain(settings, tmp_path, "cpu", False)
    cooled = pretrain({**settings, "sam_samples": 8, "cooldown": 0.5}, tmp_path, "cpu", False)
    assert constant.lr.tolist() == cooled.lr.tolist()[:2] == [6e-4, 6e-4]
    assert cooled.lr.tolist()[2:] == pytest.approx([6e-4, 3e-4])


def test_the_average_follows_the_weights_and_is_what_a_run_saves(tmp_path):
    for decay in (0.0, 0.9):
        run, name = tmp_path / str(decay), "mask_decoder.iou_token.weight"
        pretrain({**QUICK, "average_decay": decay, "validate_every": 16}, run, "cpu", False)
        average = weights(run, "average")["module." + name]
        assert torch.equal(weights(run)[name], average) == (decay == 0)
        assert torch.equal(load_file(run / "small.safetensors")[name], average)


def test_a_checkpoint_is_written_between_evaluations_when_time_has_passed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0)
    steps, save = [], _PhaseState.save
    monkeypatch.setattr(_PhaseState, "save", lambda state, path: (steps.append(state.steps), save(state, path)))
    log = pretrain({**QUICK, "validate_every": 16}, tmp_path, "cpu", False)
    assert steps == [1, 2, 3, 4] and list(log.samples) == [16]


def test_bad_settings_are_told_all_at_once(tmp_path):
    with pytest.raises(RossamError) as error:
        pretrain({"sam_lr": -1, "batchsize": 4, "cooldown": 2}, tmp_path / "run")
    assert all(word in str(error.value) for word in ("sam_lr", "batchsize", "batch_size", "cooldown"))
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_refused_and_left_alone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PretrainConfig(seed=5).model_dump(mode="json")))
    with pytest.raises(RossamError, match=r"seed = 5, now 0"):
        pretrain(QUICK, tmp_path, "cpu", False)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 5


def test_a_damaged_checkpoint_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(RossamError, match=r"checkpoint\.pt.*cannot be read"):
        pretrain(QUICK, tmp_path, "cpu", False)
