"""From a `DataConfig` to frames: the one place that knows which reader serves which source."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..config import DataConfig, Split
from ..errors import RossamError
from ..files import cache_dir
from .coco import read_coco
from .nwpu_vhr10 import read_nwpu_vhr10
from .records import Drop, FrameSet
from .synthetic import generate


def load_frames(data: DataConfig, split: Split, cache: Path | None = None, progress: bool = True) -> FrameSet:
    """Frames of one split, generated once or read where they lie.

    Sources without a split of that name raise `RossamError`: nothing is tested on what it was trained on.
    """
    if data.source == "synthetic":
        root = (cache or cache_dir()) / "synthetic"
        frames = generate(data.synthetic, split, root, progress=progress)
    elif data.source == "nwpu-vhr10":
        if split == "test":
            raise RossamError("nwpu-vhr10", "has splits 'train' and 'val', not 'test'", "score on 'val'")
        frames = read_nwpu_vhr10(data.root, split)
    else:
        frames = read_coco(data.root / f"{split}.json", data.root / "images", name=data.root.name)
    return _limit(frames, data.limit_frames)


def scored_split(data: DataConfig) -> Split:
    """The split a source is scored on: NWPU VHR-10 has no public test split."""
    return "val" if data.source == "nwpu-vhr10" else "test"


def _limit(frames: FrameSet, limit: int | None) -> FrameSet:
    """At most `limit` frames, evenly spaced over the set, the rest in the drop log."""
    if limit is None or len(frames) <= limit:
        return frames
    chosen = set(np.linspace(0, len(frames) - 1, limit).round().astype(int).tolist())
    drops = [Drop(f.key, f"beyond data.limit_frames = {limit}") for i, f in enumerate(frames) if i not in chosen]
    return frames.subset([f for i, f in enumerate(frames) if i in chosen], drops)
