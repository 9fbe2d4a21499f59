"""Notebooks have one form; the whole of them runs, and a killed run ends with the same tables."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from docutils.utils.math.latex2mathml import tex2mathml

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_answers_are_folded_and_checked(notebook):
    exercises = [i for i, cell in enumerate(notebook.cells) if cell.source.startswith("## Exercises")]
    for answers in (notebook.cells[i + 1] for i in exercises):
        assert "hide-cell" in answers.metadata["tags"] and "assert " in answers.source


def test_links_lead_to_the_notebooks_before_and_after(notebook, request):
    own = NOTEBOOKS.index(request.node.callspec.params["notebook"])
    neighbours = {path.name for path in NOTEBOOKS[max(own - 1, 0) : own + 2]} - {NOTEBOOKS[own].name}
    for cell in (notebook.cells[1], notebook.cells[-1]):
        assert set(re.findall(r"\]\((\w+\.ipynb)\)", cell.source)) == neighbours


def test_nothing_is_stored_but_the_source(notebook):
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_one_cell_of_parameters_is_the_whole_interface(notebook):
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert [cell.source for cell in tagged] == ['profile = "demo"\noverrides = {}']


def test_it_opens_with_what_it_shows(notebook):
    assert notebook.cells[0].source.startswith("# ")


def start(cache, report, *arguments):
    run = ["rossam_kit.cli", "run", "--profile", "smoke", "--report", str(report)]
    command = [sys.executable, "-m", *run, *arguments]
    environment = {**os.environ, "ROSSAM_CACHE": str(cache), "PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"}
    environment["OMP_NUM_THREADS"] = "1"  # sums in one order, however many notebooks run at a time
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def tables(report):
    """Every table of a report but those that hold times: notebook/name → CSV text."""
    found = {}
    for path in sorted((report / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", ()):
                html = output.get("data", {}).get("text/html", "")
                for name, content in re.findall(r'download="([^"]+)" href="data:text/csv;base64,([^"]+)"', html):
                    found[f"{path.stem}/{name}"] = base64.b64decode(content).decode()
    return {
        name: text
        for name, text in found.items()
        if not re.search("cost|took|computed-with|peak-memory|every-setting", name)
    }


def kill_all(process):
    """SIGKILL to the run and to the kernel it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of the profile `smoke`, two notebooks at a time: its report's folder, and what it printed."""
    folder = tmp_path_factory.mktemp("smoke")
    process = start(folder / "cache", folder / "whole", "--jobs", "2")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return folder / "whole", output


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_can_be_set_as_mathml(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            for block, inline in re.findall(r"\$\$(.+?)\$\$|(?<!\\)\$([^$\n]+?)\$", cell.source, re.DOTALL):
                assert "<math" in tex2mathml(block or inline, as_block=bool(block))


@pytest.mark.timeout(2400)
def test_the_whole_run_is_green(whole):
    report, output = whole
    assert "Not in this report" not in (report / "index.html").read_text()
    assert str(report / "index.html") in output
    assert {
        "02_inference_pipeline/table-1-the-inference-pipeline-on-sam-and-sam2.csv",
        "13_summary/claims-of-the-paper-and-what-this-run-says-of-them.csv",
    } <= set(tables(report))


@pytest.mark.timeout(2400)
def test_a_killed_run_of_one_notebook_at_a_time_ends_with_the_same_tables(whole, tmp_path):
    two = ["01_data", "02_inference_pipeline"]
    expected = {name: text for name, text in tables(whole[0]).items() if name.startswith(tuple(two))}
    assert expected
    shown = ["--set", f"notebooks={json.dumps(two)}"]
    broken = start(tmp_path / "other", tmp_path / "resumed", "--from", "02", *shown)
    folder = tmp_path / "other/scores/smoke"
    waited = time.monotonic() + 300
    while len(list(folder.glob("*.csv.gz"))) < 3 and time.monotonic() < waited:
        time.sleep(0.2)
    kill_all(broken)
    done_before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.csv.gz")}
    assert len(done_before) >= 3
    resumed = start(tmp_path / "other", tmp_path / "resumed", *shown)
    output, _ = resumed.communicate()
    assert resumed.returncode == 0, output
    assert done_before.items() <= {p.name: p.stat().st_mtime_ns for p in folder.glob("*.csv.gz")}.items()
    assert tables(tmp_path / "resumed") == expected


@pytest.mark.timeout(2400)
def test_real_images_run_through_the_notebooks_that_show_them(real_data, tmp_path):
    names = ["08_static_datasets", "10_inspect_predictions"]
    few = ["--data", str(real_data), "--set", f"notebooks={json.dumps(names)}", "--jobs", "2"]
    few += ["--set", "data.limit_frames=12"]
    short = ["--set", "training.samples=4", "--set", "training.batch=4", "--set", "training.validation_objects=4"]
    short += ["--set", "budgets={}"]
    process = start(tmp_path / "cache", tmp_path / "report", "--profile", "nwpu", *few, *short)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    table = tables(tmp_path / "report")["08_static_datasets/table-6-nwpu-vhr-10.csv"]
    assert "65.54" in table and "87.46" in table
