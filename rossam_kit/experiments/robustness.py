"""Robustness to inaccurate boxes and degraded images: the same objects scored under increasing disturbance.

Scores are those of `scoring.score`, with columns `disturbance` and `level`; level 0 is undisturbed. Targets are never
disturbed.

Every object has its own generator, seeded by its name, and a level only scales what it drew: one draw serves all
levels and all methods, so curves differ by method and level alone.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from rossam_core.errors import RossamError
from rossam_core.files import stable_hash
from rossam_core.records import Frame
from rossam_kit.cache import cached, load_table, save_table
from rossam_kit.config import EvaluationConfig
from rossam_kit.experiments.scoring import MASK, score
from rossam_kit.progress import track

if TYPE_CHECKING:
    from rossam_kit.experiments.experiments import Experiments, RowSpec

MEMORY = 10.0
"""Correlation length of a tracker's error, in frames: the correlation falls to 1/e."""
AIRLIGHT = 225.0
"""Gray value of pure haze."""
MOST_OBJECTS = 64


def jitter(box: np.ndarray, level: float, frame: Frame, track_id: int, seed: int) -> np.ndarray:
    """Each edge moved by up to `level` of the box's width or height, either way, evenly drawn and each by itself."""
    size = np.tile(box[2:] - box[:2], 2)
    return box + level * size * _rng(seed, "jitter", frame.key, track_id).uniform(-1, 1, 4)


def loosen(box: np.ndarray, level: float, frame: Frame, track_id: int, seed: int) -> np.ndarray:
    """Every edge moved outwards by `level` of the box's width or height."""
    return box + level * np.tile(box[2:] - box[:2], 2) * np.array([-1, -1, 1, 1])


def drift(box: np.ndarray, level: float, frame: Frame, track_id: int, seed: int) -> np.ndarray:
    """The whole box shifted like a drifting tracker: slowly over the frames of a video, in a random direction.

    The shift of a track is a stationary Gaussian process over the frame's index i (Ornstein–Uhlenbeck), in each axis
    with standard deviation level × width or height and correlation exp(−|i − j| / `MEMORY`).
    """
    steps = _rng(seed, "drift", frame.video, track_id).normal(size=(frame.index + 1, 2))
    keep = np.exp(-1 / MEMORY)
    steps[1:] *= np.sqrt(1 - keep**2)
    shift = (steps * keep ** np.arange(frame.index, -1, -1)[:, None]).sum(axis=0)
    return box + level * np.tile((box[2:] - box[:2]) * shift, 2)


def noise(image: np.ndarray, level: float, frame: Frame, seed: int) -> np.ndarray:
    """Gaussian noise of standard deviation `level` gray values, each pixel and channel by itself."""
    return image + level * _rng(seed, "noise", frame.key).normal(size=image.shape)


def blur(image: np.ndarray, level: float, frame: Frame, seed: int) -> np.ndarray:
    """Gaussian blur of standard deviation `level` pixels."""
    return cv2.GaussianBlur(image, (0, 0), level)


def haze(image: np.ndarray, level: float, frame: Frame, seed: int) -> np.ndarray:
    """A share `level` of the light replaced by haze of one gray: t·J + (1 − t)·A with t = 1 − level (Koschmieder)."""
    return (1 - level) * image + level * AIRLIGHT


class Disturbance(NamedTuple):
    """A way to disturb the prompt or the image."""

    title: str
    """Name and unit of the level, for an axis."""
    levels: tuple[float, ...]
    """Rising, from 0."""
    box: Callable[[np.ndarray, float, Frame, int, int], np.ndarray] | None = None
    image: Callable[[np.ndarray, float, Frame, int], np.ndarray] | None = None
    """Disturbs an image, float H×W×3."""


DISTURBANCES = {
    "jitter": Disturbance("Edges jittered, share of side", (0, 0.1, 0.2, 0.3), box=jitter),
    "loosen": Disturbance("Edges moved out, share of side", (0, 0.1, 0.2, 0.3), box=loosen),
    "drift": Disturbance("Tracker drift, share of side", (0, 0.1, 0.2, 0.3), box=drift),
    "noise": Disturbance("Noise, gray values", (0, 10, 20, 40), image=noise),
    "blur": Disturbance("Blur, pixels", (0, 0.7, 1.4, 2.8), image=blur),
    "haze": Disturbance("Haze, share of light", (0, 0.25, 0.5, 0.75), image=haze),
}


def measured_levels(name: str, count: int) -> tuple[float, ...]:
    """Level 0 of a disturbance and `count` others, evenly chosen up to the strongest."""
    levels = DISTURBANCES[name].levels
    return tuple(levels[i] for i in np.linspace(0, len(levels) - 1, count + 1).round().astype(int))


def chosen_objects(frames: Sequence[Frame]) -> list[Frame]:
    """Frames that hold nothing but some of their objects with masks, evenly spaced over all of them.

    Objects are counted in the order of video, frame and object id. Two per video are chosen, at most `MOST_OBJECTS`:
    more objects per video hardly narrow an interval over videos.
    """
    ordered = sorted(frames, key=lambda frame: (frame.video, frame.index))
    pairs = [(frame, item) for frame in ordered for item in frame.objects if item.has_mask]
    if not pairs:
        raise RossamError("frames", "hold no object with a mask", "disturb frames whose masks are annotated")
    count = min(MOST_OBJECTS, 2 * len({frame.video for frame in frames}), len(pairs))
    at = np.unique(np.linspace(0, len(pairs) - 1, count).round().astype(int))
    kept: dict[str, tuple[Frame, list]] = {}
    for frame, item in (pairs[i] for i in at):
        kept.setdefault(frame.key, (frame, []))[1].append(item)
    return [frame.with_objects(objects) for frame, objects in kept.values()]


def disturbed(frame: Frame, name: str, level: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The frame's image (uint8 H×W×3) and boxes (N×4) under a disturbance of `DISTURBANCES`.

    Boxes stay valid prompts: the centre is kept in the frame, the sides at one pixel or more.
    """
    if name not in DISTURBANCES:
        raise RossamError(f"disturbance {name!r}", "does not exist", f"use one of {', '.join(DISTURBANCES)}")
    kind, image, boxes = DISTURBANCES[name], frame.image(), frame.boxes_xyxy
    if level == 0:
        return image, boxes
    if kind.image:
        spoilt = kind.image(image.astype(np.float32), level, frame, seed)
        return spoilt.round().clip(0, 255).astype(np.uint8), boxes
    pairs = zip(boxes, frame.objects, strict=True)
    spoilt = [kind.box(box.astype(float), level, frame, item.object_id, seed) for box, item in pairs]
    return image, np.array([_askable(box, frame.size_hw) for box in spoilt])


def robustness_curve(
    predictor: Any,
    frames: Sequence[Frame],
    name: str,
    levels: Sequence[float],
    *,
    seed: int,
    evaluation: EvaluationConfig,
) -> pd.DataFrame:
    """Score a predictor at some levels of a disturbance, on `chosen_objects(frames)`.

    `evaluation` gives the band of boundary IoU and the bins of sizes.

    Returns:
        The table of `scoring.score` under the protocol `object`, without masks, with columns `disturbance` and
        `level`. Sizes of boxes and crowding in it are those of the undisturbed objects that were chosen.
    """
    chosen = chosen_objects(frames)
    settings = {"dilation_ratio": evaluation.dilation_ratio, "size_bins": evaluation.size_bins}
    parts = []
    for level in levels:
        pairs = (disturbed(frame, name, level, seed) for frame in chosen)
        if hasattr(predictor, "predict_many"):  # fills its batches across frames
            answers = predictor.predict_many(pairs)
        else:
            answers = (predictor.predict(*pair) for pair in pairs)
        scores = score(zip(chosen, answers, strict=True), ("object",), **settings)
        parts.append(scores.drop(columns=MASK).assign(disturbance=name, level=float(level)))
    return pd.concat(parts, ignore_index=True)


def robustness(experiments: Experiments, specs: Sequence[RowSpec]) -> pd.DataFrame:
    """All curves of some rows on the profile's scored frames, with a column `method`; computed once and cached.

    They are cached under the hash of the row's own key (data, weights, settings, source), the levels and the
    profile's seeds. A fine-tuned row is that of the profile's first seed.
    """
    profile, parts = experiments.profile, []
    for spec in specs:
        levels = {name: measured_levels(name, profile.disturbance_levels) for name in DISTURBANCES}
        key = stable_hash([experiments.key(spec), levels, profile.seed, profile.seeds[0]])
        path = experiments.cache / "robustness" / profile.name / f"{key}.csv.gz"
        curves = cached(path, functools.partial(_all_curves, experiments, spec), load=load_table, save=save_table)
        parts.append(curves.assign(method=spec.kind))
    return pd.concat(parts, ignore_index=True)


def _all_curves(experiments: Experiments, spec: RowSpec) -> pd.DataFrame:
    """Every disturbance at all its levels; level 0, the same for all, is predicted once."""
    profile, frames = experiments.profile, experiments.frames
    predictor = experiments.predictor(spec, profile.seeds[0])
    options = {"seed": profile.seed, "evaluation": profile.evaluation}
    undisturbed = robustness_curve(predictor, frames, next(iter(DISTURBANCES)), (0,), **options)
    parts = []
    for name in track(DISTURBANCES, desc=f"{spec.label}, disturbed"):
        parts.append(undisturbed.assign(disturbance=name))
        levels = measured_levels(name, profile.disturbance_levels)[1:]
        parts.append(robustness_curve(predictor, frames, name, levels, **options))
    return pd.concat(parts, ignore_index=True)


def _rng(seed: int, *names: str | int) -> np.random.Generator:
    """A random generator for one object, seeded by the hash of its full name."""
    return np.random.default_rng([seed, zlib.crc32("|".join(map(str, names)).encode())])


def _askable(box: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The box with its centre in the frame and sides of at least a pixel."""
    height, width = size_hw
    centre = ((box[:2] + box[2:]) / 2).clip(0, (width, height))
    half = np.maximum(box[2:] - box[:2], 1) / 2
    return np.concatenate([centre - half, centre + half])
