"""Trains a tiny prior, SAM with its HQ head or SAM2, on drawn scenes.

In: a `PretrainConfig`. Out: in a run folder, `weights.safetensors` (the best on held-out scenes), `log.jsonl`,
`config.json`, and `checkpoint.pt`, from which an interrupted run resumes.

Three phases: SAM on small images (half the side, a quarter of the work), SAM on full-size images, then its HQ head
alone with SAM frozen, as in HQ-SAM; SAM2 has the first two. Scene n is a function of the seed and n, and the network
draws no random numbers, so a resumed run repeats an unbroken one. Processes started by `accelerate launch` share
every batch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from rossam_core.devices import autocast, resolve_device
from rossam_core.errors import RossamError
from rossam_core.files import atomic_path, read_json, write_json, write_text
from rossam_core.model.build import build_model, input_size
from rossam_core.model.segmenter import PromptableSegmenter, set_trainable
from rossam_core.model.weights import load_checkpoint, save_weights
from rossam_core.settings import parse_config
from tools.pretrain.config import EXTENDABLE, RESULT, Phase, PretrainConfig, learning_rate, phases
from tools.pretrain.dataset import Batch, SceneBatches, held_out_scenes, scene_loader, score
from tools.pretrain.equivariance import decode_both_ways, mirror_gradients, mirror_weights
from tools.pretrain.initialization import initialize, start_hq_as_sam
from tools.pretrain.losses import LayoutHead, layout_loss, mask_losses

CHECKPOINT_SECONDS = 600
"""A checkpoint is written at least this often, and at every evaluation."""
LONGEST_PAUSE = timedelta(days=30)
"""Processes wait this long for one another: a run may be stopped and continued by signals."""


def pretrain(
    config: PretrainConfig | Mapping[str, Any],
    run_dir: str | Path,
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Train, or resume what `run_dir` holds, and return the log.

    Args:
        config: settings, or a mapping of those that differ from the defaults.
        run_dir: the run's folder; the result is its `weights.safetensors`, float16.
        device: `auto`, `cpu`, `cuda`, …
        progress: show a bar with the time left.

    Raises:
        RossamError: bad settings, all at once; a run folder of another configuration; an unusable device.
    """
    if not isinstance(config, PretrainConfig):
        config = parse_config(PretrainConfig, config, where="pretrain settings")
    run, place = Path(run_dir), resolve_device(device)
    accelerator = Accelerator(cpu=place.type == "cpu", kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_PAUSE)])
    if accelerator.num_processes > 1:
        place = accelerator.device
    if config.batch_size < accelerator.num_processes:
        raise RossamError(
            "batch_size", f"{config.batch_size} for {accelerator.num_processes} processes", "use fewer processes"
        )
    if accelerator.is_main_process:
        _claim(run, config)
    if config.threads and place.type == "cpu":
        torch.set_num_threads(config.threads)
    log, saved = _Log(run / "log.jsonl"), _read_checkpoint(run / "checkpoint.pt")
    head = _layout_head(config.seed, saved).to(place)
    source = Path(config.start_from) if config.start_from else None
    for number, phase in enumerate(phases(config)):
        if not phase.samples:
            continue
        if saved is None or saved["phase"] <= number:
            accelerator.wait_for_everyone()  # for the weights of the phase before
            state = _PhaseState.build(config, number, head, source, place)
            if saved is not None and saved["phase"] == number:
                state.load(saved)
            _run_phase(config, state, run, accelerator, log, progress and accelerator.is_main_process)
        source = run / phase.weights
    return log.table()


@dataclass
class _PhaseState:
    """What changes while a phase lasts."""

    number: int
    phase: Phase
    model: PromptableSegmenter
    average: AveragedModel
    """Moving average of the weights."""
    head: LayoutHead
    optimizer: torch.optim.Optimizer
    device: torch.device
    steps: int = 0
    best: float = -1.0

    @staticmethod
    def build(
        config: PretrainConfig, number: int, head: LayoutHead, source: Path | None, device: torch.device
    ) -> _PhaseState:
        """The start of a phase, from the weights file `source` or fresh weights."""
        phase = phases(config)[number]
        size = input_size(config.backbone) // phase.shrink
        model = build_model(phase.method, config.backbone, checkpoint=None, seed=config.seed, input_size=size)
        initialize(model)
        if config.mirrored_weights:
            mirror_weights(model)
        if source is not None:
            _load_source(model, source, config.mirrored_weights)
        model.to(device)
        trained = set_trainable(model, phase.groups) + (list(head.parameters()) if phase.name != "hq" else [])
        decayed = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(decayed, lr=phase.lr, betas=(0.9, 0.98), fused=True)

        def average(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
            decay = min(config.average_decay, (1 + int(count)) / (10 + int(count)))  # shorter at first
            torch._foreach_lerp_(averaged, current, 1 - decay)

        return _PhaseState(number, phase, model, AveragedModel(model, multi_avg_fn=average), head, optimizer, device)

    def trained(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def load(self, saved: dict) -> None:
        self.steps, self.best = saved["steps"], saved["best"]
        for name in ("model", "average", "optimizer"):
            getattr(self, name).load_state_dict(saved[name])

    def save(self, path: Path) -> None:
        state = {"phase": self.number, "steps": self.steps, "best": self.best}
        state |= {name: getattr(self, name).state_dict() for name in ("model", "average", "head", "optimizer")}
        with atomic_path(path) as temporary:
            torch.save(state, temporary)


def _run_phase(
    config: PretrainConfig, state: _PhaseState, run: Path, accelerator: Accelerator, log: _Log, progress: bool
) -> None:
    phase, main = state.phase, accelerator.is_main_process
    steps = math.ceil(phase.samples / config.batch_size)
    if state.steps >= steps:
        return
    size = state.model.input_size
    rank, world = accelerator.process_index, accelerator.num_processes
    share = range(rank * config.batch_size // world, (rank + 1) * config.batch_size // world)
    batches = iter(scene_loader(config, SceneBatches(config, size, state.number, range(state.steps, steps), share)))
    if main:
        log.rewind(phase.name, state.steps * config.batch_size)
        scenes = held_out_scenes(config, size)
    every = max(1, round(config.validate_every / config.batch_size))
    bar = tqdm(total=steps, initial=state.steps, desc=phase.name, unit="step", disable=not progress, mininterval=2)
    started, first, rows = time.monotonic(), state.steps, []
    checkpoint = started
    while state.steps < steps:
        # data and rate
        batch, samples = next(batches).to(state.device), state.steps * config.batch_size
        rate = learning_rate(config, phase, samples)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        # forward and backward: the mean over the prompts of all processes
        state.optimizer.zero_grad(set_to_none=True)
        loss, terms = _loss(config, state, batch, accelerator)
        loss.backward()
        _sum_gradients(accelerator, state.trained())
        if config.mirrored_weights:
            mirror_gradients(state.model)
        terms["norm"] = nn.utils.clip_grad_norm_(state.trained(), config.clip_norm)
        # update
        state.optimizer.step()
        state.average.update_parameters(state.model)
        state.steps += 1
        if not main:
            continue
        rows.append({f"train_{name}": float(value) for name, value in terms.items()})  # of this process's share
        bar.update()
        # held-out score, best weights, checkpoint
        evaluate = state.steps % every == 0 or state.steps == steps
        if evaluate:
            seconds = time.monotonic() - started
            row = {"phase": phase.name, "samples": samples + config.batch_size, "lr": rate, "seconds": round(seconds)}
            row |= {"images_per_second": round((state.steps - first) * config.batch_size / seconds, 2)}
            row |= pd.DataFrame(rows).mean().round(5).to_dict() | _evaluate(config, state, scenes, run)
            log.add(row)
            bar.write(json.dumps(row)) if progress else None
            rows = []
        if evaluate or time.monotonic() - checkpoint > CHECKPOINT_SECONDS:
            state.save(run / "checkpoint.pt")
            checkpoint = time.monotonic()
    bar.close()


def _loss(
    config: PretrainConfig, state: _PhaseState, batch: Batch, accelerator: Accelerator
) -> tuple[Tensor, dict[str, Tensor]]:
    """This process's part of the loss to minimise, and the mean of each of its terms over this process's share."""
    phase, model = state.phase, state.model.train()
    both = config.mirrored_weights and config.mirrored_decoding_every and phase.shrink == 1
    both = both and state.steps % config.mirrored_decoding_every == 0
    with autocast(state.device, config.precision):
        with torch.set_grad_enabled(phase.name != "hq"):
            embeddings = model.encode(batch.images)
        output = (decode_both_ways if both else type(model).decode)(model, embeddings, batch.boxes)
        layout = state.head(embeddings.final) if phase.name != "hq" else None
    terms = mask_losses(phase.name, output, batch, model.input_size)
    prompts = accelerator.reduce(torch.tensor(float(len(batch.targets)), device=state.device), reduction="sum")
    loss = sum(term.sum() for term in terms.values()) / prompts
    if layout is not None:
        terms["layout"] = layout_loss(layout, batch.layout.float() / 255)
        loss = loss + config.layout_weight * terms["layout"].sum() / config.batch_size
    return loss, {name: term.detach().mean() for name, term in terms.items()}


def _sum_gradients(accelerator: Accelerator, parameters: list[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the processes, in one message."""
    if accelerator.num_processes > 1:
        gradients = [p.grad for p in parameters if p.grad is not None]
        summed = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), reduction="sum")
        for gradient, part in zip(gradients, summed.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _evaluate(config: PretrainConfig, state: _PhaseState, scenes, run: Path) -> dict[str, float]:
    """Score the averaged weights on the held-out scenes, and save them where they are the best so far."""
    phase, model = state.phase, state.average.module
    table = score(model, scenes, state.device, config.precision)
    sources = [name for name in ("sam", "hq", "sum", "ellipse") if name in table]
    summary = {f"held_out_{name}": round(float(table[name].mean()), 5) for name in sources}
    main = sources[-2]
    for low, high in ((0, 16), (16, 48), (48, 128), (128, 10_000)):
        part = table[(table.extent >= low) & (table.extent < high)]
        summary[f"held_out_from_{low}px"] = round(float(part[main].mean()), 5) if len(part) else math.nan
    summary["embedding_spread"] = round(float(table.spread.mean()), 5)
    ranks = table[["predicted", main]].rank()
    summary["predicted_iou_rank_correlation"] = round(float(ranks.predicted.corr(ranks[main])), 4)
    if summary[f"held_out_{main}"] > state.best:
        state.best = summary[f"held_out_{main}"]
        notes = {"samples": str(state.steps * config.batch_size), "phase": phase.name}
        notes["held_out_iou"] = f"{state.best:.4f}"
        save_weights(model, run / phase.weights, notes, half=phase.weights == RESULT)
    return summary


def _load_source(model: PromptableSegmenter, source: Path, mirrored: bool) -> None:
    """Load a weights file; an HQ head it lacks starts as SAM's mask. Interpolated positions mirror but for rounding."""
    ignore = () if model.has_hq_head else ("hq_head",)
    loaded = load_checkpoint(model, source, allow_missing=("hq_head",), ignore=ignore, resize_positions=True)
    if mirrored and (change := mirror_weights(model)) > 1e-2:
        raise RossamError(
            source,
            f"holds weights that are no mirror images of one another (by up to {change:.2g})",
            "set mirrored_weights=false to train them further, or start from fresh weights",
        )
    if model.has_hq_head and loaded.get("method") == "sam":
        start_hq_as_sam(model)


def _layout_head(seed: int, saved: dict | None) -> LayoutHead:
    """The auxiliary head, which outlives the phases: fresh, or as the checkpoint has it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = LayoutHead()
    if saved is not None:
        head.load_state_dict(saved["head"])
    return head


def _claim(run: Path, config: PretrainConfig) -> None:
    """Write the settings into a new run folder; refuse a folder whose run has other settings."""
    path, wanted = run / "config.json", config.model_dump(mode="json")
    if path.exists():
        there = read_json(path)
        different = sorted(k for k in {*there, *wanted} - {*EXTENDABLE} if there.get(k) != wanted.get(k))
        if different:
            raise RossamError(
                path,
                "was started with other settings: "
                + ", ".join(f"{k} = {there.get(k)!r}, now {wanted.get(k)!r}" for k in different),
                "use the settings of the run, or another folder",
            )
    write_json(path, wanted)


def _read_checkpoint(path: Path) -> dict | None:
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise RossamError(
            path, f"cannot be read ({error})", "delete the file to start the run anew, or restore a copy"
        ) from error


class _Log:
    """JSON Lines log: one object per evaluation."""

    def __init__(self, path: Path):
        self.path = path
        self.rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def rewind(self, phase: str, samples: int) -> None:
        """Truncate the log of `phase` to `samples`, for resuming."""
        self.rows = [row for row in self.rows if row["phase"] != phase or row["samples"] <= samples]
        self._write()

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._write()

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)

    def _write(self) -> None:
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
