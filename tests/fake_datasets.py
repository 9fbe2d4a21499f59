"""Lays a frame set out in a dataset's own format, file for file, so that its reader reads it back.

In: any `FrameSet`, as a rule a generated one. Out: a folder that looks like the published dataset. It serves tests,
and runs of the real datasets' code where the real datasets are not at hand.

What comes back: boxes to within 1e-6 pixels (coordinates are written in full), masks pixel for pixel. What a format
has no place for is lost: masks in satsot, ootb and viso; objects without a mask in authors, isaid and SAT-MTB's seg;
whichever of two overlapping objects comes first, where the other lies above it, in isaid. JPEG formats change
pixel values. Track numbers stay in sat-mtb, viso and coco.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import cv2
import numpy as np
import openpyxl

from rossam_core.errors import RossamError
from rossam_core.files import atomic_path, write_bytes, write_json, write_text
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.config import Split
from rossam_kit.convert.outlines import is_hole, outlines
from rossam_kit.datasets import isaid, nwpu_vhr10, ootb, sat_mtb, viso
from rossam_kit.datasets.coco import write_coco_index
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.reading import subfolders
from rossam_kit.datasets.sat_mtb import read_xlsx

JPEG_QUALITY = 95
TRACKED = {name: {"airplane": "plane"}.get(name, name) for name in ("airplane", *viso.CATEGORIES)}
NAMES: Mapping[str, Mapping[str, str]] = {
    "sat-mtb": {"plane": "airplane"} | {name: name for name in sat_mtb.CATEGORIES},
    "isaid": {"airplane": "plane", "vehicle": "small_vehicle", "car": "small_vehicle"}
    | {name: name for name in isaid.CATEGORIES},
    "nwpu-vhr10": {"plane": "airplane", "car": "vehicle"} | {name: name for name in nwpu_vhr10.CATEGORIES},
    "satsot": TRACKED,
    "ootb": TRACKED,
    "viso": TRACKED,
}
"""Category → what the format calls it. Formats not listed take any category."""


def write_xlsx(path: str | os.PathLike, sheets: Mapping[str, Sequence[Sequence[str | int | float | None]]]) -> None:
    """Write rows of text and numbers, one sheet per name; None and "" leave a cell empty."""
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for name, rows in sheets.items():
        sheet = workbook.create_sheet(name)
        for row in rows:
            sheet.append([None if cell == "" else cell for cell in row])
    workbook.save(path)


def write_twin(frames: FrameSet, format: str, root: str | os.PathLike, split: Split = "test") -> Path:
    """Write `frames` below `root` in a dataset's format; what is there stays, numbers go on after it.

    Args:
        frames: with categories that the format knows.
        format: `sat-mtb`, `authors`, `isaid`, `satsot`, `viso`, `ootb`, `nwpu-vhr10` or `coco`.
        root: a folder, made where it does not exist.
        split: where the format has splits, the one to write; iSAID's `test` is written as `val`.

    Raises:
        RossamError: unknown format or split, or a list of all categories that the format has no class for.
    """
    if format not in WRITERS:
        raise RossamError(format, "no format of that name", f"use one of {', '.join(WRITERS)}")
    if split not in get_args(Split):
        raise RossamError(split, "no split of that name", f"use one of {', '.join(get_args(Split))}")
    names = NAMES.get(format)
    strange = sorted(set(frames.categories) - set(names)) if names is not None else []
    if strange:
        raise RossamError(
            frames.name,
            f"{format} has no class for {', '.join(strange)}",
            f"leave them out with FrameSet.keep_objects, or use categories among {', '.join(names)}",
        )
    root = Path(root)
    WRITERS[format](_videos(frames, names or {}), root, split)
    return root


def _videos(frames: FrameSet, names: Mapping[str, str]) -> dict[str, list[Frame]]:
    """Frames by video, categories as the format calls them."""
    videos: dict[str, list[Frame]] = {}
    for frame in frames:
        objects = [
            ObjectAnnotation(o.object_id, names.get(o.category, o.category), o.box_xyxy, o.segmentation, o.attributes)
            for o in frame.objects
        ]
        videos.setdefault(frame.video, []).append(frame.with_objects(objects))
    return videos


def polygons_of(mask: np.ndarray) -> list[list[float]]:
    """Polygons [x0, y0, x1, y1, …] that fill to exactly this mask: its outlines, or, where it has holes, row by row."""
    loops = outlines(mask)
    if not any(is_hole(loop) for loop in loops):
        return [loop.ravel().tolist() for loop in loops]
    rectangles = []
    for y in np.flatnonzero(mask.any(axis=1)).tolist():
        edges = np.flatnonzero(np.diff(np.pad(mask[y], 1).astype(np.int8))).tolist()
        rectangles += [[a, y, b, y, b, y + 1, a, y + 1] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [[float(value) for value in rectangle] for rectangle in rectangles]


def _write_sat_mtb(videos: dict[str, list[Frame]], root: Path, split: Split) -> None:
    """All four kinds of annotation, but for cars, which have only tracks in the original; `val` counts as train."""
    listed = "test" if split == "test" else "train"
    sheets = dict.fromkeys(sat_mtb.SHEETS.values())
    if (root / sat_mtb.SPLIT_FILE).exists():
        sheets |= read_xlsx(root / sat_mtb.SPLIT_FILE)
    for frames in videos.values():
        category = _main_category(frames, sat_mtb.CATEGORIES)
        number = _next_number(root / category)
        folder = root / category / f"{number:02d}"
        has_seg = category != "car" and any(o.has_mask for f in frames for o in f.objects)
        rows = []
        for frame in frames:
            name = f"{frame.index:06d}"
            _copy_image(frame, folder / "img" / f"{name}.png")
            if has_seg:
                write_json(folder / "seg" / f"{name}.json", _sat_mtb_json(frame, name))
            for part, is_oriented in () if category == "car" else (("HBB", False), ("OBB", True)):
                write_text(folder / "det" / part / f"{name}.xml", _sat_mtb_xml(frame, name, is_oriented))
            rows += [
                [frame.index, o.object_id, *_xywh(o), 1, sat_mtb.MOT_CLASSES.index(o.category), 0, 0, 0]
                for o in frame.objects
            ]
        if rows:
            _write_rows(folder / "mot" / f"{number:02d}.txt", rows)
        for kind, sheet in sat_mtb.SHEETS.items():
            if (folder / sat_mtb.FOLDERS[kind]).is_dir():
                sheets[sheet] = _list_sequence(sheets[sheet], category, number, listed)
    write_xlsx(
        root / sat_mtb.SPLIT_FILE, {name: sheet or [["", *sat_mtb.CATEGORIES]] for name, sheet in sheets.items()}
    )


def _list_sequence(sheet: list[list[str]] | None, category: str, number: int, split: str) -> list[list[str]]:
    """A split sheet with one more sequence; column A names the split in its first row only."""
    columns: dict[str, dict[str, list[str]]] = {s: {c: [] for c in sat_mtb.CATEGORIES} for s in ("train", "test")}
    current = ""
    for row in (sheet or [[]])[1:]:
        current = row[0] or current
        for name, cell in zip(sat_mtb.CATEGORIES, row[1:], strict=False):
            columns[current][name] += [cell] if cell else []
    columns[split][category].append(str(number))
    rows = [["", *sat_mtb.CATEGORIES]]
    for its_split, lists in columns.items():
        for i in range(max(map(len, lists.values()))):
            cells = [int(float(numbers[i])) if i < len(numbers) else None for numbers in lists.values()]
            rows.append([its_split if i == 0 else "", *cells])
    return rows


def _sat_mtb_json(frame: Frame, name: str) -> dict:
    height, width = frame.size_hw
    ids = {category: i for i, category in enumerate(sat_mtb.CATEGORIES, start=1)}
    return {
        "images": [{"id": 1, "file_name": f"{name}.png", "height": height, "width": width}],
        "categories": [{"id": i, "name": c, "supercategory": c} for c, i in ids.items()],
        "annotations": [
            {
                "id": o.object_id,
                "image_id": 1,
                "category_id": ids[o.category],
                "bbox": list(o.box_xyxy),
                "segmentation": polygons_of(o.mask(frame.size_hw)),
                "iscrowd": 0,
            }
            for o in frame.objects
            if o.has_mask
        ],
    }


def _sat_mtb_xml(frame: Frame, name: str, is_oriented: bool) -> str:
    tree = ElementTree.Element("annotation")
    ElementTree.SubElement(tree, "filename").text = f"{name}.png"
    size = ElementTree.SubElement(tree, "size")
    for tag, value in zip(("width", "height", "depth"), (*frame.size_hw[::-1], 3), strict=True):
        ElementTree.SubElement(size, tag).text = str(value)
    for item in frame.objects:
        element = ElementTree.SubElement(tree, "object")
        for tag, value in (("name", item.category), ("subname", item.category), ("objectID", item.object_id)):
            ElementTree.SubElement(element, tag).text = str(value)
        tags = [f"{axis}{i}" for i in range(4) for axis in "xy"] if is_oriented else ["xmin", "ymin", "xmax", "ymax"]
        box = ElementTree.SubElement(element, "robndbox" if is_oriented else "bndbox")
        values = np.ravel(_corners(item)).tolist() if is_oriented else item.box_xyxy
        for tag, value in zip(tags, values, strict=True):
            ElementTree.SubElement(box, tag).text = repr(float(value))
    ElementTree.indent(tree)
    return ElementTree.tostring(tree, encoding="unicode") + "\n"


def _write_authors(videos: dict[str, list[Frame]], root: Path, split: Split) -> None:
    for video, frames in videos.items():
        for frame in frames:
            stem = f"{video.replace('/', '_')}_{frame.index:06d}"
            masked = [o for o in frame.objects if o.has_mask]
            _copy_image(frame, root / split / "img" / f"{stem}.png")
            boxes = np.array([o.box_xyxy for o in masked], dtype=np.float64).reshape(-1, 4)
            with atomic_path(root / split / "boxes" / f"{stem}.npy") as path:
                np.save(path, boxes)
            with atomic_path(root / split / "onehotmask" / f"{stem}.npy") as path, open(path, "wb") as stream:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(masked), *frame.size_hw)}
                np.lib.format.write_array_header_1_0(stream, header)
                for item in masked:  # one object in memory at a time
                    stream.write((item.mask(frame.size_hw) * np.uint8(255)).tobytes())


def _write_isaid(videos: dict[str, list[Frame]], root: Path, split: Split) -> None:
    folder = root / ("val" if split == "test" else split) / "images"
    first = len(list(folder.glob(f"*{isaid.ID_SUFFIX}"))) if folder.is_dir() else 0
    for number, frame in enumerate((f for frames in videos.values() for f in frames), start=first):
        colours, ids = (np.zeros((*frame.size_hw, 3), np.uint8) for _ in range(2))
        for position, item in enumerate((o for o in frame.objects if o.has_mask), start=1):
            mask, code = item.mask(frame.size_hw), position * 5003  # all three channels come into use
            colours[mask] = isaid.COLOURS[item.category]
            ids[mask] = code & 255, code >> 8 & 255, code >> 16
        _copy_image(frame, folder / f"P{number:04d}.png")
        for suffix, array in ((isaid.CLASS_SUFFIX, colours), (isaid.ID_SUFFIX, ids)):
            write_bytes(folder / f"P{number:04d}{suffix}", _encoded(array, ".png"))


def _write_sequences(name_of: Callable, to_row: Callable, videos: dict[str, list[Frame]], root: Path) -> list[Path]:
    """A folder for each object of each video, with a row for each frame of the video."""
    folders = []
    for frames in videos.values():
        tracks = {o.object_id: o.category for frame in frames for o in frame.objects}
        images = [_encoded(frame.image(), ".jpg") for frame in frames] if tracks else []
        for object_id, category in tracks.items():
            folder = root / name_of(category, _next_number(root, f"{category}_"))
            for number, image in enumerate(images, start=1):
                write_bytes(folder / "img" / f"{number:04d}.jpg", image)
            items = [next((o for o in frame.objects if o.object_id == object_id), None) for frame in frames]
            _write_rows(folder / "groundtruth.txt", [["none"] if o is None else to_row(o) for o in items])
            folders.append(folder)
    return folders


def _write_satsot(videos: dict[str, list[Frame]], root: Path, split: Split) -> None:
    _write_sequences(lambda category, number: f"{category}_{number:02d}", _xywh, videos, root)


def _write_ootb(videos: dict[str, list[Frame]], root: Path, split: Split) -> None:
    def to_row(item: ObjectAnnotation) -> list[float]:
        return np.ravel(_corners(item)).tolist()

    for folder in _write_sequences(lambda category, number: f"{category}_{number}", to_row, videos, root):
        write_text(root / ootb.FLAG_FOLDER / f"{folder.name}.txt", ",".join(["0"] * ootb.FLAGS) + "\n")


def _write_viso(videos: dict[str, list[Frame]], root: Path, split: Split) -> None:
    """A sequence for each class of each video, under `mot` and again under `sot`."""
    for frames in videos.values():
        for category in viso.CATEGORIES:
            tracks = sorted({o.object_id for f in frames for o in f.objects if o.category == category})
            if not tracks:
                continue
            number = max(_next_number(root / "mot" / c) for c in viso.CATEGORIES)
            for frame in frames:
                image = _encoded(frame.image(), ".jpg")
                for task in viso.TASKS:
                    write_bytes(root / task / category / f"{number:03d}/img/{frame.index:06d}.jpg", image)
            _write_viso_tracks(frames, category, tracks, root, number)


def _write_viso_tracks(frames: list[Frame], category: str, tracks: list[int], root: Path, number: int) -> None:
    by_commas = category in ("car", "train")
    rows = []
    for frame in frames:
        for o in (o for o in frame.objects if o.category == category):
            box = [*_xywh(o), 1, 1, -1, -1] if by_commas else list(o.box_xyxy)
            rows.append([frame.index, o.object_id, *box])
    _write_rows(root / "mot" / category / f"{number:03d}/gt/gt.txt", rows, "," if by_commas else " ")
    start, end = frames[0].index, frames[-1].index
    for object_id in tracks:
        boxes = {f.index: _xywh(o) for f in frames for o in f.objects if o.object_id == object_id}
        rows = [boxes.get(index, [0, 0, 0, 0]) for index in range(start, end + 1)]
        _write_rows(root / "sot" / category / f"{number:03d}/gt/{object_id}_{start}_{end}.txt", rows)


def _write_nwpu(videos: dict[str, list[Frame]], root: Path, split: Split) -> None:
    """Images from 001 on, replacing what was there: the split of the original goes by its file names."""
    folder = root / "NWPU VHR-10 dataset"
    images, annotations = [], []
    for number, frame in enumerate((f for frames in videos.values() for f in frames), start=1):
        height, width = frame.size_hw
        file = f"{number:03d}.jpg"
        _copy_image(frame, folder / nwpu_vhr10.IMAGE_FOLDER / file)
        images.append({"id": number - 1, "file_name": file, "height": height, "width": width})
        lines = []
        for item in frame.objects:
            category = nwpu_vhr10.CATEGORIES.index(item.category) + 1
            polygons = polygons_of(item.mask(frame.size_hw)) if item.has_mask else []
            ids = {"id": len(annotations) + 1, "image_id": number - 1, "category_id": category, "iscrowd": 0}
            annotations.append(ids | {"bbox": _xywh(item), "segmentation": polygons})
            x0, y0, x1, y1 = (round(value) for value in item.box_xyxy)
            lines.append(f"({x0},{y0}),({x1},{y1}),{category} \n")
        write_text(folder / "ground truth" / f"{number:03d}.txt", "".join(lines))
    categories = [{"id": i, "name": name} for i, name in enumerate(nwpu_vhr10.CATEGORIES, start=1)]
    write_json(root / "annotations.json", {"images": images, "annotations": annotations, "categories": categories})


def _write_coco(videos: dict[str, list[Frame]], root: Path, split: Split) -> None:
    moved = []
    for frames in videos.values():
        for f in frames:
            path = root / "images" / f.video / f"{f.index:06d}.png"
            _copy_image(f, path)
            moved.append(Frame(f.dataset, f.video, f.index, path, f.size_hw, f.objects, f.attributes))
    write_coco_index(FrameSet(root.name, moved), root / f"{split}.json", root / "images")


WRITERS: Mapping[str, Callable[[dict[str, list[Frame]], Path, Split], None]] = {
    "sat-mtb": _write_sat_mtb,
    "authors": _write_authors,
    "isaid": _write_isaid,
    "satsot": _write_satsot,
    "viso": _write_viso,
    "ootb": _write_ootb,
    "nwpu-vhr10": _write_nwpu,
    "coco": _write_coco,
}


def _main_category(frames: list[Frame], order: tuple[str, ...]) -> str:
    counts = Counter(o.category for frame in frames for o in frame.objects)
    return max(order, key=lambda name: counts[name])


def _next_number(folder: Path, prefix: str = "") -> int:
    """One more than the largest number among the names of `folder`'s folders, after `prefix`."""
    tails = [f.name.removeprefix(prefix) for f in subfolders(folder) if f.name.startswith(prefix)]
    return 1 + max((int(tail) for tail in tails if tail.isdigit()), default=0)


def _xywh(item: ObjectAnnotation) -> list[float]:
    x0, y0, x1, y1 = (float(value) for value in item.box_xyxy)
    return [x0, y0, x1 - x0, y1 - y0]


def _corners(item: ObjectAnnotation) -> list[list[float]]:
    """Those the object brings along, else those of its box, from the top left on clockwise."""
    x0, y0, x1, y1 = item.box_xyxy
    return item.attributes.get("oriented_box") or [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def _write_rows(path: Path, rows: list[list], delimiter: str = ",") -> None:
    write_text(path, "".join(delimiter.join(map(_number, row)) + "\n" for row in rows))


def _number(value: float | int | str) -> str:
    """The shortest text that reads back as the same number."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _copy_image(frame: Frame, path: Path) -> None:
    """The frame's file as it is where the format's suffix is its own, else decoded and written anew."""
    if frame.image_path.suffix.lower() == path.suffix:
        write_bytes(path, frame.image_path.read_bytes())
    else:
        write_bytes(path, _encoded(frame.image(), path.suffix))


def _encoded(rgb: np.ndarray, suffix: str) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
    return cv2.imencode(suffix, rgb[..., ::-1], options)[1].tobytes()
