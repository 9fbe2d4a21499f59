"""The mutants of `tests/slow` still apply: each names a text that its file holds, and another to put in its place."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MUTANTS = yaml.safe_load((ROOT / "tests/slow/mutants.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", MUTANTS)
def test_every_mutant_replaces_a_text_of_its_file(file):
    source = (ROOT / file).read_text(encoding="utf-8")
    pairs = [mutant[:2] for mutant in MUTANTS[file]["mutants"]]
    assert [old for old, new in pairs if old not in source or old == new] == []
