"""Masks that were corrected elsewhere, joined with a conversion's boxes, to train on again.

Readers yield `Found` masks of every format that `rossam convert` exports for editing, and of the review's decisions.
A mask belongs to the record of its track, else, where its video has no such track, to the record in its frame whose
box overlaps it most.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import scipy
import yaml

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.files import read_json
from rossam_core.records import ObjectAnnotation
from rossam_kit.convert import decisions, editors, exports
from rossam_kit.convert.editors import Found
from rossam_kit.convert.exports import Names
from rossam_kit.convert.mask_records import Conversion, FrameRecord, MaskRecord
from rossam_kit.csv_text import plain_table
from rossam_kit.datasets.box_conventions import box_iou
from rossam_kit.datasets.coco import TRACK_KEYS, segmentation_fault
from rossam_kit.datasets.frame_set import Drop, FrameSet

LEAST_OVERLAP = 0.25
"""IoU of boxes from which a mask without a track is taken for a record's."""
REVIEW_FIRST = "review the masks in a notebook, as docs/faq.md says"
SAVE_ANEW = "export it anew, as the format that --format names"
OUTCOMES = ("unchanged", "corrected", "new", "removed", "without a mask")
UNCHANGED, CORRECTED, NEW, REMOVED, WITHOUT_MASK = OUTCOMES


# --- readers ----------------------------------------------------------------------------------------------------------


def _read_coco(place: Path, names: Names, drops: list[Drop]) -> Iterator[Found]:
    """COCO JSON: of this program, or of an editor that keeps file names and maybe tracks."""
    content = _content(place)
    classes = {each["id"]: each["name"] for each in content["categories"]}
    keys = {
        image["id"]: names.key_of_file(image.get("file_name"), drops, image.get("height"), image.get("width"))
        for image in content["images"]
    }
    yield from (Found(key) for key in keys.values() if key)
    for item in content["annotations"]:
        if item["image_id"] not in keys:
            drops.append(Drop(f"annotation {item.get('id')}", f"image_id {item['image_id']!r} points at nothing"))
        key, segmentation = keys.get(item["image_id"]), item.get("segmentation")
        if not key or not segmentation:
            continue
        stated = item | (item.get("attributes") or {})
        tracks = [str(stated[name]) for name in TRACK_KEYS if name in stated]
        known = (int(t) if t.isdecimal() else t for t in tracks if t.isdecimal() or names.object_of(key, t))
        yield Found(key, next(known, None), classes.get(item["category_id"]), segmentation)


def _read_youtube_vis(place: Path, names: Names, drops: list[Drop]) -> Iterator[Found]:
    content = _content(place)
    classes = {each["id"]: each["name"] for each in content["categories"]}
    keys = {v["id"]: [names.key_of_file(file, drops) for file in v["file_names"]] for v in content["videos"]}
    yield from (Found(key) for of_video in keys.values() for key in of_video if key)
    for track in content["annotations"]:
        for key, rle in zip(keys[track["video_id"]], track["segmentations"], strict=True):
            if key and rle:
                yield Found(key, track.get("track_id", track["id"]), classes.get(track["category_id"]), rle)


def _content(path: Path) -> dict[str, Any]:
    content = read_json(path)
    missing = [name for name in ("annotations", "categories") if name not in content]
    if missing:
        raise RossamError(path, f"has no {' and no '.join(missing)}", "name the JSON file that the editor exported")
    return content


def _read_mots(place: Path, names: Names, drops: list[Drop]) -> Iterator[Found]:
    listed = _table(place / "classes.csv")
    classes = dict(zip(listed["class"].astype(int), listed["category"], strict=True))
    keys = {place_of: key for key, place_of in names.time_of.items()}
    for sequence in dict.fromkeys(sequence for sequence, _ in keys):
        path = place / "MOTS-train" / sequence / "gt/gt.txt"
        if not path.exists():
            continue
        yield from (Found(key) for (own, _), key in keys.items() if own == sequence)
        for line in path.read_text(encoding="utf-8").split("\n"):
            if not line.strip():
                continue
            time, track, number, height, width, counts = line.split()
            key = keys.get((sequence, int(time)))
            if key is None:
                drops.append(Drop(f"{sequence} frame {time}", "is none of the conversion"))
            elif int(number) != exports.MOTS_IGNORE:
                size = [int(height), int(width)]
                yield Found(key, int(track), classes.get(int(number)), {"size": size, "counts": counts})


def _read_label_maps(place: Path, names: Names, drops: list[Drop]) -> Iterator[Found]:
    listed = _table(place / "labels.csv")
    tracks = {(row.video, int(row.label)): int(row.object_id) for row in listed.itertuples()}
    for key, stem in names.stem_of.items():
        path = place / f"{stem}.png"
        if not path.exists():
            continue
        label_map = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if label_map is None or label_map.shape != names.size_of[key]:
            finding = "cannot be read" if label_map is None else f"has shape {label_map.shape}"
            raise RossamError(path, f"{finding}, expected labels of height, width {names.size_of[key]}", SAVE_ANEW)
        yield Found(key)
        for label in np.unique(label_map[label_map > 0]).tolist():
            yield Found(key, tracks.get((key.rpartition("/")[0], label)), None, masks.encode(label_map == label))


def _read_yolo(place: Path, names: Names, drops: list[Drop]) -> Iterator[Found]:
    path = place / "data.yaml"
    if not path.exists():
        raise RossamError(path, "no such file", "keep it beside the labels: it names the classes")
    classes = yaml.safe_load(path.read_text(encoding="utf-8"))["names"]
    classes = classes if isinstance(classes, dict) else dict(enumerate(classes))
    for key, stem in names.stem_of.items():
        path = place / exports.yolo_label_file(f"images/{stem}.png")
        if not path.exists():
            continue
        yield Found(key)
        for line in path.read_text(encoding="utf-8").splitlines():
            number, *values = line.split() or [""]
            if len(values) < 6:  # a blank line, or a box
                drops.extend([Drop(f"{key} {line}", "is no polygon")] if values else [])
                continue
            points = np.array(values, dtype=float).reshape(-1, 2) * names.size_of[key][::-1]
            yield Found(key, None, classes.get(int(number)), [points.ravel().tolist()])


def _table(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise RossamError(path, "no such file", "keep it beside the masks: it says whose they are")
    return plain_table(pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape"))


def _read_review(place: Path, names: Names, drops: list[Drop]) -> Iterator[Found]:
    """Decisions of the review: accepted and undecided masks as they are, corrected ones with their boxes."""
    decided = decisions.Decisions(place).latest
    for frame in names.conversion:
        yield Found(frame.key)
        for record in frame.objects:
            decision = decided.get((frame.video, frame.index, record.object_id), {})
            about = (frame.key, record.object_id, record.category)
            if decision.get("verdict") == decisions.CORRECTED:
                yield Found(*about, decision["segmentation"], tuple(decision["box_xyxy"]))
            elif decision.get("verdict") != decisions.REJECTED and record.has_mask:
                yield Found(*about, record.rle(frame.size_hw))


Reader = Callable[[Path, Names, list[Drop]], Iterator[Found]]
READERS: Mapping[str, tuple[str, Reader]] = {
    "review": (decisions.FILE, _read_review),
    "coco": (exports.EXPORTS["coco"][0], _read_coco),
    "coco-polygons": (exports.EXPORTS["coco-polygons"][0], _read_coco),
    "youtube-vis": (exports.EXPORTS["youtube-vis"][0], _read_youtube_vis),
    "mots": (exports.EXPORTS["mots"][0], _read_mots),
    "png": (exports.EXPORTS["png"][0], _read_label_maps),
    "yolo": (exports.EXPORTS["yolo"][0], _read_yolo),
    "cvat": (editors.EXPORTS["cvat"][0], editors.read_cvat),
    "label-studio": (editors.EXPORTS["label-studio"][0], editors.read_label_studio),
    "labelme": (editors.EXPORTS["labelme"][0], editors.read_labelme),
}
"""Name of a format → where `rossam convert` puts it within the conversion's folder, and what reads it."""
DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, TypeError, ValueError, cv2.error,
          yaml.YAMLError)  # fmt: skip
"""What reading a damaged file of an editor raises."""
ONE_OWNER_PER_PIXEL = ("mots", "png")
"""Formats that do not hold what others hide of a mask: what the export hid is taken from the record."""


# --- joining ----------------------------------------------------------------------------------------------------------


def place_of(conversion: Conversion, format: str, place: str | Path | None = None) -> Path:
    """The corrected file or folder: `place`, or where `rossam convert` put it."""
    return conversion.folder / READERS[format][0] if place is None else Path(place)


def corrected(conversion: Conversion, format: str, place: str | Path | None = None) -> tuple[FrameSet, Counter]:
    """The conversion's frames with the masks that a corrected file holds.

    A frame that the file does not list keeps its masks; in others, a record whose mask is gone is left out. A mask
    that belongs to no record is a new object, of its track where its video has that track. Other tracks and masks
    without a track get new numbers, a track one for all its frames. The box of a corrected or new mask is the box
    around it.

    Args:
        format: a name of `READERS`.
        place: the file or folder; None: where `rossam convert` put it.

    Returns:
        The frames, with what was left out in `drops`, and how many objects had which of `OUTCOMES`.
    """
    read, place = READERS[format][1], place_of(conversion, format, place)
    if not place.exists():
        how = REVIEW_FIRST if format == "review" else f"export with `rossam convert --format {format}`"
        raise RossamError(place, "no such file or folder", f"{how}, or name it with --from")
    names, drops, outcomes, frames = Names(conversion), [*conversion.left_out], Counter(), []
    corrected: dict[str, list[Found]] = defaultdict(list)
    for item in _usable(read, place, names, drops):
        corrected[item.key].append(item)
    number = _numbering(conversion)
    for frame in conversion:
        items = corrected.get(frame.key) or _as_converted(frame)
        items = [item for item in items if item.segmentation is not None]
        objects, behind = [], _behind(frame, items) if format in ONE_OWNER_PER_PIXEL else (lambda *_: False)
        for record, item in _pairs(frame, items, names):
            if record is None:
                is_empty = not masks.decode(item.segmentation, frame.size_hw).any()
                if is_empty or item.category is None:
                    drops.append(Drop(f"{frame.key} new mask", "has no pixel" if is_empty else "has no class"))
                    continue
                item = item._replace(track=number(frame, item.track))
            outcome, annotation = _joined(record, item, behind(record, item), frame)
            outcomes[outcome] += 1
            if annotation is None:
                gone = "rejected in the review" if format == "review" else f"is not in the corrected {format}"
                reason = record.reason if outcome == WITHOUT_MASK else gone
                drops.append(exports.drop_of(frame, record, reason))
            else:
                objects.append(annotation)
        frames.append(replace(frame.frame(), objects=tuple(objects), source=frame.source))
    return FrameSet(conversion.manifest["data"]["name"], frames, drops, conversion.classes), outcomes


def _as_converted(frame: FrameRecord) -> list[Found]:
    masked = [record for record in frame.objects if record.has_mask]
    return [Found(frame.key, r.object_id, r.category, r.rle(frame.size_hw)) for r in masked]


def _usable(read: Reader, place: Path, names: Names, drops: list[Drop]) -> Iterator[Found]:
    """What a reader yields, but for segmentations that cannot be decoded, which are logged."""
    frame = ""
    try:
        for item in read(place, names, drops):
            frame = f" in or after frame {item.key}"
            fault = segmentation_fault(item.segmentation or [], names.size_of[item.key])
            if fault:
                name = f"mask of {item.category}" if item.track is None else f"object {item.track}"
                drops.append(Drop(f"{item.key} {name}", fault))
            else:
                yield item
    except (RossamError, UnicodeEncodeError):  # the latter: a file name that this system's encoding lacks
        raise
    except DAMAGE as error:
        finding = f"is damaged or of another layout{frame} ({type(error).__name__}: {error})"
        raise RossamError(place, finding, SAVE_ANEW) from error


def _numbering(conversion: Conversion) -> Callable[[FrameRecord, Any], int]:
    """A function from a frame and a track of `_pairs` to `object_id`: new tracks are counted on from a video's last."""
    last, numbers = conversion.table.groupby("video")["object_id"].max().to_dict(), {}

    def number(frame: FrameRecord, track: Any) -> int:
        if not isinstance(track, tuple):
            return track
        place = (frame.key if track[0] is None else frame.video, track)
        if place not in numbers:
            numbers[place] = last[frame.video] = last.get(frame.video, 0) + 1
        return numbers[place]

    return number


def _pairs(
    frame: FrameRecord, items: Sequence[Found], names: Names
) -> Iterator[tuple[MaskRecord | None, Found | None]]:
    """Each record with its mask or None, then None with each mask of no record.

    The track of the latter is their `object_id`; of tracks that the video does not have, the track with its class, as
    editors number groups of each class; of a mask without a track, None and its number.
    """
    merged: dict[Any, Found] = {}
    for number, item in enumerate(items):  # parts of one track are one mask
        known = None if item.track is None else names.object_of(frame.key, item.track)
        name = known[0] if known else (item.track, number if item.track is None else item.category)
        if name in merged:
            parts = [masks.decode(each.segmentation, frame.size_hw) for each in (merged[name], item)]
            item = item._replace(segmentation=masks.encode(parts[0] | parts[1]))
        merged[name] = item
    left = [record for record in frame.objects if record.object_id not in merged]
    loose = [name for name in merged if isinstance(name, tuple)]
    overlap = _overlap(left, [masks.extent(merged[name].segmentation, frame.size_hw) for name in loose])
    for row, column in zip(*scipy.optimize.linear_sum_assignment(-overlap), strict=True):
        if overlap[row, column] >= LEAST_OVERLAP:
            merged[left[row].object_id] = merged.pop(loose[column])
    yield from ((record, merged.pop(record.object_id, None)) for record in frame.objects)
    for name, item in merged.items():
        _, category = names.object_of(frame.key, name) or (None, None)
        yield None, item._replace(track=name, category=item.category or category)


def _overlap(records: Sequence[MaskRecord], extents: Sequence[np.ndarray | None]) -> np.ndarray:
    """IoU of each record's box with each extent; 0 where that is None or the box is not finite."""
    boxes = np.array([np.zeros(4) if extent is None else extent for extent in extents]).reshape(-1, 4)
    ious = [box_iou(np.tile(record.box_xyxy, (len(boxes), 1)), boxes) for record in records]
    return np.nan_to_num(np.array(ious, dtype=float)).reshape(len(records), len(boxes))


def _behind(
    frame: FrameRecord, items: Sequence[Found]
) -> Callable[[MaskRecord | None, Found | None], np.ndarray | bool]:
    """A function from a record and its mask to the record's pixels that the export hid and that still have an owner in
    `items`; none of a record that the export showed and that has no mask any more."""
    labels = {record.object_id: label for label, record in enumerate(frame.objects, start=1)}
    shown, covered = exports.painted_labels(frame, labels), np.zeros(frame.size_hw, dtype=bool)
    for item in items:
        covered |= masks.decode(item.segmentation, frame.size_hw)

    def behind(record: MaskRecord | None, item: Found | None) -> np.ndarray | bool:
        if record is None:
            return False
        own, visible = record.full(frame.size_hw), shown == labels[record.object_id]
        return False if item is None and visible.any() else own & ~visible & covered

    return behind


def _joined(
    record: MaskRecord | None, item: Found | None, behind: np.ndarray | bool, frame: FrameRecord
) -> tuple[str, ObjectAnnotation | None]:
    """What became of a record, and the object; `behind`: pixels of it that the format does not hold."""
    mask = np.zeros(frame.size_hw, dtype=bool) if item is None else masks.decode(item.segmentation, frame.size_hw)
    own = np.zeros(frame.size_hw, dtype=bool) if record is None else record.full(frame.size_hw)
    mask |= behind
    if not mask.any() and record is not None:
        return (REMOVED if record.has_mask else WITHOUT_MASK), None
    category = record.category if item is None or item.category is None else item.category
    stated_box = None if item is None else item.box_xyxy
    is_same = record is not None and np.array_equal(mask, own) and stated_box is None
    if is_same and category.lower() == record.category.lower():
        return UNCHANGED, ObjectAnnotation(
            record.object_id, record.category.lower(), record.box_xyxy, record.rle(frame.size_hw), source=record.source
        )
    box = stated_box or (record.box_xyxy if is_same else masks.box_of(mask))
    source = {} if record is None else {k: v for k, v in record.source.items() if k == "annotation_id"}
    object_id = item.track if record is None else record.object_id
    annotation = ObjectAnnotation(object_id, category.lower(), box, masks.encode(mask), {"corrected": True}, source)
    return (NEW if record is None else CORRECTED), annotation
