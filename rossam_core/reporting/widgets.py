"""The inspector: look at any object of a profile, move its prompt, and see what every method makes of it.

In: an `Experiments`, a profile or its name. Out: one ipywidgets box. What the user chose is kept and answered by
`widget_state`, drawn by `widget_pictures`; here are the controls, and the way from a control to a picture. An object
or a window not seen before is encoded; a box moved inside its window is only decoded; a threshold not even that.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, get_args

import ipywidgets as ipw
import numpy as np
import pandas as pd
from jupyter_bbox_widget import BBoxWidget

from ..config import Growth, InferenceConfig, Profile, load_profile, parse_config
from ..errors import RossamError
from ..evaluation.experiments import Experiments
from ..evaluation.metrics import MaskScores, band_width, fitted_band, score_masks
from ..inference.predictor import EncodedCrop, ObjectMask
from . import widget_pictures as pictures
from .style import MUTED, TARGET, Figure, label
from .widget_source import Source, experiments_source
from .widget_state import ORDERS, Encodings, Focus, arrange, list_objects, with_scores

EDITOR, TILE = 460, 200
"""Sides of the pictures in screen pixels."""
ALL = "all"
CSS = """<style>
.rossam-inspector .classes { display: none; }
.rossam-inspector img { image-rendering: pixelated; }
</style>"""


def inspect(source: str | Path | Profile | Experiments | Source, *, order: str = "worst") -> Inspector:
    """The inspector as one box of widgets; show it as the last line of a notebook's cell.

    Args:
        source: a profile by name, path or value, an `Experiments` (whose models and scores are then shared), or a
            `Source` of one's own frames and predictors.
        order: of the objects at first: `worst`, `best`, `random` or `data`.
    """
    if isinstance(source, str | Path):
        source = load_profile(source)
    if isinstance(source, Profile):
        source = Experiments(source)
    return Inspector(experiments_source(source) if isinstance(source, Experiments) else source, order=order)


def encoding_bytes(encoded: EncodedCrop) -> int:
    """Memory the embeddings of a window take."""
    final, early, high_resolution = encoded.embeddings
    return sum(tensor.nbytes for tensor in (final, early, *high_resolution) if tensor is not None)


class Inspector(ipw.VBox):
    """The widget; `inspect` makes one. Controls are attributes, so that a notebook or a test may turn them.

    Attributes:
        objects: the objects in order, as the slider steps through them.
        focus: the object that is shown, a `widget_state.Focus`.
        answers: method → `ObjectMask` that is shown, with the logits of the whole window.
        scores: method → `MaskScores`, empty where the object has no true mask.
    """

    def __init__(self, source: Source, *, order: str = "worst"):
        self.source, self.objects = source, pd.DataFrame()
        self.answers: dict[str, ObjectMask] = {}
        self.scores: dict[str, MaskScores] = {}
        self._encodings, self._decoded, self._quiet = Encodings(), {}, False
        self._drawn: dict[str, np.ndarray] = {}
        self._focus: Focus | None = None
        self._set: str | None = None
        self._make_controls(order)
        super().__init__(self._layout())
        self.add_class("rossam-inspector")
        self._guarded(self._load)()

    @property
    def focus(self) -> Focus:
        if self._focus is None:
            raise RossamError("inspector", "no object is shown yet", "choose other frames, or run this cell again")
        return self._focus

    # --- controls ---------------------------------------------------------------------------------------------------

    def _make_controls(self, order: str) -> None:
        methods, inference = list(self.source.methods), self.source.inference
        self.dataset = _dropdown("Frames", list(self.source.sets))
        self.category, self.size, self.frame = (_dropdown(name, [ALL]) for name in ("Class", "Size, px²", "Frame"))
        self.order = _dropdown("Order", ORDERS, value=order)
        self.judge = _dropdown("by IoU of", [(label(m), m) for m in methods])
        self.slider = ipw.IntSlider(0, 0, 0, description="Object", readout=False, layout=ipw.Layout(width="480px"))
        self.back, self.forward = (
            ipw.Button(icon=f"arrow-{side}", tooltip=f"{name} object", layout=_narrow(40))
            for side, name in (("left", "Previous"), ("right", "Next"))
        )
        self.title = ipw.HTML()
        self.title.add_class("rossam-title")

        self.mode = _dropdown("Window", ["object", "shared", "tiled", "direct"], value=inference.mode)
        self.crop = ipw.BoundedIntText(128, 1, 10**5, description="Crop, px", layout=_narrow(150))
        self.rate = ipw.BoundedFloatText(
            inference.rate, min=0.05, max=16, step=0.25, description="Rate", layout=_narrow(150)
        )
        self.growth = _dropdown("Growth", get_args(Growth), value=inference.growth)
        self.interpolation = _dropdown("Resampling", ["bicubic", "bilinear"], value=inference.interpolation)
        self.threshold = ipw.FloatSlider(
            inference.mask_threshold, min=-8, max=8, step=0.1, description="Threshold", layout=ipw.Layout(width="320px")
        )  # fmt: skip
        self.sides = [
            ipw.FloatText(0, step=1, description=name, layout=_narrow(108)) for name in ("x0", "y0", "x1", "y1")
        ]
        for side in self.sides:
            side.style.description_width = "24px"
        self.own_box = ipw.Button(description="annotated box", tooltip="Prompt with the annotated box again")
        self.centre = ipw.Button(description="centre window", tooltip="Cut the window around the box as it is now")
        self.view = ipw.ToggleButtons(options=["window", "frame"], style={"button_width": "70px"})
        self.ticks = {m: ipw.Checkbox(True, description=label(m), indent=False, layout=_narrow(110)) for m in methods}

        self.editor = BBoxWidget(classes=["box"], colors=["#ffffff"], hide_buttons=True)
        self.columns = {m: (ipw.HTML(), ipw.Image(format="png", width=TILE)) for m in methods}
        self.status, self.error, self.legend = ipw.HTML(), ipw.HTML(), ipw.HTML()
        self.progress = ipw.IntProgress(layout=ipw.Layout(width="320px", display="none"))

        self._on(self._load, self.dataset)
        self._on(self._choose, self.category, self.size, self.frame, self.order, self.judge)
        self._on(self._open, self.slider)
        self._on(self._change_rate, self.rate)
        self._on(self._change_crop, self.crop)
        self._on(self._change_config, self.mode, self.growth, self.interpolation)
        self._on(self._change_sides, *self.sides)
        self._on(self._answer, *self.ticks.values())
        self._on(self._draw, self.threshold, self.view)
        self.editor.observe(self._guarded(self._change_drawn), "bboxes")
        self.back.on_click(lambda _: self.step(-1))
        self.forward.on_click(lambda _: self.step(1))
        self.own_box.on_click(self._guarded(lambda: self.prompt(self.focus.own_box, recentre=True)))
        self.centre.on_click(self._guarded(lambda: self.prompt(self.focus.box_xyxy, recentre=True)))

    def _layout(self) -> list[ipw.Widget]:
        row = functools.partial(ipw.HBox, layout=ipw.Layout(flex_flow="row wrap", align_items="center"))
        columns = [ipw.VBox(list(column), layout=ipw.Layout(margin="0 8px 0 0")) for column in self.columns.values()]
        tiles = ipw.HBox([self.legend, *columns])
        editor = ipw.VBox([row([self.view]), self.editor, row(self.sides), row([self.own_box, self.centre])],
                          layout=ipw.Layout(width=f"{EDITOR + 30}px"))  # fmt: skip
        return [
            ipw.HTML(CSS),
            row([self.dataset, self.frame, self.category, self.size]),
            row([self.order, self.judge]),
            row([self.back, self.slider, self.forward, self.title]),
            row([self.mode, self.crop, self.rate, self.growth, self.interpolation]),
            row([self.threshold, *self.ticks.values()]),
            ipw.HTML("".join(f"<p style='color:{MUTED};margin:0'>{escape(note)}</p>" for note in self.source.notes)),
            self.error,
            row([self.progress, self.status]),
            row([editor, tiles], layout=ipw.Layout(flex_flow="row wrap", align_items="flex-start")),
        ]

    def _on(self, action: Callable[[], None], *controls: ipw.Widget) -> None:
        for control in controls:
            control.observe(self._guarded(action), "value")

    def _guarded(self, action: Callable[[], None]) -> Callable[..., None]:
        """`action` as a callback: what goes wrong stands in the widget, and every control stays alive."""

        def callback(*_):
            if self._quiet:
                return
            self.error.value = ""
            try:
                action()
            except RossamError as problem:
                self._complain(
                    f"<b>{escape(problem.where)}</b>: {escape(problem.found)}<br>Remedy: {escape(problem.remedy)}"
                )
            except Exception as problem:  # a fault of ours must not leave dead controls behind either
                what = f"{type(problem).__name__}: {problem}"
                self._complain(f"{escape(what)}<br>Remedy: choose something else, or run this cell again")

        return callback

    def _complain(self, html: str) -> None:
        self.error.value = (
            f"<p class='rossam-error' style='color:#b3261e;line-height:1.4;margin:0;white-space:pre-line'>{html}</p>"
        )

    @contextlib.contextmanager
    def _silence(self) -> Iterator[None]:
        """Controls that are set in this block do not act."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def _silently(self, **values: Any) -> None:
        """Set controls by attribute name without acting on it."""
        with self._silence():
            for name, value in values.items():
                getattr(self, name).value = value

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
            self._silently(dataset=self._set or self.dataset.value)
            raise
        self._set, self._frames, self._listed = self.dataset.value, frames, listed
        rows = listed["row"].unique()
        with self._silence():
            self.category.options = [ALL, *sorted(listed["category"].unique())]
            self.size.options = [ALL, *sorted(listed["size_bin"].dropna().unique(), key=_lower_bound)]
            self.frame.options = [(ALL, ALL), *((frames[row].key, int(row)) for row in rows)]
            self.category.value = self.size.value = self.frame.value = ALL
        self._choose()

    def _choose(self) -> None:
        """Other filters or another order: show the first object of what is left."""
        order, judge = self.order.value, self.judge.value
        if order in ("worst", "best") and judge not in self._listed.columns:
            self._say(f"Scoring {self._set} with {label(judge)}, once …")
            self._listed = with_scores(self._listed, judge, self.source.scores(self._set, judge, self._watched))
        filters = {"category": self.category.value, "size_bin": self.size.value, "row": self.frame.value}
        filters = {name: value for name, value in filters.items() if value != ALL}
        self.objects = arrange(self._listed, order, judge, seed=self.source.seed, **filters)
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
        target = focus.thing.mask(frame.size_hw) if focus.thing.has_mask else None
        self._focus, self._image, self._target = focus, image, target
        self._show_crop()
        self._answer()

    def _config(self) -> InferenceConfig:
        chosen = {name: getattr(self, name).value for name in ("mode", "rate", "growth", "interpolation")}
        return parse_config(InferenceConfig, {**self.source.inference.model_dump(), **chosen}, where="window settings")

    def _change_config(self) -> None:
        self.focus.set_config(self._config())
        self._answer()

    def _change_rate(self) -> None:
        self._show_crop()
        self._change_config()

    def _change_crop(self) -> None:
        self._silently(rate=self._input_size / self.crop.value)
        self._change_rate()

    def _show_crop(self) -> None:
        self._silently(crop=round(self._input_size / self.rate.value))

    @property
    def _input_size(self) -> int:
        """S of the first method that is ticked."""
        return self.source.methods[self._shown[0]]().model.input_size

    @property
    def _shown(self) -> list[str]:
        shown = [method for method, tick in self.ticks.items() if tick.value]
        if not shown:
            raise RossamError("methods", "none is ticked", "tick at least one")
        return shown

    def _change_sides(self) -> None:
        self.prompt([side.value for side in self.sides])

    def _change_drawn(self) -> None:
        """A box was moved or drawn in the picture; the newest counts. One without area is still being drawn."""
        if not self.editor.bboxes:
            return self.prompt(self.focus.own_box)
        drawn = self.editor.bboxes[-1]
        if drawn["width"] < 1 or drawn["height"] < 1:
            return None
        corners = np.array([[drawn["x"], drawn["y"]], [drawn["x"] + drawn["width"], drawn["y"] + drawn["height"]]])
        return self.prompt((corners / self._zoom + self._region[:2]).ravel().tolist())

    def prompt(self, box_xyxy: Sequence[float], recentre: bool = False) -> None:
        self.focus.set_box(box_xyxy)
        if recentre:
            self.focus.recentre()
        self._answer()

    def _answer(self) -> None:
        """Masks of all ticked methods for the box as it is: encode where the window is new, decode where the box is."""
        started, encoded, answers = time.perf_counter(), 0, {}
        for method in self._shown:
            predictor = self.source.methods[method]()
            size = predictor.model.input_size
            key = self.focus.encoding_key(method, size)

            def encode(predictor=predictor, size=size):
                nonlocal encoded
                encoded += 1
                return predictor.encode_window(self._image, self.focus.window(size), self.focus.config)

            crop = self._encodings.get(key, encode, encoding_bytes)
            asked, known = self._decoded.get(method, (None, None))
            if asked != (key, self.focus.box_xyxy):
                # with no threshold at all, the logits of the whole window come back
                known = predictor.decode_crop(crop, self.focus.box_xyxy, threshold=-math.inf)
                self._decoded[method] = (key, self.focus.box_xyxy), known
            answers[method] = known
        self.answers = answers
        self._draw(started, encoded)

    # --- from an answer to pictures ---------------------------------------------------------------------------------

    def _draw(self, started: float | None = None, encoded: int = 0) -> None:
        """Masks at the threshold, their scores, and all pictures."""
        started = started or time.perf_counter()
        size_hw, target = self.focus.frame.size_hw, self._target
        self.answers = {m: answer.with_threshold(self.threshold.value) for m, answer in self.answers.items()}
        masks = {method: answer.full() for method, answer in self.answers.items()}
        band = band_width(size_hw, self.source.evaluation.dilation_ratio)
        self.scores = {}
        if target is not None:
            fit = fitted_band(float(np.count_nonzero(target)))
            self.scores = {m: score_masks(mask, target, band_px=band, fit_px=fit) for m, mask in masks.items()}
        self._drawn = {}
        region = pictures.square_around([self.focus.own_box, self.focus.box_xyxy], size_hw)
        for method, (head, picture) in self.columns.items():
            column = method in masks
            head.layout.display = picture.layout.display = None if column else "none"
            if column:
                answer = self.answers[method]
                head.value = pictures.heading(method, answer, self.scores.get(method))
                self._drawn[method] = pictures.method_tiles(method, self._image, answer, target, region, band, TILE)
                picture.value = pictures.png(self._drawn[method])
        width, height = pictures.fit_size(region, TILE)
        self.legend.value = pictures.legend(round(TILE * height / width))  # the browser shows tiles TILE wide
        self._draw_editor(masks)
        took = 1000 * (time.perf_counter() - started)
        self._say(f"{encoded} window{'' if encoded == 1 else 's'} encoded, answered in {took:.0f} ms")

    def _draw_editor(self, masks: dict[str, np.ndarray]) -> None:
        """The window, or the whole frame, with all outlines; over it the box that can be moved."""
        height, width = self.focus.frame.size_hw
        window = self.focus.window(self._input_size).window_xyxy
        whole = self.view.value == "frame"
        self._region = (0, 0, width, height) if whole else window
        size = pictures.fit_size(self._region, EDITOR)
        self._zoom = np.array(size) / (self._region[2] - self._region[0], self._region[3] - self._region[1])
        truth = {} if self._target is None else {TARGET: self._target}
        frame = [(window, pictures.rgb("#56b4e9"))] if whole else []
        self.editor.image_bytes = pictures.png(
            pictures.outlined(self._image, self._region, size, {**truth, **masks}, frame)
        )
        corners = (np.reshape(self.focus.box_xyxy, (2, 2)) - self._region[:2]) * self._zoom
        (x, y), (w, h) = corners[0].round(3).tolist(), (corners[1] - corners[0]).round(3).tolist()
        with self._silence():
            self.editor.bboxes = [{"x": x, "y": y, "width": w, "height": h, "label": "box"}]
            for side, value in zip(self.sides, self.focus.box_xyxy, strict=True):
                side.value = round(value, 2)

    def figure(self) -> Figure:
        """The pictures of all ticked methods as they are now, for a page without a kernel."""
        if not self._drawn:
            raise RossamError("inspector", "no object is shown", "mend what its red line says, and make it anew")
        return pictures.side_by_side(self._drawn, self.scores)

    def _say(self, text: str) -> None:
        self.status.value = f"<span style='color:{MUTED}'>{escape(text)}</span>"

    def _watched(self, frames: Iterable, total: int | None = None) -> Iterable:
        """Pass frames on and show how many are done."""
        self.progress.value, self.progress.max, self.progress.layout.display = 0, total or 1, None
        try:
            for item in frames:
                yield item
                self.progress.value += 1
        finally:
            self.progress.layout.display = "none"


def _dropdown(name: str, options: Any, **more: Any) -> ipw.Dropdown:
    return ipw.Dropdown(description=name, options=options, layout=_narrow(230), **more)


def _narrow(pixels: int) -> ipw.Layout:
    return ipw.Layout(width=f"{pixels}px")


def _lower_bound(size_bin: str) -> float:
    return float(size_bin.rstrip("+").split("–")[0])
