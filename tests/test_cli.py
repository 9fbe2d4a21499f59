"""The command line: bad input ends with one clear message and status 2, and --fresh removes nothing but its own."""

import re

import pytest

from rossam_core.errors import RossamError
from rossam_core.files import cache_dir, write_json, write_text
from rossam_kit import cli, evaluate_command, train_command
from rossam_kit.config import OWN_DATA, load_profile
from rossam_kit.convert import command as convert_command
from rossam_kit.options import read_settings
from rossam_kit.report import runner


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--profile", "dmo"], "no profile of that name"),
        (["run", "--set", "inference.rate"], "has no '='"),
        (["run", "--set", "inference.rate=[1"], "not valid YAML"),
        (["run", "--set", "inference.rat=4"], "did you mean 'rate'"),
        (["run", "--only", "77"], "no notebook begins with '77'"),
        (["run", "--profile", "nwpu"], "--data"),
        (["run", "--set", "notebooks=[99_none]"], "99_none"),
        (["run", "--only", "02", "--from", "04"], "two choices of notebooks"),
        (["run", "--device", "cpu", "--set", "device=cuda"], "name one of them"),
        (["run", "--data", "elsewhere"], "all data of profile demo is generated"),
        (["run", "--profile", "nwpu", "--data", ".", "--set", "data.synthetic.seed=1"], "data.source is nwpu-vhr10"),
        (["run", "--set", "data.sample.seed=1"], "has no effect: data.source is synthetic"),
        (["fetch", "--from", "."], "nothing is fetched"),
        (["fly"], "No such command 'fly'"),
        (["run", "--profil", "demo"], "No such option: --profil"),
        (["run", "--jobs", "two"], "--jobs"),
        (["convert"], "Missing option '--out'"),
        (["convert", "--out", "x", "--format", "gif"], "--format"),
        ([], "Missing command"),
    ],
)
def test_bad_options_end_in_an_error_with_its_remedy(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path))
    assert cli.main([*arguments, *(["--report", str(tmp_path / "report")] if arguments[:1] == ["run"] else [])]) == 2
    error = capsys.readouterr().err
    assert message in error and "Remedy:" in error
    assert not (tmp_path / "report").exists()


def test_a_name_that_the_system_cannot_write_is_told_with_its_remedy(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_rows", lambda options: "飞机.png".encode("ascii"))
    assert cli.main(["rows"]) == 2
    error = capsys.readouterr().err
    assert "does not exist in this system's encoding, ascii" in error and "PYTHONUTF8=1" in error
    monkeypatch.setattr(cli, "_rows", lambda options: "fl\udcfcss.png".encode())
    assert cli.main(["rows"]) == 2
    error = capsys.readouterr().err
    assert "encoding, utf-8" in error and "Remedy: rename the file" in error and "PYTHONUTF8" not in error


@pytest.mark.parametrize("command", ["run", "rows", "fetch", "convert", "train", "evaluate"])
def test_every_command_has_help_with_an_example_that_is_accepted(command, capsys, monkeypatch):
    assert cli.main([command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert "[default: <" not in printed
    examples = re.findall(rf"^    rossam {command} (.*)$", printed, re.MULTILINE)
    assert examples
    module, name = {"convert": (convert_command, "run"), "train": (train_command, "run")}.get(
        command, (evaluate_command, "run") if command == "evaluate" else (cli, f"_{command}")
    )
    calls = []
    monkeypatch.setattr(module, name, lambda options, *overrides: calls.append(options) or 0)
    for example in examples:
        assert cli.main([command, *example.split()]) == 0
    assert len(calls) == len(examples)


def test_fresh_leaves_alone_what_is_not_a_report(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSSAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.html").write_text("")
    cli._forget(tmp_path, "demo")
    assert (tmp_path / "own.html").exists(), "the folder holds no report"
    for name in ("notebooks/00_setup.ipynb", "_static/show.js", "index.html", "searchindex.js", "thesis.tex"):
        write_text(tmp_path / name, "")
    (tmp_path / "own.html").unlink()
    cli._forget(tmp_path, "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_relative_paths_start_where_the_user_stands_for_the_command_line_and_the_kernels(tmp_path, monkeypatch):
    given = {}

    def run(names, parameters, report_dir, **options):
        given.update(parameters["overrides"], report=report_dir, cache=cache_dir())
        raise RossamError("run", "has begun", "none")

    (tmp_path / "data").mkdir()
    write_json(tmp_path / "data/test.json", {"images": [], "annotations": [], "categories": []})
    monkeypatch.chdir(tmp_path / "data")
    monkeypatch.setenv("ROSSAM_CALLED_FROM", str(tmp_path))
    monkeypatch.setenv("ROSSAM_CACHE", "relcache")
    monkeypatch.setattr(runner, "run", run)
    options = ["data.source=coco", "data.root=data", "model={checkpoint: w.pth}"]
    options += ["datasets={isaid: {source: isaid, root: patches}}", "datasets.viso={source: viso, root: clips}"]
    sets = [part for option in options for part in ("--set", option)]
    assert cli.main(["run", "--profile", "smoke", "--only", "00", "--report", "report", *sets]) == 2
    assert given["report"] == tmp_path / "report" and given["cache"] == tmp_path / "relcache"
    assert given["data.root"] == str(tmp_path / "data")
    assert given["model.checkpoint"] == str(tmp_path / "w.pth")
    assert given["datasets.isaid.root"] == str(tmp_path / "patches")
    assert given["datasets.viso.root"] == str(tmp_path / "clips")


def test_a_group_of_settings_is_read_as_its_single_keys():
    texts = ["training={samples: 50, loss: {points: 64}}", "training.samples=40", "model={architecture: {depth: 2}}"]
    expected = {"training.samples": 40, "training.loss.points": 64, "model.architecture": {"depth": 2}, "datasets": {}}
    assert read_settings([*texts, "datasets={}"]) == expected
    assert load_profile(OWN_DATA, read_settings(["inference={rate: 4}"])).inference.growth == "context"
