"""Exports run again: the same files, and none overwritten that was changed since."""

import os

import pytest
from tiny_tracks import Notched, all_bytes

from rossam_core.errors import RossamError
from rossam_kit.convert import exporting, exports
from rossam_kit.convert.command import FORMATS
from rossam_kit.convert.convert import ConversionConfig, convert


@pytest.fixture
def done(frames, tmp_path):
    return convert(Notched(), frames, tmp_path / "masks", ConversionConfig(jitter=0))


@pytest.mark.parametrize("format", FORMATS)
def test_an_unchanged_export_is_repeated_and_a_changed_one_is_refused(format, done):
    ((_, path),) = exporting.export(done, [format])
    before = all_bytes(done.folder)
    exporting.export(done, [format])
    assert all_bytes(done.folder) == before
    for file in sorted(path.rglob("*.*")) if path.is_dir() else [path]:
        original = file.read_bytes()
        file.write_bytes(original + b" ")
        with pytest.raises(
            RossamError, match=f"was changed since it was exported(?s:.)*--format {format} out"
        ) as error:
            exporting.export(done, [format])
        assert error.value.where == str(file) and file.read_bytes() == original + b" "
        file.unlink()
        exporting.export(done, [format])
    assert all_bytes(done.folder) == before


@pytest.fixture
def write(monkeypatch, done):
    """A function that exports files (name → text) as png, and fails where a text is None."""

    def export(**texts):
        def writer(conversion, folder):
            for name, text in texts.items():
                exports.write_text(folder / name, text)
            return folder

        monkeypatch.setitem(exports.EXPORTS, "png", ("labels", writer))
        exporting.export(done, ["png"])
        return {path.name: path.read_text() for path in sorted((done.folder / "labels").iterdir())}

    return export


def test_an_export_that_failed_or_was_killed_is_repeated(write, done, monkeypatch):
    assert write(a="1", b="1") == {"a": "1", "b": "1"}
    with pytest.raises(AttributeError):
        write(a="2", b=None)
    assert (done.folder / "labels/a").read_text() == "1" and not (done.folder / exporting.STAGE).exists()
    replace = os.replace

    def killed(source, target):
        if os.path.basename(source) == "b":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(exporting.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(a="3", b="3")
    monkeypatch.setattr(exporting.os, "replace", replace)
    assert [(done.folder / "labels" / name).read_text() for name in "ab"] == ["3", "1"]
    exports.write_text(done.folder / exporting.STAGE / "b", "of a process that was killed")
    assert write(a="4", c="4") == {"a": "4", "b": "1", "c": "4"}
    assert write(b="5") == {"a": "4", "b": "5", "c": "4"}


def test_files_that_nobody_exported_or_nobody_may_read_are_not_overwritten(write, done, monkeypatch):
    exports.write_text(done.folder / "labels/a", "mine")
    with pytest.raises(RossamError, match="was changed since it was exported"):
        write(a="1")
    (done.folder / "labels/a").unlink()
    (done.folder / "labels/a").mkdir()
    with pytest.raises(RossamError, match=r"cannot be read(?s:.)*move it away"):
        write(a="1")
    assert not (done.folder / exporting.EXPORTED).exists()
