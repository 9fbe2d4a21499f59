"""The inspector: show any object of a profile, change its prompt, and compare the masks of every method.

A new object or window is encoded; a box or point inside its window is only decoded; a
threshold needs neither. An error in any control is shown in the widget, and every control keeps working.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import anywidget
import ipywidgets as ipw
import numpy as np
import pandas as pd
import torch
import traitlets
from pycocotools import mask as coco_mask

from rossam_core import masks
from rossam_core.boxes import check_boxes
from rossam_core.errors import RossamError
from rossam_core.inference import windows
from rossam_core.inference.predictor import ObjectMask, Predictor, object_mask
from rossam_core.metrics import band_width
from rossam_core.model.segmenter import ImageEmbeddings, Points, load_run
from rossam_core.records import Box, Frame, ObjectAnnotation
from rossam_core.settings import Growth, InferenceConfig, parse_config
from rossam_core.training import run_folder
from rossam_kit.config import EvaluationConfig
from rossam_kit.datasets.loading import load_frames, scored_split
from rossam_kit.experiments.experiments import Experiments, RowSpec
from rossam_kit.experiments.mask_scores import MaskScores, fitted_band, score_masks
from rossam_kit.experiments.scoring import evaluate, size_bin_labels
from rossam_kit.inspector import tiles
from rossam_kit.report.style import TARGET, Figure, label

EDITOR, TILE, SHOWN = 460, 300, 200
"""Longer sides of the pictures in pixels, and the largest size at which a tile is shown."""
ENCODINGS = 16
"""Encodings kept in memory, of 0.4 to 16 MB each."""
ALL = "all"
ORDERS = {"worst first": "worst", "best first": "best", "random": "random", "as in the data": "data"}
OBJECT_KEY = ["video", "frame", "object_id"]
Progress = Callable[[Iterable], Iterable]
"""Wraps the iteration over frames that must be predicted first (see `scoring.evaluate`)."""
Point = tuple[float, float, int]
"""x, y in frame pixels, and label: 1 positive, 0 negative."""


# --- what can be inspected ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Frames, methods and scores of an inspector, each loaded when it is first needed. Nothing is trained."""

    sets: Mapping[str, Callable[[], Sequence[Frame]]]
    """Name → function that returns the frames, the same on each call."""
    methods: Mapping[str, Callable[[], Predictor]]
    """Name → function that returns the predictor, the same on each call."""
    scores: Callable[[str, str, Progress], pd.DataFrame]
    """(set, method, progress) → table with columns `video, frame, object_id, iou`."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    notes: Sequence[str] = ()
    """What is missing, and how to get it."""

    def predictors(self) -> dict[str, Predictor]:
        """The predictors of all methods."""
        return {name: make() for name, make in self.methods.items()}


def experiments_source(experiments: Experiments) -> Source:
    """A profile's splits, the other variants of generated video, and its methods, fine-tuned where a run is finished.

    The tables' scores order the scored frames; other scores are computed on demand.
    """
    profile, data = experiments.profile, experiments.profile.data
    scored = scored_split(data)
    read = functools.partial(load_frames, cache=experiments.cache)
    readers = {f"{scored} (scored)": lambda: experiments.frames}
    readers |= {split: functools.partial(read, data, split) for split in ("val", "train") if split != scored}
    if data.source == "synthetic":
        for variant in ("static", "aerial", "zero-shot"):
            other = data.model_copy(update={"synthetic": data.synthetic.model_copy(update={"variant": variant})})
            readers[variant] = functools.partial(read, other, scored)
    sets = {name: functools.cache(reader) for name, reader in readers.items()}

    priors = [method for method in ("sam", "sam2", "hq-sam") if not experiments.lacks_prior(method)]
    untrained = {method: RowSpec(label=label(method), method=method) for method in priors}
    methods = {m: functools.cache(functools.partial(experiments.predictor, spec)) for m, spec in untrained.items()}
    notes = []
    ros_sam = experiments.specs["table5" if "table5" in experiments.tables else "table6"].row("ROS-SAM")
    run = experiments.run_folder(experiments.run_config(ros_sam, profile.seeds[0]))
    if (run / run_folder.AUDIT).exists():
        predictor = Predictor(load_run(run), profile.inference, device=str(experiments.device))
        methods["ros-sam"] = lambda: predictor
    else:
        notes.append("ROS-SAM is not among the methods: its run is not finished. Run 06_comparison (nwpu: 08).")

    def scores(name: str, method: str, progress: Progress) -> pd.DataFrame:
        if method in untrained and sets[name]() is experiments.frames:
            return experiments.result(untrained[method]).units()
        return evaluate(methods[method](), sets[name](), progress=progress)

    return Source(sets, methods, scores, profile.inference, profile.evaluation, profile.seed, notes)


def list_objects(frames: Sequence[Frame], size_bins: Sequence[float]) -> pd.DataFrame:
    """One row per object, in the order of the data.

    Returns:
        Columns `row` (index of the frame), `place` (index of the object in its frame), `video, frame, object_id,
        category`, `area` (px²) and `size_bin`, both NaN for a box without a mask.
    """
    rows = [
        (row, place, frame.video, frame.index, item.object_id, item.category, _area(item, frame))
        for row, frame in enumerate(frames)
        for place, item in enumerate(frame.objects)
    ]
    table = pd.DataFrame(rows, columns=["row", "place", *OBJECT_KEY, "category", "area"]).astype({"area": float})
    bins = pd.cut(table["area"], [*size_bins, math.inf], right=False, labels=size_bin_labels(size_bins))
    return table.assign(size_bin=bins.astype(object))


def _area(item: ObjectAnnotation, frame: Frame) -> float:
    return float(coco_mask.area(masks.to_rle(item.segmentation, frame.size_hw))) if item.has_mask else math.nan


def with_scores(objects: pd.DataFrame, method: str, scores: pd.DataFrame) -> pd.DataFrame:
    """`objects` with a column `method`: the IoU in `scores`, NaN where it has none."""
    column = scores.drop_duplicates(OBJECT_KEY)[[*OBJECT_KEY, "iou"]].rename(columns={"iou": method})
    return objects.merge(column.assign(video=column["video"].astype(str)), on=OBJECT_KEY, how="left")


def arrange(
    objects: pd.DataFrame, order: str = "data", judge: str | None = None, seed: int = 0, **filters: Any
) -> pd.DataFrame:
    """The objects that pass all filters (column → value), in order; none is a `RossamError`.

    Args:
        order: `worst` or `best` by the column `judge` (objects without a score last, ties as in the data), `random`
            (the same for the same seed), or `data`.
    """
    for column, value in filters.items():
        objects = objects[objects[column] == value]
    if objects.empty:
        names = ["one frame" if column == "row" else str(value) for column, value in filters.items()]
        raise RossamError(" and ".join(names) or "these frames", "no object there", "choose 'all' in one of the lists")
    if order == "random":
        return objects.iloc[np.random.default_rng(seed).permutation(len(objects))]
    if order == "data":
        return objects
    return objects.sort_values(judge, ascending=order == "worst", kind="stable", na_position="last")


# --- one object: its prompt, windows, answers -----------------------------------------------------------------------


class EncodedWindow(NamedTuple):
    """A window of a frame and its image embeddings."""

    window: windows.CropPlan
    embeddings: ImageEmbeddings
    size_hw: tuple[int, int]


def decode_window(
    predictor: Predictor, encoded: EncodedWindow, box_xyxy: Box, threshold: float, points: Sequence[Point] = ()
) -> ObjectMask:
    """The mask of any box in an encoded window, without encoding it again.

    Raises:
        RossamError: the box or a point lies outside the window, or the model was not trained with points.
    """
    window, size_hw = encoded.window, encoded.size_hw
    boxes = check_boxes([box_xyxy], size_hw, "prompt")
    prompt = window.to_input(boxes)
    if (prompt[:, 2:] <= prompt[:, :2]).any():
        finding = f"box {tuple(boxes[0].tolist())} lies outside the encoded window {window.window_xyxy}"
        raise RossamError("prompt", finding, "encode a window for this box first")
    prompt_points = _prompt_points(predictor, window, points) if len(points) else None
    logits, ious = predictor.decode(encoded.embeddings, prompt, np.zeros(1, dtype=np.int64), prompt_points)
    return object_mask(logits[0], ious[0], boxes[0], window, size_hw, threshold)


def _prompt_points(predictor: Predictor, window: windows.CropPlan, points: Sequence[Point]) -> Points:
    """Points of one box as `model.decode` takes them."""
    model = predictor.model
    if not model.supports_points:
        remedy = "prompt with a box alone, or load official weights (vit_b, hiera_tiny or larger)"
        raise RossamError(f"model {model.method} ({model.backbone})", "was trained with box prompts only", remedy)
    coords, labels = np.split(np.asarray(points, dtype=np.float64), [2], axis=1)
    low, high = np.reshape(window.window_xyxy, (2, 2))
    outside = ((coords < low) | (coords > high)).any(axis=1)
    if outside.any():
        finding = f"point {tuple(coords[outside][0].tolist())} lies outside the encoded window {window.window_xyxy}"
        raise RossamError("prompt", finding, "choose points inside the window")
    inputs = torch.from_numpy((coords - low) * window.scale_xy).float(), torch.from_numpy(labels[:, 0]).long()
    return [tuple(each[None].to(predictor.device) for each in inputs)]


class Focus:
    """One object under inspection: its prompt, which may be edited, and the windows its masks are read from.

    A window stays while it holds the box whole, so that an edited box inside it needs no new encoding. It is planned
    anew when the box leaves it, when settings change, and by `recentre`.
    """

    def __init__(self, frame: Frame, place: int, config: InferenceConfig):
        self.frame, self.place, self.config = frame, place, config
        self.annotation = frame.objects[place]
        self.own_box: Box = tuple(float(side) for side in self.annotation.box_xyxy)
        self.box_xyxy, self.points = self.own_box, ()
        self._windows: dict[tuple[int, str], windows.CropPlan] = {}

    def set_prompt(self, box_xyxy: Sequence[float], points: Iterable[Sequence[float]] = ()) -> None:
        """Prompt with another box and points; a bad one is a `RossamError` and changes nothing."""
        (box,) = check_boxes([box_xyxy], self.frame.size_hw, f"box in frame {self.frame.key}")
        self.points = tuple((float(x), float(y), int(positive)) for x, y, positive in points)
        self.box_xyxy = tuple(box.tolist())

    def recentre(self, config: InferenceConfig | None = None) -> None:
        """Plan the next windows around the present box, with other settings if given."""
        self.config = config or self.config
        self._windows.clear()

    def window(self, input_size: int, resize: str = "longest_side") -> windows.CropPlan:
        """The window for a model of that input size and way to resize (`PromptableSegmenter.resize`)."""
        size_hw, key = self.frame.size_hw, (input_size, resize)
        (hull,) = windows.pixel_hulls([self.box_xyxy], size_hw)
        if key not in self._windows or not self._windows[key].holds(hull):
            others = [o.box_xyxy for i, o in enumerate(self.frame.objects) if o.has_mask and i != self.place]
            boxes = np.array([self.box_xyxy, *others], dtype=float)
            plans = windows.plan(boxes, size_hw, input_size, self.config, resize)
            serving = next(plan for plan in plans if 0 in plan.indices)
            self._windows[key] = dataclasses.replace(serving, indices=(0,))
        return self._windows[key]


# --- the widget -----------------------------------------------------------------------------------------------------


class PromptEditor(anywidget.AnyWidget):
    """A box and points over an image, edited by mouse, touch and keyboard (`prompt_editor.js`), in frame pixels."""

    _esm = Path(__file__).with_name("prompt_editor.js")
    _css = Path(__file__).with_name("prompt_editor.css")
    image = traitlets.Bytes().tag(sync=True)  # PNG of `region`
    region = traitlets.List([0, 0, 1, 1]).tag(sync=True)  # xyxy
    prompt = traitlets.Dict({"box": [], "points": []}).tag(sync=True)  # xyxy, or [] when deleted; [x, y, label] each
    points_off = traitlets.Unicode().tag(sync=True)  # why points are refused, empty where they are not
    answered = traitlets.Int().tag(sync=True)  # actions answered so far


class PromptPanel(ipw.VBox):
    """What every panel with a slider and a `PromptEditor` does: an error is shown, and its controls keep working.

    Attributes:
        slider, editor, error: set by the panel, as is the method `_show_prompt`, which brings the editor to the present
            prompt.
    """

    _quiet = False

    def step(self, by: int) -> None:
        """Move the slider."""
        self.slider.value = min(max(self.slider.value + by, 0), self.slider.max)

    def _guarded(self, action: Callable[[], None]) -> Callable[..., None]:
        """`action` as a callback that shows its error in the widget, so that every control keeps working."""

        def callback(*_):
            if self._quiet:
                return
            self.error.value = ""
            try:
                action()
            except Exception as problem:  # an unexpected error, too, must not leave dead controls behind
                self.error.value = tiles.problem_html(problem)
                self._show_prompt()
            self.editor.answered += 1

        return callback

    @contextlib.contextmanager
    def _silence(self) -> Iterator[None]:
        """Controls that are set in this block do not act."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


class Inspector(PromptPanel):
    """The widget; show it as the last line of a notebook's cell. Controls are attributes, so that code can set them.

    Attributes:
        objects: the objects in order, as the slider steps through them.
        focus: the object that is shown.
        answers: method → `ObjectMask` that is shown, with the logits of the whole window.
        scores: method → `MaskScores`, empty where the object has no true mask.
        tiles: method → pictures of its answer.
    """

    def __init__(self, source: Source, order: Literal["worst", "best", "random", "data"] = "worst"):
        self.source, self.objects = source, pd.DataFrame()
        self.answers: dict[str, ObjectMask] = {}
        self.scores: dict[str, MaskScores] = {}
        self.tiles: dict[str, list[np.ndarray]] = {}
        self._encoded = functools.lru_cache(ENCODINGS)(self._encode)
        self._set, self._frames, self._listed = "", (), pd.DataFrame()
        self._focus: Focus | None = None
        super().__init__([*self._choices(order), *self._settings(), self._pictures()])
        self.add_class("rossam-inspector")
        self._guarded(self._load)()

    @property
    def focus(self) -> Focus:
        if self._focus is None:
            raise RossamError("inspector", "no object is shown yet", "choose other frames, or run this cell again")
        return self._focus

    # --- controls ---------------------------------------------------------------------------------------------------

    def _choices(self, order: str) -> list[ipw.Widget]:
        """Controls that choose an object."""
        methods = [(label(method), method) for method in self.source.methods]
        self.dataset = self._dropdown(self._load, "Frames", list(self.source.sets))
        self.frame, self.category, self.size = (
            self._dropdown(self._choose, name, [ALL]) for name in ("Frame", "Class", "Size, px²")
        )
        self.order = self._dropdown(self._choose, "Order", ORDERS, order)
        self.judge = self._dropdown(self._choose, "by IoU of", methods)
        back = self._button(lambda: self.step(-1), "Previous object", icon="arrow-left", layout=_wide(40))
        slider = ipw.IntSlider(0, 0, 0, description="Object", readout=False, layout=_wide(420))
        self.slider = self._on(self._open, slider)
        forward = self._button(lambda: self.step(1), "Next object", icon="arrow-right", layout=_wide(40))
        self.title = ipw.HTML().add_class("rossam-title")
        return [
            _row(self.dataset, self.frame, self.category, self.size),
            _row(self.order, self.judge, back, self.slider, forward, self.title),
        ]

    def _settings(self) -> list[ipw.Widget]:
        """Controls of the window, the threshold and the methods, and what is missing."""
        start, change = self.source.inference, self._change_config
        self.mode = self._dropdown(change, "Window", ["object", "shared", "tiled", "direct"], start.mode)
        rate = ipw.BoundedFloatText(start.rate, min=0.05, max=16, step=0.25, description="Rate", layout=_wide(150))
        self.rate = self._on(change, rate)
        self.growth = self._dropdown(change, "Growth", get_args(Growth), start.growth)
        self.interpolation = self._dropdown(change, "Resampling", ["bicubic", "bilinear"], start.interpolation)
        threshold = ipw.FloatSlider(start.mask_threshold, min=-8, max=8, step=0.1, description="Threshold")
        self.threshold = self._on(self._draw, threshold)
        self.ticks = {
            m: self._on(self._answer, ipw.Checkbox(True, description=label(m), indent=False, layout=_wide(100)))
            for m in self.source.methods
        }
        notes = "".join(f"<div class='rossam-note'>{escape(note)}</div>" for note in self.source.notes)
        return [
            _row(self.mode, self.rate, self.growth, self.interpolation).add_class("rossam-row"),
            _row(self.threshold, *self.ticks.values()),
            ipw.HTML(notes),
        ]

    def _pictures(self) -> ipw.Widget:
        """The prompt over the window, with its controls, and beside it a column of pictures for each method."""
        methods = self.source.methods
        self.editor = PromptEditor()
        self.editor.observe(self._guarded(self._change_drawn), "prompt")
        narrow = {"step": 1, "style": {"description_width": "22px"}, "layout": ipw.Layout(width="23%")}
        sides = [ipw.FloatText(description=name, **narrow) for name in ("x0", "y0", "x1", "y1")]
        self.sides = [self._on(self._change_sides, side) for side in sides]
        own_box = self._button(
            lambda: self.prompt(self.focus.own_box, recentre=True), "Prompt with the annotated box", "annotated box"
        )
        centre = self._button(
            lambda: self.prompt(self.focus.box_xyxy, self.focus.points, recentre=True),
            "Cut the window around the present box", "centre window",
        )  # fmt: skip
        self.view = self._on(self._draw, ipw.ToggleButtons(options=["window", "frame"], style={"button_width": "70px"}))
        self.heads = {method: ipw.HTML() for method in methods}
        tile = functools.partial(ipw.Image, format="png")
        self.images = {m: [tile(layout=ipw.Layout(width="100%")) for _ in tiles.LEGENDS] for m in methods}
        self.legends = [ipw.HTML(f"<div class='rossam-legend'>{text}</div>") for text in ("", *tiles.LEGENDS)]
        self.grid = ipw.GridBox(layout=ipw.Layout(grid_gap="6px", align_items="flex-start"))
        self.status, self.error = ipw.HTML().add_class("rossam-status"), ipw.HTML()
        layout = ipw.Layout(flex="1 1 330px", max_width=f"{EDITOR}px", margin="0 16px 0 0")
        editor = ipw.VBox([self.editor, _row(*self.sides), _row(own_box, centre, self.view)], layout=layout)
        # status and errors stand beside the editor, so that the picture stays in place while a box is dragged
        answers = ipw.VBox([self.status, self.error, self.grid], layout=ipw.Layout(flex="2 1 480px", overflow="auto"))
        return ipw.HBox([editor, answers], layout=ipw.Layout(flex_flow="row wrap", align_items="flex-start"))

    def _dropdown(self, action: Callable[[], None], name: str, options: Any, value: Any = None) -> ipw.Dropdown:
        chosen = {} if value is None else {"value": value}
        return self._on(action, ipw.Dropdown(description=name, options=options, layout=_wide(220), **chosen))

    def _on(self, action: Callable[[], None], control: ipw.Widget) -> ipw.Widget:
        control.observe(self._guarded(action), "value")
        return control

    def _button(self, action: Callable[[], None], tooltip: str, text: str = "", **options: Any) -> ipw.Button:
        button = ipw.Button(description=text, tooltip=tooltip, **options)
        button.on_click(self._guarded(action))
        return button

    # --- from a choice to an answer ---------------------------------------------------------------------------------

    def _load(self) -> None:
        """Another set of frames: list its objects, offer its frames, classes and sizes."""
        self._say(f"Reading {self.dataset.value} …")
        try:
            frames, bins = self.source.sets[self.dataset.value](), self.source.evaluation.size_bins
            listed = list_objects(frames, bins)
        except Exception:
            with self._silence():
                self.dataset.value = self._set or self.dataset.value
            raise
        self._set, self._frames, self._listed = self.dataset.value, frames, listed
        with self._silence():
            self.category.options = [ALL, *sorted(listed["category"].unique())]
            self.size.options = [ALL, *(name for name in size_bin_labels(bins) if name in set(listed["size_bin"]))]
            self.frame.options = [(ALL, ALL), *((frames[row].key, int(row)) for row in listed["row"].unique())]
            self.category.value = self.size.value = self.frame.value = ALL
        self._choose()

    def _choose(self) -> None:
        """Other filters or another order: show the first object of the selection."""
        order, judge = self.order.value, self.judge.value
        if order in ("worst", "best") and judge not in self._listed.columns:
            self._listed = with_scores(self._listed, judge, self.source.scores(self._set, judge, self._show_progress))
        filters = {"category": self.category.value, "size_bin": self.size.value, "row": self.frame.value}
        filters = {name: value for name, value in filters.items() if value != ALL}
        self.objects = arrange(self._listed, order, judge, self.source.seed, **filters)
        with self._silence():
            self.slider.value, self.slider.max = 0, len(self.objects) - 1
        self._open()

    def _open(self) -> None:
        """The object under the slider, with its own box."""
        row = self.objects.iloc[self.slider.value]
        frame = self._frames[int(row["row"])]
        area = "no mask" if math.isnan(row["area"]) else f"{row['area']:,.0f} px²"
        about = f"<b>{escape(row['category'])}</b>, {area}, {escape(frame.key)} #{row['object_id']}"
        self.title.value = f"{self.slider.value + 1} of {len(self.objects)} · {about}"
        focus = Focus(frame, int(row["place"]), self._config())
        image = self._image if self._focus and self._focus.frame is frame else frame.image()
        target = focus.annotation.mask(frame.size_hw) if focus.annotation.has_mask else None
        self._focus, self._image, self._target = focus, image, target
        self._answer()

    def _config(self) -> InferenceConfig:
        chosen = {name: getattr(self, name).value for name in ("mode", "rate", "growth", "interpolation")}
        return parse_config(InferenceConfig, {**self.source.inference.model_dump(), **chosen}, where="window settings")

    def _change_config(self) -> None:
        self.focus.recentre(self._config())
        self._answer()

    def _change_sides(self) -> None:
        self.prompt([side.value for side in self.sides], self.focus.points)

    def _change_drawn(self) -> None:
        """The prompt was edited in the picture; a deleted box becomes the annotated one."""
        drawn = self.editor.prompt
        self.prompt(drawn["box"] or self.focus.own_box, drawn["points"])

    def prompt(self, box_xyxy: Sequence[float], points: Iterable[Sequence[float]] = (), recentre: bool = False) -> None:
        """Prompt with a box and points (x, y, label: 1 positive, 0 negative), all in frame pixels."""
        focus = self.focus
        before = focus.box_xyxy, focus.points
        focus.set_prompt(box_xyxy, points)
        if recentre:
            focus.recentre()
        try:
            self._answer()
        except Exception:
            focus.box_xyxy, focus.points = before
            raise

    def _answer(self) -> None:
        """Masks of all ticked methods for the present prompt: encode new windows, decode new prompts."""
        started, encoded = time.perf_counter(), self._encoded.cache_info().misses
        shown = {method: self.source.methods[method]() for method, tick in self.ticks.items() if tick.value}
        if not shown:
            raise RossamError("methods", "none is ticked", "tick at least one")
        focus, answers, models = self.focus, {}, [predictor.model for predictor in shown.values()]
        for method, predictor in shown.items():
            model = predictor.model
            window = focus.window(model.input_size, model.resize)
            points = focus.points if model.supports_points else ()
            encoded_window = self._encoded(method, str(focus.frame.image_path), window, focus.config)
            # a threshold of minus infinity keeps the logits of the whole window
            answers[method] = decode_window(predictor, encoded_window, focus.box_xyxy, -math.inf, points)
        backbones = ", ".join(dict.fromkeys(model.backbone for model in models))
        reason = f"Points are off: the weights of {backbones} were trained with boxes only."
        self.editor.points_off = "" if any(model.supports_points for model in models) else reason
        self.answers, self._window = answers, focus.window(models[0].input_size, models[0].resize)
        self._draw(started, self._encoded.cache_info().misses - encoded)

    def _encode(self, method: str, image_path: str, window: windows.CropPlan, config: InferenceConfig) -> EncodedWindow:
        """Encode a window of the present image, whose path is part of the cache's key."""
        predictor = self.source.methods[method]()
        embeddings = predictor.encode([predictor.cut(self._image, window, config)])
        return EncodedWindow(window, embeddings, self._image.shape[:2])

    # --- from an answer to pictures ---------------------------------------------------------------------------------

    def _draw(self, started: float | None = None, encoded: int = 0) -> None:
        """Masks at the threshold, their scores, and all pictures."""
        started, focus, target = started or time.perf_counter(), self.focus, self._target
        size_hw = focus.frame.size_hw
        self.answers = {m: answer.with_threshold(self.threshold.value) for m, answer in self.answers.items()}
        drawn = {method: answer.full() for method, answer in self.answers.items()}
        band, self.scores = band_width(size_hw, self.source.evaluation.dilation_ratio), {}
        if target is not None:
            fit = fitted_band(float(np.count_nonzero(target)))
            self.scores = {m: score_masks(mask, target, band_px=band, fit_px=fit) for m, mask in drawn.items()}
        region = tiles.square_around([focus.own_box, focus.box_xyxy], size_hw)
        self.tiles = {}
        for method, answer in self.answers.items():
            points = focus.points if self.source.methods[method]().model.supports_points else ()
            note = " · box only" if focus.points and not points else ""
            self.heads[method].value = tiles.heading(method, answer, self.scores.get(method), note)
            drawings = tiles.method_tiles(method, self._image, answer, target, region, band, TILE, points)
            for image, tile in zip(self.images[method], drawings, strict=False):
                image.value = tiles.png(tile)
            self.tiles[method] = drawings
        columns = [self.legends, *([self.heads[method], *self.images[method]] for method in self.tiles)]
        rows = 1 + min(len(drawings) for drawings in self.tiles.values())
        self.grid.layout.grid_template_columns = f"112px repeat({len(self.tiles)}, minmax(156px, {SHOWN}px))"
        self.grid.children = [column[row] for row in range(rows) for column in columns]
        self._draw_editor(drawn)
        took, count = 1000 * (time.perf_counter() - started), f"{encoded} window{'' if encoded == 1 else 's'} encoded"
        self._say(f"{count}, answered in {took:.0f} ms; the window is {self._window.width} × {self._window.height} px")

    def _draw_editor(self, drawn: dict[str, np.ndarray]) -> None:
        """The window, or the whole frame, with all outlines; over it the prompt."""
        (height, width), window = self.focus.frame.size_hw, self._window.window_xyxy
        is_whole = self.view.value == "frame"
        region = (0, 0, width, height) if is_whole else window
        outlines = drawn if self._target is None else {TARGET: self._target, **drawn}
        boxes = [(window, tiles.WINDOW)] if is_whole else []
        canvas = tiles.outlined(self._image, region, tiles.fit_size(region, EDITOR), outlines, boxes)
        self.editor.region, self.editor.image = [int(side) for side in region], tiles.png(canvas)
        self._show_prompt()

    def _show_prompt(self) -> None:
        """Bring the editor and the numbers back to the prompt that is answered."""
        if self._focus is not None:
            with self._silence():
                box, points = [round(side, 2) for side in self._focus.box_xyxy], self._focus.points
                self.editor.prompt = {"box": box, "points": [list(point) for point in points]}
                for side, value in zip(self.sides, box, strict=True):
                    side.value = value

    def figure(self) -> Figure:
        """The pictures of all ticked methods as they are now, for a page without a kernel."""
        if not self.tiles:
            raise RossamError("inspector", "no object is shown", "correct what its error says, and run it again")
        return tiles.side_by_side(self.tiles, self.scores)

    def _say(self, text: str) -> None:
        self.status.value = escape(text)

    def _show_progress(self, frames: Iterable, total: int) -> Iterator:
        """Pass frames on and show how many are done."""
        for number, item in enumerate(frames, start=1):
            self._say(f"Scoring {self._set}, once: frame {number} of {total} …")
            yield item


def _row(*items: ipw.Widget) -> ipw.HBox:
    return ipw.HBox(items, layout=ipw.Layout(flex_flow="row wrap", align_items="center"))


def _wide(pixels: int) -> ipw.Layout:
    return ipw.Layout(width=f"{pixels}px", max_width="95%")
