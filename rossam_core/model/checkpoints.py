"""Weights in and out: official files of SAM, HQ-SAM and SAM2, and ours as safetensors, loaded strictly.

In: a model and a file. Out: the model filled, or one error that lists all that does not fit, the model untouched.
Names on disk are the checkpoints' own, with Q, K and V apart (`attn.qkv` is split on load and joined by
`save_official`) and without what peft puts between (`base_layer`, the adapter's name).
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pooch
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor
from torch.nn import functional as F

from ..errors import ProblemList, RossamError
from ..files import atomic_path, cache_dir, write_bytes
from .sam import ARCHITECTURES
from .sam2 import HIERAS
from .sam2_keys import from_official, is_official, to_official

if TYPE_CHECKING:
    from .rossam import PromptableSegmenter

_WEIGHTS = Path(__file__).parent.parent / "weights"
SHIPPED = {"vit_t": _WEIGHTS / "vit_t.safetensors", "hiera_t": _WEIGHTS / "hiera_t.safetensors"}
"""Priors that come with the package: `vit_t` holds SAM's weights and an HQ head, `hiera_t` SAM2's."""


@dataclass(frozen=True)
class OfficialFile:
    """A checkpoint its authors publish."""

    name: str
    backbone: str
    hq: bool
    """Whether it holds HQ-SAM's head."""
    md5: str
    sha256: str | None = None
    """None where no trustworthy source states it."""

    @property
    def url(self) -> str:
        folder = "huggingface.co/lkeab/hq-sam/resolve/main" if self.hq else "dl.fbaipublicfiles.com/segment_anything"
        if self.backbone in HIERAS:
            folder = "dl.fbaipublicfiles.com/segment_anything_2/092824"
        return f"https://{folder}/{self.name}"

    @property
    def fetch_name(self) -> str:
        """What `rossam fetch` calls it."""
        return self.name.removesuffix(".pt") if self.backbone in HIERAS else f"sam{'_hq' * self.hq}_{self.backbone}"

    @property
    def known_hash(self) -> str:
        """Algorithm and hex digest, e.g. `sha256:ec2d…`."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}"


OFFICIAL = (
    OfficialFile(
        "sam_vit_b_01ec64.pth",
        "vit_b",
        False,
        "01ec64d29a2fca3f0661936605ae66f8",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    OfficialFile(
        "sam_vit_l_0b3195.pth",
        "vit_l",
        False,
        "0b3195507c641ddb6910d2bb5adee89c",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    OfficialFile(
        "sam_vit_h_4b8939.pth",
        "vit_h",
        False,
        "4b8939a88964f0f4ff5f5b2642c598a6",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    OfficialFile("sam_hq_vit_b.pth", "vit_b", True, "c6b8953247bcfdc8bb8ef91e36a6cacc"),
    OfficialFile("sam_hq_vit_l.pth", "vit_l", True, "08947267966e4264fb39523eccc33f86"),
    OfficialFile("sam_hq_vit_h.pth", "vit_h", True, "3560f6b6a5a6edacd814a1325c39640a"),
    OfficialFile(
        "sam2.1_hiera_tiny.pt",
        "hiera_tiny",
        False,
        "6aa6761c9da74fbaa74b4c790a0a2007",
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    ),
    OfficialFile(
        "sam2.1_hiera_small.pt",
        "hiera_small",
        False,
        "51713b3d1994696d27f35f9c6de6f5ef",
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    OfficialFile(
        "sam2.1_hiera_base_plus.pt",
        "hiera_base_plus",
        False,
        "ec7bd7d23d280d5e3cfa45984c02eda5",
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    OfficialFile(
        "sam2.1_hiera_large.pt",
        "hiera_large",
        False,
        "2b30654b6112c42a115563c638d238d9",
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    ),
)


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
                f"train it with `python -m tools.pretrain RUN_DIR --set backbone={backbone}` and copy its weights.safetensors "
                "to that path; or install the package anew, or name another checkpoint",
            )
        return path
    official = next((file for file in OFFICIAL if (file.backbone, file.hq) == (backbone, hq)), None)
    if official is None:
        raise RossamError(f"backbone {backbone}", "has no default checkpoint", "name a weights file")
    folder = cache_dir() / "checkpoints"  # where `rossam fetch` puts them, too
    path = folder / official.name
    if path.is_file():
        return path
    try:
        return Path(pooch.retrieve(official.url, official.known_hash, official.name, folder, progressbar=True))
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
        path: a `.safetensors` of ours, or an official `.pth` or `.pt` (its hash is checked where the file's name is
            known).
        allow_missing: parameter groups the file may lack altogether; they stay as they are.
        ignore: parameter groups of the file to leave aside, e.g. `("hq_head",)` for a plain SAM from HQ-SAM's file.
        resize_positions: interpolate position embeddings to the model's input size where they differ.

    Returns:
        The file's metadata; empty for a `.pth`; of an official SAM2 file `ignored_video_memory`, the number of its
        tensors that single images do not need. A file that declares itself partial (`groups`) brings those groups
        only, and must have been saved on top of the very weights the model holds in the others.

    Raises:
        RossamError: missing or truncated file, wrong hash, another backbone, or any number of missing, unexpected
            and misshapen names, all at once.
    """
    path = Path(path)
    found, metadata = _read(path, model)
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


def save_official(model: PromptableSegmenter, path: str | os.PathLike) -> None:
    """Write a `.pth` with the official names, for SAM's and HQ-SAM's code: `attn.qkv` joined again.

    SAM2's, below the key `model`, lack the video memory, so its code loads them with `strict=False`.

    Raises:
        RossamError: the model still has adapters.
    """
    state = _named_state(model)
    if any(model.group_of(name) == "lora" for name in state):
        raise RossamError(path, "the model has adapters, which SAM's code does not know", "call merge_adapters first")
    official = {"model": to_official(state)} if model.method == "sam2" else _join_qkv(state)
    with atomic_path(path) as temporary:
        torch.save(official, temporary)


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
    state = model.state_dict()
    return {name.replace(".base_layer.", ".").replace(".default.", "."): value for name, value in state.items()}


def _read(path: Path, model: PromptableSegmenter) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by our names, and metadata."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "no such file"
        raise RossamError(path, found, "name a weights file: .safetensors of ours, or an official .pth")
    _check_hash(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RossamError(
            path,
            f"cannot be read as weights ({reason}); it may be truncated: {path.stat().st_size:,} bytes",
            "fetch or copy the file again; a .pth may hold tensors only",
        ) from error
    if isinstance(state, dict) and set(state) == {"model"}:  # SAM2's
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(state)[:5])) if isinstance(state, dict) else type(state).__name__
        raise RossamError(path, f"holds {keys}, expected tensors by name", "save the model's state_dict alone")
    if is_official(state):
        found, ignored = from_official(state, _named_state(model))
        return found, {"ignored_video_memory": str(ignored)}
    return _split_qkv(state), {}


def _check_hash(path: Path) -> None:
    official = next((file for file in OFFICIAL if file.name == path.name), None)
    if official is None:
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


def _join_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `_split_qkv`; the decoder's own `q_proj` stay apart, as in SAM."""
    joined = {}
    for name, value in state.items():
        if name.startswith("image_encoder.") and ".attn.q_proj." in name:
            parts = [state[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            joined[name.replace(".q_proj.", ".qkv.")] = torch.cat(parts)
        elif not (name.startswith("image_encoder.") and (".attn.k_proj." in name or ".attn.v_proj." in name)):
            joined[name] = value
    return joined


_PATCHES = ("image_encoder.patch_embed.proj.weight", "vision_encoder.backbone.patch_embed.projection.weight")
_BLOCK = re.compile(r"(?:image_encoder|vision_encoder\.backbone)\.blocks\.(\d+)\.")


def _check_backbone(path: Path, model: PromptableSegmenter, found: Mapping[str, Tensor], metadata: Mapping) -> None:
    patches = next((found[name] for name in _PATCHES if name in found), None)
    if patches is None:  # a partial file says so itself
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
    problems = ProblemList(path)
    for kind, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)):
        if names:
            more = f", and {len(names) - 6} more" if len(names) > 6 else ""
            problems.add(f"{kind} ({len(names)})", ", ".join(names[:6]) + more)
    groups = {model.group_of(name) for name in missing + unexpected}
    remedy = f"this model is {model.method} {model.backbone}; choose a checkpoint of the same"
    if groups and groups <= {"lora", "hq_head"}:
        which = " and ".join(sorted(groups))
        remedy += f", or, where {which} may stay fresh or be left aside, say so by allow_missing or ignore"
    problems.raise_if_any(remedy)


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
