"""One window a box: segment_anything's SamPredictor in a loop, as a user would write it, beside our Predictor.

`Predictor` shares a batch's windows among torch's threads; one row shows what it takes when torch shares every layer
instead. All run the same number of windows of the same generated frames through a network of the same size, in one
process, in turn, so that the ratio means something on a noisy machine.

Usage: python benchmarks/predictor.py [BACKBONE [BOXES]]
"""

import sys
import time

import cv2
import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from rossam_core import InferenceConfig, Predictor, build_model
from rossam_core.files import cache_dir
from rossam_kit.config import SyntheticConfig
from rossam_kit.datasets.synthetic.video import generate


def their_sam(arch) -> Sam:
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


def loop_over_windows(predictor: SamPredictor, image: np.ndarray, boxes: np.ndarray, side: int) -> list[np.ndarray]:
    """What the paper describes, written by hand: cut around the box, enlarge twice, segment, shrink, paste."""
    height, width = image.shape[:2]
    masks = []
    for x0, y0, x1, y1 in boxes:
        left = int(np.clip((x0 + x1 - side) / 2, 0, max(width - side, 0)))
        top = int(np.clip((y0 + y1 - side) / 2, 0, max(height - side, 0)))
        crop = image[top : top + side, left : left + side]
        enlarged = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        predictor.set_image(enlarged)
        box = 2 * (np.array([x0, y0, x1, y1]) - [left, top, left, top])
        mask, _, _ = predictor.predict(box=box, multimask_output=False)
        full = np.zeros((height, width), bool)
        small = cv2.resize(mask[0].astype(np.uint8), crop.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        full[top : top + side, left : left + side] = small.astype(bool)
        masks.append(full)
    return masks


def main(backbone: str = "vit_t", boxes: int = 96) -> None:
    ours = build_model("sam", backbone, checkpoint=None, box_offset=0.0)
    theirs = SamPredictor(their_sam(ours.arch))
    frames = generate(SyntheticConfig(scenes=("airport", "sea")), "val", cache_dir() / "synthetic")
    work, count = [], 0
    for frame in frames:
        prompts = np.array([o.box_xyxy for o in frame.objects if o.has_mask])[: boxes - count]
        if len(prompts):
            work.append((frame.image(), prompts))
            count += len(prompts)
    settings = {
        "Predictor, float32, one window at a time": InferenceConfig(precision="float32", batch_size=1),
        "Predictor, float32, batches": InferenceConfig(precision="float32"),
        "Predictor, default precision, batches": InferenceConfig(),
    }
    runs = {"SamPredictor in a loop": lambda: [loop_over_windows(theirs, *pair, ours.input_size // 2) for pair in work]}
    for name, config in settings.items():
        predictor = Predictor(ours, config, device="cpu")
        runs[name] = lambda predictor=predictor: [
            mask.full() for masks in predictor.predict_many(work) for mask in masks
        ]
    by_layer = Predictor(ours, settings["Predictor, float32, batches"], device="cpu")
    by_layer._run = by_layer._predict_batch
    runs["Predictor, float32, batches, threads by layer"] = lambda: [
        mask.full() for masks in by_layer.predict_many(work) for mask in masks
    ]
    seconds = {name: [] for name in runs}
    for _ in range(3):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    first = np.median(seconds["SamPredictor in a loop"])
    print(f"{backbone}, {count} boxes, {torch.get_num_threads()} threads, median of 3 rounds in turn")
    for name, times in seconds.items():
        middle = np.median(times)
        print(f"{name:<48}{1000 * middle / count:8.1f} ms a box  {first / middle:5.2f}×")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
