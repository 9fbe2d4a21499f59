"""Does clipping masks by oriented boxes raise IoU? Measured on generated satellite video, where true masks are known.

An object's oriented box is the rectangle of least area around its true mask (OpenCV). Three ways to use it, each with
the same network and objects:

- `tight`: the upright box of the mask prompts, as in all other tables;
- `hull`: the upright hull of the oriented box prompts, looser than `tight` where an object lies diagonally;
- `hull, clipped`: as `hull`, and pixels outside the oriented box are left out (`rossam convert --clip-oriented`).

The box comes from the truth, so the clip is never wrong: what is measured is the most that clipping can gain. Intervals
are over videos. Usage: python benchmarks/oriented_boxes.py [--frames 32] [--method hq-sam]
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from rossam_core.files import cache_dir
from rossam_core.records import Frame
from rossam_kit import config
from rossam_kit.convert.command import predictor_of
from rossam_kit.convert.convert import ConversionConfig, convert
from rossam_kit.convert.quality import with_true_iou
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.loading import load_frames
from rossam_kit.experiments.statistics import mean_interval

DIAGONAL = 20
"""Degrees between an object's axis and the image's from which it counts as diagonal."""


def oriented(frame: Frame) -> Frame:
    """The frame's objects with a mask, each with the least rectangle around it and how far it is turned."""
    objects = []
    for item in frame.objects:
        if item.has_mask:
            rows, columns = np.nonzero(item.mask(frame.size_hw))
            points = np.concatenate([np.stack([columns + dx, rows + dy], axis=1) for dx in (0, 1) for dy in (0, 1)])
            rectangle = cv2.minAreaRect(points.astype(np.float32))
            corners = cv2.boxPoints(rectangle).astype(float)
            turned = min(rectangle[2] % 90, 90 - rectangle[2] % 90)
            objects.append(replace(item, attributes={"oriented_box": corners.tolist(), "turned": turned}))
    return frame.with_objects(objects)


def with_hulls(frame: Frame) -> Frame:
    """Boxes replaced by the upright hulls of the oriented boxes."""
    corners = [np.array(item.attributes["oriented_box"]) for item in frame.objects]
    hulls = [tuple([*c.min(axis=0).tolist(), *c.max(axis=0).tolist()]) for c in corners]
    pairs = zip(frame.objects, hulls, strict=True)
    return frame.with_objects([replace(item, box_xyxy=hull) for item, hull in pairs])


def scores(predictor, frames: FrameSet, clip: bool) -> pd.DataFrame:
    """One row per object: `iou`, and whether it is diagonal."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ConversionConfig(jitter=0, clip_oriented=clip)
        table = with_true_iou(convert(predictor, frames, Path(folder) / "out", settings), frames)
    turned = [item.attributes["turned"] for frame in frames for item in frame.objects]
    return table.assign(diagonal=np.array(turned) >= DIAGONAL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--method", default="hq-sam")
    options = parser.parse_args()
    profile = config.load_profile("demo", {"inference.growth": "context"})
    frames = load_frames(profile.data, "test", cache_dir())
    chosen = np.linspace(0, len(frames) - 1, min(options.frames, len(frames))).round().astype(int)
    tight = frames.subset([oriented(frames[int(i)]) for i in chosen])
    hulls = tight.subset([with_hulls(frame) for frame in tight])
    predictor = predictor_of(options.method, profile)
    runs = {
        "tight": scores(predictor, tight, False),
        "hull": scores(predictor, hulls, False),
        "hull, clipped": scores(predictor, hulls, True),
    }
    print(f"{options.method}, {len(tight)} frames, {tight.object_count} objects; mean IoU [95% interval over videos]")
    for part, is_diagonal in (("all", None), (f"turned by {DIAGONAL}° or more", True), ("less", False)):
        for name, table in runs.items():
            rows = table if is_diagonal is None else table[table["diagonal"] == is_diagonal]
            mean = mean_interval(rows, "iou")
            print(f"{part:<22}{name:<15}{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]  n = {len(rows)}")
    gain = runs["hull"].assign(iou=runs["hull, clipped"]["iou"] - runs["hull"]["iou"])
    mean = mean_interval(gain, "iou")
    print(f"clipping gains {mean.mean:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}]")


if __name__ == "__main__":
    main()
