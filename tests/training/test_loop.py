"""The loop: it learns, it moves what it should and nothing else, and bad input ends in a clear error."""

import doctest
import json

import cv2
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder

from rossam_core.errors import RossamError
from rossam_core.files import read_sealed, write_sealed
from rossam_core.inference.predictor import Predictor
from rossam_core.metrics import mask_iou
from rossam_core.model.build import build_base, build_model, load_run
from rossam_core.settings import InferenceConfig
from rossam_core.training import recipes
from rossam_core.training import run_folder as runs
from rossam_core.training import train as loop
from rossam_core.training.dataset import Views
from rossam_core.training.recipes import RECIPES, RunConfig, recipe
from rossam_core.training.train import fit
from rossam_kit.datasets.frame_set import FrameSet


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.fixture(scope="module", params=["paper", "released", "corrected"])
def finished(request, tiny, tiny_frames, tmp_path_factory):
    """Recipe, settings and folder of a finished run."""
    run_dir = tmp_path_factory.mktemp("runs") / request.param
    run = tiny.tiny_run(name=request.param, batch=4, lora_rank=2, augment={"scale": (0.8, 1.5), "scale_of": "frame"})
    fit(run, run_dir, tiny_frames, tiny_frames[:2])
    return request.param, run, run_dir


def test_frozen_weights_are_unchanged_bit_for_bit_and_trained_ones_moved(finished):
    name, run, run_dir = finished
    before, model = weights(build_base(run.model_dump())), load_run(run_dir, "last")
    for parameter_name, after in weights(model).items():
        frozen = model.group_of(parameter_name) not in run.training.trained_groups
        assert not frozen or torch.equal(before[parameter_name], after), parameter_name
    audit = read_sealed(run_dir / "gradient_audit.json")
    for group, row in audit.items():
        assert row["trained"] == (group in run.training.trained_groups)
        assert row["changed"] <= row["got_gradient"] <= row["parameters"]
        assert (row["changed"] > 0) == row["trained"]
    assert (audit["sam_decoder"]["got_gradient"] == 0) == (name == "released")


def test_the_folder_gives_the_trained_network_back(finished, tiny_frames):
    _, _, run_dir = finished
    state = runs.read_state(run_dir)
    loaded = weights(load_run(run_dir, "last"))
    assert state["weights"] and all(torch.equal(value, loaded[name]) for name, value in state["weights"].items())
    log = runs.read_log(run_dir)
    assert log[log.kind == "step"].step.tolist() == [1, 2, 3, 4, 5, 6]
    assert log[log.kind == "validation"].samples.tolist() == [8, 16, 24]
    assert state["best_iou"] == log.iou.max()


def test_a_run_folder_is_a_checkpoint(finished):
    _, run, run_dir = finished
    best = weights(load_run(run_dir, "best"))
    built = weights(build_model(run.method, run.backbone, checkpoint=run_dir))
    assert all(torch.equal(best[name], built[name]) for name in best)
    with pytest.raises(RossamError, match=rf"a run of {run.method} {run.backbone}, expected sam vit_b"):
        build_model("sam", "vit_b", checkpoint=run_dir)


def test_what_is_asked_for_besides_a_run_folder_must_be_its_own(finished, tiny):
    name, run, run_dir = finished
    again = run.model_copy(update={"checkpoint": str(run_dir)})
    own = weights(build_base(again.model_dump()))  # training goes on from it with the same recipe
    assert own.keys() == weights(load_run(run_dir)).keys()
    asked = {"hq_decoder": "shared" if name == "released" else "copy", "adapter": None, "lora_rank": 3, "depth": 3}
    asked |= {"fresh_hq_head": True} if name != "released" else {}
    with pytest.raises(RossamError, match=rf"{len(asked)} problems") as caught:
        build_model(run.method, run.backbone, run_dir, **asked)
    assert all(key in str(caught.value) for key in asked)
    assert "adapter: the run has 'lora', asked for is 'none'" in str(caught.value)
    frozen = again.training.model_copy(update={"trained_groups": ("hq_head",), "lora_rank": None})
    assert weights(build_base(again.model_copy(update={"training": frozen}).model_dump())).keys() == own.keys()


def test_a_process_whose_first_run_was_on_a_gpu_trains_on_the_processor(tiny, tiny_frames, tmp_path, monkeypatch):
    run = tiny.tiny_run(samples=4)
    fit(run, tmp_path / "first", tiny_frames, tiny_frames[:2])
    for state in (PartialState, AcceleratorState):
        monkeypatch.setitem(state._shared_state, "device", torch.device("cuda"))
    fit(run, tmp_path / "second", tiny_frames, tiny_frames[:2])
    first, second = (weights(load_run(tmp_path / name)) for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 2)
    with pytest.raises(RossamError, match="device: was cuda"):
        fit(run, tmp_path / "third", tiny_frames, tiny_frames[:2])


def test_a_finished_run_is_not_run_again(finished, tiny_frames, monkeypatch):
    _, run, run_dir = finished
    monkeypatch.setattr(loop, "build_base", lambda run: pytest.fail("a finished run needs no network"))
    assert len(fit(run, run_dir, tiny_frames, tiny_frames[:2])) == 9


def test_phases_take_turns_and_rates_follow_the_samples_seen(tiny, tiny_frames, tmp_path):
    groups = {"hq_head": {"schedule": "step"}, "last_block": {"schedule": "cosine"}}
    trains = {"trained_groups": ["last_block", "hq_head"], "alternate": "groups"}
    run = tiny.tiny_run(**trains, groups=groups, step_every=0.5, validation_objects=0)
    log = fit(run, tmp_path / "run", tiny_frames)
    assert log.rate_hq_head.dropna().tolist() == pytest.approx([1e-3, 1e-4, 1e-4])  # at 4, 12 and 20 of 24 samples
    cosine = [(1 + np.cos(np.pi * seen / 24)) / 2 * 1e-3 for seen in (0, 8, 16)]
    assert log.rate_last_block.dropna().tolist() == pytest.approx(cosine)
    for which in ("best", "last"):
        assert runs.weights_file(tmp_path / "run", which).exists()


def test_warm_up_rises_from_zero_to_the_peak():
    training = recipe("corrected", warmup=0.1)
    factors = [training.rate_factor("lora", progress) for progress in (0, 0.05, 0.1, 0.55, 1)]
    assert factors == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_micro_batches_change_nothing_but_rounding(tiny, tiny_frames, tmp_path):
    log, same = (
        fit(tiny.tiny_run(samples=8, micro_batch=m, validation_objects=0), tmp_path / str(m), tiny_frames)
        for m in (None, 1)
    )
    assert log.data.tolist() == same.data.tolist()
    np.testing.assert_allclose(log.loss, same.loss, rtol=1e-4)
    np.testing.assert_allclose(log.gradient_norm, same.gradient_norm, rtol=1e-3)


def test_training_overfits_two_frames(tiny, tiny_frames, tmp_path):
    """From random weights and boxes alone to masks: the loss must fall, and IoU rise, far beyond chance."""
    run = tiny.tiny_run(
        samples=8 * 120,
        batch=8,
        trained_groups=["lora", "last_block", "encoder", "prompt_encoder", "sam_decoder", "hq_head"],
        alternate="none",
        groups={"encoder": {}, "prompt_encoder": {}},
        optimizer="adamw",
        clip_norm=1.0,
        augment={"scale": (1.0, 1.0), "rotation": False},
        inference={"rate": 1, "growth": "context"},
        validate_every=960,
        checkpoint_every=960,
        loss={"sampling": "dense"},
    )
    log = fit(run, tmp_path / "run", tiny_frames[:2], tiny_frames[:2])
    losses = log.loss.dropna()
    assert losses.tail(10).mean() < 0.5 * losses.head(5).mean()
    assert log.iou.iloc[-1] > 0.6


def test_each_epoch_shows_every_frame_once_in_another_order(tiny, tiny_frames):
    views = Views(tiny_frames, 64, tiny.tiny_run().training, InferenceConfig())
    first, second = ([views[i].frame for i in range(start, start + 6)] for start in (0, 6))
    assert sorted(first) == sorted(second) == sorted(frame.key for frame in tiny_frames)
    assert first != second
    assert views[3].digest == views[3].digest != views[9].digest


def test_loader_workers_bring_the_same_views_while_opencv_has_threads(tiny, tiny_frames, tmp_path):
    cv2.setNumThreads(4)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (0, 0), 3)  # the threads live from now on
    alone, helped = (
        fit(tiny.tiny_run(samples=12, workers=workers, validation_objects=0), tmp_path / str(workers), tiny_frames)
        for workers in (0, 2)
    )
    assert alone.data.tolist() == helped.data.tolist() and alone.data.nunique() == 3
    assert alone.loss.tolist() == helped.loss.tolist()


def test_steps_train_and_validations_evaluate(tiny, tiny_frames, tmp_path, monkeypatch):
    """In training mode SAM2's decoder learns by its single mask; in evaluation it may answer with another one."""
    modes = []

    def recorded(decoder, masks, ious):
        modes.append("another mask")
        return masks, ious

    monkeypatch.setattr(Sam2MaskDecoder, "_dynamic_multimask_via_stability", lambda *a: recorded(*a))
    small = {"input_size": 64, "alternatives": 3, "prompt_dim": 32, "decoder_mlp_dim": 64}
    training = tiny.tiny_run(trained_groups=["sam_decoder"], samples=4).training
    run = RunConfig(
        method="sam2", backbone="hiera_t", checkpoint=None, architecture=small, device="cpu", training=training
    )
    fit(run, tmp_path, tiny_frames, tiny_frames[:2], on_event=lambda kind, row: modes.append(kind))
    assert modes[:2] == ["step", "another mask"] and "validation" in modes


def test_validation_is_the_predictor_on_annotated_boxes_in_the_windows_that_are_scored(tiny, tiny_frames, tmp_path):
    val, ious = tiny_frames[:2], {}
    for rate in (1, 3):
        run = tiny.tiny_run(samples=4, inference={"rate": rate})
        log = fit(run, tmp_path / str(rate), tiny_frames, val)
        config = InferenceConfig(rate=rate, mask_source="hq", precision="float32")
        predictor = Predictor(load_run(tmp_path / str(rate), "last"), config, "cpu")
        frames = [frame.with_objects([o for o in frame.objects if o.has_mask]) for frame in val]
        scores = [
            mask_iou(mask.full(), annotation.mask(frame.size_hw))
            for frame, masks in predictor.predict_frames(frames)
            for mask, annotation in zip(masks, frame.objects, strict=True)
        ]
        chosen = np.linspace(0, len(scores) - 1, 4).round().astype(int)
        validation = log[log.kind == "validation"].iloc[-1]
        assert validation.objects == 4
        ious[rate] = validation.iou
        assert ious[rate] == pytest.approx(np.mean([scores[i] for i in chosen]), abs=1e-6)
    assert ious[1] != ious[3]


def test_the_released_prompt_encoder_trains(tiny, tiny_frames, tmp_path):
    run = tiny.tiny_run(
        name="released",
        samples=4,
        validation_objects=0,
        precision="bfloat16",
    )
    fit(run, tmp_path, tiny_frames)
    base, ended = weights(build_base(run.model_dump())), weights(load_run(tmp_path, "last"))
    moved = {name for name in base if name.startswith("prompt_encoder.") and not torch.equal(base[name], ended[name])}
    corners = {f"prompt_encoder.point_embeddings.{corner}.weight" for corner in (2, 3)}
    assert moved == corners | {"prompt_encoder.no_mask_embed.weight"}


def test_a_live_listener_hears_every_line_of_the_log(tiny, tiny_frames, tmp_path):
    heard = []
    log = fit(
        tiny.tiny_run(samples=8),
        tmp_path / "run",
        tiny_frames,
        tiny_frames[:2],
        on_event=lambda kind, row: heard.append((kind, row["step"])),
    )
    assert [each for each in heard if each[0] != "checkpoint"] == list(zip(log.kind, log.step, strict=True))


def test_a_loss_that_is_not_finite_stops_saves_and_names_the_frame(tiny, tiny_frames, tmp_path, monkeypatch):
    plain = loop._losses

    def broken(model, views, *rest):
        losses = plain(model, views, *rest)
        return losses * torch.tensor([float("nan") if view.number == 9 else 1.0 for view in views])

    monkeypatch.setattr(loop, "_losses", broken)
    run = tiny.tiny_run()
    guilty = Views(tiny_frames, 64, run.training, run.inference)[9].frame
    with pytest.raises(RossamError, match=rf"step 2 is not finite; frames: {guilty}\n"):
        fit(run, tmp_path / "run", tiny_frames, tiny_frames[:2])
    state = runs.read_state(tmp_path / "run")
    assert state["step"] == 2
    assert all(torch.isfinite(value).all() for value in state["weights"].values())


def test_a_batch_without_objects_moves_nothing(tiny, tiny_frames, tmp_path):
    run = tiny.tiny_run(
        samples=4, augment={"min_area": 64 * 64}, validation_objects=0, optimizer="adamw", weight_decay=1
    )
    log = fit(run, tmp_path / "run", tiny_frames)
    assert log.objects.tolist() == [0]
    before, after = weights(build_base(run.model_dump())), weights(load_run(tmp_path / "run", "last"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_whose_base_is_gone_names_it(tiny, tiny_frames, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run = tiny.tiny_run(samples=4)
    fit(run, first, tiny_frames, tiny_frames[:2])
    fit(run.model_copy(update={"checkpoint": str(first)}), second, tiny_frames, tiny_frames[:2])
    load_run(second)
    first.rename(tmp_path / "elsewhere")
    with pytest.raises(RossamError, match=r"first: is not there, and .*second holds only"):
        load_run(second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trained_groups": ["lara"]}, r"trained_groups\.0.*found 'lara'"),
        ({"batch": 3, "samples": 3, "_frames": 0}, "training frames: there are none"),
        ({"_val": 0}, "validation frames: there are none"),
    ],
)
def test_bad_settings_are_told_before_anything_trains(changes, message, tiny, tiny_frames, tmp_path):
    count, val = changes.pop("_frames", 6), changes.pop("_val", 2)
    with pytest.raises(RossamError, match=message):
        fit(tiny.tiny_run(**changes), tmp_path / "run", tiny_frames[:count], tiny_frames[:val])
    assert not (tmp_path / "run").exists()  # so that the mended settings may use it


def test_frames_without_masks_are_refused(tiny, tiny_frames, tmp_path):
    boxes_only = tiny_frames.keep_objects(lambda o: not o.has_mask, "test")
    with pytest.raises(RossamError, match="none of the 6 objects in 6 frames has a mask"):
        fit(tiny.tiny_run(), tmp_path / "run", boxes_only, tiny_frames)
    assert isinstance(boxes_only, FrameSet)


def test_another_runs_folder_is_refused_with_every_difference(finished, tiny, tiny_frames):
    _, run, run_dir = finished
    other = run.model_copy(update={"training": run.training.model_copy(update={"seed": 5, "batch": 2})})
    with pytest.raises(RossamError, match=r"(?s)2 problems.*run.training.batch.*run.training.seed"):
        fit(other, run_dir, tiny_frames, tiny_frames[:2])
    with pytest.raises(RossamError, match=r"data\.train"):
        fit(run, run_dir, tiny_frames[:3], tiny_frames[:2])


def test_trained_groups_do_not_load_onto_another_base(finished):
    _, _, run_dir = finished
    description = json.loads((run_dir / "run.json").read_text())
    kept = (run_dir / "run.json").read_text()
    description["run"]["training"]["seed"] = 99
    try:
        for content, message in ((description, "is damaged"), ([], "is damaged"), ({"run": []}, "lacks 'run'")):
            (run_dir / "run.json").write_text(json.dumps(content))
            with pytest.raises(RossamError, match=message):
                load_run(run_dir)
        write_sealed(run_dir / "run.json", {key: value for key, value in description.items() if key != "sha256"})
        with pytest.raises(RossamError, match="were trained on weights"):
            load_run(run_dir)
    finally:
        (run_dir / "run.json").write_text(kept)


def test_the_recipes_example_holds():
    assert doctest.testmod(recipes).failed == 0


def test_recipes_differ_only_where_they_say_so():
    paper = recipe("paper").model_dump()
    for name, changes in RECIPES.items():
        assert {key for key, value in recipe(name).model_dump().items() if value != paper[key]} == set(changes)
    assert recipe("paper", augment={"rotation": False}).augment.scale == (0.1, 4.0)
    with pytest.raises(RossamError, match="did you mean 'batch'"):
        recipe("paper", bach=3)
    with pytest.raises(RossamError, match="is not known"):
        recipe("papre")
