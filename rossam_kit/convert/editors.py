"""Annotation editors: masks of a `Conversion` to CVAT, Label Studio and labelme, and what was corrected there back.

Each format has a writer (path → path) and a reader that yields `Found` masks, exact where the editor leaves them alone.
Formats: CVAT for images 1.1, https://docs.cvat.ai/docs/other/xml_format; Label Studio's tasks with brush masks, whose
bits are packed as in thi.ng/rle-pack; labelme's JSON files of version 5.
"""

from __future__ import annotations

import base64
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

import cv2
import numpy as np

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.files import atomic_path, read_json, write_json
from rossam_kit.convert.exports import Names, bridged, loops_of, with_masks, write_drops, write_text
from rossam_kit.convert.mask_records import Conversion
from rossam_kit.datasets.coco import segmentation_fault
from rossam_kit.datasets.frame_set import Drop


class Found(NamedTuple):
    """A mask that a corrected file holds.

    Attributes:
        key: its frame.
        track, category: `object_id` (or the track's name in the input) and class, None where the file does not say.
        segmentation: encoding or polygons in the frame; None says only that the file lists the frame.
        box_xyxy: its box, None where that is the box around the mask.
    """

    key: str
    track: int | str | None = None
    category: str | None = None
    segmentation: Any = None
    box_xyxy: tuple[float, float, float, float] | None = None


def runs_of(mask: np.ndarray) -> np.ndarray:
    """Lengths of runs of equal values along the rows of a bool h×w mask, the first of background (maybe 0)."""
    changes = np.flatnonzero(np.diff(mask.ravel().astype(np.int8), prepend=0))
    return np.diff(changes, prepend=0, append=mask.size)


def labels_of(conversion: Conversion) -> list[str]:
    """Names of the classes, each once: editors know a class by its name."""
    return list(dict.fromkeys(name for _, name in conversion.classes))


# --- CVAT -------------------------------------------------------------------------------------------------------------


def write_cvat(conversion: Conversion, folder: Path) -> Path:
    """`annotations.xml` (CVAT for images 1.1) with one mask per object, and `labels.json` for the task's raw labels.

    The task's images keep the names that they have below the images' root. A mask's track is its attribute `track_id`.
    """
    names, drops = Names(conversion), [*conversion.left_out]
    attribute = {"name": "track_id", "input_type": "text", "mutable": False, "values": [""]}
    labels = [{"name": name, "type": "any", "attributes": [attribute]} for name in labels_of(conversion)]
    write_json(folder / "labels.json", labels)
    with (
        atomic_path(folder / "annotations.xml") as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        stream.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        for number, frame in enumerate(conversion):
            height, width = map(str, frame.size_hw)
            place = {"id": str(number), "name": names.file_of[frame.key], "width": width, "height": height}
            image = ElementTree.Element("image", place)
            for record in with_masks(frame, drops):
                piece, (left, top) = record.piece(), record.offset_xy
                values = {"label": names.class_of(record)[1], "source": "file", "occluded": "0", "z_order": "0"}
                values |= {"rle": ", ".join(map(str, runs_of(piece))), "left": str(left), "top": str(top)}
                values |= {"width": str(piece.shape[1]), "height": str(piece.shape[0])}
                mask = ElementTree.SubElement(image, "mask", values)
                ElementTree.SubElement(mask, "attribute", name="track_id").text = str(record.object_id)
            stream.write(ElementTree.tostring(image, "unicode") + "\n")
        stream.write("</annotations>\n")
    write_drops(folder, drops)
    return folder


def read_cvat(place: Path, names: Names, drops: list[Drop]) -> Iterator[Found]:
    """Masks and polygons of an `annotations.xml` of CVAT for images, or of a folder that holds it."""
    path = place / "annotations.xml" if place.is_dir() else place
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise RossamError(path, f"cannot be read ({error})", "export the task as CVAT for images 1.1") from error
    for image in root.iter("image"):
        key = names.key_of_file(image.get("name"), drops, image.get("height"), image.get("width"))
        if key is None:
            continue
        yield Found(key)
        for shape in image:
            track = shape.findtext("attribute[@name='track_id']", "").strip()
            about = (key, int(track) if track.isdecimal() else None, shape.get("label"))
            if shape.tag == "polygon":
                points = [float(value) for pair in shape.get("points").split(";") for value in pair.split(",")]
                yield Found(*about, [points])
            elif shape.tag == "mask":
                left, top, width, height = (int(float(shape.get(n))) for n in ("left", "top", "width", "height"))
                runs = np.array(shape.get("rle").split(","), dtype=int)
                if runs.sum() != width * height or height > names.size_of[key][0] or width > names.size_of[key][1]:
                    raise RossamError(path, f"a mask of {key} is damaged or larger than its image", "export it anew")
                bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
                yield Found(*about, masks.encode(_placed(bits.reshape(height, width), (left, top), names.size_of[key])))
            else:
                drops.append(Drop(f"{key} {shape.tag}", "is no mask and no polygon"))


def _placed(piece: np.ndarray, offset_xy: Sequence[int], size_hw: tuple[int, int]) -> np.ndarray:
    """A bool piece in its frame; what lies outside the frame is cut off."""
    mask, (x, y) = np.zeros(size_hw, dtype=bool), offset_xy
    inside = piece[max(-y, 0) :, max(-x, 0) :]
    target = mask[max(y, 0) : y + piece.shape[0], max(x, 0) : x + piece.shape[1]]
    target[...] = inside[: target.shape[0], : target.shape[1]]
    return mask


# --- Label Studio -----------------------------------------------------------------------------------------------------

LENGTH_BITS = (3, 4, 8, 16)
"""Widths in bits that a run's length may have in Label Studio's encoding."""
BRUSH = {"type": "brushlabels", "from_name": "mask", "to_name": "image", "image_rotation": 0}


def write_label_studio(conversion: Conversion, folder: Path) -> Path:
    """`tasks.json` with brush masks, to be imported into a project with the labelling interface `config.xml`.

    Images are served by Label Studio from the images' root (`LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT`). The id of a
    region is `track-` and its track.
    """
    names, drops, tasks = Names(conversion), [*conversion.left_out], []
    for frame in conversion:
        height, width = frame.size_hw
        regions = []
        for record in with_masks(frame, drops):
            rle = brush_rle(record.full(frame.size_hw))
            value = {"format": "rle", "rle": rle, "brushlabels": [names.class_of(record)[1]]}
            place = {"id": f"track-{record.object_id}", "original_width": width, "original_height": height}
            regions.append(BRUSH | place | {"value": value})
        file = names.file_of[frame.key]
        image = {"image": f"/data/local-files/?d={quote(file, errors='surrogateescape')}", "file_name": file}
        tasks.append({"data": image, "annotations": [{"result": regions}]})
    write_json(folder / "tasks.json", tasks, indent=None)
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true", zoomControl="true")
    brushes = ElementTree.SubElement(view, "BrushLabels", name="mask", toName="image")
    for name in labels_of(conversion):
        ElementTree.SubElement(brushes, "Label", value=name)
    write_text(folder / "config.xml", ElementTree.tostring(view, "unicode") + "\n")
    write_drops(folder, drops)
    return folder


def read_label_studio(place: Path, names: Names, drops: list[Drop]) -> Iterator[Found]:
    """Brush masks and polygons of Label Studio's export as JSON, the newest annotation of each task."""
    path = place / "tasks.json" if place.is_dir() else place
    tasks = read_json(path)
    if not (isinstance(tasks, list) and all(isinstance(t, dict) and "data" in t for t in tasks)):
        raise RossamError(path, "is no list of tasks", "export the project as JSON (not JSON-MIN)")
    for task in tasks:
        key = names.key_of_file(task["data"].get("file_name"), drops)
        answers = [answer for answer in task.get("annotations", ()) if not answer.get("was_cancelled")]
        if key is None or not answers:
            continue
        yield Found(key)
        for region in max(answers, key=lambda answer: str(answer.get("updated_at", "")))["result"]:
            kind, value, size_hw = region.get("type"), region.get("value", {}), names.size_of[key]
            track = re.fullmatch(r"track-(\d+)", str(region.get("id", "")))
            about = (key, int(track[1]) if track else None, (value.get(kind) or [None])[0])
            if kind == "brushlabels":
                yield Found(*about, masks.encode(brush_mask(value["rle"], size_hw)))
            elif kind == "polygonlabels":
                yield Found(*about, [(np.array(value["points"]) / 100 * size_hw[::-1]).ravel().tolist()])
            else:
                drops.append(Drop(f"{key} {kind} {region.get('id', '')}", "is no mask and no polygon"))


def brush_rle(mask: np.ndarray) -> list[int]:
    """Label Studio's encoding of a bool H×W mask: bytes of packed bits, runs of equal RGBA channels 0 or 255."""
    bits = [f"{4 * mask.size:032b}", f"{7:05b}", *(f"{width - 1:04b}" for width in LENGTH_BITS)]
    for i, length in enumerate(4 * runs_of(mask)):
        for start in range(0, length, 2 ** LENGTH_BITS[-1]):
            part = min(length - start, 2 ** LENGTH_BITS[-1]) - 1
            size = next(n for n, width in enumerate(LENGTH_BITS) if part < 2**width)
            bits.append(f"1{size:02b}{part:0{LENGTH_BITS[size]}b}{255 * (i % 2):08b}")
    return np.packbits(np.frombuffer("".join(bits).encode(), dtype=np.uint8) - ord("0")).tolist()


def brush_mask(rle: Sequence[int], size_hw: tuple[int, int]) -> np.ndarray:
    """The bool H×W mask of Label Studio's encoding: where its fourth channel (alpha) is above half.

    Raises:
        RossamError: it is of another size, or damaged.
    """
    text, at = "".join(f"{byte:08b}" for byte in rle), 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(text[at - count : at], 2)

    try:
        count, word, widths = read(32), read(5) + 1, [read(4) + 1 for _ in range(4)]
        if count != 4 * size_hw[0] * size_hw[1]:
            raise ValueError("another size")
        values, lengths, left = [], [], count
        while left > 0:
            is_run, length = read(1), read(widths[read(2)]) + 1
            values += [read(word) for _ in range(1 if is_run else length)]
            lengths += [length] if is_run else [1] * length
            left -= length
        return np.repeat(values, lengths).reshape(*size_hw, 4)[..., 3] > 127
    except ValueError as error:
        finding = f"a brush mask is damaged or not of the image's size {tuple(size_hw)}"
        raise RossamError("Label Studio", finding, "export the project anew") from error


# --- labelme ----------------------------------------------------------------------------------------------------------


def write_labelme(conversion: Conversion, folder: Path) -> Path:
    """One JSON file per image, with one polygon per object along the pixels' edges; `group_id` is the track.

    Pieces and holes of a mask are joined to one polygon by bridges of no width. Images are named relative to the file.
    """
    names, drops = Names(conversion), [*conversion.left_out]
    for frame in conversion:
        path, (height, width), shapes = folder / f"{names.stem_of[frame.key]}.json", frame.size_hw, []
        for record in with_masks(frame, drops):
            shape = {"label": names.class_of(record)[1], "points": bridged(loops_of(record)).tolist()}
            shape |= {"group_id": record.object_id, "shape_type": "polygon", "flags": {}, "description": ""}
            shapes.append(shape)
        image = Path(os.path.relpath(frame.image_path, path.parent.absolute())).as_posix()
        about = {"version": "5.4.1", "flags": {}, "imagePath": image, "imageData": None}
        write_json(path, about | {"imageHeight": height, "imageWidth": width, "shapes": shapes}, indent=None)
    write_drops(folder, drops)
    return folder


def read_labelme(place: Path, names: Names, drops: list[Drop]) -> Iterator[Found]:
    """Polygons and masks of labelme's files; those of one label and group are one object."""
    for key, stem in names.stem_of.items():
        path = place / f"{stem}.json"
        if not path.exists():
            continue
        yield Found(key)
        content, groups = read_json(path), defaultdict(list)
        names.check_size(key, content.get("imageHeight"), content.get("imageWidth"))
        for number, shape in enumerate(content["shapes"]):
            points, group = np.array(shape.get("points", ()), dtype=float), shape.get("group_id")
            identity = (group, shape.get("label"), None if group is not None else number)
            is_polygon, polygon = shape.get("shape_type") == "polygon", [points.ravel().tolist()]
            if is_polygon and (fault := segmentation_fault(polygon, names.size_of[key])):
                drops.append(Drop(f"{key} polygon {number + 1}", fault))
            elif is_polygon:
                groups[identity].append(masks.decode(polygon, names.size_of[key]))
            elif shape.get("shape_type") == "mask" and shape.get("mask"):
                png = np.frombuffer(base64.b64decode(shape["mask"]), dtype=np.uint8)
                piece = cv2.imdecode(png, cv2.IMREAD_GRAYSCALE) > 0
                groups[identity].append(_placed(piece, points[0].round().astype(int).tolist(), names.size_of[key]))
            else:
                drops.append(Drop(f"{key} {shape.get('shape_type')} {number + 1}", "is no mask and no polygon"))
        for (group, category, _), parts in groups.items():
            yield Found(key, group, category, masks.encode(np.any(parts, axis=0)))


EXPORTS: Mapping[str, tuple[str, Callable[[Conversion, Path], Path]]] = {
    "cvat": ("cvat", write_cvat),
    "label-studio": ("label_studio", write_label_studio),
    "labelme": ("labelme", write_labelme),
}
"""Name of an editor → where its files go within the conversion's folder, and what writes them."""
