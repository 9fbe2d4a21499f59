"""Figures made of images: frames with annotations, masks side by side, windows cut from a frame.

White outlines are ground truth, dashed rectangles prompts.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from rossam_core.errors import RossamError
from rossam_core.inference import windows
from rossam_kit.convert.outlines import outlines
from rossam_kit.report.labels import label
from rossam_kit.report.objects import ObjectView
from rossam_kit.report.style import BASE, COLOURS, MUTED, SMALL, TARGET, WIDTH, Figure, colour, need, styled

if TYPE_CHECKING:
    from rossam_core.records import Frame
    from rossam_core.settings import InferenceConfig
    from rossam_core.training.augment import AugmentedView


@styled
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
                    _draw_box(ax, annotation.box_xyxy, width=0.8)
            title = f"{frame.video}\nframe {frame.index}, {_count(len(frame.objects), 'object')}"
            _text(figure, left, top + height + 0.05, title, fontsize=SMALL)
            left += height * aspect + gap
        top += height + caption
    return figure


def mask_comparison(objects: Sequence[ObjectView], methods: Sequence[str] | None = None) -> Figure:
    """Columns of objects, rows of methods: outlines over enlarged crops, IoU (percent) under each (paper Fig. 6, 10).

    Args:
        objects: as `objects.view_objects` gives them; choose them by rule, e.g. `objects.quantile_rows`.
        methods: rows to show; None for all of the first object's.
    """
    return filmstrip(objects, [f"{v.category}\n{v.area:,} px²" if v.area else v.category for v in objects], methods)


@styled
def filmstrip(views: Sequence[ObjectView], titles: Sequence[str], methods: Sequence[str] | None = None) -> Figure:
    """`mask_comparison` with other titles, e.g. one object over time from left to right (paper Fig. 8, 11)."""
    need(views, "mask figure", "objects")
    methods = list(methods if methods is not None else views[0].masks)
    for view in views:
        if absent := [m for m in methods if m not in view.masks]:
            remedy = "predict it with all methods"
            raise RossamError(f"object {view.key}", f"has no mask of {', '.join(absent)}", remedy)
    rows = ([TARGET] if any(v.target is not None for v in views) else []) + methods
    margin, head, gap, caption = 1.5, 0.5, 0.08, 0.24  # inches
    cell = min(1.9, (WIDTH - margin) / len(views) - gap)
    width, height = margin + len(views) * (cell + gap), head + len(rows) * (cell + caption + gap)
    figure = Figure(figsize=(width, height))
    lefts = [margin + c * (cell + gap) for c in range(len(views))]
    for x, title in zip(lefts, titles, strict=True):
        _text(figure, x + cell / 2, head - 0.08, title, ha="center", va="bottom", fontsize=SMALL)
    for r, name in enumerate(rows):
        y = head + r * (cell + caption + gap)
        _text(figure, 0, y + cell / 2, textwrap.fill(label(name), 14), fontsize=BASE, weight="bold", va="center")
        if name != TARGET:
            corner = (margin - 0.12) / width, 1 - (y + cell) / height
            figure.add_artist(Rectangle(corner, 0.06 / width, cell / height, color=colour(name), linewidth=0))
        for x, view in zip(lefts, views, strict=True):
            tall, wide = (length * cell / max(view.image.shape[:2]) for length in view.image.shape[:2])
            ax = _image_axes(figure, (x + (cell - wide) / 2, y + (cell - tall) / 2, wide, tall), view.image, "lanczos")
            if r == 0:
                _draw_box(ax, view.box_xyxy, width=0.9)
            mask = view.target if name == TARGET else view.masks[name]
            if mask is not None:
                draw_mask(ax, mask, colour(name))
            if name in view.iou:
                score = f"IoU {100 * view.iou[name]:.1f}"
                _text(figure, x + cell / 2, y + cell + 0.05, score, ha="center", fontsize=SMALL)
    return figure


@styled
def crop_strategies(frame: Frame, ways: Mapping[str, InferenceConfig], input_size: int) -> Figure:
    """What each way of cutting windows makes of one frame: windows above, the model's input of its first box below."""
    need(ways, "crop strategies", "strategies")
    boxes, image = frame.boxes_xyxy, frame.image()
    cell = min(WIDTH / len(ways), 3.6)
    side = cell - 0.15
    frame_height = side * min(image.shape[0] / image.shape[1], 1.2)
    figure = Figure(figsize=(cell * len(ways), frame_height + side + 1.5))
    for i, (name, config) in enumerate(ways.items()):
        left, plans = i * cell + 0.075, windows.plan(boxes, frame.size_hw, input_size, config)
        shown = next(plan for plan in plans if 0 in plan.indices)
        top = _image_axes(figure, (left, 0.55, side, frame_height), image)
        for box in boxes:
            _draw_box(top, box, width=0.7)
        for plan in plans:
            width = 2.2 if plan is shown else 0.9
            _draw_box(top, plan.window_xyxy, COLOURS["hq-sam"], width, dashed=False, halo=plan is shown)
        _text(figure, left, 0.08, name, fontsize=11, weight="bold")
        count = f"{_count(len(plans), 'window')} for {_count(len(boxes), 'box', 'boxes')}"
        _text(figure, left, 0.32, count, fontsize=SMALL, color=MUTED)

        seen = np.asarray(windows.cut(image, shown, input_size, config), dtype=np.uint8)
        below, box = _image_axes(figure, (left, frame_height + 0.75, side, side), seen), shown.to_input(boxes[:1])[0]
        _draw_box(below, box, width=1.2)
        across, down = (box[2:] - box[:2]) / 16
        note = (
            f"{shown.width} × {shown.height} px seen as {input_size} × {input_size}\n"
            f"object: {across:.1f} × {down:.1f} patches of 16 px"
        )
        _text(figure, left, frame_height + side + 0.85, note, fontsize=SMALL, linespacing=1.5)
    return figure


@styled
def view_grid(rows: Sequence[Sequence[AugmentedView]]) -> Figure:
    """Training views with their masks, one row per frame, the scale and the turn of each above it (paper Fig. 9)."""
    need(rows, "view grid", "rows of views")
    cell, head, gap = WIDTH / max(len(row) for row in rows), 0.22, 0.06
    figure = Figure(figsize=(WIDTH, len(rows) * (cell + head)))
    for r, row in enumerate(rows):
        for c, view in enumerate(row):
            x, y = c * cell + gap, r * (cell + head) + head
            ax = _image_axes(figure, (x, y, cell - 2 * gap, cell - 2 * gap), view.image.clip(0, 255).astype(np.uint8))
            for mask in view.masks:
                draw_mask(ax, mask, "#ffffff", width=1.0, fill=0)
            (a, _, _), (b, _, _) = view.matrix
            title = f"×{np.hypot(a, b):.2f}, {np.degrees(np.arctan2(b, a)) % 360:.0f}°"
            _text(figure, x, y - 0.04, title, fontsize=SMALL, va="bottom")
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


def _draw_box(ax: Axes, box_xyxy: Sequence[float], colour: str = "#ffffff", width: float = 1.0, *, dashed: bool = True,
              halo: bool = True) -> None:  # fmt: skip
    """Draw a box given in pixel-edge coordinates."""
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    shape = {"xy": (x0, y0), "width": x1 - x0, "height": y1 - y0, "facecolor": "none"}
    if halo:
        ax.add_patch(Rectangle(**shape, edgecolor="#000000", linewidth=width + 1.0, alpha=0.45))
    ax.add_patch(Rectangle(**shape, edgecolor=colour, linewidth=width, linestyle=(0, (3, 2)) if dashed else "-"))


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


def _text(figure: Figure, x: float, y: float, text: str, va: str = "top", **style) -> None:
    """Text at a place in inches from the figure's top left."""
    figure.text(x / figure.get_figwidth(), 1 - y / figure.get_figheight(), text, va=va, parse_math=False, **style)


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
