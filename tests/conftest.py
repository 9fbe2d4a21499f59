"""Shared fixtures: real data where it is at hand, a seeded generator."""

import os
from pathlib import Path

import numpy as np
import pytest

SLOWEST = ("test_notebooks.py", "test_train_command.py", "test_inspector.py", "test_report_page.py")
"""Files that start first, so that no process works alone at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOWEST.index(item.path.name) if item.path.name in SLOWEST else len(SLOWEST))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real datasets named by ROSSAM_TEST_DATA; the test skips where it is absent."""
    folder = os.environ.get("ROSSAM_TEST_DATA")
    if not folder:
        pytest.skip("ROSSAM_TEST_DATA is not set: real datasets are not at hand")
    path = Path(folder)
    if not path.is_dir():
        pytest.skip(f"ROSSAM_TEST_DATA={folder} is not a folder: real datasets are not at hand")
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def built_sample(tmp_path_factory) -> tuple[Path, str]:
    """A small report (`sample_report.py`): its folder, and the warnings of its build."""
    from tests.sample_report import make_report

    return make_report(tmp_path_factory.mktemp("sample"))
