"""The ways to install the kit agree with each other."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from rossam_kit.environment import missing_requirements

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"] + project["optional-dependencies"]["test"]


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement).group().lower().replace("_", "-")


def test_conda_environment_installs_the_project_itself():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert entries[-1] == {"pip": ["-e .[test]"]}


def test_lock_pins_every_direct_dependency_with_hashes_and_names_no_index(requirements):
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", re.sub(r"(?m)^\s*#.*\n", "", text).strip())
    pinned = [re.match(r"([a-z0-9._-]+)==[^\s;]+", entry) for entry in entries]
    assert all(pinned) and all("--hash=sha256:" in entry for entry in entries)
    assert {name_of(r) for r in requirements} <= {match[1] for match in pinned}
    assert "://" not in text


def test_this_environment_satisfies_pyproject():
    assert missing_requirements(("test",)) == []


def test_shell_script_explains_its_options():
    text = subprocess.run([ROOT / "run_all.sh", "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--profile", "--only", "--from", "--fresh", "--data", "--device", "--jobs", "--list", "--test"):
        assert option in text


def test_shell_script_takes_a_relative_cache_from_where_it_is_called(tmp_path):
    python = tmp_path / "environment/bin/python"  # stands in for an environment: prints instead of running the kit
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\ncase $* in *environment.py*) ;; *) echo "$ROSSAM_CACHE" ;; esac\n')
    python.chmod(0o755)
    for given, expected in (("relcache", f"{tmp_path}/relcache"), ("/absolute", "/absolute"), (None, "")):
        variables = {key: value for key, value in os.environ.items() if key not in ("ROSSAM_CACHE", "CONDA_PREFIX")}
        variables |= {"VIRTUAL_ENV": str(tmp_path / "environment")} | ({"ROSSAM_CACHE": given} if given else {})
        command = [ROOT / "run_all.sh", "--lab"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=variables)
        assert done.stdout.strip() == expected


def test_importing_the_package_root_is_quick_and_torch_free():
    code = "import rossam_core, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
