"""SAM, HQ-SAM and ROS-SAM as one class, and `build_model`, which builds any promptable segmenter by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rossam_core.errors import RossamError
from rossam_core.files import read_json
from rossam_core.model.hq_decoder import BoxMaskDecoder, HQMaskDecoder, MaskLogits
from rossam_core.model.lora import AdapterKind, add_adapter, default_rank, is_adapter
from rossam_core.model.sam import Architecture, ImageEncoder, architecture, build_prompt_encoder, fuse_channel_norms
from rossam_core.model.sam2 import HIERAS, Sam2Segmenter, hiera
from rossam_core.model.segmenter import GROUPS, ImageEmbeddings, Points, PromptableSegmenter
from rossam_core.model.weights import default_checkpoint, load_checkpoint

METHODS = ("sam", "hq-sam", "ros-sam")
"""Methods of a `SamSegmenter`; `sam2` is the fourth."""
HqDecoder = Literal["shared", "copy"]
_HQ_HEAD = re.compile(r"mask_decoder\.(hf_token|hf_mlp|compress_vit_feat|embedding_encoder|embedding_maskfeature)\.")


class SamSegmenter(PromptableSegmenter):
    """`sam`, `hq-sam` (SAM with the HQ head) or `ros-sam` (the same, answering with the HQ mask alone).

    Parameters are named as in SAM's and HQ-SAM's checkpoints. Adapters are an option of each (`build_model`).
    """

    def __init__(self, method: str, backbone: str, arch: Architecture):
        super().__init__(method, backbone, arch)
        self.default_mask_source = {"sam": "sam", "hq-sam": "sum", "ros-sam": "hq"}[method]
        self.has_hq_head = method != "sam"
        self.image_encoder = ImageEncoder(arch)
        self.prompt_encoder = build_prompt_encoder(arch)
        self.mask_decoder = HQMaskDecoder(arch) if self.has_hq_head else BoxMaskDecoder(arch)
        fuse_channel_norms(self)

    def encode(self, images: Tensor) -> ImageEmbeddings:
        final, early = self.image_encoder(self._normalised(images))
        return ImageEmbeddings(final, early if self.has_hq_head else None)

    def prepare(self, embeddings: ImageEmbeddings) -> ImageEmbeddings:
        if not self.has_hq_head or embeddings.high_resolution:
            return embeddings
        features = self.mask_decoder.hq_features(embeddings.final, embeddings.early)
        return embeddings._replace(early=None, high_resolution=(features,))

    def decode(self, embeddings: ImageEmbeddings, boxes: Sequence[Tensor], points: Points | None = None) -> MaskLogits:
        prompts, index = self._prompts(embeddings, boxes)
        hq_features = self.prepare(embeddings).high_resolution[0] if self.has_hq_head else None
        with torch.autocast(prompts.device.type, enabled=False):  # coordinates times 2π need all digits of float32
            sparse, _ = self.prompt_encoder(self._points(points, prompts), prompts, None)
            image_pe = self.prompt_encoder.get_dense_pe()
        no_mask = self.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        return self.mask_decoder(embeddings.final, hq_features, image_pe, sparse, no_mask, index)

    def group_of(self, name: str) -> str:
        """The group of a parameter or buffer of that name.

        `lora`: adapters; `last_block`: the rest of the encoder's last block; `encoder`: the rest of the encoder;
        `prompt_encoder`; `hq_head`: what HQ-SAM adds to the decoder; `decoder_copy`: the copy of SAM's decoder that
        the HQ head may read instead of SAM's own; `sam_decoder`: the rest of the decoder.
        """
        if is_adapter(name):
            return "lora"
        if name.startswith(f"image_encoder.blocks.{self.arch.depth - 1}."):
            return "last_block"
        if name.startswith("image_encoder."):
            return "encoder"
        if name.startswith("prompt_encoder."):
            return "prompt_encoder"
        if name.startswith("mask_decoder.hq_base."):
            return "decoder_copy"
        return "hq_head" if _HQ_HEAD.match(name) else "sam_decoder"


def input_size(backbone: str) -> int:
    """Side of the square input of a backbone, pixels."""
    return (hiera(backbone) if backbone in HIERAS else architecture(backbone)).input_size


def set_trainable(model: PromptableSegmenter, groups: Iterable[str]) -> list[nn.Parameter]:
    """Let exactly the named groups train, freeze the rest, and return the parameters that train.

    Raises:
        RossamError: a name that is no group, or a group with no parameters in this model.
    """
    wanted, found = set(groups), model.parameter_groups()
    empty = sorted(group for group in wanted if not found.get(group))
    if empty:
        there = ", ".join(group for group, members in found.items() if members)
        raise RossamError(
            f"trainable groups {', '.join(empty)}",
            f"match no parameter of this {model.method} {model.backbone}",
            f"choose among {there}",
        )
    for group, members in found.items():
        for _, parameter in members:
            parameter.requires_grad_(group in wanted)
    return [parameter for group in GROUPS if group in wanted for _, parameter in found[group]]


def build_model(
    method: str,
    backbone: str,
    checkpoint: str | os.PathLike | None = "default",
    *,
    adapter: AdapterKind | Literal["default"] | None = "default",
    lora_rank: int | None = None,
    hq_decoder: HqDecoder = "shared",
    fresh_hq_head: bool = False,
    for_training: bool = False,
    seed: int = 0,
    **overrides,
) -> PromptableSegmenter:
    """Build a segmenter, in `eval` mode, every parameter trainable.

    Args:
        method: `sam`, `hq-sam`, `ros-sam` or `sam2`.
        backbone: `vit_t`, `vit_b`, `vit_l` or `vit_h`; for sam2 `hiera_t` (ours), `hiera_tiny`, `hiera_small`,
            `hiera_base_plus` or `hiera_large`.
        checkpoint: `default` (see `default_checkpoint`), a weights file (`load_checkpoint`), a Hugging Face folder, the
            folder of a fine-tuning run (its best weights, see `build_from_run`), or None for fresh weights.
        adapter: adapters on Q and V of every encoder block (`lora.add_adapter`), None: no adapters; `default`: LoRA
            for ros-sam, none for the others. Fresh adapters change no output. Not for sam2.
        lora_rank: of the adapters; None: half the encoder's width.
        hq_decoder: `shared`: the HQ head reads SAM's decoder; `copy`: a copy of it (released code).
        fresh_hq_head: leave the HQ head at random weights, as the released code does, although a prior for it exists;
            a file named by path may then hold an HQ head, which is loaded, or none.
        for_training: build the starting point of ROS-SAM's fine-tuning. Without it `ros-sam` is refused unless its
            checkpoint is a fine-tuning run, a path, or None.
        seed: of fresh weights; torch's global generator is left as it was.
        overrides: constants of `Architecture` (sam2: `Hiera`) to replace. With another `input_size`, the checkpoint's
            position embeddings are interpolated to it.

    Raises:
        RossamError: unknown names, ros-sam without fine-tuned weights, a checkpoint that is missing, broken, or of
            another model.
    """
    if method not in (*METHODS, "sam2"):
        raise RossamError(f"method {method}", "is not in this build", f"use one of {', '.join(METHODS)}, sam2")
    if checkpoint is not None and (Path(checkpoint) / "run.json").is_file():
        return _expect(build_from_run(checkpoint), method, backbone, checkpoint)
    if method == "ros-sam" and checkpoint == "default" and not for_training:
        raise RossamError(
            "method ros-sam",
            "has no fine-tuned weights: ROS-SAM is what fine-tuning makes of HQ-SAM",
            "fine-tune first (rossam_core.fit) and pass the run's folder as checkpoint, or use hq-sam",
        )
    if adapter == "default":
        adapter = "lora" if method == "ros-sam" else None
    if method == "sam2" and adapter is not None:
        raise RossamError("method sam2", f"has no adapters ({adapter})", "use sam, hq-sam or ros-sam")
    arch = hiera(backbone, **overrides) if method == "sam2" else architecture(backbone, **overrides)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the processor's; a GPU's generator stays as it is
        model = Sam2Segmenter(backbone, arch) if method == "sam2" else SamSegmenter(method, backbone, arch)
        if adapter is not None:
            add_adapter(model, default_rank(arch.dim) if lora_rank is None else lora_rank, adapter)
    fresh_head = fresh_hq_head and model.has_hq_head
    if checkpoint is not None:
        default = checkpoint == "default"
        load_checkpoint(
            model,
            default_checkpoint(backbone, hq=model.has_hq_head and not fresh_head) if default else checkpoint,
            allow_missing=("lora", "hq_head") if fresh_head else ("lora",),
            ignore=("hq_head",) if default and (method == "sam" or fresh_head) else (),
            resize_positions="input_size" in overrides,
        )
    if hq_decoder == "copy" and model.has_hq_head:
        model.mask_decoder.copy_sam_decoder(arch)
    return model.eval()


def build_from_run(run_dir: str | os.PathLike, which: str = "best") -> PromptableSegmenter:
    """The network a fine-tuning run has trained: its base with the trained groups on top, in `eval` mode.

    Args:
        run_dir: holds `run.json` and `weights_best.safetensors`, `weights_last.safetensors`.
        which: `best` (validation IoU) or `last`.

    Raises:
        RossamError: no run there, or a base that is not the one the groups were trained on.
    """
    path = Path(run_dir) / "run.json"
    run = read_json(path).get("run", {})
    try:
        training = run["training"]
        model = build_model(
            run["method"],
            run["backbone"],
            run["checkpoint"],
            adapter=training["adapter"] if "lora" in training["trained_groups"] else None,
            for_training=True,
            **{key: training[key] for key in ("lora_rank", "hq_decoder", "fresh_hq_head", "seed")},
            **run["architecture"],
        )
    except KeyError as error:
        raise RossamError(path, f"lacks {error}", "name the folder of a run that `fit` made") from error
    load_checkpoint(model, path.with_name(f"weights_{which}.safetensors"))
    model.supports_points = False  # it was fine-tuned with boxes only
    return model


def _expect(model: PromptableSegmenter, method: str, backbone: str, where: str | os.PathLike) -> PromptableSegmenter:
    if (model.method, model.backbone) != (method, backbone):
        found = f"holds a run of {model.method} {model.backbone}, expected {method} {backbone}"
        raise RossamError(where, found, "ask for the method and backbone of the run, or name another folder")
    return model
