"""The book: made of executed notebooks, complete in its folder, and out of reach of interactive runs."""

import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbclient import NotebookClient

from rossam_core.files import sha256_of
from tests import sample_report


@pytest.fixture
def report(built_sample):
    return built_sample[0]


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.elements = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))


def test_it_builds_without_warnings(built_sample):
    assert built_sample[1].strip() == ""


def test_the_front_page_says_what_this_is_and_shows_the_marked_outputs(report):
    page = Page(report / "index.html").html
    assert "ROS-SAM, smoke test" in page and "The numbers mean nothing" in page and "@inproceedings{rossam2025" in page
    assert page.index('alt="a rising line"') < page.index("<h2>The main table") < page.index("scores.csv")
    assert "Failed, and therefore incomplete here: 03_training_pipeline." in page
    assert "Not in this report: 09_zero_shot_tracking (it needs masks)." in page


def test_nothing_is_loaded_from_outside_its_folder(report):
    pages = sorted(report.rglob("*.html"))
    assert {"index.html", "faq.html", "clusters.html", "api.html", "search.html"} <= {page.name for page in pages}
    for path in pages:
        for tag, attributes in Page(path).elements:
            loaded = attributes.get("src") if tag != "link" else attributes.get("href")
            if loaded and not loaded.startswith(("data:", "#")):
                assert (path.parent / loaded.split("?")[0].split("#")[0]).exists(), f"{path.name}: {tag} {loaded}"
    for style in report.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_formulas_are_mathml_and_code_is_one_click_away(report):
    page = Page(report / f"notebooks/{sample_report.NAME}.html").html
    assert page.count("<math ") == 2 and "<mfrac>" in page and "mathjax.js" not in page.lower()
    assert "Show the code" in page and "profile = " not in page, "parameter cells are removed"
    assert "<strong>The rate is 4.0.</strong>" in page and "444" in page


def test_a_link_to_a_notebook_that_is_not_in_the_report_is_text(report):
    page = Page(report / f"notebooks/{sample_report.NAME}.html").html
    assert 'href="03_training_pipeline.html"' in page and "then 8 (not in this report)" in page
    assert ">3 · Failing<" in page.replace("\n", "") and "1 · Data" not in page, "no step to a notebook that is absent"


def test_the_api_reference_describes_the_public_surface(report):
    page = Page(report / "api.html").html
    for name in ("build_model", "Predictor", "InferenceConfig", "mask_iou", "fit"):
        assert f'id="rossam_core.{name}"' in page or f'id="rossam_core.{name.lower()}"' in page or f">{name}<" in page
    assert "|P ∩ T|" in page


def test_a_changed_setting_in_an_interactive_run_does_not_reach_the_report(report, tmp_path):
    before = {path: sha256_of(path) for path in sorted(report.rglob("*")) if path.is_file()}
    sample_report.write_sample(tmp_path)
    notebook = nbformat.read(tmp_path / f"{sample_report.NAME}.ipynb", as_version=4)
    next(
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    ).source = 'profile = "smoke"\noverrides = {"inference.rate": 3}'
    interactive = NotebookClient(notebook, resources={"metadata": {"path": str(report)}}).execute()
    assert "333" in str([cell.get("outputs") for cell in interactive.cells]), "the setting took effect"
    assert {path: sha256_of(path) for path in sorted(report.rglob("*")) if path.is_file()} == before
