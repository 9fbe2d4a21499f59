"""A run's folder: the files that training writes, and reading them to resume.

    run.json                   RunConfig, fingerprints of the data, versions
    log.jsonl                  one JSON object per step and per validation
    state.pt                   trained weights and optimizers after some step: all that resuming needs
    weights_last.safetensors   the trained groups, with the hash of the other weights
    weights_best.safetensors   the same, at the best validation IoU so far
    gradient_audit.json        written last: it marks a finished run

All but the log, which grows by whole lines, are written to a temporary name and renamed. There is no random state to
save: all that is drawn depends on the seed and the number of the sample alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rossam_core import __version__
from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import RUN, atomic_path, read_sealed, remove_partial, write_sealed, write_text
from rossam_core.model.segmenter import PromptableSegmenter
from rossam_core.model.weights import check_weights, save_weights
from rossam_core.records import Frame, fingerprint
from rossam_core.settings import flatten
from rossam_core.training.recipes import GroupName, RunConfig

LOG, STATE, AUDIT = "log.jsonl", "state.pt", "gradient_audit.json"

UNIMPORTANT = ("run.device", "run.training.workers", "run.inference.batch_size", "run.inference.prompt_batch_size")
"""Keys of `run.json` that may differ when a run is resumed."""

OnEvent = Callable[[str, Mapping[str, Any]], None]
"""Called with `step` or `validation` and the new log line, and with `checkpoint` between writing and renaming it."""

Optimizers = Mapping[GroupName, torch.optim.Optimizer]
"""One optimizer for each trained group."""


def weights_file(run_dir: Path, which: str) -> Path:
    """Path of the trained groups' weights; `which` is `best` or `last`."""
    return Path(run_dir) / f"weights_{which}.safetensors"


def is_finished(run_dir: Path) -> bool:
    """Whether the folder holds a run that has ended."""
    return (run_dir / AUDIT).exists()


def check_files(run_dir: Path) -> None:
    """Raise `RossamError` where a file of the run is damaged."""
    read_state(run_dir)
    _log_rows(run_dir)
    if is_finished(run_dir) and not (run_dir / LOG).read_bytes().endswith(b"\n"):
        raise RossamError(run_dir / LOG, "is cut short", "remove the run's folder and start again")
    for path in (run_dir / RUN, run_dir / AUDIT):
        if path.exists():
            read_sealed(path)
    for path in run_dir.glob("weights_*.safetensors"):
        check_weights(path)


def describe(run: RunConfig, train: Sequence[Frame], val: Sequence[Frame] | None) -> dict[str, Any]:
    """What identifies a run: its settings and its data."""
    fingerprints = {"train": fingerprint(train), "val": fingerprint(val) if val is not None else None}
    return {"run": run.model_dump(mode="json"), "data": fingerprints}


def check_same_run(run_dir: Path, description: Mapping[str, Any]) -> None:
    """Raise `RossamError` where the folder holds a run with other settings or data; every difference is listed."""
    path = run_dir / RUN
    if not path.exists():
        return
    stored = read_sealed(path)
    old, new = (dict(flatten({key: v.get(key, {}) for key in description})) for v in (stored, description))
    problems = ProblemList(path)
    for key in sorted({*old, *new} - set(UNIMPORTANT)):
        if old.get(key) != new.get(key):
            problems.add(key, f"the folder's run has {old.get(key)!r}, this one {new.get(key)!r}")
    problems.raise_if_any("choose another folder, remove this one, or ask for the settings it was started with")


def open_run(run_dir: Path, description: Mapping[str, Any]) -> None:
    """Create the folder's `run.json`, or remove temporary files that a killed process left."""
    if not (run_dir / RUN).exists():
        write_sealed(run_dir / RUN, {**description, "version": __version__, "torch": torch.__version__})
    remove_partial(run_dir)


def checkpoint(
    run_dir: Path,
    run: RunConfig,
    model: PromptableSegmenter,
    optimizers: Optimizers,
    state: Mapping[str, Any],
    on_event: OnEvent | None,
) -> None:
    """Replace `state.pt`, all that resuming needs, and the last weights, each atomically."""
    members = model.parameter_groups()
    content = {
        **state,
        "weights": {name: p.detach() for group in run.training.trained_groups for name, p in members[group]},
        "optimizers": {group: optimizer.state_dict() for group, optimizer in optimizers.items()},
    }
    with atomic_path(run_dir / STATE) as temporary:
        with open(temporary, "wb") as stream:
            try:
                torch.save(content, stream)
            except RuntimeError as error:  # torch's writer covers what the disk said
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise
        if on_event:
            on_event("checkpoint", {"step": state["step"]})
    save_trained(model, run_dir, "last", run, {"samples": state["step"] * run.training.batch})


def resume(run_dir: Path, model: PromptableSegmenter, optimizers: Optimizers) -> dict[str, Any]:
    """Load the last checkpoint, if there is one.

    Returns:
        `step` to start from, `best_iou` so far, `touched`: names of parameters that got a gradient.
    """
    state = read_state(run_dir)
    if state is None:
        return {"step": 0, "best_iou": -1.0, "touched": []}
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state["weights"].items():
            parameters[name].copy_(value)
    for group, optimizer in optimizers.items():
        optimizer.load_state_dict(state["optimizers"][group])
    return {key: state[key] for key in ("step", "best_iou", "touched")}


def read_state(run_dir: Path) -> dict[str, Any] | None:
    """The content of `state.pt`, on the CPU; None where there is none."""
    path = run_dir / STATE
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
            if (part := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {part} is another")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise RossamError(path, f"cannot be read ({error})", "remove the run's folder and start again") from error


def save_trained(model: PromptableSegmenter, run_dir: Path, which: str, run: RunConfig, notes: Mapping) -> None:
    """Write the trained groups' weights with the run's settings and `notes` (samples, iou)."""
    metadata = {"run": run.model_dump_json(), **notes}
    save_weights(model, weights_file(run_dir, which), metadata, groups=run.training.trained_groups)


def append_log(run_dir: Path, row: Mapping[str, Any], on_event: OnEvent | None) -> None:
    """Add one line to the log, and report it."""
    try:
        with open(run_dir / LOG, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
    except OSError as error:
        remedy = "free some disk space, and start the same command again"
        raise RossamError(run_dir / LOG, f"cannot be written: {error.strerror}", remedy) from error
    if on_event:
        on_event(row["kind"], row)


def cut_log(run_dir: Path, step: int) -> None:
    """Remove lines after `step`, for resuming, and an incomplete last line."""
    rows = [row for row in _log_rows(run_dir) if row["step"] <= step]
    write_text(run_dir / LOG, "".join(json.dumps(row) + "\n" for row in rows))


def read_log(run_dir: str | os.PathLike) -> pd.DataFrame:
    """The log: one row per step (`kind` = `step`) and per validation (`kind` = `validation`)."""
    return pd.DataFrame(_log_rows(Path(run_dir)))


def digests(model: PromptableSegmenter) -> dict[str, str]:
    """Name → hash of each parameter's bytes."""
    return {
        name: hashlib.blake2b(p.detach().cpu().contiguous().view(torch.uint8).numpy(), digest_size=16).hexdigest()
        for name, p in model.named_parameters()
    }


def gradient_audit(
    model: PromptableSegmenter, run: RunConfig, before: Mapping[str, str], touched: set[str]
) -> dict[str, dict[str, Any]]:
    """Count per group which parameters got a gradient and changed: whether it is `trained`, `elements`, and numbers of
    tensors: `parameters`, `got_gradient`, `changed`.

    Args:
        before: `digests` of the base.
        touched: names of parameters that got a gradient other than zero in any step.
    """
    after = digests(model)
    return {
        group: {
            "trained": group in run.training.trained_groups,
            "elements": sum(parameter.numel() for _, parameter in members),
            "parameters": len(members),
            "got_gradient": sum(name in touched for name, _ in members),
            "changed": sum(before[name] != after[name] for name, _ in members),
        }
        for group, members in model.parameter_groups().items()
        if members
    }


def _log_rows(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / LOG
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]  # what follows the last line break is incomplete
    except ValueError as error:
        raise RossamError(path, f"is damaged ({error})", "remove the run's folder and start again") from error
