"""The tiny run, as a module of functions."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_script() -> Path:
    return Path(__file__).with_name("tiny_run.py")


@pytest.fixture(scope="session")
def tiny(tiny_script):
    spec = importlib.util.spec_from_file_location("tiny_run", tiny_script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_frames(tiny, tmp_path_factory):
    return tiny.make_frames(tmp_path_factory.mktemp("frames"))
