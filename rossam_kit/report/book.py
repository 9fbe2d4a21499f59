"""The report: executed notebooks, and pages of `docs/`, as one offline book made by Sphinx with myst-nb.

`build_book` reads `<report_dir>/notebooks/*.ipynb` as papermill wrote them, and writes `<report_dir>/index.html` with
its pages. This module is itself a Sphinx extension: it writes formulas as MathML, which needs no script.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Container, Mapping
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import yaml
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from nbformat import NotebookNode

import rossam_core
from rossam_core.errors import RossamError
from rossam_core.files import write_text
from rossam_kit.cache import exclusive
from rossam_kit.config import Profile
from rossam_kit.progress import duration
from rossam_kit.report.provenance import ROOT, collect
from rossam_kit.report.show import ASSETS

PAGES = ("faq", "clusters")
"""Pages of `docs/` in the book."""
FRONT = {
    "hero": "",
    "ledger": "## The paper's claims, in one picture",
    "table": "## The main table",
}
ABOUT = (
    "ROS-SAM (CVPR 2025) turns boxes around small moving objects in satellite video into masks. This book repeats the "
    "paper's experiments: it puts measured numbers beside the published ones, and its notebooks explain the method."
)
SPHINX = {
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "rossam_kit.report.book"],
    "html_theme": "sphinx_book_theme",
    "html_static_path": [str(ASSETS)],
    "html_css_files": ["show.css", "book.css"],
    "html_js_files": ["show.js"],
    "html_context": {"default_mode": "auto"},
    "html_math_renderer": "mathml",
    "author": "",
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_show_sphinx": False,
    "html_show_sourcelink": False,
    "html_theme_options": {"use_download_button": False, "use_fullscreen_button": False, "show_toc_level": 2,
                           "home_page_in_toc": True, "navbar_persistent": []},
    "nb_execution_mode": "off",
    "nb_output_stderr": "remove",
    "nb_ipywidgets_js": {},
    "nb_code_prompt_show": "Show the code",
    "nb_code_prompt_hide": "Hide the code",
    "myst_enable_extensions": ["dollarmath", "amsmath", "colon_fence"],
    "autodoc_typehints": "none",
    "autodoc_member_order": "bysource",
    "suppress_warnings": ["myst.header", "myst.xref_missing", "mystnb.unknown_mime_type", "misc.highlighting_failure"],
}  # fmt: skip


def build_book(report_dir: Path, profile: Profile, reasons: Mapping[str, str] | None = None) -> Path:
    """Build the book from all executed notebooks of `report_dir`; returns the path of its `index.html`.

    Args:
        profile: gives title, notice and the notebooks to expect; the front page names those that are missing.
        reasons: why notebooks are missing, by name.
    """
    from sphinx.application import Sphinx  # slow to load, and only needed here
    from sphinx.errors import SphinxError
    from sphinx.util.docutils import docutils_namespace

    paths = sorted((report_dir / "notebooks").glob("*.ipynb"))
    executed = {path.stem: nbformat.read(path, as_version=4) for path in paths}
    with tempfile.TemporaryDirectory(prefix="rossam-book-") as folder:
        source, built, warnings = Path(folder) / "source", Path(folder) / "html", io.StringIO()
        _write_sources(source, executed, profile, reasons or {}, report_dir)
        try:
            with docutils_namespace():
                config = SPHINX | {"project": profile.title, "html_title": profile.title}
                trees = Path(folder) / "doctrees"
                Sphinx(source, None, built, trees, "html", config, None, warnings, freshenv=True).build()
        except SphinxError as error:
            raise RossamError(report_dir, f"its book could not be built: {error}", "see the pages named") from error
        unneeded = shutil.ignore_patterns("*.map", "*macros.html", "locales", "_sources", "objects.inv", ".buildinfo")
        with exclusive(report_dir / "index.html"):  # two runs may end at the same time
            shutil.rmtree(report_dir / "_static", ignore_errors=True)
            for page in report_dir.glob("notebooks/*.html"):
                page.unlink()
            shutil.copytree(built, report_dir, ignore=unneeded, dirs_exist_ok=True)
    print(re.sub(r"\x1b\[[0-9;]*m", "", warnings.getvalue()), end="", file=sys.stderr)
    return report_dir / "index.html"


def setup(app) -> dict[str, Any]:
    """Formulas as MathML, and bars in docstrings as they are (called by Sphinx)."""

    def mathml(tex: str, as_block: bool = False) -> str:
        try:
            return tex2mathml(tex, as_block=as_block)
        except MathError as error:
            warnings.warn(f"formula {tex!r}: {error}; shown as it is written", stacklevel=2)
            return f"<code>{escape(tex)}</code>"

    def inline(translator, node: nodes.math) -> None:
        translator.body.append(mathml(node.astext()))
        raise nodes.SkipNode

    def block(translator, node: nodes.math_block) -> None:
        translator.body.append(f'<div class="formula">{mathml(node.astext(), as_block=True)}</div>')
        raise nodes.SkipNode

    def escape_bars(app, what, name, obj, options, lines: list[str]) -> None:
        lines[:] = [line.replace("|", "\\|") for line in lines]  # |A ∩ B| would be a substitution

    app.connect("autodoc-process-docstring", escape_bars)
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True}


def _write_sources(
    source: Path, executed: dict[str, NotebookNode], profile: Profile, reasons: Mapping[str, str], report_dir: Path
) -> None:
    """Write everything Sphinx reads."""
    front: dict[str, tuple[str, str]] = {}
    for name, notebook in executed.items():
        for output in (o for cell in notebook.cells for o in cell.get("outputs", ()) if "data" in o):
            about = output.metadata.get("rossam", {})
            if "attach" in about:
                _attach(output, Path(about["attach"]), report_dir / "notebooks" / "files" / name)
            if about.get("front"):
                front[about["front"]] = (name, output.data["text/html"])
        for cell in notebook.cells:
            if "hide-cell" in cell.metadata.get("tags", ()):  # answers to exercises
                cell.metadata["mystnb"] = {
                    "code_prompt_show": "Show the answers",
                    "code_prompt_hide": "Hide the answers",
                }
        _unlink_absent(notebook, executed)
        write_text(source / "notebooks" / f"{name}.ipynb", nbformat.writes(notebook))
    for name in PAGES:
        write_text(source / f"{name}.md", (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8"))
    write_text(source / "api.md", _api_page())
    write_text(source / "provenance.md", _provenance_page(executed, profile))
    write_text(source / "index.md", _front_page(front, executed, profile, reasons))


def _unlink_absent(notebook: NotebookNode, present: Container[str]) -> None:
    """Replace links to notebooks that are not in the report by their text and a remark; leave out steps to them."""

    def is_there(step: str) -> bool:
        return all(name in present for name in re.findall(r"\((\w+)\.ipynb\)", step))

    def replaced(link: re.Match) -> str:
        return link[0] if link["name"] in present else f"{link['text']} (not in this report)"

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            if re.match(r"\**(Previous|Next):", cell.source):
                cell.source = " | ".join(step for step in cell.source.split(" | ") if is_there(step))
            cell.source = re.sub(r"\[(?P<text>[^\]]+)\]\((?P<name>\w+)\.ipynb\)", replaced, cell.source)


def _attach(output: NotebookNode, file: Path, folder: Path) -> None:
    """Copy a file that an output links to into the report, and link to the copy."""
    if file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / file.name)
    html = re.sub(r'href="file:[^"]*"', f'href="files/{folder.name}/{file.name}"', output.data["text/html"])
    output.data["text/html"] = html


def _front_page(
    front: Mapping[str, tuple[str, str]],
    executed: Mapping[str, NotebookNode],
    profile: Profile,
    reasons: Mapping[str, str],
) -> str:
    failed = [name for name, notebook in executed.items() if notebook.metadata.get("papermill", {}).get("exception")]
    absent = [name for name in profile.notebooks if name not in executed]
    missing = [f"{name} ({reasons[name]})" if name in reasons else name for name in absent]
    parts = [
        f"# {escape(profile.title)}",
        ABOUT,
        f":::{{admonition}} What this was measured on\n:class: important\n{escape(profile.notice)}\n:::",
    ]
    if failed:
        parts.append(f":::{{warning}}\nFailed, and therefore incomplete here: {', '.join(failed)}.\n:::")
    if missing:
        parts.append(f":::{{note}}\nNot in this report: {', '.join(missing)}.\n:::")
    for place, heading in FRONT.items():
        if place in front:
            name, html = front[place]
            parts += [heading, f"```````{{raw}} html\n{html}\n```````", f"From {{doc}}`notebooks/{name}`."]
    parts += ["## How to cite", _citation()]
    for caption, pages in {"Notebooks": [f"notebooks/{name}" for name in executed],
                           "Reference": [*PAGES, "api", "provenance"]}.items():  # fmt: skip
        parts.append("\n".join([":::{toctree}", f":caption: {caption}", ":maxdepth: 1", *pages, ":::"]))
    return "\n\n".join(filter(None, parts)) + "\n"


def _citation() -> str:
    """The paper's BibTeX entry, from CITATION.cff."""
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    venue = {"booktitle": paper["conference"]["name"], "year": paper["year"]}
    fields = {"title": paper["title"], "author": authors} | venue
    lines = ",\n".join(f"  {key} = {{{value}}}" for key, value in fields.items())
    return f"```text\n@inproceedings{{rossam{paper['year']},\n{lines}\n}}\n```"


def _api_page() -> str:
    """Autodoc of the names that `rossam_core` exports."""
    parts = ["# API reference of rossam_core", "Everything here is imported by `from rossam_core import …`."]
    for name in rossam_core.__all__:
        kind = "autoclass" if isinstance(getattr(rossam_core, name), type) else "autofunction"
        members = "\n   :members:" if kind == "autoclass" else ""
        parts.append(f"## {name}\n\n```{{eval-rst}}\n.. {kind}:: rossam_core.{name}{members}\n```")
    return "\n\n".join(parts) + "\n"


def _provenance_page(executed: Mapping[str, NotebookNode], profile: Profile) -> str:
    """Commit, command, seeds, machine and durations."""
    times = {}
    for name, notebook in executed.items():
        run = notebook.metadata.get("papermill", {})
        times[name] = f"{duration(run.get('duration') or 0)}, {'failed' if run.get('exception') else 'done'}"
    page = "# How this report was made\n\nThe time of a notebook includes training only where no cached run existed.\n"
    for name, values in (collect(profile) | {"Notebooks": times}).items():
        page += f"\n## {name}\n\n| | |\n|---|---|\n" + "".join(f"| {key} | {text} |\n" for key, text in values.items())
    return page
