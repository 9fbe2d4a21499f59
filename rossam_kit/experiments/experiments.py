"""Scored objects for every row of a table, computed once and cached.

`Experiments` takes a profile; its `results` returns for each row of a table in `experiments.yaml` a DataFrame with one
row per scored unit (see `scoring`). Scores are cached under a key: the hash of everything that may change a number (the
row's resolved settings, the fingerprint of the data, the hash of the weights, the versions of code and libraries). The
parts of the key are stored beside the scores and in each run's folder. A killed process loses at most one row.
"""

from __future__ import annotations

import functools
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml
from pydantic import Field, model_validator

from rossam_core.devices import has_fast_bfloat16, resolve_device, thread_count
from rossam_core.errors import RossamError
from rossam_core.files import cache_dir, read_sealed, sha256_of, write_json, write_sealed
from rossam_core.inference.predictor import Predictor
from rossam_core.model.build import build_model, input_size, load_run
from rossam_core.model.lora import merge_adapters
from rossam_core.model.segmenter import PromptableSegmenter
from rossam_core.model.weights import SHIPPED, default_checkpoint, weights_hash
from rossam_core.settings import Config, InferenceConfig, Method, Recipe, merged, parse_config
from rossam_core.training.recipes import GroupName, RunConfig, TrainingConfig, recipe
from rossam_core.training.run_folder import STATE, check_files, is_finished
from rossam_core.training.train import fit
from rossam_kit.cache import cached, exclusive, load_table, result_key, save_table, versions
from rossam_kit.config import CONFIGS, Profile
from rossam_kit.datasets.catalogue import place_of
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.loading import is_there, load_frames, scored_split
from rossam_kit.experiments.baselines import BASELINES
from rossam_kit.experiments.scoring import predict_frames, score
from rossam_kit.parallel import run_tasks, worker_count
from rossam_kit.progress import track

TABLES = CONFIGS / "experiments.yaml"
TRAINING_VERSION = "training 5"
"""To be raised with any code change that changes the weights of a run: cached runs of older versions are not used."""
SCORING_VERSION = "scoring 5"
"""The same for predictions, baselines and scores."""
FACTS = ("seconds", "objects", "parameters")
"""Of a result, stored beside its scores."""
KEY = "key.json"
"""File of a run's folder: the parts of its key."""
MAIN_DATASET = "sat-mtb"
"""The paper's own dataset: what a profile's `data` stands for in most tables."""


class RowSpec(Config):
    """One row of one table, as `experiments.yaml` writes it."""

    label: str
    """Text of the table's first column."""
    published: str | None = None
    """Row name in `published.csv`; None for rows the paper does not have."""
    method: Method | None = None
    baseline: Literal["box", "ellipse", "grabcut"] | None = None
    trains: tuple[GroupName, ...] = ()
    """Parameter groups that are fine-tuned; none: the network as it comes."""
    recipe: Recipe | None = None
    """Recipe of the fine-tuning; None: the profile's, with its `recipe_changes`."""
    inference: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the profile's inference settings."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the profile's fine-tuning."""

    @property
    def kind(self) -> str:
        """Colour and legend key: the method's or the baseline's name."""
        return self.method or self.baseline


class TableSpec(Config):
    """One table: its rows in order, and the only settings in which they differ."""

    title: str
    notebook: str
    """The notebook that shows it."""
    dataset: str = MAIN_DATASET
    """What the published numbers were measured on (`published.csv`), and key of `Profile.datasets`."""
    published: str = ""
    """The paper's table in `published.csv`; by default the table's own name."""
    reference: str
    """Label of the row that the others are compared with."""
    varies: tuple[str, ...]
    """Settings in which a row may differ from the reference row (`rows.row_settings`); `*` stands for any part."""
    inference: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the profile's inference settings in all rows."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the profile's fine-tuning in all rows."""
    rows: tuple[RowSpec, ...]

    @model_validator(mode="after")
    def _reference_is_a_row(self) -> TableSpec:
        if self.reference not in (labels := [row.label for row in self.rows]):
            raise ValueError(f"reference {self.reference!r} is no row; rows are {labels}")
        return self

    def with_training(self, overrides: Mapping[str, Any]) -> TableSpec:
        """The table with `overrides` below each row's own."""
        rows = [row.model_copy(update={"training": merged(overrides, row.training)}) for row in self.rows]
        return self.model_copy(update={"rows": tuple(rows)})

    def row(self, label: str) -> RowSpec:
        """The row of that label."""
        rows = {row.label: row for row in self.rows}
        if label not in rows:
            raise RossamError(f"{TABLES} {self.title}", f"has no row {label!r}", f"its rows are {list(rows)}")
        return rows[label]


def table_specs() -> dict[str, TableSpec]:
    """All tables of `experiments.yaml`, checked."""
    values = yaml.safe_load(TABLES.read_text(encoding="utf-8"))
    specs = {}
    for name, table in values.items():
        spec = parse_config(TableSpec, {"published": name, **table}, where=f"{TABLES} {name}")
        rows = [row.model_copy(update={"inference": {**spec.inference, **row.inference}}) for row in spec.rows]
        specs[name] = spec.model_copy(update={"rows": tuple(rows)}).with_training(spec.training)
    return specs


@dataclass(frozen=True)
class RowResult:
    """A row of `experiments.yaml` and its scores."""

    spec: RowSpec
    scores: pd.DataFrame
    """One row per scored unit, all protocols (see `scoring.score`)."""
    key: str
    """Content hash that names the cached scores."""
    seconds: float
    """Time that prediction and scoring took, all seeds together, training excluded."""
    objects: int
    """Number of prompts answered, those of every seed counted."""
    parameters: int
    """Of a network that is not fine-tuned; 0 for the others, whose runs count theirs."""
    experiments: Experiments = field(repr=False, compare=False)

    def units(self, protocol: str = "object") -> pd.DataFrame:
        """Scored units of one protocol."""
        return self.scores[self.scores["protocol"] == protocol]

    def first_run(self) -> pd.DataFrame:
        """Scored objects with their masks, of a fine-tuned row those of its first seed's run."""
        units = self.units()
        return units[units["seed"] == units["seed"].iloc[0]] if self.spec.trains else units


class Experiments:
    """A profile's data, models and results, each made when first needed.

    Args:
        cache: folder of results and generated data; default `files.cache_dir()`.
    """

    def __init__(self, profile: Profile, cache: Path | None = None):
        self.profile, self.cache = profile, cache or cache_dir()
        self.device = resolve_device(profile.device)
        self._models: dict[str, PromptableSegmenter] = {}
        self._others: dict[str, Experiments] = {}
        self._results: dict[str, RowResult] = {}
        self._whole: set[Path] = set()

    @cached_property
    def specs(self) -> dict[str, TableSpec]:
        """All tables, with the profile's budgets in their fine-tuned rows; rows of methods beyond the paper only where
        the profile names them."""
        specs = table_specs()
        for key in ("budgets", "skip_tables"):
            unknown = sorted(set(getattr(self.profile, key)) - set(specs))
            if unknown:
                where = f"profile {self.profile.name}, {key}"
                raise RossamError(where, f"name no table: {unknown}", _table_names(specs))
        budgets, absent = self.profile.budgets, {"sam3"} - set(self.profile.extra_methods)
        for name, spec in specs.items():
            rows = tuple(row for row in spec.rows if row.method not in absent)
            specs[name] = spec.model_copy(update={"rows": rows}).with_training(budgets.get(name, {}))
        return specs

    def on(self, dataset: str) -> Experiments:
        """The same experiments on the profile's data for `dataset`; `self` where the profile has none."""
        if dataset not in self.profile.datasets:
            return self
        if dataset not in self._others:
            alone = self.profile.model_copy(update={"data": self.profile.datasets[dataset], "datasets": {}})
            self._others[dataset] = Experiments(alone, self.cache)
            self._others[dataset]._models = self._models
        return self._others[dataset]

    @cached_property
    def frames(self) -> FrameSet:
        """The frames that are scored."""
        return load_frames(self.profile.data, scored_split(self.profile.data), self.cache)

    @cached_property
    def training_frames(self) -> tuple[FrameSet, FrameSet]:
        """Frames to train on, and frames to choose the best checkpoint by; neither holds a scored frame.

        NWPU VHR-10 has no third split, so every tenth image of its train split (at least one) is held out to choose by.
        """
        train = load_frames(self.profile.data, "train", self.cache)
        if scored_split(self.profile.data) == "val":
            held_out = set(range(9, len(train), 10)) or {len(train) - 1}
            parts = [[frame for i, frame in enumerate(train) if (i in held_out) == chosen] for chosen in (False, True)]
            return train.subset(parts[0]), train.subset(parts[1])
        return train, load_frames(self.profile.data, "val", self.cache)

    @cached_property
    def _training_fingerprint(self) -> list[str]:
        return [frames.fingerprint() for frames in self.training_frames]

    @cached_property
    def _fingerprint(self) -> str:
        return self.frames.fingerprint()

    def model(self, method: Method) -> PromptableSegmenter:
        """The profile's network for `method`, loaded once."""
        if method not in self._models:
            base = self.base(method)
            constants = base.pop("architecture")
            self._models[method] = build_model(method, **base, **constants).to(self.device)
        return self._models[method]

    def base(self, method: Method) -> dict[str, Any]:
        """Backbone, checkpoint and replaced constants of `method`'s network; a path is SAM's."""
        settings = self.profile.model
        if method not in ("sam2", "sam3"):
            constants = dict(settings.architecture)
            return {"backbone": settings.backbone, "checkpoint": settings.checkpoint, "architecture": constants}
        checkpoint = None if settings.checkpoint is None else "default"
        if method == "sam3":
            return {"backbone": "sam3", "checkpoint": checkpoint, "architecture": dict(settings.sam3_architecture)}
        return {"backbone": settings.sam2_backbone, "checkpoint": checkpoint, "architecture": {}}

    def _weights(self, method: Method) -> str:
        """What the weights of `method`'s network are: hash of their file and replaced constants; no network is built.

        Where there is no file (fresh weights, a folder), it is the hash of the network's tensors.
        """
        base = self.base(method)
        path = base["checkpoint"] and Path(base["checkpoint"])
        if base["checkpoint"] == "default":
            path = default_checkpoint(base["backbone"], hq=method in ("hq-sam", "ros-sam"))
        if path is None or not path.is_file():
            return weights_hash(self.model(method))
        constants = base["architecture"]
        return _file_hash(path, path.stat().st_mtime_ns) + (f" {constants}" if constants else "")

    def training_config(self, spec: RowSpec, seed: int) -> TrainingConfig:
        """The row's fine-tuning: its recipe, the profile's changes and budget over it, the row's own over these.

        A row that is not fine-tuned has the same settings and no trained group.
        """
        name = spec.recipe or self.profile.model.recipe
        changes = self.profile.recipe_changes if name == "paper" and spec.recipe is None else {}
        overrides = merged(merged(changes, self.profile.training), spec.training)
        return recipe(name, **merged(overrides, {"trained_groups": spec.trains, "seed": seed}))

    def run_config(self, spec: RowSpec, seed: int) -> RunConfig:
        """The fine-tuning run behind a row.

        Raises:
            RossamError: the row trains nothing, or a group that its method does not have.
        """
        training = self.training_config(spec, seed)
        name = spec.recipe or self.profile.model.recipe
        values = {"method": spec.method, "recipe": name, "training": training, "device": str(self.device)}
        # validated as it is scored, but for what rows of one network differ in: they share the run
        shared = {key: getattr(self.profile.inference, key) for key in ("mode", "interpolation")}
        shared |= {"mask_source": "default", "precision": "auto"}
        values["inference"] = self.inference(spec).model_copy(update=shared)
        return parse_config(RunConfig, values | self.base(spec.method), where=f"{TABLES} row {spec.label!r}")

    def _runs(self, spec: RowSpec) -> list[tuple[Experiments, RunConfig]]:
        """The runs behind a row, one per seed; none where it is not fine-tuned."""
        return [(self, self.run_config(spec, seed)) for seed in self.profile.seeds] if spec.trains else []

    def run_dir(self, spec: RowSpec, seed: int = 0) -> Path:
        """The row's run folder; the run is trained first if necessary."""
        return self.trained(self.run_config(spec, seed))

    def run_parts(self, run: RunConfig) -> dict[str, Any]:
        """Everything that may change a run's weights, by name."""
        excluded = {"device": True, "inference": {"batch_size", "prompt_batch_size"}}
        return {
            "settings": run.model_dump(mode="json", exclude=excluded),
            "processor": [self._precision(run.training.precision), self.device.type],
            "data": self._training_fingerprint,
            "weights": self._weights("hq-sam" if run.method == "ros-sam" else run.method),
        }

    def run_folder(self, run: RunConfig) -> Path:
        """Folder of the run, which may not exist yet; named by the hash of `run_parts`."""
        return self.cache / "runs" / result_key(list(self.run_parts(run).values()), TRAINING_VERSION)

    def trained(self, run: RunConfig) -> Path:
        """The run's folder; a run is trained once for all rows that share its settings."""
        train([(self, run)])
        return self.run_folder(run)

    def predictor(self, spec: RowSpec, seed: int = 0):
        """The row's `Predictor`, fine-tuned first where the row trains, or its baseline."""
        if spec.baseline:
            return BASELINES[spec.baseline]()
        if spec.trains:
            model = load_run(self.run_dir(spec, seed))
            merge_adapters(model)  # W + BA in one matrix: the same masks, as fast as without adapters
        else:
            model = self.model(spec.method)
        return Predictor(model, self.inference(spec), device=str(self.device))

    def _precision(self, precision: str) -> str:
        if precision != "auto":
            return precision
        return "bfloat16" if has_fast_bfloat16(self.device.type) else "float32"

    def inference(self, spec: RowSpec) -> InferenceConfig:
        """The profile's inference settings with the row's overrides."""
        values = {**self.profile.inference.model_dump(), **spec.inference}
        return parse_config(InferenceConfig, values, where=f"{TABLES} row {spec.label!r}")

    def key_parts(self, spec: RowSpec) -> dict[str, Any]:
        """Everything that may change the row's scores, by name; nothing is trained or scored for it.

        `network` is method, backbone, and the hash of the weights or the names of the run folders, one per seed.
        """
        parts = {"data": self._fingerprint, "evaluation": self.profile.evaluation.model_dump()}
        if spec.baseline:
            return parts | {"baseline": spec.baseline}
        inference = self.inference(spec)
        if spec.trains:
            weights = [self.run_folder(self.run_config(spec, seed)).name for seed in self.profile.seeds]
        else:
            weights = self._weights(spec.method)
        return parts | {
            "inference": inference.model_dump(exclude={"batch_size", "prompt_batch_size", "precision"}),
            "processor": [self._precision(inference.precision), self.device.type],
            "network": [spec.method, self.base(spec.method)["backbone"], weights],
        }

    def key(self, spec: RowSpec) -> str:
        """Hash of `key_parts` and of the versions of code and libraries."""
        return result_key(list(self.key_parts(spec).values()), SCORING_VERSION)

    def scores_path(self, spec: RowSpec) -> Path:
        """File of the row's scores, which may not exist yet; the parts of their key are in a JSON file beside it."""
        return self.cache / "scores" / self.profile.name / f"{self.key(spec)}.csv.gz"

    def result(self, spec: RowSpec) -> RowResult:
        """The row's scores: loaded where they exist, else computed and cached."""
        row = spec.model_dump_json()
        if row not in self._results:
            self._results[row] = self._load_or_compute(spec)
        return self._results[row]

    def _load_or_compute(self, spec: RowSpec) -> RowResult:
        path, key = self.scores_path(spec), self.key(spec)
        facts_path = path.with_name(f"{key}.json")

        def save(temporary: Path, result: RowResult) -> None:
            facts = {"label": spec.label, **{name: getattr(result, name) for name in FACTS}}
            parts = self.key_parts(spec) | {"versions": versions(SCORING_VERSION)}
            write_sealed(facts_path, facts | {"key": parts})
            save_table(temporary, result.scores)

        def load(path: Path) -> RowResult:
            facts = read_sealed(facts_path)
            return RowResult(spec, load_table(path), key, *(facts[name] for name in FACTS), self)

        return cached(path, lambda: self._computed(spec, key), load=load, save=save)

    def _computed(self, spec: RowSpec, key: str) -> RowResult:
        train(self._runs(spec))
        started = time.perf_counter()
        scores = self._compute(spec)
        seconds = time.perf_counter() - started
        prompts = sum(annotation.has_mask for frame in self.frames for annotation in frame.objects)
        objects = prompts * (len(self.profile.seeds) if spec.trains else 1)
        network = None if spec.trains or not spec.method else self.model(spec.method)
        parameters = 0 if network is None else sum(p.numel() for p in network.parameters())
        return RowResult(spec, scores, key, seconds, objects, parameters, self)

    @property
    def tables(self) -> set[str]:
        """Tables that the profile's notebooks show and that the profile has data for."""
        here = {MAIN_DATASET, self.profile.data.source, *self.profile.datasets}
        shown = {name: spec for name, spec in self.specs.items() if name not in self.profile.skip_tables}
        return {n for n, spec in shown.items() if spec.notebook in self.profile.notebooks and spec.dataset in here}

    def results(self, table: str) -> list[RowResult]:
        """All rows of a table of `experiments.yaml` but those `left_out`, in order, on the table's dataset."""
        missing, place = self.left_out(table), self.on(self.specs[table].dataset)
        specs = [spec for spec in self.specs[table].rows if spec.label not in missing]
        prepare([(place, spec) for spec in specs])
        return [place.result(spec) for spec in specs]

    def left_out(self, table: str) -> dict[str, str]:
        """Label → reason for rows that cannot be computed: no data for the table, or no prior for a network."""
        if table not in self.specs:
            raise RossamError(TABLES, f"has no table {table!r}", _table_names(self.specs))
        spec = self.specs[table]
        absent = self._absent(spec.dataset)
        reasons = {row.label: absent or self.lacks_prior(row.method) for row in spec.rows}
        return {label: reason for label, reason in reasons.items() if reason}

    def lacks_prior(self, method: Method | None) -> str:
        """Why `method` cannot run: its shipped prior, or SAM 3's weights, which nothing fetches, are missing; empty
        where it can."""
        if method == "sam3" and self.base(method)["checkpoint"] and not place_of("sam3").is_file():
            return "its weights are not there: rossam fetch sam3"
        prior = SHIPPED.get(self.base(method)["backbone"]) if method else None
        if prior is None or self.profile.model.checkpoint != "default" or prior.is_file():
            return ""
        return f"no prior of {method} at this size comes with the package: {prior.name}"

    def _absent(self, dataset: str) -> str:
        """Reason why a table's dataset cannot be scored; empty where it can."""
        if dataset in (MAIN_DATASET, self.profile.data.source):
            return ""
        if dataset not in self.profile.datasets:
            return f"the profile {self.profile.name} has no {dataset}"
        return "" if is_there(self.profile.datasets[dataset]) else f"{dataset} is not there: rossam fetch --check"

    def _compute(self, spec: RowSpec) -> pd.DataFrame:
        """Scores of the row; a fine-tuned one has a column `seed`, all seeds' scores one below the other."""
        if not spec.trains:
            return self._score(spec, 0)
        return pd.concat([self._score(spec, seed).assign(seed=seed) for seed in self.profile.seeds])

    def _score(self, spec: RowSpec, seed: int) -> pd.DataFrame:
        evaluation = self.profile.evaluation
        predictions = predict_frames(self.predictor(spec, seed), self.frames)
        return score(
            track(predictions, total=len(self.frames), desc=spec.label),
            protocols=evaluation.protocols,
            dilation_ratio=evaluation.dilation_ratio,
            size_bins=evaluation.size_bins,
        )


def train(runs: Sequence[tuple[Experiments, RunConfig]]) -> None:
    """Train the runs that are not there, or damaged, the longest first: on a processor one per core, on a GPU one at a
    time.
    """
    folders = {place.run_folder(run): (place, run) for place, run in runs}
    missing = {f: (place, run) for f, (place, run) in folders.items() if f not in place._whole and not is_whole(f)}
    tasks = [
        (run, folder, place.run_parts(run) | {"versions": versions(TRAINING_VERSION)}, *place.training_frames)
        for folder, (place, run) in missing.items()
    ]
    tasks.sort(key=lambda task: -task[0].training.total_samples(len(task[3])))
    for _ in run_tasks(_fit, tasks, workers=_workers(runs), desc="fine-tuning runs"):
        pass
    for folder, (place, _) in folders.items():
        place._whole.add(folder)


def prepare(rows: Sequence[tuple[Experiments, RowSpec]]) -> None:
    """Train and score the rows that are not cached, on all cores; rows may be of several datasets."""
    missing = {path: (place, spec) for place, spec in rows if not (path := place.scores_path(spec)).exists()}
    train([run for place, spec in missing.values() for run in place._runs(spec)])
    tasks = [(place.profile, place.cache, spec) for place, spec in missing.values()]
    if len(tasks) < 2 or any(place.device.type != "cpu" for place, _ in rows):
        return  # `Experiments.result` computes them in this process
    for _ in run_tasks(_score_row, tasks, workers=_workers(rows), desc="rows scored"):
        pass
    _in_this_worker.cache_clear()  # of a single worker, which is this process


def _workers(items: Sequence[tuple[Experiments, Any]]) -> int:
    """Worker processes for items of one profile: one for a GPU; for a processor one per core, as far as memory goes."""
    if any(place.device.type != "cpu" for place, _ in items):
        return 1
    bases = [place.base(item.method) for place, item in items if item.method]
    sides = [base["architecture"].get("input_size") or input_size(base["backbone"]) for base in bases]
    return worker_count(len(items), max(sides, default=0))


def _fit(run: RunConfig, folder: Path, parts: dict[str, Any], train: FrameSet, val: FrameSet) -> None:
    """Train one run unless another process has done so; its state, the largest file, is removed at the end.

    On a processor one thread computes, here as in a worker: with another number of threads the weights differ.
    """
    with exclusive(folder), thread_count(1 if run.device == "cpu" else None):
        if not is_whole(folder):
            if folder.exists() and (fault := _fault(folder)):
                warnings.warn(f"the run is trained again: {fault}", stacklevel=2)
                shutil.rmtree(folder)
            write_json(folder / KEY, parts)
            fit(run, folder, train, val, progress=track)
        (folder / STATE).unlink(missing_ok=True)


def is_whole(folder: Path) -> bool:
    """Whether the folder holds a finished run of undamaged files."""
    return is_finished(folder) and not _fault(folder)


def _fault(folder: Path) -> RossamError | None:
    try:
        return check_files(folder)
    except RossamError as error:
        return error


@functools.cache
def _file_hash(path: Path, changed_ns: int) -> str:
    """SHA-256 of a file, read once as long as it does not change."""
    return sha256_of(path)


@functools.cache
def _in_this_worker(profile_json: str, cache: Path) -> Experiments:
    """The worker's `Experiments`, with models and frames loaded once for all its tasks."""
    return Experiments(Profile.model_validate_json(profile_json), cache)


def _score_row(profile: Profile, cache: Path, spec: RowSpec) -> None:
    _in_this_worker(profile.model_dump_json(), cache).result(spec)


def _table_names(specs: dict[str, TableSpec]) -> str:
    return f"use one of {', '.join(specs)}"
