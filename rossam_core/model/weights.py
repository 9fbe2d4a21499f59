"""Weights in and out: SAM's, HQ-SAM's and SAM2's in the forms people have them (`weight_files`), and ours, strictly.

In: a model and a file. Out: the model filled, or one error that lists all that does not fit, the model untouched.
Names on disk are the checkpoints' own, with Q, K and V apart (`attn.qkv` is split on load) and without what peft
puts between (`base_layer`, the adapter's name).
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pooch
import torch
import yaml
from safetensors.torch import save as serialize
from torch import Tensor
from torch.nn import functional as F

from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import DOWNLOADS, checkpoint_path, write_bytes
from rossam_core.model.sam import ARCHITECTURES
from rossam_core.model.sam2 import HIERAS
from rossam_core.model.sam2_keys import from_official
from rossam_core.model.sam_keys import from_transformers
from rossam_core.model.weight_files import read_weights

if TYPE_CHECKING:
    from rossam_core.model.build import PromptableSegmenter

_WEIGHTS = Path(__file__).parent.parent / "weights"
SHIPPED = {"vit_t": _WEIGHTS / "vit_t.safetensors", "hiera_t": _WEIGHTS / "hiera_t.safetensors"}
"""Priors that come with the package: `vit_t` holds SAM's weights and an HQ head, `hiera_t` SAM2's."""


@dataclass(frozen=True)
class OfficialFile:
    """A checkpoint its authors publish."""

    fetch_name: str
    """What `rossam fetch` calls it."""
    backbone: str
    hq: bool
    """Whether it holds HQ-SAM's head."""
    name: str
    url: str
    known_hash: str
    """Algorithm and hex digest, e.g. `sha256:ec2d…`."""


@functools.cache
def official_files() -> tuple[OfficialFile, ...]:
    """The checkpoints of `DOWNLOADS`, in its order."""
    files = []
    for fetch_name, entry in yaml.safe_load(DOWNLOADS.read_text(encoding="utf-8")).items():
        if "backbone" in entry:
            (file,) = entry["files"]
            algorithm = "sha256" if "sha256" in file else "md5"
            known_hash = f"{algorithm}:{file[algorithm]}"
            hq = entry.get("hq", False)
            files.append(OfficialFile(fetch_name, entry["backbone"], hq, file["name"], file["urls"][0], known_hash))
    return tuple(files)


def default_checkpoint(backbone: str, hq: bool) -> Path:
    """The prior of `backbone`: shipped with the package, or the official file, fetched into the cache if absent.

    Args:
        hq: HQ-SAM's file rather than SAM's (a shipped prior holds both).

    Raises:
        RossamError: the prior is not there and cannot be fetched; it says what to place where.
    """
    if backbone in SHIPPED:
        path = SHIPPED[backbone]
        if not path.is_file():
            raise RossamError(
                path,
                f"the prior of {backbone} that ships with the package is not there",
                "install the package anew, or name another checkpoint",
            )
        return path
    official = next((file for file in official_files() if (file.backbone, file.hq) == (backbone, hq)), None)
    if official is None:
        raise RossamError(f"backbone {backbone}", "has no default checkpoint", "name a weights file")
    path = checkpoint_path(official.name)
    if path.is_file():
        return path
    try:
        return Path(pooch.retrieve(official.url, official.known_hash, official.name, path.parent, progressbar=True))
    except (OSError, ValueError) as error:  # no network, no space, no such page; or another hash
        raise RossamError(
            path,
            f"is not in the cache and cannot be fetched ({type(error).__name__}: {error})",
            f"run `rossam fetch {official.fetch_name}`, which resumes what breaks off; or download "
            f"{official.url} ({official.known_hash}) elsewhere and place it at {path}; "
            "the environment variable ROSSAM_CACHE names another cache folder",
        ) from error


def load_checkpoint(
    model: PromptableSegmenter,
    path: str | os.PathLike,
    *,
    allow_missing: Collection[str] = (),
    ignore: Collection[str] = (),
    resize_positions: bool = False,
) -> dict[str, str]:
    """Fill `model` from a file; nothing is changed unless everything fits.

    Args:
        path: a `.safetensors` of ours, an official `.pth` or `.pt` (its hash is checked where the file's name is
            known), a trainer's checkpoint, or a Hugging Face folder or file. What is stored in half precision becomes
            the model's.
        allow_missing: parameter groups the file may lack altogether; they stay as they are.
        ignore: parameter groups of the file to leave aside, e.g. `("hq_head",)` for a plain SAM from HQ-SAM's file.
        resize_positions: interpolate position embeddings to the model's input size where they differ.

    Returns:
        The file's metadata; empty for a `.pth`; of an official SAM2 file `ignored_video_memory`, the number of its
        tensors that single images do not need. A file that declares itself partial (`groups`) brings those groups
        only, and must have been saved on top of the very weights the model holds in the others.

    Raises:
        RossamError: missing or truncated file, wrong hash, no weights, another backbone, or any number of missing,
            unexpected and misshapen names and of tensors that are not finite, all at once.
    """
    path = Path(path)
    found, metadata = _read(path, model)
    if "left_aside" in metadata:
        warnings.warn(f"{path}: left aside {metadata['left_aside']}", stacklevel=2)
    found = {name: value for name, value in found.items() if model.group_of(name) not in ignore}
    own = _named_state(model)
    _check_backbone(path, model, found, metadata)
    if "sits_on" in metadata:
        brought = metadata["groups"].split(",")
        allow_missing = {model.group_of(name) for name in own} - set(brought)
        _check_foundation(path, model, brought, metadata["sits_on"])
    if resize_positions:
        found = {name: _resize_positions(name, value, own.get(name)) for name, value in found.items()}
    _check_names(path, model, own, found, set(allow_missing))
    with torch.no_grad():
        for name, value in found.items():
            own[name].copy_(value)
    return metadata


def save_weights(
    model: PromptableSegmenter,
    path: str | os.PathLike,
    metadata: Mapping[str, object] | None = None,
    *,
    groups: Collection[str] | None = None,
    half: bool = False,
) -> None:
    """Write `model` as safetensors, atomically.

    Args:
        metadata: what to keep with the weights, as strings; method, backbone and the groups' foundation are added.
        groups: only these parameter groups (adapters and what trained with them); the file then records the hash
            of the remaining groups, and loads only on top of the same. None: everything.
        half: store parameters as float16; buffers keep their precision.

    Raises:
        RossamError: a group with nothing in it, or a path that cannot be written.
    """
    named = {
        name: value for name, value in _named_state(model).items() if groups is None or model.group_of(name) in groups
    }
    notes = {
        **{key: str(value) for key, value in (metadata or {}).items()},
        "method": model.method,
        "backbone": model.backbone,
    }
    if groups is not None:
        empty = set(groups) - {model.group_of(name) for name in named}
        if empty:
            raise RossamError(path, f"groups {', '.join(sorted(empty))} hold nothing to save", "name groups that exist")
        notes["groups"] = ",".join(sorted(groups))
        notes["sits_on"] = weights_hash(model, without=groups)
    buffers = {name for name, _ in model.named_buffers()}
    tensors = {
        name: (value.half() if half and name not in buffers else value).contiguous() for name, value in named.items()
    }
    write_bytes(path, serialize(tensors, metadata=notes))


def weights_hash(model: PromptableSegmenter, *, without: Collection[str] = ()) -> str:
    """Hex SHA-256 over names, types, shapes and bytes of all weights but those of the groups in `without`."""
    digest = hashlib.sha256()
    for name, value in sorted(_named_state(model).items()):
        if model.group_of(name) not in without:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _named_state(model: PromptableSegmenter) -> dict[str, Tensor]:
    """The model's own tensors under the names they have on disk."""
    return {_without_peft(name): value for name, value in model.state_dict().items()}


def _without_peft(name: str) -> str:
    return name.replace(".base_layer.", ".").replace(".default.", ".")


def _read(path: Path, model: PromptableSegmenter) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by our names, and metadata."""
    _check_hash(path)
    state, metadata = read_weights(path)
    state = {_without_peft(name): value for name, value in state.items()}
    own = _named_state(model)
    if model.method == "sam2":
        found, ignored = from_official(state, own)
        return found, metadata | ({"ignored_video_memory": str(ignored)} if ignored else {})
    if "vision_encoder.patch_embed.projection.weight" in state:
        state = from_transformers(state, {_QKV.sub(r"\1.qkv.", name) for name in own})
    return _split_qkv(state), metadata


def _check_hash(path: Path) -> None:
    official = next((file for file in official_files() if file.name == path.name), None)
    if official is None or not path.is_file():
        return
    algorithm, expected = official.known_hash.split(":")
    with open(path, "rb") as stream:
        measured = hashlib.file_digest(stream, algorithm).hexdigest()
    if measured != expected:
        raise RossamError(
            path,
            f"{algorithm} is {measured}, expected {expected} ({path.stat().st_size:,} bytes); truncated or changed",
            f"fetch {official.url} again, or give a file of your own another name",
        )


def _split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`attn.qkv.*` -> `attn.q_proj.*`, `attn.k_proj.*`, `attn.v_proj.*`."""
    split = {}
    for name, value in state.items():
        if ".attn.qkv." in name:
            for letter, part in zip("qkv", value.chunk(3), strict=False):
                split[name.replace(".qkv.", f".{letter}_proj.")] = part
        else:
            split[name] = value
    return split


_QKV = re.compile(r"^(image_encoder\..*\.attn)\.[qkv]_proj\.")
_PATCHES = re.compile(r"(?:image|vision)_encoder(?:\.trunk|\.backbone)?\.patch_embed\.proj(?:ection)?\.weight")
_BLOCK = re.compile(r"(?:image|vision)_encoder(?:\.trunk|\.backbone)?\.(?:blocks|layers)\.(\d+)\.")
_TINY_VIT = "image_encoder.patch_embed.seq.0.c.weight"


def _check_backbone(path: Path, model: PromptableSegmenter, found: Mapping[str, Tensor], metadata: Mapping) -> None:
    patches = next((value for name, value in found.items() if _PATCHES.fullmatch(name)), None)
    if _TINY_VIT in found:
        found_text = "this is MobileSAM or Light HQ-SAM (TinyViT), which the kit does not have"
    elif patches is None:  # a partial file says so itself
        name = metadata.get("backbone", model.backbone)
        if name == model.backbone:
            return
        found_text = f"this is for {name}"
    else:
        blocks = {match[1] for match in map(_BLOCK.match, found) if match}
        theirs = (len(patches), len(blocks))
        if theirs == (model.arch.dim, model.arch.depth):
            return
        known = {**ARCHITECTURES, **HIERAS}
        name = next((key for key, arch in known.items() if (arch.dim, arch.depth) == theirs), "none we know")
        found_text = f"this looks like {name}: dim {theirs[0]}, depth {theirs[1]}"
    raise RossamError(
        path,
        f"{found_text}; the model is {model.backbone}: dim {model.arch.dim}, depth {model.arch.depth}",
        "build the model with the checkpoint's backbone, or choose another checkpoint",
    )


def _check_foundation(path: Path, model: PromptableSegmenter, brought: list[str], expected: str) -> None:
    measured = weights_hash(model, without=brought)
    if measured != expected:
        raise RossamError(
            path,
            f"holds {', '.join(brought)} that sit on weights {expected[:12]}…; the model holds {measured[:12]}…",
            "load the checkpoint these were trained on first",
        )


def _check_names(
    path: Path, model: PromptableSegmenter, own: Mapping[str, Tensor], found: Mapping[str, Tensor], may_lack: set[str]
) -> None:
    present = {model.group_of(name) for name in found}
    missing = [name for name in own if name not in found and model.group_of(name) not in may_lack - present]
    unexpected = [name for name in found if name not in own]
    misshapen = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in found and found[name].shape != own[name].shape
    ]
    quantised = [name for name in own if name in found and not found[name].is_floating_point()]
    infinite = [name for name in own if name in found and not found[name].isfinite().all()]
    problems = ProblemList(path)
    for kind, names in (
        *(("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)),
        *(("stored as whole numbers (quantised)", quantised), ("NaN or infinite", infinite)),
    ):
        if names:
            problems.add(f"{kind} ({len(names)})", _some(names))
    if infinite and len(problems) == 1:
        problems.raise_if_any("the training that wrote them has diverged, or the file is damaged: take an earlier one")
    problems.raise_if_any(_remedy(model, missing, unexpected, misshapen))


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f", and {len(names) - 6} more" if len(names) > 6 else "")


def _remedy(model: PromptableSegmenter, missing: list[str], unexpected: list[str], misshapen: list[str]) -> str:
    groups = {model.group_of(name) for name in missing + unexpected}
    if groups == {"hq_head"} and not misshapen:
        if missing:
            return f"this is a plain SAM: use it with method sam, or take HQ-SAM's file of {model.backbone}"
        return f"this holds HQ-SAM's head, too: use it with method hq-sam, or take SAM's file of {model.backbone}"
    remedy = f"this model is {model.method} {model.backbone}; choose a checkpoint of the same"
    if any(name.startswith("image_encoder.pos_embed is") for name in misshapen):
        remedy += "; for another input size, set model.architecture={input_size: SIDE}, and positions are interpolated"
    return remedy


def _resize_positions(name: str, value: Tensor, own: Tensor | None) -> Tensor:
    """Position embeddings at the model's size; any other tensor as it is."""
    if own is None or value.shape == own.shape:
        return value
    if name == "image_encoder.pos_embed":  # 1×H×W×C
        grid = value.float().permute(0, 3, 1, 2)
        return F.interpolate(grid, own.shape[1:3], mode="bicubic", antialias=True).permute(0, 2, 3, 1)
    if name.endswith((".rel_pos_h", ".rel_pos_w")):  # L×C
        line = value.float().T[None]
        return F.interpolate(line, len(own), mode="linear")[0].T
    return value
