"""Weights files of any origin: official ones, trainers' checkpoints, Hugging Face folders, safetensors.

The result is the tensors of the one network in a file, without the prefixes of wrappers, or an error that says what
the file is instead. Only tensors and plain values are unpickled, so that no file can run code.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import pathlib
import pickle
import re
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rossam_core.errors import RossamError
from rossam_core.files import read_json

SAVE = 'with `torch.save(model.state_dict(), "weights.pth")`'
"""How weights are saved so that every program can load them."""
HUGGING_FACE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The weights in a folder that transformers' `save_pretrained` makes; an index names the files of a split one."""
HARMLESS = [
    *(argparse.Namespace, types.SimpleNamespace, collections.defaultdict, list, dict, frozenset),
    *(datetime.datetime, datetime.date, datetime.timedelta, datetime.timezone, slice, range),
    *((pathlib.PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((pathlib.PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
    *(np.ndarray, np.dtype, *{type(np.dtype(code)) for code in np.typecodes["All"]}),
    *(
        (getattr(np._core.multiarray, name), f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
]
"""Types that trainers keep beside weights; making one of them runs no code of the file's."""
WEIGHTS_KEYS = (
    *("state_dict", "model_state_dict", "model_state", "model", "module", "network", "net", "sam", "weights", "params"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model", "params_ema"),
)
"""Where trainers put the weights in what they save, the weights themselves before their moving average."""
PARTS = ("image_encoder", "vision_encoder", "prompt_encoder", "mask_decoder")
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Segments that DDP, torch.compile, FSDP and activation checkpointing put into names."""
_PREFIX = re.compile(rf"((?:[^.]+\.)*?)(?:(?:sam_)?(?:{'|'.join(PARTS)})|shared_image_embedding|memory_attention)\.")
_OTHER_FILES = (  # first bytes, what it is, what to do
    (
        b"version https://git-lfs",
        "is a git-lfs pointer, a text that stands for the weights",
        "run `git lfs pull` there",
    ),
    (b"<", "is a web page, not weights", "open the address in a browser and download the file itself"),
    (b"{", "is JSON text, not weights", "download the file itself; this may be a server's error message"),
    (b"\x1f\x8b", "is a gzip archive, not weights", "unpack it and name the file in it"),
    (b"\x89HDF", "is HDF5 (Keras), not PyTorch", "name the PyTorch weights"),
)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of the network in a file or Hugging Face folder, and the file's notes.

    Returns:
        The tensors as they are stored, and the metadata of a `.safetensors`; of a trainer's checkpoint `ignored`,
        what it holds besides that could be weights too.

    Raises:
        RossamError: no such file, damaged, no weights, more than one network, or objects that are not unpickled.
    """
    if path.is_dir():
        parts = [_read_file(file) for file in _files_in(path)]
        return _without_wrappers(path, {name: value for state, _ in parts for name, value in state.items()}, {})
    if not path.is_file():
        raise RossamError(
            path, "no such file", "name a weights file (.safetensors, .pth) or a fine-tuning run's folder"
        )
    return _without_wrappers(path, *_read_file(path))


def _files_in(folder: Path) -> list[Path]:
    """The weights files of a Hugging Face folder."""
    file = next((folder / name for name in HUGGING_FACE if (folder / name).is_file()), None)
    if file is None:
        holds = sorted(path.name for path in folder.iterdir())
        if "adapter_config.json" in holds:
            remedy = "join them with their network (`merge_and_unload()` of peft) and save that"
            raise RossamError(folder, "holds adapters of peft alone, without their network", remedy)
        if ".metadata" in holds:  # torch.distributed.checkpoint, DeepSpeed's and FSDP's
            remedy = "join it with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR weights.pth`"
            raise RossamError(folder, "is a distributed checkpoint, whose weights are split over processes", remedy)
        found = f"holds {', '.join(holds[:5]) or 'nothing'}{', …' if len(holds) > 5 else ''}"
        raise RossamError(
            folder,
            f"{found}; neither a fine-tuning run (run.json) nor a Hugging Face folder (model.safetensors)",
            "name the folder of a run or of a model, or one weights file",
        )
    if file.suffix != ".json":
        return [file]
    names = sorted(set(read_json(file).get("weight_map", {}).values()))
    if missing := [name for name in names if not (folder / name).is_file()] or ([] if names else ["all files"]):
        raise RossamError(file, f"the weights that it names are not there: {', '.join(missing)}", "fetch them as well")
    return [folder / name for name in names]


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Named tensors and notes of one file, whose kind is seen in its first bytes."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise RossamError(path, f"cannot be read ({error.strerror})", "name a file that you may read") from error
    size = path.stat().st_size
    if not head:
        raise RossamError(path, "is empty (0 bytes)", "fetch or copy the file again")
    cut = RossamError(path, f"is cut off or damaged ({size:,} bytes)", "fetch or copy the file again")
    for start, found, remedy in _OTHER_FILES:
        if head.lstrip().startswith(start):
            raise RossamError(path, found, remedy)
    if head[8:9] == b"{":  # safetensors: the length of a JSON header, the header
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise cut from error
    if head.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            raise cut
        _check_archive(path)
    elif head[:1] != b"\x80":
        raise RossamError(
            path, f"is no PyTorch or safetensors file (it begins with {head[:8]!r})", "name a weights file"
        )
    elif head[1:2] > b"\2":  # torch.save's own old format is protocol 2
        raise RossamError(path, "is a plain pickle, which may run code when it is loaded", f"save the weights {SAVE}")
    return _unwrap(path, _unpickle(path, cut))


def _check_archive(path: Path) -> None:
    """Raise `RossamError` for a zip archive that `torch.save` did not write."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        remedy = f"load it by `torch.jit.load` and save its weights {SAVE}"
        raise RossamError(path, "is a TorchScript program, not its weights", remedy)
    if not any(name.endswith("data.pkl") for name in names):
        found = f"is a zip archive that holds {', '.join(names[:3]) or 'nothing'}, not PyTorch weights"
        raise RossamError(path, found, "unpack it and name the weights file in it")


def _unpickle(path: Path, cut: RossamError) -> Any:
    """What `torch.save` wrote, as far as it is tensors, plain values and `HARMLESS`; `cut` is raised for damage."""
    try:
        with torch.serialization.safe_globals(HARMLESS), open(path, "rb") as stream:  # torch would go by the suffix
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        kinds = re.findall(r"GLOBAL ([\w.]+\.\w+)", str(error))[:1]
        with contextlib.suppress(ValueError), torch.serialization.safe_globals(HARMLESS):  # ValueError: the old format
            kinds = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) or kinds
        if not kinds:
            raise cut from error
        named = f" ({', '.join(kinds[:3])}{', …' if len(kinds) > 3 else ''})"
        found = f"holds objects{named} besides tensors, which are not loaded, since unpickling them may run code"
        if any(kind.startswith("torch.nn.modules.") for kind in kinds):
            found = f"is a whole pickled model{named}, not its weights; unpickling it may run code"
        remedy = f"in the program that made it, save the weights alone {SAVE}"
        raise RossamError(path, found, remedy) from None  # torch's text recommends unsafe ways, in escape codes
    except Exception as error:  # damaged pickles raise anything
        raise cut from error


def _unwrap(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict in what a trainer saved, and a note of what else in it could be one."""
    if not isinstance(content, Mapping):
        remedy = f"save the weights alone {SAVE}"
        raise RossamError(path, f"holds a {type(content).__name__}, expected tensors by name", remedy)
    if {"state", "param_groups"} <= content.keys():
        raise RossamError(path, "is the state of an optimizer, not weights", "name the weights saved beside it")
    nested = {key: value for key, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)}
    named = [key for key in WEIGHTS_KEYS if key in nested]
    if not named and set(nested) & set(PARTS):  # each part's own state dict
        return {f"{part}.{name}": v for part, state in nested.items() for name, v in state.items()}, {}
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    named = named or ([] if tensors else list(nested))
    if (len(named) > 1 and named[0] not in WEIGHTS_KEYS) or not (named or tensors):
        keys = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise RossamError(path, f"holds {keys}; which of it is the weights is unclear", f"save them alone {SAVE}")
    if not named:
        return tensors, {}
    state, notes = _unwrap(path, nested[named[0]])
    return state, {"ignored": ", ".join(named[1:])} | notes if named[1:] else notes


def _has_tensors(state: Mapping) -> bool:
    """Whether a mapping holds tensors by name, itself or one level below."""
    values = [*state.values(), *(v for inner in state.values() if isinstance(inner, Mapping) for v in inner.values())]
    return all(isinstance(key, str) for key in state) and any(isinstance(value, Tensor) for value in values)


def _without_wrappers(
    path: Path, state: Mapping[str, Tensor], notes: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Names that begin with a network's parts: without wrappers' segments and without what stands before the parts.

    What does not share the prefix, such as a loss's buffers in a Lightning checkpoint, is left aside and noted.
    """
    plain = {".".join(s for s in name.split(".") if s not in WRAPPERS): value for name, value in state.items()}
    plain.pop("n_averaged", None)  # torch's AveragedModel counts its updates in it
    prefixes = list(dict.fromkeys(match[1] for match in map(_PREFIX.match, plain) if match))
    if any(prefix.startswith("tracker_model.") for prefix in prefixes):  # the whole SAM 3, see `sam2_keys.from_sam3`
        return plain, dict(notes)
    if any(name.startswith("detector.backbone.") for name in plain):
        remedy = "take model.safetensors of the same publisher instead (`rossam fetch sam3` says how)"
        raise RossamError(path, "is SAM 3 under its authors' own names (sam3.pt), which are not read here", remedy)
    if len(prefixes) > 1:
        found = f"holds {len(prefixes)} networks, below {', '.join(prefix or '(no prefix)' for prefix in prefixes)}"
        raise RossamError(path, found, f"save one of them alone {SAVE}")
    if not prefixes:
        names = ", ".join(list(plain)[:3]) or "nothing"
        found = f"holds another kind of network than SAM, HQ-SAM, SAM2 and SAM 3: its tensors are {names}"
        raise RossamError(path, f"{found}{', …' if len(plain) > 3 else ''}", "name weights of such a network")
    if not any(prefixes):
        return plain, dict(notes)
    prefix = prefixes[0]
    others = [name for name in plain if not name.startswith(prefix)]
    aside = ", ".join(filter(None, (notes.get("ignored"), *others)))
    found = {name.removeprefix(prefix): value for name, value in plain.items() if name.startswith(prefix)}
    return found, {**notes, **({"ignored": aside} if aside else {})}
