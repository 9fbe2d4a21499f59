"""The tiny tracking dataset, importable by the tests and by processes they start."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def frames(tmp_path):
    from tiny_tracks import make_frames

    return make_frames(tmp_path / "data")
