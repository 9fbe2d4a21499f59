"""From a frame and its boxes to masks: windows are cut, encoded in batches, prompted, and put back in their place.

In: a `PromptableSegmenter`, images, boxes. Out: one `ObjectMask` for each box, in the order of the boxes.
Memory does not grow with boxes times frame: an `ObjectMask` keeps the small rectangle its object lies in.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rossam_core import masks
from rossam_core.boxes import check_boxes
from rossam_core.devices import autocast, on_threads, resolve_device
from rossam_core.errors import RossamError
from rossam_core.inference import windows as crops
from rossam_core.model.build import ImageEmbeddings, PromptableSegmenter
from rossam_core.model.hq_decoder import MaskLogits
from rossam_core.model.segmenter import Points
from rossam_core.records import Box, Frame
from rossam_core.settings import InferenceConfig

MARGIN = 2
"""Frame pixels kept around box and mask in `ObjectMask.logit_crop`, so that a contour has both its sides."""


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """The mask of one box.

    Attributes:
        box_xyxy: the box as given, frame pixels.
        size_hw: the frame's.
        logit_crop: float16 h×w, mask logits of the rectangle that holds the box, every logit above the threshold
            it was made with, and a margin of 2 pixels, as far as its window reaches.
        offset_xy: frame pixel of `logit_crop[0, 0]`.
        threshold: logits above it are the mask.
        predicted_iou: the model's own estimate of the mask's IoU.
        cut: the window did not hold the box whole, so the mask may be cut off.
    """

    box_xyxy: Box
    size_hw: tuple[int, int]
    logit_crop: np.ndarray
    offset_xy: tuple[int, int]
    threshold: float
    predicted_iou: float
    cut: bool = False

    @property
    def piece(self) -> np.ndarray:
        """The mask within `logit_crop`, bool h×w."""
        return self.logit_crop > self.threshold

    @property
    def area(self) -> int:
        """Mask pixels."""
        return int(np.count_nonzero(self.piece))

    @property
    def status(self) -> str:
        """`empty` (no logit above the threshold), `cut`, or `ok`."""
        return "empty" if not self.area else "cut" if self.cut else "ok"

    def full(self) -> np.ndarray:
        """The mask in its frame, bool H×W, made anew on each call."""
        mask = np.zeros(self.size_hw, dtype=bool)
        (x, y), (h, w) = self.offset_xy, self.logit_crop.shape
        mask[y : y + h, x : x + w] = self.piece
        return mask

    def rle(self) -> dict[str, Any]:
        """COCO run-length encoding, equal to `masks.encode(self.full())` without a full mask."""
        (x, y), (h, w), (frame_h, frame_w) = self.offset_xy, self.logit_crop.shape, self.size_hw
        columns = np.zeros((w, frame_h), dtype=np.int8)  # COCO counts down the columns
        columns[:, y : y + h] = self.piece.T
        changes = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0)) + x * frame_h
        runs = np.diff(changes, prepend=0, append=frame_h * frame_w)
        counts = runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs
        return masks.to_rle({"size": [frame_h, frame_w], "counts": counts.tolist()}, self.size_hw)

    def with_threshold(self, threshold: float) -> ObjectMask:
        """The same logits cut at another threshold. A lower one sees only what `logit_crop` holds; to see all,
        predict with it."""
        return dataclasses.replace(self, threshold=float(threshold))


@dataclass(frozen=True, eq=False)
class EncodedCrop:
    """A window and its image embeddings: what a changed box or threshold can be answered from."""

    window: crops.CropPlan
    embeddings: ImageEmbeddings
    size_hw: tuple[int, int]


Inputs = Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None, str]]
"""Image, boxes N×4, variants of each N×K×4 or None, and how an error is to name it."""


@dataclass(eq=False)
class _Job:
    """A frame under way: its masks fill in as its windows pass through the model."""

    prompts_xyxy: np.ndarray
    """N×(1 + K)×4: each box, and its variants after it."""
    size_hw: tuple[int, int]
    masks: list[list[ObjectMask]]

    @property
    def done(self) -> bool:
        return all(len(masks) == self.prompts_xyxy.shape[1] for masks in self.masks)


Batch = list[tuple[_Job, crops.CropPlan, np.ndarray]]
"""Windows to encode together: whose, where, and the pixels cut out (S×S×3)."""


class Predictor:
    """Box prompts to masks, for one model and one way to cut windows.

    The model is moved to the device and set to evaluation mode, also on every later call. Results do not depend
    on batch sizes, other than by the rounding of sums.

    Args:
        model: a `PromptableSegmenter`.
        config: windows, resampling, batches, threshold, precision.
        device: `auto` (cuda, then mps, then cpu), or a torch device.

    Raises:
        RossamError: the device is not usable.
    """

    def __init__(
        self,
        model: PromptableSegmenter,
        config: InferenceConfig | None = None,
        device: str | torch.device = "auto",
    ):
        self.config = config or InferenceConfig()
        self.device = resolve_device(str(device))
        self.model = model.to(self.device).eval()

    def predict(self, image: np.ndarray, boxes_xyxy: np.ndarray) -> list[ObjectMask]:
        """Masks of one frame.

        Args:
            image: uint8 H×W×3 RGB.
            boxes_xyxy: N×4 frame pixels, or empty.

        Returns:
            N masks in the order of the boxes, also where a mask is empty.

        Raises:
            RossamError: image or boxes cannot be used (all bad boxes are named), the model has no such mask
                source, or its logits are not finite.
        """
        return next(_without_variants(self._predict([(image, boxes_xyxy, None, "Predictor.predict")])))

    def predict_variants(
        self, image: np.ndarray, boxes_xyxy: np.ndarray, variants_xyxy: np.ndarray
    ) -> list[list[ObjectMask]]:
        """How masks answer to slightly different boxes.

        Windows are cut for `boxes_xyxy` as by `predict`; a variant is another prompt in its box's window, so it costs
        a decoding and no encoding.

        Args:
            image, boxes_xyxy: as `predict`'s.
            variants_xyxy: N×K×4 frame pixels; K may be 0.

        Returns:
            N lists of 1 + K masks, the box's own first.

        Raises:
            RossamError: as `predict`, for variants too.
        """
        return next(self._predict([(image, boxes_xyxy, variants_xyxy, "Predictor.predict_variants")]))

    def predict_many(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[list[ObjectMask]]:
        """`predict` over (image, boxes) pairs, lazily and in order; one batch holds windows of several frames."""
        inputs = ((image, boxes, None, f"image {i}") for i, (image, boxes) in enumerate(pairs))
        return _without_variants(self._predict(inputs))

    def predict_frames(
        self, frames: Iterable[Frame], progress: Callable[[int], Any] | None = None
    ) -> Iterator[tuple[Frame, list[ObjectMask]]]:
        """Masks of each frame's objects, lazily and in order; one batch holds windows of several frames.

        Args:
            progress: called with 1 after each frame (`tqdm.update` fits).
        """
        waiting: deque[Frame] = deque()

        def inputs():
            for frame in frames:
                waiting.append(frame)
                yield _frame_image(frame), frame.boxes_xyxy, None, f"{frame.image_path} ({frame.key})"

        for found in _without_variants(self._predict(inputs())):
            yield waiting.popleft(), found
            if progress:
                progress(1)

    def encode_crop(self, image: np.ndarray, box_xyxy: Box) -> EncodedCrop:
        """Encode the window that `config` gives this box. Arguments and errors as `predict`'s, for one box."""
        image, boxes, size_hw = _checked(image, [box_xyxy], "Predictor.encode_crop")
        (window,) = self._plan(boxes, size_hw)
        return self.encode_window(image, window)

    def encode_window(
        self, image: np.ndarray, window: crops.CropPlan, config: InferenceConfig | None = None
    ) -> EncodedCrop:
        """Encode one window (`crops.plan`) of a frame, uint8 H×W×3 RGB; `config`: None = the predictor's."""
        return EncodedCrop(window, self._encode([self._cut(image, window, config)]), image.shape[:2])

    def decode_crop(
        self,
        encoded: EncodedCrop,
        box_xyxy: Box,
        threshold: float | None = None,
        points: Sequence[tuple[float, float, int]] = (),
    ) -> ObjectMask:
        """The mask of any box in an encoded window, without encoding it again.

        Args:
            threshold: None = `config.mask_threshold`.
            points: x, y in frame pixels, and label: 1 positive, 0 negative.

        Raises:
            RossamError: the box or a point lies outside the window (encode a window for it), or the model was not
                trained with points.
        """
        boxes = check_boxes([box_xyxy], encoded.size_hw, "Predictor.decode_crop")
        prompt = encoded.window.to_input(boxes)
        if (prompt[:, 2:] <= prompt[:, :2]).any():
            raise RossamError(
                "Predictor.decode_crop",
                f"box {tuple(boxes[0].tolist())} lies outside the encoded window {encoded.window.window_xyxy}",
                "call encode_crop with this box first",
            )
        threshold = self.config.mask_threshold if threshold is None else float(threshold)
        prompt_points = self._prompt_points(encoded.window, points) if len(points) else None
        logits, ious = self._decode(encoded.embeddings, prompt, np.zeros(1, dtype=np.int64), prompt_points)
        return _object_mask(logits[0], ious[0], boxes[0], encoded.window, encoded.size_hw, threshold)

    def _prompt_points(self, window: crops.CropPlan, points: Sequence[tuple[float, float, int]]) -> Points:
        """Points of one box (x, y, label; frame pixels), as `model.decode` takes them."""
        if not self.model.supports_points:
            raise RossamError(
                f"model {self.model.method} ({self.model.backbone})",
                "was trained with box prompts only",
                "prompt with a box alone, or load official weights (vit_b, hiera_tiny or larger)",
            )
        coords, labels = np.split(np.asarray(points, dtype=np.float64), [2], axis=1)
        x0, y0, x1, y1 = window.window_xyxy
        outside = ((coords < (x0, y0)) | (coords > (x1, y1))).any(axis=1)
        if outside.any():
            found = f"point {tuple(coords[outside][0].tolist())} lies outside the encoded window {window.window_xyxy}"
            raise RossamError("Predictor.decode_crop", found, "choose points inside the window")
        inputs = (coords - (x0, y0)) * window.scale_xy
        coords, labels = torch.from_numpy(inputs).float(), torch.from_numpy(labels[:, 0]).long()
        return [(coords[None].to(self.device), labels[None].to(self.device))]

    def _predict(self, inputs: Inputs) -> Iterator[list[list[ObjectMask]]]:
        """Fill batches with windows in order, across frames; hand a frame back once all its masks are there: for each
        box its own, and those of its variants."""
        under_way: deque[_Job] = deque()
        batch: Batch = []
        for image, boxes_xyxy, variants_xyxy, where in inputs:
            image, boxes_xyxy, size_hw = _checked(image, boxes_xyxy, where)
            prompts = boxes_xyxy[:, None]
            if variants_xyxy is not None:
                variants = _checked_variants(variants_xyxy, len(boxes_xyxy), size_hw, where)
                prompts = np.concatenate([prompts, variants], axis=1)
            job = _Job(prompts, size_hw, [[] for _ in boxes_xyxy])
            under_way.append(job)
            for window in self._plan(boxes_xyxy, size_hw):
                batch.append((job, window, self._cut(image, window)))
                if len(batch) == self.config.batch_size:
                    self._run(batch)
                    batch = []
            while under_way and under_way[0].done:
                yield under_way.popleft().masks
        if batch:
            self._run(batch)
        yield from (job.masks for job in under_way)

    def _run(self, batch: Batch) -> None:
        """Answer a batch of windows; on a processor each of torch's threads takes a share of them."""
        shares = torch.get_num_threads() if self.device.type == "cpu" else 1
        size = -(-len(batch) // shares)
        on_threads(self._answer, [batch[start : start + size] for start in range(0, len(batch), size)])

    def _answer(self, batch: Batch) -> None:
        """Encode windows, decode their prompts, and write the masks into their jobs."""
        embeddings = self._encode([crop for _, _, crop in batch])
        # for each prompt: its window's place in the batch, its box's place in the frame, itself
        asked = [
            (owner, i, prompt)
            for owner, (job, window, _) in enumerate(batch)
            for i in window.indices
            for prompt in job.prompts_xyxy[i]
        ]
        for start in range(0, len(asked), self.config.prompt_batch_size):
            few = asked[start : start + self.config.prompt_batch_size]
            inputs = [batch[owner][1].to_input(prompt[None]) for owner, _, prompt in few]
            logits, ious = self._decode(embeddings, np.concatenate(inputs), np.array([owner for owner, _, _ in few]))
            for (owner, i, prompt), plane, iou in zip(few, logits, ious, strict=True):
                job, window, _ = batch[owner]
                mask = _object_mask(plane, iou, prompt, window, job.size_hw, self.config.mask_threshold)
                job.masks[i].append(mask)

    def _plan(self, boxes_xyxy: np.ndarray, size_hw: tuple[int, int]) -> list[crops.CropPlan]:
        return crops.plan(boxes_xyxy, size_hw, self.model.input_size, self.config, self.model.resize)

    def _cut(self, image: np.ndarray, window: crops.CropPlan, config: InferenceConfig | None = None) -> np.ndarray:
        model = self.model
        return crops.cut(image, window, model.input_size, config or self.config, model.pixel_mean, model.resize)

    @torch.inference_mode()
    def _encode(self, inputs: list[np.ndarray]) -> ImageEmbeddings:
        self._evaluate()
        images = torch.from_numpy(np.stack(inputs)).to(self.device).permute(0, 3, 1, 2)  # B×S×S×3 → B×3×S×S
        with autocast(self.device, self.config.precision):
            return self.model.prepare(self.model.encode(images.contiguous()))

    @torch.inference_mode()
    def _decode(
        self, embeddings: ImageEmbeddings, prompts: np.ndarray, owners: np.ndarray, points: Points | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes N×4 in input pixels, the image each belongs to (ascending), points → logits N×S/4×S/4, IoU N."""
        self._evaluate()
        images, counts = np.unique(owners, return_counts=True)
        boxes = torch.from_numpy(prompts.astype(np.float32)).to(self.device).split(counts.tolist())
        with autocast(self.device, self.config.precision):
            chosen = embeddings.select(torch.from_numpy(images).to(self.device))
            found = self.model.decode(chosen, list(boxes), points)
        logits = self._mask_source(found).float().cpu().numpy()
        if not np.isfinite(logits).all():
            raise RossamError(
                f"model {self.model.method} ({self.model.backbone})",
                "gave mask logits that are NaN or infinite",
                "check that its training did not diverge, and try precision=float32",
            )
        return logits, found.iou.float().cpu().numpy()

    def _evaluate(self) -> None:
        """Back to evaluation mode, should the model have been trained in the meantime; the walk alone takes 5 ms."""
        if self.model.training:
            self.model.eval()

    def _mask_source(self, found: MaskLogits) -> torch.Tensor:
        source = self.config.mask_source
        if source == "default":
            source = self.model.default_mask_source
        if source == "sam":
            return found.sam
        if found.hq is None:
            raise RossamError(
                f"inference.mask_source = {source}",
                f"model {self.model.method} ({self.model.backbone}) has no HQ head",
                "use mask_source=sam or default, or build the model as hq-sam or ros-sam",
            )
        return found.hq if source == "hq" else found.sam + found.hq


def _without_variants(frames: Iterator[list[list[ObjectMask]]]) -> Iterator[list[ObjectMask]]:
    return ([mask for (mask,) in found] for found in frames)


def _checked(image: np.ndarray, boxes_xyxy: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        finding = f"image is {image.dtype} of shape {image.shape}, expected uint8 H×W×3 with at least one pixel"
        raise RossamError(where, finding, "convert it first (rossam_kit.datasets.images.to_rgb8)")
    size_hw = image.shape[:2]
    return image, check_boxes(boxes_xyxy, size_hw, where), size_hw


def _checked_variants(variants_xyxy: np.ndarray, boxes: int, size_hw: tuple[int, int], where: str) -> np.ndarray:
    variants = np.asarray(variants_xyxy, dtype=np.float64)
    if variants.ndim != 3 or len(variants) != boxes or variants.shape[2] != 4:
        found = f"have the shape {variants.shape} for {boxes} boxes"
        raise RossamError(f"{where}: variants", found, f"pass {boxes}×K×4, K boxes for each box")
    check_boxes(variants.reshape(-1, 4), size_hw, f"{where}: variants")
    return variants


def _frame_image(frame: Frame) -> np.ndarray:
    image = frame.image()
    if image.shape[:2] != tuple(frame.size_hw):
        raise RossamError(
            frame.image_path,
            f"image is {image.shape[0]}×{image.shape[1]} (H×W), its annotation says {frame.size_hw}",
            "index the dataset again, or put back the image it was annotated on",
        )
    return image


def _object_mask(
    logits: np.ndarray,
    predicted_iou: float,
    box_xyxy: np.ndarray,
    window: crops.CropPlan,
    size_hw: tuple[int, int],
    threshold: float,
) -> ObjectMask:
    """Restore one object's logits (float32 S/4×S/4), no further than box and mask reach."""
    corner, extent = (window.x0, window.y0), (window.width, window.height)
    hull = crops.pixel_hulls(box_xyxy, size_hw)[0]
    box_part = hull - np.tile(corner, 2)

    outer = _around(extent, box_part, crops.reach(logits > threshold, window))
    values = crops.restore(logits, window, outer).astype(np.float16)
    rows, columns = np.nonzero(values > threshold)
    mask_part = None
    if len(rows):
        x, y = columns + outer[0], rows + outer[1]
        mask_part = (x.min(), y.min(), x.max() + 1, y.max() + 1)
    x0, y0, x1, y1 = _around(extent, box_part, mask_part)
    return ObjectMask(
        box_xyxy=tuple(float(side) for side in box_xyxy),
        size_hw=size_hw,
        logit_crop=values[y0 - outer[1] : y1 - outer[1], x0 - outer[0] : x1 - outer[0]].copy(),
        offset_xy=(window.x0 + x0, window.y0 + y0),
        threshold=threshold,
        predicted_iou=float(predicted_iou),
        cut=not window.holds(hull),
    )


def _around(extent: tuple[int, int], *rectangles: Sequence[int] | None) -> crops.Rectangle:
    """The rectangle that holds all of them and a margin, within a window of that width and height."""
    parts = np.array([rectangle for rectangle in rectangles if rectangle is not None])
    x0, y0 = (parts[:, :2].min(axis=0) - MARGIN).clip(0, extent)
    x1, y1 = (parts[:, 2:].max(axis=0) + MARGIN).clip(0, extent)
    return int(x0), int(y0), int(x1), int(y1)
