"""Boxes to masks for a whole dataset, on one or many processes, resumable to the same bytes.

`convert` writes a folder with exactly one record per box (`mask_records`). A box that cannot be segmented has a record
with the status `failed` and the reason. Frames are processed in shards. A shard is computed independently, with a fixed
number of threads and frame by frame, so that neither the engine nor the number of workers nor a restart changes a byte.
Only the calling process writes files.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from rossam_core import masks
from rossam_core.boxes import box_problems
from rossam_core.devices import has_fast_bfloat16, thread_count
from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import atomic_path, read_json, remove_partial, stable_hash, write_bytes, write_json
from rossam_core.records import Frame, ObjectAnnotation
from rossam_core.settings import Config, flatten
from rossam_kit.cache import exclusive_folder
from rossam_kit.convert import mask_records as records
from rossam_kit.convert import quality
from rossam_kit.convert.mask_records import Conversion, FrameRecord, MaskRecord
from rossam_kit.csv_text import guarded_table
from rossam_kit.datasets.frame_set import Drop, FrameSet
from rossam_kit.datasets.reading import is_in_use
from rossam_kit.parallel import Engine, run_tasks
from rossam_kit.progress import track
from rossam_kit.report.provenance import versions

COLUMNS = (
    *("shard", "video", "frame", "object_id", "category", "x0", "y0", "x1", "y1", "status", "reason", "area"),
    *quality.SIGNS,
    *("expected_iou", "review_score", "review_rank", "looks", "annotation_id", "place", "boxes"),
)

CONVERSION_VERSION = 2
"""To be raised with any change of code that changes a mask or a record: a folder is continued by the same version."""
VERSION_KEYS = ("version", "torch")
"""Keys of the manifest that may differ for a finished folder, which is only read; an unfinished one is refused."""
INFORMATIVE_KEYS = ("images", "versions")
"""Keys of the manifest that are for readers alone, and may always differ."""


class ConversionConfig(Config):
    """How a dataset is converted; part of what a folder is made with."""

    jitter: int = Field(4, ge=0)
    """Moved boxes tried for each box (`jitter_stability`); each costs a decoding. 0 leaves the sign out. Ours."""
    jitter_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Farthest a side moves, as a fraction of the box's width or height. Ours; annotators' boxes differ about so."""
    seed: int = 0
    """Of the jitter."""
    shard_frames: int = Field(16, ge=1)
    """Frames per shard: at most what each worker loses when it is killed, and what it holds in memory."""
    clip_oriented: bool = False
    """Leave out of a mask what lies outside its object's oriented box (`attributes["oriented_box"]`), where it has
    one. The signs of a mask's shape are then those of what is left."""
    threads: int = Field(1, ge=1)
    """Processor threads of a worker. Fixed, since sums over other numbers of threads may round otherwise."""


def boxes_only(frames: FrameSet) -> FrameSet:
    """The same frames without masks, as in a tracking dataset."""
    return frames.subset([f.with_objects([replace(o, segmentation=None) for o in f.objects]) for f in frames])


def convert(
    predictor,
    frames: FrameSet,
    out_dir: str | Path,
    config: ConversionConfig | None = None,
    *,
    engine: Engine = "local",
    workers: int = 1,
    progress: Callable[[int], Any] | None = None,
) -> Conversion:
    """Make a mask for every box of `frames`; masks in `frames` are ignored.

    An interrupted conversion is continued when called again with its folder; a finished one is only read. Of several
    processes with one folder all wait for the first.

    Args:
        predictor: a `Predictor`, or anything with `.predict(image, boxes_xyxy)`, such as a baseline.
        out_dir: a new or empty folder, or the folder of the same conversion.
        engine: `local`, or `ray` (needs `pip install rossam-core[cluster]`, and the images under the same paths on
            every node).
        workers: processes; with one, `local` works in this process. On GPUs, one per GPU.
        progress: called with the number of frames finished since the last call (as `tqdm.update`); None: a progress
            bar over shards.

    Returns:
        The conversion, read from its folder.

    Raises:
        RossamError: the folder was made with other settings, weights, data or code (all differences listed), or holds
            other files; Ray is not installed; a frame occurs twice; a worker was killed.
    """
    folder, config = Path(out_dir), config or ConversionConfig()
    _refuse_repeated_frames(frames)
    size = config.shard_frames
    named = [f.with_objects([replace(o, category=frames.class_of(o)[1]) for o in f.objects]) for f in frames]
    shards = [named[start : start + size] for start in range(0, len(frames), size)]
    root = records.image_root(frames)
    place = {"absolute": root.as_posix(), "from_here": Path(os.path.relpath(root, folder.absolute())).as_posix()}
    hashes = _image_hashes(frames)
    description = _description(predictor, frames, config) | {"shards": len(shards), "images": place}
    description["data"]["fingerprint"] = _fingerprint(frames, hashes)
    with exclusive_folder(folder):
        _open(folder, description, {os.path.relpath(path, root): value for path, value in hashes.items()})
        missing = [n for n in range(len(shards)) if not records.shard_path(folder, n).exists()]
        if progress:
            progress(len(frames) - sum(len(shards[n]) for n in missing))
        for number, data in run_tasks(
            _convert_shard,
            [(n, shards[n]) for n in missing],
            shared=ShardWorker(predictor, config, root),
            workers=workers,
            engine=engine,
            gpu=_on_gpu(predictor),
            desc="boxes to masks",
            bar=progress is None,
        ):
            write_bytes(records.shard_path(folder, number), data)
            if progress:
                progress(len(shards[number]))
        if not _has_table(folder, root, sum(len(frame.objects) for frame in frames)):
            _write_table(folder, shards, frames.drops)
    return Conversion(folder, root)


# --- one shard --------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """A predictor's answer for one box: its mask, and the masks of its jittered boxes."""

    mask: Any
    others: Sequence[Any]


@dataclass(frozen=True)
class ShardWorker:
    """Converts shards in any process; picklable."""

    predictor: Any
    config: ConversionConfig
    root: Path = Path("/")

    def __call__(self, frames: Sequence[Frame]) -> bytes:
        """The bytes of the shard of these frames."""
        with thread_count(self.config.threads if hasattr(self.predictor, "model") else None):
            return records.pack([self.convert_frame(frame) for frame in frames], self.root)

    def convert_frame(self, frame: Frame) -> FrameRecord:
        """A frame's records, one per box in order, also for unreadable images and unusable boxes."""
        boxes = frame.boxes_xyxy
        faults = dict(box_problems(boxes, frame.size_hw))
        usable = [i for i in range(len(boxes)) if i not in faults]
        image, found = self._answers(frame, usable) if usable else (None, [])
        answers = dict(zip(usable, found, strict=True))
        objects = tuple(
            _record(annotation, frame, image, answers.get(i, f"box {faults.get(i)}"), self.config)
            for i, annotation in enumerate(frame.objects)
        )
        path = Path(os.path.abspath(frame.image_path))
        place = (frame.dataset, frame.video, int(frame.index), path, tuple(frame.size_hw))
        return FrameRecord(*place, objects, frame.source, frame.reading)

    def _answers(self, frame: Frame, usable: list[int]) -> tuple[np.ndarray | None, list[Answer | str]]:
        """The image, and for each usable box an answer, or the reason why there is none."""
        try:
            image = frame.image()
        except RossamError as error:
            return None, [f"image: {error.finding}"] * len(usable)
        if image.shape[:2] != tuple(frame.size_hw):
            finding = f"image: is {image.shape[0]}×{image.shape[1]} (H×W), its annotation says {tuple(frame.size_hw)}"
            return None, [finding] * len(usable)
        boxes, config = frame.boxes_xyxy[usable], self.config
        variants = np.empty((len(boxes), config.jitter, 4))
        for row, i in enumerate(usable):
            key = (config.seed, frame.video, frame.index, frame.objects[i].object_id)
            variants[row] = quality.jittered(boxes[row], config.jitter, config.jitter_fraction, frame.size_hw, key)
        try:
            return image, _predict(self.predictor, image, boxes, variants)
        except RossamError:
            return image, [self._alone(image, boxes[i : i + 1], variants[i : i + 1]) for i in range(len(boxes))]

    def _alone(self, image: np.ndarray, box: np.ndarray, variants: np.ndarray) -> Answer | str:
        """One box by itself, after the prediction for its whole frame failed."""
        try:
            return _predict(self.predictor, image, box, variants)[0]
        except RossamError as error:
            return f"{error.where}: {error.finding}"


def _convert_shard(worker: ShardWorker, number: int, frames: Sequence[Frame]) -> tuple[int, bytes]:
    """One task of `run_tasks`: a shard's number and its bytes."""
    return number, worker(frames)


def _predict(predictor, image: np.ndarray, boxes: np.ndarray, variants: np.ndarray) -> list[Answer]:
    """Answers for N boxes (N×4) and their variants (N×K×4)."""
    if hasattr(predictor, "predict_variants"):
        return [Answer(own, others) for own, *others in predictor.predict_variants(image, boxes, variants)]
    n, k, _ = variants.shape
    masks = predictor.predict(image, boxes)
    others = predictor.predict(image, variants.reshape(-1, 4)) if k else []
    return [Answer(masks[i], others[i * k : (i + 1) * k]) for i in range(n)]


def _record(
    annotation: ObjectAnnotation, frame: Frame, image: np.ndarray | None, answer: Answer | str, config: ConversionConfig
) -> MaskRecord:
    place = (int(annotation.object_id), annotation.category, tuple(float(side) for side in annotation.box_xyxy))
    if isinstance(answer, str):
        return MaskRecord(*place, "failed", answer, signs=dict.fromkeys(quality.SIGNS), source=annotation.source)
    mask = answer.mask
    logits = getattr(mask, "logit_crop", None)
    piece, oriented_box = _piece(mask)[0], annotation.attributes.get("oriented_box")
    is_clipped = config.clip_oriented and oriented_box is not None and piece.any()
    piece = piece & _inside(oriented_box, piece.shape, mask.offset_xy) if is_clipped else piece
    signs = dict.fromkeys(quality.SIGNS)
    if piece.any():
        signs |= quality.shape_signs(piece, mask.offset_xy, annotation.box_xyxy, frame.size_hw)
        signs["contrast"] = quality.contrast(image, piece, mask.offset_xy)
        signs["jitter_stability"] = quality.jitter_stability(_piece(mask), [_piece(other) for other in answer.others])
        if np.isfinite(mask.predicted_iou):
            signs["predicted_iou"] = float(mask.predicted_iou)
    if piece.any() and logits is not None:
        signs["threshold_stability"] = quality.threshold_stability(logits, mask.threshold)
        signs["touches_window"] = quality.touches_window(piece, mask.offset_xy, frame.size_hw)
    status = mask.status if mask.status in ("ok", "cut", "empty") else "ok"
    status = "empty" if is_clipped and not piece.any() else status
    reason = {"ok": mask.status if mask.status != "ok" else "", "cut": "cut: its window does not hold the box whole",
              "empty": "no pixel is above the threshold"}[status]  # fmt: skip
    reason = "no pixel is inside the oriented box" if is_clipped and not piece.any() else reason
    rounded = {name: None if value is None else round(float(value), 4) for name, value in signs.items()}
    return records.record_of(*place, status, reason, piece, mask.offset_xy, rounded, annotation.source)


def _inside(corners: Sequence[Sequence[float]], size_hw: tuple[int, int], offset_xy: tuple[int, int]) -> np.ndarray:
    """The pixels of a polygon (frame coordinates) in a piece of the frame, bool h×w."""
    polygon = np.asarray(corners, dtype=np.float64) - offset_xy
    return masks.decode([polygon.ravel().tolist()], size_hw)


def _piece(mask) -> quality.Piece:
    """Of an `ObjectMask` or a baseline's `CropMask`."""
    return (mask.piece if hasattr(mask, "logit_crop") else mask.crop), mask.offset_xy


# --- the folder -------------------------------------------------------------------------------------------------------


def _description(predictor, frames: FrameSet, config: ConversionConfig) -> dict[str, Any]:
    """Everything that may change the result."""
    description: dict[str, Any] = {"format": records.FORMAT, "conversion": config.model_dump(mode="json")}
    if hasattr(predictor, "model"):
        from rossam_core.model.weights import weights_hash

        device, inference = predictor.device, predictor.config.model_dump(mode="json")
        if inference["precision"] == "auto":
            inference["precision"] = "bfloat16" if has_fast_bfloat16(device.type) else "float32"
        processor = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        model = predictor.model
        if inference["mask_source"] == "default":
            inference["mask_source"] = model.default_mask_source
        description |= {
            "model": {"method": model.method, "backbone": model.backbone, "weights": weights_hash(model)},
            "inference": inference,
            "device": processor,
            "torch": torch.__version__,
        }
    else:
        description["model"] = {"method": type(predictor).__name__, **{k: str(v) for k, v in vars(predictor).items()}}
    description["data"] = {
        "name": frames.name,
        "frames": len(frames),
        "boxes": frames.object_count,
        "left_out": frames.input_boxes - frames.object_count,
        "classes": [list(entry) for entry in frames.classes],
        "reading": frames[0].reading.model_dump(mode="json") if len(frames) else None,
    }
    return description | {"version": CONVERSION_VERSION, "versions": versions()}


def _image_hashes(frames: FrameSet) -> dict[Path, str]:
    """Image → hash of its bytes, or the error type for an unreadable one; tiles of a scene are of one image."""
    hashes: dict[Path, str] = {}
    for frame in track(frames, desc="looking through the images"):
        if frame.image_path not in hashes:
            try:
                hashes[frame.image_path] = frame.image_hash()
            except (OSError, RossamError) as error:
                hashes[frame.image_path] = type(error).__name__
    return hashes


def _fingerprint(frames: FrameSet, hashes: Mapping[Path, str]) -> str:
    """Hash of frames, boxes, drops and the images' bytes."""
    lines = []
    for frame in frames:
        boxes = [[o.object_id, o.category, list(o.box_xyxy), o.source] for o in frame.objects]
        boxes += [o.attributes["oriented_box"] for o in frame.objects if "oriented_box" in o.attributes]
        place = [frame.dataset, frame.key, list(frame.size_hw), frame.source, frame.reading.model_dump(mode="json")]
        lines.append(stable_hash([place, hashes[frame.image_path], boxes]))
    return stable_hash([lines, [[drop.where, drop.reason, drop.boxes] for drop in frames.drops]])


def _open(folder: Path, description: Mapping[str, Any], hashes: Mapping[str, str]) -> None:
    """Create the folder, or check that it belongs to the same conversion; `hashes`: of images, relative to the root."""
    path, images = folder / records.MANIFEST, folder / records.IMAGES
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or is_in_use(folder)):
            remedy = "name a new folder, or one that a conversion has begun"
            finding = f"is not empty, and has no {records.MANIFEST}" if folder.is_dir() else "is a file"
            raise RossamError(folder, finding, remedy)
        write_json(path, description)
        write_json(images, hashes)
        return
    there = read_json(path)
    if not isinstance(there, dict) or there.get("format") != records.FORMAT:
        raise RossamError(path, f"is not a manifest of format {records.FORMAT}", "name another folder")
    shards = [records.shard_path(folder, n).exists() for n in range(description["shards"])]
    differences, finished = ProblemList(path), all(shards) and (folder / records.RECORDS).exists()
    free = (*INFORMATIVE_KEYS, *(VERSION_KEYS if finished else ()))
    old, new = (dict(flatten({k: v for k, v in value.items() if k not in free})) for value in (there, description))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            what = f"{old.get(key)!r} there, {new.get(key)!r} now"
            is_data = key == "data.fingerprint" and images.exists()
            differences.add(key, _changed_data(read_json(images), hashes) if is_data else what)
    differences.raise_if_any("go on with what the folder was made with, or name another one (or delete this one)")
    if there["images"] != description["images"]:
        write_json(path, there | {"images": description["images"]})
    if not images.exists():  # the process that wrote the manifest was killed, or the disk was full
        write_json(images, hashes)
    remove_partial(folder, recursive=True)


def _changed_data(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """What differs in the data of a conversion, in words."""
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if not changed:
        return "boxes or classes have changed since; the images are the same"
    more = f" and {len(changed) - 1:,} more" if len(changed) > 1 else ""
    return f"{changed[0]}{more} changed, appeared or disappeared since"


def _has_table(folder: Path, root: Path, boxes: int) -> bool:
    """Whether `records.csv` is there and holds a row for each of the boxes; a damaged one is named in a warning."""
    if not (folder / records.RECORDS).exists():
        return False
    try:
        rows = len(Conversion(folder, root).table)
        fault = "" if rows == boxes else f"it holds {rows:,} rows for {boxes:,} boxes"
    except RossamError as error:
        fault = str(error)
    if fault:
        warnings.warn(f"{folder / records.RECORDS} is written again: {fault}", stacklevel=3)
    return not fault


def _write_table(folder: Path, shards: Sequence[Sequence[Frame]], drops: Sequence[Drop]) -> None:
    """Read all shards once, compare them with the input, and write `records.csv`."""
    rows, memory = [], quality.TrackMemory()
    for number, frames in enumerate(shards):
        path = records.shard_path(folder, number)
        converted = records.unpack(path, Path())
        expected = [(frame.key, [o.object_id for o in frame.objects]) for frame in frames]
        if [(frame.key, [r.object_id for r in frame.objects]) for frame in converted] != expected:
            raise RossamError(path, "does not hold one record for each box of the input", "delete it and start again")
        for frame in converted:
            for record in frame.objects:
                memory.add(frame.video, record)
                sides = dict(zip(("x0", "y0", "x1", "y1"), record.box_xyxy, strict=True))
                rows.append(
                    {"shard": number, "video": frame.video, "frame": frame.index, "object_id": record.object_id}
                    | {"category": record.category, **sides, "status": record.status, "reason": record.reason}
                    | {"area": record.area, **record.signs}
                    | {"annotation_id": record.source.get("annotation_id", ""), "boxes": 1}
                )
    table = pd.DataFrame(rows, columns=COLUMNS)
    table = table.astype(dict.fromkeys(quality.SIGNS, "float64"))
    table["temporal_consistency"] = memory.values().round(4)
    table["expected_iou"] = quality.expected_iou(table).round(4)
    table["review_score"] = quality.review_score(table).round(6)
    table["review_rank"] = table["review_score"].rank(ascending=False, method="first").astype(int)
    table["looks"] = ["; ".join(words for _, words in quality.looks(row)) for row in table.to_dict("records")]
    left_out = [{"status": records.LEFT_OUT, "place": d.where, "reason": d.reason, "boxes": d.boxes} for d in drops]
    if left_out:
        table = table.astype(dict.fromkeys(records.INTEGERS, "Int64") | dict.fromkeys(records.TEXTS, "object"))
        table = pd.concat([table, pd.DataFrame(left_out)])
    with atomic_path(folder / records.RECORDS) as temporary:
        guarded_table(table).to_csv(temporary, index=False, errors="surrogateescape")


def _refuse_repeated_frames(frames: FrameSet) -> None:
    seen, problems = set(), ProblemList(frames.name)
    for frame in frames:
        if frame.key in seen:
            problems.add(f"frame {frame.key}", "occurs twice")
        seen.add(frame.key)
    problems.raise_if_any("give each frame of a video its own number")


def _on_gpu(predictor) -> bool:
    return hasattr(predictor, "model") and predictor.device.type == "cuda"
