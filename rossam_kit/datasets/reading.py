"""Common parts of the readers of real datasets: finding the folder, reporting all problems at once, caching the result.

All readers take `root`, the dataset's folder or one at most two levels above it, and `cache`, the folder for the index
(None: `files.cache_dir()`). A dataset is read from its files once, and from a COCO index in the cache afterwards, as
long as no file below its folder has changed. A `RossamError` says that the dataset is not there, what its layout is and
where to get it; or lists all problems with file and line.

Problems and drops: a fault of a whole file (unreadable, wrong columns, unknown class, sizes or
counts that disagree) stops the reading with one error that lists all of them. A single object that cannot be
used (no area, outside the frame, NaN) is left out and logged, unless most rows of its file are so: then the file
is not what it is taken for.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rossam_core import masks
from rossam_core.boxes import box_problems
from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import cache_dir, stable_hash
from rossam_core.records import ObjectAnnotation
from rossam_kit.cache import cached
from rossam_kit.datasets.box_conventions import FEW_BOXES, are_around, other_convention
from rossam_kit.datasets.coco import read_whole_index, write_coco_index
from rossam_kit.datasets.frame_set import Drop, FrameSet
from rossam_kit.datasets.images import image_size_hw, with_reading

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
LITTER = {
    *("__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "@recently-snapshot", "system volume information"),
    *("$recycle.bin", "recycler", "lost+found", "thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "__pycache__"),
}
"""Names (lower case) of what systems, storage devices and archives leave in folders, besides names with a dot first."""
READERS_VERSION = 2
"""To be raised with any change of a reader that moves its frames: cached indices of older versions are not used."""
MOSTLY = 0.5
"""Where a larger share of a file's boxes is unusable, the file and not the box is at fault."""


class Entry(NamedTuple):
    """An object that could be read from a file: its frame number, its line or name there, and itself."""

    number: int
    place: int | str
    item: ObjectAnnotation


def is_litter(name: str) -> bool:
    """Whether a file or folder of that name belongs to an operating system and not to a dataset."""
    return name.startswith((".", "~$")) or name.lower() in LITTER


def names_in(folder: Path) -> set[str]:
    """Names of a folder's entries but litter; none where there is no such folder."""
    return {path.name for path in folder.iterdir() if not is_litter(path.name)} if folder.is_dir() else set()


class Report:
    """Problems and drops of one dataset, each with its file (relative to the dataset) and its place in it.

    `at` is a line number, or a name such as `annotation 3`.

    Args:
        root: the dataset's folder.
        remedy: what to do about problems.
    """

    def __init__(self, root: Path, remedy: str):
        self.root, self.remedy = root, remedy
        self.problems, self.drops = ProblemList(root), []

    def problem(self, path: Path, finding: str, at: int | str | None = None) -> None:
        self.problems.add(self._place(path, at), finding)

    def drop(self, path: Path, reason: str, at: int | str | None = None, boxes: int = 0) -> None:
        self.drops.append(Drop(self._place(path, at), reason, boxes))

    def raise_if_any(self) -> None:
        self.problems.raise_if_any(self.remedy)

    def _place(self, path: Path, at: int | str | None) -> str:
        place = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        return place if at is None else f"{place} {f'line {at}' if isinstance(at, int) else at}"


def find_folder(root: str | os.PathLike, is_dataset: Callable[[Path], bool], layout: str, how_to_get: str) -> Path:
    """`root`, or the first folder at most two levels below it, that `is_dataset`.

    Raises:
        RossamError: none is; names the path, the layout expected, and how to get the dataset.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise RossamError(root, f"no such folder; expected\n{layout}", how_to_get)
    level = [root]
    for _ in range(3):
        for folder in level:
            if is_dataset(folder):
                return folder
        level = [child for folder in level for child in subfolders(folder)]
    raise RossamError(root, f"no such dataset in it or two folders below; expected\n{layout}", how_to_get)


def is_in_use(folder: Path) -> bool:
    """Whether a folder holds anything but litter."""
    return bool(_listed(folder))


def subfolders(folder: Path) -> list[Path]:
    """Folders in `folder`, sorted by name; none where it does not exist. Litter is passed over."""
    return [folder / entry.name for entry in _listed(folder) if entry.is_dir()]


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of these suffixes in `folder`, sorted by name; none where it does not exist. Litter is passed over."""
    return [folder / entry.name for entry in _listed(folder) if os.path.splitext(entry.name)[1].lower() in suffixes]


def _listed(folder: Path) -> list[os.DirEntry]:
    """What is in a folder, but litter, sorted by name; nothing where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not is_litter(entry.name)), key=lambda entry: entry.name)


def numbered_files(folder: Path, suffixes: tuple[str, ...], report: Report) -> dict[int, Path]:
    """Files by the number their stem is, in order. A stem that is none is logged, a number twice is a problem."""
    numbered: dict[int, Path] = {}
    for path in list_files(folder, suffixes):
        if not re.fullmatch(r"[0-9]{1,9}", path.stem):
            report.drop(path, "its name is not a frame number")
        elif int(path.stem) in numbered:
            report.problem(path, f"is frame {int(path.stem)}, as {numbered[int(path.stem)].name} is")
        else:
            numbered[int(path.stem)] = path
    return dict(sorted(numbered.items()))


def size_or_problem(path: Path, report: Report) -> tuple[int, int] | None:
    """Height and width from the image's header; where it cannot be read, a problem and None."""
    try:
        return image_size_hw(path)
    except RossamError as error:
        report.problem(path, error.finding)
        return None


def usable_entries(
    entries: Sequence[Entry], size_hw: tuple[int, int], path: Path, report: Report, convention: str = "xywh"
) -> list[Entry]:
    """Those of a file whose box holds a pixel of the frame; the others are logged, or a problem if they are most.

    Boxes that look like another convention's than the file's (one of `box_conventions.CONVENTIONS`) are a problem, too.
    """
    boxes = np.array([entry.item.box_xyxy for entry in entries], dtype=np.float64).reshape(-1, 4)
    faults = dict(box_problems(boxes, size_hw))
    for index, fault in faults.items():
        report.drop(path, f"box {fault}", entries[index].place, boxes=1)
    if len(faults) > max(1, MOSTLY * len(boxes)):
        index, fault = next(iter(faults.items()))
        finding = f"box {fault}; {len(faults)} of {len(boxes)} boxes cannot be used"
        report.problem(path, finding, entries[index].place)
    elif len(boxes) >= FEW_BOXES:
        values = boxes.copy()
        values[:, 2:] -= boxes[:, :2] if convention == "xywh" else 0
        if (other := other_convention(values, convention, size_hw)) is not None:
            finding = f"many of {len(boxes)} boxes lie largely outside the frame; as {other} they do not"
            report.problem(path, f"boxes are expected as {convention}: {finding}", entries[0].place)
    return [entry for index, entry in enumerate(entries) if index not in faults]


def entries_around_masks(entries: Sequence[Entry], size_hw: tuple[int, int], path: Path, report: Report) -> list[Entry]:
    """Those whose box (in the file: two corners) fits their mask, and those without one; the others are logged.

    It is a problem where they are most, or where the boxes fit as another convention.
    """
    extents = [masks.extent(e.item.segmentation, size_hw) if e.item.has_mask else None for e in entries]
    boxes = np.array([entry.item.box_xyxy for entry in entries], dtype=np.float64).reshape(-1, 4)
    is_box = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    masked = [i for i, extent in enumerate(extents) if extent is not None and is_box[i]]
    if not masked:
        return list(entries)
    boxes, around = boxes[masked], np.array([extents[i] for i in masked])
    wrong = [i for i, fits in zip(masked, are_around(boxes, around, size_hw), strict=True) if not fits]
    for i in wrong:
        box, extent = list(entries[i].item.box_xyxy), extents[i].tolist()
        report.drop(path, f"box {box} is not around its mask {extent}", entries[i].place, boxes=1)
    other = other_convention(boxes, "xyxy", size_hw, around)
    if other is not None or len(wrong) > max(1, len(masked) / 2):
        finding = "most are not around their masks" if other is None else f"as {other} they fit their masks"
        report.problem(path, f"boxes are expected as xyxy: {finding}", entries[masked[0]].place)
    return [entry for i, entry in enumerate(entries) if i not in wrong]


def indexed(
    name: str,
    root: Path,
    folders: Iterable[Path],
    options: dict,
    cache: Path | None,
    read: Callable[[], FrameSet],
) -> FrameSet:
    """The frames that `read` returns, from an index in the cache folder where a valid one exists.

    An index is valid as long as path, size and modification time of every file below `folders`, the options, and
    `READERS_VERSION` are unchanged. A newer index replaces it.

    Args:
        folders: files and folders that `read` looks at.
        cache: folder for indices; None = `files.cache_dir()`.
    """
    origin = stable_hash([str(root.resolve()), options])[:12]
    states = sorted(_file_states(folders))
    state, seen = stable_hash([READERS_VERSION, states])[:16], {name for name, *_ in states}
    folder = (cache or cache_dir()) / "indices"
    path = folder / f"{name}-{origin}-{state}.json.gz"

    def load(path: Path) -> FrameSet:
        with _collector_paused():
            return read_whole_index(path, seen)

    def save(temporary: Path, frames: FrameSet) -> None:
        write_coco_index(frames, temporary, image_root=root)
        for stale in folder.glob(f"{name}-{origin}-*.json*"):
            stale.unlink(missing_ok=True)

    return cached(path, lambda: with_reading(_with_file_names(read(), root), cache=cache), load=load, save=save)


def _with_file_names(frames: FrameSet, root: Path) -> FrameSet:
    """The frames with the names of their images below the dataset's folder, as exports give them."""
    named = [
        replace(f, source={"file_name": f.image_path.relative_to(root).as_posix()} | dict(f.source))
        if f.image_path.is_relative_to(root)
        else f
        for f in frames
    ]
    return FrameSet(frames.name, named, frames.drops, frames.classes)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause garbage collection, which takes longer than reading when millions of small objects are created."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _file_states(paths: Iterable[Path]) -> Iterator[tuple[str, int, int]]:
    """Path, size, and time of change of every file in or below `paths`."""
    for path in paths:
        for entry in _listed(path):
            if entry.is_dir():
                yield from _file_states([Path(entry.path)])
            else:
                state = entry.stat()
                yield entry.path, state.st_size, state.st_mtime_ns
        if path.is_file():
            state = path.stat()
            yield str(path), state.st_size, state.st_mtime_ns
