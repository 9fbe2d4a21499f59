"""Converted masks in the forms other tools read.

In: a `Conversion`. Out: `coco` (COCO JSON with tracks), `png` (label maps), `authors` (ROS-SAM's img/boxes/onehotmask)
or `yolo` (segmentation text files), each written so that a killed run leaves no half file.

What a form cannot say is never dropped silently: COCO lists it under `drops`, the others in `left_out.csv`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.boxes import box_problems
from ..data.outlines import is_hole, outlines
from ..errors import RossamError
from ..files import atomic_path, write_bytes, write_text
from .records import Conversion, FrameRecord, MaskRecord

MOST_LABELS = 2**16 - 1


# --- COCO -------------------------------------------------------------------------------------------------------------


def write_coco(conversion: Conversion, path: str | Path, segmentation: str = "rle") -> Path:
    """COCO JSON with `videos`, `track_id` and the input's boxes as `bbox`; written as it is read, in bounded memory.

    File names start at `info.image_root`. A box without a mask keeps its annotation, with an empty `segmentation`;
    `attributes` say status, reason and review score. Boxes and images that COCO readers refuse (not finite, outside,
    unreadable) are listed in `drops`.

    Args:
        segmentation: `rle` (exact), or `polygons` along the pixels' edges (exact when rasterised by pycocotools).
            A mask with holes cannot be told by COCO polygons and stays an encoding.
    """
    if segmentation not in ("rle", "polygons"):
        raise RossamError(f"segmentation {segmentation!r}", "is not known", "use rle or polygons")
    videos, categories = _Numbers(), _Numbers()
    folders = {str(frame.image_path.parent) for frame in conversion}
    root = Path(os.path.commonpath(folders)) if folders else Path()
    info = {"description": conversion.manifest["data"]["name"], "image_root": root.as_posix()}
    scores = iter(conversion.table["review_score"])
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(f'{{"info": {json.dumps(info)},\n"images": ')
        _write_list(stream, _coco_images(conversion, root, videos))
        drops: list[dict[str, str]] = []
        stream.write(',\n"annotations": ')
        _write_list(stream, _coco_annotations(conversion, segmentation, categories, scores, drops))
        rest = {
            "videos": [{"id": number, "name": name} for name, number in videos.items()],
            "categories": [{"id": number, "name": name} for name, number in categories.items()],
            "drops": drops,
        }
        stream.write(",\n" + json.dumps(rest)[1:] + "\n")
    return Path(path)


def _coco_images(conversion: Conversion, root: Path, videos: _Numbers) -> Iterator[dict[str, Any]]:
    for number, frame in enumerate(conversion, start=1):
        if _readable(frame):
            (height, width), name = frame.size_hw, frame.image_path.relative_to(root).as_posix()
            place = {"id": number, "video_id": videos[frame.video], "frame_index": frame.index}
            yield place | {"file_name": name, "height": height, "width": width}


def _coco_annotations(
    conversion: Conversion, segmentation: str, categories: _Numbers, scores: Iterator[float], drops: list
) -> Iterator[dict[str, Any]]:
    number = 0
    for image_id, frame in enumerate(conversion, start=1):
        for record in frame.objects:
            score = next(scores)
            if not _readable(frame) or box_problems(np.array([record.box_xyxy]), frame.size_hw):
                drops.append({"where": f"{frame.key} object {record.object_id}", "reason": record.reason})
                continue
            number += 1
            x0, y0, x1, y1 = record.box_xyxy
            yield {
                "id": number,
                "image_id": image_id,
                "category_id": categories[record.category],
                "track_id": record.object_id,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": record.area,
                "iscrowd": 0,
                "segmentation": _coco_segmentation(record, frame.size_hw, segmentation),
                "attributes": {"status": record.status, "reason": record.reason, "review_score": score},
            }


def _coco_segmentation(record: MaskRecord, size_hw: tuple[int, int], form: str) -> Mapping[str, Any] | list:
    if not record.has_mask:
        return []
    if form == "polygons":
        loops = _loops(record)
        if not any(is_hole(loop) for loop in loops):
            return [loop.ravel().tolist() for loop in loops]
    return record.rle(size_hw)


def _readable(frame: FrameRecord) -> bool:
    return not any(record.reason.startswith("image: ") for record in frame.objects)


def _loops(record: MaskRecord) -> list[np.ndarray]:
    """Outlines in frame coordinates, K×2 each."""
    return [loop + record.offset_xy for loop in outlines(record.piece())]


def _write_list(stream: io.TextIOBase, items: Iterable[Mapping[str, Any]]) -> None:
    stream.write("[")
    for position, item in enumerate(items):
        stream.write((",\n" if position else "\n") + json.dumps(item))
    stream.write("]")


class _Numbers(dict):
    """Names numbered from 1 in the order they are met."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self) + 1
        return self[name]


# --- label maps -------------------------------------------------------------------------------------------------------


def write_label_maps(conversion: Conversion, folder: str | Path) -> Path:
    """A 16-bit gray PNG a frame, `<video>/<frame>.png`: 0 ground, else the object's label; `labels.csv` lists them.

    A track keeps its label in all frames of its video. Where masks overlap, the smaller one is on top, and `labels.csv`
    counts the pixels each mask has lost to others (`hidden`).

    Raises:
        RossamError: a video has more than 65,535 tracks.
    """
    folder = Path(folder)
    labels: dict[str, dict[int, int]] = defaultdict(dict)
    listed = _Csv("video", "frame", "label", "object_id", "category", "status", "pixels", "hidden")
    for slug, frame in _slugged(conversion):
        label_map = np.zeros(frame.size_hw, dtype=np.uint16)
        of_video = labels[frame.video]
        for record in frame.objects:
            of_video.setdefault(record.object_id, len(of_video) + 1)
        if len(of_video) > MOST_LABELS:
            remedy = "export this video as coco, which has no such bound"
            raise RossamError(f"video {frame.video}", f"has more than {MOST_LABELS} tracks", remedy)
        for record in sorted(frame.objects, key=lambda r: -r.area):
            piece, (x, y) = record.piece(), record.offset_xy
            label_map[y : y + piece.shape[0], x : x + piece.shape[1]][piece] = of_video[record.object_id]
        seen = np.bincount(label_map.ravel(), minlength=len(of_video) + 1)
        for record in frame.objects:
            label, area = of_video[record.object_id], record.area
            place = (frame.video, frame.index, label, record.object_id, record.category, record.status)
            listed.add(*place, area, area - int(seen[label]))
        _write_png(folder / slug / f"{frame.index:06d}.png", label_map)
    write_text(folder / "labels.csv", listed.text())
    return folder


# --- ROS-SAM's own format ---------------------------------------------------------------------------------------------


def write_authors_format(conversion: Conversion, folder: str | Path) -> Path:
    """The format ROS-SAM's released code trains on: `img/*.png`, `boxes/*.npy`, `onehotmask/*.npy`, same names.

    Boxes are float64 N×4 xyxy, masks uint8 N×H×W of 0 and 255, written one at a time. Frames without masks, and boxes
    without one, are left out, since that code would take an empty mask for a target; `left_out.csv` lists them.
    """
    folder = Path(folder)
    left_out = _Csv("video", "frame", "object_id", "status", "reason")
    for slug, frame in _slugged(conversion):
        name = f"{slug}_{frame.index:06d}"
        kept = _with_masks(frame, left_out)
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
    write_text(folder / "left_out.csv", left_out.text())
    return folder


# --- YOLO -------------------------------------------------------------------------------------------------------------


def write_yolo(conversion: Conversion, folder: str | Path) -> Path:
    """YOLO segmentation: `images/*`, `labels/*.txt` (`class x y x y …`, 0..1 of width and height), `data.yaml`.

    The format has one polygon an object. Pieces and holes are joined to one by bridges of no width, there and back
    along the same line, which a fill by the even-odd or non-zero rule passes over. Boxes without a mask are listed in
    `left_out.csv`.
    """
    folder, categories = Path(folder), _Numbers()
    left_out = _Csv("video", "frame", "object_id", "status", "reason")
    for slug, frame in _slugged(conversion):
        name = f"{slug}_{frame.index:06d}"
        kept, lines = _with_masks(frame, left_out), []
        if not _readable(frame):
            continue
        height, width = frame.size_hw
        for record in kept:
            points = (_bridged(_loops(record)) / (width, height)).ravel()
            lines.append(f"{categories[record.category] - 1} " + " ".join(f"{value:.9g}" for value in points) + "\n")
        image = folder / "images" / f"{name}{frame.image_path.suffix.lower()}"
        with atomic_path(image) as temporary:
            shutil.copyfile(frame.image_path, temporary)
        write_text(folder / "labels" / f"{name}.txt", "".join(lines))
    names = {number - 1: name for name, number in categories.items()}
    listing = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in names.items())
    write_text(folder / "data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{listing or '  {}'}")
    write_text(folder / "left_out.csv", left_out.text())
    return folder


def _bridged(loops: list[np.ndarray]) -> np.ndarray:
    """Loops as one closed polygon K×2: from the first point of the first loop to each other one and back."""
    home, *others = loops
    parts = [home]
    for loop in others:
        parts += [home[:1], loop, loop[:1]]
    return np.concatenate(parts)


# --- shared -----------------------------------------------------------------------------------------------------------


def _slugged(conversion: Conversion) -> Iterator[tuple[str, FrameRecord]]:
    """Frames with their video's name as a file may be named; two videos that would share one are an error."""
    owners: dict[str, str] = {}
    for frame in conversion:
        slug = re.sub(r"[^A-Za-z0-9._-]+", "_", frame.video).lstrip(".") or "_"
        if owners.setdefault(slug, frame.video) != frame.video:
            found = f"and video {owners[slug]!r} would both be named {slug}"
            raise RossamError(f"video {frame.video!r}", found, "rename one of them, or export as coco")
        yield slug, frame


def _with_masks(frame: FrameRecord, left_out: _Csv) -> list[MaskRecord]:
    for record in frame.objects:
        if not record.has_mask:
            left_out.add(frame.video, frame.index, record.object_id, record.status, record.reason)
    return [record for record in frame.objects if record.has_mask]


def _copy_as_png(frame: FrameRecord, path: Path) -> None:
    """The frame's image; a PNG is copied as it is."""
    if frame.image_path.suffix.lower() == ".png":
        with atomic_path(path) as temporary:
            shutil.copyfile(frame.image_path, temporary)
    else:
        _write_png(path, frame.frame().image()[..., ::-1])


def _write_png(path: Path, pixels: np.ndarray) -> None:
    write_bytes(path, cv2.imencode(".png", pixels)[1].tobytes())


class _Csv:
    """Lines of a small table, collected."""

    def __init__(self, *columns: str):
        self._stream = io.StringIO()
        self._writer = csv.writer(self._stream, lineterminator="\n")
        self._writer.writerow(columns)

    def add(self, *values: Any) -> None:
        self._writer.writerow(values)

    def text(self) -> str:
        return self._stream.getvalue()


EXPORTS: Mapping[str, tuple[str, Callable[[Conversion, Path], Path]]] = {
    "coco": ("coco.json", write_coco),
    "coco-polygons": ("coco_polygons.json", lambda conversion, path: write_coco(conversion, path, "polygons")),
    "png": ("labels", write_label_maps),
    "authors": ("authors/train", write_authors_format),
    "yolo": ("yolo", write_yolo),
}
"""Name of a format → where it goes within the conversion's folder, and what writes it."""
