"""What a profile's tables need: datasets, fine-tuning runs (each counted once), rows to compute and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rossam_core.devices import core_count, resolve_device
from rossam_core.errors import RossamError
from rossam_core.files import read_sealed
from rossam_core.settings import flatten
from rossam_core.training.recipes import RunConfig
from rossam_kit.cache import versions
from rossam_kit.config import DataConfig, Profile
from rossam_kit.datasets.loading import is_there
from rossam_kit.experiments.experiments import (
    KEY,
    MAIN_DATASET,
    SCORING_VERSION,
    TRAINING_VERSION,
    Experiments,
    RowSpec,
    TableSpec,
    prepare,
)
from rossam_kit.parallel import end_workers, free_memory

PUBLISHED_FRAMES: Mapping[str, int] = {"sat-mtb": 8333, "nwpu-vhr10": 520}
"""Training frames of datasets that are not here to be counted. SAT-MTB: paper section 4.1; NWPU VHR-10: counted."""
NOTEBOOK_BYTES = 3 << 30
"""Memory set aside for each notebook's kernel."""
SHOWN_CHANGES = 4
"""Differences listed in a reason to compute a row anew."""
ZERO_SHOT = ("satsot", "viso", "ootb")
"""Tracking datasets of notebook 09 (paper Figures 8 and 11)."""
ZERO_SHOT_NOTEBOOK = "09_zero_shot_tracking"
OPTIONAL = ("isaid",)
"""Datasets that a notebook can run without; their tables say what is missing (Table 6)."""
NEEDS_NOTHING = "00_setup"


def datasets(profile: Profile) -> dict[str, DataConfig]:
    """All data of a profile by the name that tables use, that of most tables first."""
    return {MAIN_DATASET: profile.data, **profile.datasets}


def missing_datasets(profile: Profile) -> set[str]:
    """Names of the datasets that are not there."""
    return {name for name, data in datasets(profile).items() if not is_there(data)}


def source_of(profile: Profile, name: str) -> str:
    """Source of the data that tables call by this name."""
    source = datasets(profile)[name].source
    return "generated" if source == "synthetic" else source


def shown_tables(experiments: Experiments) -> Iterator[tuple[str, TableSpec, str]]:
    """Name and rows of each table that the profile shows, in order, and the name of the data it is scored on."""
    for table, spec in experiments.specs.items():
        if table in experiments.tables:
            yield table, spec, _own_name(experiments.profile, spec.dataset)


def rows_of(experiments: Experiments, notebooks: Sequence[str]) -> list[tuple[Experiments, RowSpec]]:
    """All rows that the tables of some notebooks show, each with the experiments on its own data."""
    return [
        (experiments.on(spec.dataset), row)
        for table, spec, _ in shown_tables(experiments)
        if spec.notebook in notebooks
        for row in spec.rows
        if row.label not in experiments.left_out(table)
    ]


def compute(profile: Profile, notebooks: Sequence[str]) -> None:
    """Train and score all that the tables of some notebooks show, with one set of worker processes.

    On a GPU nothing is computed here: each notebook computes its own, one after the other.
    """
    experiments = Experiments(profile)
    if experiments.device.type == "cpu":
        prepare(rows_of(experiments, notebooks))
        end_workers()


def notebooks_at_a_time(profile: Profile) -> int:
    """Notebooks that run side by side where nothing else is said: one per core that has memory for it, one on a GPU."""
    if resolve_device(profile.device).type != "cpu":
        return 1
    return max(1, min(core_count(), free_memory() // NOTEBOOK_BYTES))


def _own_name(profile: Profile, dataset: str) -> str:
    """The name of the data that stands for a table's dataset in a profile."""
    return dataset if dataset in profile.datasets else MAIN_DATASET


def datasets_of_tables(profile: Profile) -> dict[str, bool]:
    """Names of datasets that shown tables are scored on, and whether any of their rows trains."""
    trains: dict[str, bool] = {}
    for _, spec, name in shown_tables(Experiments(profile)):
        trains[name] = trains.get(name, False) or any(row.trains for row in spec.rows)
    return trains


def needs(profile: Profile, notebook: str) -> tuple[str, ...]:
    """Names of the datasets that a notebook requires; of the zero-shot datasets those that the profile names."""
    if notebook == NEEDS_NOTHING:
        return ()
    if notebook == ZERO_SHOT_NOTEBOOK:
        return tuple(name for name in ZERO_SHOT if name in profile.datasets) or (MAIN_DATASET,)
    shown = {spec.dataset for spec in Experiments(profile).specs.values() if spec.notebook == notebook}
    return tuple(sorted({_own_name(profile, name) for name in shown - set(OPTIONAL)})) or (MAIN_DATASET,)


def waits_for(profile: Profile, notebook: str, missing: Set[str]) -> list[str]:
    """Sources of the missing datasets that keep a notebook from running; of the zero-shot clips one set is enough."""
    names = needs(profile, notebook)
    absent = [source_of(profile, name) for name in names if name in missing]
    if notebook != ZERO_SHOT_NOTEBOOK:
        return absent
    trains = [source_of(profile, MAIN_DATASET)] if MAIN_DATASET in missing else []
    clips = [f"one of {', '.join(absent)}" if len(absent) > 1 else absent[0]] if len(absent) == len(names) else []
    return list(dict.fromkeys(trains + clips))


def goes_without(profile: Profile, notebook: str, missing: Set[str]) -> list[str]:
    """Sources of the missing datasets that a notebook which can run leaves out."""
    shown = {spec.dataset for spec in Experiments(profile).specs.values() if spec.notebook == notebook}
    optional = [name for name in OPTIONAL if name in shown and name in profile.datasets]
    names = dict.fromkeys((*needs(profile, notebook), *optional))
    return [source_of(profile, name) for name in names if name in missing]


@dataclass(frozen=True)
class PlannedRun:
    """A fine-tuning run, whichever and however many tables show it."""

    run: RunConfig
    label: str
    """Its first table and row."""
    dataset: str
    """Name of its data in the profile."""
    frames: int
    """Training frames; 0 where unknown."""

    @property
    def views(self) -> int:
        """Training views; 0 where unknown."""
        return self.run.training.total_samples(self.frames) if self.frames else 0


def planned_runs(experiments: Experiments, frames: Mapping[str, int]) -> list[PlannedRun]:
    """All fine-tuning runs of a profile, each once.

    Args:
        frames: dataset → number of training frames, where the dataset has been read.
    """
    runs: dict[str, PlannedRun] = {}
    for table, spec, name in shown_tables(experiments):
        size = frames[name] if name in frames else _training_frames(datasets(experiments.profile)[name])
        for row in (row for row in spec.rows if row.trains):
            for seed in experiments.profile.seeds:
                run = experiments.run_config(row, seed)
                planned = PlannedRun(run, f"{table}, {row.label}", name, size)
                runs.setdefault(f"{name} {run.model_dump_json()}", planned)
    return list(runs.values())


def _training_frames(data: DataConfig) -> int:
    """Training frames of generated data, or of a dataset as published, less the tenth held out for validation."""
    made = data.synthetic
    if data.source == "synthetic":
        count = made.train_videos * len(made.moments)
    else:
        count = round(0.9 * PUBLISHED_FRAMES.get(data.source, 0))
    return count if data.limit_frames is None else min(count, data.limit_frames)


def reason_to_compute(place: Experiments, spec: RowSpec) -> str:
    """Why a row's scores must be computed; empty where they are cached.

    The reason lists the parts of its key in which it differs from the most similar cached result of the same label.
    """
    path = place.scores_path(spec)
    if path.exists():
        return ""
    facts = map(_readable, sorted(path.parent.glob("*.json")))
    earlier = [fact["key"] for fact in facts if fact.get("label") == spec.label and "key" in fact]
    if not earlier:
        return "no earlier result"
    parts = _with_run(place, place.key_parts(spec) | {"versions": versions(SCORING_VERSION)})
    if spec.trains:
        run = place.run_parts(place.run_config(spec, place.profile.seeds[0]))
        parts["run"] = run | {"versions": versions(TRAINING_VERSION)}
    changes = min((_changes(_with_run(place, old), parts) for old in earlier), key=len)
    more = [f"and {len(changes) - SHOWN_CHANGES} more"] if len(changes) > SHOWN_CHANGES else []
    return "; ".join(changes[:SHOWN_CHANGES] + more)


def _with_run(place: Experiments, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a key, with the key of the first run folder in place of the folders' names."""
    method, backbone, weights = parts.get("network", (None, None, None))
    if not isinstance(weights, list):
        return dict(parts)
    run = _readable(place.cache / "runs" / weights[0] / KEY)
    return {**parts, "network": [method, backbone], "seeds": len(weights), "run": run}


def _readable(path: Path) -> dict[str, Any]:
    """The values of a cached JSON file; none where it is missing or damaged."""
    try:
        return read_sealed(path)
    except RossamError:
        return {}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = (dict(flatten(json.loads(json.dumps(parts, default=str)))) for parts in (old, new))
    keys = [key for key in dict.fromkeys([*after, *before]) if before.get(key) != after.get(key)]
    return [f"{key}: {_short(before.get(key))} → {_short(after.get(key))}" for key in keys]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) > 32 else text


def two_steps(profile: Profile) -> dict[str, Any]:
    """Overrides of a profile under which every run ends after two optimisation steps, on four frames."""
    batch = Experiments(profile).training_config(RowSpec(label="two steps", method="sam"), 0).batch
    budget = {"samples": 2 * batch, "validation_objects": 4, "validate_every": 2 * batch, "checkpoint_every": 2 * batch}
    overrides: dict[str, Any] = {
        f"{place}.{key}": value
        for place in ("training", *(f"budgets.{table}" for table in profile.budgets))
        for key, value in budget.items()
    }
    overrides |= {f"{place}.limit_frames": 4 for place in ("data", *(f"datasets.{name}" for name in profile.datasets))}
    overrides |= {"seeds": [profile.seeds[0]]}
    notice = "Two optimisation steps on four frames, to show that everything runs. The numbers mean nothing."
    return overrides | {"notice": notice}
