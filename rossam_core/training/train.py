"""Fine-tuning: `fit` reads from top to bottom. It takes a `RunConfig` and frames, and fills a run folder.

One process or many, started by `accelerate launch`: step k trains on the samples k·B … (k+1)·B − 1, whichever process
computes them, and the update follows the mean loss over all their objects.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from rossam_core.devices import autocast, resolve_device
from rossam_core.errors import RossamError
from rossam_core.files import write_sealed
from rossam_core.inference.predictor import Predictor
from rossam_core.metrics import mask_iou
from rossam_core.model.build import build_base, trained_mask
from rossam_core.model.segmenter import PromptableSegmenter, set_trainable
from rossam_core.records import Frame, ObjectAnnotation
from rossam_core.training import run_folder as runs
from rossam_core.training.dataset import View, Views, batch_log_entry, loader, point_generator
from rossam_core.training.losses import object_losses
from rossam_core.training.recipes import Phase, RunConfig, TrainingConfig

PROGRESS_BAR = functools.partial(tqdm, leave=False, disable=None)
"""A bar where there is a terminal."""


def fit(
    run: RunConfig,
    run_dir: str | os.PathLike,
    train_frames: Sequence[Frame],
    val_frames: Sequence[Frame] | None = None,
    *,
    on_event: runs.OnEvent | None = None,
    progress: Callable[..., Iterable[int]] = PROGRESS_BAR,
) -> pd.DataFrame:
    """Train, resume a killed run, or return the log of a finished one.

    Args:
        run_dir: the run's folder; created if missing.
        train_frames: frames to train on; those without a masked object are skipped.
        val_frames: frames to choose the best weights on; None only without validation objects.
        on_event: called after each step and validation and at each checkpoint, in the main process only; see
            `runs.OnEvent`.
        progress: wraps the iteration over steps, as `tqdm` does.

    Returns:
        The log (`runs.read_log`).

    Raises:
        RossamError: no frames, no masks, a group that matches nothing, more processes than data, another run in the
            folder, or a loss that is not finite: the frames are named, and the last good state is saved.
    """
    run_dir, training, batch = Path(run_dir), run.training, run.training.batch
    accelerator = _accelerator(resolve_device(run.device))
    rank, world, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    device = accelerator.device if world > 1 else resolve_device(run.device)

    # Data: frames that have masks, and objects to validate on.
    with accelerator.main_process_first():  # the first access may generate or fetch the frames
        train, val = _frames(run, train_frames, val_frames)
    validation = _validation_frames(val, training.validation_objects)
    if batch % world or world > len(train):
        finding = f"cannot share a batch of {batch} frames out of {len(train)} evenly"
        remedy = "start fewer processes, or choose a batch that is a multiple of their number"
        raise RossamError(f"{world} processes", finding, remedy)
    description = runs.describe(run, train, val)
    runs.check_same_run(run_dir, description)
    if runs.is_finished(run_dir):
        return runs.read_log(run_dir)

    # Network: the base, the groups that each phase updates, one optimizer per group; a predictor to validate with.
    with accelerator.main_process_first():
        model = build_base(run.model_dump())
    base_digests = runs.digests(model)
    set_trainable(model, training.trained_groups)  # a group that matches nothing raises before the first step
    predictor = _predictor(model, run, device)  # moves the model to the device, too
    members = model.parameter_groups()
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    options = {"betas": training.betas, "weight_decay": training.weight_decay, "fused": True}
    optimizers = {group: optimizer([p for _, p in members[group]], **options) for group in training.trained_groups}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # the log has the peak of this run alone

    # Resume: everything that a step depends on is in the state, or follows from the seed and the step's number.
    state = runs.resume(run_dir, model, optimizers)
    touched = set(state["touched"])  # names of parameters that got a gradient other than zero
    accelerator.wait_for_everyone()
    if main:
        runs.open_run(run_dir, description)
        runs.cut_log(run_dir, state["step"])

    # Steps: this process takes every world-th sample of each batch.
    total = training.total_samples(len(train))
    steps = range(state["step"], total // batch)
    local_indices = [step * batch + offset for step in steps for offset in range(rank, batch, world)]
    batches = iter(loader(Views(train, model.input_size, training, run.inference), local_indices, batch // world))
    for step in progress(steps, desc=f"training {run.method}") if main else steps:
        started = time.perf_counter()
        phase = run.phases[step % len(run.phases)]
        views = next(batches)

        # Forward and backward: sums of losses, so that the mean over all processes' objects can be taken after.
        active = [named for group in phase.groups for named in members[group]]
        for group in training.trained_groups:
            for _, p in members[group]:
                p.grad = None
                p.requires_grad_(group in phase.groups)
        model.train()
        loss_sum, bad_frames = _backward(model, views, phase, training, device)

        # All processes' gradients, divided by all processes' objects.
        objects = torch.tensor(float(sum(len(view.boxes) for view in views)), device=device)
        loss_sum, objects = _reduce_gradients(accelerator, [p for _, p in active], loss_sum, objects)
        entries = gather_object([view.log_entry() for view in views])
        with_gradient = [(name, p) for name, p in active if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for _, p in with_gradient])

        # A loss or gradient that is not finite ends the run before it reaches the weights.
        if not (torch.isfinite(loss_sum) and torch.isfinite(norm)):
            if main:
                runs.checkpoint(run_dir, run, model, optimizers, state, on_event)
            frames = gather_object(bad_frames) or [entry["frame"] for entry in entries]
            raise _diverged(run_dir, step, loss_sum, norm, frames)

        # Update: rates follow the share of samples seen. A batch without an object changes nothing.
        fraction_done = step * batch / total
        rates = {g: training.groups[g].learning_rate * training.rate_factor(g, fraction_done) for g in phase.groups}
        if objects:
            if training.clip_norm is not None:
                torch.nn.utils.clip_grads_with_norm_([p for _, p in with_gradient], training.clip_norm, norm)
            touched.update(name for name, p in with_gradient if name not in touched and p.grad.any())
            for group in phase.groups:
                optimizers[group].param_groups[0]["lr"] = rates[group]
                optimizers[group].step()
        state |= {"step": step + 1, "touched": sorted(touched)}

        # Log, validate, checkpoint.
        samples, last = (step + 1) * batch, step == steps[-1]
        position = {"step": step + 1, "samples": samples}
        if main:
            row = {"kind": "step", **position, "mask": phase.mask, "loss": loss_sum.item() / max(objects.item(), 1)}
            row |= {"objects": int(objects.item()), "gradient_norm": norm.item()}
            row |= {f"rate_{group}": rate for group, rate in rates.items()} | batch_log_entry(entries)
            if device.type == "cuda":
                row["peak_memory_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
            runs.append_log(run_dir, row | {"seconds": round(time.perf_counter() - started, 4)}, on_event)
        if validation and (last or _passes(samples, training.validate_every, batch)):
            row = {"kind": "validation", **position} | validate(predictor, validation, accelerator)
            if row["iou"] > state["best_iou"]:
                state["best_iou"] = row["iou"]
                if main:
                    runs.save_trained(model, run_dir, "best", run, {"samples": samples, "iou": row["iou"]})
            if main:
                runs.append_log(run_dir, row, on_event)
        if main and (last or _passes(samples, training.checkpoint_every, batch)):
            runs.checkpoint(run_dir, run, model, optimizers, state, on_event)

    # End: what a writer killed near the end may have missed, and the audit, which marks the run as finished.
    if main:
        for which in ("last",) if validation else ("last", "best"):
            runs.save_trained(model, run_dir, which, run, {"samples": total})
        write_sealed(run_dir / runs.AUDIT, runs.gradient_audit(model, run, base_digests, touched))
    accelerator.wait_for_everyone()
    return runs.read_log(run_dir)


def _accelerator(device: torch.device) -> Accelerator:
    """The processes that share the run. Accelerate keeps the device of a process's first run. A single process does not
    use that device here, so a later run may have another one; several processes cannot change it.
    """
    if not is_initialized():
        return Accelerator(cpu=device.type == "cpu")
    state = AcceleratorState()
    if state.num_processes > 1 and device.type == "cpu" != state.device.type:
        finding = f"was {state.device.type} for an earlier run of these processes, cannot be cpu now"
        raise RossamError("device", finding, "train on the same device, or start the processes anew")
    return Accelerator()


def validate(predictor: Predictor, frames: list[Frame], accelerator: Accelerator) -> dict[str, float]:
    """Mean `iou` of the frames' objects, which all have masks, prompted by their annotated boxes; `objects`, `seconds`.

    Each process predicts every world-th frame.
    """
    started = time.perf_counter()
    totals = torch.zeros(2, device=predictor.device, dtype=torch.float32)  # sum of IoU, objects
    for frame, masks in predictor.predict_frames(frames[accelerator.process_index :: accelerator.num_processes]):
        ious = [
            mask_iou(mask.full(), annotation.mask(frame.size_hw))
            for mask, annotation in zip(masks, frame.objects, strict=True)
        ]
        totals += totals.new_tensor([sum(ious), len(ious)])
    iou, objects = accelerator.reduce(totals, reduction="sum").tolist()
    return {"iou": iou / objects, "objects": int(objects), "seconds": round(time.perf_counter() - started, 4)}


def _backward(
    model: PromptableSegmenter, views: list[View], phase: Phase, training: TrainingConfig, device: torch.device
) -> tuple[Tensor, list[str]]:
    """Add the gradients of all objects' losses; returns their sum, and the frames whose loss is not finite."""
    loss_sum, bad_frames = torch.zeros((), device=device), []
    size = training.micro_batch or len(views)
    for start in range(0, len(views), size):
        micro_batch = [view for view in views[start : start + size] if len(view.boxes)]
        if micro_batch:
            losses = _losses(model, micro_batch, phase.mask, training, device)
            bad_frames += [view.frame for view, loss in zip(micro_batch, losses, strict=True) if not loss.isfinite()]
            losses.sum().backward()
            loss_sum += losses.sum().detach()
    return loss_sum, bad_frames


def _losses(
    model: PromptableSegmenter, views: list[View], mask: str, training: TrainingConfig, device: torch.device
) -> Tensor:
    """Sum of the objects' losses of each view; points are drawn by the view's own generator."""
    images = torch.stack([view.image for view in views]).permute(0, 3, 1, 2)  # B×S×S×3 → B×3×S×S
    with autocast(device, training.precision):
        logits = model(images.to(device), [view.boxes.to(device) for view in views])
    counts = [len(view.boxes) for view in views]
    planes = [getattr(logits, name).split(counts) for name in (("sam", "hq") if mask == "both" else (mask,))]
    sums = []
    for view, *logits_of_view in zip(views, *planes, strict=True):
        generator = point_generator(training.seed, view.number)
        targets = view.masks.to(device)
        sums.append(sum(object_losses(x, targets, training.loss, generator).sum() for x in logits_of_view))
    return torch.stack(sums)


def _reduce_gradients(
    accelerator: Accelerator, parameters: list[Tensor], loss_sum: Tensor, objects: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum gradients, losses and counts over processes in one message, then divide the gradients by the count.

    A parameter without a gradient in every process keeps none, so that optimizers pass it over as with one process.
    """
    if accelerator.num_processes > 1:
        has_grad = torch.tensor([float(p.grad is not None) for p in parameters], device=loss_sum.device)
        grads = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in parameters]
        message = torch.cat([*grads, has_grad, torch.stack([loss_sum.float(), objects])])
        message = accelerator.reduce(message, reduction="sum")
        *grads, has_grad, totals = message.split([*(p.numel() for p in parameters), len(parameters), 2])
        for p, grad, count in zip(parameters, grads, has_grad, strict=True):
            p.grad = grad.view_as(p).to(p.dtype) if count else None
        loss_sum, objects = totals
    for p in parameters:
        if p.grad is not None:
            p.grad /= objects.clamp(min=1)
    return loss_sum, objects


def _diverged(run_dir: Path, step: int, loss: Tensor, norm: Tensor, frames: list[str]) -> RossamError:
    finding = f"loss {loss.item()} or gradient norm {norm.item()} of step {step} is not finite"
    remedy = (
        f"the weights before this step are in {runs.weights_file(run_dir, 'last').name}; look at these frames, or "
        "lower the learning rate, set training.clip_norm or training.precision=float32"
    )
    return RossamError(run_dir, f"{finding}; frames: {', '.join(sorted(set(frames)))}", remedy)


def _frames(
    run: RunConfig, train: Sequence[Frame], val: Sequence[Frame] | None
) -> tuple[list[Frame], Sequence[Frame] | None]:
    """Frames to train on, all with masks, and frames to validate on, None where nothing is validated."""
    if len(train) == 0:
        raise RossamError("training frames", "there are none", "check the dataset's folder and split files")
    with_masks = [frame for frame in train if any(o.has_mask for o in frame.objects)]
    if not with_masks:
        finding = f"none of the {sum(len(f.objects) for f in train)} objects in {len(train)} frames has a mask"
        remedy = "train on a dataset with masks; one with boxes alone can be converted to masks by a trained network"
        raise RossamError("training frames", finding, remedy)
    if run.training.validation_objects == 0:
        return with_masks, None
    if val is None or not any(o.has_mask for frame in val for o in frame.objects):
        remedy = "give validation frames with masks, or set training.validation_objects to 0"
        raise RossamError("validation frames", "there are none, or they have no masks", remedy)
    return with_masks, val


def _validation_frames(val: Sequence[Frame] | None, count: int) -> list[Frame]:
    """At most `count` objects with masks, evenly spaced over the split, in their frames; no other objects."""
    if val is None:
        return []
    candidates = [(f, o) for f, frame in enumerate(val) for o in frame.objects if o.has_mask]
    objects_of: dict[int, list[ObjectAnnotation]] = {}
    for i in np.linspace(0, len(candidates) - 1, min(count, len(candidates))).round().astype(int):
        frame_index, annotation = candidates[i]
        objects_of.setdefault(frame_index, []).append(annotation)
    return [val[frame_index].with_objects(objects) for frame_index, objects in objects_of.items()]


def _predictor(model: PromptableSegmenter, run: RunConfig, device: torch.device) -> Predictor:
    """Predictor for validation: the run's windows, and the mask that it answers with afterwards."""
    mask = trained_mask(run.method, run.training.trained_groups, run.training.alternate)
    source = {"mask_source": mask, "precision": run.training.precision}
    return Predictor(model, run.inference.model_copy(update=source), device)


def _passes(samples: int, every: int, batch: int) -> bool:
    """Whether the batch that ends at `samples` passes a multiple of `every`."""
    return samples // every > (samples - batch) // every
