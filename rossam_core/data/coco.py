"""COCO JSON: our own index of a frame set, written and read back exactly, and a reader for anybody's file.

In: a `FrameSet`, or a COCO annotation file with its image folder. Out: an index on disk, or a `FrameSet`.

The index is plain COCO with the extensions video datasets use (`videos`, `video_id`, `track_id`), so other
tools open it; what COCO has no field for (`box_xyxy` as exact floats, `attributes`, `drops`) stands beside.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from ..errors import ProblemList, RossamError
from ..files import read_json, write_json
from . import masks
from .boxes import box_problems, xywh_to_xyxy
from .images import ImageReading, image_size_hw
from .records import Drop, Frame, FrameSet, ObjectAnnotation

FORMAT = "rossam-index-1"
FAR_OUTSIDE = 10
"""Polygon coordinates beyond this many frame sides are faults: rasterising takes memory in proportion to them."""
SECTIONS = ("videos", "images", "annotations", "categories")
Json = dict[str, Any]


def write_coco_index(frames: FrameSet, path: str | os.PathLike, image_root: str | os.PathLike | None = None) -> None:
    """Write `frames` as a COCO index, atomically.

    Args:
        path: the JSON file.
        image_root: folder that the file names start from; default: the index's own. It is stored relative to
            the index where it lies below it, so that both can be moved together, and absolute elsewhere;
            so is an image relative to `image_root`.
    """
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    video_ids = {name: i for i, name in enumerate(dict.fromkeys(f.video for f in frames), start=1)}
    category_ids = {name: i for i, name in enumerate(sorted(frames.categories), start=1)}
    images, annotations = [], []
    for image_id, frame in enumerate(frames, start=1):
        height, width = frame.size_hw
        images.append(
            {
                "id": image_id,
                "video_id": video_ids[frame.video],
                "frame_index": int(frame.index),
                "file_name": _relative_or_absolute(frame.image_path, root),
                "height": int(height),
                "width": int(width),
                "dataset": frame.dataset,
                "attributes": dict(frame.attributes),
            }
            | frame.reading.as_entry()
        )
        for item in frame.objects:
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_ids[item.category]}
            annotations.append(ids | _object_to_json(item, frame.size_hw))
    content = {
        "info": {"format": FORMAT, "name": frames.name, "image_root": _relative_or_absolute(root, path.parent)},
        "videos": [{"id": i, "name": name} for name, i in video_ids.items()],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for name, i in category_ids.items()],
        "drops": [{"where": str(drop.where), "reason": drop.reason} for drop in frames.drops],
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
            objects[item["image_id"]].append(
                ObjectAnnotation(
                    object_id=item["track_id"],
                    category=categories[item["category_id"]],
                    box_xyxy=tuple(item["box_xyxy"]),
                    segmentation=item["segmentation"],
                    attributes=item["attributes"],
                )
            )
        frames = [
            Frame(
                dataset=image["dataset"],
                video=videos[image["video_id"]],
                index=image["frame_index"],
                image_path=root / image["file_name"],
                size_hw=(image["height"], image["width"]),
                objects=tuple(objects[image["id"]]),
                attributes=image["attributes"],
                reading=ImageReading.of_entry(image),
            )
            for image in content["images"]
        ]
        return FrameSet(info["name"], frames, [Drop(**drop) for drop in content["drops"]])
    except (KeyError, TypeError) as error:
        raise RossamError(path, f"is damaged ({error!r})", "delete it and write the index anew") from error


def _object_to_json(item: ObjectAnnotation, size_hw: tuple[int, int]) -> Json:
    x0, y0, x1, y1 = box = [float(value) for value in item.box_xyxy]
    segmentation, area = item.segmentation, (x1 - x0) * (y1 - y0)
    if segmentation is not None:
        area = int(coco_mask.area(masks.to_rle(segmentation, size_hw)))
        is_rle = isinstance(segmentation, Mapping)
        segmentation = dict(segmentation) if is_rle else [[float(v) for v in polygon] for polygon in segmentation]
    return {
        "track_id": int(item.object_id),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "box_xyxy": box,
        "area": area,
        "iscrowd": 0,
        "segmentation": segmentation,
        "attributes": dict(item.attributes),
    }


def _relative_or_absolute(path: Path, folder: Path) -> str:
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def read_coco(
    annotations: str | os.PathLike,
    image_dir: str | os.PathLike,
    *,
    name: str,
    keep_files: Collection[str] | None = None,
    box_convention: Literal["xywh", "xyxy"] = "xywh",
) -> FrameSet:
    """Read a COCO annotation file of any origin; every problem in it is told at once.

    Image files are looked up and their headers compared with the JSON; no pixel and no mask is decoded.
    An image without `video_id` is a video of one frame, named by its file. In a video, frames are numbered by
    `frame_index` or `frame_id` as the file has them, else from 1 in the order of their names. `object_id` is
    `track_id` where given, else the annotation's id. An empty or absent `segmentation` means that only the
    box is known. `iscrowd` marks a region and not an object: it leaves a `Drop`.

    Args:
        annotations: the JSON file.
        image_dir: folder that its `file_name`s start from.
        name: of the frame set, and each frame's `dataset`.
        keep_files: read only the images of these `file_name`s; None = all.
        box_convention: what `bbox` holds, in pixel-edge coordinates: x, y, width, height or x0, y0, x1, y1.

    Raises:
        RossamError: lists ids that are missing, repeated or dangling; images that are missing, unreadable or
            of another size than stated; boxes that are not finite, of no area or outside; polygons of fewer
            than three points or far outside; run-length encodings of another size or damaged.
    """
    annotations, image_dir = Path(annotations), Path(image_dir)
    content = _read_sections(annotations)
    if not image_dir.is_dir():
        raise RossamError(image_dir, "no such image folder", f"name the folder of the images of {annotations}")
    problems = ProblemList(annotations)
    categories = _entries(content, "categories", "id", problems)
    videos = _entries(content, "videos", "id", problems)
    images = _entries(content, "images", "id", problems)
    files = set(_entries(content, "images", "file_name", problems))
    keep = files if keep_files is None else set(keep_files)
    problems.extend((f"image {file}", "is asked for but not in the file") for file in sorted(keep - files))
    kept_ids = {
        i for i, image in images.items() if isinstance(image.get("file_name"), str) and image["file_name"] in keep
    }

    drops, items_of = [], defaultdict(list)
    for item in _entries(content, "annotations", "id", problems).values():
        place = f"annotation {item['id']}"
        image = _lookup(item, "image_id", images, place, problems)
        category = _lookup(item, "category_id", categories, place, problems)
        if image is None or category is None or image["id"] not in kept_ids:
            continue
        if item.get("iscrowd"):
            drops.append(Drop(f"{image['file_name']} {place}", "iscrowd: a region, not one object"))
        else:
            items_of[image["id"]].append((item, str(category.get("name", category["id"])).lower()))

    frames = []
    for image_id, (video, index) in _numbering(images, videos, problems).items():
        if image_id not in kept_ids:
            continue
        file = images[image_id]["file_name"]
        size_hw = _read_size(images[image_id], image_dir / file, problems)
        if size_hw is None:
            continue
        objects = [_read_object(*item, size_hw, box_convention, problems) for item in items_of[image_id]]
        repeated = [i for i, n in Counter(o.object_id for o in objects).items() if n > 1]
        problems.extend((f"image {file}", f"object {object_id} occurs twice") for object_id in repeated)
        frames.append(Frame(name, video, index, image_dir / file, size_hw, tuple(objects)))
    problems.raise_if_any(
        f"correct these entries, or read the other images alone with keep_files (boxes were read as {box_convention}; "
        "box_convention may say otherwise)"
    )
    return FrameSet(name, sorted(frames, key=lambda frame: (frame.video, frame.index)), drops).with_reading()


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
    entries, kinds = {}, str if key == "file_name" else int | str
    for position, entry in enumerate(content[section]):
        value = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(value, kinds):
            problems.add(f"{section}[{position}]", f"{key} is {value!r}, expected a name or, of an id, a whole number")
        elif value in entries:
            problems.add(f"{section}[{position}]", f"{key} {value!r} belongs to an earlier entry")
        else:
            entries[value] = entry
    return entries


def _lookup(entry: Json, key: str, targets: dict[int | str, Json], place: str, problems: ProblemList) -> Json | None:
    """The entry that `entry[key]` points at; a dangling reference is a problem."""
    value = entry.get(key)
    if isinstance(value, int | str) and value in targets:
        return targets[value]
    problems.add(place, f"{key} {value!r} points at nothing")
    return None


def _numbering(
    images: dict[int | str, Json], videos: dict[int | str, Json], problems: ProblemList
) -> dict[int | str, tuple[str, int]]:
    """Image id → name of its video and its number there."""
    named = {i: image for i, image in images.items() if isinstance(image.get("file_name"), str)}
    stems = Counter(os.path.splitext(image["file_name"])[0] for image in named.values())
    numbering, counts = {}, Counter()
    for image_id, image in sorted(named.items(), key=lambda entry: entry[1]["file_name"]):
        file = image["file_name"]
        if image.get("video_id") is None:
            stem = os.path.splitext(file)[0]
            numbering[image_id] = (stem if stems[stem] == 1 else file, 1)
        elif (video := _lookup(image, "video_id", videos, f"image {file}", problems)) is not None:
            counts[video["id"]] += 1
            number = image.get("frame_index", image.get("frame_id"))
            number = number if isinstance(number, int) else counts[video["id"]]
            numbering[image_id] = (str(video.get("name", video["id"])), number)
    repeated = [place for place, n in Counter(numbering.values()).items() if n > 1]
    problems.extend((f"video {video}", f"two images are frame {number}") for video, number in repeated)
    return numbering


def _read_size(image: Json, path: Path, problems: ProblemList) -> tuple[int, int] | None:
    """Height and width of the image file, compared with what the JSON states; None where it cannot be read."""
    place, stated = f"image {image['file_name']}", (image.get("height"), image.get("width"))
    try:
        size_hw = image_size_hw(path)
    except RossamError as error:
        problems.add(place, f"{error.where}: {error.found}")
        return None
    if stated not in (size_hw, (None, None)):
        turned = "; the annotations seem to have been made on the image turned by its EXIF tag"
        hint = turned if stated == size_hw[::-1] else ""
        problems.add(place, f"height×width is {stated[0]}×{stated[1]}, the file's is {size_hw[0]}×{size_hw[1]}{hint}")
    return size_hw


def _read_object(
    item: Json, category: str, size_hw: tuple[int, int], box_convention: str, problems: ProblemList
) -> ObjectAnnotation:
    """One annotation; what is wrong with it goes into `problems`, and the object returned is then not used."""
    place, segmentation = f"annotation {item['id']}", item.get("segmentation") or None
    object_id = item.get("track_id", item["id"])
    if not isinstance(object_id, int):
        problems.add(place, f"track_id or id is {object_id!r}, expected a whole number")
        object_id = item["id"]
    box = _numbers(item.get("bbox"))
    if box is None or len(box) != 4:
        problems.add(place, f"bbox is {item.get('bbox')!r}, expected four numbers")
        box = np.full(4, np.nan)
    else:
        box = xywh_to_xyxy(box) if box_convention == "xywh" else box
        faults = box_problems(box[None], size_hw)
        problems.extend((place, f"bbox {item['bbox']} ({box_convention}), as xyxy {fault}") for _, fault in faults)
    if segmentation is not None:
        try:
            check_segmentation(segmentation, size_hw)
        except ValueError as fault:
            problems.add(place, str(fault))
    attributes = item.get("attributes")
    return ObjectAnnotation(
        object_id, category, tuple(box.tolist()), segmentation, attributes if isinstance(attributes, dict) else {}
    )


def check_segmentation(segmentation: Any, size_hw: tuple[int, int]) -> None:
    """`ValueError` with what keeps a segmentation from being decoded; decodes nothing."""
    if isinstance(segmentation, dict):
        return masks.check_rle(segmentation, size_hw)
    if not isinstance(segmentation, list):
        raise ValueError(f"segmentation is {type(segmentation).__name__}, expected polygons or a run-length encoding")
    for number, polygon in enumerate(segmentation, start=1):
        values = _numbers(polygon)
        if values is None or not np.isfinite(values).all():
            raise ValueError(f"polygon {number} is not a flat list of finite numbers")
        if values.size < 6 or values.size % 2:
            raise ValueError(f"polygon {number} has {values.size / 2:g} points, expected whole points, three or more")
        if np.abs(values).max() > FAR_OUTSIDE * max(size_hw):
            raise ValueError(f"polygon {number} has coordinate {np.abs(values).max():g}, the image is {list(size_hw)}")


def _numbers(values: Any) -> np.ndarray | None:
    """A flat JSON list of numbers as float64, None where it is anything else."""
    try:
        array = np.array(values, dtype=np.float64) if isinstance(values, list) else None
    except (TypeError, ValueError):
        return None
    return array if array is not None and array.ndim == 1 else None
