"""What a profile's tables ask for: datasets, fine-tuning runs, predictions, each counted once; and a trial of it all.

In: a profile and the frames that are here. Out: which notebooks have their data, a `Work`, and the overrides that run
everything for two steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from rossam_core.training.recipes import RunConfig
from rossam_kit.config import DataConfig, Profile
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.loading import is_there, scored_split
from rossam_kit.experiments.experiments import MAIN_DATASET, Experiments, RowSpec

PUBLISHED_FRAMES: Mapping[str, tuple[int, int, int]] = {
    "sat-mtb": (8333, 2284, 11213),
    "nwpu-vhr10": (520, 130, 743),
}
"""Frames to train on, frames that are scored, objects in these, where the dataset is not here to be counted. SAT-MTB:
paper section 4.1 and Table 7, whose 52,123 objects are shared out by frames; NWPU VHR-10: counted."""
OBJECTS_A_FRAME = 52123 / 10617
"""Of Table 7; for generated frames that are not generated yet."""
ZERO_SHOT = ("satsot", "viso", "ootb")
"""Tracking datasets of notebook 08 (paper Figures 8 and 11)."""
ZERO_SHOT_NOTEBOOK = "08_zero_shot_tracking"
OPTIONAL = ("isaid",)
"""Datasets whose tables say what is missing, and keep no notebook from showing the others (Table 6)."""
NEEDS_NOTHING = "00_setup"


def datasets(profile: Profile) -> dict[str, DataConfig]:
    """All data of a profile by the name tables know it by, that of most tables first."""
    return {MAIN_DATASET: profile.data, **profile.datasets}


def missing_datasets(profile: Profile) -> set[str]:
    """Names of the datasets that are not there."""
    return {name for name, data in datasets(profile).items() if not is_there(data)}


def source_of(profile: Profile, name: str) -> str:
    """What the data is that tables know by this name."""
    source = datasets(profile)[name].source
    return "generated" if source == "synthetic" else source


def datasets_of_tables(profile: Profile) -> dict[str, bool]:
    """Names of datasets that shown tables are scored on, and whether any of their rows trains."""
    experiments, found = Experiments(profile), {}
    for spec in (spec for name, spec in experiments.specs.items() if name in experiments.tables):
        name = spec.dataset if spec.dataset in profile.datasets else MAIN_DATASET
        found[name] = found.get(name, False) or any(row.trains for row in spec.rows)
    return found


def needs(profile: Profile, notebook: str) -> tuple[str, ...]:
    """Names of the datasets a notebook cannot do without; of the zero-shot clips those that the profile names."""
    if notebook == NEEDS_NOTHING:
        return ()
    if notebook == ZERO_SHOT_NOTEBOOK:
        return tuple(name for name in ZERO_SHOT if name in profile.datasets) or (MAIN_DATASET,)
    experiments = Experiments(profile)
    shown = [spec.dataset for spec in experiments.specs.values() if spec.notebook == notebook]
    tables = [name for name in shown if name not in OPTIONAL]
    named = {name if name in profile.datasets else MAIN_DATASET for name in tables}
    return tuple(sorted(named)) or (MAIN_DATASET,)


def can_run(profile: Profile, notebook: str, missing: Set[str]) -> bool:
    """Whether a notebook's data is here: all of it, or of the zero-shot clips any, and what its methods train on."""
    names = needs(profile, notebook)
    if notebook == ZERO_SHOT_NOTEBOOK:
        return MAIN_DATASET not in missing and any(name not in missing for name in names)
    return not any(name in missing for name in names)


def waits_for(profile: Profile, notebook: str, missing: Set[str]) -> list[str]:
    """Sources of the missing datasets that keep a notebook from running; of the zero-shot clips one set is enough."""
    names = needs(profile, notebook)
    gone = [source_of(profile, name) for name in names if name in missing]
    if notebook != ZERO_SHOT_NOTEBOOK:
        return gone
    trains = [source_of(profile, MAIN_DATASET)] if MAIN_DATASET in missing else []
    clips = [f"one of {', '.join(gone)}" if len(gone) > 1 else gone[0]] if len(gone) == len(names) else []
    return list(dict.fromkeys(trains + clips))


def goes_without(profile: Profile, notebook: str, missing: Set[str]) -> list[str]:
    """Sources of the missing datasets that a notebook which can run leaves out."""
    tables = [spec for spec in Experiments(profile).specs.values() if spec.notebook == notebook]
    optional = [spec.dataset for spec in tables if spec.dataset in OPTIONAL and spec.dataset in profile.datasets]
    names = dict.fromkeys((*needs(profile, notebook), *optional))
    return [source_of(profile, name) for name in names if name in missing]


@dataclass(frozen=True)
class Work:
    """The fine-tuning runs and predictions of a profile, each counted once however many tables show it.

    Attributes:
        runs: run → its first table and label, the name of its dataset, its training frames.
        windows: fewest and most windows that all rows' predictions, and all validations, encode.
        counted: whether all frames were counted here, and none taken from publications.
    """

    runs: tuple[tuple[RunConfig, str, str, int], ...]
    windows: tuple[float, float]
    counted: bool

    @property
    def views(self) -> int:
        """Training views of all runs."""
        return sum(run.training.total_samples(frames) for run, _, _, frames in self.runs)


def work(experiments: Experiments, frames: Mapping[str, Mapping[str, FrameSet]]) -> Work:
    """Count a profile's runs and predictions.

    Args:
        frames: dataset → split → frames, of those that are here; others count as published.
    """
    runs: dict[str, tuple[RunConfig, str, str, int]] = {}
    rows: dict[str, tuple[str, RowSpec]] = {}
    profile, counted = experiments.profile, True
    for table, spec in experiments.specs.items():
        if table not in experiments.tables:
            continue
        name = spec.dataset if spec.dataset in profile.datasets else MAIN_DATASET
        for row in spec.rows:
            if row.method is None:
                continue
            rows[f"{name} {row.model_dump_json(exclude={'label', 'published'})}"] = (name, row)
            for seed in profile.seeds if row.trains else ():
                run = experiments.run_config(row, seed)
                size = _frame_counts(profile, name, frames)
                counted &= name in frames or datasets(profile)[name].source == "synthetic"
                known = f"{name} {run.model_dump_json()}"
                runs.setdefault(known, (run, f"{table}, {row.label}", name, size[0]))
    least = most = 0.0
    for name, row in rows.values():
        _, scored, objects = _frame_counts(profile, name, frames)
        times = len(profile.seeds) if row.trains else 1
        mode = experiments.inference(row).mode
        least += times * (objects if mode == "object" else scored)
        most += times * (scored if mode == "direct" else objects)
    for run, _, _, size in runs.values():
        training = run.training
        checks = training.total_samples(size) // training.validate_every + 1
        least, most = (bound + checks * training.validation_objects for bound in (least, most))
    return Work(tuple(runs.values()), (least, most), counted)


def _frame_counts(profile: Profile, name: str, frames: Mapping[str, Mapping[str, FrameSet]]) -> tuple[int, int, int]:
    """Training frames, scored frames, objects in these."""
    data = datasets(profile)[name]
    if name in frames:
        scored = frames[name][scored_split(data)]
        train = frames[name].get("train", ())
        return len(train) if scored_split(data) == "test" else round(0.9 * len(train)), len(scored), scored.object_count
    if data.source == "synthetic":
        made = data.synthetic
        each = 1 if made.is_still else len(range(0, made.frames_per_video, made.frame_stride))
        train, scored = made.train_videos * each, made.test_videos * each
        objects = round(scored * OBJECTS_A_FRAME)
    else:
        train, scored, objects = PUBLISHED_FRAMES.get(data.source, (0, 0, 0))
        train = round(0.9 * train)  # a tenth is held out to choose the checkpoint
    limit = data.limit_frames
    if limit is not None and scored:
        train, scored, objects = min(train, limit), min(scored, limit), round(objects * min(1, limit / scored))
    return train, scored, objects


def two_steps(profile: Profile) -> dict[str, Any]:
    """Overrides of a profile under which every run ends after two optimisation steps, on four frames."""
    batch = Experiments(profile).training_config(RowSpec(label="two steps", method="sam"), 0).batch
    few = {"samples": 2 * batch, "validation_objects": 4, "validate_every": 2 * batch, "checkpoint_every": 2 * batch}
    overrides: dict[str, Any] = {
        f"{place}.{key}": value
        for place in ("training", *(f"budgets.{table}" for table in profile.budgets))
        for key, value in few.items()
    }
    overrides |= {f"{place}.limit_frames": 4 for place in ("data", *(f"datasets.{name}" for name in profile.datasets))}
    overrides |= {"seeds": [profile.seeds[0]]}
    notice = "Two optimisation steps on four frames, to show that everything runs. The numbers mean nothing."
    return overrides | {"notice": notice}
