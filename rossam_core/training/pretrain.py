"""The tiny priors: SAM with its HQ head, or SAM2, trained from nothing on procedural images.

In: a `PretrainConfig`. Out: in a run folder, `weights.safetensors` (the best by held-out generated scenes),
`log.jsonl`, `config.json`, and `checkpoint.pt`, from which an interrupted run goes on.

Three phases: SAM on small images (half the side, four times as many a second), SAM on full-size images, then its
HQ head alone with SAM frozen, as HQ-SAM came about; SAM2 has the first two. Scene n is a function of the seed and n,
and the network draws nothing at random, so a resumed run repeats an unbroken one. Under `torchrun` the processes
share every batch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..config import parse_config
from ..devices import autocast, resolve_device
from ..errors import RossamError
from ..files import atomic_path, read_json, write_json, write_text
from ..model.checkpoints import load_checkpoint, save_weights
from ..model.rossam import MaskLogits, build_model, input_size, set_trainable
from ..model.segmenter import PromptableSegmenter
from ..progress import duration
from .awake import start_as_sam, start_awake
from .losses import dice_loss
from .mirrors import decode_both_ways, mirror_gradients, mirror_weights
from .pretrain_config import EXTENDABLE, RESULT, Phase, PretrainConfig, learning_rate, phases
from .pretrain_scenes import Batch, SceneBatches, held_out_scenes, scene_loader, score
from .team import Team

# ---- losses ----------------------------------------------------------------------------------------------------


def prompt_loss(logits: Tensor, targets: Tensor, boxes: Tensor, size: int) -> Tensor:
    """`L = ½ (BCE over the plane + BCE over the box) + Dice`, float32 ΣN.

    The second term keeps the outline of an object of 10 pixels from vanishing in the mean over the plane.

    Args:
        logits: ΣN×h×w.
        targets: float ΣN×T×T in [0, 1].
        boxes: ΣN×4, xyxy in pixels of the input.
        size: side of the input in pixels.
    """
    side = targets.shape[-1]
    logits = F.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
    cost = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    edges = boxes * (side / size)
    cells = torch.arange(side, device=boxes.device)
    # A cell counts when the box, two cells wider, touches it.
    columns = (cells > edges[:, :1] - 3) & (cells < edges[:, 2:3] + 2)  # ΣN×T
    rows = (cells > edges[:, 1:2] - 3) & (cells < edges[:, 3:] + 2)
    inside = (rows[:, :, None] & columns[:, None, :]).float()
    in_box = (cost * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)
    return 0.5 * (cost.mean(dim=(1, 2)) + in_box) + dice_loss(logits, targets)


def iou_loss(logits: Tensor, targets: Tensor, predicted: Tensor) -> Tensor:
    """Squared error of the predicted IoU against that of the thresholded logits (SAM, appendix A), float32 ΣN."""
    with torch.no_grad():
        side = targets.shape[-1]
        found = F.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0] > 0
        true = targets >= 0.5
        union = (found | true).sum(dim=(1, 2))
        iou = (found & true).sum(dim=(1, 2)) / union.clamp(min=1)
    return (predicted - iou) ** 2


def agreement_loss(logits: Tensor, others: Tensor) -> Tensor:
    """`Σ(p - q)² / (Σp² + Σq²)` over the plane, with the probabilities p and q of two masks, float32 ΣN: 0 to 1.

    Args:
        logits: ΣN×h×w.
        others: ΣN×h×w.
    """
    p, q = torch.sigmoid(logits), torch.sigmoid(others)
    return (p - q).square().sum(dim=(1, 2)) / (p.square() + q.square()).sum(dim=(1, 2))


class LayoutHead(nn.Conv2d):
    """Scaffold on the image embedding, used in training and thrown away: where objects and their outlines are.

    Without it training from nothing may stall where the box alone explains the mask: what the untrained encoder says
    disturbs the decoder, and the encoder falls silent, its output the same for every image, before it is of use.
    The log's `embedding_spread` shows it.
    """

    def __init__(self, channels: int = 256):
        super().__init__(channels, 2 * 16, kernel_size=1)

    def forward(self, embedding: Tensor) -> Tensor:
        """B×C×G×G → logits B×2×4G×4G: object, outline."""
        return F.pixel_shuffle(super().forward(embedding), 4)


def layout_loss(logits: Tensor, layout: Tensor) -> Tensor:
    """BCE + Dice of both planes, float32 B. Takes B×2×h×w logits and targets in [0, 1] of the same size."""
    b, planes = logits.shape[:2]
    flat, targets = logits.float().flatten(0, 1), layout.flatten(0, 1)
    cost = F.binary_cross_entropy_with_logits(flat, targets, reduction="none").mean(dim=(1, 2))
    return (cost + dice_loss(flat, targets)).view(b, planes).mean(dim=1)


def phase_loss(phase: Phase, output: MaskLogits, batch: Batch, size: int) -> dict[str, Tensor]:
    """Named terms, ΣN each, whose mean sum is minimised. SAM: mask and predicted IoU. HQ head: the HQ mask alone.

    `output` has ΣN masks, or 2ΣN of `decode_both_ways`: then the mean of each two, and how they agree.
    """
    targets, boxes = batch.targets.float() / 255, torch.cat(batch.boxes)
    masks = output.hq if phase.name == "hq" else output.sam
    n, copies = len(targets), len(masks) // len(targets)
    targets, boxes = targets.repeat(copies, 1, 1), boxes.repeat(copies, 1)
    terms = {"mask": prompt_loss(masks, targets, boxes, size)}
    if phase.name != "hq":
        terms["iou"] = iou_loss(masks, targets, output.iou)
    terms = {name: term.view(copies, n).mean(dim=0) for name, term in terms.items()}
    if copies == 2:
        terms["agreement"] = agreement_loss(masks[:n], masks[n:])
    return terms


# ---- the run ---------------------------------------------------------------------------------------------------


def pretrain(
    config: PretrainConfig | Mapping[str, Any],
    run_dir: str | Path,
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Train, or go on with what `run_dir` holds, and return the log.

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
    run, team = Path(run_dir), Team.join(config.batch_size)
    place = team.device(resolve_device(device))
    if team.leads:
        _claim(run, config)
    if config.threads and place.type == "cpu":
        torch.set_num_threads(config.threads)
    log = _Log(run / "log.jsonl")
    saved = _read_checkpoint(run / "checkpoint.pt")
    head = _layout_head(config.seed, saved).to(place)
    source = Path(config.start_from) if config.start_from else None
    for number, phase in enumerate(phases(config)):
        if not phase.samples:
            continue
        if saved is None or saved["phase"] <= number:
            state = saved if saved is not None and saved["phase"] == number else None
            team.wait()  # for the leader's weights
            _run_phase(config, number, phase, state, source, head, run, place, team, log, progress and team.leads)
        source = run / phase.weights
    return log.table()


def _run_phase(
    config: PretrainConfig,
    number: int,
    phase: Phase,
    state: dict | None,
    source: Path | None,
    head: LayoutHead,
    run: Path,
    device: torch.device,
    team: Team,
    log: _Log,
    progress: bool,
) -> None:
    size = input_size(config.backbone) // phase.shrink
    model = build_model(phase.method, config.backbone, checkpoint=None, seed=config.seed, input_size=size).to(device)
    start_awake(model)
    if config.mirrors:
        mirror_weights(model)
    done, best = (0, -1.0) if state is None else (state["steps"], state["best"])
    steps = math.ceil(phase.samples / config.batch_size)
    if done >= steps:
        return
    trained = set_trainable(model, phase.groups)
    scaffold = phase.name != "hq" and config.layout_weight > 0
    if scaffold:
        trained += list(head.parameters())
    optimizer = torch.optim.AdamW(_decayed(trained, config.weight_decay), lr=phase.lr, betas=(0.9, 0.98), fused=True)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    elif source is not None:
        ignore = () if phase.name == "hq" else ("hq_head",)
        loaded = load_checkpoint(model, source, allow_missing=("hq_head",), ignore=ignore, resize_positions=True)
        if config.mirrors:
            _keep_mirrored(model, source)
        if phase.name == "hq" and loaded.get("method") == "sam":
            start_as_sam(model)

    if team.leads:
        log.rewind(phase.name, done * config.batch_size)
    scenes = held_out_scenes(config, size) if team.leads else None
    batches = iter(scene_loader(config, SceneBatches(config, size, number, range(done, steps), team.share)))
    every = max(1, round(config.validate_every / config.batch_size))
    bar = tqdm(total=steps, initial=done, desc=phase.name, unit="step", disable=not progress, mininterval=2)
    started, since, sums = time.monotonic(), done, {}
    while done < steps:
        # data
        batch = next(batches).to(device)
        rate = learning_rate(config, phase, done * config.batch_size)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # forward
        model.train()
        with autocast(device, config.precision):
            with torch.set_grad_enabled(phase.name != "hq"):
                embeddings = model.encode(batch.images)
            if config.mirrors:
                output = decode_both_ways(model, embeddings, batch.boxes)
            else:
                output = model.decode(embeddings, batch.boxes)
            layout = head(embeddings.final) if scaffold else None
        terms = phase_loss(phase, output, batch, size)
        # backward: the mean over the prompts of all processes
        prompts = team.total(len(batch.targets))
        optimizer.zero_grad(set_to_none=True)
        weights = {"agreement": config.agreement_weight}
        loss = sum(weights.get(name, 1.0) * term.sum() for name, term in terms.items()) / prompts
        if scaffold:
            terms["layout"] = layout_loss(layout, batch.layout.float() / 255)
            loss = loss + config.layout_weight * terms["layout"].sum() / config.batch_size
        loss.backward()
        team.add_gradients(trained)
        if config.mirrors:
            mirror_gradients(model)
        norm = nn.utils.clip_grad_norm_(trained, config.clip_norm)
        optimizer.step()
        done += 1
        if not team.leads:
            continue
        for name, value in {**terms, "norm": norm}.items():  # of the leader's share
            sums.setdefault(name, []).append(float(value.detach().mean()))
        bar.update()
        bar.set_postfix(loss=f"{np.mean(sums['mask'][-20:]):.3f}", best=f"{best:.3f}", refresh=False)
        if done % every and done < steps:
            continue
        # held-out score, best weights, checkpoint
        seconds = time.monotonic() - started
        row = {"phase": phase.name, "samples": done * config.batch_size, "lr": rate, "seconds": round(seconds, 1)}
        row |= {"images_per_second": round((done - since) * config.batch_size / seconds, 2)}
        row |= {f"train_{name}": round(float(np.mean(values)), 5) for name, values in sums.items()}
        row |= _summary(score(model, scenes, device, config.precision))
        log.add(row)
        if progress:
            bar.write(_line(row))
        sums, current = {}, row["held_out_sum" if phase.name == "hq" else "held_out_sam"]
        if current > best:
            best = current
            notes = {"samples": str(row["samples"]), "phase": phase.name, "held_out_iou": f"{best:.4f}"}
            save_weights(model, run / phase.weights, notes, half=phase.weights == RESULT)
        _write_checkpoint(run / "checkpoint.pt", number, done, best, model, head, optimizer)
    bar.close()


def _keep_mirrored(model: PromptableSegmenter, source: Path) -> None:
    """Make loaded weights mirror images of one another exactly; interpolated positions are so but for rounding."""
    moved = mirror_weights(model)
    if moved > 1e-2:
        raise RossamError(
            source,
            f"holds weights that are no mirror images of one another (by up to {moved:.2g})",
            "set mirrors=false to go on with them, or start from nothing",
        )


def _layout_head(seed: int, saved: dict | None) -> LayoutHead:
    """The scaffold, which outlives the phases: fresh, or as the checkpoint has it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = LayoutHead()
    if saved is not None:
        head.load_state_dict(saved["head"])
    return head


def _decayed(parameters: list[nn.Parameter], weight_decay: float) -> list[dict]:
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _summary(table: pd.DataFrame) -> dict[str, float]:
    sources = [name for name in ("sam", "hq", "sum", "ellipse") if name in table]
    summary = {f"held_out_{name}": round(float(table[name].mean()), 5) for name in sources}
    main = sources[-2]
    for low, high in ((0, 16), (16, 48), (48, 128), (128, 10_000)):
        part = table[(table.extent >= low) & (table.extent < high)]
        summary[f"held_out_from_{low}px"] = round(float(part[main].mean()), 5) if len(part) else math.nan
    summary["embedding_spread"] = round(float(table.spread.mean()), 5)
    ranks = table[["predicted", main]].rank()
    summary["predicted_iou_rank_correlation"] = round(float(ranks.predicted.corr(ranks[main])), 4)
    return summary


def _line(row: Mapping[str, Any]) -> str:
    scores = "  ".join(f"{k.removeprefix('held_out_')} {v:.3f}" for k, v in row.items() if k.startswith("held_out"))
    return f"{row['phase']} {row['samples']} images, {duration(row['seconds'])}: loss {row['train_mask']:.3f}  {scores}"


def _claim(run: Path, config: PretrainConfig) -> None:
    """Write the settings into a new run folder; refuse a folder whose run was set up otherwise."""
    path, wanted = run / "config.json", config.model_dump(mode="json")
    if path.exists():
        found = read_json(path)
        keys = set(found) | set(wanted)
        different = sorted(k for k in keys if found.get(k) != wanted.get(k) and k not in EXTENDABLE)
        if different:
            raise RossamError(
                path,
                "was started with other settings: "
                + ", ".join(f"{k} = {found.get(k)!r}, now {wanted.get(k)!r}" for k in different),
                "use the settings of the run, or another folder",
            )
    write_json(path, wanted)


def _write_checkpoint(path: Path, phase: int, steps: int, best: float, model, head, optimizer) -> None:
    state = {"phase": phase, "steps": steps, "best": best}
    state |= {"model": model.state_dict(), "head": head.state_dict(), "optimizer": optimizer.state_dict()}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


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
    """One JSON object a line, one line a look at the held-out scenes."""

    def __init__(self, path: Path):
        self.path = path
        self.rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def rewind(self, phase: str, samples: int) -> None:
        """Forget what this phase logged beyond `samples`: it is about to be done again."""
        self.rows = [row for row in self.rows if row["phase"] != phase or row["samples"] <= samples]
        self._write()

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._write()

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)

    def _write(self) -> None:
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
