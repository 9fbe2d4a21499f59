"""Peak memory of a row's network, answering prompts and training, measured in a process of its own.

In: scored rows. Out: a `Footprint` each, kept. A notebook's own peak tells nothing of one row, since all of them pass
through one process. So one fresh process loads the libraries, forks once for every measurement, and each fork builds
its network from fresh weights (they take the same room), answers one frame or takes one step of every phase, and says
how far its resident set rose above that of the libraries, their code not counted. On a graphics processor it is the
peak of its tensors.
"""

from __future__ import annotations

import os
import pickle
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rossam_core.errors import RossamError
from rossam_core.files import read_json, stable_hash, write_json
from rossam_core.inference.predictor import Predictor
from rossam_core.model.segmenter import build_model
from rossam_core.settings import InferenceConfig
from rossam_core.training.recipes import RunConfig
from rossam_core.training.train import fit
from rossam_kit.cache import exclusive
from rossam_kit.datasets.frame_set import FrameSet
from rossam_kit.experiments.baselines import BASELINES

if TYPE_CHECKING:
    from rossam_kit.experiments.experiments import RowResult


@dataclass(frozen=True)
class Footprint:
    """Bytes above an idle process (processor), or of tensors (graphics processor).

    Attributes:
        answering: peak while one frame's boxes are answered, the network included.
        training: peak over one step of each phase on a whole batch in one process; None for what is not fine-tuned.
    """

    answering: int
    training: int | None


@dataclass(frozen=True)
class _Asked:
    """One row's measurements.

    Attributes:
        baseline: name in `BASELINES`; then there is no network.
        model: arguments of `build_model`.
        inference: how windows are cut and batched.
        size_hw, boxes_xyxy: of the frame that is answered.
        run: one short fine-tuning, or None.
        device: torch device.
    """

    baseline: str | None
    model: dict[str, Any]
    inference: InferenceConfig
    size_hw: tuple[int, int]
    boxes_xyxy: list[list[float]]
    run: RunConfig | None
    device: str


def footprints(results: Sequence[RowResult]) -> list[Footprint]:
    """Footprint of each row on the busiest frame it was scored on; what was measured before is told again.

    Raises:
        RossamError: a measurement failed, with its last words.
    """
    if not results:
        return []
    folder = results[0].experiments.cache / "footprints"
    asked = [_asked(result) for result in results]
    paths = [folder / f"{stable_hash(_identity(each))}.json" for each in asked]
    with exclusive(folder / "measuring"):
        missing = {
            path: (each, _few_frames(result) if each.run else None)
            for path, each, result in zip(paths, asked, results, strict=True)
            if not path.exists()
        }
        if missing:
            for path, found in zip(missing, _in_own_process(list(missing.values())), strict=True):
                write_json(path, asdict(found))
    return [Footprint(**read_json(path)) for path in paths]


def _asked(result: RowResult) -> _Asked:
    experiments, spec = result.experiments, result.spec
    busiest = max(experiments.frames, key=lambda frame: len(frame.objects))
    model: dict[str, Any] = {}
    run = None
    if spec.method:
        base = experiments.base(spec.method)
        model = {"method": spec.method, "backbone": base["backbone"], "checkpoint": None, **base["architecture"]}
    if spec.trains:
        run = experiments.run_config(spec, experiments.profile.seeds[0])
        model |= {"lora_rank": run.training.lora_rank, "adapter": run.training.adapter}
        short = {"samples": run.training.batch * len(run.phases), "validation_objects": 0, "workers": 0}
        short |= {"validate_every": 10**6, "checkpoint_every": 10**6, "seed": 0}  # one measurement for all budgets
        run = run.model_copy(update={"checkpoint": None, "training": run.training.model_copy(update=short)})
    boxes = busiest.boxes_xyxy.tolist()
    inference = experiments.inference(spec)
    return _Asked(spec.baseline, model, inference, busiest.size_hw, boxes, run, str(experiments.device))


def _identity(asked: _Asked) -> list:
    """What may move the numbers."""
    plain = [asked.baseline, asked.model, asked.inference.model_dump(mode="json"), asked.size_hw, asked.boxes_xyxy]
    run = asked.run.model_dump(mode="json") if asked.run else None
    machine = [asked.device, sys.platform, torch.__version__, torch.get_num_threads()]
    return [*plain, run, machine]


def _few_frames(result: RowResult) -> FrameSet:
    """A batch of the frames the row trains on."""
    train, _ = result.experiments.training_frames
    frames = [frame for frame in train if any(thing.has_mask for thing in frame.objects)]
    return train.subset(frames[: result.experiments.run_config(result.spec, 0).training.batch])


def _in_own_process(asked: Sequence[tuple[_Asked, FrameSet | None]]) -> list[Footprint]:
    with tempfile.TemporaryDirectory(prefix="rossam-footprint-") as folder:
        order, answer = Path(folder) / "order.pickle", Path(folder) / "answer.json"
        order.write_bytes(pickle.dumps(list(asked)))
        command = [sys.executable, "-m", __name__, str(order), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not answer.exists():
            last = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
            raise RossamError("peak memory", f"could not be measured: {last}", "free some memory and start again")
        return [Footprint(**values) for values in read_json(answer)]


def _status(field: str) -> int | None:
    """A number of Linux's account of this process, bytes; None where there is no such account."""
    try:
        return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))[1]) * 1024
    except (OSError, TypeError):
        return None


def peak_resident() -> int:
    """Bytes of the largest resident set of this process since it started its program or was forked.

    Linux's `ru_maxrss` of a new process begins with that of the process which started it, so that a large notebook
    makes all its children look large; the mark of the memory itself, VmHWM, does not.
    """
    peak = _status("VmHWM")
    if peak is None:
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return peak


def _answer(asked: _Asked) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*asked.size_hw, 3), dtype=np.uint8)
    if asked.baseline:
        answering = BASELINES[asked.baseline]()
    else:
        answering = Predictor(build_model(**asked.model), asked.inference, asked.device)
    answering.predict(image, np.array(asked.boxes_xyxy))


def _train(run: RunConfig, frames: FrameSet) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fit(run, folder, frames)


def _peak_in_fork(work: Callable[[], None], device: str) -> int:
    """Bytes that `work` takes at most, in a fork of this process, which stays as it is.

    Pages of files, such as the code of libraries, come back one by one in a fork; they are no memory of the work's.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            before, files_before = peak_resident(), _status("RssFile") or 0
            work()
            code = max((_status("RssFile") or 0) - files_before, 0)
            on_gpu = device.startswith("cuda")
            peak = torch.cuda.max_memory_allocated(device) if on_gpu else max(peak_resident() - before - code, 0)
            os.write(writing, str(peak).encode())
            status = 0
        except BaseException as error:  # nothing may leave the fork, which shares its parent's files
            os.write(2, f"\n{type(error).__name__}: {' '.join(str(error).split())}\n".encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        told = stream.read()
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended or not told:
        sys.exit(f"the measurement was killed by signal {-ended}" if ended < 0 else 1)
    return int(told)


def _main(order: str, answer: str) -> None:
    found = []
    for asked, frames in pickle.loads(Path(order).read_bytes()):
        answering = _peak_in_fork(lambda asked=asked: _answer(asked), asked.device)
        run = asked.run
        training = run and _peak_in_fork(lambda run=run, frames=frames: _train(run, frames), asked.device)
        found.append(asdict(Footprint(answering, training)))
    write_json(Path(answer), found)


if __name__ == "__main__":
    _main(*sys.argv[1:])
