"""How every figure looks: one colour per method, one set of matplotlib settings, and a `Figure`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure as MatplotlibFigure

from rossam_core.errors import RossamError
from rossam_kit.report.labels import LABELS

# Distinguishable under deuteranopia, protanopia and tritanopia: CIE76 distance of any two models is at least 27.
COLOURS = {
    "box": "#a8a8a8",
    "ellipse": "#7d7d7d",
    "grabcut": "#525252",
    "sam": "#2f7fd6",
    "sam2": "#8fd3f4",
    "sam3": "#173f6f",
    "hq-sam": "#f2b01e",
    "ros-sam": "#d5412a",
}
TARGET = "ground truth"
OTHER = "#3c4a57"
LINES = ["#2f7fd6", "#d5412a", "#f2b01e", "#2b7a6b", "#6f5aa8", "#8fd3f4", "#3c4a57", "#b3611f", "#a8a8a8"]
"""Colours of lines that are no methods."""
INK, MUTED, RULE = "#1f2328", "#6a737d", "#d0d7de"
WIDTH = 11.0
"""Inches; the report shows them on 870 CSS pixels or more."""
SMALL, BASE = 9.0, 10.0
SETTINGS = {
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), BASE),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), RULE),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 3),
    **dict.fromkeys(("legend.handlelength", "legend.columnspacing"), 1.6),
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "grid.linewidth": 0.6,
    "legend.fontsize": SMALL,
    "legend.labelcolor": INK,
}
styled = matplotlib.rc_context(SETTINGS)
"""Decorator of functions that draw: these settings hold inside the function only."""


class Figure(MatplotlibFigure):
    """A matplotlib figure that notebooks display by itself, without pyplot and its list of open figures."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=100, bbox_inches="tight", facecolor="white")
        return stream.getvalue()


def colour(method: str) -> str:
    """The colour of a method, or of a row whose label begins with a method's name; other names share one neutral."""
    if method == TARGET:
        return "#ffffff"
    kinds = {name: kind for kind, name in LABELS.items()}
    return COLOURS.get(method) or COLOURS.get(kinds.get(method.split(",")[0], ""), OTHER)


def need(items: Sequence | Mapping, where: str, what: str) -> None:
    """Raise `RossamError` where a figure was given nothing to draw."""
    if not len(items):
        raise RossamError(where, f"was given no {what}", f"pass at least one of the {what}")
