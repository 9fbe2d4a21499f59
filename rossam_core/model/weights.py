"""Weights in and out: default checkpoints, loading that checks every name and shape, saving of parameter groups.

Names on disk are the official checkpoints', with Q, K and V apart (`attn.qkv` is split on load) and without what peft
inserts (`base_layer`, the adapter's name). SAM2's and SAM 3's are transformers', see `sam2_keys`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import os
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pooch
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import Tensor
from torch.nn import functional as F

from rossam_core import model as core_model
from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import DOWNLOADS, checkpoint_path, write_bytes
from rossam_core.model.sam import ARCHITECTURES
from rossam_core.model.sam2_keys import from_official, from_sam3

if TYPE_CHECKING:
    from rossam_core.model.segmenter import PromptableSegmenter

_WEIGHTS = Path(__file__).parent.parent / "weights"
SHIPPED = {"vit_t": _WEIGHTS / "vit_t.safetensors", "hiera_t": _WEIGHTS / "hiera_t.safetensors"}
"""Priors that come with the package: `vit_t` holds SAM's weights and an HQ head, `hiera_t` SAM2's."""
_QKV = re.compile(r"^(image_encoder\..*\.attn)\.[qkv]_proj\.")
_ENCODER = r"(?:image|vision)_encoder(?:\.trunk|\.backbone)?"
_PATCHES = re.compile(rf"{_ENCODER}\.(?:patch_embed\.proj(?:ection)?|embeddings\.patch_embeddings\.projection)\.weight")
_BLOCK = re.compile(rf"{_ENCODER}\.(?:blocks|layers)\.(\d+)\.")
_TINY_VIT = "image_encoder.patch_embed.seq.0.c.weight"


class OfficialFile(NamedTuple):
    """A checkpoint published by its authors: an entry of `files.DOWNLOADS`."""

    fetch_name: str  # for `rossam fetch`
    backbone: str
    hq: bool  # whether it holds HQ-SAM's head
    name: str
    url: str  # empty where it is got by hand
    known_hash: str  # algorithm and hex digest, e.g. `sha256:ec2d…`; empty where it is not known


@functools.cache
def official_files() -> tuple[OfficialFile, ...]:
    """The checkpoints of `DOWNLOADS`, in its order."""
    files = []
    for fetch_name, entry in yaml.safe_load(DOWNLOADS.read_text(encoding="utf-8")).items():
        if "backbone" in entry:
            (file,) = entry["files"]
            known_hash = next((f"{kind}:{file[kind]}" for kind in ("sha256", "md5") if kind in file), "")
            url, hq = file.get("urls", [""])[0], entry.get("hq", False)
            files.append(OfficialFile(fetch_name, entry["backbone"], hq, file["name"], url, known_hash))
    return tuple(files)


def default_checkpoint(backbone: str, hq: bool) -> Path:
    """The prior of `backbone`: shipped with the package, or the official file, downloaded into the cache if absent.

    Args:
        hq: HQ-SAM's file rather than SAM's (a shipped prior holds both).

    Raises:
        RossamError: the prior is missing and cannot be downloaded; the message says what to place where.
    """
    if backbone in SHIPPED:
        return SHIPPED[backbone]
    official = next(file for file in official_files() if (file.backbone, file.hq) == (backbone, hq))
    path = checkpoint_path(official.name)
    if path.is_file():
        return path
    if not official.url:
        finding = "is not in the cache, and its authors give it only to those who accept its licence"
        raise RossamError(path, finding, f"get it by the steps that `rossam fetch {official.fetch_name}` prints")
    try:
        return Path(pooch.retrieve(official.url, official.known_hash, official.name, path.parent, progressbar=True))
    except (OSError, ValueError) as error:  # no network, no space, no such page; or another hash
        raise RossamError(
            path,
            f"is not in the cache and cannot be fetched ({type(error).__name__}: {error})",
            f"run `rossam fetch {official.fetch_name}`, which resumes a broken download; or download {official.url} "
            f"({official.known_hash}) elsewhere and place it there (ROSSAM_CACHE names another cache folder)",
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
            known), or what `model.checkpoint_reader` reads. Half precision becomes the model's precision.
        allow_missing: parameter groups the file may lack entirely; they keep their weights.
        ignore: parameter groups of the file to skip, e.g. `("hq_head",)` for a plain SAM from HQ-SAM's file.
        resize_positions: interpolate position embeddings to the model's input size where they differ.

    Returns:
        The file's metadata; empty for a `.pth`. A file that declares itself partial (`groups`) contains those groups
        only, and must have been saved on top of exactly the weights that the model has in the others.

    Raises:
        RossamError: missing or truncated file, wrong hash, no weights, another backbone, or a list of all names that
            are missing, unexpected or misshapen and of tensors that are not finite.
    """
    path = Path(path)
    tensors, metadata = _read(path, model)
    if "ignored" in metadata:
        warnings.warn(f"{path}: ignored {metadata['ignored']}", stacklevel=2)
    tensors = {name: value for name, value in tensors.items() if model.group_of(name) not in ignore}
    own = _named_state(model)
    _check_backbone(path, model, tensors, metadata)
    if "sits_on" in metadata:
        groups, expected = metadata["groups"].split(","), metadata["sits_on"]
        allow_missing = {model.group_of(name) for name in own} - set(groups)
        if (measured := weights_hash(model, without=groups)) != expected:
            finding = f"{', '.join(groups)} were trained on weights {expected[:12]}…; the model has {measured[:12]}…"
            raise RossamError(path, finding, "load the checkpoint these were trained on first")
    if resize_positions:
        tensors = {name: _resize_positions(name, value, own.get(name)) for name, value in tensors.items()}
    _check_names(path, model, own, tensors, set(allow_missing))
    with torch.no_grad():
        for name, value in tensors.items():
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
        metadata: stored with the weights, as strings; method, backbone and the groups' foundation are added.
        groups: only these parameter groups (adapters and what trained with them); the file then records the hash
            of the remaining groups, and loads only on top of the same. None: everything.
        half: store parameters as float16; buffers keep their precision.

    Raises:
        RossamError: a group with nothing in it, or a path that cannot be written.
    """
    state = _named_state(model)
    notes = {key: str(value) for key, value in (metadata or {}).items()}
    notes |= {"method": model.method, "backbone": model.backbone}
    if groups is not None:
        state = {name: value for name, value in state.items() if model.group_of(name) in groups}
        if empty := set(groups) - {model.group_of(name) for name in state}:
            raise RossamError(path, f"groups {', '.join(sorted(empty))} hold nothing to save", "name groups that exist")
        notes |= {"groups": ",".join(sorted(groups)), "sits_on": weights_hash(model, without=groups)}
    buffers = {name for name, _ in model.named_buffers()}
    tensors = {
        name: (value.half() if half and name not in buffers else value).contiguous() for name, value in state.items()
    }
    write_bytes(path, serialize(tensors, metadata=notes | {"sha256": _hash(tensors)}))


def weights_hash(model: PromptableSegmenter, *, without: Collection[str] = ()) -> str:
    """Hex SHA-256 over names, types, shapes and bytes of all weights but those of the groups in `without`."""
    return _hash({n: value for n, value in _named_state(model).items() if model.group_of(n) not in without})


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
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
    own = [_without_peft(name) for name in model.state_dict()]
    reader = core_model.checkpoint_reader
    if reader is None or importlib.util.find_spec(reader.partition(".")[0]) is None:
        state, metadata = read_official(path)
    else:
        official_names = {_QKV.sub(r"\1.qkv.", name) for name in own}
        state, metadata = importlib.import_module(reader).read_checkpoint(path, official_names)
    _check_sum(path, state, metadata)
    state = {_without_peft(name): value for name, value in state.items()}
    if model.method == "sam3" or any(name.startswith("tracker_model.") for name in state):
        return from_sam3(state), metadata
    return from_official(state, own) if model.method == "sam2" else _split_qkv(state), metadata


def read_official(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a `.safetensors`, or of a `.pth` as SAM's, HQ-SAM's and SAM2's authors publish them."""
    if not path.is_file():
        raise RossamError(path, "no such file", "name a weights file or the folder of a fine-tuning run")
    try:
        with open(path, "rb") as stream:
            head = stream.read(9)
        if head[8:] == b"{":  # safetensors: the length of a JSON header, the header
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("model", content)
        assert all(isinstance(value, Tensor) for value in state.values())
    except Exception as error:  # damaged pickles raise anything
        remedy = "copy the file again; checkpoints of trainers and Hugging Face folders need the package rossam_kit"
        finding = f"is damaged, or no official checkpoint ({path.stat().st_size:,} bytes)"
        raise RossamError(path, finding, remedy) from error
    return state, {}


def check_weights(path: Path) -> None:
    """Raise `RossamError` where a file that `save_weights` wrote is damaged."""
    _check_sum(path, *read_official(path))


def _check_sum(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    if metadata.get("sha256", "") not in ("", _hash(tensors)):
        raise RossamError(path, "is damaged: its checksum is another", "copy the file again, or train the run anew")


def _check_hash(path: Path) -> None:
    """Raise `RossamError` where a file with an official name is not the published one."""
    official = next((file for file in official_files() if file.name == path.name), None)
    if official is None or not official.known_hash or not path.is_file():
        return
    algorithm, expected = official.known_hash.split(":")
    measured = pooch.file_hash(str(path), algorithm)
    if measured != expected:
        size, remedy = path.stat().st_size, f"fetch {official.url} again, or give a file of your own another name"
        raise RossamError(path, f"{algorithm} is {measured}, expected {expected} ({size:,} bytes)", remedy)


def _split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`attn.qkv.*` -> `attn.q_proj.*`, `attn.k_proj.*`, `attn.v_proj.*`."""
    split = dict(state)
    for name in [name for name in state if ".attn.qkv." in name]:
        for letter, part in zip("qkv", split.pop(name).chunk(3), strict=False):
            split[name.replace(".qkv.", f".{letter}_proj.")] = part
    return split


def _check_backbone(path: Path, model: PromptableSegmenter, tensors: Mapping[str, Tensor], metadata: Mapping) -> None:
    """Raise `RossamError` where the encoder's width and depth are not the model's."""
    patches = next((value for name, value in tensors.items() if _PATCHES.fullmatch(name)), None)
    if _TINY_VIT in tensors:
        finding = "this is MobileSAM or Light HQ-SAM (TinyViT), which the kit does not have"
    elif patches is None:  # a partial file says so itself
        name = metadata.get("backbone", model.backbone)
        if name == model.backbone:
            return
        finding = f"this is for {name}"
    else:
        size = (len(patches), len({match[1] for match in map(_BLOCK.match, tensors) if match}))
        if size == (model.arch.dim, model.arch.depth):
            return
        from rossam_core.model import sam2, sam3  # import transformers, which takes seconds

        all_constants: dict[str, Any] = {**ARCHITECTURES, **sam2.HIERAS, **sam3.SAM3S}
        names = [name for name, arch in all_constants.items() if (arch.dim, arch.depth) == size]
        finding = f"this looks like {(*names, 'no known backbone')[0]}: dim {size[0]}, depth {size[1]}"
    finding += f"; the model is {model.backbone}: dim {model.arch.dim}, depth {model.arch.depth}"
    raise RossamError(path, finding, "build the model with the checkpoint's backbone, or choose another checkpoint")


def _check_names(
    path: Path, model: PromptableSegmenter, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], may_lack: set[str]
) -> None:
    """Raise one `RossamError` with all that does not fit: names, shapes, types, values."""
    present = {model.group_of(name) for name in tensors}
    common = [name for name in own if name in tensors]
    shapes = {name: (tuple(tensors[name].shape), tuple(own[name].shape)) for name in common}
    faults = {
        "missing": [n for n in own if n not in tensors and model.group_of(n) not in may_lack - present],
        "unexpected": [name for name in tensors if name not in own],
        "misshapen": [f"{n} is {shape}, expected {of_own}" for n, (shape, of_own) in shapes.items() if shape != of_own],
        "stored as whole numbers (quantised)": [n for n in common if not tensors[n].is_floating_point()],
        "NaN or infinite": [n for n in common if not tensors[n].isfinite().all()],
    }
    problems = ProblemList(path)
    for kind, names in faults.items():
        if names:
            more = f", and {len(names) - 6} more" if len(names) > 6 else ""
            problems.add(f"{kind} ({len(names)})", ", ".join(names[:6]) + more)
    problems.raise_if_any(_remedy(model, faults))


def _remedy(model: PromptableSegmenter, faults: Mapping[str, list[str]]) -> str:
    if not any(names for kind, names in faults.items() if kind != "NaN or infinite"):
        return "the training that wrote them has diverged, or the file is damaged: take an earlier one"
    groups = {model.group_of(name) for name in faults["missing"] + faults["unexpected"]}
    if groups == {"lora"} and faults["missing"]:
        return "it was never fine-tuned as ROS-SAM: fine-tune it first (rossam train, or fit), or use method hq-sam"
    if groups == {"hq_head"} and not faults["misshapen"]:
        if faults["missing"]:
            return f"this is a plain SAM: use it with method sam, or take HQ-SAM's file of {model.backbone}"
        return f"this holds HQ-SAM's head, too: use it with method hq-sam, or take SAM's file of {model.backbone}"
    remedy = f"this model is {model.method} {model.backbone}; choose a checkpoint of the same"
    if any(name.startswith("image_encoder.pos_embed is") for name in faults["misshapen"]):
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
