"""The report: each notebook leaves a part behind, and all parts together become one page that opens from disk.

In: tables, figures, prose and object views from notebooks. Out: `<report>/parts/<notebook>/part.json` with its
images beside it, and `<report>/index.html`, which needs nothing outside its folder: no network, no kernel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import mistune
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from rossam_core.errors import RossamError
from rossam_core.files import atomic_path, read_json, write_bytes, write_text
from rossam_kit.config import Profile
from rossam_kit.convert.outlines import outline_path
from rossam_kit.report.objects import ObjectView
from rossam_kit.report.style import COLOURS, LABELS, MUTED
from rossam_kit.report.tables import Table

FORMAT = 1
DPI, PHOTO_DPI = 160, 144


class Part:
    """What one notebook contributes to the report.

    Every call writes to disk at once, so a notebook needs no closing step. Making a `Part` starts the notebook's
    part anew and leaves all others alone; a key used again replaces what it named.

    Args:
        report_dir: the profile's report folder.
        notebook: its name, e.g. `02_inference_pipeline`; parts appear in the order of these names.
        title, intro: heading and opening paragraphs (Markdown).
        notice: what everything here was measured on (`Profile.notice`); it stands under every table and figure.
    """

    def __init__(self, report_dir: str | Path, notebook: str, title: str, intro: str = "", notice: str = ""):
        self.folder = Path(report_dir) / "parts" / _slug(notebook, "notebook")
        self.notice = notice
        self._items: dict[str, dict[str, Any]] = {}
        self._head = {"format": FORMAT, "notebook": notebook, "title": title, "intro": intro, "notice": notice}
        self._write()

    def text(self, markdown: str) -> None:
        """Prose between tables and figures (Markdown; HTML in it is shown, not interpreted)."""
        self._put(f"text {markdown}", {"kind": "text", "markdown": markdown})

    def table(self, key: str, data: pd.DataFrame | Table, caption: str = "", **options) -> Table:
        """Add a table, and a CSV file of it; returns it, under the part's notice, for the notebook to display.

        `options` go to `Table.from_frame` (labels, decimals, missing) when `data` is a DataFrame.
        """
        table = (data if isinstance(data, Table) else Table.from_frame(data, **options)).with_notice(self.notice)
        name = f"{_slug(key, 'table key')}.csv"
        write_text(self.folder / name, table.to_csv())
        self._put(f"table {key}", {"kind": "table", "table": table.to_json(), "file": name, "caption": caption})
        return table

    def figure(self, key: str, figure: Figure, caption: str, alt: str, *, hero: bool = False) -> Figure:
        """Save a figure with the notice in it and return it for the notebook to display; nothing is closed.

        Figures that hold images become JPEG (quality 80, full chroma), all others PNG.

        Args:
            alt: what a reader who cannot see it should know.
            hero: show it at the top of the report too; the last notebook's hero wins.
        """
        if not alt.strip():
            raise RossamError(f"figure {key}", "has no alternative text", "say in `alt` what the figure shows")
        has_images = any(ax.images for ax in figure.axes)
        name = _slug(key, "figure key") + (".jpg" if has_images else ".png")
        options = {"pil_kwargs": {"quality": 80, "subsampling": 0, "optimize": True}} if has_images else {}
        dpi = PHOTO_DPI if has_images else DPI
        _stamp(figure, self.notice)
        with atomic_path(self.folder / name) as temporary:
            figure.savefig(temporary, dpi=dpi, bbox_inches="tight", pad_inches=0.08, facecolor="white", **options)
            height, width = cv2.imread(str(temporary)).shape[:2]
        item = {"kind": "figure", "file": name, "caption": caption, "alt": alt, "hero": hero}
        self._put(f"figure {key}", item | {"width": round(width * 100 / dpi), "height": round(height * 100 / dpi)})
        return figure

    def viewer(self, key: str, objects: Sequence[ObjectView], caption: str = "") -> None:
        """An object viewer: a slider over objects, masks of each method switched on and off, sorting, filters.

        An object costs about 10 to 40 kB (its crop as PNG, outlines as vectors); a few hundred are well.
        """
        if not objects:
            raise RossamError(f"viewer {key}", "was given no objects", "pass at least one ObjectView")
        slug = _slug(key, "viewer key")
        records = []
        for i, view in enumerate(objects):
            name = f"{slug}-{i:04d}.png"
            crop = cv2.imencode(".png", view.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
            write_bytes(self.folder / name, crop.tobytes())
            records.append(_viewer_record(view, name))
        self._put(f"viewer {key}", {"kind": "viewer", "objects": records, "caption": caption})

    def provenance(self, values: Mapping[str, Any]) -> None:
        """Where numbers come from (commit, versions, hardware, seeds, hashes, hours, peak memory).

        Args:
            values: name → value, list of values, or a mapping of such. All notebooks' entries make one section of
                the report; a name that comes twice keeps the later notebook's value.
        """
        self._put("provenance", {"kind": "provenance", "values": json.loads(json.dumps(values, default=str))})

    def _put(self, key: str, item: dict[str, Any]) -> None:
        self._items[key] = item | {"key": key}
        self._write()

    def _write(self) -> None:
        part = self._head | {"items": list(self._items.values())}
        write_text(self.folder / "part.json", json.dumps(part, ensure_ascii=False))  # keys keep their order


def read_parts(report_dir: str | Path) -> list[dict[str, Any]]:
    """All parts of a report, sorted by notebook name; a broken one is a `RossamError` that names it."""
    parts = []
    for path in sorted(Path(report_dir).glob("parts/*/part.json")):
        part = read_json(path)
        if not isinstance(part, dict) or part.get("format") != FORMAT:
            raise RossamError(path, "was written by another version of this kit", "run that notebook again")
        parts.append(part | {"folder": path.parent.relative_to(report_dir).as_posix()})
    return parts


def build_report(
    report_dir: str | Path,
    profile: Profile,
    provenance: Mapping[str, Any] | None = None,
    *,
    failed: Sequence[str] = (),
) -> Path:
    """Write `index.html` from all parts found, and remove files in them that no part names any more.

    Args:
        report_dir: holds `parts/`, and `notebooks/<name>.html` where executed notebooks were exported.
        profile: gives title, notice, and the notebooks to expect; those without a part are named as not run.
        provenance: as in `Part.provenance`, over what the notebooks gave.
        failed: notebooks whose last run failed; the page says so, since their sections may be incomplete.

    Returns:
        The path of `index.html`.
    """
    report_dir = Path(report_dir)
    parts = read_parts(report_dir)
    sections, hero, sources = [], None, {}
    for part in sorted(parts, key=_page_order):
        _prune(report_dir / part["folder"], part["items"])
        woven = _with_prose(part["items"], report_dir / "notebooks" / f"{part['notebook']}.ipynb")
        items = [_page_item(item, part, i) for i, item in enumerate(woven)]
        hero = next((item for item in reversed(items) if item.get("hero")), hero)
        for item in items:
            sources |= item.get("values", {})
        notebook = f"notebooks/{part['notebook']}.html"
        sections.append(
            {
                "id": part["notebook"],
                "number": _number(part["notebook"]),
                "title": part["title"],
                "intro": markdown(part["intro"]),
                "items": [item for item in items if item["kind"] != "provenance"],
                "notebook": notebook if (report_dir / notebook).exists() else None,
            }
        )
    done = {part["notebook"] for part in parts}
    page = (
        _environment()
        .get_template("report.html")
        .render(
            profile=profile,
            hero=hero,
            sections=sections,
            absent=[name for name in profile.notebooks if name not in done and name not in failed],
            failed=failed,
            provenance=sources | dict(provenance or {}),
            colours=COLOURS,
            labels=LABELS,
        )
    )
    write_text(report_dir / "index.html", page)
    return report_dir / "index.html"


def _page_order(part: Mapping[str, Any]) -> tuple[int, str]:
    """The summary first, for readers with a minute; the set-up last; the rest in the notebooks' order."""
    return {"11_summary": 0, "00_setup": 2}.get(part["notebook"], 1), part["notebook"]


def _with_prose(items: Sequence[Mapping[str, Any]], notebook: Path) -> list[Mapping[str, Any]]:
    """A part's items with the notebook's own prose between them, in the order of its cells.

    Cells tagged `notebook-only`, and the line of the title, stay in the notebook. Items that no cell names by a
    literal key come last.
    """
    if not notebook.exists():
        return list(items)
    import nbformat  # seconds to load, and only the page that is put together at the end needs it

    waiting, woven = {item["key"]: item for item in items}, []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "notebook-only" in cell.metadata.get("tags", ()):
            continue
        if cell.cell_type == "markdown":
            text = re.sub(r"\A# .*\n*", "", cell.source)
            woven += [{"kind": "text", "markdown": text}] if text else []
        for kind, key in re.findall(r'page\.(figure|table|viewer)\(\s*"([^"]+)"', cell.source):
            if f"{kind} {key}" in waiting:
                woven.append(waiting.pop(f"{kind} {key}"))
    return [*woven, *waiting.values()]


class _Renderer(mistune.HTMLRenderer):
    """Markdown below a section's heading, without raw HTML, and without images, which come in as figures only."""

    def __init__(self):
        super().__init__(escape=True)

    def heading(self, text: str, level: int, **attributes: Any) -> str:
        return super().heading(text, min(level + 2, 6), **attributes)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return text


def _inline(text: str) -> Markup:
    """One line of Markdown → HTML without the paragraph around it."""
    html = str(markdown(text)).strip()
    return Markup(html.removeprefix("<p>").removesuffix("</p>") if html.count("<p>") == 1 else html)


def markdown(text: str) -> Markup:
    """Markdown → HTML; HTML in the text is escaped, links to scripts are disarmed, images leave their text."""
    return Markup(mistune.create_markdown(renderer=_Renderer(), plugins=["table"])(text))


def _viewer_record(view: ObjectView, name: str) -> dict[str, Any]:
    height, width = view.image.shape[:2]
    return {
        "key": view.key,
        "category": view.category,
        "area": view.area,
        "image": name,
        "size": [width, height],
        "box": [round(float(v), 2) for v in view.box_xyxy],
        "target": None if view.target is None else outline_path(view.target),
        "masks": {method: outline_path(mask) for method, mask in view.masks.items()},
        "iou": {method: round(float(v), 4) for method, v in view.iou.items() if np.isfinite(v)},
        "biou": {method: round(float(v), 4) for method, v in view.biou.items() if np.isfinite(v)},
    }


def _page_item(item: Mapping[str, Any], part: Mapping[str, Any], position: int) -> dict[str, Any]:
    """An item with what the template needs: HTML made, paths relative to the page."""
    page = dict(item) | {"id": f"{part['notebook']}-{position}", "notice": part["notice"]}
    if item["kind"] == "text":
        page["html"] = markdown(item["markdown"])
    if item["kind"] == "table":
        page["html"] = Markup(Table.from_json(item["table"]).to_html())
    if "file" in item:
        page["path"] = f"{part['folder']}/{item['file']}"
    if item["kind"] == "viewer":
        page["objects"] = [o | {"image": f"{part['folder']}/{o['image']}"} for o in item["objects"]]
        page["methods"] = list(dict.fromkeys(m for o in item["objects"] for m in o["masks"]))
        page["categories"] = sorted({o["category"] for o in item["objects"]})
    return page


def _stamp(figure: Figure, notice: str) -> None:
    """Write the notice below the figure, so that it stays with the image wherever that goes."""
    if not notice or any(text.get_gid() == "notice" for text in figure.texts):
        return
    width = figure.get_figwidth()
    lines, line = [], ""
    for word in notice.split():
        if line and (len(line) + len(word)) * 0.055 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    y = -0.12 / figure.get_figheight()
    stamp = figure.text(0.01, y, "\n".join([*lines, line]), fontsize=7, color=MUTED, va="top", gid="notice")
    stamp.set_in_layout(True)


def _prune(folder: Path, items: Iterable[Mapping[str, Any]]) -> None:
    named = {item["file"] for item in items if "file" in item}
    named |= {o["image"] for item in items if item["kind"] == "viewer" for o in item["objects"]}
    for path in folder.iterdir():
        if path.suffix in (".png", ".jpg", ".csv") and path.name not in named:
            path.unlink()


def _number(notebook: str) -> str:
    return match.group(1).lstrip("0") or "0" if (match := re.match(r"(\d+)_", notebook)) else ""


def _slug(name: str, what: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise RossamError(f"{what} {name!r}", "becomes a file name", "use letters, digits, - and _ only")
    return name


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rossam_kit.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["inline"] = _inline
    return environment
