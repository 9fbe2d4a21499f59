"""Shared fixtures: real data where it is at hand, a seeded generator."""

import os
from pathlib import Path

import numpy as np
import pytest


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
