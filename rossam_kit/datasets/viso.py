"""VISO: satellite videos of 1024×1024 pixels with small moving objects, boxes for one object or all of them.

The folder holds `mot/` or `sot/` or both. Each sequence is a video named by its folder, e.g. `mot/car/001`. Yin et al.,
IEEE TGRS 60 (2022).

`mot/<class>/<NNN>/gt/gt.txt` holds rows separated by commas, `frame,id,x,y,w,h,…` (the published car and train
sequences), or by spaces, `frame id x1 y1 x2 y2 …` (plane and ship); which is decided for each file.
`sot/<class>/<NNN>/gt/<id>_<start>_<end>.txt` holds a row `x,y,w,h` for each frame from start to end, zeros where
the object is out of sight. Also read: `sot/<class>/<NNN>_<id>/groundtruth_rect.txt`, rows from frame 1 on,
the form in which single sequences are passed on. Some published rows are malformed, and some sequences have
boxes for few of their frames: both are left out and logged.

Coordinates: nothing states whether the first pixel is 0 or 1, nor whether x2 and y2 belong to the box; it is taken for
0, and they for the outer edge, as x + w is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from rossam_core.records import Box, Frame, ObjectAnnotation
from rossam_kit.datasets.box_conventions import xywh_box
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.reading import (
    MOSTLY,
    Entry,
    Report,
    find_folder,
    indexed,
    list_files,
    subfolders,
    usable_entries,
)
from rossam_kit.datasets.tracking_text import (
    ABSENT,
    CATEGORIES,
    REMEDY,
    Row,
    parse_numbers,
    parse_whole,
    read_clip,
    read_rows,
)

NAME = "viso"
TASKS = ("mot", "sot")
TRACK_FILE = re.compile(r"(\d+)_(\d+)_(\d+)")
LONE_TRACK = "groundtruth_rect.txt"
LAYOUT = f"""\
    mot/<class>/<NNN>/img/000001.jpg …, mot/<class>/<NNN>/gt/gt.txt
    sot/<class>/<NNN>/img/000001.jpg …, sot/<class>/<NNN>/gt/<id>_<start>_<end>.txt
    one of the two, <class> among {", ".join(CATEGORIES)}"""
HOW_TO_GET = "follow the download links in the README of the GitHub repository QingyongHu/VISO"
Tracks = Iterator[tuple[Path, list[Entry], str]]
"""Files with the entries of each and the convention of its boxes."""


def read_viso(root: str | PathLike, cache: Path | None = None) -> FrameSet:
    """All sequences of both tasks, sorted by name; arguments and errors: `reading`. There is no split by sequence.

    `mot` has every moving object, `sot` chosen objects, each in a track of its own; one of them may be missing.
    """
    root = find_folder(root, lambda f: any(subfolders(f / name) for name in TASKS), LAYOUT, HOW_TO_GET)
    folders = [root / name for name in TASKS]
    return indexed(NAME, root, folders, {"tasks": TASKS}, cache, lambda: _read(root, folders))


def _read(root: Path, folders: Sequence[Path]) -> FrameSet:
    report, frames = Report(root, REMEDY), []
    for task in folders:
        for category in subfolders(task):
            if category.name not in CATEGORIES:
                report.problem(category, f"is not a class among {', '.join(CATEGORIES)}")
                continue
            for sequence in subfolders(category):
                frames += _read_sequence(sequence, category.name, report)
    report.raise_if_any()
    return FrameSet(NAME, frames, report.drops, list(enumerate(CATEGORIES, start=1)))


def _read_sequence(folder: Path, category: str, report: Report) -> list[Frame]:
    video = folder.relative_to(report.root).as_posix()
    clip = read_clip(folder / "img", report, contiguous=False)
    if clip is None:
        return []
    has_every_object = video.startswith("mot/")
    objects: dict[int, dict[int, ObjectAnnotation]] = {}
    for path, entries, convention in (_every_object if has_every_object else _chosen_objects)(folder, category, report):
        for number, line, _ in entries:
            if number not in clip.images:
                report.problem(path, f"frame {number} has no image img/{number:06d}", line)
        usable = usable_entries(entries, clip.size_hw, path, report, convention)
        for number, line, item in sorted(usable, key=lambda entry: (entry.item.object_id, entry.number)):
            in_frame = objects.setdefault(number, {})
            if in_frame.setdefault(item.object_id, item) is not item:
                finding = f"object {item.object_id} has a box in frame {number} already, from another file"
                report.drop(path, finding, line, boxes=1)
    if not has_every_object:
        for number in sorted(set(clip.images) - set(objects)):
            report.drop(clip.images[number], "no box for this frame")
    return [
        Frame(NAME, video, number, path, clip.size_hw, tuple(objects.get(number, {}).values()))
        for number, path in clip.images.items()
        if number in objects or has_every_object
    ]


def _every_object(folder: Path, category: str, report: Report) -> Tracks:
    """`gt/gt.txt`: frame, id, and box in each row."""
    path = folder / "gt/gt.txt"
    rows, delimiter = read_rows(path, report)
    convention, expected = ("xywh", "frame,id,x,y,w,h,…") if delimiter == "," else ("xyxy", "frame id x1 y1 x2 y2 …")
    entries: dict[tuple[int, int], Entry] = {}
    malformed = []
    for line, fields in rows:
        values = parse_numbers(fields[2:6])
        number, object_id = (parse_whole(value) for value in fields[:2]) if len(fields) >= 6 else (None, None)
        if number is None or object_id is None or values is None:
            malformed.append((line, fields))
        elif (object_id, number) in entries:
            report.drop(path, f"object {object_id} has a box in frame {number} already", line, boxes=1)
        else:
            box: Box = xywh_box(values) if convention == "xywh" else tuple(values)
            entries[object_id, number] = Entry(number, line, ObjectAnnotation(object_id, category, box))
    _log_malformed(malformed, len(rows), expected, path, report)
    yield path, list(entries.values()), convention


def _chosen_objects(folder: Path, category: str, report: Report) -> Tracks:
    """`gt/<id>_<start>_<end>.txt` or `groundtruth_rect.txt`: the box of one object in each row."""
    paths = list_files(folder / "gt", (".txt",)) or [path for path in [folder / LONE_TRACK] if path.exists()]
    if not paths:
        report.problem(folder / "gt", f"holds no <id>_<start>_<end>.txt, nor is there a {LONE_TRACK} beside it")
    for path in paths:
        object_id, start, end = 1, 1, None
        if path.name != LONE_TRACK:
            match = TRACK_FILE.fullmatch(path.stem)
            if match is None:
                report.problem(path, "is not named <id>_<start>_<end>.txt")
                continue
            object_id, start, end = map(int, match.groups())
        rows, _ = read_rows(path, report)
        if end is not None and rows and len(rows) != end - start + 1:
            report.problem(path, f"holds {len(rows)} rows for frames {start} to {end}")
            continue
        entries, malformed = [], []
        for number, (line, fields) in enumerate(rows, start=start):
            values = parse_numbers(fields)
            if values is None or len(values) != 4:
                malformed.append((line, fields))
            elif not any(values):
                report.drop(path, ABSENT, line)
            else:
                entries.append(Entry(number, line, ObjectAnnotation(object_id, category, xywh_box(values))))
        _log_malformed(malformed, len(rows), "x,y,w,h", path, report)
        yield path, entries, "xywh"


def _log_malformed(malformed: list[Row], count: int, expected: str, path: Path, report: Report) -> None:
    for line, fields in malformed:
        report.drop(path, f"malformed row {','.join(fields)!r}, expected {expected}", line, boxes=1)
    if len(malformed) > max(1, MOSTLY * count):
        report.problem(path, f"{len(malformed)} of {count} rows are malformed, expected {expected}", malformed[0][0])
