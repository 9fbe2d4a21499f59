"""The command line: bad input ends with one clear message and status 2, and --fresh removes nothing but its own."""

import pytest

from rossam_core import cli


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--profile", "dmo"], "no profile of that name"),
        (["run", "--set", "inference.rate"], "has no '='"),
        (["run", "--set", "inference.rate=[1"], "not valid YAML"),
        (["run", "--set", "inference.rat=4"], "did you mean 'rate'"),
        (["run", "--only", "77"], "no notebook begins with '77'"),
        (["run", "--profile", "nwpu"], "--data"),
        (["run", "--set", "notebooks=[99_none]"], "99_none"),
    ],
)
def test_bad_options_are_told_with_their_remedy(arguments, told, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path))
    assert cli.main([*arguments, *(["--report", str(tmp_path / "report")] if arguments[0] == "run" else [])]) == 2
    error = capsys.readouterr().err
    assert told in error and "Remedy:" in error
    assert not (tmp_path / "report").exists()


def test_fresh_leaves_alone_what_is_not_a_report(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "notebooks").mkdir()
    cli._forget(tmp_path, "demo")
    assert (tmp_path / "notebooks").exists()
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "thesis.tex").write_text("")
    cli._forget(tmp_path, "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
