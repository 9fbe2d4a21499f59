"""The inspector: show any object of a profile, change its prompt, and compare the masks of every method.

A new object or window is encoded; a box or point inside its window is only decoded; a threshold needs neither. An
error in any control is shown in the widget, and every control keeps working.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal, get_args

import ipywidgets as ipw
import numpy as np
import pandas as pd
import torch

from rossam_core.boxes import check_boxes
from rossam_core.errors import RossamError
from rossam_core.inference import windows
from rossam_core.inference.predictor import ObjectMask, Predictor, object_mask
from rossam_core.metrics import band_width
from rossam_core.model.segmenter import ImageEmbeddings, PromptableSegmenter
from rossam_core.records import Frame
from rossam_core.settings import Growth, InferenceConfig, parse_config
from rossam_core.training.run_folder import is_finished
from rossam_kit.config import EvaluationConfig
from rossam_kit.datasets.loading import load_frames, scored_split
from rossam_kit.experiments.experiments import Experiments, RowSpec
from rossam_kit.experiments.mask_scores import MaskScores, fitted_band, score_masks
from rossam_kit.experiments.scoring import predict_frames, score, size_bin_labels
from rossam_kit.inspector import tiles
from rossam_kit.progress import track
from rossam_kit.prompt_editor import PromptEditor, PromptPanel
from rossam_kit.report.labels import label
from rossam_kit.report.objects import square_around
from rossam_kit.report.style import TARGET, Figure

EDITOR, TILE = 460, 300
"""Longer sides of the pictures in pixels."""
ENCODINGS = 16
"""Encodings kept in memory, of 0.4 to 16 MB each."""
ALL = "all"
ORDERS = {"worst first": "worst", "best first": "best", "random": "random", "as in the data": "data"}


# --- what can be inspected ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Frames, methods and scores of an inspector, each loaded when it is first needed. Nothing is trained."""

    sets: Mapping[str, Callable[[], Sequence[Frame]]]
    """Name → function that returns the frames, the same on each call."""
    methods: Mapping[str, Callable[[], Predictor]]
    """Name → function that returns the predictor, the same on each call."""
    scores: Callable[[str, str], pd.DataFrame]
    """(set, method) → table of `scoring.score`."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    notes: Sequence[str] = ()
    """What is missing, and how to get it."""


def experiments_source(experiments: Experiments) -> Source:
    """A profile's splits, the other variants of generated video, and its methods, fine-tuned where a run is finished.

    The tables' scores order the scored frames; other scores are computed on demand.
    """
    profile, data = experiments.profile, experiments.profile.data
    scored, notes = scored_split(data), []
    read = functools.partial(load_frames, cache=experiments.cache)
    sets = {split: functools.partial(read, data, split) for split in ("val", "train") if split != scored}
    if data.source == "synthetic":
        for variant in ("static", "aerial", "zero-shot"):
            other = data.model_copy(update={"synthetic": data.synthetic.model_copy(update={"variant": variant})})
            sets[variant] = functools.partial(read, other, scored)
    sets = {name: functools.cache(reader) for name, reader in sets.items()}
    sets = {f"{scored} (scored)": lambda: experiments.frames, **sets}

    compared = ("sam", "sam2", *profile.extra_methods, "hq-sam")
    reasons = {method: experiments.lacks_prior(method) for method in compared}
    notes += [f"{label(method)} is not among the methods: {reason}" for method, reason in reasons.items() if reason]
    priors = [method for method, reason in reasons.items() if not reason]
    rows = {method: RowSpec(label=label(method), method=method) for method in priors}
    ros_sam = experiments.specs["table5" if "table5" in experiments.tables else "table6"].row("ROS-SAM")
    if is_finished(experiments.run_folder(experiments.run_config(ros_sam, profile.seeds[0]))):
        rows["ros-sam"] = ros_sam
    else:
        notes.append("ROS-SAM is not among the methods: its run is not finished. Run 06_comparison (nwpu: 08).")
    methods = {
        method: functools.cache(functools.partial(experiments.predictor, row, profile.seeds[0]))
        for method, row in rows.items()
    }

    def scores(name: str, method: str) -> pd.DataFrame:
        if sets[name]() is experiments.frames:
            return experiments.result(rows[method]).first_run()
        frames = sets[name]()
        predictions = track(predict_frames(methods[method](), frames), len(frames), f"scoring {name}")
        return score(predictions, ("object",), size_bins=profile.evaluation.size_bins)

    return Source(sets, methods, scores, profile.inference, profile.evaluation, profile.seed, notes)


def list_objects(scores: pd.DataFrame) -> pd.DataFrame:
    """The objects of a table of `scoring.score`, in the order of the data, with the `key` of their frames."""
    objects = scores[(scores["protocol"] == "object") & (scores["status"] != "no objects")].reset_index(drop=True)
    frames = zip(objects["video"], objects["frame"], strict=True)
    return objects.assign(key=[f"{video}/{frame:06d}" for video, frame in frames])


def arrange(objects: pd.DataFrame, order: str = "data", seed: int = 0, **filters: str) -> pd.DataFrame:
    """The objects that pass all filters (column → value), in order; none is a `RossamError`.

    Args:
        order: `worst` or `best` by IoU (objects without a score last, ties as in the data), `random` (the same for the
            same seed), or `data`.
    """
    for column, value in filters.items():
        objects = objects[objects[column] == value]
    if objects.empty:
        where = " and ".join(filters.values()) or "these frames"
        raise RossamError(where, "no object there", "choose 'all' in one of the lists")
    if order == "random":
        return objects.iloc[np.random.default_rng(seed).permutation(len(objects))]
    if order == "data":
        return objects
    return objects.sort_values("iou", ascending=order == "worst", kind="stable", na_position="last")


# --- one object: its prompt, windows, answers -----------------------------------------------------------------------


class Focus:
    """One object under inspection: its prompt, which may be edited, and the windows its masks are read from.

    A window stays while it holds the box whole, so that an edited box inside it needs no new encoding. It is planned
    anew when the box leaves it, and for other settings.
    """

    def __init__(self, frame: Frame, object_id: int):
        self.frame = frame
        self.annotation = next(item for item in frame.objects if item.object_id == object_id)
        self.own_box = tuple(float(side) for side in self.annotation.box_xyxy)
        self.box_xyxy, self.points = self.own_box, ()
        self.windows: dict[tuple, windows.CropPlan] = {}

    @functools.cached_property
    def image(self) -> np.ndarray:
        """The frame, uint8 H×W×3 RGB."""
        return self.frame.image()

    @functools.cached_property
    def target(self) -> np.ndarray | None:
        """The object's true mask, bool H×W."""
        return self.annotation.mask(self.frame.size_hw) if self.annotation.has_mask else None

    def with_prompt(
        self, box_xyxy: Sequence[float], points: Iterable[Sequence[float]] = (), recentre: bool = False
    ) -> Focus:
        """The same object with another prompt: a box and points (x, y, label); `recentre` plans new windows around it.

        Raises:
            RossamError: a box that is none, or that lies outside the frame.
        """
        (box,) = check_boxes([box_xyxy], self.frame.size_hw, f"box in frame {self.frame.key}")
        other = copy.copy(self)
        other.box_xyxy = tuple(box.tolist())
        other.points = tuple((float(x), float(y), int(positive)) for x, y, positive in points)
        other.windows = {} if recentre else self.windows
        return other

    def window(self, model: PromptableSegmenter, config: InferenceConfig) -> windows.CropPlan:
        """The window for a model."""
        size_hw, key = self.frame.size_hw, (model.input_size, model.resize, config)
        (hull,) = windows.pixel_hulls([self.box_xyxy], size_hw)
        if key not in self.windows or not self.windows[key].holds(hull):
            others = [item.box_xyxy for item in self.frame.objects if item.has_mask and item is not self.annotation]
            boxes = np.array([self.box_xyxy, *others], dtype=float)
            plans = windows.plan(boxes, size_hw, model.input_size, config, model.resize)
            serving = next(plan for plan in plans if 0 in plan.indices)
            self.windows[key] = dataclasses.replace(serving, indices=(0,))
        return self.windows[key]

    def answer(self, predictor: Predictor, window: windows.CropPlan, embeddings: ImageEmbeddings) -> ObjectMask:
        """The mask of the prompt in its encoded window, with the logits of the whole window.

        Points are left out for a model that was not trained with them; one outside the window is a `RossamError`.
        """
        points = None
        if self.points and predictor.model.supports_points:
            coords, labels = np.split(np.array(self.points), [2], axis=1)
            low, high = np.reshape(window.window_xyxy, (2, 2))
            if ((coords < low) | (coords > high)).any():
                finding = f"a point lies outside the window {window.window_xyxy}"
                raise RossamError("prompt", finding, "choose points inside the window")
            inputs = torch.from_numpy((coords - low) * window.scale_xy).float(), torch.from_numpy(labels[:, 0]).long()
            points = [tuple(each[None].to(predictor.device) for each in inputs)]
        box = np.array(self.box_xyxy)
        logits, ious = predictor.decode(embeddings, window.to_input(box[None]), np.zeros(1, dtype=np.int64), points)
        # a threshold of minus infinity keeps the logits of the whole window
        return object_mask(logits[0], ious[0], box, window, self.frame.size_hw, -math.inf)


# --- the widget -----------------------------------------------------------------------------------------------------


class Inspector(PromptPanel):
    """The widget; show it as the last line of a notebook's cell. Controls are attributes, so that code can set them.

    `objects` are in the order of the slider, `focus` is the one that is shown; by method there are its `answers`
    (`ObjectMask` with the logits of the whole window), their `scores` (empty without a true mask) and their `pictures`.
    """

    def __init__(self, source: Source, order: Literal["worst", "best", "random", "data"] = "worst"):
        self.source, self.objects = source, pd.DataFrame()
        self.answers: dict[str, ObjectMask] = {}
        self.scores: dict[str, MaskScores] = {}
        self.pictures: dict[str, np.ndarray] = {}
        self._encoded = functools.lru_cache(ENCODINGS)(self._encode)
        self._scored = functools.cache(lambda name, judge: list_objects(source.scores(name, judge)))
        self._set = next(iter(source.sets))
        self._focus: Focus | None = None
        super().__init__([*self._choices(order), *self._settings(), self._answers()])
        self.add_class("rossam-inspector")
        self._guarded(self._load)()

    @property
    def focus(self) -> Focus:
        if self._focus is None:
            raise RossamError("inspector", "no object is shown", "choose other frames, or run this cell again")
        return self._focus

    # --- controls ---------------------------------------------------------------------------------------------------

    def _dropdown(self, action: Callable[[], None], name: str, options: Any, **value: Any) -> ipw.Dropdown:
        return self._on(action, ipw.Dropdown(description=name, options=options, **value))

    def _choices(self, order: str) -> list[ipw.Widget]:
        """Controls that choose an object."""
        methods = [(label(method), method) for method in self.source.methods]
        self.dataset = self._dropdown(self._load, "Frames", list(self.source.sets))
        self.frame, self.category, self.size = (
            self._dropdown(self._choose, name, [ALL]) for name in ("Frame", "Class", "Size, px²")
        )
        self.order = self._dropdown(self._choose, "Order", ORDERS, value=order)
        self.judge = self._dropdown(self._choose, "by IoU of", methods)
        back = self._button(lambda: self.step(-1), "Previous object", icon="arrow-left")
        self.slider = self._on(self._open, ipw.IntSlider(0, 0, 0, description="Object", readout=False))
        forward = self._button(lambda: self.step(1), "Next object", icon="arrow-right")
        self.title = ipw.HTML().add_class("rossam-title")
        return [
            ipw.HBox([self.dataset, self.frame, self.category, self.size]),
            ipw.HBox([self.order, self.judge, back, self.slider, forward, self.title]),
        ]

    def _settings(self) -> list[ipw.Widget]:
        """Controls of the window, the threshold and the methods, and what is missing."""
        start, change = self.source.inference, self._answer
        self.mode = self._dropdown(change, "Window", ["object", "shared", "tiled", "direct"], value=start.mode)
        self.rate = self._on(change, ipw.BoundedFloatText(start.rate, min=0.05, max=16, step=0.25, description="Rate"))
        self.growth = self._dropdown(change, "Growth", get_args(Growth), value=start.growth)
        self.interpolation = self._dropdown(change, "Resampling", ["bicubic", "bilinear"], value=start.interpolation)
        threshold = ipw.FloatSlider(start.mask_threshold, min=-8, max=8, step=0.1, description="Threshold")
        self.threshold = self._on(self._draw, threshold)
        self.ticks = {
            method: self._on(self._answer, ipw.Checkbox(True, description=label(method), indent=False))
            for method in self.source.methods
        }
        notes = "".join(f"<div class='rossam-note'>{escape(note)}</div>" for note in self.source.notes)
        windows_row = ipw.HBox([self.mode, self.rate, self.growth, self.interpolation]).add_class("rossam-row")
        return [windows_row, ipw.HBox([self.threshold, *self.ticks.values()]), ipw.HTML(notes)]

    def _answers(self) -> ipw.Widget:
        """The prompt over the window, with its controls, and beside it a column for each method."""
        self.editor = self._on(self._change_drawn, PromptEditor(), "prompt")
        self.sides = [
            self._on(self._change_sides, ipw.FloatText(description=name, step=1)) for name in ("x0", "y0", "x1", "y1")
        ]
        own_box = self._button(lambda: self.prompt(self.focus.own_box, recentre=True),
                               "Prompt with the annotated box", "annotated box")  # fmt: skip
        centre = self._button(lambda: self.prompt(self.focus.box_xyxy, self.focus.points, recentre=True),
                              "Cut the window around the present box", "centre window")  # fmt: skip
        self.view = self._on(self._draw, ipw.ToggleButtons(options=["window", "frame"], style={"button_width": "70px"}))
        prompt = [self.editor, ipw.HBox(self.sides).add_class("rossam-sides"), ipw.HBox([own_box, centre, self.view])]

        self.heads = {method: ipw.HTML() for method in self.source.methods}
        self.images = {method: ipw.Image(layout=ipw.Layout(width="100%")) for method in self.source.methods}
        self.columns = ipw.HBox().add_class("rossam-columns")
        self.status, self.error = ipw.HTML().add_class("rossam-status"), ipw.HTML()
        # status and errors stand beside the editor, so that the picture stays in place while a box is dragged
        answers = [self.status, self.error, self.columns, ipw.HTML(tiles.LEGEND).add_class("rossam-legend")]
        sides = ipw.VBox(prompt).add_class("rossam-left"), ipw.VBox(answers).add_class("rossam-right")
        return ipw.HBox(sides).add_class("rossam-body")

    # --- from a choice to an answer ---------------------------------------------------------------------------------

    def _load(self) -> None:
        """Another set of frames: list its objects, offer its frames, classes and sizes."""
        self._say(f"Reading {self.dataset.value} …")
        frames, bins = self.source.sets[self.dataset.value](), self.source.evaluation.size_bins
        unpredicted = ((frame, [None] * len(frame.objects)) for frame in frames)
        self._listed = listed = list_objects(score(unpredicted, ("object",), size_bins=bins))
        self._set, self._frames = self.dataset.value, {frame.key: frame for frame in frames}
        with self._silence():
            self.category.options = [ALL, *sorted(listed["category"].unique())]
            self.size.options = [ALL, *(name for name in size_bin_labels(bins) if name in set(listed["size_bin"]))]
            self.frame.options = [ALL, *listed["key"].unique()]
            self.category.value = self.size.value = self.frame.value = ALL
        self._choose()

    def _choose(self) -> None:
        """Other filters or another order: show the first object of the selection."""
        listed, order = self._listed, self.order.value
        if order in ("worst", "best"):
            self._say(f"Scoring {len(self._frames)} frames with {label(self.judge.value)}, once …")
            listed = self._scored(self._set, self.judge.value)
        filters = {"category": self.category.value, "size_bin": self.size.value, "key": self.frame.value}
        filters = {name: value for name, value in filters.items() if value != ALL}
        self.objects = arrange(listed, order, self.source.seed, **filters)
        with self._silence():
            self.slider.value, self.slider.max = 0, len(self.objects) - 1
        self._open()

    def _open(self) -> None:
        """The object under the slider, with its own box."""
        row = self.objects.iloc[self.slider.value]
        area = "no mask" if math.isnan(row["area"]) else f"{row['area']:,.0f} px²"
        about = f"<b>{escape(row['category'])}</b>, {area}, {escape(row['key'])} #{row['object_id']}"
        self.title.value = f"{self.slider.value + 1} of {len(self.objects)} · {about}"
        self._answer(Focus(self._frames[row["key"]], row["object_id"]))

    def _change_sides(self) -> None:
        self.prompt([side.value for side in self.sides], self.focus.points)

    def _change_drawn(self) -> None:
        """The prompt was edited in the picture; a deleted box becomes the annotated one."""
        drawn = self.editor.prompt
        self.prompt(drawn["box"] or self.focus.own_box, drawn["points"])

    def prompt(self, box_xyxy: Sequence[float], points: Iterable[Sequence[float]] = (), recentre: bool = False) -> None:
        """Prompt with a box and points (x, y, label: 1 positive, 0 negative), in frame pixels."""
        self._answer(self.focus.with_prompt(box_xyxy, points, recentre))

    def _answer(self, focus: Focus | None = None) -> None:
        """Masks of all ticked methods for a prompt (default: the present one), which an error leaves as it was."""
        started, encoded = time.perf_counter(), self._encoded.cache_info().misses
        shown = {method: self.source.methods[method]() for method, tick in self.ticks.items() if tick.value}
        if not shown:
            raise RossamError("methods", "none is ticked", "tick at least one")
        chosen = {name: getattr(self, name).value for name in ("mode", "rate", "growth", "interpolation")}
        settings = {**self.source.inference.model_dump(), **chosen}
        self._config = parse_config(InferenceConfig, settings, where="window settings")
        before, self._focus = self._focus, focus or self.focus
        try:
            answers = {}
            for method, predictor in shown.items():
                window = self._focus.window(predictor.model, self._config)
                embeddings = self._encoded(method, str(self._focus.frame.image_path), window, self._config)
                answers[method] = self._focus.answer(predictor, window, embeddings)
        except Exception:
            self._focus = before
            raise
        self.answers, models = answers, [predictor.model for predictor in shown.values()]
        backbones = ", ".join(dict.fromkeys(model.backbone for model in models))
        reason = f"Points are off: the weights of {backbones} were trained with boxes only."
        self.editor.points_off = "" if any(model.supports_points for model in models) else reason
        self._window = self._focus.window(models[0], self._config)
        self._draw(started, self._encoded.cache_info().misses - encoded)

    def _encode(self, method: str, _: str, window: windows.CropPlan, config: InferenceConfig) -> ImageEmbeddings:
        """Encode a window of the present image, whose path is part of the cache's key."""
        predictor = self.source.methods[method]()
        return predictor.encode([predictor.cut(self.focus.image, window, config)])

    # --- from an answer to pictures ---------------------------------------------------------------------------------

    def _draw(self, started: float | None = None, encoded: int = 0) -> None:
        """Masks at the threshold, their scores, and all pictures."""
        started, focus = started or time.perf_counter(), self.focus
        size_hw, target = focus.frame.size_hw, focus.target
        self.answers = {m: answer.with_threshold(self.threshold.value) for m, answer in self.answers.items()}
        drawn = {method: answer.full() for method, answer in self.answers.items()}
        band, self.scores, self.pictures = band_width(size_hw, self.source.evaluation.dilation_ratio), {}, {}
        if target is not None:
            fit = fitted_band(float(np.count_nonzero(target)))
            self.scores = {m: score_masks(mask, target, band_px=band, fit_px=fit) for m, mask in drawn.items()}
        region = square_around([focus.own_box, focus.box_xyxy], size_hw)
        for method, answer in self.answers.items():
            takes_points = self.source.methods[method]().model.supports_points
            note = " · box only" if focus.points and not takes_points else ""
            self.heads[method].value = tiles.heading(method, answer, self.scores.get(method), note)
            picture = tiles.answer_picture(method, focus.image, answer, target, region, band, TILE)
            self.images[method].value, self.pictures[method] = tiles.png(picture), picture
        shown = {m: ipw.VBox([self.heads[m], self.images[m]]).add_class("rossam-column") for m in self.pictures}
        self.columns.children = list(shown.values())
        self._draw_editor(drawn)
        took, count = 1000 * (time.perf_counter() - started), f"{encoded} window{'' if encoded == 1 else 's'} encoded"
        self._say(f"{count}, answered in {took:.0f} ms; the window is {self._window.width} × {self._window.height} px")

    def _draw_editor(self, drawn: dict[str, np.ndarray]) -> None:
        """The window, or the whole frame, with all outlines; over it the prompt."""
        (height, width), window = self.focus.frame.size_hw, self._window.window_xyxy
        region, boxes = window, []
        if self.view.value == "frame":
            region, boxes = (0, 0, width, height), [(window, tiles.WINDOW)]
        outlines = drawn if self.focus.target is None else {TARGET: self.focus.target, **drawn}
        canvas = tiles.outlined(self.focus.image, region, EDITOR, outlines, boxes)
        self.editor.region, self.editor.image = [int(side) for side in region], tiles.png(canvas)
        self._show_prompt()

    def _show_prompt(self) -> None:
        """Bring the editor, the numbers and the list of frames back to what is answered."""
        with self._silence():
            self.dataset.value = self._set
            if self._focus is not None:
                box, points = [round(side, 2) for side in self._focus.box_xyxy], self._focus.points
                self.editor.prompt = {"box": box, "points": [list(point) for point in points]}
                for side, value in zip(self.sides, box, strict=True):
                    side.value = value

    def figure(self) -> Figure:
        """The pictures of all ticked methods as they are now, for a page without a kernel."""
        return tiles.side_by_side(self.pictures, self.scores)

    def _say(self, text: str) -> None:
        self.status.value = escape(text)
