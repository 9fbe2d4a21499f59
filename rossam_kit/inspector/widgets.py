"""The inspector: show any object of a profile, change its prompt, and compare the masks of every method.

`inspect` makes the widget. A new object or window is encoded; a box or point inside its window is only decoded; a
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
from typing import Any, get_args

import anywidget
import ipywidgets as ipw
import numpy as np
import pandas as pd
import traitlets
from pycocotools import mask as coco_mask

from rossam_core import masks
from rossam_core.boxes import check_boxes
from rossam_core.errors import RossamError
from rossam_core.inference import windows as crops
from rossam_core.inference.predictor import ObjectMask, Predictor
from rossam_core.metrics import band_width
from rossam_core.model.segmenter import load_run
from rossam_core.records import Box, Frame, ObjectAnnotation
from rossam_core.settings import Growth, InferenceConfig, parse_config
from rossam_core.training import run_folder as runs
from rossam_kit.config import EvaluationConfig, Profile, load_profile
from rossam_kit.datasets.loading import load_frames, scored_split
from rossam_kit.experiments.experiments import Experiments, RowSpec
from rossam_kit.experiments.mask_scores import MaskScores, fitted_band, score_masks
from rossam_kit.experiments.scoring import evaluate, size_bin_labels
from rossam_kit.inspector import widget_pictures as pictures
from rossam_kit.inspector.encoded_crop import EncodedCrop, decode_crop, encode_window
from rossam_kit.report.style import TARGET, Figure, label

EDITOR, TILE, SHOWN = 460, 300, 200
"""Longer sides of the pictures in pixels, and the largest size at which a tile is shown."""
ENCODINGS = 16
"""Encodings kept in memory, of 0.4 to 16 MB each."""
ALL = "all"
ORDERS = {"worst first": "worst", "best first": "best", "random": "random", "as in the data": "data"}
OBJECT_KEY = ["video", "frame", "object_id"]

Progress = Callable[[Iterable], Iterable]


# --- what can be inspected ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Frames, methods and scores of an inspector, each loaded when it is first needed. Nothing is trained.

    Attributes:
        sets: name → function that returns the frames, the same on each call.
        methods: name → function that returns the `Predictor`, the same on each call.
        scores: (set, method, progress) → table with columns `video, frame, object_id, iou`; `progress` wraps the
            iteration over frames that must be predicted first (see `evaluation.scoring.evaluate`).
        inference: initial settings.
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
        """The predictors of all methods."""
        return {name: make() for name, make in self.methods.items()}


def frames_source(sets: Mapping[str, Sequence[Frame]], predictors: Mapping[str, Predictor], **options) -> Source:
    """A source over existing frames and predictors; `options` are further fields of `Source`."""
    return Source(
        {name: lambda frames=frames: frames for name, frames in sets.items()},
        {name: lambda predictor=predictor: predictor for name, predictor in predictors.items()},
        lambda name, method, progress: evaluate(predictors[method], sets[name], progress=progress),
        **options,
    )


def experiments_source(experiments: Experiments) -> Source:
    """A profile's splits, the other variants of generated video, and its methods, fine-tuned where a run is finished.

    The tables' scores order the scored frames; other scores are computed on demand.
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
    notes = []
    table = "table5" if "table5" in experiments.tables else "table6"
    ros_sam = experiments.specs[table].row("ROS-SAM")
    run_dir = experiments.run_folder(experiments.run_config(ros_sam, profile.seeds[0]))
    if (run_dir / runs.AUDIT).exists():
        predictor = Predictor(load_run(run_dir), profile.inference, device=str(experiments.device))
        methods["ros-sam"] = lambda: predictor
    else:
        notes.append("ROS-SAM is not among the methods: its run is not finished. Run 06_comparison (nwpu: 08).")

    def scores(name: str, method: str, progress: Progress) -> pd.DataFrame:
        if method in untrained and sets[name]() is experiments.frames:
            return experiments.result(untrained[method]).units()
        return evaluate(methods[method](), sets[name](), progress=progress)

    return Source(sets, methods, scores, profile.inference, profile.evaluation, profile.seed, notes)


def list_objects(frames: Iterable[Frame], size_bins: Sequence[float] = EvaluationConfig().size_bins) -> pd.DataFrame:
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
    return table.assign(size_bin=bins)


def with_scores(objects: pd.DataFrame, method: str, scores: pd.DataFrame) -> pd.DataFrame:
    """`objects` with a column `method`: the IoU in `scores`, NaN where it has none."""
    column = scores.drop_duplicates(OBJECT_KEY)[[*OBJECT_KEY, "iou"]].rename(columns={"iou": method})
    column = column.assign(video=column["video"].astype(str))
    return objects.drop(columns=method, errors="ignore").merge(column, on=OBJECT_KEY, how="left")


def arrange(
    objects: pd.DataFrame, order: str = "data", judge: str | None = None, seed: int = 0, **filters: Any
) -> pd.DataFrame:
    """The objects that pass all filters, in order.

    Args:
        order: `worst` or `best` by the column `judge` (objects without a score last, ties as in the data), `random`
            (the same for the same seed), or `data`.
        filters: column → value.

    Raises:
        RossamError: no object passes.
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


class Focus:
    """One object under inspection: its prompt, which may be edited, and the windows its masks are read from.

    A window stays while it holds the box whole, so that an edited box inside it needs no new encoding. It is planned
    anew when the box leaves it, when settings change, and by `recentre`.

    Args:
        frame: the object's.
        place: index in `frame.objects`.
        config: how windows are cut.
    """

    def __init__(self, frame: Frame, place: int, config: InferenceConfig):
        self.frame, self.place, self.config = frame, place, config
        self.box_xyxy: Box = self.own_box
        self.points: tuple[tuple[float, float, int], ...] = ()
        self._windows: dict[tuple[int, str], crops.CropPlan] = {}

    @property
    def annotation(self) -> ObjectAnnotation:
        return self.frame.objects[self.place]

    @property
    def own_box(self) -> Box:
        """The annotated box."""
        return tuple(float(side) for side in self.annotation.box_xyxy)

    def set_prompt(self, box_xyxy: Sequence[float], points: Iterable[Sequence[float]] = ()) -> None:
        """Prompt with another box and points (x, y, label); a bad one is a `RossamError` and changes nothing."""
        (box,) = check_boxes([box_xyxy], self.frame.size_hw, f"box in frame {self.frame.key}")
        self.points = tuple((float(x), float(y), int(positive)) for x, y, positive in points)
        self.box_xyxy = tuple(box.tolist())

    def recentre(self, config: InferenceConfig | None = None) -> None:
        """Plan the next windows around the present box, with other settings if given."""
        self.config = config or self.config
        self._windows.clear()

    def window(self, input_size: int, resize: str = "longest_side") -> crops.CropPlan:
        """The window for a model of that input size and way to resize (`PromptableSegmenter.resize`)."""
        (hull,) = crops.pixel_hulls([self.box_xyxy], self.frame.size_hw)
        key = input_size, resize
        if key not in self._windows or not self._windows[key].holds(hull):
            others = [tuple(o.box_xyxy) for i, o in enumerate(self.frame.objects) if o.has_mask and i != self.place]
            boxes = np.array([self.box_xyxy, *others], dtype=float)
            plans = crops.plan(boxes, self.frame.size_hw, input_size, self.config, resize)
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


def inspect(source: str | Path | Profile | Experiments | Source, *, order: str = "worst") -> Inspector:
    """The inspector as one widget; show it as the last line of a notebook's cell.

    Args:
        source: a profile by name, path or value, an `Experiments` (whose models and scores are then shared), or a
            `Source` of other frames and predictors.
        order: of the objects at first: `worst`, `best`, `random` or `data`.
    """
    if isinstance(source, str | Path):
        source = load_profile(source)
    if isinstance(source, Profile):
        source = Experiments(source)
    return Inspector(experiments_source(source) if isinstance(source, Experiments) else source, order=order)


class Inspector(ipw.VBox):
    """The widget; `inspect` makes one. Controls are attributes, so that a notebook or a test can set them.

    Attributes:
        objects: the objects in order, as the slider steps through them.
        focus: the object that is shown.
        answers: method → `ObjectMask` that is shown, with the logits of the whole window.
        scores: method → `MaskScores`, empty where the object has no true mask.
        tiles: method → pictures of its answer.
    """

    def __init__(self, source: Source, *, order: str = "worst"):
        self.source, self.objects = source, pd.DataFrame()
        self.answers: dict[str, ObjectMask] = {}
        self.scores: dict[str, MaskScores] = {}
        self.tiles: dict[str, list[np.ndarray]] = {}
        self._encoded = functools.lru_cache(ENCODINGS)(self._encode)
        self._decoded = functools.lru_cache(4 * ENCODINGS)(self._decode)
        self._frames, self._listed = (), list_objects(())
        self._focus: Focus | None = None
        self._set, self._quiet = "", False
        self._make_choices(order)
        self._make_settings()
        self._make_pictures()
        super().__init__(self._layout())
        self.add_class("rossam-inspector")
        self._guarded(self._load)()

    @property
    def focus(self) -> Focus:
        if self._focus is None:
            raise RossamError("inspector", "no object is shown yet", "choose other frames, or run this cell again")
        return self._focus

    # --- controls ---------------------------------------------------------------------------------------------------

    def _make_choices(self, order: str) -> None:
        """Controls that choose an object."""
        self.dataset = self._on(self._load, _dropdown("Frames", list(self.source.sets)))
        self.category, self.size, self.frame = (
            self._on(self._choose, _dropdown(name, [ALL])) for name in ("Class", "Size, px²", "Frame")
        )
        self.order = self._on(self._choose, _dropdown("Order", ORDERS, value=order))
        methods = [(label(method), method) for method in self.source.methods]
        self.judge = self._on(self._choose, _dropdown("by IoU of", methods))
        slider = ipw.IntSlider(0, 0, 0, description="Object", readout=False, layout=_wide(420))
        self.slider = self._on(self._open, slider)
        self.back = self._button(lambda: self.step(-1), "Previous object", icon="arrow-left", layout=_wide(40))
        self.forward = self._button(lambda: self.step(1), "Next object", icon="arrow-right", layout=_wide(40))
        self.title = ipw.HTML().add_class("rossam-title")

    def _make_settings(self) -> None:
        """Controls of the window, the threshold, the methods and the prompt."""
        start, change = self.source.inference, self._change_config
        self.mode = self._on(change, _dropdown("Window", ["object", "shared", "tiled", "direct"], value=start.mode))
        rate = ipw.BoundedFloatText(start.rate, min=0.05, max=16, step=0.25, description="Rate", layout=_wide(150))
        self.rate = self._on(change, rate)
        self.growth = self._on(change, _dropdown("Growth", get_args(Growth), value=start.growth))
        resampling = _dropdown("Resampling", ["bicubic", "bilinear"], value=start.interpolation)
        self.interpolation = self._on(change, resampling)
        threshold = ipw.FloatSlider(start.mask_threshold, min=-8, max=8, step=0.1, description="Threshold")
        self.threshold = self._on(self._draw, threshold)
        self.ticks = {
            method: self._on(
                self._answer, ipw.Checkbox(True, description=label(method), indent=False, layout=_wide(100))
            )
            for method in self.source.methods
        }
        side = functools.partial(
            ipw.FloatText, step=1, style={"description_width": "22px"}, layout=ipw.Layout(width="23%")
        )
        self.sides = [self._on(self._change_sides, side(description=name)) for name in ("x0", "y0", "x1", "y1")]
        self.own_box = self._button(
            lambda: self.prompt(self.focus.own_box, recentre=True), "Prompt with the annotated box", "annotated box"
        )
        self.centre = self._button(
            lambda: self.prompt(self.focus.box_xyxy, self.focus.points, recentre=True),
            "Cut the window around the present box", "centre window",
        )  # fmt: skip
        self.view = self._on(self._draw, ipw.ToggleButtons(options=["window", "frame"], style={"button_width": "70px"}))

    def _make_pictures(self) -> None:
        self.editor = PromptEditor()
        self.editor.observe(self._guarded(self._change_drawn), "prompt")
        self.heads = {method: ipw.HTML() for method in self.source.methods}
        self.images = {
            method: [ipw.Image(format="png", layout=ipw.Layout(width="100%")) for _ in range(3)]
            for method in self.source.methods
        }
        self.legends = [ipw.HTML(f"<div class='rossam-legend'>{text}</div>") for text in ("", *pictures.LEGENDS)]
        self.grid = ipw.GridBox(layout=ipw.Layout(grid_gap="6px", align_items="flex-start"))
        self.status, self.error = ipw.HTML().add_class("rossam-status"), ipw.HTML()

    def _on(self, action: Callable[[], None], control: ipw.Widget) -> ipw.Widget:
        control.observe(self._guarded(action), "value")
        return control

    def _button(self, action: Callable[[], None], tooltip: str, text: str = "", **options: Any) -> ipw.Button:
        button = ipw.Button(description=text, tooltip=tooltip, **options)
        button.on_click(self._guarded(action))
        return button

    def _layout(self) -> list[ipw.Widget]:
        def row(*items, **layout):
            return ipw.HBox(items, layout=ipw.Layout(flex_flow="row wrap", align_items="center", **layout))

        editor = ipw.VBox(
            [self.editor, row(*self.sides), row(self.own_box, self.centre, self.view)],
            layout=ipw.Layout(flex="1 1 330px", max_width=f"{EDITOR}px", margin="0 16px 0 0"),
        )
        # status and errors stand beside the editor, so that the picture stays in place while a box is dragged
        answers = ipw.VBox([self.status, self.error, self.grid], layout=ipw.Layout(flex="2 1 480px", overflow="auto"))
        notes = "".join(f"<div class='rossam-note'>{escape(note)}</div>" for note in self.source.notes)
        return [
            row(self.dataset, self.frame, self.category, self.size),
            row(self.order, self.judge, self.back, self.slider, self.forward, self.title),
            row(self.mode, self.rate, self.growth, self.interpolation).add_class("rossam-row"),
            row(self.threshold, *self.ticks.values()),
            ipw.HTML(notes),
            ipw.HBox([editor, answers], layout=ipw.Layout(flex_flow="row wrap", align_items="flex-start")),
        ]

    def _guarded(self, action: Callable[[], None]) -> Callable[..., None]:
        """`action` as a callback that shows its error in the widget, so that every control keeps working."""

        def callback(*_):
            if self._quiet:
                return
            self.error.value = ""
            try:
                action()
            except Exception as problem:  # an unexpected error, too, must not leave dead controls behind
                self.error.value = pictures.problem_html(problem)
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

    # --- from a choice to an answer ---------------------------------------------------------------------------------

    def step(self, by: int) -> None:
        """Move the slider."""
        self.slider.value = min(max(self.slider.value + by, 0), self.slider.max)

    def _load(self) -> None:
        """Another set of frames: list its objects, offer its frames, classes and sizes."""
        self._say(f"Reading {self.dataset.value} …")
        try:
            frames = self.source.sets[self.dataset.value]()
            listed = list_objects(frames, self.source.evaluation.size_bins)
        except Exception:
            with self._silence():
                self.dataset.value = self._set or self.dataset.value
            raise
        self._set, self._frames, self._listed = self.dataset.value, frames, listed
        rows = listed["row"].unique()
        with self._silence():
            self.category.options = [ALL, *sorted(listed["category"].unique())]
            self.size.options = [ALL, *listed["size_bin"].cat.remove_unused_categories().cat.categories]
            self.frame.options = [(ALL, ALL), *((frames[row].key, int(row)) for row in rows)]
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

    @property
    def _shown(self) -> list[tuple[str, Predictor]]:
        """The ticked methods."""
        shown = [(method, self.source.methods[method]()) for method, tick in self.ticks.items() if tick.value]
        if not shown:
            raise RossamError("methods", "none is ticked", "tick at least one")
        return shown

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
        focus, answers, box_only = self.focus, {}, []
        for method, predictor in self._shown:
            model = predictor.model
            window = focus.window(model.input_size, model.resize)
            if not model.supports_points:
                box_only.append(model.backbone)
            points = focus.points if model.supports_points else ()
            key = method, str(focus.frame.image_path), window, focus.config
            answers[method] = self._decoded(*key, focus.box_xyxy, points)
        reason = f"Points are off: the weights of {', '.join(dict.fromkeys(box_only))} were trained with boxes only."
        self.editor.points_off = reason if len(box_only) == len(answers) else ""
        self.answers = answers
        self._draw(started, self._encoded.cache_info().misses - encoded)

    def _encode(self, method: str, image_path: str, window: crops.CropPlan, config: InferenceConfig) -> EncodedCrop:
        """Encode a window of the present image, whose path is part of the cache's key."""
        return encode_window(self.source.methods[method](), self._image, window, config)

    def _decode(self, method: str, *key_and_prompt) -> ObjectMask:
        """The answer with the logits of the whole window, which a threshold of minus infinity gives."""
        *key, box_xyxy, points = key_and_prompt
        crop = self._encoded(method, *key)
        return decode_crop(self.source.methods[method](), crop, box_xyxy, threshold=-math.inf, points=points)

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
        region = pictures.square_around([focus.own_box, focus.box_xyxy], size_hw)
        self.tiles = {}
        for method, answer in self.answers.items():
            points = focus.points if self.source.methods[method]().model.supports_points else ()
            note = " · box only" if focus.points and not points else ""
            self.heads[method].value = pictures.heading(method, answer, self.scores.get(method), note)
            tiles = pictures.method_tiles(method, self._image, answer, target, region, band, TILE, points)
            for image, tile in zip(self.images[method], tiles, strict=False):
                image.value = pictures.png(tile)
            self.tiles[method] = tiles
        self._arrange_tiles()
        self._draw_editor(drawn)
        took = 1000 * (time.perf_counter() - started)
        windows = f"{encoded} window{'' if encoded == 1 else 's'} encoded"
        self._say(
            f"{windows}, answered in {took:.0f} ms; the window is {self._window.width} × {self._window.height} px"
        )

    @property
    def _window(self) -> crops.CropPlan:
        """The window of the first ticked method."""
        model = self._shown[0][1].model
        return self.focus.window(model.input_size, model.resize)

    def _arrange_tiles(self) -> None:
        """A row of headings, then one row per kind of picture, each after its legend."""
        columns = [self.legends, *([self.heads[method], *self.images[method]] for method in self.tiles)]
        rows = 1 + min(len(tiles) for tiles in self.tiles.values())
        self.grid.layout.grid_template_columns = f"112px repeat({len(self.tiles)}, minmax(156px, {SHOWN}px))"
        self.grid.children = [column[row] for row in range(rows) for column in columns]

    def _draw_editor(self, drawn: dict[str, np.ndarray]) -> None:
        """The window, or the whole frame, with all outlines; over it the prompt."""
        height, width = self.focus.frame.size_hw
        whole, window = self.view.value == "frame", self._window.window_xyxy
        region = (0, 0, width, height) if whole else window
        outlines = drawn if self._target is None else {TARGET: self._target, **drawn}
        canvas = pictures.outlined(self._image, region, pictures.fit_size(region, EDITOR), outlines,
                                   [(window, pictures.WINDOW)] if whole else [])  # fmt: skip
        self.editor.region = [int(side) for side in region]
        self.editor.image = pictures.png(canvas)
        self._show_prompt()
        with self._silence():
            for side, value in zip(self.sides, self.focus.box_xyxy, strict=True):
                side.value = round(value, 2)

    def _show_prompt(self) -> None:
        """Bring the editor back to the prompt that is answered."""
        if self._focus is not None:
            with self._silence():
                points = [list(point) for point in self._focus.points]
                self.editor.prompt = {"box": [round(side, 2) for side in self._focus.box_xyxy], "points": points}

    def figure(self) -> Figure:
        """The pictures of all ticked methods as they are now, for a page without a kernel."""
        if not self.tiles:
            raise RossamError("inspector", "no object is shown", "correct what its error says, and run it again")
        return pictures.side_by_side(self.tiles, self.scores)

    def _say(self, text: str) -> None:
        self.status.value = escape(text)

    def _show_progress(self, frames: Iterable, total: int | None = None) -> Iterator:
        """Pass frames on and show how many are done."""
        for number, item in enumerate(frames, start=1):
            self._say(f"Scoring {self._set}, once: frame {number} of {total or '?'} …")
            yield item


def _dropdown(name: str, options: Any, **more: Any) -> ipw.Dropdown:
    return ipw.Dropdown(description=name, options=options, layout=_wide(220), **more)


def _wide(pixels: int) -> ipw.Layout:
    return ipw.Layout(width=f"{pixels}px", max_width="95%")


def _area(item: ObjectAnnotation, frame: Frame) -> float:
    return float(coco_mask.area(masks.to_rle(item.segmentation, frame.size_hw))) if item.has_mask else math.nan
