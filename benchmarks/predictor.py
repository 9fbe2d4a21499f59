"""One window per box, end to end: `Predictor` beside what else there is, on the same windows of generated frames.

- `segment_anything`'s `SamPredictor` in float32, window after window, as a user would write it;
- the loop of ROS-SAM's authors: one window at a time, LoRA not merged, SAM's decoder and then the HQ decoder, float32;
- transformers' `SamModel` in bfloat16, windows in batches;
- `Predictor` with SAM, and with ROS-SAM whose LoRA is merged, in float32 and in this processor's precision.

All run in turn in one process, so that ratios mean something on a noisy machine; the first round does not count. With
shipped weights (`vit_t`) the masks of the fast ways are compared with those of float32, one window at a time.

Usage: python benchmarks/predictor.py [--backbone vit_b] [--boxes 8] [--rounds 5]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from transformers import SamConfig, SamModel

from rossam_core import InferenceConfig, Predictor, build_model, mask_iou
from rossam_core.devices import has_fast_bfloat16
from rossam_core.files import cache_dir
from rossam_core.model.lora import merge_adapters
from rossam_core.model.sam import PIXEL_MEAN, PIXEL_STD, Architecture
from rossam_core.model.segmenter import PromptableSegmenter
from rossam_core.model.weights import SHIPPED
from rossam_kit.config import SyntheticConfig
from rossam_kit.datasets.synthetic.video import generate

Work = list[tuple[np.ndarray, np.ndarray]]
"""Frames (uint8 H×W×3) and their boxes (N×4)."""
FIXED = {"growth": "none", "rate": 2.0}
"""The windows of the paper: half the input's side, enlarged twice."""


def their_sam(arch: Architecture) -> Sam:
    """segment_anything's own network of the same size, with fresh weights."""
    grid = arch.input_size // 16
    encoder = ImageEncoderViT(
        depth=arch.depth, embed_dim=arch.dim, img_size=arch.input_size, num_heads=arch.heads, qkv_bias=True,
        use_rel_pos=True, global_attn_indexes=arch.global_attention, window_size=arch.window, out_chans=256,
    )  # fmt: skip
    prompts = PromptEncoder(256, (grid, grid), (arch.input_size, arch.input_size), 16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    decoder = MaskDecoder(transformer_dim=256, transformer=transformer)
    return Sam(encoder, prompts, decoder).eval()


def transformers_sam(arch: Architecture) -> SamModel:
    """transformers' network of the same size, in bfloat16, with fresh weights."""
    vision = {
        "hidden_size": arch.dim, "num_hidden_layers": arch.depth, "num_attention_heads": arch.heads,
        "image_size": arch.input_size, "window_size": arch.window, "mlp_dim": 4 * arch.dim,
        "global_attn_indexes": list(arch.global_attention),
    }  # fmt: skip
    prompts = {"image_size": arch.input_size, "image_embedding_size": arch.grid}
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompts)
    return SamModel(config).to(torch.bfloat16).eval()


def window(image: np.ndarray, box: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """The window around a box enlarged to twice its `side`, the box in it, and the window's corner."""
    (height, width), (x0, y0, x1, y1) = image.shape[:2], box
    left = int(np.clip((x0 + x1 - side) / 2, 0, max(width - side, 0)))
    top = int(np.clip((y0 + y1 - side) / 2, 0, max(height - side, 0)))
    crop = image[top : top + side, left : left + side]
    crop = np.pad(crop, ((0, side - crop.shape[0]), (0, side - crop.shape[1]), (0, 0)))
    enlarged = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    return enlarged, 2 * (box - [left, top, left, top]), (left, top)


def paste(logits: np.ndarray, side: int, corner: tuple[int, int], size_hw: tuple[int, int]) -> np.ndarray:
    """Logits of a window resized to the frame's pixels, as a mask of the whole frame."""
    full, (left, top) = np.zeros(size_hw, bool), corner
    mask = cv2.resize(logits.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR) > 0
    part = full[top : top + side, left : left + side]
    part[:] = mask[: part.shape[0], : part.shape[1]]
    return full


def sam_predictor_loop(predictor: SamPredictor, work: Work, side: int) -> list[np.ndarray]:
    masks = []
    for image, boxes in work:
        for box in boxes:
            enlarged, prompt, corner = window(image, box, side)
            predictor.set_image(enlarged)
            logits = predictor.predict(box=prompt, multimask_output=False)[2][0]
            masks.append(paste(logits, side, corner, image.shape[:2]))
    return masks


@torch.inference_mode()
def authors_loop(model: PromptableSegmenter, work: Work, side: int) -> list[np.ndarray]:
    """Each window alone; with `hq_decoder="copy"` the decoder runs twice, once for each mask."""
    masks = []
    for image, boxes in work:
        for box in boxes:
            enlarged, prompt, corner = window(image, box, side)
            embeddings = model.encode(torch.from_numpy(enlarged).permute(2, 0, 1)[None].float())
            logits = model.decode(embeddings, [torch.from_numpy(prompt[None]).float()]).hq[0].numpy()
            masks.append(paste(logits, side, corner, image.shape[:2]))
    return masks


@torch.inference_mode()
def transformers_batches(model: SamModel, work: Work, side: int, batch: int) -> list[np.ndarray]:
    prompts = [(image, *window(image, box, side)) for image, boxes in work for box in boxes]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    masks = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        pixels = torch.stack([torch.from_numpy(enlarged).permute(2, 0, 1).float() for _, enlarged, _, _ in part])
        boxes = torch.from_numpy(np.stack([box[None] for _, _, box, _ in part])).to(torch.bfloat16)
        pixels = ((pixels - mean) / std).to(torch.bfloat16)
        out = model(pixels, input_boxes=boxes, multimask_output=False)
        for (image, _, _, corner), logits in zip(part, out.pred_masks[:, 0, 0].float().numpy(), strict=True):
            masks.append(paste(logits, side, corner, image.shape[:2]))
    return masks


def predictor_masks(predictor: Predictor, work: Work) -> list[np.ndarray]:
    return [mask.full() for masks in predictor.predict_many(work) for mask in masks]


def some_frames(boxes: int) -> Work:
    """Generated frames with `boxes` boxes in all."""
    work: Work = []
    for frame in generate(SyntheticConfig(scenes=("airport", "sea")), "val", cache_dir() / "synthetic"):
        wanted = boxes - sum(len(prompts) for _, prompts in work)
        prompts = np.array([o.box_xyxy for o in frame.objects if o.has_mask])[:wanted]
        if len(prompts):
            work.append((frame.image(), prompts))
    return work


def runs(backbone: str, work: Work, batch: int) -> dict[str, Callable[[], list[np.ndarray]]]:
    """What is timed, by name."""
    weights = "default" if backbone in SHIPPED else None
    sam = build_model("sam", backbone, weights)
    base = "default" if weights else None
    settings = {"lora_rank": 8, "for_training": True}
    unmerged = build_model("ros-sam", backbone, base, hq_decoder="copy", **settings).eval()
    merged = build_model("ros-sam", backbone, base, **settings).eval()
    merge_adapters(merged)
    side = sam.input_size // 2
    theirs, other = SamPredictor(their_sam(sam.arch)), transformers_sam(sam.arch)
    exact = InferenceConfig(precision="float32", batch_size=batch, **FIXED)
    fast = InferenceConfig(batch_size=batch, **FIXED)
    one = InferenceConfig(precision="float32", batch_size=1, **FIXED)
    predictors = {
        "Predictor, SAM, float32, one window at a time": Predictor(sam, one, "cpu"),
        "Predictor, SAM, float32": Predictor(sam, exact, "cpu"),
        "Predictor, SAM": Predictor(sam, fast, "cpu"),
        "Predictor, ROS-SAM, LoRA merged": Predictor(merged, fast, "cpu"),
    }
    return {
        "SamPredictor, float32": lambda: sam_predictor_loop(theirs, work, side),
        "authors' loop, float32": lambda: authors_loop(unmerged, work, side),
        "transformers, bfloat16, batches": lambda: transformers_batches(other, work, side, batch),
    } | {name: lambda p=predictor: predictor_masks(p, work) for name, predictor in predictors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_b")
    parser.add_argument("--boxes", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8, help="windows in a batch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    work = some_frames(options.boxes)
    ways = runs(options.backbone, work, options.batch)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    masks = {}
    for number in range(options.rounds + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            masks[name] = run()
            seconds[name].append((time.perf_counter() - started) / options.boxes)
            print(f"round {number}: {seconds[name][-1]:7.3f} s per box, {name}", file=sys.stderr, flush=True)
    median = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    precision = "bfloat16" if has_fast_bfloat16("cpu") else "float32"
    print(f"{options.backbone}, {options.boxes} boxes, {torch.get_num_threads()} threads, this processor: {precision};")
    print(f"median of {options.rounds} rounds in turn, torch {torch.__version__}\n")
    print("| | s per box | times SamPredictor | times transformers |\n|---|---:|---:|---:|")
    for name, value in median.items():
        against = (median["SamPredictor, float32"] / value, median["transformers, bfloat16, batches"] / value)
        print(f"| {name} | {value:.3f} | {against[0]:.2f} | {against[1]:.2f} |")
    if options.backbone in SHIPPED:
        exact, fast = masks["Predictor, SAM, float32, one window at a time"], masks["Predictor, SAM"]
        ious = [mask_iou(a, b) for a, b in zip(fast, exact, strict=True)]
        print(f"\nMean IoU of Predictor's masks, batches in {precision}, to float32: {np.mean(ious):.4f}")


if __name__ == "__main__":
    main()
