"""A run's folder: what is written while a network trains, and how a killed run finds its place again.

    run.json                   RunConfig, fingerprints of the data, digest of the source
    log.jsonl                  one line a step and one a validation
    state.pt                   trained weights and optimizers after some step: all that resuming needs
    weights_last.safetensors   the trained groups, with the hash of what they sit on
    weights_best.safetensors   the same, at the best validation IoU so far
    gradient_audit.json        written last: a folder that has it holds a finished run

Every file appears whole or not at all. There is no random state to keep: all that is drawn depends on the seed
and the number of the sample alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rossam_core import __version__
from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import atomic_path, read_json, write_json, write_text
from rossam_core.model.build import PromptableSegmenter, build_from_run, build_model
from rossam_core.model.weights import save_weights
from rossam_core.records import FrameSet
from rossam_core.training.recipes import RunConfig

RUN, LOG, STATE, AUDIT = "run.json", "log.jsonl", "state.pt", "gradient_audit.json"

UNIMPORTANT = ("run.device", "run.training.workers", "run.inference.batch_size", "run.inference.prompt_batch_size")
"""Keys of `run.json` that may differ when a run is resumed."""

OnEvent = Callable[[str, Mapping[str, Any]], None]
"""Called with `step` or `validation` and the new log line, and with `checkpoint` between writing and renaming it."""


def weights_file(run_dir: Path, which: str) -> Path:
    """Path of the trained groups' weights; `which` is `best` or `last`."""
    return Path(run_dir) / f"weights_{which}.safetensors"


def is_finished(run_dir: Path) -> bool:
    """Whether the folder holds a run that has ended."""
    return (run_dir / AUDIT).exists()


def build_base(run: RunConfig) -> PromptableSegmenter:
    """The network a run starts from: with adapters where the run trains them."""
    training = run.training
    return build_model(
        run.method,
        run.backbone,
        run.checkpoint,
        adapter=training.adapter if "lora" in training.trained_groups else None,
        lora_rank=training.lora_rank,
        hq_decoder=training.hq_decoder,
        fresh_hq_head=training.fresh_hq_head,
        for_training=True,
        seed=training.seed,
        **run.architecture,
    )


def load_run(run_dir: str | os.PathLike, which: str = "best") -> PromptableSegmenter:
    """The network a run has trained: its base with the trained groups on top, in `eval` mode.

    Args:
        which: `best` (validation IoU) or `last`.

    Raises:
        RossamError: no run there, or a base that is not the one the groups were trained on.
    """
    return build_from_run(run_dir, which)


def describe(run: RunConfig, train: FrameSet, val: FrameSet | None) -> dict[str, Any]:
    """What makes a run this one and no other: its settings and its data."""
    fingerprints = {"train": train.fingerprint(), "val": val.fingerprint() if val is not None else None}
    return {"run": run.model_dump(mode="json"), "data": fingerprints}


def check_same_run(run_dir: Path, told: Mapping[str, Any]) -> None:
    """Make sure that the run in the folder, if there is one, is the one `told` describes.

    Raises:
        RossamError: it has other settings or data; every difference is listed.
    """
    path = run_dir / RUN
    if not path.exists():
        return
    problems = ProblemList(path)
    for key, (old, new) in _differences(read_json(path), told).items():
        problems.add(key, f"the folder's run has {old!r}, this one {new!r}")
    problems.raise_if_any("choose another folder, remove this one, or ask for the settings it was started with")


def open_run(run_dir: Path, told: Mapping[str, Any]) -> None:
    """Start a folder, or clear away what a killed writer left in it."""
    if not (run_dir / RUN).exists():
        write_json(run_dir / RUN, {**told, "version": __version__, "torch": torch.__version__})
    for leftover in [*run_dir.glob(".state-*"), *run_dir.glob(".weights_*"), *run_dir.glob(".log-*")]:
        leftover.unlink()


def write_state(run_dir: Path, state: Mapping[str, Any], on_event: OnEvent) -> None:
    """Replace `state.pt`; until the new one is safely on the disk, the old one stands."""
    with atomic_path(run_dir / STATE) as temporary:
        with open(temporary, "wb") as stream:
            torch.save(dict(state), stream)
            stream.flush()
            os.fsync(stream.fileno())
        on_event("checkpoint", {"step": state["step"]})


def read_state(run_dir: Path) -> dict[str, Any] | None:
    """What `write_state` last wrote, on the CPU; None where there is none."""
    path = run_dir / STATE
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise RossamError(path, f"cannot be read ({error})", "remove the run's folder and start again") from error


def save_trained(model: PromptableSegmenter, run_dir: Path, which: str, run: RunConfig, notes: Mapping) -> None:
    """Write the trained groups' weights with the run's settings and `notes` (samples, iou)."""
    metadata = {"run": run.model_dump_json(), **{key: str(value) for key, value in notes.items()}}
    save_weights(model, weights_file(run_dir, which), metadata, groups=run.training.trained_groups)


def append_log(run_dir: Path, row: Mapping[str, Any]) -> None:
    """Add one line to the log."""
    with open(run_dir / LOG, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def cut_log(run_dir: Path, step: int) -> None:
    """Forget lines after `step`, which a resumed run writes anew, and a last line that was cut short."""
    rows = [row for row in _log_rows(run_dir) if row["step"] <= step]
    write_text(run_dir / LOG, "".join(json.dumps(row) + "\n" for row in rows))


def read_log(run_dir: str | os.PathLike) -> pd.DataFrame:
    """The log so far: a row a step (`kind` = `step`) or validation (`kind` = `validation`)."""
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
    """Group → what became of its parameters.

    Args:
        before: `digests` of the base.
        touched: names of parameters that got a gradient other than zero in any step.

    Returns:
        For each group that the model has: `trained` (named by a phase), `elements`, and numbers of tensors:
        `parameters`, `got_gradient`, `changed`.
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
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # what follows the last line break was cut short


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key → old and new value, over the keys of `new`, without those that change no weights."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(set(new) | (set(old) if prefix else set())):
        dotted, a, b = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= _differences(a, b, f"{dotted}.")
        elif a != b and dotted not in UNIMPORTANT:
            found[dotted] = (a, b)
    return found
