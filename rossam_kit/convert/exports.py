"""Exports of a `Conversion` to the formats of other tools.

Formats: `coco` (COCO JSON with tracks), `youtube-vis` (JSON, one annotation per track), `mots` (text
files of MOTS), `png` (label maps), `authors` (ROS-SAM's img/boxes/onehotmask) or `yolo` (segmentation text files), each
written so that a killed run leaves no half file.

Ids, the class list and file names are those of the input; a format without a field for them has `annotations.csv`.
What a format lacks is listed with its place and reason, in `drops` of a JSON file or in `drops.csv`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from PIL import Image

from rossam_core import masks
from rossam_core.boxes import box_problems
from rossam_core.errors import RossamError
from rossam_core.files import atomic_path, stable_hash, write_bytes, write_json
from rossam_core.records import PILLOW_FORMATS
from rossam_kit.convert.mask_records import Conversion, FrameRecord, MaskRecord
from rossam_kit.convert.outlines import is_hole, outlines
from rossam_kit.csv_text import guarded
from rossam_kit.datasets.frame_set import Drop, FrameSet, class_finder, input_ids

MOST_LABELS = 2**16 - 1
EXIF_ORIENTATION = 0x0112
MOTS_IGNORE = 10
"""The class that readers of MOTS take for regions to ignore."""


def check(frames: FrameSet, formats: Iterable[str]) -> None:
    """Raise `RossamError` where a format cannot hold these frames, before any mask is made."""
    sizes, tracks = defaultdict(set), defaultdict(set)
    for frame in frames:
        sizes[frame.video].add(tuple(frame.size_hw))
        tracks[frame.video].update(o.object_id for o in frame.objects)
    for video in sizes:
        if "png" in formats and len(tracks[video]) > MOST_LABELS:
            remedy = "export this video as coco, which has no such bound"
            raise RossamError(f"video {video}", f"has more than {MOST_LABELS} tracks, the most that png holds", remedy)
        if "youtube-vis" in formats and len(sizes[video]) > 1:
            finding = f"has frames of several sizes {sorted(sizes[video])} (height, width), youtube-vis allows one"
            raise RossamError(f"video {video}", finding, "export as coco, or make each size a video of its own")


# --- names and ids ----------------------------------------------------------------------------------------------------


class Names:
    """Ids and file names of a conversion's frames and boxes: the input's own, or numbers from 1 where it has none."""

    def __init__(self, conversion: Conversion):
        self.conversion, self.class_of = conversion, class_finder(conversion.classes)
        self.root, self.file_of, self.size_of = conversion.images, {}, {}
        for frame in conversion:
            file = os.path.relpath(frame.image_path, self.root).replace(os.sep, "/")
            self.file_of[frame.key] = frame.source.get("file_name") or file
            self.size_of[frame.key] = frame.size_hw
        self.image_ids = input_ids((frame.key, frame.source.get("image_id")) for frame in conversion)
        self.video_ids = input_ids({f.video: f.source.get("video_id") for f in conversion if _is_video(f)}.items())
        self.annotation_ids = input_ids(
            ((frame.key, record.object_id), record.source.get("annotation_id"))
            for frame in conversion
            for record in frame.objects
        )

    @cached_property
    def stem_of(self) -> dict[str, str]:
        """Frame key → file name without suffix, as a path below a folder; with it where two would be the same."""
        parts = {key: PurePosixPath(file.replace("\\", "/")).parts for key, file in self.file_of.items()}
        files = {key: "/".join(p for p in path if p not in ("/", "..", ".")) for key, path in parts.items()}
        stems = {key: os.path.splitext(file)[0] for key, file in files.items()}
        return {key: _shortened(stem) for key, stem in _distinct(stems, files).items()}

    @cached_property
    def sequence_of(self) -> dict[str, str]:
        """Video → its name as one part of a path, without blanks, slashes and what some systems refuse."""
        videos = {frame_key.rpartition("/")[0]: None for frame_key in self.file_of}
        plain = {v: re.sub(r'[\s/\\:*?"<>|,\x00-\x1f]+', "_", v).lstrip(".") or "_" for v in videos}
        return _distinct({video: _shortened(name, 200) for video, name in plain.items()}, {})

    @cached_property
    def time_of(self) -> dict[str, tuple[str, int]]:
        """Frame key → its sequence and time in MOTS, which counts from 1: one more in a video with a frame 0."""
        places = {key: (key.rpartition("/")[0], int(key.rpartition("/")[2])) for key in self.file_of}
        first = {video: 1 for video, _ in places.values()}
        first |= {video: 0 for video, index in places.values() if index < 1}
        return {key: (self.sequence_of[video], index + 1 - first[video]) for key, (video, index) in places.items()}

    @cached_property
    def _key_of(self) -> dict[str, str]:
        return {file: key for key, file in self.file_of.items()}

    def key_of_file(self, file: Any, drops: list[Drop], *stated_hw: Any) -> str | None:
        """The frame of a file name that another tool states; None, and a drop, where there is none."""
        key = self._key_of.get(file)
        if key is None:
            drops.append(Drop(f"image {file}", "is none of the conversion"))
        else:
            self.check_size(key, *stated_hw)
        return key

    def check_size(self, key: str, *stated_hw: Any) -> None:
        """Raise `RossamError` where another tool states another height and width for a frame."""
        if None not in stated_hw and stated_hw and tuple(map(float, stated_hw)) != tuple(self.size_of[key]):
            finding = f"height, width is {stated_hw} there, and {tuple(self.size_of[key])} in the conversion"
            raise RossamError(f"image {self.file_of[key]}", finding, "edit the masks on the images they were made of")

    @cached_property
    def _objects(self) -> dict[tuple[str, str], tuple[int, str]]:
        found: dict[tuple[str, str], tuple[int, str]] = {}
        for frame in self.conversion:
            for record in frame.objects:
                for track in {record.object_id, record.source.get("track_id", record.object_id)}:
                    found.setdefault((frame.video, str(track)), (record.object_id, record.category))
        return found

    def object_of(self, key: str, track: Any) -> tuple[int, str] | None:
        """`object_id` and class of a track of a frame's video, by its `object_id` or its name in the input."""
        return self._objects.get((key.rpartition("/")[0], str(track)))

    def row(self, frame: FrameRecord, record: MaskRecord) -> tuple:
        """Columns of `annotations.csv`: what joins a mask to the input's annotation."""
        class_id, _ = self.class_of(record)
        ids = (self.image_ids[frame.key], self.annotation_ids[frame.key, record.object_id], class_id)
        return (self.file_of[frame.key], *ids, record.category, frame.video, frame.index, record.object_id)


ROW = ("file_name", "image_id", "annotation_id", "category_id", "category", "video", "frame", "object_id")


def _is_video(frame: FrameRecord) -> bool:
    """False for stills of a COCO file: images without a video."""
    return "image_id" not in frame.source or frame.source.get("video_id") is not None


def _shortened(name: str, most: int = 250) -> str:
    """The name, or, where its last part is more than `most` bytes, as much as fits with a hash that tells it apart."""
    folder, slash, last = name.rpartition("/")
    data = os.fsencode(last)
    if len(data) > most:
        last = f"{os.fsdecode(data[: most - 12]).encode('utf-8', 'ignore').decode('utf-8')}-{stable_hash(name)[:8]}"
    return folder + slash + last


def _distinct(names: Mapping[str, str], fuller: Mapping[str, str]) -> dict[str, str]:
    """The names, a shared one replaced by its fuller form; whatever is still shared gets a number."""
    owners = defaultdict(list)
    for key, name in names.items():
        owners[name].append(key)
    result, taken = {}, {name for name, keys in owners.items() if len(keys) == 1}
    for name, keys in owners.items():
        for key in keys:
            candidate, number = name if len(keys) == 1 else fuller.get(key, name), 2
            while len(keys) > 1 and candidate in taken:
                candidate, number = f"{fuller.get(key, name)}_{number}", number + 1
            taken.add(candidate)
            result[key] = candidate
    return result


# --- COCO -------------------------------------------------------------------------------------------------------------


def write_coco(conversion: Conversion, path: str | Path, segmentation: str = "rle") -> Path:
    """COCO JSON with `videos`, `track_id` and the input's boxes as `bbox`; annotations are written as they are read.

    File names start at `info.image_root`. A box without a mask keeps its annotation, with an encoding of no pixel;
    `attributes` say status, reason and review score. Boxes and images that COCO readers refuse (not finite, outside,
    unreadable) are listed in `drops`, after what the reader of the input left out.

    Args:
        segmentation: `rle` (exact), or `polygons` along the pixels' edges (exact when rasterised by pycocotools).
            A mask with holes cannot be expressed by COCO polygons and stays an encoding.
    """
    if segmentation not in ("rle", "polygons"):
        raise RossamError(f"segmentation {segmentation!r}", "does not exist", "use rle or polygons")
    names, drops = Names(conversion), [*conversion.left_out]
    info = {"description": conversion.manifest["data"]["name"], "image_root": names.root.as_posix()}
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(f'{{"info": {json.dumps(info)},\n"images": ')
        _write_list(stream, _coco_images(conversion, names))
        stream.write(',\n"annotations": ')
        _write_list(stream, _coco_annotations(conversion, segmentation, names, drops))
        rest = {
            "videos": [{"id": number, "name": name} for name, number in names.video_ids.items()],
            "categories": [{"id": number, "name": name} for number, name in conversion.classes],
            "drops": _json_drops(drops),
        }
        stream.write(",\n" + json.dumps(rest)[1:] + "\n")
    return Path(path)


def _coco_images(conversion: Conversion, names: Names) -> Iterator[dict[str, Any]]:
    for frame in conversion:
        if readable(frame):
            (height, width), place = frame.size_hw, {"id": names.image_ids[frame.key]}
            if _is_video(frame):
                place |= {"video_id": names.video_ids[frame.video], "frame_index": frame.index}
            yield place | {"file_name": names.file_of[frame.key], "height": height, "width": width}


def _coco_annotations(
    conversion: Conversion, segmentation: str, names: Names, drops: list[Drop]
) -> Iterator[dict[str, Any]]:
    scores = iter(conversion.table["review_score"])
    for frame in conversion:
        for record in frame.objects:
            score = next(scores)
            if not readable(frame) or box_problems(np.array([record.box_xyxy]), frame.size_hw):
                drops.append(drop_of(frame, record))
                continue
            yield {
                "id": names.annotation_ids[frame.key, record.object_id],
                "image_id": names.image_ids[frame.key],
                "category_id": names.class_of(record)[0],
                "track_id": record.source.get("track_id", record.object_id),
                "bbox": xywh(record),
                "area": record.area,
                "iscrowd": 0,
                "segmentation": _coco_segmentation(record, frame.size_hw, segmentation),
                "attributes": {"status": record.status, "reason": record.reason, "review_score": score},
            }


def _coco_segmentation(record: MaskRecord, size_hw: tuple[int, int], form: str) -> Mapping[str, Any] | list:
    if form == "polygons" and record.has_mask:
        loops = loops_of(record)
        if not any(is_hole(loop) for loop in loops):
            return [loop.ravel().tolist() for loop in loops]
    return record.rle(size_hw)


def xywh(record: MaskRecord) -> list[float]:
    x0, y0, x1, y1 = record.box_xyxy
    return [x0, y0, x1 - x0, y1 - y0]


def readable(frame: FrameRecord) -> bool:
    return not any(record.reason.startswith("image: ") for record in frame.objects)


def loops_of(record: MaskRecord) -> list[np.ndarray]:
    """Outlines in frame coordinates, K×2 each."""
    return [loop + record.offset_xy for loop in outlines(record.piece())]


def _write_list(stream: io.TextIOBase, items: Iterable[Mapping[str, Any]]) -> None:
    stream.write("[")
    for position, item in enumerate(items):
        stream.write((",\n" if position else "\n") + json.dumps(item))
    stream.write("]")


# --- YouTube-VIS ------------------------------------------------------------------------------------------------------


def write_youtube_vis(conversion: Conversion, path: str | Path) -> Path:
    """YouTube-VIS JSON: an annotation per track, with a list entry per frame of its video in `segmentations`, `bboxes`,
    `areas` and `annotation_ids` (the input's); null where the object is absent, no pixel where a box has no mask.

    An annotation's id is its track's (`track_id`) where that is unique in the file, else a number from 1. Frames whose
    image cannot be read keep their place, without objects; their boxes are listed in `drops`. A still is a video of
    one frame.
    """
    names, drops = Names(conversion), [*conversion.left_out]
    lengths: dict[str, int] = defaultdict(int)
    places = {}
    videos: dict[str, dict[str, Any]] = {}
    tracks: dict[tuple, dict[str, Any]] = {}
    named: dict[tuple, int | str] = {}
    for frame in conversion:
        places[frame.key] = lengths[frame.video]
        lengths[frame.video] += 1
        height, width = frame.size_hw
        video = videos.setdefault(
            frame.video, {"name": frame.video, "height": height, "width": width, "file_names": []}
        )
        video["file_names"].append(names.file_of[frame.key])
    video_ids = names.video_ids if set(videos) <= set(names.video_ids) else input_ids((name, None) for name in videos)
    for frame in conversion:
        for record in frame.objects:
            if not readable(frame) or box_problems(np.array([record.box_xyxy]), frame.size_hw):
                drops.append(drop_of(frame, record))
                continue
            class_id, length = names.class_of(record)[0], lengths[frame.video]
            lists = {key: [None] * length for key in ("segmentations", "bboxes", "areas", "annotation_ids")}
            key = (frame.video, record.object_id, class_id)
            track, named[key] = tracks.setdefault(key, lists), record.source.get("track_id", record.object_id)
            place, annotation_id = places[frame.key], names.annotation_ids[frame.key, record.object_id]
            rle = {"size": list(frame.size_hw), "counts": record.runs(frame.size_hw)}  # readers take lists only
            values = (rle, xywh(record), record.area, annotation_id)
            for key, value in zip(lists, values, strict=True):
                track[key][place] = value
    ids = input_ids((key, key[1]) for key in tracks)
    annotations = []
    for key, lists in tracks.items():
        video, _, class_id = key
        size = {"height": videos[video]["height"], "width": videos[video]["width"], "length": lengths[video]}
        place = {"id": ids[key], "video_id": video_ids[video], "category_id": class_id, "track_id": named[key]}
        annotations.append(place | size | {"iscrowd": 0} | lists)
    content = {
        "info": {"description": conversion.manifest["data"]["name"], "image_root": names.root.as_posix()},
        "videos": [{"id": video_ids[name], "length": lengths[name]} | video for name, video in videos.items()],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in conversion.classes],
        "drops": _json_drops(drops),
    }
    write_json(path, content, indent=None)
    return Path(path)


# --- MOTS -------------------------------------------------------------------------------------------------------------


def write_mots(conversion: Conversion, folder: str | Path) -> Path:
    """MOTSChallenge: `MOTS-train/<video>/gt/gt.txt` with rows `frame id class height width rle`, `seqinfo.ini`, and
    `seqmaps/MOTS-train.txt`; `classes.csv` and `annotations.csv` name classes and join rows to the input.

    Ids are the tracks', frames the input's (one more in a video with a frame 0, since MOTS counts from 1). A class is
    its id in the input where all ids are whole numbers from 1 without 10 (in MOTS, a region to ignore), else its place
    in the class list. Masks of a frame must not overlap: the smaller one is on top, `hidden` counts what others lose.
    """
    folder, names = Path(folder), Names(conversion)
    whole = all(isinstance(n, int) and n >= 1 and n != MOTS_IGNORE for n, _ in conversion.classes)
    places = [n for n in range(1, len(conversion.classes) + 2) if n != MOTS_IGNORE]
    numbers = {entry: entry[0] if whole else place for entry, place in zip(conversion.classes, places, strict=False)}
    drops, texts, lengths, listed = [*conversion.left_out], defaultdict(list), defaultdict(int), []
    for frame in conversion:
        sequence, time = names.time_of[frame.key]
        lengths[sequence] = max(lengths[sequence], time)
        visible = painted_labels(frame, {record.object_id: n for n, record in enumerate(frame.objects, start=1)})
        for number, record in enumerate(frame.objects, start=1):
            pixels = visible == number
            if not pixels.any():
                drops.append(drop_of(frame, record, "hidden behind other masks" if record.has_mask else ""))
                continue
            rle, class_number = masks.encode(pixels), numbers[names.class_of(record)]
            row = (time, record.object_id, class_number, *frame.size_hw, rle["counts"])
            texts[sequence].append(" ".join(map(str, row)) + "\n")
            area = int(pixels.sum())
            counts = (record.object_id, class_number, area, record.area - area)
            listed.append((sequence, time, *counts, *names.row(frame, record)))
    split = folder / "MOTS-train"
    for sequence, length in lengths.items():
        write_text(split / sequence / "gt/gt.txt", "".join(texts[sequence]))
        write_text(split / sequence / "seqinfo.ini", f"[Sequence]\nname={sequence}\nseqLength={length}\n")
    write_text(folder / "seqmaps/MOTS-train.txt", "name\n" + "".join(f"{name}\n" for name in lengths))
    classes = [(class_number, number, name) for (number, name), class_number in numbers.items()]
    _write_csv(folder / "classes.csv", ("class", "category_id", "category"), classes)
    _write_csv(folder / "annotations.csv", ("sequence", "time", "id", "class", "pixels", "hidden", *ROW), listed)
    write_drops(folder, drops)
    return folder


# --- label maps -------------------------------------------------------------------------------------------------------


def write_label_maps(conversion: Conversion, folder: str | Path) -> Path:
    """A 16-bit gray PNG per frame, named as its image: 0 background, else the object's label; `labels.csv` lists them.

    A track keeps its label in all frames of its video. Where masks overlap, the smaller one is on top, and `labels.csv`
    counts the pixels each mask has lost to others (`hidden`).

    Raises:
        RossamError: a video has more than 65,535 tracks.
    """
    folder, names = Path(folder), Names(conversion)
    labels: dict[str, dict[int, int]] = defaultdict(dict)
    listed, drops = [], [*conversion.left_out]
    for frame in conversion:
        of_video = labels[frame.video]
        with_masks(frame, drops)
        for record in frame.objects:
            of_video.setdefault(record.object_id, len(of_video) + 1)
        if len(of_video) > MOST_LABELS:
            remedy = "export this video as coco, which has no such bound"
            raise RossamError(f"video {frame.video}", f"has more than {MOST_LABELS} tracks", remedy)
        label_map = painted_labels(frame, of_video)
        seen = np.bincount(label_map.ravel(), minlength=len(of_video) + 1)
        for record in frame.objects:
            label, area = of_video[record.object_id], record.area
            listed.append((label, record.status, area, area - int(seen[label]), *names.row(frame, record)))
        _write_png(folder / f"{names.stem_of[frame.key]}.png", label_map)
    _write_csv(folder / "labels.csv", ("label", "status", "pixels", "hidden", *ROW), listed)
    write_drops(folder, drops)
    return folder


def painted_labels(frame: FrameRecord, labels: Mapping[int, int]) -> np.ndarray:
    """uint16 H×W of object id → label, the smaller mask on top."""
    label_map = np.zeros(frame.size_hw, dtype=np.uint16)
    for record in sorted(frame.objects, key=lambda r: -r.area):
        piece, (x, y) = record.piece(), record.offset_xy
        label_map[y : y + piece.shape[0], x : x + piece.shape[1]][piece] = labels[record.object_id]
    return label_map


# --- ROS-SAM's own format ---------------------------------------------------------------------------------------------


def write_authors_format(conversion: Conversion, folder: str | Path) -> Path:
    """The format ROS-SAM's released code trains on: `img/*.png`, `boxes/*.npy`, `onehotmask/*.npy`, same names.

    Boxes are float64 N×4 xyxy, masks uint8 N×H×W of 0 and 255, written one at a time. Files are named by video and
    frame; `annotations.csv` says which `row` of them is which annotation. Frames without masks, and boxes without one,
    are left out, since that code would take an empty mask for a target; `drops.csv` lists them.
    """
    folder, names, drops = Path(folder), Names(conversion), [*conversion.left_out]
    listed = []
    for frame in conversion:
        name = f"{names.sequence_of[frame.video]}_{frame.index:06d}"
        kept = with_masks(frame, drops)
        if not kept:
            continue
        _copy_as_png(frame, folder / "img" / f"{name}.png")
        with atomic_path(folder / "boxes" / f"{name}.npy") as temporary:
            np.save(temporary, np.array([record.box_xyxy for record in kept], dtype=np.float64))
        with atomic_path(folder / "onehotmask" / f"{name}.npy") as temporary:
            stack = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(kept), *frame.size_hw))
            for plane, record in zip(stack, kept, strict=True):
                plane[:] = record.full(frame.size_hw) * np.uint8(255)
            stack.flush()
            del stack
        for row, record in enumerate(kept):
            listed.append((name, row, *names.row(frame, record)))
    _write_csv(folder / "annotations.csv", ("name", "row", *ROW), listed)
    write_drops(folder, drops)
    return folder


# --- YOLO -------------------------------------------------------------------------------------------------------------


def write_yolo(conversion: Conversion, folder: str | Path) -> Path:
    """YOLO segmentation: `images/*`, `labels/*.txt` (`class x y x y …`, 0..1 of width and height), `data.yaml`.

    Images keep the names and folders of the input. `data.yaml` names no `path`, so that readers take its own folder,
    wherever it is and whichever folder they work in. Classes are numbered from 0 in the order of the input's list;
    `annotations.csv` says which `row` of a label file is which annotation.

    The format has one polygon per object. Pieces and holes are joined to one by bridges of no width, there and back
    along the same line, which a fill by the even-odd or non-zero rule passes over. Boxes without a mask are listed in
    `drops.csv`.
    """
    folder, names, drops = Path(folder), Names(conversion), [*conversion.left_out]
    numbers = {entry: number for number, entry in enumerate(conversion.classes)}
    listed = []
    for frame in conversion:
        kept, lines = with_masks(frame, drops), []
        if not readable(frame):
            continue
        image = f"images/{names.stem_of[frame.key]}{frame.image_path.suffix}"
        label_file = yolo_label_file(image)
        height, width = frame.size_hw
        for row, record in enumerate(kept):
            points = (bridged(loops_of(record)) / (width, height)).ravel()
            lines.append(f"{numbers[names.class_of(record)]} " + " ".join(f"{value:.9g}" for value in points) + "\n")
            listed.append((label_file, row, *names.row(frame, record)))
        with atomic_path(folder / image) as temporary:
            _copy_as_stored(frame.image_path, temporary)
        write_text(folder / label_file, "".join(lines))
    listing = "".join(
        f"  {n}: {json.dumps(name, ensure_ascii=False)}\n" for n, (_, name) in enumerate(conversion.classes)
    )
    ids = json.dumps([number for number, _ in conversion.classes], ensure_ascii=False)
    write_text(folder / "data.yaml", f"train: images\nval: images\nnames:\n{listing or '  {}'}\ncategory_ids: {ids}\n")
    _write_csv(folder / "annotations.csv", ("label_file", "row", *ROW), listed)
    write_drops(folder, drops)
    return folder


def yolo_label_file(image: str) -> str:
    """The text file that YOLO readers look for beside an image: its last folder `images` becomes `labels`."""
    before, _, after = f"/{os.path.splitext(image)[0]}".rpartition("/images/")
    return f"{before}/labels/{after}.txt".lstrip("/")


def bridged(loops: list[np.ndarray]) -> np.ndarray:
    """Loops as one closed polygon K×2: from the first point of the first loop to each other one and back."""
    home, *others = loops
    parts = [home]
    for loop in others:
        parts += [home[:1], loop, loop[:1]]
    return np.concatenate(parts)


# --- shared -----------------------------------------------------------------------------------------------------------


def with_masks(frame: FrameRecord, drops: list[Drop]) -> list[MaskRecord]:
    drops += [drop_of(frame, record) for record in frame.objects if not record.has_mask]
    return [record for record in frame.objects if record.has_mask]


def drop_of(frame: FrameRecord, record: MaskRecord, reason: str = "") -> Drop:
    number = record.source.get("annotation_id")
    name = f"object {record.object_id}" + ("" if number in (None, record.object_id) else f" (annotation {number})")
    return Drop(f"{frame.key} {name}", reason or record.reason, 1)


def _json_drops(drops: Iterable[Drop]) -> list[dict[str, Any]]:
    """One entry per drop; `boxes` where it stands for more or fewer than one."""
    entries = [({"where": drop.where, "reason": drop.reason}, drop.boxes) for drop in drops]
    return [entry if boxes == 1 else entry | {"boxes": boxes} for entry, boxes in entries]


def write_drops(folder: Path, drops: Iterable[Drop]) -> None:
    rows = [(drop.where, drop.reason, drop.boxes) for drop in drops]
    _write_csv(folder / "drops.csv", ("place", "reason", "boxes"), rows)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([columns, *([guarded(value) for value in row] for row in rows)])
    write_text(path, stream.getvalue())


def _copy_as_png(frame: FrameRecord, path: Path) -> None:
    """The frame's image; a PNG is copied as it is."""
    if frame.image_path.suffix.lower() == ".png":
        with atomic_path(path) as temporary:
            _copy_as_stored(frame.image_path, temporary)
    else:
        _write_png(path, frame.frame().image()[..., ::-1])


def _copy_as_stored(source: Path, target: Path) -> None:
    """Copy an image file. One that a tag of EXIF or XMP turns is copied without it: masks are of the stored pixels."""
    shutil.copyfile(source, target)
    try:
        with Image.open(source, formats=PILLOW_FORMATS) as image:
            if image.getexif().get(EXIF_ORIENTATION, 1) == 1:
                return
            if image.format not in ("JPEG", "MPO"):
                image.save(target, format=image.format, lossless=True, exif=b"")
                return
    except (OSError, ValueError, SyntaxError):
        return  # of a kind that only others read
    target.write_bytes(_upright(target.read_bytes()))


def _upright(jpeg: bytes) -> bytes:
    """The file with 1 for the orientation that its first EXIF block, or else its XMP, states."""
    data = bytearray(re.sub(rb'(tiff:Orientation(?:="|>))[0-9]', rb"\g<1>1", jpeg))
    tiff = data.find(b"Exif\0\0") + 6
    if tiff < 6:
        return bytes(data)
    order = "<" if data[tiff : tiff + 2] == b"II" else ">"
    entries = tiff + struct.unpack_from(f"{order}I", data, tiff + 4)[0]
    for number in range(struct.unpack_from(f"{order}H", data, entries)[0]):
        entry = entries + 2 + 12 * number
        if struct.unpack_from(f"{order}H", data, entry)[0] == EXIF_ORIENTATION:
            struct.pack_into(f"{order}H", data, entry + 8, 1)
    return bytes(data)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    write_bytes(path, cv2.imencode(".png", pixels)[1].tobytes())


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8", "surrogateescape"))  # file names need not be Unicode


EXPORTS: Mapping[str, tuple[str, Callable[[Conversion, Path], Path]]] = {
    "coco": ("coco.json", write_coco),
    "coco-polygons": ("coco_polygons.json", lambda conversion, path: write_coco(conversion, path, "polygons")),
    "youtube-vis": ("youtube_vis.json", write_youtube_vis),
    "mots": ("mots", write_mots),
    "png": ("labels", write_label_maps),
    "authors": ("authors/train", write_authors_format),
    "yolo": ("yolo", write_yolo),
}
"""Name of a format → where it goes within the conversion's folder, and what writes it."""
