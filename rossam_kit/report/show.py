"""What notebooks display: figures, tables and an object viewer, each with a caption and a line that says what made it.

Every function displays its output in the running notebook, as HTML that needs no network, and writes no file: only
`rossam run` puts executed notebooks into a report. `begin` comes first; it names the notebook and its settings.
"""

from __future__ import annotations

import base64
import io
import json
import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from IPython.display import display
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from rossam_core.errors import RossamError
from rossam_kit.config import Profile
from rossam_kit.convert.outlines import outline_path
from rossam_kit.report.labels import LABELS
from rossam_kit.report.objects import ObjectView
from rossam_kit.report.provenance import commit
from rossam_kit.report.rendering import Table
from rossam_kit.report.style import COLOURS, MUTED

ASSETS = Path(__file__).parent / "assets"
FRONT = ("", "hero", "ledger", "table")
"""Places on the front page of the report that an output may take; of several the last notebook's is shown."""
DPI, PHOTO_DPI, JPEG_QUALITY = 160, 144, 80


class Context(NamedTuple):
    """What stands under every output: the profile's notice, and what made the output."""

    notice: str = ""
    source: str = ""


_context = Context()


def begin(notebook: str, settings: Profile, overrides: Mapping[str, Any] | None = None) -> None:
    """Set what is written under all outputs of this notebook, and load the style and script they share.

    Args:
        notebook: its name, e.g. `02_inference_pipeline`.
        overrides: settings that differ from the profile's; they are named under every output.
    """
    global _context
    changes = ", ".join(f"{key} = {value}" for key, value in (overrides or {}).items())
    revision, _, uncommitted = commit().partition(" ")
    parts = [f"Notebook {notebook}", f"profile {settings.name}", f"changed settings: {changes or 'none'}",
             f"commit {revision[:10]} {uncommitted}".strip(), time.strftime("run of %Y-%m-%d")]  # fmt: skip
    _context = Context(settings.notice, "; ".join(parts))
    _display(assets(), "style and script of the outputs")


def figure(figure: Figure, caption: str, *, alt: str, front: str = "", measured: bool = True) -> None:
    """Display a figure with the profile's notice in the picture.

    A figure that holds images becomes JPEG, any other PNG.

    Args:
        caption: one line of Markdown.
        alt: describes the figure for readers who cannot see it.
        front: place on the report's front page, one of `FRONT`.
        measured: False for drawings, which the notice is not about.
    """
    if not alt.strip():
        raise RossamError(f"figure {caption!r}", "has no alternative text", "describe in `alt` what the figure shows")
    notice = _context.notice if measured else ""
    _stamp(figure, notice)
    has_images = any(ax.images for ax in figure.axes)
    kind, dpi = ("jpeg", PHOTO_DPI) if has_images else ("png", DPI)
    options = {"pil_kwargs": {"quality": JPEG_QUALITY, "subsampling": 0, "optimize": True}} if has_images else {}
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=dpi, bbox_inches="tight", pad_inches=0.08, facecolor="white", **options)
    height, width = cv2.imdecode(np.frombuffer(stream.getvalue(), np.uint8), cv2.IMREAD_COLOR).shape[:2]
    picture = (
        f'<div class="rossam-scroll"><img src="{_data_uri(f"image/{kind}", stream.getvalue())}" alt="{escape(alt)}" '
        f'width="{round(width * 100 / dpi)}" height="{round(height * 100 / dpi)}"></div>'
    )
    _display(_framed("figure", picture, caption, notice), caption, front)


def table(data: pd.DataFrame | Table, caption: str, *, front: str = "", measured: bool = True, **options: Any) -> None:
    """Display a table that sorts by a click on a heading and downloads as CSV.

    Args:
        measured: False for settings and the like, which the profile's notice is not about.
        options: `labels`, `decimals`, `missing` of `Table.from_frame`, where `data` is a DataFrame.
    """
    shown = data if isinstance(data, Table) else Table.from_frame(data, **options)
    shown = shown.with_notice(_context.notice if measured else "")
    name = f"{re.sub(r'[^a-z0-9]+', '-', caption.lower()).strip('-')[:60] or 'table'}.csv"
    link = f'<a download="{name}" href="{_data_uri("text/csv", shown.to_csv().encode())}">Download as CSV</a>'
    _display(_framed("table", f"{shown.to_html()}\n<p>{link}</p>", caption), caption, front)


def viewer(objects: Sequence[ObjectView], caption: str) -> None:
    """Display an object viewer: a slider over objects, outlines of each method switched on and off, sorting, filters.

    One object takes 10 to 40 kB.
    """
    if not objects:
        raise RossamError(f"viewer {caption!r}", "was given no objects", "pass at least one ObjectView")
    data = {"objects": [_viewer_record(view) for view in objects], "colours": COLOURS, "labels": LABELS}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    body = f'<rossam-viewer tabindex="0"><script type="application/json">{text}</script></rossam-viewer>'
    _display(_framed("viewer", body, caption, _context.notice), caption)


def text(markdown: str) -> None:
    """Display a paragraph of Markdown, e.g. a sentence made from the data."""
    display({"text/markdown": markdown, "text/plain": markdown}, raw=True)


def page(path: Path, caption: str) -> None:
    """Display a link to a self-contained HTML file; a report takes a copy of it."""
    html = f'<p><a href="{Path(path).absolute().as_uri()}">{_inline(caption)}</a></p>'
    _display(html, f"{caption}: {path}", attach=str(path))


def assets() -> str:
    """Style and script that all outputs share."""
    css, js = ((ASSETS / name).read_text(encoding="utf-8") for name in ("show.css", "show.js"))
    return f"<style>{css}</style><script>{js}</script>"


def _display(html: str, plain: str, front: str = "", **about: str) -> None:
    if front not in FRONT:
        raise RossamError(f"front {front!r}", "is no place on the front page", f"use one of {', '.join(FRONT[1:])}")
    about |= {"front": front} if front else {}
    display({"text/html": html, "text/plain": plain}, metadata={"rossam": about} if about else {}, raw=True)


def _framed(kind: str, body: str, caption: str, notice: str = "") -> str:
    """A figure element: caption, content, the notice (a table has its own), and what made it."""
    notice = f'<p class="rossam-notice">{escape(notice)}</p>' if notice else ""
    source = f'<p class="rossam-source">{escape(_context.source)}</p>' if _context.source else ""
    head = f"<figcaption>{_inline(caption)}</figcaption>"
    return f'<figure class="rossam rossam-{kind}">\n{head}\n{body}\n{notice}{source}\n</figure>'


def _viewer_record(view: ObjectView) -> dict[str, Any]:
    height, width = view.image.shape[:2]
    crop = cv2.imencode(".png", view.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    return {
        "key": view.key,
        "category": view.category,
        "area": view.area,
        "image": _data_uri("image/png", crop),
        "size": [width, height],
        "box": [round(float(v), 2) for v in view.box_xyxy],
        "target": None if view.target is None else outline_path(view.target),
        "masks": {method: outline_path(mask) for method, mask in view.masks.items()},
        "iou": {method: round(float(v), 4) for method, v in view.iou.items() if np.isfinite(v)},
        "biou": {method: round(float(v), 4) for method, v in view.biou.items() if np.isfinite(v)},
    }


def _stamp(figure: Figure, notice: str) -> None:
    """Write the notice below the figure, so that it stays with the picture when that is copied elsewhere."""
    if not notice or any(text.get_gid() == "notice" for text in figure.texts):
        return
    lines = textwrap.fill(notice, int(figure.get_figwidth() / 0.063))  # inches a character of this size
    figure.text(0.01, -0.12 / figure.get_figheight(), lines, fontsize=8, color=MUTED, va="top", gid="notice")


def _inline(markdown: str) -> str:
    """One line of Markdown as HTML; HTML in it is escaped."""
    return MarkdownIt("commonmark", {"html": False}).disable("image").renderInline(markdown)


def _data_uri(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"
