"""Networks by name: `build_model`, with official, shipped or fine-tuned weights.

SAM, HQ-SAM and ROS-SAM are `SamSegmenter`s; SAM2 and SAM 3 are in modules of their own, which load transformers.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from rossam_core.errors import ProblemList, RossamError
from rossam_core.files import RUN, is_run, read_sealed
from rossam_core.model import sam
from rossam_core.model.hq_decoder import HQMaskDecoder
from rossam_core.model.lora import AdapterKind, add_adapter, default_rank
from rossam_core.model.segmenter import PromptableSegmenter, SamSegmenter
from rossam_core.model.weights import default_checkpoint, load_checkpoint
from rossam_core.settings import HQ_METHODS, Method

METHODS = ("sam", "hq-sam", "ros-sam")
"""Methods of a `SamSegmenter`."""
ALL_METHODS = get_args(Method)


def backbone_constants(method: str, backbone: str, **overrides: Any) -> Any:
    """Constants of a backbone, some replaced: `Architecture`, `Hiera` for sam2, `Sam3` for sam3."""
    if method in METHODS:
        return sam.architecture(backbone, **overrides)
    from rossam_core.model import sam2, sam3  # import transformers, which takes seconds

    return sam2.hiera(backbone, **overrides) if method == "sam2" else sam3.constants(backbone, **overrides)


def input_size(backbone: str) -> int:
    """Side of the square input of a backbone, pixels."""
    method = "sam" if backbone in sam.ARCHITECTURES else "sam3" if backbone == "sam3" else "sam2"
    return backbone_constants(method, backbone).input_size


def build_model(
    method: str,
    backbone: str,
    checkpoint: str | os.PathLike | None = "default",
    *,
    adapter: AdapterKind | Literal["default"] | None = "default",
    lora_rank: int | None = None,
    hq_decoder: Literal["shared", "copy"] | None = None,
    fresh_hq_head: bool = False,
    for_training: bool = False,
    seed: int = 0,
    **overrides: Any,
) -> PromptableSegmenter:
    """Build a segmenter, in `eval` mode, every parameter trainable.

    Args:
        method: one of `ALL_METHODS`.
        backbone: a key of `ARCHITECTURES`, e.g. `vit_t`; for sam2 of `HIERAS`, e.g. `hiera_t`; for sam3 `sam3`.
        checkpoint: `default` (see `default_checkpoint`), a weights file (`load_checkpoint`), the folder of a
            fine-tuning run (its best weights, see `load_run`), or None for fresh weights. A run's network is built as
            the run says: adapters, decoder, head and constants, if given here too, must be the run's own.
        adapter: adapters on Q and V of every encoder block (`lora.add_adapter`), None: no adapters; `default`: LoRA
            for ros-sam, none for the others. Fresh adapters change no output. Not for sam2 and sam3.
        lora_rank: of the adapters; None: half the encoder's width.
        hq_decoder: `shared`: the HQ head reads SAM's decoder; `copy`: a copy of it (released code); None: that of the
            run, else `shared`.
        fresh_hq_head: with the default checkpoint, leave the HQ head at random weights, as the released code does; a
            checkpoint given by path may hold a head, which is loaded, or none.
        for_training: build the starting point of ROS-SAM's fine-tuning. Otherwise `ros-sam` requires a fine-tuning
            run, a path or None as checkpoint.
        seed: of fresh weights; torch's global generator is not changed.
        overrides: constants of `Architecture` (sam2: `Hiera`, sam3: `Sam3`) to replace. With another `input_size`,
            SAM's position embeddings are interpolated to it (SAM 3's are tiled).

    Raises:
        RossamError: unknown names, ros-sam without fine-tuned weights, a checkpoint that is missing, broken, of
            another model, or a run with other settings than those asked for.
    """
    if method not in ALL_METHODS:
        raise RossamError(f"method {method}", "is not known", f"use one of {', '.join(ALL_METHODS)}")
    if checkpoint is not None and is_run(checkpoint):
        model = load_run(checkpoint)
        if (model.method, model.backbone) != (method, backbone):
            finding = f"is a run of {model.method} {model.backbone}, expected {method} {backbone}"
            raise RossamError(checkpoint, finding, "ask for the run's method and backbone, or name another folder")
        asked: dict[str, Any] = {"adapter": {"default": None, None: "none"}.get(adapter, adapter)}
        asked |= {"lora_rank": lora_rank, "hq_decoder": hq_decoder, "fresh_hq_head": fresh_hq_head or None}
        _refuse_other_settings(checkpoint, model, asked, overrides)
        return model
    if method == "ros-sam" and checkpoint == "default" and not for_training:
        remedy = "fine-tune first (rossam_core.fit) and pass the run's folder as checkpoint, or use hq-sam"
        raise RossamError("method ros-sam", "has no fine-tuned weights: it is what fine-tuning makes of HQ-SAM", remedy)
    if adapter == "default":
        adapter = "lora" if method == "ros-sam" else None
    arch = backbone_constants(method, backbone, **overrides)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the processor's; a GPU's generator stays as it is
        model = _fresh_model(method, backbone, arch, adapter, lora_rank)
    if checkpoint is not None:
        fresh_head = fresh_hq_head and model.has_hq_head
        default = checkpoint == "default"
        path = default_checkpoint(backbone, hq=model.has_hq_head and not fresh_head) if default else checkpoint
        may_lack = ["hq_head"] if fresh_head else []
        may_lack += ["lora"] if for_training or method != "ros-sam" else []  # without it, it is no ROS-SAM
        load_checkpoint(
            model,
            path,
            allow_missing=may_lack,
            ignore=("hq_head",) if default and (method == "sam" or fresh_head) else (),
            resize_positions="input_size" in overrides,
        )
    if hq_decoder == "copy" and isinstance(model.mask_decoder, HQMaskDecoder):
        model.mask_decoder.copy_sam_decoder(arch)
    return model.eval()


def _fresh_model(
    method: str, backbone: str, arch: Any, adapter: AdapterKind | None, lora_rank: int | None
) -> PromptableSegmenter:
    """A network with weights drawn from torch's generator."""
    if method in METHODS:
        model = SamSegmenter(method, backbone, arch)
        if adapter is not None:
            add_adapter(model, default_rank(arch.dim) if lora_rank is None else lora_rank, adapter)
        return model
    from rossam_core.model import sam2, sam3

    if adapter is not None:
        raise RossamError(f"method {method}", f"has no adapters ({adapter})", "use sam, hq-sam or ros-sam")
    return sam2.Sam2Segmenter(backbone, arch) if method == "sam2" else sam3.Sam3Segmenter(backbone, arch)


def build_base(run: Mapping[str, Any]) -> PromptableSegmenter:
    """The network from which a fine-tuning run starts; `run`: the values of a `RunConfig`."""
    training, checkpoint = run["training"], run["checkpoint"]
    trains_adapter = "lora" in training["trained_groups"]
    kept: Literal["default"] | None = "default" if checkpoint is not None and is_run(checkpoint) else None
    return build_model(
        run["method"],
        run["backbone"],
        checkpoint,
        adapter=training["adapter"] if trains_adapter else kept,
        lora_rank=training["lora_rank"] if trains_adapter else None,
        for_training=True,
        **{key: training[key] for key in ("hq_decoder", "fresh_hq_head", "seed")},
        **run["architecture"],
    )


def load_run(run_dir: str | os.PathLike, which: str = "best") -> PromptableSegmenter:
    """The network that the fine-tuning run in a folder has trained: its base with the trained groups, in `eval` mode.

    Args:
        which: `best` (validation IoU) or `last`.

    Raises:
        RossamError: no run there, or a base that is not the one the groups were trained on.
    """
    path, run = Path(run_dir) / RUN, read_run(run_dir)
    base = run.get("checkpoint")
    if base not in (None, "default") and not Path(base).exists():
        raise RossamError(base, f"is not there, and {run_dir} holds only what was trained on top of it", "put it back")
    try:
        model = build_base(run)
        training = run["training"]
        model.default_mask_source = trained_mask(run["method"], training["trained_groups"], training["alternate"])
    except KeyError as error:
        raise RossamError(path, f"lacks {error}", "name the folder of a run that `fit` made") from error
    load_checkpoint(model, path.with_name(f"weights_{which}.safetensors"))
    model.supports_points = False  # it was fine-tuned with boxes only
    return model


def trained_mask(method: str, trained_groups: Collection[str], alternate: str) -> Literal["sam", "hq"]:
    """The mask that a run chooses its best weights by, and answers with: the HQ mask, unless SAM's alone is trained."""
    hq_is_trained = "hq_head" in trained_groups or "sam_decoder" not in trained_groups
    return "hq" if method in HQ_METHODS and (hq_is_trained or alternate == "groups") else "sam"


def read_run(run_dir: str | os.PathLike) -> dict[str, Any]:
    """The values of the `RunConfig` of the run in a folder; `RossamError` where `run.json` is damaged or foreign."""
    path = Path(run_dir) / RUN
    values = read_sealed(path).get("run")
    if not isinstance(values, dict):
        raise RossamError(path, "lacks 'run'", "name the folder of a run that `fit` made")
    return values


def _adapter_of_run(run_dir: str | os.PathLike) -> tuple[AdapterKind | None, int | None]:
    """Kind and rank (None: the default) of the adapters of a run's network, perhaps those of the run it began from."""
    run = read_run(run_dir)
    if "lora" in run["training"]["trained_groups"]:
        return run["training"]["adapter"], run["training"]["lora_rank"]
    base = run["checkpoint"]
    return _adapter_of_run(base) if base is not None and is_run(base) else (None, None)


def _refuse_other_settings(
    run_dir: str | os.PathLike, model: PromptableSegmenter, asked: Mapping[str, Any], overrides: Mapping[str, Any]
) -> None:
    """Raise `RossamError` where settings are asked for (None: not) that a run's network does not have, all at once."""
    kind, rank = _adapter_of_run(run_dir)
    rank = default_rank(model.arch.dim) if kind is not None and rank is None else rank
    own: dict[str, Any] = {"adapter": kind or "none", "lora_rank": rank}
    if model.has_hq_head:
        own |= {key: read_run(run_dir)["training"][key] for key in ("hq_decoder", "fresh_hq_head")}
    problems = ProblemList(run_dir)
    for key, value in own.items():
        if asked[key] not in (None, value):
            problems.add(key, f"the run has {value!r}, asked for is {asked[key]!r}")
    constants = backbone_constants(model.method, model.backbone, **overrides)
    for key in overrides:
        if (there := getattr(model.arch, key)) != (wanted := getattr(constants, key)):
            problems.add(key, f"the run has {there!r}, asked for is {wanted!r}")
    problems.raise_if_any("ask for the run's own settings (the recipe it was trained with), or name other weights")
