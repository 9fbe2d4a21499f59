"""A widget to draw a box and points over an image, and what panels that hold it share: buttons, steps, shown errors.

The inspector and the review of converted masks are such panels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path

import anywidget
import ipywidgets as ipw
import traitlets

from rossam_core.errors import RossamError


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
                self.error.value = problem_html(problem)
                self._show_prompt()
            self.editor.answered += 1

        return callback

    def _on(self, action: Callable[[], None], control: ipw.Widget, trait: str = "value") -> ipw.Widget:
        """The control, which now acts when its value changes."""
        control.observe(self._guarded(action), trait)
        return control

    def _button(self, action: Callable[[], None], tooltip: str, text: str = "", icon: str = "") -> ipw.Button:
        width = "auto" if text else "40px"
        button = ipw.Button(description=text, tooltip=tooltip, icon=icon, layout=ipw.Layout(width=width))
        button.on_click(self._guarded(action))
        return button

    @contextlib.contextmanager
    def _silence(self) -> Iterator[None]:
        """Controls that are set in this block do not act."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


def problem_html(problem: Exception) -> str:
    """An error and its remedy as HTML."""
    if not isinstance(problem, RossamError):
        problem = RossamError(type(problem).__name__, str(problem), "choose other settings, or run this cell again")
    return f"<div class='rossam-error'>{escape(str(problem))}</div>"
