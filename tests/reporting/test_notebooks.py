"""The runner: unknown parameters refused, finished notebooks kept, failures told by cell."""

import time

import nbformat
import pytest

from rossam_core.errors import RossamError
from rossam_core.files import cache_dir
from rossam_kit.report import execution, jobs, notebooks


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
    names = ["00_setup", "02_pipeline", "04_decoder", "11_summary"]
    assert notebooks.select(names) == names
    assert notebooks.select(names, only="02") == ["02_pipeline"]
    assert notebooks.select(names, start="04") == ["04_decoder", "11_summary"]
    with pytest.raises(RossamError, match="02_pipeline"):
        notebooks.select(names, only="03")


def test_an_unknown_parameter_is_an_error_and_nothing_runs(folder, tmp_path):
    write_notebook(folder, "00_a", f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    with pytest.raises(RossamError, match=r"unknown parameter profil\b(.|\n)*has profile"):
        execution.execute("00_a", {"profil": "demo"}, tmp_path / "report", folder)
    assert not (tmp_path / "ran").exists()


def test_a_notebook_without_kernel_metadata_is_python(folder, tmp_path):
    ran = tmp_path / "ran"
    write_notebook(folder, "00_a", f"open({str(ran)!r}, 'w').write(profile)", metadata={})
    assert notebooks.run(["00_a"], {"profile": "mine"}, tmp_path / "report", folder)[0].status == "done"
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
        execution.execute("00_a", {}, tmp_path / "report", folder)
    with pytest.raises(RossamError, match=r"00_b\.ipynb: no such notebook"):
        execution.execute("00_b", {}, tmp_path / "report", folder)


def test_of_boxes_without_masks_notebooks_and_cells_that_need_masks_are_left_out(folder, tmp_path, capsys):
    write_notebook(folder, "00_a", "print('boxes')", "1 / 0")
    write_notebook(folder, "01_b", "1 / 0", metadata={"rossam": {"needs_masks": True}})
    with_tag = nbformat.read(folder / "00_a.ipynb", as_version=4)
    with_tag.cells[2].metadata["tags"] = ["needs-masks"]
    nbformat.write(with_tag, folder / "00_a.ipynb")
    outcomes = notebooks.run(["00_a", "01_b"], {}, tmp_path / "report", folder, boxes_only=True)
    assert [outcome.status for outcome in outcomes] == ["done", "skipped"]
    assert "01_b  skipped: it needs masks, and the data has boxes only" in capsys.readouterr().out
    assert "Left out: this needs masks" in (tmp_path / "report/notebooks/00_a.html").read_text()
    assert notebooks.failed(tmp_path / "report") == []
    again = notebooks.run(["00_a"], {}, tmp_path / "report", folder)
    assert again[0].status == "failed" and "ZeroDivisionError" in again[0].message


def test_notebooks_that_need_masks_are_marked():
    every = [path.stem for path in sorted(execution.NOTEBOOKS.glob("*.ipynb"))]
    without = [
        name for name in every if not notebooks._metadata(execution.NOTEBOOKS / f"{name}.ipynb").get("needs_masks")
    ]
    assert without == ["00_setup", "01_data", "10_boxes_to_masks"]


def test_parameters_take_effect_and_a_second_run_does_nothing(folder, tmp_path, capsys):
    counter = tmp_path / "counter"
    write_notebook(folder, "00_a", f"open({str(counter)!r}, 'a').write(profile + ' ')")
    for _ in range(2):
        outcomes = notebooks.run(["00_a"], {"profile": "mine"}, tmp_path / "report", folder)
    assert [outcome.status for outcome in outcomes] == ["kept"]
    assert counter.read_text() == "mine "
    assert (tmp_path / "report/notebooks/00_a.html").exists()
    notebooks.run(["00_a"], {"profile": "other"}, tmp_path / "report", folder)
    assert counter.read_text() == "mine other "


def test_a_relative_cache_folder_is_one_place_for_this_process_and_the_kernel(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROSSAM_CACHE", "relcache")
    write_notebook(folder, "00_a", f"import os\nassert os.environ['ROSSAM_CACHE'] == {str(cache_dir())!r}")
    assert [outcome.status for outcome in notebooks.run(["00_a"], {}, tmp_path / "report", folder)] == ["done"]
    assert cache_dir() == tmp_path / "relcache"


def test_a_failing_cell_is_named_and_the_rest_still_runs(folder, tmp_path, capsys):
    write_notebook(folder, "00_a", "1 + 1", "values = [1]\nvalues[7]")
    write_notebook(folder, "01_b", "2 + 2")
    outcomes = notebooks.run(["00_a", "01_b"], {"profile": "demo"}, tmp_path / "report", folder)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "IndexError: list index out of range" in outcomes[0].message
    assert "values[7]" in outcomes[0].message
    assert (tmp_path / "report/notebooks/00_a.failed.ipynb").exists()
    assert "IndexError" in capsys.readouterr().err


def test_a_killed_kernel_is_named_so(folder, tmp_path):
    write_notebook(folder, "00_a", "1 + 1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(execution.KilledError, match=r"00_a.ipynb, cell 3: its kernel was killed .* memory"):
        execution.execute("00_a", {}, tmp_path / "report", folder)
    outcome = notebooks.run(["00_a"], {}, tmp_path / "report", folder)[0]
    assert outcome.status == "killed"
    assert notebooks.failed(tmp_path / "report") == ["00_a"]


def test_another_death_of_the_kernel_is_not_laid_to_memory(folder, tmp_path):
    write_notebook(folder, "00_a", "import os\nos._exit(3)")
    with pytest.raises(RossamError, match="ended with status 3") as raised:
        execution.execute("00_a", {}, tmp_path / "report", folder)
    assert "memory" not in str(raised.value)


def test_what_memory_a_notebook_took_is_noted(folder, tmp_path):
    write_notebook(folder, "00_a", "import time\nheld = bytearray(b'1' * 300_000_000)\ntime.sleep(5)")
    notebooks.run(["00_a"], {}, tmp_path / "report", folder)
    assert 0.3 < notebooks.read_state(tmp_path / "report")["00_a"]["peak_gib"] < 0.6


def meet(folder, tmp_path, names):
    """Notebooks that each wait until all others of `names` run too."""
    for name in names:
        here, others = str(tmp_path / name), [str(tmp_path / other) for other in names]
        write_notebook(
            folder, name, "import os, time, pathlib", f"pathlib.Path({here!r}).touch()",
            f"while not all(map(os.path.exists, {others!r})):\n    time.sleep(0.05)",
        )  # fmt: skip


def test_two_jobs_run_side_by_side_and_the_last_notebook_after_them(folder, tmp_path, capsys):
    meet(folder, tmp_path, ["00_a", "01_b"])
    write_notebook(folder, "02_last", "1 + 1")
    write_notebook(folder, "03_c", "import time\ntime.sleep(1)")
    last = nbformat.read(folder / "02_last.ipynb", as_version=4)
    last.metadata["rossam"] = {"after": ["*"]}
    nbformat.write(last, folder / "02_last.ipynb")
    names = ["00_a", "01_b", "02_last", "03_c"]
    outcomes = notebooks.run(names, {}, tmp_path / "report", folder, jobs=2)
    assert [(outcome.notebook, outcome.status) for outcome in outcomes] == [(name, "done") for name in names]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert lines[-2].startswith("[3/4] 02_last  starting")
    with pytest.raises(RossamError, match="--jobs"):
        notebooks.run(names, {}, tmp_path / "report", folder, jobs=0)


def test_another_starts_only_while_memory_is_free_for_it(monkeypatch):
    gib = 2**30
    big, small = jobs.Job("big", "big", need=5 * gib, held=1 * gib), jobs.Job("small", "small", need=2 * gib)
    for free, fits in ((5.9, False), (6.1, True)):  # big holds 1 GiB of its 5: 4 more are spoken for
        monkeypatch.setattr(jobs, "free_memory", lambda free=free: free * gib)
        assert jobs._fits(small, [big]) is fits
    assert jobs._fits(big, [])


def test_leaving_early_ends_the_kernels(folder, tmp_path):
    write_notebook(folder, "00_a", f"open({str(tmp_path / 'ran')!r}, 'w').close()", "import time\ntime.sleep(300)")
    write_notebook(folder, "01_b", "1 + 1")
    todo = [jobs.Job("00_a", "00_a"), jobs.Job("01_b", "01_b")]
    ended = jobs.finished(todo, 2, lambda job: execution.execute(job.name, {}, tmp_path, folder, job.kernel))
    assert next(ended)[0].name == "01_b"
    started = time.monotonic()
    ended.close()
    assert time.monotonic() - started < 30
    assert todo[0].kernel.memory() == 0


def test_the_html_loads_nothing_from_elsewhere(folder, tmp_path):
    write_notebook(folder, "00_a", "print('hello')")
    execution.execute("00_a", {}, tmp_path / "report", folder)
    html = (tmp_path / "report/notebooks/00_a.html").read_text()
    assert "hello" in html
    for attribute in ('src="http', "src='http", 'href="http', '@import url("http'):
        assert attribute not in html


def test_changed_settings_run_it_again_and_a_failure_is_remembered(folder, tmp_path, capsys):
    write_notebook(folder, "00_a", "1 + 1")
    report = tmp_path / "report"
    first, again, changed = (
        notebooks.run(["00_a"], {}, report, folder, settings={"rate": rate})[0].status for rate in (2, 2, 4)
    )
    assert (first, again, changed) == ("done", "kept", "done")
    write_notebook(folder, "00_a", "1 / 0")
    notebooks.run(["00_a"], {}, report, folder)
    assert notebooks.failed(report) == ["00_a"]
    assert not (report / "notebooks/00_a.html").exists()
