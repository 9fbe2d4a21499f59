"""Optimisation steps at full size: seconds per step, images per second and peak memory of each phase.

Fresh weights and generated frames at the paper's own size; the steps are those of `fit`, with the recipe `paper`.
Usage: python benchmarks/training_step.py [--backbone vit_l] [--batch 1] [--steps 2] [--objects 16] [--device auto]
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import torch

from rossam_core import fit
from rossam_core.devices import has_fast_bfloat16, resolve_device
from rossam_core.files import cache_dir, read_json
from rossam_core.training import run_folder as runs
from rossam_core.training.recipes import RunConfig, recipe
from rossam_kit.config import SyntheticConfig
from rossam_kit.datasets.synthetic.video import generate


def peak_gib(device: torch.device) -> float:
    """Highest memory so far, GiB: the process's on a CPU, the allocator's on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vit_l")
    parser.add_argument("--batch", type=int, default=1, help="frames per step")
    parser.add_argument("--steps", type=int, default=2, help="steps; they take the phases in turn")
    parser.add_argument("--objects", type=int, default=16, help="objects kept per view, at most")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    device = resolve_device(options.device)
    config = SyntheticConfig(scale=1.0, train_videos=4, frames_per_video=1, scenes=("airport", "sea", "rail"))
    frames = generate(config, "train", cache_dir() / "synthetic")
    samples = options.batch * options.steps
    training = recipe(
        "paper", samples=samples, batch=options.batch, validation_objects=0, augment={"max_objects": options.objects}
    )
    run = RunConfig(
        method="ros-sam", backbone=options.backbone, checkpoint=None, training=training, device=options.device
    )

    def show(kind: str, row: dict) -> None:
        if kind == "step":
            print(
                f"step {row['step']}, {row['mask']} mask: {row['seconds']:.1f} s, "
                f"{options.batch / row['seconds']:.3f} images/s, {row['objects']} objects, loss {row['loss']:.3f}, "
                f"peak {peak_gib(device):.1f} GiB",
                flush=True,
            )

    precision = "bfloat16 autocast" if has_fast_bfloat16(device.type) else "float32"
    print(f"ROS-SAM {options.backbone} on {device}, {precision}, torch {torch.__version__}, batch {options.batch}")
    with tempfile.TemporaryDirectory() as folder:
        fit(run, folder, frames, on_event=show)
        for group, found in read_json(Path(folder) / runs.AUDIT).items():
            moved = f"{found['changed']} of {found['parameters']} tensors changed"
            print(f"  {group:15} {found['elements'] / 1e6:8.2f} M parameters, {moved}")


if __name__ == "__main__":
    main()
