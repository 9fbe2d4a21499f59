"""How long a training view and a prediction take on this machine, measured before hours are spent on them.

In: a `RunConfig`. Out: a `Probe`, from two optimisation steps of that very run (fresh weights and generated frames cost
the same as real ones) and two predictions. They run in a process of their own with no more memory than is free, so a
network that does not fit ends that process and nothing else. What was measured is kept.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from rossam_core.devices import core_count, has_fast_bfloat16, resolve_device
from rossam_core.errors import RossamError
from rossam_core.files import cache_dir, read_json, stable_hash, write_json
from rossam_core.inference.predictor import Predictor
from rossam_core.model.sam import architecture
from rossam_core.model.segmenter import build_base, input_size
from rossam_core.settings import InferenceConfig
from rossam_core.training import run_folder as runs
from rossam_core.training.recipes import RunConfig
from rossam_core.training.train import fit
from rossam_kit.config import SyntheticConfig
from rossam_kit.datasets.synthetic.video import generate
from rossam_kit.experiments.footprint import peak_resident
from rossam_kit.memory import free_memory

STEPS = 2
"""Steps that are timed, one of each phase of the paper's alternation; on a GPU as many before them warm it up."""
SHARE = 4
"""On a processor a large network is measured with a 1/SHARE of its blocks and the times multiplied: its cost is
proportional to its depth, and whole steps would take minutes."""
LARGE = 512
"""Input side above which a network is large for a processor."""
MEMORY_SHARE = 0.8
"""Of the free memory, what a probe may take."""
BUSY = 1.5
"""Processes that run or wait for each core, from which on a measurement is told as disturbed, and not kept."""
TIMEOUT = 600.0
"""Seconds after which a probe is given up."""


@dataclass(frozen=True)
class Probe:
    """What was measured.

    Attributes:
        device: processor or graphics processor, and precision.
        view_seconds: of one training view, forward, backward and update; one number a step, already multiplied.
        window_seconds: of one window's prediction; one number a prediction, already multiplied.
        batch: views a step.
        share: the part of the encoder's blocks that was measured, 1 or 1/SHARE.
        peak_gib: largest memory of the process (processor), or of its tensors (graphics processor).
        trained: parameters that train in the whole network.
        busy: processes that ran or waited for each core when it ended, the probe's own among them; 0 where the system
            does not say.
    """

    device: str
    view_seconds: tuple[float, ...]
    window_seconds: tuple[float, ...]
    batch: int
    share: float
    peak_gib: float
    trained: int
    busy: float = 0.0

    @property
    def on_processor(self) -> bool:
        return " processor, " in self.device


def probe(run: RunConfig, inference: InferenceConfig, cache: Path | None = None) -> Probe:
    """Measure, or tell what was measured on this machine before, when nothing else held its processor.

    Raises:
        RossamError: too little memory, or no answer within `TIMEOUT`.
    """
    cache = cache or cache_dir()
    asked = {"run": run.model_dump(mode="json", exclude={"data"}), "inference": inference.model_dump(mode="json")}
    key = stable_hash([asked, _device_name(run), torch.__version__])
    kept = cache / "probes" / f"{key}.json"
    if kept.exists():
        return _probe_of(read_json(kept))
    found = _in_own_process(asked, cache)
    if not (found.on_processor and found.busy > BUSY):
        write_json(kept, asdict(found))
    return found


def _probe_of(values: dict) -> Probe:
    return Probe(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _in_own_process(asked: dict, cache: Path) -> Probe:
    with tempfile.TemporaryDirectory() as folder:
        order, answer = Path(folder) / "order.json", Path(folder) / "answer.json"
        write_json(order, asked)
        command = [sys.executable, "-m", __name__, str(order), str(answer), str(cache)]
        remedy = "free some memory, or run this on the machine that is to train"
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise RossamError("probe", f"two steps took over {TIMEOUT:.0f} s", remedy) from None
        if done.returncode or not answer.exists():
            last = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
            short = re.search(r"allocate|out of memory|MemoryError", last) or done.returncode < 0
            found = f"its network does not fit into the {free_memory() / 2**30:.0f} GiB free here" if short else last
            raise RossamError("probe", found, remedy)
        return _probe_of(read_json(answer))


def measure(run: RunConfig, inference: InferenceConfig, cache: Path) -> Probe:
    """Measure in this process."""
    device = resolve_device(run.device)
    on_gpu, side = device.type == "cuda", run.architecture.get("input_size", input_size(run.backbone))
    share = 1 if on_gpu or side <= LARGE else SHARE
    batch = run.training.batch if on_gpu else 1
    frames = generate(
        SyntheticConfig(scale=min(side / 1024, 1.0), train_videos=1, frames_per_video=1, scenes=("airport",)),
        "train", cache / "synthetic",
    )  # fmt: skip
    steps = STEPS * (2 if on_gpu else 1)
    few = {"samples": batch * steps, "batch": batch, "validation_objects": 0, "epochs": 1.0, "workers": 0}
    run = run.model_copy(
        update={
            "checkpoint": None,
            "architecture": run.architecture | (_shallower(run) if share > 1 else {}),
            "training": run.training.model_copy(update=few),
        }
    )
    seconds: list[float] = []

    def listen(kind: str, row: dict) -> None:
        if kind == "step":
            seconds.append(row["seconds"])

    with tempfile.TemporaryDirectory() as folder:
        fit(run, folder, frames, on_event=listen)
        audit = read_json(Path(folder) / runs.AUDIT)
    predictor = Predictor(build_base(run.model_dump()), inference, str(device))
    windows = list(_predictions(predictor, frames[0], inference.batch_size if on_gpu else 1))
    return Probe(
        device=f"{_device_name(run)}, {'bfloat16' if has_fast_bfloat16(device.type) else 'float32'}",
        view_seconds=tuple(share * s / batch for s in seconds[-STEPS:]),
        window_seconds=tuple(share * s for s in windows[-STEPS:]),
        batch=batch,
        share=1 / share,
        peak_gib=_peak_gib(device),
        trained=sum(
            group["elements"] * (share if name in ("lora", "encoder") else 1)
            for name, group in audit.items()
            if group["trained"]
        ),
        busy=_busy(),
    )


def _predictions(predictor: Predictor, frame, boxes: int) -> Iterator[float]:
    """Seconds a window of three predictions of `boxes` windows, of which the first warms up."""
    image, chosen = frame.image(), frame.boxes_xyxy[[i % len(frame.objects) for i in range(boxes)]]
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        predictor.predict(image, chosen)
        yield (time.perf_counter() - started) / boxes


def _shallower(run: RunConfig) -> dict:
    """Constants of the same network with the first of `SHARE` equal parts of its blocks."""
    whole = architecture(run.backbone, **run.architecture)
    depth = max(whole.depth // SHARE, 1)
    return {"depth": depth, "global_attention": [i for i in whole.global_attention if i < depth] or [depth - 1]}


def _device_name(run: RunConfig) -> str:
    device = resolve_device(run.device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} processor, {core_count()} cores" if device.type == "cpu" else device.type


def _busy() -> float:
    """Processes of the last minute that ran or waited for each core; 0 where the system does not say."""
    return os.getloadavg()[0] / core_count() if hasattr(os, "getloadavg") else 0.0


def _limit_memory() -> None:
    """Let allocations beyond the free memory fail here, before the system looks for a process to end."""
    import resource

    limit = peak_resident() + int(MEMORY_SHARE * free_memory())
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _peak_gib(device: torch.device) -> float:
    return (torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident()) / 2**30


def _main(order: str, answer: str, cache: str) -> None:
    asked = read_json(order)
    run, inference = RunConfig(**asked["run"]), InferenceConfig(**asked["inference"])
    if resolve_device(run.device).type == "cpu" and sys.platform == "linux":
        _limit_memory()
    Path(answer).write_text(json.dumps(asdict(measure(run, inference, Path(cache)))), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
