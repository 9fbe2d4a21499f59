"""Encode one window once, then decode any box, threshold and points in it: what interactive use needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rossam_core.boxes import check_boxes
from rossam_core.errors import RossamError
from rossam_core.inference.predictor import ObjectMask, Predictor, object_mask
from rossam_core.inference.windows import CropPlan
from rossam_core.model.segmenter import ImageEmbeddings, Points
from rossam_core.records import Box
from rossam_core.settings import InferenceConfig


@dataclass(frozen=True, eq=False)
class EncodedCrop:
    """A window and its image embeddings."""

    window: CropPlan
    embeddings: ImageEmbeddings
    size_hw: tuple[int, int]


def encode_window(
    predictor: Predictor, image: np.ndarray, window: CropPlan, config: InferenceConfig | None = None
) -> EncodedCrop:
    """Encode one window (`windows.plan`) of a frame, uint8 H×W×3 RGB; `config`: None = the predictor's."""
    return EncodedCrop(window, predictor.encode([predictor.cut(image, window, config)]), image.shape[:2])


def decode_crop(
    predictor: Predictor,
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
        RossamError: the box or a point lies outside the window, or the model was not trained with points.
    """
    boxes = check_boxes([box_xyxy], encoded.size_hw, "decode_crop")
    prompt = encoded.window.to_input(boxes)
    if (prompt[:, 2:] <= prompt[:, :2]).any():
        raise RossamError(
            "decode_crop",
            f"box {tuple(boxes[0].tolist())} lies outside the encoded window {encoded.window.window_xyxy}",
            "encode a window for this box first",
        )
    threshold = predictor.config.mask_threshold if threshold is None else float(threshold)
    prompt_points = _prompt_points(predictor, encoded.window, points) if len(points) else None
    logits, ious = predictor.decode(encoded.embeddings, prompt, np.zeros(1, dtype=np.int64), prompt_points)
    return object_mask(logits[0], ious[0], boxes[0], encoded.window, encoded.size_hw, threshold)


def _prompt_points(predictor: Predictor, window: CropPlan, points: Sequence[tuple[float, float, int]]) -> Points:
    """Points of one box (x, y, label; frame pixels), as `model.decode` takes them."""
    model = predictor.model
    if not model.supports_points:
        raise RossamError(
            f"model {model.method} ({model.backbone})",
            "was trained with box prompts only",
            "prompt with a box alone, or load official weights (vit_b, hiera_tiny or larger)",
        )
    coords, labels = np.split(np.asarray(points, dtype=np.float64), [2], axis=1)
    x0, y0, x1, y1 = window.window_xyxy
    outside = ((coords < (x0, y0)) | (coords > (x1, y1))).any(axis=1)
    if outside.any():
        finding = f"point {tuple(coords[outside][0].tolist())} lies outside the encoded window {window.window_xyxy}"
        raise RossamError("decode_crop", finding, "choose points inside the window")
    inputs = (coords - (x0, y0)) * window.scale_xy
    input_coords, input_labels = torch.from_numpy(inputs).float(), torch.from_numpy(labels[:, 0]).long()
    return [(input_coords[None].to(predictor.device), input_labels[None].to(predictor.device))]
