"""Curves that grow in the notebook while a network trains.

In: events of a run (`training.runs.OnEvent`). Out: one picture under the cell, drawn again every few seconds. Under the
runner nobody watches, and nothing is drawn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import pandas as pd
from IPython.display import DisplayHandle, display

from ..progress import VARIABLE
from .plots import training_curves


class LiveCurves:
    """Give it to `Experiments.on_event`; a run that starts anew starts a new picture.

    Args:
        every: seconds between two drawings.
    """

    def __init__(self, every: float = 4.0):
        self.every, self._rows, self._drawn = every, [], 0.0
        self._handle: DisplayHandle | None = None

    def __call__(self, kind: str, row: Mapping[str, Any]) -> None:
        if os.environ.get(VARIABLE) or kind not in ("step", "validation"):
            return
        if self._rows and row["step"] < self._rows[-1]["step"]:
            self._rows, self._handle = [], None
        self._rows.append(row)
        if kind == "validation" or time.monotonic() - self._drawn > self.every:
            self._drawn = time.monotonic()
            figure = training_curves({"this run": pd.DataFrame(self._rows)})
            if self._handle is None:
                self._handle = display(figure, display_id=True)
            else:
                self._handle.update(figure)
