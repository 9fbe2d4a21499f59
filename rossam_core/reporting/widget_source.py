"""What there is to inspect: sets of frames, methods that answer prompts, and scores to order objects by.

In: an `Experiments`, or frames and predictors of one's own. Out: a `Source`, whose parts are made at the first
demand. Nothing is trained from here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from ..config import EvaluationConfig, InferenceConfig
from ..data.loading import load_frames, scored_split
from ..evaluation.experiments import Experiments, RowSpec
from ..evaluation.scoring import evaluate
from ..inference.predictor import Predictor
from ..training import runs
from .style import label

if TYPE_CHECKING:
    from ..data.records import Frame
    from ..model.rossam import PromptableSegmenter

Progress = Callable[[Iterable], Iterable]
ROS_SAM = RowSpec(label="ROS-SAM", method="ros-sam", training={})
"""The fine-tuned row with all augmentation, as Tables 3 and 6 have it."""


@dataclass(frozen=True)
class Source:
    """What an inspector shows.

    Attributes:
        sets: name → what gives the frames, the same on each call.
        methods: name → what gives the `Predictor`, the same on each call.
        scores: (set, method, progress) → table with columns `video, frame, object_id, iou`. `progress` wraps the
            iteration over frames, should they have to be predicted first (see `evaluation.scoring.evaluate`).
        inference: settings to start with.
        evaluation: band of the boundary IoU, and size bins.
        seed: of the random order.
        notes: what is missing, and how to get it.
    """

    sets: Mapping[str, Callable[[], Sequence[Frame]]]
    methods: Mapping[str, Callable[[], Predictor]]
    scores: Callable[[str, str, Progress], pd.DataFrame]
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    notes: Sequence[str] = ()

    def predictors(self) -> dict[str, Predictor]:
        """All methods, made."""
        return {name: make() for name, make in self.methods.items()}


def frames_source(sets: Mapping[str, Sequence[Frame]], predictors: Mapping[str, Predictor], **options) -> Source:
    """A source over frames and predictors that exist; `options` are further fields of `Source`."""
    return Source(
        {name: lambda frames=frames: frames for name, frames in sets.items()},
        {name: lambda predictor=predictor: predictor for name, predictor in predictors.items()},
        lambda name, method, progress: evaluate(predictors[method], sets[name], progress=progress),
        **options,
    )


def experiments_source(experiments: Experiments) -> Source:
    """A profile's splits, its other scenes where frames are generated, and its methods, fine-tuned where it has a run.

    SAM, SAM2 and HQ-SAM on scored frames are ordered by the tables' scores; other scores are worked out on demand.
    """
    profile, data = experiments.profile, experiments.profile.data
    scored = scored_split(data)
    readers: dict[str, Callable[[], Sequence[Frame]]] = {f"{scored} (scored)": lambda: experiments.frames}
    for split in ("val", "train"):
        if split != scored:
            readers[split] = functools.partial(load_frames, data, split, experiments.cache)
    if data.source == "synthetic":
        for variant in ("static", "aerial", "zero-shot"):
            other = data.model_copy(update={"synthetic": data.synthetic.model_copy(update={"variant": variant})})
            readers[variant] = functools.partial(load_frames, other, scored, experiments.cache)
    sets = {name: functools.cache(reader) for name, reader in readers.items()}

    untrained = {
        method: RowSpec(label=label(method), method=method)
        for method in ("sam", "sam2", "hq-sam")
        if not experiments.lacks_prior(method)
    }
    methods = {
        name: functools.cache(functools.partial(experiments.predictor, spec)) for name, spec in untrained.items()
    }
    tuned, notes = finished_model(experiments), []
    if tuned is None:
        notes.append("ROS-SAM is not among the methods: its run is not finished. Run 06_comparison (nwpu: 07).")
    else:
        predictor = Predictor(tuned, profile.inference, device=str(experiments.device))
        methods["ros-sam"] = lambda: predictor

    def scores(name: str, method: str, progress: Progress) -> pd.DataFrame:
        if method in untrained and sets[name]() is experiments.frames:
            return experiments.result(untrained[method]).units()
        return evaluate(methods[method](), sets[name](), progress=progress)

    return Source(sets, methods, scores, profile.inference, profile.evaluation, profile.seed, notes)


def finished_model(experiments: Experiments) -> PromptableSegmenter | None:
    """The network that the profile's ROS-SAM run with its first seed has trained, where that run is finished."""
    folder = experiments.run_folder(experiments.run_config(ROS_SAM, experiments.profile.seeds[0]))
    return runs.load_run(folder) if (folder / runs.AUDIT).exists() else None
