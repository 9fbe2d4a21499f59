"""A tab of a headless Chromium; without one, tests skip and say so."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import driver


@pytest.fixture
def page(tmp_path):
    """A fresh tab of a fresh browser, 1600×1400."""
    if not driver.find_chromium():
        pytest.skip("chromium is not installed (Debian: apt install chromium): pages go unchecked in a browser")
    with driver.open_tab(tmp_path) as tab:
        yield tab
