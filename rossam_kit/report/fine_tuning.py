"""Tables and views of fine-tuning runs: training views, logs, gradient audits, recipes, cost.

Runs that have not been trained yet are trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rossam_core.files import read_sealed
from rossam_core.settings import flatten
from rossam_core.training import run_folder
from rossam_core.training.augment import AugmentedView, augment
from rossam_core.training.recipes import RECIPES, RunConfig, recipe
from rossam_kit.report.dataset_facts import example_frames
from rossam_kit.report.labels import group_label

if TYPE_CHECKING:
    from rossam_kit.config import Profile
    from rossam_kit.datasets.frame_set import FrameSet
    from rossam_kit.experiments.experiments import Experiments, RowResult, RowSpec

AUDIT_TITLES = {
    "elements": "parameters",
    "parameters": "tensors",
    "got_gradient": "got a gradient",
    "changed": "changed",
}


def training_views(experiments: Experiments, spec: RowSpec, of: FrameSet | None = None) -> list[list[AugmentedView]]:
    """Four training views of three frames with masks, drawn as the row's run draws them; no weights are loaded.

    Args:
        of: where the frames are taken from; None = the training frames.
    """
    from rossam_core.model.build import input_size

    run = experiments.run_config(spec, experiments.profile.seeds[0])
    size = run.architecture.get("input_size") or input_size(run.backbone)
    rng = np.random.default_rng(run.training.seed)
    train = experiments.training_frames[0] if of is None else of
    chosen = example_frames([frame for frame in train if any(o.has_mask for o in frame.objects)], 3)
    return [[augment(frame, size, run.training.augment, rng, run.inference) for _ in range(4)] for frame in chosen]


def log(experiments: Experiments, spec: RowSpec) -> pd.DataFrame:
    """The log of the row's run with the profile's first seed (`run_folder.read_log`)."""
    return run_folder.read_log(experiments.run_dir(spec, experiments.profile.seeds[0]))


def audit_table(experiments: Experiments, spec: RowSpec) -> pd.DataFrame:
    """Gradient audit of the row's run: for each group its parameters, and how many tensors moved."""
    return _audit(experiments.run_dir(spec, experiments.profile.seeds[0]))


def released_audit(experiments: Experiments) -> pd.DataFrame:
    """Gradient audit of a short run of the recipe `released` on the profile's training frames.

    There the HQ head reads a frozen copy of SAM's decoder, and SAM's own mask never reaches the loss: no step changes
    SAM's decoder. The run has 16 views, one per step, or the profile's own budget where that is less.
    """
    settings, budget = experiments.profile.model, experiments.profile.training.get("samples") or 16
    run = RunConfig(
        method="ros-sam",
        backbone=settings.backbone,
        checkpoint=settings.checkpoint,
        recipe="released",
        architecture=settings.architecture,
        training=recipe("released", samples=min(16, budget), validation_objects=0),
        device=str(experiments.device),
    )
    return _audit(experiments.trained(run))


def _audit(folder: Path) -> pd.DataFrame:
    rows = [
        {"group": group_label(name), "trained": "yes" if group["trained"] else "no"}
        | {title: group[key] for key, title in AUDIT_TITLES.items()}
        for name, group in read_sealed(folder / run_folder.AUDIT).items()
    ]
    return pd.DataFrame(rows)


def recipe_table() -> pd.DataFrame:
    """Fields of `TrainingConfig` in which the recipes differ, one row each, by dotted key."""
    fields = {name: dict(flatten(recipe(name).model_dump())) for name in RECIPES}
    keys = dict.fromkeys(key for values in fields.values() for key in values)
    rows = [(key, *(str(fields[name].get(key, "—")) for name in RECIPES)) for key in keys]
    return pd.DataFrame([row for row in rows if len(set(row[1:])) > 1], columns=["field", *RECIPES])


def recipe_changes(profile: Profile) -> pd.DataFrame:
    """What a profile replaces in its recipe (`Profile.recipe_changes`): field, the recipe's value, the profile's."""
    name = profile.model.recipe
    own = dict(flatten(recipe(name).model_dump(mode="json")))
    changed = dict(flatten(recipe(name, **profile.recipe_changes).model_dump(mode="json")))
    rows = [(key, str(own[key]), str(value)) for key, value in changed.items() if own[key] != value]
    return pd.DataFrame(rows or [("nothing", "—", "—")], columns=["field", f"recipe {name}", f"profile {profile.name}"])


def update_table(experiments: Experiments, specs: Sequence[RowSpec]) -> pd.DataFrame:
    """How many steps updated each parameter group, a row of the table one fine-tuned row of `specs`."""
    rows = []
    for spec in specs:
        steps = log(experiments, spec).query("kind == 'step'")
        columns = {group: f"rate_{group}" for group in spec.trains}  # absent where a group never had its step
        updates = {group: int(steps[name].notna().sum()) if name in steps else 0 for group, name in columns.items()}
        rows.append({"setting": spec.label, "steps": len(steps)} | updates)
    return pd.DataFrame(rows).fillna(0).rename(columns=group_label)


def cost_table(results: Sequence[RowResult]) -> pd.DataFrame:
    """Cost beside quality: parameters, what trains and what a task stores, time, peak memory, IoU.

    Time per object is that of all prompts of a row when it was computed, cutting windows and scoring included. Seconds
    per view and peak GPU memory are from the log of the run with the first seed; rows without a run, and runs on a
    processor, have no peak.
    """
    table = pd.DataFrame([_costs(result) for result in results])
    return table.dropna(axis="columns", how="all").fillna("—")


def _costs(result: RowResult) -> dict[str, str | float | None]:
    experiments, spec = result.experiments, result.spec
    whole = trained = seconds = views = 0
    peak = None
    if spec.trains:
        audit = read_sealed(experiments.run_dir(spec, experiments.profile.seeds[0]) / run_folder.AUDIT)
        whole = sum(group["elements"] for group in audit.values())
        trained = sum(group["elements"] for group in audit.values() if group["trained"])
        steps = log(experiments, spec).query("kind == 'step'")
        seconds, views = steps["seconds"].sum(), steps["samples"].max()
        peak = steps["peak_memory_mib"].max() if "peak_memory_mib" in steps else None
    else:
        whole = result.parameters
    return {
        "setting": spec.label,
        "data": experiments.frames.name,
        "parameters": whole,
        "trained parameters": trained,
        "percent of all": 100 * trained / max(whole, 1),
        "MB per task (float32)": 4 * trained / 1e6,
        "training seconds": round(seconds, 1),
        "seconds per view": round(seconds / views, 3) if views else None,
        "peak MiB in training": peak,
        "ms per object": round(1000 * result.seconds / max(result.objects, 1), 1),
        "IoU": 100 * result.units()["iou"].mean(),
    }
