"""Many boxes in one frame: shared windows beside one window for each box, and how time and memory grow with boxes.

- 30 objects in each frame of 400×400 pixels (four generated aerial patches), with one window for each box and with
  shared windows, in turn: seconds, and with shipped weights IoU. For a network whose input is n times the 256 px of
  `vit_t`, frames and boxes are enlarged n times, so that the windows stay the same.
- 250 to 2,000 boxes in one frame of 3000×1500 pixels, one window each (`vit_t`): seconds and added memory.

Usage: python benchmarks/many_boxes.py [--backbone vit_t] [--frames 8] [--rounds 5]
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from rossam_core import InferenceConfig, ObjectMask, Predictor, build_model, mask_iou
from rossam_core.devices import has_fast_bfloat16
from rossam_core.files import cache_dir
from rossam_core.inference.windows import plan
from rossam_core.model.weights import SHIPPED
from rossam_kit.config import SyntheticConfig
from rossam_kit.datasets.synthetic.video import generate

OBJECTS = 30
VIT_T_INPUT = 256
SIDE = 200
"""Of a generated patch, in pixels."""
WINDOWS = {"one window each": InferenceConfig(), "shared windows": InferenceConfig(mode="shared")}
LARGE_WH = (3000, 1500)
COUNTS = (250, 500, 1000, 2000)


class Crowd(NamedTuple):
    """A frame with its boxes and true masks."""

    image: np.ndarray  # uint8 H×W×3
    boxes_xyxy: np.ndarray  # N×4
    masks: list[np.ndarray]  # bool H×W


def crowds(count: int) -> list[Crowd]:
    """Frames of 2×2 generated patches, each with 30 objects: those nearest to the middle."""
    made = generate(SyntheticConfig(variant="aerial", test_videos=4 * count), "test", cache_dir() / "synthetic")
    frames = [frame for frame in made if frame.size_hw == (SIDE, SIDE)]
    found = []
    for start in range(0, len(frames) - 3, 4):
        image, boxes, masks = np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8), [], []
        for number, frame in enumerate(frames[start : start + 4]):
            y, x = SIDE * (number // 2), SIDE * (number % 2)
            image[y : y + SIDE, x : x + SIDE] = frame.image()
            for item in (item for item in frame.objects if item.has_mask):
                boxes.append(np.add(item.box_xyxy, (x, y, x, y)))
                masks.append(np.zeros((2 * SIDE, 2 * SIDE), bool))
                masks[-1][y : y + SIDE, x : x + SIDE] = item.mask(frame.size_hw)
        if len(boxes) >= OBJECTS:
            centres = np.reshape(boxes, (-1, 2, 2)).mean(axis=1)
            nearest = np.linalg.norm(centres - SIDE, axis=1).argsort()[:OBJECTS]
            found.append(Crowd(image, np.array(boxes)[nearest], [masks[i] for i in nearest]))
    return found


def mean_iou(masks: list[ObjectMask], truth: Crowd) -> float:
    return float(np.mean([mask_iou(mask.full(), true) for mask, true in zip(masks, truth.masks, strict=True)]))


def compare_windows(backbone: str, frames: list[Crowd], rounds: int) -> None:
    model = build_model("sam", backbone, "default" if backbone in SHIPPED else None)
    times = model.input_size // VIT_T_INPUT
    work = [(frame.image.repeat(times, 0).repeat(times, 1), times * frame.boxes_xyxy) for frame in frames]
    predictors = {name: Predictor(model, config, "cpu") for name, config in WINDOWS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in WINDOWS}
    ious: dict[str, np.ndarray] = {}
    predictors["one window each"].predict(work[0][0], work[0][1][:2])  # the first prediction does not count
    for _ in range(rounds):
        for name, predictor in predictors.items():
            started = time.perf_counter()
            masks = list(predictor.predict_many(work))
            seconds[name].append((time.perf_counter() - started) / len(frames))
            if times == 1:
                ious[name] = 100 * np.array([mean_iou(*pair) for pair in zip(masks, frames, strict=True)])
    print(f"{backbone}: {len(frames)} frames of {OBJECTS} objects, median of {rounds} rounds in turn")
    for name, config in WINDOWS.items():
        planned = [plan(boxes, image.shape[:2], model.input_size, config) for image, boxes in work]
        count = sum(map(len, planned)) / len(frames)
        print(f"  {name}: {count:.1f} windows, {statistics.median(seconds[name]):.3f} s a frame")
    each, shared = (statistics.median(seconds[name]) for name in WINDOWS)
    print(f"  shared windows are {each / shared:.1f} times as fast")
    if ious:
        each, shared = (ious[name] for name in WINDOWS)
        low, high = stats.bootstrap((shared - each,), np.mean, rng=0).confidence_interval
        change = f"{(shared - each).mean():+.1f} ({low:+.1f} to {high:+.1f}, 95% over frames)"
        print(f"  IoU {each.mean():.1f} and {shared.mean():.1f}: {change}")


def memory_mb(field: str) -> float:
    """A field of the process's status: `VmRSS` (resident now) or `VmHWM` (the most since the last reset)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure_growth() -> None:
    width, height = LARGE_WH
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    predictor = Predictor(build_model("sam", "vit_t"), InferenceConfig(), "cpu")
    print(f"\nOne frame of {width}×{height} pixels, one window for each box:")
    for count in (16, *COUNTS):  # the first does not count
        corners = draw.uniform((0, 0), (width - 30, height - 30), (count, 2))
        boxes = np.concatenate([corners, corners + draw.uniform(8, 30, (count, 2))], axis=1)
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        before, started = memory_mb("VmRSS"), time.perf_counter()
        masks = predictor.predict(image, boxes)
        took = time.perf_counter() - started
        if count in COUNTS:
            added = memory_mb("VmHWM") - before
            print(f"  {len(masks):5d} boxes: {took:6.1f} s, {1000 * took / count:.1f} ms a box, {added:.0f} MB added")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_t")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    precision = "bfloat16" if has_fast_bfloat16("cpu") else "float32"
    print(f"{torch.get_num_threads()} threads, {precision}, torch {torch.__version__}")
    compare_windows(options.backbone, crowds(options.frames), options.rounds)
    if options.backbone == "vit_t":
        measure_growth()


if __name__ == "__main__":
    main()
