"""The runner: unknown parameters are refused, executed notebooks are in the report, failures name the cell."""

import os
import time

import nbformat
import psutil
import pytest

from rossam_core.errors import RossamError
from rossam_core.files import cache_dir
from rossam_kit.progress import VARIABLE
from rossam_kit.report import runner


def write_notebook(folder, name, *sources, metadata=None):
    cells = [nbformat.v4.new_code_cell("profile = 'demo'", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    usual = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=usual if metadata is None else metadata)
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "notebooks"


def test_selection_by_prefix():
    names = ["00_setup", "02_pipeline", "04_decoder", "13_summary"]
    assert runner.select(names) == names
    assert runner.select(names, only="02") == ["02_pipeline"]
    assert runner.select(names, start="04") == ["04_decoder", "13_summary"]
    with pytest.raises(RossamError, match="02_pipeline"):
        runner.select(names, only="03")


def test_an_unknown_parameter_is_an_error_and_nothing_runs(folder, tmp_path):
    write_notebook(folder, "00_a", f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    with pytest.raises(RossamError, match=r"unknown parameter profil\b(.|\n)*has profile"):
        runner.execute("00_a", {"profil": "demo"}, tmp_path / "report", folder)
    assert not (tmp_path / "ran").exists()


def test_a_notebook_without_kernel_metadata_is_python(folder, tmp_path):
    ran = tmp_path / "ran"
    write_notebook(folder, "00_a", f"open({str(ran)!r}, 'w').write(profile)", metadata={})
    assert runner.run(["00_a"], {"profile": "mine"}, tmp_path / "report", folder)[0].status == "done"
    assert ran.read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        ("", "cannot be read as a notebook"),
        ("{", "cannot be read as a notebook"),
        ("[1]", "cannot be read as a notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {"language_info": {"name": "R"}}, "cells": []}', "is in R"),
    ],
)
def test_a_file_that_is_no_python_notebook_is_named_so(folder, tmp_path, content, finding):
    (folder / "00_a.ipynb").write_text(content)
    with pytest.raises(RossamError, match=f"00_a.ipynb: {finding}"):
        runner.execute("00_a", {}, tmp_path / "report", folder)
    with pytest.raises(RossamError, match=r"00_b\.ipynb: no such notebook"):
        runner.execute("00_b", {}, tmp_path / "report", folder)


def test_of_boxes_without_masks_notebooks_and_cells_that_need_masks_are_left_out(folder, tmp_path, capsys):
    write_notebook(folder, "00_a", "print('boxes')", "1 / 0")
    write_notebook(folder, "01_b", "1 / 0", metadata={"rossam": {"needs_masks": True}})
    with_tag = nbformat.read(folder / "00_a.ipynb", as_version=4)
    with_tag.cells[2].metadata["tags"] = ["needs-masks"]
    nbformat.write(with_tag, folder / "00_a.ipynb")
    outcomes = runner.run(["00_a", "01_b"], {}, tmp_path / "report", folder, boxes_only=True)
    assert [outcome.status for outcome in outcomes] == ["done", "skipped"]
    assert "01_b  skipped: it needs masks, and the data has boxes only" in capsys.readouterr().out
    assert "Left out: this needs masks" in (tmp_path / "report/notebooks/00_a.ipynb").read_text()
    again = runner.run(["00_a"], {}, tmp_path / "report", folder)
    assert again[0].status == "failed" and "ZeroDivisionError" in again[0].message


def test_notebooks_that_need_masks_are_marked():
    every = [path.stem for path in sorted(runner.NOTEBOOKS.glob("*.ipynb"))]
    without = [
        name
        for name in every
        if not runner.read_notebook(runner.NOTEBOOKS / f"{name}.ipynb").metadata["rossam"].get("needs_masks")
    ]
    assert without == ["00_setup", "01_data", "11_boxes_to_masks", "12_your_own_data"]


def test_a_relative_cache_folder_is_one_place_for_this_process_and_the_kernel(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROSSAM_CACHE", "relcache")
    write_notebook(folder, "00_a", f"import os\nassert os.environ['ROSSAM_CACHE'] == {str(cache_dir())!r}")
    assert [outcome.status for outcome in runner.run(["00_a"], {}, tmp_path / "report", folder)] == ["done"]
    assert cache_dir() == tmp_path / "relcache"


def test_a_failing_cell_is_named_and_the_rest_still_runs(folder, tmp_path, capsys):
    write_notebook(folder, "00_a", "1 + 1", "values = [1]\nvalues[7]")
    write_notebook(folder, "01_b", "2 + 2")
    outcomes = runner.run(["00_a", "01_b"], {"profile": "demo"}, tmp_path / "report", folder)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "IndexError: list index out of range" in outcomes[0].message
    assert "values[7]" in outcomes[0].message
    executed = nbformat.read(tmp_path / "report/notebooks/00_a.ipynb", as_version=4)
    assert executed.metadata.papermill.exception is True
    assert [output.ename for cell in executed.cells for output in cell.get("outputs", ()) if "ename" in output] == [
        "IndexError"
    ]
    assert "IndexError" in capsys.readouterr().err


def test_a_killed_kernel_is_named_so(folder, tmp_path):
    write_notebook(folder, "00_a", "1 + 1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    outcome = runner.run(["00_a"], {}, tmp_path / "report", folder)[0]
    assert outcome.status == "failed" and "00_a.ipynb: its kernel was killed (signal 9)" in outcome.message
    assert "memory" in outcome.message


def test_another_death_of_the_kernel_is_not_laid_to_memory(folder, tmp_path):
    write_notebook(folder, "00_a", "import os\nos._exit(3)")
    with pytest.raises(RossamError, match="ended with status 3") as raised:
        runner.execute("00_a", {}, tmp_path / "report", folder)
    assert "memory" not in str(raised.value)


def meet(folder, tmp_path, names):
    """Notebooks that each wait until all others of `names` run too."""
    for name in names:
        here, others = str(tmp_path / name), [str(tmp_path / other) for other in names]
        write_notebook(
            folder, name, "import os, time, pathlib", f"pathlib.Path({here!r}).touch()",
            f"while not all(map(os.path.exists, {others!r})):\n    time.sleep(0.05)",
        )  # fmt: skip


def test_two_jobs_run_side_by_side(folder, tmp_path):
    names = ["00_a", "01_b"]
    meet(folder, tmp_path, names)
    outcomes = runner.run(names, {}, tmp_path / "report", folder, jobs=2)
    assert [(outcome.notebook, outcome.status) for outcome in outcomes] == [(name, "done") for name in names]
    with pytest.raises(RossamError, match="--jobs"):
        runner.run(names, {}, tmp_path / "report", folder, jobs=0)


def test_results_are_computed_before_the_first_notebook_and_their_failure_stops_none(folder, tmp_path, capsys):
    computed = tmp_path / "computed"
    write_notebook(folder, "00_a", f"assert open({str(computed)!r}).read() == 'scores'")
    arguments = ["00_a"], {}, tmp_path / "report", folder
    outcomes = runner.run(*arguments, compute=lambda: computed.write_text("scores"), jobs=2)
    assert [(outcome.notebook, outcome.status) for outcome in outcomes] == [("00_a", "done")]

    def fail():
        raise RossamError("run.yaml", "cannot be read", "correct it")

    outcomes = runner.run(*arguments, compute=fail)
    assert [outcome.status for outcome in outcomes] == ["done"] and VARIABLE not in os.environ
    out, err = capsys.readouterr()
    assert "[results]  failed in 0:00" in out and "run.yaml: cannot be read" in err


def test_parameters_are_values_and_take_effect_in_every_run(folder, tmp_path):
    record = tmp_path / "record"
    write_notebook(folder, "00_a", f"open({str(record)!r}, 'a').write(f'{{profile}} ')")
    for value in ("mine", {"inference.rate": 4}):
        runner.run(["00_a"], {"profile": value}, tmp_path / "report", folder)
    assert record.read_text() == "mine {'inference.rate': 4} "


def test_an_interrupt_leaves_no_kernel_running(folder, tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    write_notebook(
        folder, "00_a", f"import os\nopen({str(pid)!r}, 'w').write(str(os.getpid()))", "import time\ntime.sleep(300)"
    )

    def interrupt(*_):
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt
        return "", ""

    monkeypatch.setattr(runner, "_progress", interrupt)
    monkeypatch.setattr(runner, "_print_progress", lambda *_: None)
    monkeypatch.setattr(runner.sys.stdout, "isatty", lambda: True, raising=False)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runner.run(["00_a"], {}, tmp_path / "report", folder)
    assert time.monotonic() - started < 120 and not psutil.pid_exists(int(pid.read_text()))
    assert not (tmp_path / "report/notebooks/00_a.ipynb").exists()


def test_the_progress_line_says_what_is_measured(tmp_path):
    status = tmp_path / "status.json"
    status.write_text('{"desc": "SAM, rate 2", "done": 12, "total": 40}')
    line = runner._progress("[2/3] 01_b", status, time.time() - 70)
    assert line == "[2/3] 01_b  SAM, rate 2 12/40  1:10 so far"
    assert runner._progress("[2/3] 01_b", tmp_path / "none", time.time() - 70) == "[2/3] 01_b  1:10 so far"


def test_the_time_left_is_what_is_expected_scaled_by_the_pace_so_far():
    pace = runner._Pace({"a": 60, "b": 240, "c": 100}, jobs=1)
    assert pace.left({"a": 10}) == 390
    pace.seconds["a"] = 180  # twice as slow, after a minute of doubt
    assert pace.left({"b": 80}) == 2 * 240 - 80 + 2 * 100
    assert pace.left({"b": 1000}) == 200
    pace.jobs = 2
    assert pace.left({"b": 80, "c": 100}) == (400 + 100) / 2
    pace.expected[runner.RESULTS] = 10  # on all cores, whatever the number of jobs
    assert pace.left({"b": 80, "c": 100}) == 20 + (400 + 100) / 2
    assert runner._Pace({"a": 60, "b": None}, jobs=1).left({}) is None
