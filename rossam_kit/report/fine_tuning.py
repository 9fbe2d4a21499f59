"""What fine-tuning runs leave behind, as tables and pictures: views, logs, audits, recipes, cost.

In: an `Experiments` and rows of its tables; runs not made yet are made. Out: DataFrames, and views for `plots`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rossam_core.files import read_json
from rossam_core.settings import flatten
from rossam_core.training import run_folder as run_folders
from rossam_core.training.augment import Sample, augment
from rossam_core.training.recipes import RECIPES, RunConfig, recipe
from rossam_kit.experiments.footprint import footprints
from rossam_kit.report.results import example_frames

if TYPE_CHECKING:
    from rossam_kit.config import Profile
    from rossam_kit.datasets.frame_set import FrameSet
    from rossam_kit.experiments.experiments import Experiments, RowResult, RowSpec

SHOWN = {"elements": "parameters", "parameters": "tensors", "got_gradient": "got a gradient", "changed": "changed"}


def training_views(
    experiments: Experiments, spec: RowSpec, frames: int = 3, each: int = 4, of: FrameSet | None = None
) -> list[list[Sample]]:
    """`each` training views of a few frames with masks, drawn as the row's run draws them; no weights are loaded.

    Args:
        of: where the frames are taken from; None = the training frames.
    """
    from rossam_core.model.segmenter import input_size

    run = experiments.run_config(spec, experiments.profile.seeds[0])
    size = run.architecture.get("input_size") or input_size(run.backbone)
    rng = np.random.default_rng(run.training.seed)
    train = experiments.training_frames[0] if of is None else of
    with_masks = [frame for frame in train if any(thing.has_mask for thing in frame.objects)]
    chosen = example_frames(with_masks, frames)
    return [[augment(frame, size, run.training.augment, rng, run.inference) for _ in range(each)] for frame in chosen]


def log(experiments: Experiments, spec: RowSpec) -> pd.DataFrame:
    """The log of the row's run with the profile's first seed (`training.runs.read_log`)."""
    return run_folders.read_log(experiments.run_dir(spec, experiments.profile.seeds[0]))


def audit_table(experiments: Experiments, spec: RowSpec) -> pd.DataFrame:
    """Gradient audit of the row's run: for each group its parameters, and how many tensors moved."""
    return _audit(experiments.run_dir(spec, experiments.profile.seeds[0]))


def released_audit(experiments: Experiments, samples: int = 16) -> pd.DataFrame:
    """Gradient audit of a short run of the recipe `released` on the profile's training frames.

    There the HQ head sits on a frozen copy of SAM's decoder, and SAM's own mask never reaches the loss: no step moves
    SAM's decoder.

    Args:
        samples: views of the run, of one view a step; as many as the profile's own budget where that is less.
    """
    settings, budget = experiments.profile.model, experiments.profile.training.get("samples") or samples
    training = recipe("released", samples=min(samples, budget), validation_objects=0)
    run = RunConfig(
        method="ros-sam",
        backbone=settings.backbone,
        checkpoint=settings.checkpoint,
        recipe="released",
        architecture=settings.architecture,
        training=training,
        device=str(experiments.device),
    )
    return _audit(experiments.trained(run))


def recipe_table() -> pd.DataFrame:
    """Fields of `TrainingConfig` in which the recipes differ, one row each, by dotted key."""
    flat = {name: dict(flatten(recipe(name).model_dump())) for name in RECIPES}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    rows = []
    for key in keys:
        values = [str(flat[name].get(key, "—")) for name in RECIPES]
        if len(set(values)) > 1:
            rows.append((key, *values))
    return pd.DataFrame(rows, columns=["field", *RECIPES])


def recipe_changes(profile: Profile) -> pd.DataFrame:
    """What a profile replaces in its recipe (`Profile.recipe_changes`): field, the recipe's value, the profile's."""
    own = dict(flatten(recipe(profile.model.recipe).model_dump(mode="json")))
    rows = [(key, str(own[key]), str(value)) for key, value in flatten(profile.recipe_changes) if own[key] != value]
    return pd.DataFrame(rows or [("nothing", "—", "—")], columns=["field", profile.model.recipe, profile.name])


def update_table(experiments: Experiments, specs: Sequence[RowSpec]) -> pd.DataFrame:
    """How many steps updated each parameter group, a row of the table one fine-tuned row of `specs`."""
    rows = []
    for spec in specs:
        steps = log(experiments, spec).query("kind == 'step'")
        updates = {group: int(steps[f"rate_{group}"].notna().sum()) for group in spec.trains}
        rows.append({"setting": spec.label, "steps": len(steps)} | updates)
    return pd.DataFrame(rows).fillna(0).rename(columns=lambda name: name.replace("_", " "))


def cost_table(results: Sequence[RowResult]) -> pd.DataFrame:
    """Cost beside quality: parameters, what trains and what a task stores, time, peak memory, IoU.

    Time an object is that of all prompts of a row when it was computed, cutting windows and scoring included. Memory
    is that of `evaluation.footprint`: one frame answered, and one step of a whole batch, in a process of its own.
    """
    rows = []
    for result, footprint in zip(results, footprints(results), strict=True):
        whole, trained, seconds = _parameters(result)
        rows.append(
            {
                "setting": result.spec.label,
                "data": result.experiments.frames.name,
                "parameters": whole,
                "trained parameters": trained,
                "percent of all": 100 * trained / max(whole, 1),
                "MB a task (float32)": 4 * trained / 1e6,
                "training seconds": round(seconds, 1),
                "ms per object": round(1000 * result.seconds / max(result.objects, 1), 1),
                "peak MiB, answering": round(footprint.answering / 2**20),
                "peak MiB, training": "—" if footprint.training is None else f"{footprint.training / 2**20:.0f}",
                "IoU": 100 * result.units()["iou"].mean(),
            }
        )
    return pd.DataFrame(rows)


def _parameters(result: RowResult) -> tuple[int, int, float]:
    """Parameters of a row's network, those that trained, and the seconds its run's steps took."""
    experiments, spec = result.experiments, result.spec
    if spec.baseline:
        return 0, 0, 0.0
    if not spec.trains:
        return sum(p.numel() for p in experiments.model(spec.method).parameters()), 0, 0.0
    audit = read_json(experiments.run_dir(spec, experiments.profile.seeds[0]) / run_folders.AUDIT)
    whole = sum(group["elements"] for group in audit.values())
    trained = sum(group["elements"] for group in audit.values() if group["trained"])
    return whole, trained, float(log(experiments, spec)["seconds"].sum())


def _audit(folder) -> pd.DataFrame:
    audit = read_json(folder / run_folders.AUDIT)
    rows = [
        {"group": name.replace("_", " "), "trained": "yes" if found["trained"] else "no"}
        | {title: found[key] for key, title in SHOWN.items()}
        for name, found in audit.items()
    ]
    return pd.DataFrame(rows)
