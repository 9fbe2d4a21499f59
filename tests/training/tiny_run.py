"""A fine-tuning run of about a second: six made frames, a network of two blocks, 64 pixels wide.

Run as a script it fits into the folder named, and kills itself with SIGKILL when the named event comes.
"""

import os
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from rossam_core import masks
from rossam_core.records import Frame, ObjectAnnotation
from rossam_core.training.recipes import RunConfig, recipe
from rossam_core.training.train import fit
from rossam_kit.datasets.frame_set import FrameSet

ARCHITECTURE = {
    "dim": 32,
    "depth": 2,
    "heads": 2,
    "global_attention": [0, 1],
    "input_size": 64,
    "window": 2,
    "prompt_dim": 32,
    "decoder_heads": 2,
    "decoder_mlp_dim": 64,
}


def make_frames(root: Path, count: int = 6, name: str = "made") -> FrameSet:
    """Frames of 70 × 90 pixels with three ellipses each and one box without a mask, the same every time."""
    root.mkdir(parents=True, exist_ok=True)
    frames = []
    for number in range(count):
        rng = np.random.default_rng(number)
        image, objects = rng.integers(40, 90, (70, 90, 3), dtype=np.uint8), []
        for object_id in range(1, 4):
            bitmap = np.zeros((70, 90), np.uint8)
            middle, axes = (int(rng.integers(15, 75)), int(rng.integers(15, 55))), rng.integers(5, 14, 2).tolist()
            cv2.ellipse(bitmap, middle, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
            image[bitmap > 0] = rng.integers(140, 230, 3)
            box = masks.box_of(bitmap > 0)
            objects.append(ObjectAnnotation(object_id, "plane", box, masks.encode(bitmap)))
        objects.append(ObjectAnnotation(9, "car", (1.0, 1.0, 9.0, 5.0)))
        path = root / f"{name}_{number}.png"
        if not path.exists():
            cv2.imwrite(str(path), image)
        frames.append(Frame(name, f"video{number % 2}", number, path, (70, 90), tuple(objects)))
    return FrameSet(name, frames)


def tiny_run(**training) -> RunConfig:
    """`paper` at the smallest size; keywords go to `recipe`, `inference` to the run."""
    small = {
        "samples": 24,
        "batch": 4,
        "lora_rank": 2,
        "loss": {"points": 64},
        "augment": {"scale": (0.6, 2.0)},
        "validate_every": 8,
        "validation_objects": 4,
        "checkpoint_every": 8,
        "precision": "float32",
    }
    name, inference = training.pop("name", "paper"), training.pop("inference", {})
    settings = {"architecture": ARCHITECTURE, "inference": inference, "training": recipe(name, **(small | training))}
    return RunConfig(checkpoint=None, device="cpu", **settings)


def killer(event: str, number: int):
    """A listener that ends the process the hard way at the `number`-th `event`."""
    seen = 0

    def listen(kind, info):
        nonlocal seen
        seen += kind == event
        if kind == event and seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return listen


def main(run_dir: str, data_dir: str, event: str = "never", number: str = "0") -> None:
    torch.set_num_threads(1)
    frames = make_frames(Path(data_dir))
    fit(tiny_run(), run_dir, frames, frames[:2], on_event=killer(event, int(number)))


if __name__ == "__main__":
    main(*globals().get("ARGUMENTS", sys.argv[1:]))  # runpy gives ARGUMENTS
