"""Tests that can fail: each small fault of `mutants.yaml` makes the module's own tests fail.

A mutant is imported in a fork of this process, in which its source is another; no file is changed.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MODULES = yaml.safe_load((Path(__file__).parent / "mutants.yaml").read_text(encoding="utf-8"))
MUTANTS = [
    pytest.param(file, module["tests"], *texts[:2], *(texts[2:] or [""]), id=f"{Path(file).stem} {number}")
    for file, module in MODULES.items()
    for number, texts in enumerate(module["mutants"], start=1)
]
LARGE = (
    "torch",
    "torchvision",
    "cv2",
    "pandas",
    "scipy.stats",
    "hypothesis",
    "pycocotools.mask",
    "matplotlib",
    "pydantic",
)


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Imported once, for all forks; of the program itself nothing may be."""
    for name in LARGE:
        importlib.import_module(name)


def with_source(path: Path, text: str) -> None:
    """From now on, this process imports `path` with another source."""

    class Loader(importlib.machinery.SourceFileLoader):
        def get_data(self, name):
            return text.encode() if name == str(path) else super().get_data(name)

        def path_stats(self, name):
            if name == str(path):
                raise OSError("no compiled file is used")
            return super().path_stats(name)

    machinery = importlib.machinery
    kinds = [(machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES), (Loader, machinery.SOURCE_SUFFIXES)]
    sys.path_hooks.insert(0, machinery.FileFinder.path_hook(*kinds))
    sys.path_importer_cache.clear()
    for name in [name for name in sys.modules if name.split(".")[0] in ("rossam_core", "rossam_kit", "tests")]:
        del sys.modules[name]


def status_of(file: str, old: str, new: str, tests: str, log: Path) -> int:
    """pytest's exit status of the tests with the mutant: 0 where all pass, 1 where one fails."""
    source = (ROOT / file).read_text(encoding="utf-8")
    assert source.count(old) >= 1, f"{file} does not hold {old!r}"
    pid = os.fork()
    if pid == 0:
        try:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.environ.pop("PYTEST_XDIST_WORKER", None)
            with_source(ROOT / file, source.replace(old, new, 1))
            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
            os._exit(pytest.main([*options, "--rootdir", str(ROOT), *(str(ROOT / name) for name in tests.split())]))
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("file", MODULES)
def test_without_a_mutant_the_tests_pass(file, tmp_path):
    log = tmp_path / "log"
    assert status_of(file, "from __future__", "from __future__", MODULES[file]["tests"], log) == 0, log.read_text()


@pytest.mark.parametrize(("file", "tests", "old", "new", "why"), MUTANTS)
def test_a_mutant_is_noticed(file, tests, old, new, why, tmp_path):
    status = status_of(file, old, new, tests, tmp_path / "log")
    assert status == (0 if why else 1), (tmp_path / "log").read_text()[-2000:]


def test_nine_of_ten_mutants_at_least_are_noticed():
    survivors = [mutant for mutant in MUTANTS if mutant.values[-1]]
    assert len(MUTANTS) >= 40 and len(survivors) <= len(MUTANTS) / 10
