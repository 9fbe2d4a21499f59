"""A training step of the tiny networks in float32 and under bfloat16 autocast, in turn: which one is faster here.

`devices.has_fast_bfloat16` decides for `precision: auto`; this shows whether it decides well on this processor.
Usage: python benchmarks/precision.py [--rounds 5] [--images 4] [--prompts 4] [--threads 1] [--device auto]
"""

import argparse
import statistics
import time

import torch

from rossam_core import build_model
from rossam_core.devices import autocast, has_fast_bfloat16, resolve_device
from rossam_core.model.segmenter import PromptableSegmenter, set_trainable

NETWORKS = {
    ("ros-sam", "vit_t"): ("lora", "last_block", "hq_head"),
    ("sam", "vit_t"): ("encoder", "last_block", "sam_decoder"),
    ("sam2", "hiera_t"): ("encoder", "last_block", "sam_decoder"),
}


def step_seconds(
    model: PromptableSegmenter, images: torch.Tensor, boxes: list[torch.Tensor], device: torch.device, precision: str
) -> float:
    """Seconds of one forward and backward pass."""
    started = time.perf_counter()
    with autocast(device, precision):
        logits = model(images, boxes)
    sum(plane.square().mean() for plane in logits if plane is not None).backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=4, help="boxes per image")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    print(f"{device}, {options.threads} threads, torch {torch.__version__}")
    print(f"precision auto means {'bfloat16' if has_fast_bfloat16(device.type) else 'float32'} here")
    for (method, backbone), groups in NETWORKS.items():
        model = build_model(method, backbone, checkpoint=None).to(device)
        set_trainable(model, groups)
        side = model.input_size
        images = torch.rand(options.images, 3, side, side, device=device) * 255
        box = torch.tensor([[0.3, 0.3, 0.7, 0.7]], device=device) * side
        boxes = [box.expand(options.prompts, 4)] * options.images
        seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
        for _ in range(options.rounds + 1):  # the first round warms up
            for precision, measured in seconds.items():
                measured.append(step_seconds(model, images, boxes, device, precision))
        float32, bfloat16 = (statistics.median(each[1:]) for each in seconds.values())
        print(
            f"{method:8} {backbone:8} float32 {float32:.3f} s, bfloat16 {bfloat16:.3f} s a step, "
            f"ratio {bfloat16 / float32:.2f}"
        )


if __name__ == "__main__":
    main()
