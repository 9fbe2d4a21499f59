"""The profile `paper` with its networks at full size, on official-format files of random weights and generated twins.

Datasets have one object per frame and a few frames, runs end after two steps; the networks, windows and files are the
real ones. Prints seconds per window and view, the memory, and how long the whole profile's training takes at this
speed. `ROSSAM_PAPER_NOTEBOOKS` names the notebooks (default: 02 and 03; `all`), `ROSSAM_PAPER_DEVICE` the device.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from rossam_core import build_model
from rossam_core.files import DOWNLOADS, read_sealed, sha256_of
from rossam_core.training.run_folder import AUDIT, read_log
from rossam_kit.config import SyntheticConfig, load_profile
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.datasets.synthetic.video import generate
from rossam_kit.experiments.experiments import Experiments
from rossam_kit.experiments.planning import planned_runs

from ..fake_datasets import NAMES, write_twin
from ..model.official import save_official
from ..test_notebooks import tables

ROOT = Path(__file__).parents[2]
NOTEBOOKS = os.environ.get("ROSSAM_PAPER_NOTEBOOKS", "02,03")
DEVICE = os.environ.get("ROSSAM_PAPER_DEVICE", "cpu")
FILES = {"sam_vit_l": ("sam", "vit_l"), "sam_hq_vit_l": ("hq-sam", "vit_l")}
FILES |= {"sam2.1_hiera_large": ("sam2", "hiera_large")}
BYTES_NEEDED = 40 << 30
FRAMES = 4
NWPU_IMAGES = 650
TWINS = {  # format → variant of generated frames, and videos or images of each split that is written
    "sat-mtb": ("video", {"train": 2, "test": 2}),
    "isaid": ("aerial", {"train": 4, "test": 2}),
    "nwpu-vhr10": ("static", {"test": 8}),
    "satsot": ("zero-shot", {"test": 1}),
    "viso": ("zero-shot", {"test": 1}),
    "ootb": ("zero-shot", {"test": 1}),
}
OTHER_TABLE = """import rossam_core.files
from pathlib import Path
rossam_core.files.DOWNLOADS = Path({!r})
"""
pytestmark = pytest.mark.timeout(24 * 3600)


def one_object_each(frames: FrameSet, format: str) -> FrameSet:
    """Frames with a mask, the first alone, of a class that the format knows; as often as NWPU VHR-10 has images."""
    kept = []
    for frame in frames:
        known = [o for o in frame.objects if o.has_mask and o.category in NAMES[format]]
        kept += [frame.with_objects(known[:1])] if known else []
    return frames.subset([kept[i % len(kept)] for i in range(NWPU_IMAGES if format == "nwpu-vhr10" else len(kept))])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with `data` (twins), `cache/checkpoints` and `hashes.yaml`; removed at the end: it holds gigabytes."""
    root = tmp_path_factory.mktemp("paper")
    if shutil.disk_usage(root).free < BYTES_NEEDED:
        pytest.skip(f"needs {BYTES_NEEDED >> 30} GiB of disk")
    for format, (variant, splits) in TWINS.items():
        for split, count in splits.items():
            made = SyntheticConfig(
                variant=variant, scale=0.5, frames_per_video=FRAMES, frame_stride=1,
                scenes=("sea", "airport"), **{f"{split}_videos": count},
            )  # fmt: skip
            frames = one_object_each(generate(made, split, root / "made"), format)
            assert len(frames) > 1, format
            write_twin(frames, format, root / "data" / format, split)
    hashes = yaml.safe_load(DOWNLOADS.read_text(encoding="utf-8"))
    for number, (name, (method, backbone)) in enumerate(FILES.items()):
        (entry,) = hashes[name]["files"]
        path = root / "cache/checkpoints" / entry["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_official(build_model(method, backbone, None, seed=number), path)
        entry["sha256"] = sha256_of(path)
    (root / "hashes.yaml").write_text(yaml.safe_dump(hashes), encoding="utf-8")
    (root / "python").mkdir()
    (root / "python/sitecustomize.py").write_text(OTHER_TABLE.format(str(root / "hashes.yaml")))
    yield root
    shutil.rmtree(root)


def start(root: Path) -> subprocess.Popen:
    chosen = [n for n in load_profile("paper").notebooks if NOTEBOOKS == "all" or n[:2] in NOTEBOOKS.split(",")]
    small = {"notebooks": chosen, "training.batch": 1, "training.micro_batch": 1, "training.workers": 0}
    run = ["-m", "rossam_kit.cli", "run", "--profile", "paper", "--two-steps", "--jobs", "1", "--device", DEVICE]
    run += ["--data", str(root / "data"), "--report", str(root / "report")]
    run += [part for key, value in small.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    environment = {**os.environ, "ROSSAM_CACHE": str(root / "cache"), "JUPYTER_PREFER_ENV_PATH": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(root / "python"), str(ROOT)])
    with open(root / "log", "a") as log:
        return subprocess.Popen(
            [sys.executable, *run], env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )


def memory_of(process: psutil.Process) -> int:
    """Bytes of a process and all below it, what they share counted once."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def finished(root: Path) -> dict[Path, int]:
    """Files that end a row and a run → time of writing."""
    files = [*(root / "cache/scores").rglob("*.csv.gz"), *(root / "cache/runs").glob(f"*/{AUDIT}")]
    return {path: path.stat().st_mtime_ns for path in files}


def test_the_whole_way_at_full_size_resumes_after_a_kill(place, capsys):
    # killed after its first fine-tuning run, or, where none is, its first row
    process = start(place)
    while process.poll() is None and not finished(place):
        time.sleep(1)
    assert process.poll() is None, (place / "log").read_text()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done_before = finished(place)

    # the same again, to the end
    started, peak, process = time.monotonic(), 0, start(place)
    while process.poll() is None:
        peak = max(peak, memory_of(psutil.Process(process.pid)))
        time.sleep(2)
    took, output = time.monotonic() - started, (place / "log").read_text()
    assert process.returncode == 0 and "All done" in output, output
    assert done_before.items() <= finished(place).items()
    assert tables(place / "report")

    # figures: a row's seconds by its objects, a step's by its one view
    scores = (place / "cache/scores").rglob("*.csv.gz")
    rows = [read_sealed(path.with_name(path.name.replace(".csv.gz", ".json"))) for path in scores]
    windows = {row["label"]: row["seconds"] / row["objects"] for row in rows}
    steps = [
        row["seconds"] for run in (place / "cache/runs").iterdir() if run.is_dir()
        for row in read_log(run).to_dict("records") if row["kind"] == "step"
    ]  # fmt: skip
    planned = planned_runs(Experiments(load_profile("paper")), {})
    views = sum(run.views for run in planned)
    with capsys.disabled():
        print(f"\n{took:.0f} s after the kill, {peak / 2**30:.1f} GiB at most")
        print("\n".join(f"{seconds:8.1f} s per object: {label}" for label, seconds in windows.items()))
        if steps:
            print(f"{min(steps):.1f} to {max(steps):.1f} s per training view")
            days = views * sum(steps) / len(steps) / 86400
            print(f"the whole profile: {len(planned)} runs of {views:,} views, {days:,.0f} days at this speed")
    assert windows and all(seconds > 0 for seconds in windows.values())
    assert bool(steps) == any(n in NOTEBOOKS for n in ("03", "04", "05", "06", "08", "all"))
