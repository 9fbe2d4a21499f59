"""Text files with one box per row, and the folders of numbered frames they belong to, as in tracking datasets."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rossam_core.records import Box, Frame, ObjectAnnotation
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.reading import (
    IMAGE_SUFFIXES,
    Entry,
    Report,
    numbered_files,
    size_or_problem,
    subfolders,
    usable_entries,
)

CATEGORIES = ("car", "plane", "ship", "train")
"""Classes of SatSOT, OOTB and VISO."""
SEQUENCE = re.compile(r"([a-z]+)_(\d+)")
"""A sequence's folder in SatSOT and OOTB: class and number."""
ABSENT = "target absent"
REMEDY = "unpack the dataset anew; a file that is damaged in the original too can be moved away with its sequence"
Row = tuple[int, list[str]]
ToObject = Callable[[list[float]], tuple[Box, dict[str, Any]]]
"""Numbers of a row → box in pixel-edge coordinates, and the object's attributes; `ValueError` where they are no box."""


@dataclass(frozen=True)
class Clip:
    """Frames of one sequence: image by frame number, and the height and width that all of them have."""

    images: Mapping[int, Path]
    size_hw: tuple[int, int]


def read_clip(folder: Path, report: Report, contiguous: bool = True) -> Clip | None:
    """The numbered images in `folder`; None where there is no readable one (a problem).

    Args:
        contiguous: numbers must be 1 to N without a gap.
    """
    images = numbered_files(folder, IMAGE_SUFFIXES, report)
    if not images:
        report.problem(folder, "holds no numbered images" if folder.is_dir() else "no such folder of images")
        return None
    missing = sorted(set(range(1, max(images) + 1)) - set(images)) if contiguous else []
    if missing:
        example = images[max(images)]
        name = f"{missing[0]:0{len(example.stem)}d}{example.suffix}"
        report.problem(folder / name, f"no such image file; {len(missing)} of frames 1 to {max(images)} are missing")
    sizes = {path: size for path in images.values() if (size := size_or_problem(path, report)) is not None}
    if not sizes:
        return None
    size_hw = next(iter(sizes.values()))
    for path, size in sizes.items():
        if size != size_hw:
            report.problem(path, f"height×width is {size}, the first frame's is {size_hw}")
    return Clip(images, size_hw)


def read_rows(path: Path, report: Report) -> tuple[list[Row], str]:
    """Line number and fields of each row up to the last that is not blank, and the delimiter: comma or space.

    A blank row has no fields. A file that is missing, empty, or not text is a problem and has no rows.
    """
    lines, finding = [], "is empty"
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except FileNotFoundError:
        finding = "no such file"
    except (OSError, UnicodeDecodeError) as error:
        finding = f"cannot be read as text ({error})"
    if any("\0" in line for line in lines):
        lines, finding = [], "holds zero bytes: it is not a UTF-8 text file"
    if not lines:
        report.problem(path, finding)
        return [], ","
    delimiter = "," if sum("," in line for line in lines) * 2 > len(lines) else " "
    split = [line.split(",") if delimiter == "," else line.split() for line in lines]
    fields = [
        [value.strip() for value in values] if line.strip() else [] for line, values in zip(lines, split, strict=True)
    ]
    return list(enumerate(fields, start=1)), delimiter


def parse_numbers(fields: Sequence[str]) -> list[float] | None:
    """The fields as floats (NaN and infinity included), None where one is no number."""
    try:
        return [float(value) for value in fields]
    except ValueError:
        return None


def parse_whole(value: str) -> int | None:
    """A field such as `12` or `12.0` as an int, None where it is anything else."""
    number = (parse_numbers([value]) or [math.nan])[0]
    return int(number) if math.isfinite(number) and number == int(number) else None


def single_object_set(
    dataset: str,
    root: Path,
    columns: int,
    to_object: ToObject,
    attributes_of: Callable[[Path, Report], Mapping[str, Any]] = lambda folder, report: {},
    beside: Sequence[str] = (),
) -> FrameSet:
    """All sequences `root/<class>_<number>` that each follow one object, sorted by class and number.

    Args:
        columns: numbers in a row of `groundtruth.txt`.
        attributes_of: folder of a sequence → attributes of its frames.
        beside: folders that may lie beside the sequences.

    Raises:
        RossamError: a list of all problems with file and line.
    """
    report, sequences, frames = Report(root, REMEDY), [], []
    for folder in subfolders(root):
        match = SEQUENCE.fullmatch(folder.name)
        if match is not None and match[1] in CATEGORIES:
            sequences.append((match[1], int(match[2]), folder))
        elif folder.name not in beside:
            report.problem(folder, f"is not a sequence <class>_<number> of a class among {', '.join(CATEGORIES)}")
    for category, _, folder in sorted(sequences):
        attributes, clip = attributes_of(folder, report), read_clip(folder / "img", report)
        objects = _read_object(folder / "groundtruth.txt", category, columns, to_object, clip, report)
        if objects is not None:
            frames += [
                Frame(dataset, folder.name, number, path, clip.size_hw, objects.get(number, ()), dict(attributes))
                for number, path in clip.images.items()
            ]
    report.raise_if_any()
    return FrameSet(dataset, frames, report.drops, list(enumerate(CATEGORIES, start=1)))


def _read_object(
    path: Path, category: str, columns: int, to_object: ToObject, clip: Clip | None, report: Report
) -> dict[int, tuple[ObjectAnnotation]] | None:
    """Frame number → the object, from a file with one row per frame; None where the file cannot be used.

    A row `none`, or of zeros alone, says that the target is absent: it is logged, and the frame stays without objects.
    """
    rows, _ = read_rows(path, report)
    if clip is None or not rows:
        return None
    if len(rows) != len(clip.images):
        report.problem(path, f"holds {len(rows)} rows, img/ holds {len(clip.images)} frames")
        return None
    entries = []
    for number, (line, fields) in zip(clip.images, rows, strict=True):
        values = parse_numbers(fields)
        if [field.lower() for field in fields] == ["none"] or (values and len(values) == columns and not any(values)):
            report.drop(path, f"{ABSENT} ({','.join(fields)})", line)
        elif values is None or len(values) != columns:
            report.problem(path, f"is {','.join(fields)!r}, expected {columns} numbers or 'none'", line)
        else:
            try:
                box, attributes = to_object(values)
                entries.append(Entry(number, line, ObjectAnnotation(1, category, box, attributes=attributes)))
            except ValueError as fault:
                report.drop(path, str(fault), line, boxes=1)
    usable = usable_entries(entries, clip.size_hw, path, report, "xywh" if columns == 4 else "xyxy")
    return {entry.number: (entry.item,) for entry in usable}
