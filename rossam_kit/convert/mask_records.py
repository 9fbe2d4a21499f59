"""Files of a conversion: one record per box, in shards of whole frames.

`Conversion` reads `FrameRecord`s one shard at a time, and a table with one row per box.

    manifest.json         settings, weights, versions and data the folder was made with, and where its images lie
    images.json           hash of each image, to name what has changed when the conversion is resumed
    shards/000000.gz …    one JSON line per frame, its boxes in the order of the input (gzip)
    records.csv           one row per box: place, status, reason, signs of quality, score; then what was left out
    exported.json         hashes of exported files, by which those that were changed since are not overwritten
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from pycocotools import mask as coco_mask

from rossam_core import masks
from rossam_core.errors import RossamError
from rossam_core.files import read_json
from rossam_core.records import Box, Frame
from rossam_kit.csv_text import plain_table
from rossam_kit.datasets.frame_set import Drop
from rossam_kit.datasets.images import AS_IT_IS, DatasetReading

MANIFEST, IMAGES, SHARDS, RECORDS = "manifest.json", "images.json", "shards", "records.csv"
EXPORTED = "exported.json"
FORMAT = "rossam-masks-4"
TEXTS = ("video", "category", "status", "reason", "looks", "annotation_id", "place")
SIDES = ("x0", "y0", "x1", "y1")
INTEGERS = ("shard", "frame", "object_id", "area", "review_rank")
LEFT_OUT = "left out"
"""Status in `records.csv` of what a reader or an option left out: such a row stands for `boxes` boxes of the input."""


@dataclass(frozen=True)
class MaskRecord:
    """What became of one box.

    Attributes:
        object_id, category, box_xyxy: as in the input.
        status: `ok`; `cut` (the window did not hold the box whole); `empty` (no pixel); `failed` (no mask could be
            made). `reason` says more, and is empty where there is nothing to say.
        offset_xy: frame pixel of the piece's first pixel.
        piece_rle: COCO run-length encoding of the rectangle that holds the mask; None where there is no mask.
        signs: quality sign → value (`quality.SIGNS`); None where it cannot be had.
        source: ids the input gives it (`ObjectAnnotation.source`).
    """

    object_id: int
    category: str
    box_xyxy: Box
    status: str
    reason: str = ""
    offset_xy: tuple[int, int] = (0, 0)
    piece_rle: Mapping[str, Any] | None = None
    signs: Mapping[str, float | None] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_mask(self) -> bool:
        return self.piece_rle is not None

    @property
    def area(self) -> int:
        """Mask pixels."""
        return int(coco_mask.area(dict(self.piece_rle))) if self.has_mask else 0

    def piece(self) -> np.ndarray:
        """The mask in its tight rectangle, bool h×w (0×0 without a mask)."""
        return coco_mask.decode(dict(self.piece_rle)).astype(bool) if self.has_mask else np.zeros((0, 0), dtype=bool)

    def full(self, size_hw: tuple[int, int]) -> np.ndarray:
        """The mask in its frame, bool H×W."""
        mask, piece, (x, y) = np.zeros(size_hw, dtype=bool), self.piece(), self.offset_xy
        mask[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
        return mask

    def rle(self, size_hw: tuple[int, int]) -> dict[str, Any]:
        """COCO run-length encoding of the mask in its frame."""
        return masks.to_rle({"size": list(size_hw), "counts": self.runs(size_hw)}, size_hw)

    def runs(self, size_hw: tuple[int, int]) -> list[int]:
        """Run lengths of the mask in its frame, background first (COCO's counts), made without a full mask."""
        piece, (x, y), (height, width) = self.piece(), self.offset_xy, size_hw
        columns = np.zeros((piece.shape[1], height), dtype=np.int8)  # COCO counts down the columns
        columns[:, y : y + piece.shape[0]] = piece.T
        changes = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0)) + x * height
        runs = np.diff(changes, prepend=0, append=height * width)
        return (runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs).tolist()


@dataclass(frozen=True)
class FrameRecord:
    """One frame of the input and its records, in the order of its boxes."""

    dataset: str
    video: str
    index: int
    image_path: Path
    size_hw: tuple[int, int]
    objects: tuple[MaskRecord, ...]
    source: Mapping[str, Any] = field(default_factory=dict)
    reading: DatasetReading = AS_IT_IS

    @property
    def key(self) -> str:
        return f"{self.video}/{self.index:06d}"

    def frame(self) -> Frame:
        """The frame without its objects, e.g. for `image()`."""
        return Frame(self.dataset, self.video, self.index, self.image_path, self.size_hw, reading=self.reading)


def record_of(
    object_id: int, category: str, box_xyxy: Box, status: str, reason: str, piece: np.ndarray,
    offset_xy: tuple[int, int], signs: Mapping[str, float | None], source: Mapping[str, Any] | None = None,
) -> MaskRecord:  # fmt: skip
    """A record whose piece (bool h×w at `offset_xy`) is trimmed to the mask's tight rectangle."""
    corner, rle = (0, 0), None
    if piece.any():
        x0, y0, x1, y1 = (int(side) for side in masks.box_of(piece))
        corner, rle = (int(offset_xy[0]) + x0, int(offset_xy[1]) + y0), masks.encode(piece[y0:y1, x0:x1])
    return MaskRecord(object_id, category, box_xyxy, status, reason, corner, rle, signs, source or {})


# --- shards -----------------------------------------------------------------------------------------------------------


def pack(frames: list[FrameRecord], root: Path) -> bytes:
    """A shard's bytes, with image paths relative to `root`: the same frames give the same bytes."""
    lines = [json.dumps(_to_json(frame, root), sort_keys=True, separators=(",", ":")) + "\n" for frame in frames]
    return gzip.compress("".join(lines).encode("utf-8"), mtime=0)


def unpack(path: Path, root: Path) -> list[FrameRecord]:
    """Frames of a shard, with their images below `root`; a damaged one is a `RossamError` that names it."""
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
        return [_from_json(json.loads(line), root) for line in text.splitlines()]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        remedy = "delete this file and start the same conversion again; the other shards are kept"
        raise RossamError(path, f"is not a whole shard ({error!r})", remedy) from error


def shard_path(folder: Path, number: int) -> Path:
    return folder / SHARDS / f"{number:06d}.gz"


def image_root(frames: Sequence[Frame]) -> Path:
    """The folder that file names of the source start from; without such, or of several, the one all images are in."""
    roots, folders = set(), {Path(os.path.abspath(frame.image_path)).parent for frame in frames}
    for frame in frames:
        pure = PurePosixPath(frame.source.get("file_name", "/").replace("\\", "/"))
        path = Path(os.path.abspath(frame.image_path))
        roots.add(None if pure.is_absolute() else path.parents[min(len(pure.parts), len(path.parents)) - 1])
    root = roots.pop() if len(roots) == 1 else None
    return root or Path(os.path.abspath(os.path.commonpath([*folders] or ["."])))


def _to_json(frame: FrameRecord, root: Path) -> dict[str, Any]:
    objects = [
        {
            "id": record.object_id,
            "category": record.category,
            "box_xyxy": list(record.box_xyxy),
            "status": record.status,
            "reason": record.reason,
            "offset_xy": list(record.offset_xy),
            "piece": record.piece_rle,
            "signs": dict(record.signs),
            "source": dict(record.source),
        }
        for record in frame.objects
    ]
    place = {"dataset": frame.dataset, "video": frame.video, "index": frame.index, "size_hw": list(frame.size_hw)}
    place |= {"image": Path(os.path.relpath(frame.image_path, root)).as_posix(), "source": dict(frame.source)}
    return place | frame.reading.as_entry() | {"objects": objects}


def _from_json(line: dict[str, Any], root: Path) -> FrameRecord:
    objects = tuple(
        MaskRecord(
            item["id"], item["category"], tuple(item["box_xyxy"]), item["status"], item["reason"],
            tuple(item["offset_xy"]), item["piece"], item["signs"], item["source"],
        )
        for item in line["objects"]
    )  # fmt: skip
    size_hw = tuple(line["size_hw"])
    image = Path(os.path.normpath(root / line["image"]))
    place = (line["dataset"], line["video"], line["index"], image, size_hw)
    return FrameRecord(*place, objects, line["source"], DatasetReading.of_entry(line))


# --- the folder -------------------------------------------------------------------------------------------------------


class Conversion:
    """A finished conversion, read from its folder; one shard is in memory at a time.

    Records name images relative to a root. The manifest states the root twice, relative to the conversion's folder and
    absolute, so that the folder may be moved alone or together with its images. `classes` are id and name of each class
    of the input, used or not, in its order.

    Args:
        images: the root; needed only where images were moved alone.

    Raises:
        RossamError: the folder holds no finished conversion, or one of another format.
    """

    def __init__(self, folder: str | Path, images: str | Path | None = None):
        self.folder = Path(folder)
        for name in (MANIFEST, RECORDS):
            if not (self.folder / name).exists():
                raise RossamError(self.folder, f"has no {name}: no finished conversion", "run `convert` on it (again)")
        self.manifest = read_json(self.folder / MANIFEST)
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            raise RossamError(self.folder / MANIFEST, f"is not of format {FORMAT}", "convert into a new folder")
        try:
            places = [self.folder / self.manifest["images"]["from_here"], Path(self.manifest["images"]["absolute"])]
            self.classes: list[tuple[int | str, str]] = [(n, name) for n, name in self.manifest["data"]["classes"]]
            _ = range(self.manifest["shards"]), self.manifest["data"]["name"]
        except (KeyError, TypeError, ValueError) as error:
            remedy = "delete it and start the same conversion again"
            raise RossamError(self.folder / MANIFEST, f"is damaged ({error!r})", remedy) from error
        root = Path(images) if images else next((place for place in places if place.is_dir()), places[1])
        self.images = Path(os.path.abspath(root))

    def __iter__(self) -> Iterator[FrameRecord]:
        for number in range(self.manifest["shards"]):
            yield from self.shard(number)

    def shard(self, number: int) -> list[FrameRecord]:
        """The frames of one shard."""
        return unpack(shard_path(self.folder, number), self.images)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per box in the order of the input: `shard`, `video`, `frame`, `object_id`, `category`, the box,
        `status`, `reason`, `area`, the signs, `review_score`, `review_rank` (1 = look at it first), `looks` (what
        stands out)."""
        converted = self._rows[self._rows["status"] != LEFT_OUT].reset_index(drop=True)
        return converted.astype(dict.fromkeys(INTEGERS, "int64"))

    @cached_property
    def left_out(self) -> list[Drop]:
        """What the input holds and `table` does not: place, reason and number of boxes."""
        rows = self._rows[self._rows["status"] == LEFT_OUT]
        return [Drop(row.place, row.reason, row.boxes) for row in rows.itertuples()]

    @cached_property
    def _rows(self) -> pd.DataFrame:
        try:
            return self._read_rows(self.folder / RECORDS)
        except (LookupError, TypeError, ValueError) as error:
            remedy = "delete it and start the same conversion again: it is made anew"
            raise RossamError(self.folder / RECORDS, f"is damaged ({error})", remedy) from error

    def _read_rows(self, path: Path) -> pd.DataFrame:
        numbers = [name for name in pd.read_csv(path, nrows=0).columns if name not in TEXTS]
        # in a text column "NA" is a name, and nothing is an empty text
        options = {"keep_default_na": False, "na_values": {name: [""] for name in numbers}}
        kinds = dict.fromkeys(TEXTS, "str") | dict.fromkeys(INTEGERS, "Int64")
        rows = plain_table(pd.read_csv(path, dtype=kinds, encoding_errors="surrogateescape", **options))
        if missing := {"boxes", *TEXTS, *INTEGERS, *SIDES} - set(rows.columns):
            raise ValueError(f"it has no column {', '.join(sorted(missing))}")
        if rows[[*INTEGERS]][rows["status"] != LEFT_OUT].isna().any(axis=None):
            raise ValueError("numbers are missing")
        return rows

    def find(self, row) -> tuple[FrameRecord, MaskRecord]:
        """The frame and the record of a row of `table`."""
        for frame in self.shard(int(row.shard)):
            if (frame.video, frame.index) == (row.video, row.frame):
                for record in frame.objects:
                    if record.object_id == row.object_id:
                        return frame, record
        raise RossamError(self.folder, f"has no object {row.object_id} in {row.video}/{row.frame}", "convert it again")
