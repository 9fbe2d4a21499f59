"""The runner: unknown parameters refused, finished notebooks kept, failures told by cell."""

import nbformat
import pytest

from rossam_core.errors import RossamError
from rossam_core.reporting import notebooks


def write_notebook(folder, name, *sources):
    cells = [nbformat.v4.new_code_cell("profile = 'demo'", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}
    )
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
        notebooks.execute("00_a", {"profil": "demo"}, tmp_path / "report", folder)
    assert not (tmp_path / "ran").exists()


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
    write_notebook(folder, "00_a", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RossamError, match="memory"):
        notebooks.execute("00_a", {}, tmp_path / "report", folder)


def test_the_html_loads_nothing_from_elsewhere(folder, tmp_path):
    write_notebook(folder, "00_a", "print('hello')")
    notebooks.execute("00_a", {}, tmp_path / "report", folder)
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
