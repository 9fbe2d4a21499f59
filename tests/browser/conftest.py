"""A headless Chromium; tests skip with a reason where it, its driver or Selenium is missing."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed (pip install -e '.[test]')")
sys.path.insert(0, str(Path(__file__).parent))

import browser


@pytest.fixture
def page(tmp_path):
    """A fresh browser, 1600×1400."""
    if missing := browser.missing_programs():
        pytest.skip(missing)
    with browser.open_browser(tmp_path) as driver:
        yield driver
