"""SAT-MTB: satellite videos of airplanes, ships, trains and cars; polygons, boxes, oriented boxes and tracks.

Files: `<class>/<NN>/img/000001.png …`, annotations beside `img`, and `data_split.xlsx`. Each sequence is a video such
as `airplane/03`. Li et al., IEEE TGRS 61 (2023); Zenodo record 15253996,
CC BY 4.0. This is the dataset ROS-SAM is trained and tested on.

Four kinds of annotation, of which one is read at a time:
    seg   `seg/000001.json`, COCO-like; `bbox` is [xmin, ymin, xmax, ymax]. None for cars and for trains 11 to 16.
    hbb   `det/HBB/000001.xml`, VOC-like.
    obb   `det/OBB/000001.xml`, four corners; the box is the upright one around them, the corners stay in the
          attribute `oriented_box`.
    mot   `mot/<NN>` or `mot/<NN>.txt`, rows frame,id,x,y,w,h,confidence,class,subclass,0,0.

The split is the workbook's own, a sheet a kind: the header names classes, column A says train or test (once for
the rows below it), cells are sequence numbers. There is no val split.

Coordinates: polygons and corners are read as pixel-edge coordinates as they stand; xmax, ymax, x + w and y + h
are taken as outer edges. Nothing states whether the first pixel is 0 or 1; it is taken for 0.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from rossam_core.errors import RossamError
from rossam_core.files import read_json
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets.box_conventions import upright_box, xywh_box
from rossam_kit.datasets.coco import flat_numbers, segmentation_fault
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.reading import (
    Entry,
    Report,
    entries_around_masks,
    find_folder,
    indexed,
    numbered_files,
    subfolders,
    usable_entries,
)
from rossam_kit.datasets.tracking_text import (
    Clip,
    parse_numbers,
    parse_whole,
    read_clip,
    read_rows,
)

NAME = "sat-mtb"
CATEGORIES = ("airplane", "car", "ship", "train")
MOT_CLASSES = ("car", "airplane", "ship", "train")
"""By the number in column 8 of the track files."""
MOT_COLUMNS = 11
FINE = {
    "airplane": "WA NA RA FA CA wide-bodied_aircraft narrow-bodied_aircraft rear-engined_aircraft "
    "four-engine_aircraft corporate_aircraft",
    "ship": "SB YH CS FH NV OS speed_boat yacht cruise freighter naval_vessel other_ship",
    "car": "LC SC large_car small_car",
    "train": "TN",
}
"""Kinds within a class, by the codes and the names that annotations use (spaces as underscores)."""
COARSE = {name.lower(): c for c, names in FINE.items() for name in (*names.split(), c)}
Kind = Literal["seg", "hbb", "obb", "mot"]
SHEETS: Mapping[str, str] = {"seg": "seg", "hbb": "det_HBB", "obb": "det_OBB", "mot": "mot"}
FOLDERS: Mapping[str, str] = {"seg": "seg", "hbb": "det/HBB", "obb": "det/OBB", "mot": "mot"}
SPLIT_FILE = "data_split.xlsx"
MAX_WORKBOOK = 100_000_000
"""Bytes of a workbook's parts, unpacked."""
LAYOUT = f"""\
    {SPLIT_FILE}
    airplane/01/img/000001.png …
    airplane/01/seg/000001.json …, det/HBB/000001.xml …, det/OBB/000001.xml …, mot/01
    … car, ship, train …"""
HOW_TO_GET = "download the dataset of Zenodo record 15253996 (https://zenodo.org/records/15253996) and unpack it"
REMEDY = "unpack the dataset anew; a file that is damaged in the original too can be moved away"

Objects = list[ObjectAnnotation]


def read_sat_mtb(
    root: str | PathLike,
    split: Literal["train", "test"] | None = None,
    annotations: Kind = "seg",
    cache: Path | None = None,
) -> FrameSet:
    """The sequences of a split with one kind of annotation, by class and number; arguments and errors: `reading`.

    A frame without a file of that kind is left out and logged. With `seg`, an object's id is that of its
    annotation; whether it is the same in all frames is not known. The kind of a ship or airplane stands in the
    attribute `kind`. With `split` None, all sequences that are annotated are read, whatever the workbook says.
    """
    if split not in ("train", "test", None):
        raise RossamError(NAME, f"has no split {split!r}", "use 'train', 'test', or None for all sequences")
    if annotations not in SHEETS:
        raise RossamError(NAME, f"has no annotations {annotations!r}", f"use one of {', '.join(SHEETS)}")
    root = find_folder(root, _is_dataset, LAYOUT, HOW_TO_GET)
    sequences = [sequence for category in CATEGORIES for sequence in subfolders(root / category)]
    files = [root / SPLIT_FILE, *(s / part for s in sequences for part in ("img", FOLDERS[annotations]))]
    options = {"split": split, "annotations": annotations}
    return indexed(NAME, root, files, options, cache, lambda: _read(root, split, annotations))


def _is_dataset(folder: Path) -> bool:
    return any(any((s / "img").is_dir() for s in subfolders(folder / category)) for category in CATEGORIES)


def _read(root: Path, split: str | None, annotations: Kind) -> FrameSet:
    report, frames = Report(root, REMEDY), []
    for folder in _sequences(root, split, annotations, report):
        clip = read_clip(folder / "img", report, contiguous=False)
        if clip is not None:
            is_mot = annotations == "mot"
            objects = _read_tracks(folder, clip, report) if is_mot else _read_files(folder, clip, annotations, report)
            video = folder.relative_to(root).as_posix()
            frames += [
                Frame(NAME, video, number, path, clip.size_hw, tuple(objects[number]))
                for number, path in clip.images.items()
                if number in objects
            ]
    report.raise_if_any()
    return FrameSet(f"{NAME} {split or 'all'}", frames, report.drops, list(enumerate(CATEGORIES, start=1)))


def _sequences(root: Path, split: str | None, annotations: Kind, report: Report) -> list[Path]:
    """Folders of the sequences to read."""
    folders = {}
    for category in CATEGORIES:
        for folder in subfolders(root / category):
            if re.fullmatch(r"\d{1,4}", folder.name):
                folders[category, int(folder.name)] = folder
            else:
                report.problem(folder, "its name is not a sequence number")
    if split is None:
        for folder in folders.values():
            if not (folder / FOLDERS[annotations]).is_dir():
                report.drop(
                    folder / FOLDERS[annotations], "no such folder: the sequence has no annotations of this kind"
                )
        return [folder for folder in folders.values() if (folder / FOLDERS[annotations]).is_dir()]
    chosen = _read_split(root / SPLIT_FILE, SHEETS[annotations], report)
    for key, folder in folders.items():
        if key not in chosen:
            report.drop(folder, f"in no split of sheet {SHEETS[annotations]} of {SPLIT_FILE}")
    wanted = sorted(key for key, its_split in chosen.items() if its_split == split)
    for category, number in wanted:
        if (category, number) not in folders:
            report.problem(
                root / SPLIT_FILE,
                f"sheet {SHEETS[annotations]} lists {category} {number}: {category}/{number:02d} is not there",
            )
        elif not (folders[category, number] / FOLDERS[annotations]).is_dir():
            report.problem(folders[category, number] / FOLDERS[annotations], f"no such folder, but {split} lists it")
    return [folders[key] for key in wanted if key in folders]


def read_xlsx(path: str | PathLike) -> dict[str, list[list[str]]]:
    """Rows of cells by sheet name; an empty cell is "", numbers are text (`3`, `4.5`), formulas their last value.

    Raises:
        RossamError: no such file, or not a readable workbook.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > MAX_WORKBOOK:
            raise ValueError(f"it unpacks to {size:,} bytes, the limit is {MAX_WORKBOOK:,}")
        sheets = pd.read_excel(path, sheet_name=None, header=None, dtype=str, na_filter=False, engine="openpyxl")
    except FileNotFoundError as error:
        raise RossamError(path, "no such file", "check the path, or download the workbook again") from error
    except Exception as error:  # damage makes zipfile, the XML parser and openpyxl raise whatever they meet
        raise RossamError(path, f"is not a readable .xlsx workbook ({error})", "download it again") from error
    return {
        name: [[cell.strip() for cell in row] for row in sheet.to_numpy().tolist()] for name, sheet in sheets.items()
    }


def _read_split(path: Path, sheet_name: str, report: Report) -> dict[tuple[str, int], str]:
    """(class, sequence number) → `train` or `test`."""
    try:
        sheets = read_xlsx(path)
    except RossamError as error:
        report.problem(path, error.finding)
        return {}
    rows = sheets.get(sheet_name, [])
    if not rows:
        report.problem(path, f"has no sheet {sheet_name!r} with rows, only {', '.join(sheets) or 'nothing'}")
        return {}
    header = [name.lower() for name in rows[0]]
    unknown = [name for name in header[1:] if name and name not in CATEGORIES]
    if unknown or len(header) < 2:
        report.problem(path, f"sheet {sheet_name}: header is {rows[0]}, expected classes from column B on", 1)
    splits: dict[tuple[str, int], str] = {}
    current = ""
    for line, row in enumerate(rows[1:], start=2):
        current = (row[0].lower() if row else "") or current
        for category, cell in zip(header[1:], row[1:], strict=False):
            number = parse_whole(cell)
            if not cell or category not in CATEGORIES:
                continue
            if current not in ("train", "test"):
                report.problem(path, f"sheet {sheet_name}: column A says {current!r}, expected train or test", line)
            elif number is None:
                report.problem(path, f"sheet {sheet_name}: {cell!r} in column {category} is no sequence number", line)
            elif splits.setdefault((category, number), current) != current:
                report.problem(path, f"sheet {sheet_name}: {category} {number} is in both splits", line)
    return splits


def _read_files(folder: Path, clip: Clip, annotations: Kind, report: Report) -> dict[int, Objects]:
    """Frame number → objects, of annotations in one file per frame."""
    suffix = ".json" if annotations == "seg" else ".xml"
    files = numbered_files(folder / FOLDERS[annotations], (suffix,), report)
    for number in sorted(set(files) - set(clip.images)):
        report.problem(files[number], f"frame {number} has no image in img/")
    read = {"seg": _read_seg, "hbb": _read_xml, "obb": _read_xml}[annotations]
    objects = {}
    for number, image in clip.images.items():
        if number not in files:
            report.drop(
                folder / FOLDERS[annotations] / f"{image.stem}{suffix}", "no such file: the frame is not annotated"
            )
        else:
            objects[number] = _usable(read(files[number], clip.size_hw, report), clip.size_hw, files[number], report)
    return objects


def _usable(objects: Objects, size_hw: tuple[int, int], path: Path, report: Report) -> Objects:
    """Those whose box can be used; an id twice is a problem."""
    entries = [Entry(1, f"object {item.object_id}", item) for item in objects]
    for place, count in Counter(entry.place for entry in entries).items():
        if count > 1:
            report.problem(path, "this object occurs twice", place)
    return [entry.item for entry in usable_entries(entries, size_hw, path, report, "xyxy")]


def _read_seg(path: Path, size_hw: tuple[int, int], report: Report) -> Objects:
    try:
        content = read_json(path)
        image, items = content["images"][0], content["annotations"]
        stated = (image["height"], image["width"])
        names = {c["id"]: (c.get("supercategory"), c.get("name")) for c in content.get("categories", [])}
        items = [item | {} for item in items]
    except RossamError as error:
        report.problem(path, error.finding)
        return []
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        report.problem(path, f"is not COCO-like ({error!r}); expected images, annotations and categories")
        return []
    if stated != size_hw:
        report.problem(path, f"height×width is {stated}, the image's is {size_hw}")
        return []
    entries = []
    for position, item in enumerate(items):
        place = f"annotations[{position}]"
        class_id = item.get("category_id")
        own_names = (item.get("supercategory"), item.get("name"))
        coarse, fine = names.get(class_id, own_names) if isinstance(class_id, int | str | None) else (None, class_id)
        category = _coarse(coarse, fine)
        polygons, box = item.get("segmentation"), flat_numbers(item.get("bbox"))
        fault = segmentation_fault(polygons, size_hw)
        if category is None:
            report.problem(path, f"class is {fine!r} of {coarse!r}, expected one of {', '.join(CATEGORIES)}", place)
        elif not isinstance(item.get("id"), int):
            report.problem(path, f"id is {item.get('id')!r}, expected a whole number", place)
        elif box is None or len(box) != 4:
            report.problem(path, f"bbox is {item.get('bbox')!r}, expected four numbers", place)
        elif fault:
            report.problem(path, fault, place)
        else:
            polygons = [[float(v) for v in p] for p in polygons] if isinstance(polygons, list) else polygons
            kind = {"kind": str(fine)} if fine and str(fine).lower() != category else {}
            entries.append(
                Entry(1, place, ObjectAnnotation(item["id"], category, tuple(box.tolist()), polygons or None, kind))
            )
    return [entry.item for entry in entries_around_masks(entries, size_hw, path, report)]


def _read_xml(path: Path, size_hw: tuple[int, int], report: Report) -> Objects:
    """`det/HBB` and `det/OBB`: distinguished by what each object holds."""
    try:
        tree = ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        report.problem(path, f"is not valid XML ({error})")
        return []
    stated = (parse_whole(tree.findtext("size/height", "")), parse_whole(tree.findtext("size/width", "")))
    if tree.find("size") is not None and stated != size_hw:
        report.problem(path, f"height×width is {stated}, the image's is {size_hw}")
        return []
    is_oriented = path.parent.name == "OBB"
    box_tag, parts = ("robndbox", "x0 y0 x1 y1 x2 y2 x3 y3") if is_oriented else ("bndbox", "xmin ymin xmax ymax")
    objects = []
    for position, element in enumerate(tree.iter("object"), start=1):
        place = f"object element {position}"
        names = [element.findtext(tag) for tag in ("name", "subname")]
        category = _coarse(*names)
        object_id = parse_whole(element.findtext("objectID", ""))
        values = parse_numbers([element.findtext(f"{box_tag}/{part}", "") for part in parts.split()])
        if category is None:
            report.problem(path, f"class is {names}, expected one of {', '.join(CATEGORIES)}", place)
        elif object_id is None:
            report.problem(path, f"objectID is {element.findtext('objectID')!r}, expected a whole number", place)
        elif values is None:
            report.problem(path, f"{box_tag} does not hold the numbers {parts}", place)
        else:
            points = np.array(values).reshape(-1, 2)
            box = upright_box(points) if is_oriented else tuple(values)
            kinds = [name for name in names if name and name.lower() != category]
            attributes = {"kind": kinds[0]} if kinds else {}
            attributes |= {"oriented_box": points.tolist()} if is_oriented else {}
            objects.append(ObjectAnnotation(object_id, category, box, attributes=attributes))
    return objects


def _read_tracks(folder: Path, clip: Clip, report: Report) -> dict[int, Objects]:
    """Frame number → objects, of the sequence's track file; every frame is there."""
    candidates = [p for p in (folder / "mot" / folder.name, folder / "mot" / f"{folder.name}.txt") if p.is_file()]
    path = candidates[0] if candidates else folder / "mot" / f"{folder.name}.txt"
    class_of: dict[int, int] = {}
    by_frame: dict[int, dict[int, Entry]] = {number: {} for number in clip.images}
    for line, fields in read_rows(path, report)[0]:
        values = parse_numbers(fields)
        whole = [parse_whole(fields[i]) for i in (0, 1, 7)] if len(fields) == MOT_COLUMNS else [None]
        if values is None or None in whole:
            report.problem(path, f"is {','.join(fields)!r}, expected {MOT_COLUMNS} numbers frame,id,x,y,w,h,…", line)
            continue
        number, object_id, class_number = whole
        if number not in by_frame:
            report.problem(path, f"frame {number} has no image", line)
        elif not 0 <= class_number < len(MOT_CLASSES):
            report.problem(path, f"class is {class_number}, expected 0 to {len(MOT_CLASSES) - 1}", line)
        elif class_of.setdefault(object_id, class_number) != class_number:
            finding = f"object {object_id} is {MOT_CLASSES[class_number]}, before {MOT_CLASSES[class_of[object_id]]}"
            report.problem(path, finding, line)
        elif object_id in by_frame[number]:
            report.problem(path, f"object {object_id} has a box in frame {number} already", line)
        else:
            item = ObjectAnnotation(object_id, MOT_CLASSES[class_number], xywh_box(values[2:6]))
            by_frame[number][object_id] = Entry(number, line, item)
    entries = [entry for of_frame in by_frame.values() for entry in of_frame.values()]
    objects: dict[int, Objects] = {number: [] for number in by_frame}
    for number, _, item in usable_entries(entries, clip.size_hw, path, report):
        objects[number].append(item)
    return objects


def _coarse(*names: Any) -> str | None:
    """The class that the first known of `names` belongs to."""
    classes = [COARSE.get(str(name).strip().lower().replace(" ", "_")) for name in names if name]
    return next((category for category in classes if category), None)
