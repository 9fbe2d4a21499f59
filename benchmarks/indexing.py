"""Indexing a dataset of many frames: seconds of the first reading, and of the second, from the index in the cache.

A generated SAT-MTB of `--frames` frames, made by linking a few files under many names. Each reading runs in a process
of its own; wall and processor time are both printed, since on a busy machine the former includes other programs.
Usage: python benchmarks/indexing.py [--frames 10000] [--annotations seg|hbb|obb|mot]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rossam_kit.config import SyntheticConfig
from rossam_kit.datasets.sat_mtb import read_sat_mtb
from rossam_kit.datasets.synthetic.video import generate

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.fake_datasets import write_twin

VIDEOS = 10


def many_frames(root: Path, frames: int) -> None:
    """SAT-MTB's layout with one generated frame a video, linked under as many numbers as are asked for."""
    made = SyntheticConfig(test_videos=VIDEOS, frames_per_video=1, scenes=("airport", "sea"))
    write_twin(generate(made, "test", root / "made"), "sat-mtb", root / "sat-mtb")
    for first in sorted((root / "sat-mtb").rglob("000001.*")):
        for number in range(2, frames // VIDEOS + 1):
            os.link(first, first.with_stem(f"{number:06d}"))
    for track in sorted((root / "sat-mtb").glob("*/*/mot/*.txt")):
        rows = [line.split(",", 1)[1] for line in track.read_text().splitlines()]
        numbers = range(1, frames // VIDEOS + 1)
        track.write_text("".join(f"{number},{row}\n" for number in numbers for row in rows))


def read_once(root: Path, annotations: str) -> None:
    """Print what one reading took."""
    wall, processor = time.perf_counter(), time.process_time()
    frames = read_sat_mtb(root / "sat-mtb", "test", annotations, cache=root / "cache")
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{len(frames):,} frames, {frames.object_count:,} objects: {wall:.2f} s, of the processor {processor:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--annotations", default="seg", choices=["seg", "hbb", "obb", "mot"])
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read_once(options.read, options.annotations)
        return
    with tempfile.TemporaryDirectory() as folder:
        many_frames(Path(folder), options.frames)
        for turn in ("first", "second", "third"):
            print(f"{turn:<8}", end="", flush=True)
            own = ["--annotations", options.annotations, "--read", folder]
            subprocess.run([sys.executable, __file__, *own], check=True)


if __name__ == "__main__":
    main()
