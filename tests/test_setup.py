"""The ways to install the kit agree with each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from rossam_core.environment import missing_requirements

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"] + project["optional-dependencies"]["test"]


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement).group().lower().replace("_", "-")


def test_conda_environment_asks_for_the_same(requirements):
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert sorted(entries[-1]["pip"]) == sorted(requirements)


def test_lock_pins_every_direct_dependency_and_nothing_but_versions(requirements):
    lines = (ROOT / "requirements.lock").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+", line) for line in lines)
    assert {name_of(r) for r in requirements} <= {name_of(line) for line in lines}


def test_this_environment_satisfies_pyproject():
    assert missing_requirements(("test",)) == []


def test_shell_script_explains_its_options():
    text = subprocess.run([ROOT / "run_all.sh", "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--profile", "--only", "--from", "--fresh", "--data", "--device", "--jobs", "--list", "--test"):
        assert option in text


def test_importing_the_package_root_is_quick_and_torch_free():
    code = "import rossam_core, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
