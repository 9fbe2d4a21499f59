"""The index that readers keep: used while nothing below the dataset has changed, and never a source of faults."""

import os

import pytest
from PIL import Image

from rossam_core.errors import RossamError
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets import reading
from rossam_kit.datasets.frame_set import FrameSet


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    Image.new("RGB", (8, 6)).save(root / "1.png")
    return root


@pytest.fixture
def read(dataset, tmp_path):
    """`read(**options)` → the frames, and whether they were read anew."""
    calls = []

    def make() -> FrameSet:
        calls.append(1)
        return FrameSet("made", [Frame("made", "v", 1, dataset / "1.png", (6, 8))])

    def read(**options):
        calls.clear()
        return reading.indexed("made", dataset, [dataset], options, tmp_path / "cache", make), bool(calls)

    return read


def test_the_second_reading_is_from_the_index(read):
    first, anew = read()
    again, from_files = read()
    assert anew and not from_files and again.frames == first.frames


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "2.txt").write_text("new"),
        lambda root: (root / "1.png").unlink() or Image.new("RGB", (8, 6), (1, 2, 3)).save(root / "1.png"),
        lambda root: os.utime(root / "1.png", ns=(1, 1)),
    ],
)
def test_any_change_of_a_file_is_seen_and_the_old_index_removed(read, dataset, tmp_path, change):
    read()
    change(dataset)
    assert read()[1] and len(list((tmp_path / "cache/indices").glob("*.json.gz"))) == 1


def test_a_cache_that_cannot_be_written_stops_no_reader(read, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    for _ in range(2):
        with pytest.warns(UserWarning, match="not kept for next time(.|\n)*cannot be written"):
            frames, anew = read()
        assert anew and len(frames) == 1


def test_each_set_of_options_has_its_own_index(read):
    assert read(split="train")[1] and read(split="test")[1] and not read(split="train")[1]


def cut_short(content):
    return content[:100]


def one_bit_flipped(content):
    """In the middle of the file, where its text may stay valid."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("damage", [cut_short, one_bit_flipped])
def test_a_damaged_index_is_made_anew(read, tmp_path, damage):
    read()
    (index,) = (tmp_path / "cache/indices").glob("made-*.json.gz")
    index.write_bytes(damage(index.read_bytes()))
    with pytest.warns(UserWarning, match="is damaged and is computed again"):
        assert read()[1]
    assert not read()[1]


def test_a_missing_dataset_names_path_layout_and_source(tmp_path):
    for root, found in ((tmp_path / "gone", "no such folder"), (tmp_path, "no such dataset")):
        with pytest.raises(RossamError, match=rf"{root}: {found}(?s:.)*THE LAYOUT(?s:.)*Remedy: GET IT"):
            reading.find_folder(root, lambda folder: False, "THE LAYOUT", "GET IT")


def test_a_dataset_is_found_two_folders_below(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    assert reading.find_folder(tmp_path, lambda folder: folder.name == "b", "", "") == tmp_path / "a/b"


def entries(*boxes):
    return [reading.Entry(1, n, ObjectAnnotation(n, "ship", tuple(box))) for n, box in enumerate(boxes, start=1)]


def test_single_bad_boxes_are_logged_and_a_file_of_them_is_a_problem(tmp_path):
    report = reading.Report(tmp_path, "correct it")
    good, bad = [1, 1, 3, 3], [3, 3, 1, 1]
    usable = reading.usable_entries(entries(good, bad, good), (9, 9), tmp_path / "gt.txt", report)
    assert [entry.place for entry in usable] == [1, 3]
    assert report.drops[0].where == "gt.txt line 2" and not len(report.problems)
    reading.usable_entries(entries(good, bad, bad), (9, 9), tmp_path / "gt.txt", report)
    with pytest.raises(RossamError, match=r"gt\.txt line 2: .*inverted.*2 of 3 boxes(?s:.)*correct it"):
        report.raise_if_any()


def test_a_file_in_another_convention_is_a_problem(tmp_path):
    corners = [[60, 20, 84, 36], [70, 30, 95, 60], [80, 40, 90, 50], [50, 50, 60, 60]]
    as_read = [[x, y, x + x1, y + y1] for x, y, x1, y1 in corners]
    report = reading.Report(tmp_path, "correct it")
    reading.usable_entries(entries(*corners), (64, 96), tmp_path / "gt.txt", report, "xyxy")
    assert not len(report.problems)
    reading.usable_entries(entries(*as_read), (64, 96), tmp_path / "gt.txt", report, "xywh")
    with pytest.raises(RossamError, match=r"gt\.txt line 1: boxes are expected as xywh: .* as xyxy they do not"):
        report.raise_if_any()


LITTER = ("__MACOSX", "@eaDir", "System Volume Information", "$RECYCLE.BIN", ".Trashes", "lost+found", "#recycle",
          "RECYCLER", ".@__thumb", "@Recently-Snapshot", ".ipynb_checkpoints")  # fmt: skip


def test_what_systems_leave_in_folders_is_passed_over(tmp_path, read, dataset):
    for name in LITTER:
        (tmp_path / "set" / name).mkdir(parents=True)
        (dataset / name).mkdir()
    assert not reading.is_in_use(tmp_path / "set") and not reading.is_in_use(tmp_path / "nowhere")
    (tmp_path / "set/car_01").mkdir()
    assert reading.is_in_use(tmp_path / "set")
    for name in (".DS_Store", "._1.png", "Thumbs.db", "desktop.ini", "Icon\r", "1.png"):
        (tmp_path / "set" / name).write_bytes(b"x")
    assert [folder.name for folder in reading.subfolders(tmp_path / "set")] == ["car_01"]
    assert [path.name for path in reading.list_files(tmp_path / "set", (".png", ".db", ".ini"))] == ["1.png"]
    read()
    (dataset / ".DS_Store").write_bytes(b"x")
    (dataset / "@eaDir/1.png").write_bytes(b"x")
    assert not read()[1]  # no reason to read the files again


def test_frames_of_a_dataset_keep_the_names_of_their_files_in_it(read):
    assert [frame.source for frame in read()[0]] == [{"file_name": "1.png"}] == [f.source for f in read()[0]]
