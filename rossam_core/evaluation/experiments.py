"""Rows of tables → scored objects, computed once and kept.

In: a profile and the name of a table in `configs/experiments.yaml`. Out: for each row one DataFrame with a row
a scored unit (see `scoring`). A row's key is the hash of everything that may move a number: its resolved
settings, the data's fingerprint, the weights' hash, and the source that computes it. What is there under that
key is loaded, what is missing is computed, whichever notebook asks first; a killed run loses at most one row.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
import yaml
from pydantic import Field

from ..config import CONFIGS, Config, InferenceConfig, Method, Profile, parse_config
from ..data.loading import is_there, load_frames, scored_split
from ..data.records import FrameSet
from ..devices import has_fast_bfloat16, resolve_device
from ..errors import RossamError
from ..files import atomic_path, cache_dir, exclusive, read_json, source_digest, stable_hash, write_json
from ..inference.predictor import Predictor
from ..model.checkpoints import SHIPPED, weights_hash
from ..model.rossam import PromptableSegmenter, build_model
from ..progress import track
from ..training.cores import fit_on_cores, process_count
from ..training.recipes import RunConfig, merged, recipe
from ..training.runs import STATE, OnEvent, load_run
from .baselines import BASELINES
from .scoring import predict_frames, score

TABLES = CONFIGS / "experiments.yaml"
MAIN_DATASET = "sat-mtb"
"""The paper's own dataset: what a profile's `data` stands for in most tables."""


class RowSpec(Config):
    """One row of one table, as `experiments.yaml` writes it."""

    label: str
    """What the table's first column says."""
    published: str | None = None
    """Row name in `published.csv`; None for rows the paper does not have."""
    method: Method | None = None
    baseline: Literal["box", "ellipse", "grabcut"] | None = None
    inference: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the profile's inference settings."""
    training: dict[str, Any] | None = None
    """Overrides of the profile's fine-tuning; None for a model that is not fine-tuned."""

    @property
    def kind(self) -> str:
        """Colour and legend key: the method's or the baseline's name."""
        return self.method or self.baseline


class TableSpec(Config):
    """One table: what it asks, and its rows in order."""

    title: str
    question: str
    """What the table asks."""
    notebook: str
    """The notebook that shows it."""
    dataset: str = MAIN_DATASET
    """What the published numbers were measured on (`published.csv`), and key of `Profile.datasets`."""
    published: str = ""
    """The paper's table in `published.csv`; by default the table's own name."""
    rows: tuple[RowSpec, ...]

    def row(self, label: str) -> RowSpec:
        """The row of that label."""
        for row in self.rows:
            if row.label == label:
                return row
        raise RossamError(
            f"{TABLES} {self.title}", f"has no row {label!r}", f"its rows are {[r.label for r in self.rows]}"
        )


def table_specs() -> dict[str, TableSpec]:
    """All tables of `experiments.yaml`, checked."""
    values = yaml.safe_load(TABLES.read_text(encoding="utf-8"))
    return {
        name: parse_config(TableSpec, {"published": name, **table}, where=f"{TABLES} {name}")
        for name, table in values.items()
    }


@dataclass(frozen=True)
class RowResult:
    """A row and what was measured for it.

    Attributes:
        spec: the row as `experiments.yaml` has it.
        scores: one row a scored unit, all protocols (see `scoring.score`).
        key: content hash the scores are kept under.
        seconds: time that prediction and scoring took, all seeds together, training excluded.
        objects: number of prompts answered, those of every seed counted.
        experiments: what computed it, and has its data and its run.
    """

    spec: RowSpec
    scores: pd.DataFrame
    key: str
    seconds: float
    objects: int
    experiments: Experiments = field(repr=False, compare=False)

    def units(self, protocol: str = "object") -> pd.DataFrame:
        """Scored units of one protocol."""
        return self.scores[self.scores["protocol"] == protocol]


class Experiments:
    """A profile's data, models and results, each made at the first demand.

    Args:
        profile: settings.
        cache: folder of results and generated data; default `files.cache_dir()`.

    Attributes:
        on_event: hears of each step and validation of every fine-tuning run (`training.runs.OnEvent`).
    """

    def __init__(self, profile: Profile, cache: Path | None = None):
        self.profile, self.cache = profile, cache or cache_dir()
        self.device = resolve_device(profile.device)
        self.on_event: OnEvent | None = None
        self._models: dict[str, PromptableSegmenter] = {}
        self._others: dict[str, Experiments] = {}
        self._trained: set[Path] = set()
        self._results: dict[str, RowResult] = {}

    @cached_property
    def specs(self) -> dict[str, TableSpec]:
        """All tables, with the profile's budgets in their fine-tuned rows."""
        specs = table_specs()
        unknown = sorted(set(self.profile.budgets) - set(specs))
        if unknown:
            raise RossamError(f"profile {self.profile.name}, budgets", f"name no table: {unknown}", _known(specs))
        for name, budget in self.profile.budgets.items():
            rows = [
                row if row.training is None else row.model_copy(update={"training": merged(budget, row.training)})
                for row in specs[name].rows
            ]
            specs[name] = specs[name].model_copy(update={"rows": tuple(rows)})
        return specs

    def on(self, dataset: str) -> Experiments:
        """The same experiments on the data that the profile names for `dataset`; these here where it names none."""
        if dataset not in self.profile.datasets:
            return self
        if dataset not in self._others:
            alone = self.profile.model_copy(update={"data": self.profile.datasets[dataset], "datasets": {}})
            self._others[dataset] = Experiments(alone, self.cache)
            self._others[dataset]._models = self._models
        self._others[dataset].on_event = self.on_event
        return self._others[dataset]

    @cached_property
    def frames(self) -> FrameSet:
        """The frames everything is scored on."""
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
            model = build_model(method, recipe=self.profile.model.recipe, **base, **constants)
            self._models[method] = model.to(self.device)
        return self._models[method]

    def base(self, method: Method) -> dict[str, Any]:
        """Backbone, checkpoint and replaced constants of `method`'s network; a path and constants are SAM's."""
        settings = self.profile.model
        if method != "sam2":
            constants = dict(settings.architecture)
            return {"backbone": settings.backbone, "checkpoint": settings.checkpoint, "architecture": constants}
        checkpoint = None if settings.checkpoint is None else "default"
        return {"backbone": settings.sam2_backbone, "checkpoint": checkpoint, "architecture": {}}

    def _backbone(self, method: Method) -> str:
        return self.base(method)["backbone"]

    def run_config(self, spec: RowSpec, seed: int) -> RunConfig:
        """The fine-tuning run behind a row: the recipe, the profile's budget over it, the row over both."""
        settings = self.profile.model
        training = recipe(settings.recipe, **merged(self.profile.training, spec.training or {}), seed=seed)
        values = {"method": spec.method, "recipe": settings.recipe, "training": training, "device": str(self.device)}
        return parse_config(RunConfig, values | self.base(spec.method), where=f"{TABLES} row {spec.label!r}")

    def run_dir(self, spec: RowSpec, seed: int = 0) -> Path:
        """The row's run folder (see `trained`)."""
        return self.trained(self.run_config(spec, seed))

    def run_folder(self, run: RunConfig) -> Path:
        """Where the run's folder is, or will be: named by the hash of everything that may move its weights."""
        key = stable_hash(
            [
                run.model_dump(mode="json", exclude={"device"}),
                [self._precision(run.training.precision), self.device.type, torch.__version__],
                process_count(run, len(self.training_frames[0])),
                self._training_fingerprint,
                weights_hash(self.model("hq-sam" if run.method == "ros-sam" else run.method)),
                source_digest("data", "model", "training"),
            ]
        )
        return self.cache / "runs" / key

    def trained(self, run: RunConfig) -> Path:
        """The run's folder, trained once for all rows, tables and notebooks that share its settings."""
        folder = self.run_folder(run)
        if folder not in self._trained:
            fit_on_cores(run, folder, *self.training_frames, on_event=self.on_event)
            (folder / STATE).unlink(missing_ok=True)  # nothing is left to resume, and it is the largest file
            self._trained.add(folder)
        return folder

    def predictor(self, spec: RowSpec, seed: int = 0):
        """What answers the row's prompts: a `Predictor` (fine-tuned first where the row says so), or a baseline."""
        if spec.baseline:
            return BASELINES[spec.baseline]()
        model = self.model(spec.method) if spec.training is None else load_run(self.run_dir(spec, seed))
        return Predictor(model, self.inference(spec), device=str(self.device))

    def _precision(self, precision: str) -> str:
        if precision != "auto":
            return precision
        return "bfloat16" if has_fast_bfloat16(self.device.type) else "float32"

    def inference(self, spec: RowSpec) -> InferenceConfig:
        """The profile's inference settings with the row's overrides."""
        values = {**self.profile.inference.model_dump(), **spec.inference}
        return parse_config(InferenceConfig, values, where=f"{TABLES} row {spec.label!r}")

    def key(self, spec: RowSpec) -> str:
        """Hash of everything that may move the row's numbers; nothing is trained for it."""
        parts = [self._fingerprint, self.profile.evaluation.model_dump()]
        if spec.baseline:
            parts += [spec.baseline, source_digest("data", "evaluation")]
        else:
            inference = self.inference(spec)
            if spec.training is None:
                weights = weights_hash(self.model(spec.method))
            else:
                weights = [self.run_folder(self.run_config(spec, seed)).name for seed in self.profile.seeds]
            parts += [
                inference.model_dump(exclude={"batch_size", "prompt_batch_size", "precision"}),
                [self._precision(inference.precision), self.device.type, torch.__version__],
                [spec.method, self._backbone(spec.method), weights],
                source_digest("data", "model", "inference", "evaluation"),
            ]
        return stable_hash(parts)

    def result(self, spec: RowSpec) -> RowResult:
        """The row's scores: loaded where they exist, else computed and kept."""
        known = spec.model_dump_json()
        if known not in self._results:
            self._results[known] = self._load_or_compute(spec)
        return self._results[known]

    def _load_or_compute(self, spec: RowSpec) -> RowResult:
        key = self.key(spec)
        folder = self.cache / "scores" / self.profile.name
        table_path, facts_path = folder / f"{key}.csv.gz", folder / f"{key}.json"
        kept = (table_path, facts_path)
        if not all(path.exists() for path in kept):
            with exclusive(table_path):
                if not all(path.exists() for path in kept):  # nobody else has computed it in the meantime
                    self._compute_and_keep(spec, *kept)
        facts = read_json(facts_path)
        scores = pd.read_csv(table_path, dtype={"video": str, "status": str})
        return RowResult(spec, scores, key, facts["seconds"], facts["objects"], self)

    def _compute_and_keep(self, spec: RowSpec, table_path: Path, facts_path: Path) -> None:
        seeds = () if spec.training is None else self.profile.seeds
        for seed in seeds:  # train before the clock starts
            self.run_dir(spec, seed)
        started = time.perf_counter()
        scores = self._compute(spec)
        seconds, objects = time.perf_counter() - started, _prompts(self.frames) * max(len(seeds), 1)
        facts = {"seconds": seconds, "label": spec.label, "objects": objects}
        with atomic_path(table_path) as temporary:
            scores.to_csv(temporary, index=False, compression="gzip")
        write_json(facts_path, facts)

    @property
    def tables(self) -> set[str]:
        """Tables that the profile's notebooks show, and has data for."""
        here = {MAIN_DATASET, self.profile.data.source, *self.profile.datasets}
        shown = self.profile.notebooks
        return {name for name, spec in self.specs.items() if spec.notebook in shown and spec.dataset in here}

    def results(self, table: str) -> list[RowResult]:
        """All rows of a table of `experiments.yaml` but those `left_out`, in order, on the table's dataset."""
        missing, place = self.left_out(table), self.on(self.specs[table].dataset)
        return [place.result(spec) for spec in self.specs[table].rows if spec.label not in missing]

    def left_out(self, table: str) -> dict[str, str]:
        """Label → reason of a table's rows that cannot be had: no data for the table, or no prior for a network."""
        if table not in self.specs:
            raise RossamError(TABLES, f"has no table {table!r}", _known(self.specs))
        spec = self.specs[table]
        absent = self._absent(spec.dataset)
        reasons = {row.label: absent or self.lacks_prior(row.method) for row in spec.rows}
        return {label: reason for label, reason in reasons.items() if reason}

    def lacks_prior(self, method: Method | None) -> str:
        """Why a prior of `method` that the package should ship is not there; empty where it is, or none is asked."""
        prior = SHIPPED.get(self._backbone(method)) if method else None
        if prior is None or self.profile.model.checkpoint != "default" or prior.is_file():
            return ""
        return f"no prior of {method} at this size comes with the package: {prior.name}"

    def _absent(self, dataset: str) -> str:
        """Why a table's dataset cannot be scored; empty where it can."""
        if dataset in (MAIN_DATASET, self.profile.data.source):
            return ""
        if dataset not in self.profile.datasets:
            return f"the profile {self.profile.name} has no {dataset}"
        return "" if is_there(self.profile.datasets[dataset]) else f"{dataset} is not there: rossam fetch --check"

    def _compute(self, spec: RowSpec) -> pd.DataFrame:
        """Scores of the row; a fine-tuned one has a column `seed`, all seeds' scores one below the other."""
        if spec.training is None:
            return self._score(spec, 0)
        return pd.concat([self._score(spec, seed).assign(seed=seed) for seed in self.profile.seeds])

    def _score(self, spec: RowSpec, seed: int) -> pd.DataFrame:
        evaluation = self.profile.evaluation
        predictions = track(
            predict_frames(self.predictor(spec, seed), self.frames), total=len(self.frames), desc=spec.label
        )
        return score(
            predictions,
            protocols=evaluation.protocols,
            dilation_ratio=evaluation.dilation_ratio,
            size_bins=evaluation.size_bins,
        )


def _known(specs: dict[str, TableSpec]) -> str:
    return f"use one of {', '.join(specs)}"


def _prompts(frames: FrameSet) -> int:
    """Objects that are prompted: those with a mask to be scored against."""
    return sum(thing.has_mask for frame in frames for thing in frame.objects)
