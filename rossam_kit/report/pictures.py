"""Figures made of images: frames with annotations, masks side by side, windows cut from a frame.

In: arrays, frames, `ObjectView`s. Out: a `Figure`. White outlines are ground truth, dashed rectangles prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from rossam_core.errors import RossamError
from rossam_kit.convert.outlines import outlines
from rossam_kit.report.objects import ObjectView
from rossam_kit.report.style import BASE, COLOURS, INK, MUTED, SMALL, TARGET, WIDTH, Figure, colour, label, need

if TYPE_CHECKING:
    from rossam_core.records import Frame
    from rossam_core.training.augment import Sample


class Strategy(NamedTuple):
    """One way to cut windows out of a frame, for `crop_strategies`.

    Attributes:
        windows_xyxy: K×4, frame pixels.
        shown: which window's input is shown.
        input_image: uint8 S×S×3 RGB, that window as the model sees it.
        input_box_xyxy: the object of interest in that input, input pixels.
    """

    windows_xyxy: np.ndarray
    shown: int
    input_image: np.ndarray
    input_box_xyxy: Sequence[float]


def contact_sheet(frames: Sequence[Frame]) -> Figure:
    """Frames side by side with their annotations: outlines of masks, dashed boxes where there is no mask.

    The frames of a row share their height, so that a row of any shapes fills the width.
    """
    need(frames, "contact sheet", "frames")
    gap, caption, tallest = 0.1, 0.42, 4.0
    rows = [frames[start : start + 3] for start in range(0, len(frames), 3)]
    aspects = [[frame.size_hw[1] / frame.size_hw[0] for frame in row] for row in rows]
    heights = [min(tallest, (WIDTH - gap * (len(row) - 1)) / sum(row)) for row in aspects]
    figure = Figure(figsize=(WIDTH, sum(heights) + caption * len(rows)))
    top = 0.0
    for row, shapes, height in zip(rows, aspects, heights, strict=True):
        left = 0.0
        for frame, aspect in zip(row, shapes, strict=True):
            ax = _image_axes(figure, (left, top, height * aspect, height), frame.image())
            for annotation in frame.objects:
                if annotation.has_mask:
                    draw_mask(ax, annotation.mask(frame.size_hw), "#ffffff", width=0.9, fill=0)
                else:
                    draw_box(ax, annotation.box_xyxy, width=0.8)
            title = f"{frame.video}\nframe {frame.index}, {_count(len(frame.objects), 'object')}"
            where = left / WIDTH, _up(figure, top + height + 0.05)
            figure.text(*where, title, va="top", fontsize=SMALL, color=INK)
            left += height * aspect + gap
        top += height + caption
    return figure


def mask_comparison(objects: Sequence[ObjectView], methods: Sequence[str] | None = None) -> Figure:
    """Columns of objects, rows of methods: outlines over enlarged crops, IoU (percent) under each (paper Fig. 6, 10).

    Args:
        objects: as `objects.view_objects` gives them; choose them by rule, e.g. `objects.quantile_rows`.
        methods: rows to show; None for all of the first object's.
    """
    titles = [f"{v.category}\n{v.area:,} px²" if v.area else v.category for v in objects]
    return _object_grid(objects, methods, titles)


def filmstrip(views: Sequence[ObjectView], titles: Sequence[str]) -> Figure:
    """One object over time, from left to right, a row a method (paper Fig. 8, 11). `titles`: one a view."""
    return _object_grid(views, None, titles)


def crop_strategies(image: np.ndarray, boxes_xyxy: np.ndarray, strategies: Mapping[str, Strategy]) -> Figure:
    """What each way of cutting windows makes of one frame: windows above, the model's input below.

    Args:
        image: uint8 H×W×3 RGB.
        boxes_xyxy: N×4 prompts, frame pixels.
        strategies: name → `Strategy`.
    """
    need(strategies, "crop strategies", "strategies")
    n = len(strategies)
    cell = min(WIDTH / n, 3.6)
    side = cell - 0.15
    frame_height = side * min(image.shape[0] / image.shape[1], 1.2)
    figure = Figure(figsize=(cell * n, frame_height + side + 1.5))
    for i, (name, strategy) in enumerate(strategies.items()):
        windows = np.asarray(strategy.windows_xyxy, dtype=float).reshape(-1, 4)
        left = i * cell + 0.075
        top = _image_axes(figure, (left, 0.55, side, frame_height), image)
        for box in np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4):
            draw_box(top, box, width=0.7)
        for k, window in enumerate(windows):
            chosen = k == strategy.shown
            draw_box(top, window, COLOURS["hq-sam"], 2.2 if chosen else 0.9, dashed=False, halo=chosen)
        count = f"{_count(len(windows), 'window')} for {_count(len(boxes_xyxy), 'box', 'boxes')}"
        figure.text(left / (cell * n), _up(figure, 0.08), name, fontsize=11, weight="bold", va="top", color=INK)
        figure.text(left / (cell * n), _up(figure, 0.32), count, fontsize=SMALL, va="top", color=MUTED)

        below = _image_axes(figure, (left, frame_height + 0.75, side, side), strategy.input_image)
        x0, y0, x1, y1 = (float(v) for v in strategy.input_box_xyxy)
        draw_box(below, (x0, y0, x1, y1), width=1.2)
        size = strategy.input_image.shape[0]
        window = windows[strategy.shown]
        note = (
            f"{window[2] - window[0]:.0f} × {window[3] - window[1]:.0f} px seen as {size} × {size}\n"
            f"object: {(x1 - x0) / 16:.1f} × {(y1 - y0) / 16:.1f} patches of 16 px"
        )
        note_y = _up(figure, frame_height + side + 0.85)
        figure.text(left / (cell * n), note_y, note, fontsize=SMALL, va="top", color=INK, linespacing=1.5)
    return figure


def view_grid(rows: Sequence[Sequence[Sample]]) -> Figure:
    """Training views with their masks, a row a frame, the scale and the turn of each above it (paper Fig. 9)."""
    need(rows, "view grid", "rows of views")
    columns = max(len(row) for row in rows)
    cell, head, gap = WIDTH / columns, 0.22, 0.06
    figure = Figure(figsize=(WIDTH, len(rows) * (cell + head)))
    for r, row in enumerate(rows):
        for c, view in enumerate(row):
            x, y = c * cell + gap, r * (cell + head) + head
            ax = _image_axes(figure, (x, y, cell - 2 * gap, cell - 2 * gap), view.image.clip(0, 255).astype(np.uint8))
            for mask in view.masks:
                draw_mask(ax, mask, "#ffffff", width=1.0, fill=0.0)
            (a, _, _), (b, _, _) = view.matrix
            title = f"×{np.hypot(a, b):.2f}, {np.degrees(np.arctan2(b, a)) % 360:.0f}°"
            where = x / figure.get_figwidth(), _up(figure, y - 0.04)
            figure.text(*where, title, fontsize=SMALL, color=INK, va="bottom")
    return figure


def draw_mask(ax: Axes, mask: np.ndarray, colour: str, *, width: float = 1.6, fill: float = 0.12) -> None:
    """Outline a bool mask along its pixels' edges, with a thin dark halo, on axes in pixel-edge coordinates."""
    loops = outlines(mask)
    if not loops:
        return
    points = np.concatenate([np.vstack([loop, loop[:1]]) for loop in loops])
    codes = np.concatenate([[Path.MOVETO] + [Path.LINETO] * (len(loop) - 1) + [Path.CLOSEPOLY] for loop in loops])
    path = Path(points, codes)
    if fill:
        ax.add_patch(PathPatch(path, facecolor=colour, edgecolor="none", alpha=fill))
    halo = [patheffects.Stroke(linewidth=width + 1.3, foreground="#000000", alpha=0.55), patheffects.Normal()]
    ax.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, linewidth=width, path_effects=halo))


def draw_box(
    ax: Axes,
    box_xyxy: Sequence[float],
    colour: str = "#ffffff",
    width: float = 1.0,
    *,
    dashed: bool = True,
    halo: bool = True,
) -> None:
    """Draw a box given in pixel-edge coordinates."""
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    shape = {"xy": (x0, y0), "width": x1 - x0, "height": y1 - y0, "facecolor": "none"}
    if halo:
        ax.add_patch(Rectangle(**shape, edgecolor="#000000", linewidth=width + 1.0, alpha=0.45))
    ax.add_patch(Rectangle(**shape, edgecolor=colour, linewidth=width, linestyle=(0, (3, 2)) if dashed else "-"))


def _object_grid(views: Sequence[ObjectView], methods: Sequence[str] | None, titles: Sequence[str]) -> Figure:
    """Rows of methods, ground truth first, columns of objects; sizes in inches."""
    need(views, "mask figure", "objects")
    methods = list(methods if methods is not None else views[0].masks)
    for view in views:
        if absent := [m for m in methods if m not in view.masks]:
            raise RossamError(
                f"object {view.key}", f"has no mask of {', '.join(absent)}", "predict it with all methods"
            )
    rows = ([TARGET] if any(v.target is not None for v in views) else []) + methods
    margin, head, gap, caption = 1.5, 0.5, 0.08, 0.24
    cell = min(1.9, (WIDTH - margin) / len(views) - gap)
    width, height = margin + len(views) * (cell + gap), head + len(rows) * (cell + caption + gap)
    figure = Figure(figsize=(width, height))
    for c, title in enumerate(titles):
        x = margin + c * (cell + gap) + cell / 2
        figure.text(x / width, _up(figure, head - 0.08), title, ha="center", va="bottom", fontsize=SMALL, color=INK)
    for r, name in enumerate(rows):
        y = head + r * (cell + caption + gap)
        figure.text(0, _up(figure, y + cell / 2), label(name), fontsize=BASE, weight="bold", va="center", color=INK)
        if name != TARGET:
            corner = (margin - 0.12) / width, _up(figure, y + cell)
            figure.add_artist(Rectangle(corner, 0.06 / width, cell / height, color=colour(name), linewidth=0))
        for c, view in enumerate(views):
            _object_cell(figure, view, name, (margin + c * (cell + gap), y), cell, prompt=r == 0)
    return figure


def _object_cell(
    figure: Figure,
    view: ObjectView,
    name: str,
    corner: tuple[float, float],
    side: float,
    prompt: bool,
) -> None:
    """One object with one mask in a square of `side` inches, its IoU below."""
    height, width = (length * side / max(view.image.shape[:2]) for length in view.image.shape[:2])
    x, y = corner
    place = (x + (side - width) / 2, y + (side - height) / 2, width, height)
    ax = _image_axes(figure, place, view.image, "lanczos")
    if prompt:
        draw_box(ax, view.box_xyxy, width=0.9)
    mask = view.target if name == TARGET else view.masks[name]
    if mask is not None:
        draw_mask(ax, mask, colour(name))
    if name in view.iou:
        text = f"IoU {100 * view.iou[name]:.1f}"
        where = (x + side / 2) / figure.get_figwidth(), _up(figure, y + side + 0.05)
        figure.text(*where, text, ha="center", va="top", fontsize=SMALL, color=INK)


def _image_axes(
    figure: Figure, place: tuple[float, float, float, float], image: np.ndarray, interpolation: str = "antialiased"
) -> Axes:
    """Axes without decoration, placed in inches from the figure's top left, in the image's pixel-edge coordinates."""
    x, y, width, height = place
    total_width, total_height = figure.get_size_inches()
    ax = figure.add_axes((x / total_width, 1 - (y + height) / total_height, width / total_width, height / total_height))
    ax.imshow(image, extent=(0, image.shape[1], image.shape[0], 0), interpolation=interpolation, aspect="equal")
    ax.set_axis_off()
    return ax


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _up(figure: Figure, inches_from_top: float) -> float:
    return 1 - inches_from_top / figure.get_figheight()
