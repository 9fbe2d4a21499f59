"""How a mask answers to a slightly different box: each window encoded once, decoded for its box and the variants of it.

In: a `Predictor`, an image, boxes, and K variants of each box. Out: for each box its mask and K more.
"""

from __future__ import annotations

import numpy as np

from ..data.boxes import check_boxes
from . import crops
from .predictor import ObjectMask, Predictor, _checked, _object_mask


def predict_variants(
    predictor: Predictor, image: np.ndarray, boxes_xyxy: np.ndarray, variants_xyxy: np.ndarray
) -> list[list[ObjectMask]]:
    """Masks of one frame's boxes, each followed by those of its variants.

    Windows are cut for `boxes_xyxy`, as `Predictor.predict` cuts them; a variant is another prompt in its box's
    window, so it costs a decoding and no encoding. A frame's masks do not depend on the frames around it.

    Args:
        image: uint8 H×W×3 RGB.
        boxes_xyxy: N×4 frame pixels.
        variants_xyxy: N×K×4 frame pixels; K may be 0.

    Returns:
        N lists of 1 + K masks, the box's own first.

    Raises:
        RossamError: as `Predictor.predict`, for variants too.
    """
    config = predictor.config
    image, boxes, size_hw = _checked(image, boxes_xyxy, "predict_variants")
    variants = np.asarray(variants_xyxy, dtype=np.float64).reshape(len(boxes), -1, 4)
    check_boxes(variants.reshape(-1, 4), size_hw, "predict_variants: variants")
    prompts = np.concatenate([boxes[:, None], variants], axis=1)  # N×(1 + K)×4
    windows = crops.plan(boxes, size_hw, predictor.model.input_size, config)
    found: list[list[ObjectMask]] = [[] for _ in boxes]
    for start in range(0, len(windows), config.batch_size):
        batch = windows[start : start + config.batch_size]
        embeddings = predictor._encode([predictor._cut(image, window) for window in batch])
        # one line a prompt: the window's place in the batch, the box it belongs to, the prompt
        lines = [(w, i, box) for w, window in enumerate(batch) for i in window.indices for box in prompts[i]]
        for at in range(0, len(lines), config.prompt_batch_size):
            owners, indices, chunk = zip(*lines[at : at + config.prompt_batch_size], strict=True)
            inputs = [batch[w].to_input(box[None])[0] for w, box in zip(owners, chunk, strict=True)]
            logits, ious = predictor._decode(embeddings, np.stack(inputs), np.array(owners))
            for j, (w, i, box) in enumerate(zip(owners, indices, chunk, strict=True)):
                found[i].append(_object_mask(logits[j], ious[j], box, batch[w], size_hw, config.mask_threshold))
    return found
