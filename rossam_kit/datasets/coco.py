"""COCO JSON: an index of a `FrameSet`, written and read back exactly, and a reader for other COCO files.

The index is plain COCO with the extensions video datasets use (`videos`, `video_id`, `track_id`), so other
tools open it; what COCO has no field for (`box_xyxy` as exact floats, `attributes`, `drops`) stands beside.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from rossam_core import masks
from rossam_core.boxes import box_problems
from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import read_json, write_json
from rossam_core.records import Frame, ObjectAnnotation
from rossam_kit.datasets.box_conventions import are_around, other_convention, to_xyxy
from rossam_kit.datasets.frame_set import Drop, FrameSet, input_ids
from rossam_kit.datasets.images import DatasetReading, image_size_hw, with_reading

FORMAT = "rossam-index-1"
FAR_OUTSIDE = 10
"""Polygon coordinates beyond this many frame sides are faults: rasterising takes memory in proportion to them."""
NOT_ASKED_FOR = "of an image that is not asked for"
TRACK_KEYS = ("track_id", "instance_id", "object_id")
"""What names an object throughout a video: COCO with tracks and TAO, CocoVID, others. Elsewhere only the first does."""
FRAME_KEYS = ("frame_index", "frame_id")
NO_ID = "{} is {!r}, expected a name or, of an id, a whole number"
REMEDY = (
    "correct these entries; or leave out what cannot be used, each with its reason, by --skip-bad; boxes that are not "
    "x, y, width, height are read with --box-convention (in Python: skip_bad=True, box_convention=…)"
)
SECTIONS = ("videos", "images", "annotations", "categories")
Json = dict[str, Any]


def write_coco_index(frames: FrameSet, path: str | os.PathLike, image_root: str | os.PathLike | None = None) -> None:
    """Write `frames` as a COCO index, atomically. Ids are the input's, as far as it has any.

    Args:
        path: the JSON file.
        image_root: folder that the file names start from; default: the index's own. It is stored relative to
            the index where it lies below it, so that both can be moved together, and absolute elsewhere;
            so is an image relative to `image_root`.
    """
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    video_ids = input_ids({f.video: f.source.get("video_id") for f in frames}.items())
    image_ids = input_ids((number, frame.source.get("image_id")) for number, frame in enumerate(frames))
    items = [item for frame in frames for item in frame.objects]
    annotation_ids = input_ids((number, item.source.get("annotation_id")) for number, item in enumerate(items))
    images, annotations = [], []
    for image_id, frame in zip(image_ids.values(), frames, strict=True):
        height, width = frame.size_hw
        file = _relative_or_absolute(frame.image_path, root)
        image = {"id": image_id, "video_id": video_ids[frame.video], "frame_index": int(frame.index), "file_name": file}
        image |= {"height": int(height), "width": int(width), "dataset": frame.dataset}
        image |= {"attributes": dict(frame.attributes)} | ({"source": dict(frame.source)} if frame.source else {})
        images.append(image | frame.reading.as_entry())
        for item in frame.objects:
            class_id, class_name = frames.class_of(item)
            ids = {"id": annotation_ids[len(annotations)], "image_id": image_id, "category_id": class_id}
            ids |= {"category_name": item.category} if item.category != class_name else {}
            annotations.append(ids | _object_to_json(item, frame.size_hw))
    content = {
        "info": {"format": FORMAT, "name": frames.name, "image_root": _relative_or_absolute(root, path.parent)},
        "videos": [{"id": i, "name": name} for name, i in video_ids.items()],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in frames.classes],
        "drops": [{"where": str(drop.where), "reason": drop.reason, "boxes": drop.boxes} for drop in frames.drops],
    }
    write_json(path, content, indent=None)


def read_coco_index(path: str | os.PathLike) -> FrameSet:
    """Read what `write_coco_index` wrote: the same name, frames, objects and drops, in the same order.

    Image paths name the same files; they are relative where `path` is relative and the images lie below it.

    Raises:
        RossamError: no such file, not JSON, a file of another kind, or an index that someone changed.
    """
    path = Path(path)
    content = read_json(path)
    info = content.get("info") if isinstance(content, dict) else None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise RossamError(path, f"is not an index of format {FORMAT}", "read COCO files of other origin with read_coco")
    try:
        root = path.parent / info["image_root"]
        videos = {video["id"]: video["name"] for video in content["videos"]}
        categories = {category["id"]: category["name"] for category in content["categories"]}
        objects = defaultdict(list)
        for item in content["annotations"]:
            category = item.get("category_name", categories[item["category_id"]])
            known = (item["track_id"], category, tuple(item["box_xyxy"]), item["segmentation"], item["attributes"])
            objects[item["image_id"]].append(ObjectAnnotation(*known, item.get("source", {})))
        frames = []
        for image in content["images"]:
            place = (image["dataset"], videos[image["video_id"]], image["frame_index"], root / image["file_name"])
            size_hw, of_image = (image["height"], image["width"]), tuple(objects[image["id"]])
            more = (image["attributes"], DatasetReading.of_entry(image), image.get("source", {}))
            frames.append(Frame(*place, size_hw, of_image, *more))
        classes = [(category["id"], category["name"]) for category in content["categories"]]
        return FrameSet(info["name"], frames, [Drop(**drop) for drop in content["drops"]], classes)
    except (KeyError, TypeError) as error:
        raise RossamError(path, f"is damaged ({error!r})", "delete it and write the index anew") from error


def read_whole_index(path: str | os.PathLike, existing: Container[str] = ()) -> FrameSet:
    """`read_coco_index`, with a `RossamError` if an image is missing; images in `existing` are not looked for."""
    frames = read_coco_index(path)
    for frame in frames:
        if str(frame.image_path) not in existing and not frame.image_path.exists():
            raise RossamError(path, f"its image {frame.image_path} is missing", "delete the index")
    return frames


def _object_to_json(item: ObjectAnnotation, size_hw: tuple[int, int]) -> Json:
    x0, y0, x1, y1 = box = [float(value) for value in item.box_xyxy]
    segmentation, area = item.segmentation, (x1 - x0) * (y1 - y0)
    if segmentation is not None:
        area = int(coco_mask.area(masks.to_rle(segmentation, size_hw)))
        is_rle = isinstance(segmentation, Mapping)
        segmentation = dict(segmentation) if is_rle else [[float(v) for v in polygon] for polygon in segmentation]
    entry = {"track_id": int(item.object_id), "bbox": [x0, y0, x1 - x0, y1 - y0], "box_xyxy": box, "area": area}
    entry |= {"iscrowd": 0, "segmentation": segmentation, "attributes": dict(item.attributes)}
    return entry | ({"source": dict(item.source)} if item.source else {})


def _relative_or_absolute(path: Path, folder: Path) -> str:
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def read_coco(
    annotations: str | os.PathLike,
    image_dir: str | os.PathLike,
    *,
    name: str,
    keep_files: Collection[str] | None = None,
    box_convention: str | None = None,
    keep_crowd: bool = False,
    skip_bad: bool = False,
) -> FrameSet:
    """Read a COCO annotation file of any origin; all problems in it are reported at once.

    Image files are looked up and their headers compared with the JSON; no pixel and no mask is decoded.
    An image without `video_id` is a video of one frame, named by its file. In a video, frames are numbered by
    `frame_index` or `frame_id` as the file has them, else from 1 in the order of their names. `object_id` is
    `track_id` where given (in a video also `instance_id` or `object_id`), else the annotation's id; a name gets a
    number. Numbers written as text or with a decimal point are read as the whole numbers they are. A `segmentation`
    that is empty, absent or of no pixel means that only the box is known. Ids, class list and file names of the file
    are kept (`source`, `classes`).

    Every annotation of the file becomes an object or leaves a `Drop`: regions (`iscrowd`), boxes that are not around
    their own mask, and annotations of images that are not asked for.

    Args:
        annotations: the JSON file.
        image_dir: folder that its `file_name`s start from.
        name: of the frame set, and each frame's `dataset`.
        keep_files: read only the images of these `file_name`s; None = all.
        box_convention: what `bbox` holds, one of `boxes.CONVENTIONS`; None = xywh, refused where the boxes as a whole
            look like another.
        keep_crowd: read `iscrowd` annotations as objects.
        skip_bad: leave out annotations that cannot be used and images that cannot be read, each with a `Drop`.

    Raises:
        RossamError: lists ids that are missing, repeated or dangling; images that are missing, unreadable, outside
            `image_dir` or of another size than stated; boxes that are not finite, of no area or outside; boxes
            in another convention; polygons of fewer than three points or far outside; run-length encodings of
            another size or damaged.
    """
    annotations, image_dir = Path(annotations), Path(image_dir)
    content = _read_sections(annotations)
    if not image_dir.is_dir():
        raise RossamError(image_dir, "no such image folder", f"name the folder of the images of {annotations}")
    problems, drops = ProblemList(annotations), []
    categories, videos, images = (_entries(content, key, "id", problems) for key in ("categories", "videos", "images"))
    files = set(_entries(content, "images", "file_name", problems))
    keep = files if keep_files is None else set(keep_files)
    problems.extend((f"image {file}", "is asked for but not in the file") for file in sorted(keep - files))
    items = _items(content, images, categories, keep, keep_crowd)
    items_of = defaultdict(list)
    for item in items:
        if item.image is not None and not item.drop:
            items_of[_identity(item.image["id"])].append(item)

    frames = []
    for image_id, (video, index) in _numbering(images, videos, problems).items():
        image = images[image_id]
        if image["file_name"] not in keep:
            continue
        path, size_hw, fault = _read_size(image, image_dir)
        if fault and skip_bad:
            drops.append(Drop(image["file_name"], fault))
        elif fault:
            problems.add(f"image {image['file_name']}", fault)
        for item in items_of[image_id]:
            item.drop = f"its image cannot be used: {fault}" if fault else ""
            item.read(size_hw)
        source = {"file_name": image["file_name"], "image_id": image["id"], "video_id": image.get("video_id")}
        if not fault:
            frames.append(Frame(name, video, index, path, size_hw, source=source))
    _check_boxes([item for item in items if item.box is not None and not item.drop], box_convention, skip_bad, problems)
    _number_objects([[item for item in items_of[_identity(f.source["image_id"])] if item.is_usable] for f in frames])
    drops += _left_out(items, skip_bad, problems)
    problems.raise_if_any(REMEDY)
    frames = [
        frame.with_objects([i.annotation() for i in items_of[_identity(frame.source["image_id"])] if i.is_usable])
        for frame in frames
    ]
    classes = [(category["id"], _name(category)) for category in categories.values()]
    frames.sort(key=lambda frame: (frame.video, frame.index))
    return with_reading(FrameSet(name, frames, drops, classes))


def _left_out(items: Sequence[_Item], skip_bad: bool, problems: ProblemList) -> list[Drop]:
    """What is left out, each with its reason; faults that are not to be skipped go to `problems`."""
    drops = []
    for item in items:
        if item.drop or (skip_bad and item.faults):
            drops.append(Drop(item.place_in_file, item.drop or "; ".join(item.faults), 1))
        else:
            problems.extend((item.place, fault) for fault in item.faults)
    return drops


@dataclass(slots=True)
class _Item:
    """One annotation of the file: `faults` are problems, a `drop` is the reason why it is left out."""

    entry: Json
    place: str
    image: Json | None = None
    category: Json | None = None
    faults: list[str] = field(default_factory=list)
    drop: str = ""
    size_hw: tuple[int, int] = (0, 0)
    box: np.ndarray | None = None
    segmentation: Any = None
    extent: np.ndarray | None = None
    object_id: int = 0
    track_name: str = ""

    @property
    def is_usable(self) -> bool:
        return self.box is not None and not self.faults and not self.drop

    @property
    def place_in_file(self) -> str:
        file = (self.image or {}).get("file_name")
        return f"{file} {self.place}" if _is_name(file) else self.place

    def read(self, size_hw: tuple[int, int]) -> None:
        """Take box and mask as they stand, with the faults of each."""
        if self.faults or self.drop:
            return
        self.size_hw, self.box = size_hw, flat_numbers(self.entry.get("bbox"))
        if self.box is None or len(self.box) != 4:
            self.faults.append(f"bbox is {self.entry.get('bbox')!r}, expected four numbers")
            self.box = None
        segmentation = self.entry.get("segmentation") or None
        if isinstance(segmentation, list) and flat_numbers(segmentation) is not None:
            segmentation = [segmentation]  # one polygon without the list around it
        if segmentation is None:
            return
        if fault := segmentation_fault(segmentation, size_hw):
            self.faults.append(fault)
            return
        self.extent = masks.extent(segmentation, size_hw)
        self.segmentation = None if self.extent is None else segmentation

    def annotation(self) -> ObjectAnnotation:
        attributes, box = self.entry.get("attributes"), tuple(self.box.tolist())
        attributes = attributes if isinstance(attributes, dict) else {}
        source = {"annotation_id": self.entry["id"], "category_id": self.category["id"]}
        source |= {"track_id": self.track_name} if self.track_name else {}
        return ObjectAnnotation(
            self.object_id, _name(self.category).lower(), box, self.segmentation, attributes, source
        )


def _items(content: Json, images: dict, categories: dict, keep: set[str], keep_crowd: bool) -> list[_Item]:
    """All annotations of the file, with what can be said of each before its image is looked up."""
    items, seen = [], set()
    for position, entry in enumerate(content["annotations"]):
        number = _identity(entry.get("id")) if isinstance(entry, dict) else None
        item = _Item(entry if isinstance(entry, dict) else {}, f"annotations[{position}]")
        items.append(item)
        if number is None or number in seen:
            entry_id = item.entry.get("id")
            repeated = f"id {entry_id!r} belongs to an earlier entry"
            item.faults.append(NO_ID.format("id", entry_id) if number is None else repeated)
        else:
            item.place = f"annotation {number}"
        seen.add(number)
        item.image = _lookup(item.entry, "image_id", images, item.faults)
        item.category = _lookup(item.entry, "category_id", categories, item.faults)
        crowd = item.entry.get("iscrowd") or 0
        if _whole(int(crowd) if isinstance(crowd, bool) else crowd) not in (0, 1):
            item.faults.append(f"iscrowd is {crowd!r}, expected 0 or 1")
        if item.image is not None and not _is_name(item.image.get("file_name")):
            item.faults.append("its image has no file_name")
        elif item.image is not None and item.image["file_name"] not in keep:
            item.drop = NOT_ASKED_FOR
        elif crowd not in (0, "0") and not keep_crowd and not item.faults:
            item.drop = "iscrowd: a region, not one object"
    return items


def _check_boxes(items: list[_Item], convention: str | None, skip_bad: bool, problems: ProblemList) -> None:
    """Bring boxes to xyxy in pixels; those not around their mask are dropped, or a problem if they are most."""
    read_as = convention or "xywh"
    for has_mask in (True, False):
        group = [item for item in items if (item.extent is not None) == has_mask]
        if not group:
            continue
        values, sizes = np.array([item.box for item in group]), np.array([item.size_hw for item in group])
        boxes, extents = to_xyxy(values, read_as, sizes), np.array([i.extent for i in group]) if has_mask else None
        fits = are_around(boxes, extents, sizes) if has_mask else np.ones(len(group), dtype=bool)
        other = None if convention and not has_mask else other_convention(values, read_as, sizes, extents)
        if other is not None:
            item, bbox = group[fits.argmin()], values[fits.argmin()].tolist()
            finding = f"it is not around its mask; as {other} it is, as are most of {len(group)} boxes with masks"
            if not has_mask:
                finding = f"many of {len(group)} boxes lie largely outside their images; as {other} they do not"
                finding = "numbers within 0 to 1 are fractions of the image" if values.max() <= 1 else finding
            own = "" if has_mask else f", or --box-convention {read_as} if they are right"
            problems.add(item.place, f"bbox {bbox} is read as {read_as}: {finding}: use --box-convention {other}{own}")
        for item, box in zip(group, boxes, strict=True):
            item.box = box
        faults = dict(box_problems(boxes, sizes))
        for index, fault in faults.items():
            group[index].faults.append(f"bbox {group[index].entry['bbox']} ({read_as}), as xyxy {fault}")
        contradictions = [index for index in np.flatnonzero(~fits).tolist() if index not in faults]
        for index in contradictions:
            item, extent = group[index], extents[index]
            hint = ", which seems to be in fractions of the image" if extent.max() <= 1 else ""
            bbox = values[index].tolist()
            item.drop = f"bbox {bbox} ({read_as}) is not around its mask {extent.round(2).tolist()}{hint}"
        if len(contradictions) > len(group) / 2 and other is None and not skip_bad:
            item = group[contradictions[0]]
            problems.add(item.place, f"{item.drop}; so are {len(contradictions)} of {len(group)} boxes with masks")


def _number_objects(frames: list[list[_Item]]) -> None:
    """Object ids: the file's numbers of tracks; tracks with a name or a number of more than 64 bits, and objects of a
    video without a track, get numbers that no track has."""
    taken, others = defaultdict(set), []
    for item in (item for of_frame in frames for item in of_frame):
        video = _identity(item.image.get("video_id"))
        keys = TRACK_KEYS if video is not None else TRACK_KEYS[:1]
        key = next((key for key in keys if item.entry.get(key) is not None), "id")
        value = _identity(item.entry[key])
        scope = ("image", _identity(item.image["id"])) if video is None else ("video", video)
        if value is None:
            item.faults.append(f"track_id or id is {item.entry[key]!r}, expected a whole number or a name")
        elif not _fits(value) or (key == "id" and video is not None):
            others.append(((scope, key, value), item))
        else:
            item.object_id = value
            taken[scope].add(value)
    numbers = {}
    for place, item in others:
        scope, key, value = place
        if place not in numbers:
            is_free = _fits(value) and value not in taken[scope]
            numbers[place] = value if is_free else max(taken[scope], default=0) + 1
            taken[scope].add(numbers[place])
        item.object_id = numbers[place]
        item.track_name = value if key != "id" else ""
    for of_frame in frames:
        seen = set()
        for item in of_frame:
            if item.object_id in seen and not item.faults:
                item.faults.append(f"object {item.object_id} occurs twice in {item.image['file_name']}")
            seen.add(item.object_id)


def _read_sections(path: Path) -> Json:
    content = read_json(path)
    sections = content if isinstance(content, dict) else {}
    sections = {"videos": []} | sections
    missing = [key for key in SECTIONS if not isinstance(sections.get(key), list)]
    if missing:
        raise RossamError(
            path, f"has no list {', '.join(missing)}", "COCO files hold the lists images, annotations and categories"
        )
    if not sections["images"]:
        raise RossamError(path, "lists no images", "check that this is the file you mean")
    return sections


def _entries(content: Json, section: str, key: str, problems: ProblemList) -> dict[int | str, Json]:
    """A section's entries by `key`; an entry without one, or with one already taken, is a problem."""
    entries = {}
    for position, entry in enumerate(content[section]):
        value = entry.get(key) if isinstance(entry, dict) else None
        number = _identity(value) if key != "file_name" else value if _is_name(value) else None
        if number is None:
            problems.add(f"{section}[{position}]", NO_ID.format(key, value))
        elif number in entries:
            problems.add(f"{section}[{position}]", f"{key} {value!r} belongs to an earlier entry")
        else:
            entries[number] = entry
    return entries


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _whole(value: Any) -> int | None:
    """A whole number, also one written `7.0`, `"7.0"` or `"007"`; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}(\.0+)?", value.strip()):
        return int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _fits(value: Any) -> bool:
    """Whether this is a whole number that a table's column can hold."""
    return isinstance(value, int) and abs(value) < 2**63


def _identity(value: Any) -> int | str | None:
    """An id to look up by: a whole number, or a name such as `"a"` or `"007"`; None for anything else."""
    number = _whole(value)
    is_name = isinstance(value, str) and str(number) != value.strip()
    return (value or None) if is_name else number


def _lookup(entry: Json, key: str, targets: dict[int | str, Json], faults: list[str]) -> Json | None:
    """The entry that `entry[key]` points at; a dangling reference is a fault."""
    target = targets.get(_identity(entry.get(key)))
    if target is None:
        faults.append(f"{key} {entry.get(key)!r} points at nothing")
    return target


def _name(entry: Json) -> str:
    return str(entry["id"] if entry.get("name") is None else entry["name"])


def _numbering(
    images: dict[int | str, Json], videos: dict[int | str, Json], problems: ProblemList
) -> dict[int | str, tuple[str, int]]:
    """Image id → name of its video and its number there."""
    named = {i: image for i, image in images.items() if _is_name(image.get("file_name"))}
    titles = Counter(map(_name, videos.values()))
    stems = Counter(os.path.splitext(image["file_name"])[0] for image in named.values())
    numbering, counts, is_numbered = {}, Counter(), {}
    for image_id, image in sorted(named.items(), key=lambda entry: _natural(entry[1]["file_name"])):
        file, faults = image["file_name"], []
        if image.get("video_id") is None:
            stem = os.path.splitext(file)[0]
            numbering[image_id] = (stem if stems[stem] == 1 else file, 1)
        elif (video := _lookup(image, "video_id", videos, faults)) is not None:
            counts[video["id"]] += 1
            stated = next((image[key] for key in FRAME_KEYS if image.get(key) is not None), None)
            number = counts[video["id"]] if stated is None else _whole(stated)
            if number is None or number < 0 or not _fits(number):
                faults.append(f"frame number is {stated!r}, expected a whole number of 0 or more")
            elif is_numbered.setdefault(video["id"], stated is not None) != (stated is not None):
                faults.append(
                    f"of the frames of video {_name(video)} some have a number ({FRAME_KEYS[0]}), others none"
                )
            else:
                title = _name(video)
                numbering[image_id] = (title if titles[title] == 1 else f"{title} ({video['id']})", number)
        problems.extend((f"image {file}", fault) for fault in faults)
    repeated = [place for place, n in Counter(numbering.values()).items() if n > 1]
    problems.extend((f"video {video}", f"two images are frame {number}") for video, number in repeated)
    return numbering


def _natural(file: str) -> list[str]:
    """Sorts `frame_9.png` before `frame_10.png`."""
    return [part.zfill(20) if number % 2 else part for number, part in enumerate(re.split(r"([0-9]+)", file))] + [file]


def _read_size(image: Json, image_dir: Path) -> tuple[Path, tuple[int, int], str]:
    """Path, height and width of the image file, and what is wrong with it or with the size that the JSON states."""
    try:
        os.fsencode(image["file_name"])
    except UnicodeEncodeError as error:
        finding = f"its name does not exist in this system's encoding, {error.encoding}; set PYTHONUTF8=1 for UTF-8"
        return image_dir, (0, 0), finding
    path, stated = _find_image(image_dir, image["file_name"]), [image.get(side) for side in ("height", "width")]
    if path is None:
        return image_dir, (0, 0), f"lies outside the image folder {image_dir}; name the folder that it starts from"
    try:
        size_hw = image_size_hw(path)
    except RossamError as error:
        return path, (0, 0), f"{error.where}: {error.finding}"
    numbers = [_whole(side) if side is not None else own for side, own in zip(stated, size_hw, strict=True)]
    if tuple(numbers) == tuple(size_hw):
        return path, size_hw, ""
    turned = "; the two are exchanged, as where annotations are made on an image turned by its EXIF tag"
    hint = turned if tuple(numbers) == size_hw[::-1] else ""
    finding = f"height×width is {stated[0]}×{stated[1]}, the file's is {size_hw[0]}×{size_hw[1]}{hint}"
    return path, size_hw, finding


def _find_image(folder: Path, file: str) -> Path | None:
    """The file of that name, in any Unicode form and with any slashes; None where it is outside `folder`."""
    names = [file, file.replace("\\", "/")]
    names += [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in names]
    path = next((folder / name for name in names if os.path.isfile(folder / name)), folder / file)
    inside = Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder))
    return path if inside else None


def segmentation_fault(segmentation: Any, size_hw: tuple[int, int]) -> str:
    """What keeps a segmentation from being decoded, empty where nothing does; decodes nothing."""
    if isinstance(segmentation, dict):
        try:
            masks.check_rle(segmentation, size_hw)
        except ValueError as fault:
            return str(fault)
    elif not isinstance(segmentation, list):
        return f"segmentation is {type(segmentation).__name__}, expected polygons or a run-length encoding"
    for number, polygon in enumerate(segmentation if isinstance(segmentation, list) else [], start=1):
        values = flat_numbers(polygon)
        if values is None or not np.isfinite(values).all():
            return f"polygon {number} is not a flat list of finite numbers"
        if values.size < 6 or values.size % 2:
            return f"polygon {number} has {values.size / 2:g} points, expected whole points, three or more"
        if np.abs(values).max() > FAR_OUTSIDE * max(size_hw):
            return f"polygon {number} has coordinate {np.abs(values).max():g}, the image is {list(size_hw)}"
    return ""


def flat_numbers(values: Any) -> np.ndarray | None:
    """A flat JSON list of numbers as float64, None where it is anything else."""
    try:
        array = np.array(values, dtype=np.float64) if isinstance(values, list) else None
    except (TypeError, ValueError, OverflowError):  # the last: a whole number of 400 digits
        return None
    return array if array is not None and array.ndim == 1 else None
