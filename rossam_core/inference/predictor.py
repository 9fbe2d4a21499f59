"""From a frame and its boxes to masks: windows are cut, encoded in batches, prompted, and restored to their place."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from rossam_core import masks
from rossam_core.boxes import check_boxes
from rossam_core.devices import autocast, on_threads, resolve_device
from rossam_core.errors import RossamError
from rossam_core.inference import windows
from rossam_core.inference.windows import CropPlan, Rectangle
from rossam_core.model.hq_decoder import MaskLogits
from rossam_core.model.segmenter import ImageEmbeddings, Points, PromptableSegmenter
from rossam_core.records import Box, Frame
from rossam_core.settings import InferenceConfig

MARGIN = 2
"""Frame pixels stored around box and mask in `ObjectMask.logit_crop`, so that a contour has both its sides."""


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """The mask of one box, stored as a small rectangle, so that memory does not grow with boxes times frame size."""

    box_xyxy: Box  # as given, frame pixels
    size_hw: tuple[int, int]  # the frame's
    logit_crop: np.ndarray
    """float16 h×w, mask logits of the rectangle that contains the box, every logit above the threshold it was made
    with, and a margin of 2 pixels, as far as its window reaches."""
    offset_xy: tuple[int, int]  # frame pixel of `logit_crop[0, 0]`
    threshold: float  # logits above it are the mask
    predicted_iou: float  # the decoder's estimate of the IoU, made for SAM's mask, also where the HQ mask is taken
    cut: bool = False  # the window did not contain the box whole, so the mask may be cut off

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
        """The mask in its frame, bool H×W, computed on each call."""
        mask = np.zeros(self.size_hw, dtype=bool)
        (x, y), (h, w) = self.offset_xy, self.logit_crop.shape
        mask[y : y + h, x : x + w] = self.piece
        return mask

    def rle(self) -> dict[str, Any]:
        """COCO run-length encoding of the mask in its frame."""
        return masks.encode(self.full())

    def with_threshold(self, threshold: float) -> ObjectMask:
        """The same logits at another threshold; a lower one is applied within `logit_crop` only."""
        return dataclasses.replace(self, threshold=float(threshold))


Inputs = Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None, str]]
"""Image, boxes N×4, variants of each N×K×4 or None, and its name in error messages."""


class _FrameResult(NamedTuple):
    """A frame in progress: its masks are filled in as its windows pass through the model."""

    prompts_xyxy: np.ndarray  # N×(1 + K)×4: each box, and its variants after it
    size_hw: tuple[int, int]
    masks: list[list[ObjectMask]]

    @property
    def is_complete(self) -> bool:
        return all(len(masks) == self.prompts_xyxy.shape[1] for masks in self.masks)


Batch = list[tuple[_FrameResult, CropPlan, np.ndarray]]
"""Windows to encode together: the result they belong to, window, and the pixels cut out (S×S×3)."""


class Predictor:
    """Box prompts to masks, for one model and one way to cut windows.

    The model is moved to the device; every call sets it to evaluation mode. Results depend on batch sizes only by the
    rounding of sums.

    Args:
        config: windows, resampling, batches, threshold, precision; None = the defaults.
        device: `auto` (cuda, then mps, then cpu), or a torch device; `RossamError` where it is not usable.
    """

    def __init__(
        self, model: PromptableSegmenter, config: InferenceConfig | None = None, device: str | torch.device = "auto"
    ):
        self.config = config or InferenceConfig()
        if self.config.mask_source in ("hq", "sum") and not model.has_hq_head:
            remedy = "use mask_source=sam or default, or build the model as hq-sam or ros-sam"
            raise RossamError(f"mask_source {self.config.mask_source}", f"model {model.method} has no HQ head", remedy)
        self.device = resolve_device(str(device))
        self.model = model.to(self.device).eval()

    def predict(self, image: np.ndarray, boxes_xyxy: np.ndarray) -> list[ObjectMask]:
        """Masks of one frame, one per box and in their order, also where a mask is empty.

        Args:
            image: uint8 H×W×3 RGB.
            boxes_xyxy: N×4 frame pixels, or empty.

        Raises:
            RossamError: image or boxes cannot be used (all bad boxes are named), or logits are not finite.
        """
        return next(self.predict_many([(image, boxes_xyxy)]))

    def predict_variants(
        self, image: np.ndarray, boxes_xyxy: np.ndarray, variants_xyxy: np.ndarray
    ) -> list[list[ObjectMask]]:
        """`predict` for boxes and for slightly different boxes, which are decoded in the window of their box.

        Args:
            variants_xyxy: N×K×4 frame pixels; K may be 0.

        Returns:
            N lists of 1 + K masks, the box's own first.
        """
        return next(self._predict([(image, boxes_xyxy, variants_xyxy, "Predictor.predict_variants")]))

    def predict_many(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[list[ObjectMask]]:
        """`predict` over (image, boxes) pairs, lazily and in order; one batch holds windows of several frames."""
        inputs = ((image, boxes, None, f"image {i}") for i, (image, boxes) in enumerate(pairs))
        return _without_variants(self._predict(inputs))

    def predict_frames(
        self, frames: Iterable[Frame], progress: Callable[[int], Any] | None = None
    ) -> Iterator[tuple[Frame, list[ObjectMask]]]:
        """Masks of each frame's objects, as `predict_many`; `progress` is called with 1 after each frame."""
        pending: deque[Frame] = deque()

        def inputs():
            for frame in frames:
                image, (height, width) = frame.image(), frame.size_hw
                if image.shape[:2] != (height, width):
                    finding = f"image is {image.shape[0]}×{image.shape[1]} (H×W), its annotation says {height}×{width}"
                    remedy = "index the dataset again, or put back the image it was annotated on"
                    raise RossamError(frame.image_path, finding, remedy)
                pending.append(frame)
                yield image, frame.boxes_xyxy, None, f"{frame.image_path} ({frame.key})"

        for masks_of_frame in _without_variants(self._predict(inputs())):
            yield pending.popleft(), masks_of_frame
            if progress:
                progress(1)

    def _predict(self, inputs: Inputs) -> Iterator[list[list[ObjectMask]]]:
        """Fill batches with windows in order, across frames; yield a frame's masks once all are computed, by box."""
        in_progress: deque[_FrameResult] = deque()
        batch: Batch = []
        for image, boxes_xyxy, variants_xyxy, where in inputs:
            image, prompts = _checked(image, boxes_xyxy, variants_xyxy, where)
            size_hw, boxes_xyxy, model = image.shape[:2], prompts[:, 0], self.model
            result = _FrameResult(prompts, size_hw, [[] for _ in prompts])
            in_progress.append(result)
            for window in windows.plan(boxes_xyxy, size_hw, model.input_size, self.config, model.resize):
                batch.append((result, window, self.cut(image, window)))
                if len(batch) == self.config.batch_size:
                    self._run(batch)
                    batch = []
            while in_progress and in_progress[0].is_complete:
                yield in_progress.popleft().masks
        if batch:
            self._run(batch)
        yield from (result.masks for result in in_progress)

    def _run(self, batch: Batch) -> None:
        """Predict a batch of windows; on a CPU each of torch's threads takes a share of them."""
        shares = torch.get_num_threads() if self.device.type == "cpu" else 1
        size = -(-len(batch) // shares)
        on_threads(self._predict_batch, [batch[start : start + size] for start in range(0, len(batch), size)])

    def _predict_batch(self, batch: Batch) -> None:
        """Encode windows, decode their prompts, and write the masks into the results of their frames."""
        embeddings = self.encode([crop for _, _, crop in batch])
        # for each prompt: its window's place in the batch, its box's place in the frame, itself
        prompts = [
            (owner, i, prompt)
            for owner, (result, window, _) in enumerate(batch)
            for i in window.indices
            for prompt in result.prompts_xyxy[i]
        ]
        for start in range(0, len(prompts), self.config.prompt_batch_size):
            part = prompts[start : start + self.config.prompt_batch_size]
            boxes = np.concatenate([batch[owner][1].to_input(prompt[None]) for owner, _, prompt in part])
            logits, ious = self.decode(embeddings, boxes, np.array([owner for owner, _, _ in part]))
            for (owner, i, prompt), plane, iou in zip(part, logits, ious, strict=True):
                result, window, _ = batch[owner]
                mask = object_mask(plane, iou, prompt, window, result.size_hw, self.config.mask_threshold)
                result.masks[i].append(mask)

    def cut(self, image: np.ndarray, window: CropPlan, config: InferenceConfig | None = None) -> np.ndarray:
        """The model's input for one window, float32 S×S×3; `config`: None = the predictor's."""
        model = self.model
        return windows.cut(image, window, model.input_size, config or self.config, model.pixel_mean, model.resize)

    @torch.inference_mode()
    def encode(self, inputs: list[np.ndarray]) -> ImageEmbeddings:
        """Embeddings of B inputs, each float32 S×S×3 as `cut` returns it."""
        if self.model.training:  # it was trained in the meantime; calling eval() every time costs 5 ms
            self.model.eval()
        images = torch.from_numpy(np.stack(inputs)).to(self.device).permute(0, 3, 1, 2)  # B×S×S×3 → B×3×S×S
        with autocast(self.device, self.config.precision):
            return self.model.prepare(self.model.encode(images.contiguous()))

    @torch.inference_mode()
    def decode(
        self, embeddings: ImageEmbeddings, boxes_xyxy: np.ndarray, owners: np.ndarray, points: Points | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mask logits float32 N×M×M (M the model's `mask_size`) and predicted IoU N of boxes in encoded inputs.

        Args:
            boxes_xyxy: N×4 in input pixels.
            owners: the image of each box, ascending.
        """
        if self.model.training:
            self.model.eval()
        images, counts = np.unique(owners, return_counts=True)
        boxes = torch.from_numpy(boxes_xyxy.astype(np.float32)).to(self.device).split(counts.tolist())
        with autocast(self.device, self.config.precision):
            of_boxes = embeddings.select(torch.from_numpy(images).to(self.device))
            output = self.model.decode(of_boxes, list(boxes), points)
        logits = self._mask_source(output).float().cpu().numpy()
        if not np.isfinite(logits).all():
            where, remedy = f"model {self.model.method}", "check that its training did not diverge; try float32"
            raise RossamError(where, "mask logits are NaN or infinite", remedy)
        return logits, output.iou.float().cpu().numpy()

    def _mask_source(self, output: MaskLogits) -> torch.Tensor:
        source = self.config.mask_source
        return output.named(self.model.default_mask_source if source == "default" else source)


def _without_variants(frames: Iterator[list[list[ObjectMask]]]) -> Iterator[list[ObjectMask]]:
    return ([mask for (mask,) in masks_of_frame] for masks_of_frame in frames)


def _checked(
    image: np.ndarray, boxes_xyxy: np.ndarray, variants_xyxy: np.ndarray | None, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """The image and its prompts, N×(1 + K)×4: each box, and its variants after it."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        finding = f"image is {image.dtype} of shape {image.shape}, expected uint8 H×W×3 with at least one pixel"
        raise RossamError(where, finding, "convert it to 8-bit RGB first")
    boxes = check_boxes(boxes_xyxy, image.shape[:2], where)
    if variants_xyxy is None:
        return image, boxes[:, None]
    variants = np.asarray(variants_xyxy, dtype=np.float64)
    if variants.ndim != 3 or len(variants) != len(boxes) or variants.shape[2] != 4:
        finding = f"have the shape {variants.shape} for {len(boxes)} boxes"
        raise RossamError(f"{where}: variants", finding, f"pass {len(boxes)}×K×4, K boxes for each box")
    check_boxes(variants.reshape(-1, 4), image.shape[:2], f"{where}: variants")
    return image, np.concatenate([boxes[:, None], variants], axis=1)


def object_mask(
    logits: np.ndarray,
    predicted_iou: float,
    box_xyxy: np.ndarray,
    window: CropPlan,
    size_hw: tuple[int, int],
    threshold: float,
) -> ObjectMask:
    """Restore one object's logits (float32 M×M), no further than box and mask reach."""
    corner, extent = (window.x0, window.y0), (window.width, window.height)
    hull = windows.pixel_hulls(box_xyxy, size_hw)[0]
    box_part = hull - np.tile(corner, 2)

    outer = _around(extent, box_part, windows.reach(logits > threshold, window))
    values = windows.restore(logits, window, outer).astype(np.float16)
    rows, columns = np.nonzero(values > threshold)
    mask_part = None
    if len(rows):
        x, y = columns + outer[0], rows + outer[1]
        mask_part = (x.min(), y.min(), x.max() + 1, y.max() + 1)
    x0, y0, x1, y1 = _around(extent, box_part, mask_part)
    return ObjectMask(
        box_xyxy=(float(box_xyxy[0]), float(box_xyxy[1]), float(box_xyxy[2]), float(box_xyxy[3])),
        size_hw=size_hw,
        logit_crop=values[y0 - outer[1] : y1 - outer[1], x0 - outer[0] : x1 - outer[0]].copy(),
        offset_xy=(window.x0 + x0, window.y0 + y0),
        threshold=threshold,
        predicted_iou=float(predicted_iou),
        cut=not window.holds(hull),
    )


def _around(extent: tuple[int, int], *rectangles: Sequence[int] | None) -> Rectangle:
    """The rectangle that holds all of them and a margin, within a window of that width and height."""
    parts = np.array([rectangle for rectangle in rectangles if rectangle is not None])
    x0, y0 = (parts[:, :2].min(axis=0) - MARGIN).clip(0, extent)
    x1, y1 = (parts[:, 2:].max(axis=0) + MARGIN).clip(0, extent)
    return int(x0), int(y0), int(x1), int(y1)
