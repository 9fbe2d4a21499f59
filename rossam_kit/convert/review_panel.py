"""The review as one widget: the worst-looking mask first, with a box that can be moved, on `decisions.Review`."""

from __future__ import annotations

from html import escape

import ipywidgets as ipw
import pandas as pd

from rossam_kit.convert.decisions import ACCEPTED, CORRECTED, REJECTED, Key, Review, keys_of, usable_share
from rossam_kit.inspector import tiles
from rossam_kit.prompt_editor import PromptEditor, PromptPanel
from rossam_kit.report.objects import square_around

EDITOR = 460
"""Longer side of the picture in pixels."""
COLOURS = {"": "#666666", ACCEPTED: "#009e73", REJECTED: "#d55e00", CORRECTED: "#0072b2"}


class ReviewPanel(PromptPanel):
    """Shows one mask at a time and takes decisions; show it as the last line of a notebook's cell.

    Drag the box to predict again; accept then keeps the new mask as a correction. Controls are attributes, so that a
    notebook or a test can set them.

    Args:
        review: whose decisions are taken.
        rows: rows of `Conversion.table` in the order to show; default: all, the worst-looking first. Of a
            `stratified_sample`, the panel shows the share that is usable.

    Attributes:
        key: the record that is shown.
    """

    def __init__(self, review: Review, rows: pd.DataFrame | None = None):
        self.review = review
        self.rows = review.conversion.table.sort_values("review_rank") if rows is None else rows
        self._keys, self._box = keys_of(self.rows), ()
        self.slider = ipw.IntSlider(0, 0, max(len(self._keys) - 1, 0), description="Mask", readout=False)
        self.slider.layout = ipw.Layout(width="380px", max_width="95%")
        self.slider.observe(self._guarded(self._open), "value")
        self.title, self.words, self.counts, self.error = (ipw.HTML() for _ in range(4))
        self.editor = PromptEditor(points_off="A review corrects boxes only.")
        self.editor.observe(self._guarded(self._change_box), "prompt")
        self.editor.layout.max_width = f"{EDITOR}px"
        self.back = self._button(lambda: self.step(-1), "Previous mask", icon="arrow-left")
        self.forward = self._button(lambda: self.step(1), "Next mask", icon="arrow-right")
        self.accept = self._button(self._accept, "Usable; a moved box and its mask are kept", "accept", "check")
        self.reject = self._button(self._reject, "Not usable, left out of training", "reject", "times")
        self.reset = self._button(self._open, "Back to the mask as it was decided or made", "as it was", "refresh")
        self.carry = self._button(self._carry, "The same fix in the frames that follow", "carry along track", "forward")
        self.undo = self._button(self._undo, "Take the last decision back", "undo", "undo")
        rows = [
            [self.back, self.slider, self.forward, self.title],
            [self.accept, self.reject, self.reset, self.carry, self.undo],
        ]
        wrapped = ipw.Layout(flex_flow="row wrap", align_items="center")
        boxes = [ipw.HBox(row, layout=wrapped) for row in rows]
        super().__init__([*boxes, self.words, self.editor, self.error, self.counts])
        self._guarded(self._open)()

    @property
    def key(self) -> Key:
        return self._keys[self.slider.value]

    def move(self, box_xyxy) -> None:
        """Predict with another box; nothing is decided yet."""
        mask = self.review.predict(self.key, box_xyxy)
        self._box = tuple(float(side) for side in box_xyxy)
        self._draw(mask)

    def _open(self) -> None:
        """The record under the slider, as it was decided or else made."""
        self._box, mask = self.review.current(self.key)
        self._draw(mask)

    def _change_box(self) -> None:
        """The box was edited in the picture; a deleted one becomes the record's."""
        self.move(self.editor.prompt["box"] or self.review.find(self.key)[1].box_xyxy)

    def _accept(self) -> None:
        before = tuple(round(side, 2) for side in self.review.current(self.key)[0])
        if tuple(round(side, 2) for side in self._box) != before:
            self.review.correct(self.key, self._box)
        elif self.review.verdict(self.key) != CORRECTED:
            self.review.accept(self.key)
        self._next()

    def _reject(self) -> None:
        self.review.reject(self.key)
        self._next()

    def _next(self) -> None:
        if self.slider.value < self.slider.max:
            self.step(1)
        else:
            self._open()

    def _carry(self) -> None:
        made = self.review.carry(self.key)
        self._open()
        self.words.value = f"{len(made)} masks of this track were predicted again"

    def _undo(self) -> None:
        undone = [key for key in self.review.undo() if key in self._keys]
        if undone and self._keys.index(undone[0]) != self.slider.value:
            self.slider.value = self._keys.index(undone[0])
        else:
            self._open()

    def _draw(self, mask) -> None:
        """Picture, title, what stands out, and how far the review is."""
        row, verdict = self.rows.iloc[self.slider.value], self.review.verdict(self.key)
        frame, record = self.review.find(self.key)
        region = square_around([record.box_xyxy, self._box], frame.size_hw)
        canvas = tiles.outlined(self.review.image(*self.key[:2]), region, EDITOR, {"ros-sam": mask})
        self.editor.region, self.editor.image = [int(side) for side in region], tiles.png(canvas)
        self._show_prompt()
        name = f"{self.slider.value + 1} of {len(self._keys)} · {frame.key} #{record.object_id} {record.category}"
        state = f" <b style='color:{COLOURS[verdict]}'>{verdict or 'undecided'}</b>"
        self.title.value = escape(name) + state
        self.words.value = escape(row["looks"] or "nothing stands out")
        self.counts.value = escape(self.summary())

    def _show_prompt(self) -> None:
        """Bring the editor to the present box, which is no edit of it."""
        with self._silence():
            self.editor.prompt = {"box": [round(float(side), 2) for side in self._box], "points": []}

    def summary(self) -> str:
        """How many masks have which decision and, of a sample, the share that is usable."""
        verdicts = [self.review.verdict(key) for key in self._keys]
        text = ", ".join(f"{verdicts.count(name)} {name or 'undecided'}" for name in COLOURS)
        if "stratum" not in self.rows:
            return text
        usable = usable_share(self.rows, self.review.decisions.latest)
        if pd.isna(usable.share):
            return f"{text}; the usable share is shown when each stratum has a decision"
        return f"{text}; usable {usable.share:.0%} of all masks (95% interval {usable.low:.0%} to {usable.high:.0%})"
