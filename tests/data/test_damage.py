"""Every kind of damage to every format ends in a clear error or a logged drop that names the damaged file."""

import codecs
import shutil
import warnings

import pytest

from rossam_core.errors import RossamError
from rossam_kit.datasets.frame_set import FrameSet

from ..fake_datasets import WRITERS, write_twin
from .broken import DAMAGE
from .scenes import READERS, made_frames


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twins")
    frames = made_frames(folder / "source")
    return {name: write_twin(frames, name, folder / name) for name in WRITERS}


def read_all(format, root, cache) -> FrameSet:
    """The frames, after every pixel and every mask has been read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = READERS[format](root, cache)
        for frame in frames:
            frame.image()
            for item in frame.objects:
                if item.has_mask:
                    item.mask(frame.size_hw)
    return frames


@pytest.mark.parametrize(("format", "kind"), [(format, kind) for format, kinds in DAMAGE.items() for kind in kinds])
def test_damage_is_told_with_the_name_of_its_file(twins, tmp_path, format, kind):
    root = tmp_path / "data"
    shutil.copytree(twins[format.split()[0]], root)
    whole = read_all(format, root, tmp_path / "cache")
    damaged = DAMAGE[format][kind](root)
    try:
        frames = read_all(format, root, tmp_path / "cache")
        new = [drop for drop in frames.drops if drop not in whole.drops]
        message = "\n".join(f"{drop.where}: {drop.reason}" for drop in new)
        if any(drop.boxes for drop in new) and format != "isaid":  # damaged pixels are other objects
            assert frames.input_boxes == whole.input_boxes
    except RossamError as error:
        message = str(error)
        assert "Remedy: " in message
    assert damaged.stem in message.replace(str(tmp_path), "")


@pytest.mark.parametrize("format", READERS)
def test_byte_order_marks_and_line_ends_of_another_system_change_nothing(twins, tmp_path, format):
    root = tmp_path / "data"
    shutil.copytree(twins[format.split()[0]], root)
    whole = read_all(format, root, tmp_path / "cache")
    for path in [path for suffix in ("txt", "json", "xml") for path in root.rglob(f"*.{suffix}")]:
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes().replace(b"\n", b"\r\n"))
    again = read_all(format, root, tmp_path / "cache")
    assert list(again) == list(whole) and again.drops == whole.drops


def test_every_format_is_damaged_in_twelve_ways_at_least():
    assert set(DAMAGE) == set(READERS)
    assert min(map(len, DAMAGE.values())) >= 12
